"""How often the intervals over several trainings hold the truth, by simulation.

    python benchmarks/coverage.py FILE [--worlds 1000]

A world draws lesions of one to three images, and ten trainings each of two architectures. How good
a training is varies with a known standard deviation, as does its confidence; what it sees in an
image is partly what every training sees there. The first K trainings are those of K. The truth is
the mean over all worlds, with as many lesions. FILE (JSON) receives the coverages, and the table of
docs/trainings.md is printed.
"""

import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np

from melanoma_lib.core.files import write_json
from melanoma_lib.core.progress import progress
from melanoma_lib.evaluation.bootstrap import bootstrap_weights, resample
from melanoma_lib.evaluation.metrics import accuracy, auc, balanced_accuracy, ece
from melanoma_lib.evaluation.predictions import softmax
from melanoma_lib.evaluation.trainings import (
    difference_of_trainings,
    estimate_of_trainings,
)

COUNTS = (2, 3, 5, 10)
SPREADS = {"none": 0.0, "small": 0.1, "large": 0.5}  # of the skill of trainings, in logits
SKILLS = (2.2, 2.0)  # of two architectures: how far the true class stands out, in logits
PREVALENCE = (0.7, 0.2, 0.1)  # of three diagnoses, melanoma second
LESIONS = 300
RESAMPLES = 300
METRICS = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "melanoma_auc": lambda y, p, w=None: auc(y == 1, p[:, 1], w),
    "ece": ece,
}


def simulate(spread: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list]:
    """Lesion ids (n,), labels (n,), and of each architecture ten arrays of probabilities (n, 3)."""
    ids = np.repeat(np.arange(LESIONS), rng.choice([1, 2, 3], LESIONS, p=[0.7, 0.2, 0.1]))
    labels = rng.choice(3, LESIONS, p=PREVALENCE)[ids]
    of_lesion = rng.normal(size=(LESIONS, 3))[ids]
    of_image = rng.normal(size=(len(ids), 3))
    architectures = []
    for skill in SKILLS:
        of_architecture = 0.7 * rng.normal(size=(LESIONS, 3))[ids]
        trainings = []
        for _ in range(max(COUNTS)):
            logits = (skill + spread * rng.normal()) * np.eye(3)[labels]
            logits += of_lesion + 0.5 * of_image + of_architecture
            logits += 0.5 * rng.normal(size=(len(ids), 3))
            trainings.append(softmax(logits * np.exp(spread * rng.normal()), 1.0))
        architectures.append(trainings)
    return ids, labels, architectures


def worlds(spread: float, count: int, seed: int) -> list[list[dict]]:
    """By world and architecture, the values (10,) and resamples (RESAMPLES, 10) of each metric."""
    rng = np.random.default_rng(seed)
    found = []
    for world in progress(range(count), f"spread {spread}"):
        ids, labels, architectures = simulate(spread, rng)
        weights = bootstrap_weights(ids, RESAMPLES, seed=world)
        found.append([
            {
                name: tuple(map(np.column_stack, zip(*(
                    resample(metric, labels, probabilities, weights=weights)
                    for probabilities in trainings
                ), strict=True)))
                for name, metric in METRICS.items()
            }
            for trainings in architectures
        ])  # fmt: skip
    return found


def coverage(found: list[list[dict]]) -> dict[str, dict]:
    """By metric and K, how often the intervals of the mean and of the difference hold the truth."""
    table = defaultdict(dict)
    for name, k in product(METRICS, COUNTS):
        values = np.array([[models[name][0][0] for models in world] for world in found])
        truth = values.mean((0, 2))
        held = defaultdict(list)
        for world in found:
            some = [(model[name][0][0, :k], model[name][1][:, :k], None) for model in world]
            intervals = {
                "mean": (estimate_of_trainings(some[0]), truth[0]),
                "difference": (difference_of_trainings(*some), truth[0] - truth[1]),
            }
            for kind, (interval, true) in intervals.items():
                held[kind].append(interval["low"] <= true <= interval["high"])
        table[name][str(k)] = {kind: float(np.mean(inside)) for kind, inside in held.items()}
    return table


def rows(results: dict) -> str:
    """The table in Markdown: coverage in per cent, of the mean and of the difference."""
    lines = [
        "| metric | trainings vary | " + " | ".join(f"K = {k}" for k in COUNTS) + " |",
        "| --- | --- |" + " --- |" * len(COUNTS),
    ]
    for name, spread in product(METRICS, results["coverage"]):
        cells = [results["coverage"][spread][name][str(k)] for k in COUNTS]
        both = [f"{100 * cell['mean']:.1f}, {100 * cell['difference']:.1f}" for cell in cells]
        lines.append(f"| {name.replace('_', ' ')} | {spread} | " + " | ".join(both) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--worlds", type=int, default=1000)
    args = parser.parse_args()
    results = {
        "worlds": args.worlds,
        "lesions": LESIONS,
        "resamples": RESAMPLES,
        "coverage": {
            name: coverage(worlds(spread, args.worlds, seed=number))
            for number, (name, spread) in enumerate(SPREADS.items())
        },
    }
    write_json(args.output, results)
    print(rows(results))


if __name__ == "__main__":
    main()
