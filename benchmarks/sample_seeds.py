"""What the networks of the generated sample learn, over several seeds of split and training.

    python benchmarks/sample_seeds.py FILE --output-dir DIR --seeds 1 2 3 4 5

Trains the four networks of the sample preset with every seed, in a folder of DIR each, and scores
their heat maps; what is finished is only read. FILE (JSON) receives a row a network and seed, which
docs/findings.md condenses into medians.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_lib.config import Config, preset
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import write_json
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.synthetic import VERSION, generate_sample
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.calibration import reliability
from melanoma_lib.evaluation.metrics import top_class
from melanoma_lib.evaluation.model_metrics import (
    METRICS,
    decision_scores_on_test,
    probabilities_on_test,
)
from melanoma_lib.evaluation.trained_run import TrainedRun, load_trained_run
from melanoma_lib.explanation.map_metrics import map_estimates, summarize_map_scores
from melanoma_lib.explanation.score_maps import score_heat_maps
from melanoma_lib.training.train import train_architecture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="the results (JSON)")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    args = parser.parse_args()
    data, rows = str(generate_sample(args.output_dir / "data")), []
    for seed in args.seeds:
        config = preset("sample", seed=seed, training_seed=seed, data_dir=data,
                        output_dir=str(args.output_dir / str(seed)))  # fmt: skip
        for key in config.architectures:
            rows.append({"seed": seed, "architecture": key} | measured(config, key))
            write_json(args.output, {
                "date": datetime.now(UTC).date().isoformat(), "sample_version": VERSION,
                "versions": versions(), "rows": rows,
            })  # fmt: skip


def measured(config: Config, key: str) -> dict:
    """One network with one seed: metrics on the test split, temperature, scores of its maps."""
    train_architecture(config, key)
    folder = Path(config.output_dir) / key
    score_heat_maps(folder, open_dataset(config.data_dir), config.device)
    trained = load_trained_run(folder)
    test = trained.predictions.split("test")
    summary = summarize_map_scores(folder, trained.bundle, test, bootstrap_weights(test.lesion_ids))
    map_row = map_estimates(summary)
    uniform = map_estimates(summary, "none", "uniform map")
    return {
        "name": trained.record["name"], "device": trained.record["device"],
        "seconds": trained.record["train_seconds"], **of_test(trained),
        "heat_inside": map_row["inside"]["value"], "uniform_inside": uniform["inside"]["value"],
        "minus_random": map_row["minus_random"]["inside"],
        "minus_centre": map_row["minus_centre"]["inside"],
    }  # fmt: skip


def of_test(trained: TrainedRun) -> dict:
    """Accuracy and the like, the largest fraction of one class, and calibration."""
    ((labels, calibrated),), ((_, raw),) = (
        probabilities_on_test([trained]), probabilities_on_test([trained], calibrated=False)
    )  # fmt: skip
    (scores,) = decision_scores_on_test([trained])
    names = ("accuracy", "balanced_accuracy", "melanoma_auc")
    counts = np.bincount(scores[1].argmax(1))
    confidence, hit = top_class(labels, raw)
    return {
        **{name: float(METRICS[name](labels, calibrated)) for name in names},
        "most_of_one_class": float(counts.max() / counts.sum()),
        "bins": int((reliability(confidence, hit)["count"] > 0).sum()),
        "temperature": trained.bundle["temperature"],
        **{f"{name}_{kind}": float(METRICS[name](labels, each))
           for name in ("ece", "nll") for kind, each in (("before", raw), ("after", calibrated))},
    }  # fmt: skip


if __name__ == "__main__":
    main()
