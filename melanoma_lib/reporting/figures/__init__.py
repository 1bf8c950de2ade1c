"""Every figure of the thesis: a run or data in, a matplotlib figure out; the style, and `save`."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.split import is_leaked, lesion_groups, make_split
from melanoma_lib.reporting.figures import abstention, calibration, models, thresholds
from melanoma_lib.reporting.figures.catalogue import CATALOG, EXTERNAL, PER_MODEL, catalog_markdown
from melanoma_lib.reporting.figures.data import (
    abcde,
    augmentation,
    class_counts,
    examples,
    lesion_leak,
    patients,
)
from melanoma_lib.reporting.figures.elements import subplots
from melanoma_lib.reporting.figures.explanation import (
    OVERLAPS,
    agreement,
    grad_cam,
    mask_overlap,
    occlusion,
    randomised_weights,
)
from melanoma_lib.reporting.figures.models import architectures, value_of_trainings
from melanoma_lib.reporting.figures.recipes import by_diagnosis, learning_rates, time_to_quality
from melanoma_lib.reporting.figures.style import MODEL_COLOURS, WIDTH, page, save, style
from melanoma_lib.reporting.figures.training import confusion_matrices, training_curves
from melanoma_lib.reporting.run import Run


def _histories(run: Run) -> dict[str, pd.DataFrame]:
    return {
        model["name"]: pd.read_csv(run.folder / key / "history.csv")
        for key, model in run.results["models"].items()
    }


def _matrices(run: Run) -> dict[str, np.ndarray]:
    return {name: np.array(model["confusion_matrix"]) for name, model in run.models}


def _explained(run: Run) -> dict[str, dict]:
    return {name: model.get("explanations") for name, model in run.models}


def _agreements(run: Run) -> dict[str, dict]:
    names = {key: model["name"] for key, model in run.results["models"].items()}
    return {
        f"{names[pair['first']]}, {names[pair['second']]}": pair["agreement"]
        for pair in run.results["differences"]
    }


PLOTS: dict[str, Callable[[Run], Figure]] = {
    "01-1-class-counts": lambda run: class_counts(run.metadata),
    "01-2-patients": lambda run: patients(run.metadata),
    "01-4-lesion-leak": lambda run: lesion_leak(
        lesion_groups(run.metadata).value_counts(),
        is_leaked(make_split(run.metadata, "image", run.seed)),
    ),
    "04-1-training-curves": lambda run: training_curves(_histories(run)),
    "04-2-confusion-matrix": lambda run: confusion_matrices(_matrices(run), CLASS_NAMES),
    "05-1-reliability": calibration.reliability,
    "05-2-temperature": calibration.temperature_curve,
    "05-3-melanoma-reliability": partial(calibration.reliability, of_melanoma=True),
    "06-1-roc": thresholds.roc,
    "06-2-thresholds": thresholds.threshold_curves,
    "06-3-operating-points": thresholds.operating_points,
    "06-4-decision-curves": thresholds.decision_curves,
    "07-2-mask-overlap": lambda run: mask_overlap(_explained(run)),
    "07-4-randomised-weights": lambda run: randomised_weights(_explained(run)),
    "07-5-agreement": lambda run: agreement(_explained(run), _agreements(run)),
    "07-6-occlusion": lambda run: occlusion(
        {name: model["occlusion"] for name, model in run.models}
    ),
    "08-1-comparison": models.comparison,
    "08-2-training-curves": lambda run: training_curves(_histories(run)),
    "08-3-confusion-matrices": lambda run: confusion_matrices(_matrices(run), CLASS_NAMES),
    "08-4-accuracy-latency": models.accuracy_latency,
    "08-5-subgroups": models.subgroups,
    "08-6-price-of-leakage": models.price_of_leakage,
    "08-7-leaked-fraction": models.leaked_fraction,
    "08-8-two-splits": models.two_splits,
    "11-1-risk-coverage": abstention.risk_coverage,
    "11-2-referral": abstention.referral,
    "11-3-kept-promises": abstention.thresholds_meeting_target,
    "11-4-prediction-sets": abstention.prediction_sets,
    "11-5-shifts": abstention.shifts,
}


def plot(run: Run, name: str, key: str = "") -> Figure | None:
    """The figure `name`, of the model `key` where each model has one; None if it cannot be plotted.

    Some figures need models, images, the dataset's table, trainings with leakage (two leaked
    fractions), a run on the other split, or the results of chapter 11.
    """
    explained = _explained(run).values()
    leaked = run.results.get("leakage", {"fractions": []})["fractions"]
    lacks = {
        "01": run.metadata is None,
        "07": not all(explained),
        "07-2": not all(entry and entry["images"] for entry in explained),
        "07-6": not all(model.get("occlusion") for _, model in run.models),
        "08-6": not leaked,
        "08-7": len(leaked) < 2,
        "08-8": "price_of_leakage" not in run.results,
        "11": "abstention" not in run.results,
    }
    if name not in PLOTS or any(lacks[start] for start in lacks if name.startswith(start)):
        return None
    return PLOTS[name](run.only(key) if key else run)
