"""Conformal prediction sets, with a marginal or a class-conditional guarantee of coverage.

Calibrated on one image a lesion, because images of a lesion are not exchangeable. The promise is
for one image of a new lesion of the same kind as those of validation: it says nothing of other
cameras or other patients, and holds on average over validation sets.
"""

from collections.abc import Callable, Sequence

import numpy as np

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.evaluation.bootstrap import SEED
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trainings import estimate_fractions, estimate_metric

COVERAGE = 0.9  # nominal: how often the set is to hold the true diagnosis


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores of calibration.

    The score of a further, exchangeable case is at most that with a probability of at least
    `coverage`: among n + 1 it takes any rank with the same probability. Infinite where n is too
    small (Vovk et al., 2005).
    """
    rank = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else np.inf


def threshold_scores(probabilities: np.ndarray) -> np.ndarray:
    """LAC scores, 1 - p(class), (n, classes): smallest sets on average (Sadinle et al., 2019)."""
    return 1 - probabilities


def adaptive_scores(probabilities: np.ndarray, uniform: np.ndarray | None = None) -> np.ndarray:
    """APS scores: the summed probability of the classes ranked above, and part of the class's own.

    (n, classes). `uniform` (n,) in [0, 1] is that part; by default random with a fixed seed. Sets
    are larger for harder images (Romano et al., 2020).
    """
    if uniform is None:
        uniform = np.random.default_rng(SEED).random(len(probabilities))
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, 1)
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, np.cumsum(ordered, 1) - ordered, 1)
    return scores + uniform[:, None] * probabilities


# By name how nonconforming each class is, whether each class has a limit of its own, and in words.
METHODS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool, str]] = {
    "marginal": (threshold_scores, False, "marginal"),
    "class_conditional": (threshold_scores, True, "class-conditional"),
    "adaptive": (adaptive_scores, False, "adaptive"),
}


def fit_limits(
    method: str, probabilities: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE
) -> np.ndarray:
    """Conformal thresholds, (classes,): a class is in the set if its score is at most that.

    `probabilities` (n, classes) and `labels` (n,) of calibration, of independent lesions. One
    limit for all classes, or for the class-conditional method one of each: then the promise holds
    for every true diagnosis (Vovk, 2012). Infinite for a class with too few lesions, which is
    then in every set.
    """
    score, by_class, _ = METHODS[method]
    classes = probabilities.shape[1]
    of_truth = score(probabilities)[np.arange(len(labels)), labels]
    if not by_class:
        return np.full(classes, conformal_quantile(of_truth, coverage))
    return np.array([conformal_quantile(of_truth[labels == c], coverage) for c in range(classes)])


def prediction_sets(method: str, limits: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Whether each class is in the set of each image, boolean (n, classes)."""
    return METHODS[method][0](probabilities) <= limits


def set_estimates(
    tests: Sequence[tuple[Predictions, np.ndarray]],
    weights: np.ndarray,
    base: np.ndarray | None = None,
) -> dict[str, dict]:
    """Estimates of sets on the test split, means over a model's trainings.

    Of each training the test split and its sets, boolean (n, classes). `coverage`: how often the
    set holds the true diagnosis; `melanoma_coverage`: that among melanomas; `holds_melanoma`: how
    often the set holds melanoma, whatever is true; `single` and `empty`: sets of one class and of
    none; `size`, the mean number of classes. `weights` are those of the bootstrap; `base` (n,)
    as in `resample_fractions`, by default such that every lesion weighs the same, as promised.
    """
    test = tests[0][0]
    base = test.lesion_weights if base is None else base
    melanoma, everything = test.class_names.index(MELANOMA), np.ones(len(test.labels), bool)
    cases: dict[str, list] = {}
    for _, sets in tests:
        covered, size = sets[np.arange(len(test.labels)), test.labels], sets.sum(1)
        found = {
            "coverage": (covered, everything),
            "melanoma_coverage": (covered, test.is_melanoma),
            "holds_melanoma": (sets[:, melanoma], everything),
            "single": (size == 1, everything),
            "empty": (size == 0, everything),
        }
        for name, case in found.items():
            cases.setdefault(name, []).append(case)
    estimates = estimate_fractions(cases, test.lesion_ids, weights, base)

    def mean_set_size(size: np.ndarray, resampled: np.ndarray | None) -> np.ndarray:
        drawn = np.ones(len(size)) if resampled is None else resampled
        return drawn @ (base * size) / (drawn @ base)

    sizes = [(sets.sum(1),) for _, sets in tests]
    return estimates | {"size": estimate_metric(mean_set_size, sizes, weights)}
