import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_lib.data.torch_dataset import TrainingData
from melanoma_lib.evaluation.predictions import Predictions, predict_logits
from melanoma_lib.models.build import build_model, normalisation, normalise, to_input
from melanoma_lib.training.train import predict_with_flips


def test_an_image_and_its_mirror_images_are_predicted_together():
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8), np.array([0, 1, 2, 3, 4])
    parts = ["test", "train", "val", "val", "test"]
    split = pd.DataFrame({"image_id": list("abcde"), "part": parts})
    data, rows = TrainingData(None, split, pixels, labels), [2, 3, 0, 4]
    torch.manual_seed(0)
    model = build_model("test_vit", 7, 32).eval()
    plain = [predict_logits(model, data.dataset(name), 2, normalisation(model))
             for name in ("val", "test")]  # fmt: skip
    ids = np.array(list("cdae"))
    given = Predictions(ids, ids, np.array(["val"] * 2 + ["test"] * 2), labels[rows],
                        np.concatenate(plain))  # fmt: skip
    flipped = predict_with_flips(model, data, given, 2)
    images = to_input(torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2))
    with torch.inference_mode():
        each = [model(normalise(images.flip(axes), *normalisation(model))).softmax(1)
                for axes in ([], [2], [3], [2, 3])]  # fmt: skip
    expected = torch.stack(each).mean(0).numpy()
    assert flipped.probabilities() == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(given.probabilities(), expected, atol=1e-4)
    assert (flipped.image_ids == ids).all() and (flipped.labels == given.labels).all()
