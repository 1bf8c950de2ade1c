"""A linear probe: the best linear output layer for the features of a network as it is.

The features are computed once and kept on disk; what is left is a multinomial logistic regression
(Kornblith et al., 2019).
"""

import hashlib
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import nn

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import atomic_path, cache_folder, digest
from melanoma_lib.core.progress import progress
from melanoma_lib.data.torch_dataset import HAM10000Dataset, TrainingData
from melanoma_lib.evaluation.metrics import accuracy, nll
from melanoma_lib.evaluation.predictions import predict_logits, softmax
from melanoma_lib.models.build import normalisation

# Inverse strengths of the L2 penalty on the weights of standardised features.
STRENGTHS = tuple(10.0**power for power in (-4, -3.5, -3, -2.5, -2, -1.5, -1))
ABSENT = -30.0  # the logit of a class without training images: a probability of 1e-13


def fit_output_layer(model: nn.Module, data: TrainingData, batch_size: int) -> list[dict]:
    """Gives the model its best linear output layer; returns that as epoch 0 of a history.

    Raises `MelanomaError` for a network whose output is not one linear layer.
    """
    start, layer = time.perf_counter(), output_layer(model)
    features, labels = split_features(model, data, batch_size)
    weight, bias = fit_linear(features, labels, layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    row: dict = {"epoch": 0, "parts": 1, "best": True}
    for name in features:
        probabilities = softmax(features[name] @ weight.T + bias)
        row[f"{name}_loss"] = float(nll(labels[name], probabilities))
        row[f"{name}_accuracy"] = float(accuracy(labels[name], probabilities))
    row["seconds"] = time.perf_counter() - start
    return [row | {"images_per_second": sum(map(len, labels.values())) / row["seconds"]}]


def output_layer(model: nn.Module) -> nn.Linear:
    """The network's last layer; raises `MelanomaError` where it is not one linear layer."""
    layer = model.get_classifier()
    if not isinstance(layer, nn.Linear) or layer.bias is None:
        raise MelanomaError(
            "this network does not end in one linear layer, which a probe needs; choose another "
            "--recipe"
        )
    return layer


def split_features(
    model: nn.Module, data: TrainingData, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The features (n, channels) and the labels (n,) of the images of `train` and of `val`."""
    splits = {name: data.dataset(name) for name in ("train", "val")}
    key = _key(model, data)
    features = {
        name: extract_features(model, dataset, batch_size, f"{key}-{digest(dataset.rows.tolist())}")
        for name, dataset in splits.items()
    }
    return features, {name: dataset.labels[dataset.rows] for name, dataset in splits.items()}


def extract_features(
    model: nn.Module, dataset: HAM10000Dataset, batch_size: int, key: str
) -> np.ndarray:
    """What the output layer gets for every image, float32 (n, channels).

    Kept on disk beside the decoded pixels; `key` identifies the network and the images.
    """
    path = cache_folder() / f"{key}-features.npy"
    with suppress(OSError, ValueError, EOFError):  # absent, or damaged by a disk
        return np.load(path)
    found: list[torch.Tensor] = []
    hook = output_layer(model).register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0].float().cpu())
    )
    try:
        predict_logits(model, dataset, batch_size, normalisation(model))
    finally:
        hook.remove()
    features = torch.cat(found)[-len(dataset) :].numpy()  # after those of batches too large
    with atomic_path(path) as temporary:
        np.save(temporary, features)
    return features


def _key(model: nn.Module, data: TrainingData) -> str:
    """Identifies the dataset at this image size, and the network below its output layer."""
    last = {id(parameter) for parameter in output_layer(model).parameters()}
    weights = hashlib.sha256()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in last:
            weights.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"{data.files.fingerprint}-{data.pixels.shape[1]}px-{weights.hexdigest()[:16]}"


def fit_linear(
    features: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The multinomial logistic regression with the lowest negative log-likelihood on validation.

    features (n, channels) and labels (n,) of `train` and `val`. Returns weights (classes, channels)
    and biases (classes,), float32. The penalty is on the weights of standardised features, its
    strength one of `STRENGTHS`. Raises `MelanomaError` for fewer than three classes in training.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels["train"])) < 3:
        raise MelanomaError("a probe needs training images of at least three diagnoses")
    mean, scale = features["train"].mean(0), features["train"].std(0) + 1e-6
    standardised = (features["train"] - mean) / scale
    regression = LogisticRegression(warm_start=True, max_iter=200, tol=1e-3)
    found = []
    for strength in progress(STRENGTHS, "probe"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an early end regularises, too
            regression.set_params(C=strength).fit(standardised, labels["train"])
        weight, bias = np.zeros((classes, len(scale))), np.full(classes, ABSENT)
        weight[regression.classes_] = regression.coef_ / scale
        bias[regression.classes_] = regression.intercept_
        bias -= weight @ mean
        loss = nll(labels["val"], softmax(features["val"] @ weight.T + bias))
        found.append((float(loss), np.float32(weight), np.float32(bias)))
    return min(found, key=lambda fit: fit[0])[1:]
