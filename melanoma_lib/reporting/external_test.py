"""The external test: a trained run on images from elsewhere, nothing fitted to them.

Temperature and thresholds are those that validation chose. What an examiner wants to see is the
shift: what discrimination and calibration are worth where the images come from another clinic.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import basis_note
from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json, write_text
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode
from melanoma_lib.data.split import describe_split, lesion_groups
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation import trained_run
from melanoma_lib.evaluation.bootstrap import RESAMPLES, SEED, bootstrap_weights
from melanoma_lib.evaluation.predictions import (
    Predictions,
    isic_submission,
    predict_logits,
    save_predictions,
)
from melanoma_lib.models.bundle import load_bundle
from melanoma_lib.reporting import compare, figures, run_figures, tables
from melanoma_lib.reporting.compare import CALIBRATION, METRICS

OWN = "own test part"
GAIN = ("ece", "nll", "brier")  # what a temperature is judged by


def unseen(run_dir: Path, files: DatasetFiles) -> tuple[np.ndarray, dict[str, int]]:
    """The rows of images that are not the run's own, nor of its lesions, and what was left out.

    ISIC 2019 holds HAM10000, for example. Raises `MelanomaError` when no image remains.
    """
    try:
        own = pd.read_csv(run_dir / "split.csv", dtype=str)
        known = set(own["image_id"]), set(own["lesion_id"])
    except (OSError, ValueError, KeyError) as error:
        raise MelanomaError(
            f"{run_dir / 'split.csv'}, which says what the run was trained on, cannot be read "
            f"({error})"
        ) from None
    image = files.metadata["image_id"].isin(known[0]).to_numpy()
    lesion = lesion_groups(files.metadata).isin(known[1]).to_numpy() & ~image
    reasons = {"images of the run's own dataset": image, "images of its lesions": lesion}
    left_out = {reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()}
    rows = np.flatnonzero(~image & ~lesion)
    if not len(rows):
        raise MelanomaError(
            f"all {len(image)} images are those that {run_dir} was trained and tested on; an "
            "external test needs others"
        )
    return rows, files.excluded | left_out


def predict(
    folder: Path, files: DatasetFiles, rows: np.ndarray, device: str, batch_size: int
) -> Predictions:
    """One bundle's predictions for the rows of a dataset, as the part `test`."""
    model, bundle = load_bundle(folder)
    table = files.metadata
    labels = table["dx"].map(CLASS_NAMES.index).to_numpy()
    pixels = decode(files, bundle["image_size"])
    part = HAM10000Dataset(pixels, labels, rows, table["image_id"].tolist())
    normalisation = bundle["mean"], bundle["std"]
    logits = predict_logits(model.to(pick_device(device)), part, batch_size, normalisation)
    return Predictions(
        image_ids=table["image_id"].to_numpy(str)[rows],
        lesion_ids=lesion_groups(table).to_numpy(str)[rows],
        parts=np.full(len(rows), "test"),
        labels=labels[rows],
        logits=logits,
    )


def evaluate(
    folders: Sequence[Path],
    files: DatasetFiles,
    device: str = "auto",
    batch_size: int = 32,
    resamples: int = RESAMPLES,
) -> tuple[dict, dict[str, Predictions]]:
    """The results of trained models on an external dataset, and their predictions for it.

    `folders` are those of architectures of one run. The results have the fields of
    comparison_results.json and those that docs/results.md adds for an external test.
    """
    rows, left_out = unseen(folders[0].parent, files)
    own = {folder.name: trained_run.load_trained_run(folder) for folder in folders}
    lesions = lesion_groups(files.metadata)
    table = files.metadata.assign(lesion_id=lesions, part="test")
    dataset = describe_split(files, table.iloc[rows])
    predictions, models = {}, {}
    for folder in folders:
        record, bundle, held_out = own[folder.name]
        print(f"{record['name']}: {len(rows):,} images", flush=True)
        predictions[folder.name] = predict(folder, files, rows, device, batch_size)
        combined = _joined(held_out.part("val"), predictions[folder.name])
        models[folder.name] = record | {"dataset": dataset}, bundle, combined
    results = compare.compare_models(folders[0].parent.name, models, files.metadata, resamples)
    first = next(iter(own.values()))
    test = first[2].part("test")
    results["external"] = {
        "layout": files.layout.name,
        "left_out": left_out,
        "overlap": files.layout.overlap,
        "own": {
            "dataset": first[0]["dataset"], "optimistic": results["optimistic"],
            "test_images": len(test.labels), "test_lesions": test.count_lesions(),
            "test_melanomas": int(test.is_melanoma.sum()),
        },
    }  # fmt: skip
    results["optimistic"] = False  # no image of these chose anything, whatever the split was
    for key, (_, bundle, held_out) in own.items():
        results["models"][key]["own"] = _at_home(bundle, held_out, models[key][2], resamples)
    return results, predictions


