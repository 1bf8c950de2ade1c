"""What a run itself answers of a reporting checklist: each answer a small function of its files.

Where an answer stands, and the sentence of one that needs no more, are in checklists/answers.toml.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.config import RECIPES, Config
from melanoma_lib.core.files import read_history, read_json
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.data.layouts import describe_excluded
from melanoma_lib.data.split import UNUSED, is_leaked, split_rows
from melanoma_lib.evaluation.bootstrap import format_estimates
from melanoma_lib.evaluation.operating_points import operating_point_label
from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.explanation.occlusion_metrics import ALTERATIONS
from melanoma_lib.reporting.abstention_tables import SHOWN_FRACTION, referral_at, shift_rows
from melanoma_lib.reporting.run import open_run
from melanoma_lib.reporting.tables import HEADS, pair_names

PARTS = {"train": "training", "val": "validation", "test": "test"}
KEPT = {"val_accuracy": "the best by validation accuracy", "last": "the last"}  # of the epochs
ACRONYMS = ("auc", "ece", "mce", "nll")
OF_PATIENTS = ("sex", "age", "skin_tone")  # attributes by which sensitivity is compared


@dataclass(frozen=True)
class RunFiles:
    """The files of a compared run; `models` are its results with what else is known of each."""

    results: dict
    models: list[dict]  # with `config`, and `bundle`, `versions` and `history` from the files
    split: pd.DataFrame | None
    external: list[dict]  # results of external tests


def read_run_files(results_file: Path) -> RunFiles:
    """Reads the run of a results file; raises `MelanomaError` as `open_run` does.

    An external test of weights that have been replaced since does not count, nor one on images of
    the training data.
    """
    run = open_run(results_file)
    ours, table = run.results["models"], run.folder / "split.csv"
    models = []
    for key, model in ours.items():
        record = read_json(run.folder / key / "run.json")
        models.append(model | {
            "config": Config.from_json(record["config"]), "versions": record.get("versions", {}),
            "bundle": read_json(run.folder / key / "bundle.json"),
            "history": read_history(run.folder / key),
        })  # fmt: skip
    external = [
        results for results in
        map(read_json, sorted(run.folder.glob("external/*/external_results.json")))
        if not results["external"]["overlap"]
        and all(key in ours and model["temperature"] == ours[key]["temperature"]
                for key, model in results["models"].items())
    ]  # fmt: skip
    split = pd.read_csv(table, dtype=str) if table.exists() else None
    return RunFiles(run.results, models, split, external)


def answer(run_files: RunFiles, name: str, says: str = "", each: str = "") -> list[str]:
    """The lines of an answer by its name in answers.toml, none where the run does not have it.

    says: a sentence with fields, for each of the rows of the kind `each`; models of which it says
    the same share it.
    """
    if not says:
        return ANSWERS[name](run_files)
    names: dict[str, list[str]] = {}
    for row in ROWS[each](run_files):
        said = says.format_map(format_estimates(row) | {"name": "{name}"})
        names.setdefault(said, []).append(row.get("name", ""))
    return [said.replace("{name}", ", ".join(who)) for said, who in names.items()]


def _models(run_files: RunFiles) -> Iterator[dict]:
    for model in run_files.models:
        yield model | {"rules": RECIPES[model["config"].recipe]}


def _kept_epochs(run_files: RunFiles) -> Iterator[dict]:
    """The models with the line of history.csv of the epoch whose weights were kept."""
    for model in run_files.models:
        for row in model["history"]:
            if row["epoch"] == str(model["best_epoch"]):
                accuracies = {part: float(row[f"{part}_accuracy"]) for part in ("train", "val")}
                reason = KEPT[RECIPES[model["config"].recipe].best_epoch]
                yield model | accuracies | {"reason": reason}


def _points(run_files: RunFiles) -> Iterator[dict]:
    for model in run_files.models:
        for point in model["operating_points"]:
            yield point | {"model": model["name"], "label": operating_point_label(point),
                           "prevalence": run_files.results["prevalence"]}  # fmt: skip


def _averages(run_files: RunFiles) -> Iterator[dict]:
    for pair in run_files.results.get("ensemble_differences", []):
        way = run_files.results["ensembles"][pair["first"]].get("averaging")
        how = f"; members {way['chosen']} before averaging" if way else ""
        yield pair | {"pair": " minus ".join(pair_names(run_files.results, pair)), "how": how}


def _explained(run_files: RunFiles) -> Iterator[dict]:
    for model in run_files.models:
        for row in (model.get("explanations") or {"maps": []})["maps"]:
            if (row["network"], row["map"], row["target"]) == ("trained", "grad_cam", "predicted"):
                yield row | {"name": model["name"]}


def _worst_alterations(run_files: RunFiles) -> Iterator[dict]:
    for model in run_files.models:
        rows = [row | row["minus_original"]["melanoma_auc"] for row in model.get("occlusion") or []]
        if rows := [row for row in rows if row["value"] is not None]:
            worst = min(rows, key=lambda row: row["value"])
            yield {"name": model["name"], "alteration": ALTERATIONS[worst["alteration"]],
                   "change": worst["minus_original"]["melanoma_auc"], "of": len(rows)}  # fmt: skip


def _referrals(run_files: RunFiles) -> Iterator[dict]:
    for model in run_files.results.get("abstention", {"models": {}})["models"].values():
        row = referral_at(model, SHOWN_FRACTION)
        yield row["test"] | {"name": model["name"], "fraction": row["fraction"]}


def _datasets(run_files: RunFiles) -> Iterator[dict]:
    for results in run_files.external:
        yield {"dataset": results["dataset"]["name"], "images": results["test_images"],
               "lesions": results["test_lesions"], "prevalence": results["prevalence"],
               "own": run_files.results["prevalence"]}  # fmt: skip


def _elsewhere(run_files: RunFiles) -> Iterator[dict]:
    for results, about in zip(run_files.external, _datasets(run_files), strict=True):
        yield from (about | model for model in results["models"].values())


def _dataset(run_files: RunFiles) -> list[str]:
    """Which data, and how many."""
    data = run_files.results["dataset"]
    kind = " (pictures painted by a program, of no patient)" * data["generated"]
    return [f"{data['name']}{kind}: {data['images']:,} images of {data['lesions']:,} lesions, "
            f"fingerprint {data['fingerprint']}."]  # fmt: skip


def _partition(run_files: RunFiles) -> list[str]:
    """Images, lesions and melanomas of each part."""
    if run_files.split is None:
        return []
    lines, used = [], (run_files.split["part"] != UNUSED).sum()
    for part, name in PARTS.items():
        rows = run_files.split.iloc[split_rows(run_files.split, part)]
        melanomas = rows[rows["dx"] == MELANOMA]
        lines.append(f"{name.capitalize()}: {len(rows):,} images ({len(rows) / used:.1%}) of "
                     f"{rows['lesion_id'].nunique():,} lesions; melanoma: {len(melanomas):,} "
                     f"images of {melanomas['lesion_id'].nunique():,} lesions.")  # fmt: skip
    return [f"{used:,} of {len(run_files.split):,} images are used.", *lines]


def _disjoint(run_files: RunFiles) -> list[str]:
    """Whether lesions are shared between training and what is held out."""
    if run_files.split is None:
        return []
    leaked = is_leaked(run_files.split)
    lines = [f"Split by {run_files.results['split']}: {leaked.sum():,} of {len(leaked):,} held-out "
             "images show a lesion that is in training too."]  # fmt: skip
    if "patient_id" not in run_files.split:
        lines.append("Patients are not identified: one may have lesions in several parts.")
    return lines


def _imbalance(run_files: RunFiles) -> list[str]:
    """How unequal the classes are, and what the recipe does about it."""
    if run_files.split is None:
        return []
    counts = run_files.split.iloc[split_rows(run_files.split, "train")]["dx"].value_counts()
    names = ", ".join(f"{DISPLAY_NAMES[code].lower()} {n:,}" for code, n in counts.items())
    lines = [f"Training images: {names}."]
    for name in sorted({model["config"].recipe for model in run_files.models}):
        most, way = RECIPES[name].majority_fraction, RECIPES[name].decision
        shown = "shows every image" if most == 1 else f"is at most {most:.0%} of one class"
        decided = "the most probable" if way == "probable" else "balanced, relative to frequency"
        lines.append(f"Recipe {name}: an epoch {shown}; the diagnosis decided on is {decided}.")
    return lines


def _missing_data(run_files: RunFiles) -> list[str]:
    """What is unknown of the test images, and what was left out elsewhere."""
    rows = [row for row in _groups(run_files) if row["group"] == "unknown"]
    unknown = [f"{_label(row)}: {row['images']:,}" for row in rows]
    lines = ["Patient data are no input. Test images for which they are unknown are a group of "
             f"their own; by {'; by '.join(unknown) or 'any attribute: none'}."]  # fmt: skip
    for results in run_files.external:
        left_out = describe_excluded(results["external"]["left_out"]) or "none"
        lines.append(f"Images left out of {results['dataset']['name']}: {left_out}.")
    return lines


def _software(run_files: RunFiles) -> list[str]:
    """Versions, and the seed of the split."""
    found = {
        ", ".join(f"{name} {number}" for name, number in model["versions"].items())
        + f"; seed of the split {model['config'].seed}."
        for model in run_files.models if model["versions"]
    }  # fmt: skip
    return sorted(found)


def _output(run_files: RunFiles) -> list[str]:
    """What a network returns."""
    codes = run_files.results["class_names"]
    names = ", ".join(DISPLAY_NAMES[code].lower() for code in codes)
    return [f"Calibrated probabilities of {len(codes)} diagnoses ({names}), and a verdict on "
            "melanoma at a threshold on its probability."]  # fmt: skip


def _metrics(run_files: RunFiles) -> list[str]:
    """Every metric that was computed."""
    names = dict.fromkeys(name for model in run_files.models for name in model["metrics"])
    heads = ", ".join(HEADS.get(name, _in_print(name)) for name in names)
    labels = list(dict.fromkeys(row["label"] for row in _points(run_files)))
    return [f"Of every model: {heads}; sensitivity, specificity, PPV and NPV at thresholds for a "
            f"{', a '.join(labels)}."]  # fmt: skip


def _uncertainty(run_files: RunFiles) -> list[str]:
    """What intervals cover, and which differences are significant."""
    interval, pairs = run_files.results["interval"], run_files.results["differences"]
    found = [
        " and ".join(pair_names(run_files.results, pair)) for pair in pairs
        if (p := pair["melanoma_auc"]["p_holm"]) is not None and p < 1 - interval["level"]
    ]  # fmt: skip
    return [
        f"{interval['level']:.0%} intervals from {interval['resamples']:,} resamples by "
        f"{interval['unit']}; trainings of each network: {run_files.results.get('trainings', 1)}.",
        f"Pairs of networks whose melanoma AUC differs significantly (p adjusted by Holm): "
        f"{len(found)} of {len(pairs)}{': ' * bool(found)}{'; '.join(found)}.",
    ]


def _subgroups(run_files: RunFiles) -> list[str]:
    """Between which groups of patients sensitivity at the first threshold differs most."""
    lines = []
    for model in run_files.models:
        rows = [row for row in model["subgroups"] if row["attribute"] in OF_PATIENTS]
        known = [row for row in rows
                 if not row["small"] and row["sensitivity"]["value"] is not None]  # fmt: skip
        known.sort(key=lambda row: row["sensitivity"]["value"])
        ends = [f"{_label(row)} {row['group']} {row['sensitivity']}"
                for row in format_estimates(known[:1] + known[1:][-1:])]  # fmt: skip
        by = ", ".join(dict.fromkeys(map(_label, rows)))
        lines += [f"{model['name']}, sensitivity at one threshold for all, in the worst and in the "
                  f"best group by {by}: {'; '.join(ends) or 'unknown'}. Groups too small to say: "
                  f"{len(rows) - len(known)} of {len(rows)}."] * bool(rows)  # fmt: skip
    return lines


def _errors(run_files: RunFiles) -> list[str]:
    """How many errors there are, and what melanomas are taken for."""
    lines, melanoma = [], CLASS_NAMES.index(MELANOMA)
    for model in run_files.models:
        matrix = np.array(model["confusion_matrix"])
        row, others = matrix[melanoma], matrix[melanoma].copy()
        others[melanoma] = 0
        taken_for = DISPLAY_NAMES[CLASS_NAMES[others.argmax()]].lower()
        most = f", the others most often ({others.max():,}) taken for {taken_for}"
        lines.append(f"{model['name']}: {matrix.sum() - np.trace(matrix):,} of {matrix.sum():,} "
                     f"test images wrong; of {row.sum():,} images of melanoma "
                     f"{row[melanoma]:,} right{most * bool(others.any())}.")  # fmt: skip
    return lines


def _sample_size(run_files: RunFiles) -> list[str]:
    """The size of the test split, and how wide it leaves the interval of the melanoma AUC."""
    widths = [
        f"{model['name']} {auc['high'] - auc['low']:.3f}" for model in run_files.models
        if (auc := model["metrics"]["melanoma_auc"])["low"] is not None
    ]  # fmt: skip
    lesions, melanomas = (run_files.results[f"test_{name}"] for name in ("lesions", "melanomas"))
    return [f"{lesions:,} test lesions and {melanomas:,} test images of melanoma; width of the "
            f"interval of the melanoma AUC: {', '.join(widths) or 'not defined'}."]  # fmt: skip


def _limits(run_files: RunFiles) -> list[str]:
    """Limits that can be read from the run."""
    results, rows = run_files.results, _groups(run_files)
    known = [
        "The pictures are generated." * results["dataset"]["generated"],
        "Split by image, so every estimate is optimistic." * results["optimistic"],
        f"Trainings of each network: {results.get('trainings', 1)}.",
        f"External tests: {len(run_files.external)}.",
        f"Groups of patients with few lesions: {sum(row['small'] for row in rows)} of {len(rows)}.",
    ]
    return list(filter(None, known))


def _in_print(name: str) -> str:
    words = [word.upper() if word in ACRONYMS else word for word in name.split("_")]
    return " ".join([words[0][0].upper() + words[0][1:], *words[1:]])


def _groups(run_files: RunFiles) -> list[dict]:
    """The groups of patients; their counts are the same for every model."""
    return run_files.models[0]["subgroups"]


def _label(row: dict) -> str:
    return ATTRIBUTES[row["attribute"]].lower()


def _counts(run_files: RunFiles, attributes: Iterable[str]) -> list[str]:
    """A line an attribute with the lesions of each of its groups."""
    lines = []
    for attribute in attributes:
        counted = "; ".join(
            f"{row['group']}: {row['lesions']:,} lesions ({row['melanoma_lesions']:,} of melanoma)"
            for row in _groups(run_files) if row["attribute"] == attribute
        )  # fmt: skip
        lines += [f"Test split by {ATTRIBUTES[attribute].lower()}. {counted}."] * bool(counted)
    return lines


ROWS: dict[str, Callable[[RunFiles], Iterable[dict]]] = {
    "models": _models, "kept_epochs": _kept_epochs, "points": _points, "averages": _averages,
    "explained": _explained, "worst_alterations": _worst_alterations, "referrals": _referrals,
    "shifts": lambda run_files: shift_rows(run_files.results), "datasets": _datasets,
    "elsewhere": _elsewhere,
}  # fmt: skip
OF_ALL_PATIENTS = [name for name in ATTRIBUTES if name != "dx_type"]
ANSWERS: dict[str, Callable[[RunFiles], list[str]]] = {
    "dataset": _dataset, "partition": _partition, "disjoint": _disjoint, "imbalance": _imbalance,
    "missing_data": _missing_data, "software": _software, "output": _output, "metrics": _metrics,
    "uncertainty": _uncertainty, "subgroups": _subgroups, "errors": _errors,
    "sample_size": _sample_size, "limits": _limits,
    "characteristics": partial(_counts, attributes=OF_ALL_PATIENTS),
    "confirmation": partial(_counts, attributes=["dx_type"]),
}  # fmt: skip
