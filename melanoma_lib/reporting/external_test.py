"""External validation: a trained run on images of another source, to which nothing is fitted.

Temperature and thresholds are those chosen on the run's own validation split. What counts is how
discrimination and calibration change under the shift.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import basis_note
from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json, write_text
from melanoma_lib.data.classes import CLASS_NAMES, NO_MELANOMA
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode
from melanoma_lib.data.split import describe_split, lesion_groups
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.bootstrap import RESAMPLES, SEED, bootstrap_weights
from melanoma_lib.evaluation.calibration import temperature_note
from melanoma_lib.evaluation.model_metrics import (
    MELANOMA_METRICS,
    METRICS,
    bootstrap_metrics,
    metric_differences,
)
from melanoma_lib.evaluation.predictions import (
    Predictions,
    isic_submission,
    predict_logits,
    save_predictions,
)
from melanoma_lib.evaluation.trained_run import TrainedRun, load_trained_run
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.reporting import compare, figures, summary, table_formats
from melanoma_lib.reporting.abstention import external_abstention, with_test
from melanoma_lib.reporting.run import Run

OWN_TEST = "own test split"


def unseen(run_dir: Path, files: DatasetFiles) -> tuple[np.ndarray, dict[str, int]]:
    """Rows of the images that the run has not seen, nor their lesions; and the rest by reason.

    (n,) rows of the dataset's table, and numbers of images left out: ISIC 2019, for example,
    contains HAM10000. Raises `MelanomaError` when no image remains.
    """
    try:
        own = pd.read_csv(run_dir / "split.csv", dtype=str)
        own_images, own_lesions = set(own["image_id"]), set(own["lesion_id"])
    except (OSError, ValueError, KeyError) as error:
        raise MelanomaError(
            f"{run_dir / 'split.csv'}, which says what the run was trained on, cannot be read "
            f"({error})"
        ) from None
    same_image = files.metadata["image_id"].isin(own_images).to_numpy()
    lesions = lesion_groups(files.metadata)
    own_lesions |= set(lesions[same_image])  # which the archive gives other ids than HAM10000
    same_lesion = lesions.isin(own_lesions).to_numpy() & ~same_image
    reasons = {"images of the run's own dataset": same_image, "images of its lesions": same_lesion}
    left_out = {reason: int(seen.sum()) for reason, seen in reasons.items() if seen.any()}
    rows = np.flatnonzero(~same_image & ~same_lesion)
    if not len(rows):
        raise MelanomaError(
            f"all {len(same_image)} images are those that {run_dir} was trained and tested on; an "
            "external test needs others"
        )
    return rows, files.excluded | left_out


def predict(
    folder: Path, files: DatasetFiles, rows: np.ndarray, device: str, batch_size: int
) -> Predictions:
    """Predictions of one bundle's model for rows (n,) of a dataset, as the split `test`.

    Their labels are -1 where an image is only known to show no melanoma.
    """
    model, bundle = load_bundle(folder)
    table = files.metadata
    index_of = {code: index for index, code in enumerate(CLASS_NAMES)}
    labels = table["dx"].map(index_of | {NO_MELANOMA: -1}).to_numpy(int)
    pixels = decode(files, bundle["image_size"])
    no_labels = np.zeros_like(labels)  # the logits do not depend on them
    dataset = HAM10000Dataset(pixels, no_labels, rows, table["image_id"].tolist())
    normalisation = bundle["mean"], bundle["std"]
    logits = predict_logits(model.to(pick_device(device)), dataset, batch_size, normalisation)
    image_ids, lesion_ids = (
        column.to_numpy(str)[rows] for column in (table["image_id"], lesion_groups(table))
    )
    return Predictions(image_ids, lesion_ids, np.full(len(rows), "test"), labels[rows], logits)


def evaluate(
    folders: Sequence[Path],
    files: DatasetFiles,
    device: str = "auto",
    batch_size: int = 32,
    resamples: int = RESAMPLES,
) -> tuple[dict, dict[str, Predictions]]:
    """Results of trained models on an external dataset, and their predictions by architecture.

    `folders` are those of architectures of one run. Fields of the results: docs/results.md, those
    of comparison_results.json and those of an external test; only the binary ones for a dataset
    that says no more than melanoma or not. Raises `MelanomaError` as `unseen` does, or for a model
    whose training is not finished.
    """
    rows, left_out = unseen(folders[0].parent, files)
    own = {folder.name: load_trained_run(folder) for folder in folders}
    table = files.metadata.assign(lesion_id=lesion_groups(files.metadata), part="test")
    dataset = describe_split(files, table.iloc[rows])
    predictions, models = {}, {}
    for folder in folders:
        run = own[folder.name]
        note = temperature_note(run.bundle["temperature"])
        print(f"{run.record['name']}: {len(rows):,} images. {note}", flush=True)
        predictions[folder.name] = predict(folder, files, rows, device, batch_size)
        models[folder.name] = with_test(run, predictions[folder.name])._replace(
            record=run.record | {"dataset": dataset}
        )
    name = folders[0].parent.name
    if files.layout.melanoma:
        results, names = compare.compare_melanoma(name, models, resamples), MELANOMA_METRICS
    else:
        several = {key: [model] for key, model in models.items()}
        results = compare.compare_models(name, several, files.metadata, resamples)
        results["abstention"] = external_abstention(models, resamples)
        names = METRICS
    first = own[folders[0].name]
    results["external"] = {
        "layout": files.layout.name,
        "left_out": left_out,
        "overlap": files.layout.overlap,
        "modality": files.layout.modality,
        "warnings": files.layout.warnings,
        "melanoma_only": bool(files.layout.melanoma),
        "own": {"dataset": first.record["dataset"], "optimistic": results["optimistic"]}
        | compare.count_images(first.predictions.split("test")),
    }
    results["optimistic"] = False  # whatever the run's split, none of these images chose anything
    for key, run in own.items():
        results["models"][key]["own"] = _own_results(run, predictions[key], resamples, names)
    return results, predictions


def _own_results(
    run: TrainedRun, external: Predictions, resamples: int, names: Iterable[str]
) -> dict:
    """The same estimates on the run's own test split, and how the external ones differ from them.

    `difference` (`difference_uncalibrated` at temperature 1) is external minus own, from
    independent resamples. `names` of the metrics.
    """
    runs, weights = _both_tests(run, external, resamples)
    (own, away), (own_raw, away_raw) = (
        [bootstrap_metrics([each], drawn, names, calibrated)
         for each, drawn in zip(runs, weights, strict=True)]
        for calibrated in (True, False)
    )  # fmt: skip
    found = compare.estimates_on_test([run], weights[0], own)
    return found | {
        "difference": metric_differences(own, away, names),
        "difference_uncalibrated": metric_differences(own_raw, away_raw, found["uncalibrated"]),
    }


def _both_tests(
    run: TrainedRun, external: Predictions, resamples: int
) -> tuple[tuple[TrainedRun, TrainedRun], list[np.ndarray]]:
    """The run with its own test split and with the external one, and independent resamples."""
    runs = run, run._replace(predictions=external)
    weights = [
        bootstrap_weights(each.predictions.split("test").lesion_ids, resamples, seed)
        for each, seed in zip(runs, (SEED + 1, SEED), strict=True)
    ]
    return runs, weights


def write(results: dict, predictions: Mapping[str, Predictions], run_dir: Path, folder: Path):
    """Writes results, tables, summary, predictions, ISIC submissions and figures into `folder`."""
    for key, predicted in predictions.items():
        save_predictions(folder / "predictions" / f"{key}.parquet", predicted)
        submission = isic_submission(predicted, results["models"][key]["temperature"])
        text = submission.to_csv(index=False)
        write_text(folder / "predictions" / f"isic2018-{key}.csv", text)
    table_formats.write_tables(results, folder)
    write_text(folder / "summary.md", summary.summarize(results))
    save_figures(results, predictions, run_dir, folder)
    write_json(folder / "external_results.json", results)


def save_figures(
    results: dict, predictions: Mapping[str, Predictions], run_dir: Path, folder: Path
) -> None:
    """Saves one reliability diagram a model, and all operating points, own beside external.

    The diagram is melanoma's where no more is known of the images. For the figures, a model on
    each of the two test splits is a model of its own.
    """
    elsewhere, external = results["dataset"]["name"], results["external"]
    notes = [basis_note(external["own"]["dataset"]["generated"], results["split"])]
    notes += ["with images of the training data"] * bool(external["overlap"])
    notes += [external["modality"]]
    drawn, saved = "05-1-reliability", "external-1-reliability"
    if external["melanoma_only"]:
        drawn, saved = "05-3-melanoma-reliability", "external-1-melanoma-reliability"
    models, predicted = {}, {}
    for key, model in results["models"].items():
        tests = {OWN_TEST: load_trained_run(run_dir / key).predictions, elsewhere: predictions[key]}
        pair = {name: {"name": name, "temperature": model["temperature"]} for name in tests}
        figure = figures.plot(Run(folder, {"models": pair}, tests), drawn)
        note = "; ".join(filter(None, [model["name"], *notes]))
        figures.save(figure, saved, folder, variant=key, note=note)
        for side, name in ((model["own"], OWN_TEST), (model, elsewhere)):
            label = f"{model['name']}, {name}"
            models[label] = {"name": label, "operating_points": side["operating_points"]}
            predicted[label] = tests[name]
    figure = figures.plot(Run(folder, {"models": models}, predicted), "06-3-operating-points")
    note = "; ".join(filter(None, notes))
    figures.save(figure, "external-2-operating-points", folder, note=note)