def _joined(first: Predictions, second: Predictions) -> Predictions:
    columns = ("image_ids", "lesion_ids", "parts", "labels", "logits")
    return Predictions(
        *(np.concatenate([getattr(part, name) for part in (first, second)]) for name in columns)
    )


def _at_home(bundle: dict, held_out: Predictions, there: Predictions, resamples: int) -> dict:
    """The same figures on the run's own test part, and what differs elsewhere.

    `difference` (and without temperature `difference_uncalibrated`) is elsewhere minus own, from
    separate resamples; `gain` is what the temperature takes from the errors elsewhere, on the
    same resamples.
    """
    as_it_is = bundle | {"temperature": 1.0}
    drawn = []
    for number, predictions in enumerate((held_out, there)):
        lesions = predictions.part("test").lesion_ids
        weights = bootstrap_weights(lesions, resamples, seed=SEED + 1 - number)
        drawn.append(
            [compare.bootstrap_metrics(b, predictions, weights) for b in (bundle, as_it_is)]
        )
        if not number:
            home = compare.test_estimates(bundle, predictions, drawn[0][0], weights)
    (own, own_raw), (away, away_raw) = drawn
    return home | {
        "difference": compare.metric_differences(own, away, METRICS),
        "difference_uncalibrated": compare.metric_differences(own_raw, away_raw, CALIBRATION),
        "gain": compare.metric_differences(away, away_raw, GAIN),
    }


def write(results: dict, predictions: Mapping[str, Predictions], run_dir: Path, folder: Path):
    """Writes the results, tables, words, predictions, submissions and figures into `folder`."""
    for key, predicted in predictions.items():
        save_predictions(folder / "predictions" / f"{key}.parquet", predicted)
        submission = isic_submission(predicted, results["models"][key]["temperature"])
        text = submission.to_csv(index=False)
        write_text(folder / "predictions" / f"isic2018-{key}.csv", text)
    tables.write_tables(results, folder)
    write_text(folder / "summary.md", tables.summary(results))
    draw(results, predictions, run_dir, folder)
    write_json(folder / "external_results.json", results)


def draw(results: dict, predictions: Mapping[str, Predictions], run_dir: Path, folder: Path):
    """The shift in figures: reliability by model, and all operating points."""
    elsewhere = results["dataset"]["name"]
    external = results["external"]
    notes = [basis_note(external["own"]["dataset"]["generated"], results["split"])]
    notes += ["with images of the training data" if external["overlap"] else ""]
    notes = list(filter(None, notes))
    points, counts = {}, {}
    sizes = [(part["test_melanomas"], part["test_images"] - part["test_melanomas"])
             for part in (external["own"], results)]  # fmt: skip
    for key, model in results["models"].items():
        own, temperature = trained_run.load_trained_run(run_dir / key)[2], model["temperature"]
        pairs = {
            place: run_figures.reliability_pair(part, temperature)
            for place, part in ((OWN, own), (elsewhere, predictions[key]))
        }
        figures.save(figures.reliability(pairs), "external-1-reliability", folder, variant=key,
                     note="; ".join([model["name"], *notes]))  # fmt: skip
        names = [f"{model['name']}, {place}" for place in (OWN, elsewhere)]
        sides = model["own"]["operating_points"], model["operating_points"]
        points |= dict(zip(names, sides, strict=True))
        counts |= dict(zip(names, sizes, strict=True))
    figure = figures.operating_points(run_figures.points_table(points, counts))
    figures.save(figure, "external-2-operating-points", folder, note="; ".join(notes))
