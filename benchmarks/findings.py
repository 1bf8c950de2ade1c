"""What was measured on the real images, as a page: docs/findings.md from the JSON beside this file.

    python benchmarks/findings.py
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from melanoma_lib.core.files import PROJECT, read_json, write_text
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.explanation.occlusion_metrics import describe_occlusion
from melanoma_lib.reporting.compare import COLUMNS
from melanoma_lib.reporting.table_formats import markdown
from melanoma_lib.reporting.tables import as_dataframe, table

HERE = Path(__file__).parent
PAGE = PROJECT / "docs" / "findings.md"
INTRODUCTION = """\
# What was measured on HAM10000

Written by `python benchmarks/findings.py` from the JSON in `benchmarks/`, which holds every result.
Intervals are 95%. The images had been reduced to 200 x 150 pixels beforehand.
"""
TRAININGS = """\
## {networks} networks, {count} trainings each

{date}, {device}, torch {torch}, timm {timm}. Trained with

    {command}

in {minutes:.0f} minutes of training. {note}

The test set has {images:,} images of {lesions:,} lesions. All estimates are means over the {count}
trainings, and their intervals cover new lesions and new trainings ([trainings.md](trainings.md)).
"""
LEAKAGE = """\
## Leakage, paired

{date}, {device}, torch {torch}, timm {timm}. Made with

    {command}

