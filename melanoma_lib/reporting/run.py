"""A run read from its folder, for the figures: no training, model or image is needed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.data.dataset_files import read_metadata
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.model_metrics import bootstrap_metrics
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.reporting import compare


@dataclass(frozen=True)
class Run:
    """Results (docs/results.md), predictions by architecture, and the dataset's table."""

    folder: Path
    results: dict
    predictions: dict[str, Predictions]
    metadata: pd.DataFrame | None = None  # None: the figures of the table are copied
    seed: int = 0  # of the split

    @property
    def models(self) -> list[tuple[str, dict]]:
        """The name in print and the results of every model."""
        return [(model["name"], model) for model in self.results["models"].values()]

    def split(self, name: str) -> list[Predictions]:
        """Every model's predictions for the split `val` or `test`, in the order of `models`."""
        return [self.predictions[key].split(name) for key in self.results["models"]]

    def only(self, key: str) -> "Run":
        """The same run with one of its models."""
        return replace(self, results=self.results | {"models": {key: self.results["models"][key]}})


def open_run(results_file: Path, metadata: Path | str = "") -> Run:
    """Reads a run by its results; raises `MelanomaError` where files do not belong together."""
    results, folder = read_json(results_file), Path(results_file).parent
    if results.get("schema") != compare.SCHEMA:
        raise MelanomaError(f"{results_file} has another layout; run chapter 08 again")
    loaded = {key: load_trained_run(folder / key) for key in results["models"]}
    for key, (record, bundle, _) in loaded.items():
        theirs = record["dataset"]["fingerprint"], bundle["temperature"]
        model = results["models"][key]
        if theirs != (results["dataset"]["fingerprint"], model["temperature"]):
            raise MelanomaError(f"{key} was trained again after {results_file}; run chapter 08")
    table = read_metadata(metadata) if metadata else None
    if table is not None and len(table) != results["dataset"]["images"]:
        raise MelanomaError(f"{metadata} is not the table that the run used")
    seed = next(iter(loaded.values()))[0]["config"].get("seed", 0)
    return Run(folder, results, {key: p for key, (_, _, p) in loaded.items()}, table, seed)


def open_trained(run_dir: Path | str, keys: Iterable[str]) -> Run:
    """A run whose models are trained and not compared yet: enough for chapters 04, 05 and 06.

    keys: the architectures. Raises `MelanomaError` where one is not trained to the end.
    """
    models, predictions = {}, {}
    for key in keys:
        trained = load_trained_run(Path(run_dir) / key)
        predictions[key] = trained.predictions
        weights = bootstrap_weights(trained.predictions.split("test").lesion_ids)
        bootstrapped = bootstrap_metrics([trained], weights)
        measured = compare.estimates_on_test([trained], weights, bootstrapped)
        models[key] = {"name": trained.record["name"], **measured}
    return Run(Path(run_dir), {"models": models}, predictions)
