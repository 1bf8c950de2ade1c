"""The model card of a trained network, in the Hugging Face Hub's format (Mitchell et al., 2019)."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from melanoma_lib.config import basis_note
from melanoma_lib.core.files import PROJECT, read_json, write_text
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES
from melanoma_lib.data.layouts import LICENCE
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.reporting import figures
from melanoma_lib.reporting.compare import COLUMNS
from melanoma_lib.reporting.run import open_run
from melanoma_lib.reporting.summary import describe_results
from melanoma_lib.reporting.table_formats import markdown
from melanoma_lib.reporting.tables import as_dataframe, table

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

FIGURES = {"05-1-reliability": "Reliability", "06-1-roc": "ROC curve and operating points"}
# Of the configuration, what a reader of a card asks for.
TRAINED_WITH = ("recipe", "epochs", "batch_size", "image_size", "learning_rate", "split", "seed",
                "training_seed")  # fmt: skip
GENERATED = (
    "> **This network knows only generated pictures.** They were painted by a program, and say "
    "nothing about skin. It is of no use on photographs.\n\n"
)
TEXT = """# {name}: seven diagnoses of pigmented skin lesions

{warning}{intended}

It takes a dermatoscopic image and returns calibrated probabilities of {classes}.

## How good it is

{basis} Validation chose the epoch, the temperature ({temperature:.3f}) and the thresholds; test is
only for this report.

{metrics}
Thresholds on the melanoma probability:

{points}
By diagnosis:

{by_diagnosis}
{pictures}

## How it was trained

{network}, {parameters:,} parameters, from {start}, on {train:,} images of {dataset} (fingerprint
`{fingerprint}`), {validation:,} more for validation; {seconds:,.0f} seconds on {device}; the kept
epoch is {best_epoch}.

{config}
Versions: {versions}.

## Known limits

{limits}

## How to use it

With the project that trained it, melanoma-lib, installed; `FOLDER` is that of this card, or the
address of a repository on the Hugging Face Hub, `hf://owner/name@revision`:

```python
from melanoma_lib.inference import Predictor, best_bundle

predictor = Predictor(best_bundle("FOLDER"))
image = predictor.load_image("image.jpg")
(prediction,) = predictor.predict([image])
print(prediction.probabilities)
decision = predictor.decide(prediction, "{point}")
print(decision.predicted_positive, decision.operating_point["test"]["sensitivity"])
```

## How to cite it

The network: this card, with the fingerprint above.{images} Licence: {licence}.
"""
HAM10000 = (
    " The images: Tschandl, P., Rosendahl, C., Kittler, H.: The HAM10000 dataset, a large "
    "collection of multi-source dermatoscopic images of common pigmented skin lesions. Scientific "
    "Data 5, 180161 (2018), doi:10.1038/sdata.2018.161."
)


def write_card(folder: Path, output: Path) -> Path:
    """Writes the card of a trained network as `README.md` into `output`, with its two figures.

    `folder` is that of the architecture in a compared run. Raises `MelanomaError` where the run has
    no results, or the network was trained again after them.
    """
    run = open_run(folder.parent / "comparison_results.json").only(folder.name)
    record, model = read_json(folder / "run.json"), run.results["models"][folder.name]
    generated = record["dataset"]["generated"]
    note = basis_note(generated, record["config"]["split"])
    for name in FIGURES:
        figures.save(figures.plot(run, name), name, output, note=note)
    text = TEXT.format(
        **model | _results(run.results, model) | _training(record),
        warning=GENERATED if generated else "", images="" if generated else HAM10000,
        intended=_section("Intended use"), limits=_section("Known limits"), licence=LICENCE,
        classes=", ".join(DISPLAY_NAMES[code].lower() for code in CLASS_NAMES),
        pictures="\n\n".join(f"![{words}]({name}.png)" for name, words in FIGURES.items()),
    )  # fmt: skip
    header = _metadata(record, model).to_yaml()
    return write_text(output / "README.md", f"---\n{header}\n---\n\n{text}")


def _results(results: dict, model: dict) -> dict[str, str]:
    """The numbers of the card, from the results of a run with this one model."""
    heads = {name: head for name, (head, _) in COLUMNS.items()}
    metrics = pd.DataFrame(
        {"Metric": head, "Estimate": format_estimate(model["metrics"][name])}
        for name, head in heads.items()
    )
    alone = results | {"ensembles": {}}  # no averages with other networks, or with flips
    without_model = {
        name: as_dataframe(table(alone, name)).iloc[:, 1:]
        for name in ("operating_points", "diagnoses")
    }
    basis = describe_results(results)
    return {
        "dataset": results["dataset"]["name"],
        "basis": basis[0].upper() + basis[1:],
        "metrics": markdown(metrics),
        "points": markdown(without_model["operating_points"]),
        "by_diagnosis": markdown(without_model["diagnoses"]),
        "point": model["operating_points"][0]["name"],
    }


def _training(record: dict) -> dict[str, object]:
    """How the network was trained, from its run.json."""
    values = {name: record["config"][name] for name in TRAINED_WITH if name in record["config"]}
    parts = record["dataset"]["parts"]
    return {
        "network": f"timm's `{record['timm_name']}`",
        "train": parts["train"],
        "validation": parts.get("val", 0),
        "fingerprint": record["dataset"]["fingerprint"],
        "seconds": record["train_seconds"],
        "config": markdown(pd.DataFrame({"Setting": values.keys(), "Value": values.values()})),
        "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    }


def _metadata(record: dict, model: dict) -> "ModelCardData":
    """What the Hub lists and searches."""
    from huggingface_hub import EvalResult, ModelCardData  # a second to import

    dataset = record["dataset"]["name"]
    return ModelCardData(
        library_name="timm", license=LICENCE.lower().replace(" ", "-"),
        pipeline_tag="image-classification", model_name=record["name"],
        tags=["melanoma", "dermatoscopy", "calibration"],
        eval_results=[
            EvalResult("image-classification", dataset.lower(), dataset, name,
                       estimate["value"], dataset_split="test",
                       metric_name=f"{COLUMNS[name][0]}: {format_estimate(estimate)}")
            for name, estimate in model["metrics"].items() if name in COLUMNS
        ],
    )  # fmt: skip


def _section(title: str) -> str:
    """A part of the repository's MODEL_CARD.md, which holds for every network of the project."""
    text = (PROJECT / "MODEL_CARD.md").read_text()
    return re.search(rf"\n## {title}\n\n(.*?)(?=\n## |\Z)", text, re.DOTALL)[1].strip()