Leaky minus clean, the same test images judged by networks that differ in whether siblings of test
lesions were among their training images ([results.md](results.md#leakage_resultsjson)). {note}
"""
RECIPES = """\
## Recipes: quality against training time

{date}, {device}, torch {torch}, timm {timm}, commit {commit}; {network} from ImageNet weights at
{image_size} px. Made with

    {command}

{note} Chapter 12 explains the recipes. The test set has {test_images:,} images of
{test_lesions:,} lesions; all choices were made on validation.
"""
CHOICES = """\
What was tried, on validation (one training each; balanced accuracy is that of the decision relative
to frequency). {note}
"""
EVERY_SECOND_EPOCH = """\
Validation after every second epoch instead of each would save {saved:.1%} of a training with the
thesis's recipe ({validation_seconds:.0f} of {seconds:.0f} seconds are validation). It would keep
epoch {best_even_epoch}; with all of them validated, epoch {best_epoch} is kept.
"""
ABSTENTION = """\
## When not to answer, and does it need the lesion?

{date}, {device}, torch {torch}, timm {timm}; {networks} networks from ImageNet weights at
{image_size} px, one training each. Trained with

    {command}

All thresholds were chosen on validation; the test set has {images:,} images of {lesions:,} lesions.
{note} Chapters 07 and 11 explain the tables; referral by confidence stands for the other orders.
"""
SAMPLE = """\
## The generated sample, {count} seeds

{date}, {device}, torch {torch}, timm {timm}. Made with

    python benchmarks/sample_seeds.py FILE --output-dir DIR

The networks of `make figures`, trained with seeds {seeds} of split and training: medians, in
brackets the lowest and the highest. Above random weights, above centre: for how many seeds the
interval of the heat inside the lesion, minus that of the baseline, lies above zero.
"""
FROM_RANDOM_WEIGHTS = """\
## The four architectures of the thesis from random weights

{date}, {device}, torch {torch}, timm {timm}: `{command}`, one training each. What {train:,}
training images alone teach; intervals over lesions. {note}
"""
FIGURES = {
    "08-1-comparison": "Six metrics of the four networks with intervals",
    "08-2-training-curves": "Loss and accuracy by epoch",
    "06-1-roc": "ROC curves and operating points",
    "05-1-reliability": "Reliability before and after temperature scaling",
    "07-2-mask-overlap": "Heat maps against the lesion masks",
}


def about(measured: dict) -> dict:
    """What was measured, where and when, as the introductions above name it."""
    found = {name: measured["versions"][name] for name in ("torch", "timm")}
    return {"note": ""} | measured | found


def trainings(measured: dict) -> Iterator[str]:
    """Results of several trainings, what they vary by, and their averages."""
    results = measured["results"]
    yield TRAININGS.format(
        **about(measured), networks=len(results["models"]), count=results["trainings"],
        images=results["test_images"],
        lesions=results["test_lesions"], minutes=sum(map(sum, measured["seconds"].values())) / 60,
    )  # fmt: skip
    for name in ("comparison_table", "trainings", "differences", "outperformance", "averages"):
        yield markdown(as_dataframe(table(results, name)))


def leakage(measured: dict) -> Iterator[str]:
    """The paired design of leakage."""
    yield LEAKAGE.format(**about(measured))
    yield markdown(as_dataframe(table({"leakage": measured["results"]}, "leakage")))


def recipes(measured: dict) -> Iterator[str]:
    """The leaderboard of recipes, their differences from the first, and what was tried."""
    yield RECIPES.format(**about(measured))
    heads = {name: head for name, (head, _) in COLUMNS.items()} | {"nll": "NLL"}
    rows = [
        {"Recipe": name, "Trainings": found["count"], "Seconds": round(found["seconds"])}
        | {head: format_estimate(found["metrics"][metric]) for metric, head in heads.items()}
        for name, found in measured["recipes"].items()
    ]
    missing = {"Recipe": "thesis and balanced, the four architectures on a GPU"}
    rows.append(dict.fromkeys(rows[0], "not measured yet") | missing)
    yield markdown(pd.DataFrame(rows))
    yield markdown(pd.DataFrame(
        {"Difference": row["pair"]}
        | {COLUMNS[metric][0]: format_estimate(row[metric]) for metric in COLUMNS}
        for row in measured["differences"]
    ))  # fmt: skip
    tried = read_json(HERE / "quality-choices-cpu.json")
    yield CHOICES.format(**tried)
    yield markdown(pd.DataFrame(
        {"Tried": found["tried"], "Seconds": round(found["seconds"]),
         "Melanoma AUC": f"{found['melanoma_auc']:.3f}",
         "Balanced accuracy": f"{found['balanced']:.3f}", "NLL": f"{found['nll']:.3f}",
         "Kept": "yes" if found["kept"] else ""}
        for found in tried["choices"]
    ))  # fmt: skip
    once = tried["every_second_epoch"]
    saved = once["validation_seconds"] / 2 / once["seconds"]
    yield EVERY_SECOND_EPOCH.format(**once, saved=saved)


def abstention(measured: dict) -> Iterator[str]:
    """Referral, thresholds, sets and shifts, and the altered images of chapter 07."""
    results = measured["results"]
    yield ABSTENTION.format(
        **about(measured), **measured["seconds"], networks=len(results["models"]),
        images=results["test_images"], lesions=results["test_lesions"],
    )  # fmt: skip
    models = results["models"].values()
    for model in results["abstention"]["models"].values():  # the other orders say about the same
        model["referral"] = [row for row in model["referral"] if row["order"] == "confidence"]
    yield "\n".join(f"- {describe_occlusion(m['name'], m['occlusion'])}" for m in models) + "\n"
    for name in ("occlusion", "risk_coverage", "referral", "promised_thresholds",
                 "prediction_sets", "shifts"):  # fmt: skip
        yield markdown(as_dataframe(table(results, name)))


def sample(measured: dict) -> Iterator[str]:
    """Medians over the seeds of what the sample's networks learn, and in how many the maps find."""
    rows = pd.DataFrame(measured["rows"])
    seeds = sorted(rows["seed"].unique())
    yield SAMPLE.format(
        **about(measured), count=len(seeds), seeds=", ".join(map(str, seeds)),
        device=rows["device"].iloc[0],
    )  # fmt: skip
    shown = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
             "melanoma_auc": "Melanoma AUC", "most_of_one_class": "Most of one class",
             "temperature": "Temperature", "ece_before": "ECE before", "ece_after": "ECE after",
             "nll_before": "NLL before", "nll_after": "NLL after", "bins": "Bins filled",
             "heat_inside": "Heat inside", "uniform_inside": "Uniform map"}  # fmt: skip
    by_network = rows.groupby("name", sort=False)
    table = pd.DataFrame({"Network": by_network.size().index})
    for column, head in shown.items():
        low, middle, high = (by_network[column].quantile(q).to_numpy() for q in (0, 0.5, 1))
        ends = zip(low, middle, high, strict=True)
        table[head] = [f"{median:.3g} [{a:.3g}, {b:.3g}]" for a, median, b in ends]
    baselines = {"minus_random": "Above random weights", "minus_centre": "Above centre"}
    for column, head in baselines.items():
        above = rows[column].map(lambda estimate: estimate["low"] > 0)
        table[head] = above.groupby(rows["name"], sort=False).sum().to_numpy()
    yield markdown(table)


def from_random_weights(measured: dict) -> Iterator[str]:
    """The comparison of the thesis's architectures without ImageNet weights, and its figures."""
    parts = measured["results"]["dataset"]["parts"]
    yield FROM_RANDOM_WEIGHTS.format(**about(measured), train=parts["train"])
    results, earlier = measured["results"], measured["earlier_resnet50"]
    yield markdown(as_dataframe(table(results, "comparison_table")))
    yield markdown(as_dataframe(table(results, "differences")))
    again = {head: format_estimate(earlier["metrics"][name])
             for name, (head, _) in COLUMNS.items() if name in earlier["metrics"]}  # fmt: skip
    yield (
        f"The same ResNet-50 with the same seed, trained by an earlier version in "
        f"{earlier['arithmetic']['precision']}: "
        + ", ".join(f"{head} {text}" for head, text in again.items())
        + ". Compare that with the differences between the networks.\n"
    )
    yield "\n".join(f"![{text}](h200/{name}.png)" for name, text in FIGURES.items()) + "\n"


SECTIONS = {
    "trainings-cpu.json": trainings,
    "leakage-cpu.json": leakage,
    "quality-cpu.json": recipes,
    "abstention-cpu.json": abstention,
    "sample-seeds-cpu.json": sample,
    "comparison-h200.json": from_random_weights,
}


def page() -> str:
    """The whole page, with a section for every measurement that is there."""
    there = [(HERE / name, section) for name, section in SECTIONS.items() if (HERE / name).exists()]
    parts = [text for path, section in there for text in section(read_json(path))]
    return "\n".join([INTRODUCTION, *parts])


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
