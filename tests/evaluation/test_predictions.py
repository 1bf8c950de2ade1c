import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.predictions import (
    ISIC_COLUMNS,
    Predictions,
    isic_submission,
    load_predictions,
    predict_logits,
    save_predictions,
    softmax,
)
from melanoma_lib.models.build import build_model, normalisation


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    return Predictions(
        image_ids=np.array([f"ISIC_{i}" for i in range(6)]),
        lesion_ids=np.array(list("aabbcd")),
        splits=np.array(["val"] * 3 + ["test"] * 3),
        labels=np.array([4, 0, 4, 1, 4, 6]),
        logits=rng.normal(size=(6, 7)).astype(np.float32),
    )


def test_they_come_back_as_they_were_written(predictions, tmp_path):
    save_predictions(tmp_path / "p.parquet", predictions)
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert list(table)[:4] == ["image_id", "lesion_id", "part", "label"]
    assert list(table)[4:] == [f"logit_{name}" for name in CLASS_NAMES]
    assert table["label"][0] == "mel"
    again = load_predictions(tmp_path / "p.parquet")
    for name in ("image_ids", "lesion_ids", "splits", "labels", "logits"):
        assert np.array_equal(getattr(again, name), getattr(predictions, name))
    assert again.class_names == CLASS_NAMES


def test_columns_in_another_order_keep_their_meaning(predictions, tmp_path):
    save_predictions(tmp_path / "p.parquet", predictions)
    table = pd.read_parquet(tmp_path / "p.parquet")
    table[list(reversed(table.columns))].to_parquet(tmp_path / "q.parquet")
    again = load_predictions(tmp_path / "q.parquet")
    assert again.class_names == CLASS_NAMES[::-1]
    assert again.melanoma_probability() == pytest.approx(predictions.melanoma_probability())
    assert np.array_equal(again.is_melanoma, predictions.is_melanoma)


def test_parts_and_melanoma(predictions):
    test = predictions.split("test")
    assert test.image_ids.tolist() == ["ISIC_3", "ISIC_4", "ISIC_5"]
    assert test.is_melanoma.tolist() == [False, True, False]
    assert test.melanoma_probability(2.0) == pytest.approx(
        scipy.special.softmax(test.logits.astype(float) / 2, axis=1)[:, 4]
    )


def test_softmax_is_scipys_and_survives_large_logits():
    logits = np.random.default_rng(0).normal(size=(5, 7)) * 10
    assert softmax(logits) == pytest.approx(scipy.special.softmax(logits, axis=1))
    assert softmax(logits, 4.0) == pytest.approx(scipy.special.softmax(logits / 4, axis=1))
    assert softmax(np.array([1000.0, 0.0])).tolist() == [1, 0]


def test_a_submission_has_the_columns_of_the_challenge(predictions, tmp_path):
    test = predictions.split("test")
    table = isic_submission(test, 1.5)
    table.to_csv(tmp_path / "submission.csv", index=False)
    header, first = (tmp_path / "submission.csv").read_text().splitlines()[:2]
    assert header == "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC" and first.startswith("ISIC_3,0.")
    assert table["image"].tolist() == ["ISIC_3", "ISIC_4", "ISIC_5"]
    assert table[list(ISIC_COLUMNS)].sum(axis=1).to_numpy() == pytest.approx(1)
    assert table["MEL"].to_numpy() == pytest.approx(test.melanoma_probability(1.5))
    for column, name in enumerate(CLASS_NAMES):
        assert table[name.upper()].to_numpy() == pytest.approx(test.probabilities(1.5)[:, column])


def test_other_classes_cannot_be_submitted(predictions):
    other = dataclasses.replace(predictions, class_names=("a", *CLASS_NAMES[1:]))
    with pytest.raises(MelanomaError, match="other classes"):
        isic_submission(other, 1.0)


def of_one_row(**values):
    row = {"image_id": "a", "lesion_id": "b", "part": "test", "label": "x", "logit_x": 1.0} | values
    return pd.DataFrame([row]).to_parquet


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "train first"),
        (lambda path: path.write_text("no"), "cannot be read"),
        (pd.DataFrame({"a": [1]}).to_parquet, "does not hold predictions"),
        (of_one_row(label="y"), "does not hold predictions"),
        (of_one_row(logit_x=np.inf), "not finite"),
    ],
)
def test_foreign_or_damaged_files_are_reported(write, message, tmp_path):
    write(tmp_path / "p.parquet")
    with pytest.raises(MelanomaError, match=message):
        load_predictions(tmp_path / "p.parquet")


def test_logits_come_in_order_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = build_model("test_resnet", 7, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    data = HAM10000Dataset(pixels, np.zeros(9, int), np.array([8, 3, 5, 1]))
    whole = predict_logits(model, data, 4, normalisation(model))
    single = predict_logits(model, data, 1, normalisation(model))
    assert whole.shape == (4, 7) and np.allclose(whole, single, atol=1e-4)
    alone = HAM10000Dataset(pixels, np.zeros(9, int), np.array([5]))
    third = predict_logits(model, alone, 1, normalisation(model))[0]
    assert np.allclose(third, whole[2], atol=1e-4)


def test_where_memory_runs_out_batches_become_smaller():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    data, sizes = HAM10000Dataset(pixels, np.zeros(9, int), np.arange(9)), []

    class Large(torch.nn.Linear):
        def forward(self, images):
            sizes.append(len(images))
            if len(images) > self.fit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images.flatten(1))

    model = Large(192, 7)
    model.fit = 3
    found = predict_logits(model, data, 8, ([0.5] * 3, [0.5] * 3))
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    model.fit = 9
    assert np.allclose(found, predict_logits(model, data, 9, ([0.5] * 3, [0.5] * 3)), atol=1e-5)
    model.fit = 0
    with pytest.raises(torch.OutOfMemoryError):
        predict_logits(model, data, 8, ([0.5] * 3, [0.5] * 3))
