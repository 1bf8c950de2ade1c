"""The figures: every one draws cleanly, is legible, and is saved safely and reproducibly."""

import base64
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers import make_run, results_of, shift_images, table_of
from IPython.core.formatters import DisplayFormatter
from matplotlib.text import Text

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES, MELANOMA
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.explanation.map_metrics import SCORES
from melanoma_lib.explanation.occlusion_metrics import ALTERATIONS, METRICS
from melanoma_lib.reporting import figures
from melanoma_lib.reporting.abstention import abstention_results
from melanoma_lib.reporting.compare import COLUMNS
from melanoma_lib.reporting.leakage import SETS
from melanoma_lib.reporting.run import Run, open_run

MODELS = ("ResNet-50", "EfficientNet-B3", "DenseNet-121", "ViT-B/16")
MILLIONS = (23.5, 10.7, 7.0, 85.8)
KNOWN = {"value": 0.5, "low": 0.4, "high": 0.65}
UNKNOWN = dict.fromkeys(KNOWN)


def metadata():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"dx": [code for code in CLASS_NAMES for _ in range(9)]})
    table["lesion_id"] = [f"HAM_{row // 2}" for row in range(len(table))]
    table["image_id"] = [f"ISIC_{row}" for row in range(len(table))]
    table["age"] = rng.choice([30.0, 55.0, 80.0, np.nan], len(table))
    table["sex"] = rng.choice(["male", "female", "unknown"], len(table))
    table["localization"] = rng.choice(["back", "lower extremity", "unknown"], len(table))
    return table


def images(count, size=24):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def abcde(_models):
    ranges = {"asymmetry": (0.03, 0.17), "border": (1.1, 4.8), "colours": (0.08, 0.32),
              "diameter": (0.26, 0.73)}  # fmt: skip
    table = metadata()[["dx"]].assign(**{n: np.linspace(*ends, 63) for n, ends in ranges.items()})
    return figures.abcde(table)


def architectures(models):
    table = pd.DataFrame({"name": models, "parameters": MILLIONS[: len(models)]})
    return figures.architectures(table.assign(gmacs=4.1))


def grad_cam(models):
    mask = np.zeros((24, 24), bool)
    mask[5:15, :12] = True  # meets the edge of the image
    heat = np.linspace(0, 1, 24 * 24).reshape(24, 24)
    title = "melanoma, predicted melanocytic nevus"
    return figures.grad_cam([
        {"image": image, "title": title, "overlays": dict.fromkeys(models, heat), "mask": outline}
        for image, outline in zip(images(3), (mask, None, ~mask & mask), strict=True)
    ])


BY_CHAPTERS = {  # which have the images or models that these show
    "01-3-examples": lambda _: figures.examples({"nv": images(6), "mel": images(4)}),
    "01-5-abcde": abcde,
    "02-1-augmentation": lambda models: figures.augmentation(images(1)[0], images(2 * len(models))),
    "03-1-architectures": architectures,
    "07-1-grad-cam": grad_cam,
    "07-3-doubtful-maps": grad_cam,
    "08-9-value-of-trainings": lambda models: figures.value_of_trainings(
        {name: {"lesions": 1e-4, "interaction": 3e-5, "trainings": 2e-5} for name in models}, 1117
    ),
}


def by_diagnosis(measure):
    rows = [{"diagnosis": code, "images": images, measure: KNOWN | {"value": 0.5}}
            for code, images in zip(CLASS_NAMES, (45, 75, 165, 19, 168, 1015, 21), strict=True)]
    return lambda models: figures.by_diagnosis(dict.fromkeys(models, rows), measure)


BY_CHAPTERS |= {
    "12-1-learning-rate": lambda models: figures.learning_rates(
        {name: [1e-5, 2e-3, 1e-4] for name in models}, dict.fromkeys(models, 20)
    ),
    "12-2-recall-by-diagnosis": by_diagnosis("recall"),
    "12-3-calibration-by-diagnosis": by_diagnosis("calibration_in_the_large"),
    "12-4-time-to-quality": lambda models: figures.time_to_quality(
        {name: {"seconds": 30 * 6**number, "metrics": {"nll": KNOWN, "melanoma_auc": KNOWN}}
         for number, name in enumerate(models)},
        {"melanoma_auc": "Melanoma AUC", "nll": "NLL"},
    ),
}


STEPS = [{"share": 0.02, "similarity": KNOWN}, {"share": 1.0, "similarity": UNKNOWN}]
EXPLANATIONS = {  # as `summarize_map_scores` gives them
    "images": 1502, "faithful_images": 32,
    "maps": [
        {"network": network, "map": name, "target": "predicted", "like_centre": KNOWN,
         "randomised": STEPS, **dict.fromkeys(SCORES, KNOWN)}
        for network, name in (
            ("trained", "grad_cam"), ("trained", "layer_cam"), ("random", "grad_cam"),
            ("none", "centre prior"), ("none", "uniform map"),
        )
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four trained and compared models, with all that any figure needs."""
    folder = tmp_path_factory.mktemp("run")
    latency = make_run(folder, skills=(2.0, 1.5, 1.0, 0.5))
    for key, name, millions in zip(latency, MODELS, MILLIONS, strict=True):
        record = read_json(folder / key / "run.json")
        write_json(folder / key / "run.json",
                   record | {"name": name, "parameters": int(1e6 * millions)})
        bundle = read_json(folder / key / "bundle.json")
        point = {"name": "sensitivity_95", "criterion": "sensitivity", "target": 0.95}
        bundle["operating_points"].append(point | {"threshold": 0.03})
        write_json(folder / key / "bundle.json", bundle)
    patients = table_of(load_predictions(folder / "model_0" / "predictions.parquet"))
    run = open_run(results_of(folder, latency, patients))
    for model in run.results["models"].values():
        model["explanations"] = EXPLANATIONS
        model["occlusion"] = [
            {"alteration": name, "images": 5, "lesions": 4, "melanoma_score_change": KNOWN,
             **{side: dict.fromkeys(METRICS, KNOWN)
                for side in ("metrics", "original", "minus_original")}}
            for name in ALTERATIONS
        ]  # fmt: skip
    for pair in run.results["differences"]:
        pair["agreement"] = KNOWN
    side = {"test_images": 1502, "metrics": dict.fromkeys(COLUMNS, KNOWN)}
    run.results["price_of_leakage"] = {"lesion": side, "image": side}
    changed = dict.fromkeys(COLUMNS, KNOWN | {"of_each_training": [0.45, 0.55, None]})
    sets = {name: {"images": 717, "difference": changed} for name in SETS}
    run.results["leakage"] = {
        "fractions": [{"leaked_fraction": fraction, "sets": sets} for fraction in (0.2, 0.4)]
    }
    shift_images(folder, latency)
    run.results["abstention"] = abstention_results(folder, list(latency), resamples=50)
    return replace(run, metadata=metadata())


def first(run, count):
    models = dict(list(run.results["models"].items())[:count])
    pairs = run.results["differences"] if count > 1 else []
    return replace(run, results=run.results | {"models": models, "differences": pairs})


@pytest.fixture(scope="module")
def drawn(run):
    """The size of a figure in pixels and (string, points, box) of every text drawn in it."""

    @lru_cache
    def drawn(name, count):
        texts, draw = [], Text.draw

        def spy(text, renderer, *rest, **options):
            if text.get_visible() and (string := text.get_text()).strip():
                texts.append((string, text.get_fontsize(), text.get_window_extent(renderer)))
            return draw(text, renderer, *rest, **options)

        with warnings.catch_warnings(), mock.patch.object(Text, "draw", spy):
            warnings.simplefilter("error")
            figure = (
                BY_CHAPTERS[name](MODELS[:count]) if name in BY_CHAPTERS
                else figures.plot(first(run, count), name)
            )  # fmt: skip
            texts.clear()
            figure.draw_without_rendering()
        assert figure.get_figwidth() == figures.WIDTH
        return figure.bbox.frozen(), texts

    return drawn


def test_every_figure_of_the_catalogue_is_drawn_here_and_has_a_caption():
    assert {*BY_CHAPTERS, *figures.PLOTS} == set(figures.CATALOG)
    for name, caption in figures.CATALOG.items():
        assert re.fullmatch(r"(0[1-8]|1[12])-\d-[a-z-]+", name)
        assert caption.endswith(".") and len(caption) > 40


def is_inside(box, page):
    return page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, count) for name in figures.CATALOG for count in (1, 4)
     if count == 4 or not name.startswith("01")],  # chapter 01 shows no models
)  # fmt: skip
def test_texts_are_legible_inside_the_figure_and_apart(name, count, drawn):
    page, texts = drawn(name, count)
    assert texts
    for string, size, box in texts:
        assert size >= 7 and is_inside(box, page), string
    for (one, _, a), (other, _, b) in combinations(texts, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 1 or height < 1, f"{one!r} covers {other!r}"


@pytest.mark.parametrize(
    "name", ["01-1-class-counts", "01-3-examples", "01-4-lesion-leak", "01-5-abcde",
             "04-2-confusion-matrix"]
)
def test_classes_are_spelled_out(name, drawn):
    words = {" ".join(text.split()) for text, *_ in drawn(name, 4)[1]}
    assert any(word.startswith("melanoma") for word in words)
    assert any(word.startswith("melanocytic nevus") for word in words)
    assert not words & set(CLASS_NAMES)


def texts_of(figure):
    return {text.get_text() for text in figure.findobj(Text)}


def test_counts_percentages_and_sample_sizes_are_written():
    matrix = np.array([[3, 1], [0, 4]])
    words = texts_of(figures.confusion_matrices({"ViT-B/16": matrix}, ["mel", "nv"]))
    assert {"3\n75%", "1\n25%", "0", "4\n100%", "ViT-B/16 (n = 8 images)"} <= words
    assert DISPLAY_NAMES["nv"].replace(" ", "\n") in words
    counted = texts_of(figures.class_counts(metadata()))
    assert {"9 (14.3%)", "Images (n = 63)", "Lesions (n = 32)"} <= counted


def test_a_model_keeps_its_colour_whatever_the_number_of_models(run):
    def colours(count):
        axes = figures.plot(first(run, count), "05-2-temperature").axes[0]
        return [line.get_color() for line in axes.lines if line.get_marker() != "None"]

    assert colours(4)[:2] == colours(2) == list(figures.MODEL_COLOURS[:2])


def test_pairs_of_models_have_the_colour_of_no_model(run):
    axes = figures.plot(first(run, 4), "07-5-agreement").axes[0]
    colours = [line.get_color() for line in axes.lines]
    assert colours[:4] == list(figures.MODEL_COLOURS[:4])
    assert len(colours) == 10 and not set(colours[4:]) & set(figures.MODEL_COLOURS)


def test_ages_fall_into_the_middle_of_bins_of_five_years():
    table = metadata().assign(dx="nv", age=np.repeat([30.0, 35.0, 80.0], 21))
    corners = figures.patients(table).axes[0].collections[0].get_paths()[0].vertices[:, 0]
    assert {27.5, 32.5, 37.5, 77.5, 82.5} <= set(corners)


def test_the_target_is_drawn_only_where_it_applies(run):
    panels = figures.plot(run, "06-3-operating-points").axes
    dashed = [sum(line.get_linestyle() == "--" for line in axes.lines) for axes in panels]
    assert dashed == [0, 1, 1, 0]  # a specificity, a sensitivity


def scored(truth, scores):
    """Predictions with these probabilities of melanoma, the same for validation and test."""
    truth, scores = np.tile(truth, 2), np.tile(scores, 2)
    with np.errstate(divide="ignore"):
        logits = np.log(np.repeat((1 - scores)[:, None] / 6, 7, axis=1))
        logits[:, CLASS_NAMES.index(MELANOMA)] = np.log(scores)
    names, labels = np.arange(len(truth)), np.where(truth, CLASS_NAMES.index(MELANOMA), 0)
    splits = np.repeat(["val", "test"], len(truth) // 2)
    return Predictions(names, names, splits, labels, logits)


def one_model(predictions, *points):
    """A run of the model `a`; points: sensitivity, specificity and threshold."""
    found = [
        {"criterion": "specificity", "target": 0.9, "threshold": threshold,
         "test": {"sensitivity": UNKNOWN | {"value": sensitivity},
                  "specificity": UNKNOWN | {"value": specificity}}}
        for sensitivity, specificity, threshold in points
    ]  # fmt: skip
    model = {"name": "a", "temperature": 1.0, "operating_points": found,
             "metrics": {"melanoma_auc": KNOWN}}  # fmt: skip
    return Run(Path(), {"models": {"a": model}}, {"a": predictions})


def test_every_threshold_decides_as_the_next_row_of_the_curve():
    # Worked by hand: melanomas score 0.8 and 0.3, the others 0.5, 0.1 and 0.
    test = scored([True, True, False, False, False], [0.8, 0.3, 0.5, 0.1, 0.0])
    run = one_model(test, *((0.5, 0.5, threshold) for threshold in (0.3 - 1e-9, 0.4, 0.9, 0.0)))
    (axes,) = figures.plot(run, "06-2-thresholds").axes
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-pre"]
    marks = [tuple(np.ravel(line.get_data())) for line in axes.lines if len(line.get_xdata()) == 1]
    left, right = axes.get_xlim()
    for line, heights in zip(steps, ([1, 1, 1, 0.5, 0.5, 0, 0],
                                     [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1]), strict=True):
        x, y = line.get_data()
        assert np.allclose(x[1:-1], [0.1, 0.3, 0.5, 0.8, 0.8]) and x[0] <= left and x[-1] >= right
        assert np.allclose(y, heights)
    expected = [(0.3, 1), (0.4, 0.5), (0.9, 0), (0.3, 2 / 3), (0.4, 2 / 3), (0.9, 1)]
    assert np.allclose(marks, expected)


def test_very_small_thresholds_stay_on_the_axis():
    run = one_model(scored([True, False], [0.9, 1e-7]), (0.95, 0.5, 1e-6))
    assert 0 < figures.plot(run, "06-2-thresholds").axes[0].get_xlim()[0] < 1e-6


@pytest.mark.parametrize(
    ("rates", "floor"),
    [([(0.05, 0.93)], 0.8), ([(0.1, 0.6)], 0.6), ([(0.05, 0.41), (0.46, 0.95)], 0.4),
     ([(0.62, 0.1)], 0.8), ([(0.0, 0.0), (0.2, 1.0), (1.0, 1.0)], 0)],
)
def test_the_zoom_is_high_specificity_down_to_its_lowest_point(rates, floor):
    points = [(found, 1 - alarms, 0.5) for alarms, found in rates]
    run = one_model(scored([True, False], [0.9, 0.1]), *points)
    full, zoom = figures.plot(run, "06-1-roc").axes
    region = [*zoom.get_xlim(), *zoom.get_ylim()]
    assert np.allclose(region, [0, 0.2, floor, 1], atol=0.01)
    assert region[0] <= 0 and region[3] >= 1
    (frame,) = full.patches
    assert np.allclose(frame.get_bbox().extents, np.array(region)[[0, 2, 1, 3]])
    drawn = [sum(line.get_marker() == "o" for line in axes.lines) for axes in (full, zoom)]
    inside = sum(alarms <= 0.2 for alarms, _ in rates)
    assert drawn == [len(rates), inside]  # markers at the edge would not be clipped


@pytest.mark.parametrize(
    ("others", "named"),
    [(3, ["a\n(1 melanomas, 1 others)", "b\n(1 melanomas, 3 others)"]), (1, ["a", "b"])],
)
def test_models_on_other_images_have_their_counts_beside_their_names(others, named):
    run = one_model(scored([True, False], [0.9, 0.1]), (0.8, 0.8, 0.5))
    more = scored([True] + [False] * others, [0.5] * (1 + others))
    models = {name: run.results["models"]["a"] | {"name": name} for name in ("a", "b")}
    run = replace(run, results={"models": models}, predictions=run.predictions | {"b": more})
    left, right = figures.plot(run, "06-3-operating-points").axes
    assert [text.get_text() for text in left.get_yticklabels()] == named
    assert ("1 others" in right.get_xlabel()) == (named == ["a", "b"])


def test_small_costs_keep_two_digits():
    table = pd.DataFrame({"name": ["a", "b", "c"], "parameters": [85.84, 1.0, 0.96]})
    words = texts_of(figures.architectures(table.assign(gmacs=[0.057, 0.1, 12])))
    assert {"85.8", "1.0", "0.96", "0.057", "0.10", "12.0"} <= words


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_examples_may_be_few_or_none(kind):
    rows = {"akiec": kind([]), "nv": kind(list(images(3))), "mel": kind(list(images(1)))}
    panels = figures.examples(rows).axes
    assert [len(axes.images) for axes in panels] == [1, 0, 0, 1, 1, 1]  # mel, then nv
    assert panels[0].get_ylabel() == "melanoma"


@pytest.mark.parametrize("count", range(1, 7))
def test_models_at_one_place_are_told_apart_by_a_legend_inside_the_figure(count):
    names = [*MODELS, "EfficientNetV2-S", "ConvNeXt-Tiny"][:count]
    model = {"parameters": 123.4e6, "metrics": {"accuracy": KNOWN},
             "latency": {"median_ms": 9, "low_ms": 8, "high_ms": 10}}  # fmt: skip
    models = {name: model | {"name": name} for name in names}
    run = Run(Path(), {"models": models, "test_images": 9}, {})
    figure = figures.plot(run, "08-4-accuracy-latency")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert is_inside(box, figure.bbox) and not box.overlaps(figure.axes[0].get_tightbbox())
    assert [text.get_text() for text in legend.texts] == [f"{name} (123 M)" for name in names]


def without_values(results):
    """The results with every estimate undefined."""
    if isinstance(results, dict):
        undefined = results.keys() >= KNOWN.keys()
        return UNKNOWN if undefined else {k: without_values(v) for k, v in results.items()}
    return [without_values(each) for each in results] if isinstance(results, list) else results


@pytest.fixture(scope="module")
def bare(run, tmp_path_factory):
    """A run of one model with as little in it as can be."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "model_0").mkdir()
    (folder / "model_0" / "history.csv").write_text(
        "epoch,train_loss,val_loss,train_accuracy,val_accuracy,best\n1,1,,0.5,0.5,False\n"
    )
    results = without_values(first(run, 1).results)
    results["models"]["model_0"]["operating_points"][0]["threshold"] = 0.0
    results["models"]["model_0"]["confusion_matrix"] = np.zeros((7, 7), int)
    one = metadata().query("dx == 'nv'").assign(age=np.nan, sex="unknown", localization="ear")
    return Run(folder, results, {"model_0": scored([True, False], [0.9, 0.1])}, one)


LITTLE = {
    "07-1-grad-cam": lambda: figures.grad_cam([
        {"image": images(1)[0], "title": "a", "overlays": {"b": np.zeros((24, 24))},
         "mask": np.ones((24, 24), bool)}
    ]),
    "01-5-abcde": lambda: figures.abcde(
        pd.DataFrame({"dx": ["nv"], "asymmetry": np.nan, "border": 1, "colours": 2, "diameter": 1})
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LITTLE, *sorted(figures.PLOTS.keys() - {"01-4-lesion-leak"})])
def test_little_or_missing_data_draws_without_a_warning(name, bare):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = LITTLE[name]() if name in LITTLE else figures.plot(bare, name)
        figure.draw_without_rendering()


def test_a_value_stands_beside_its_own_model(run):
    for axes, metric in zip(figures.plot(run, "08-1-comparison").axes, COLUMNS, strict=True):
        values = {text.get_position()[1]: text.get_text() for text in axes.texts}
        assert values == {row: f"{model['metrics'][metric]['value']:.3f}"
                          for row, (_, model) in enumerate(run.models)}  # fmt: skip


def test_the_style_does_not_leak(run):
    before = dict(matplotlib.rcParams)
    figures.plot(run, "06-1-roc")
    assert dict(matplotlib.rcParams) == before


def read(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


SETTINGS = """
backend: module://there.is.no.such.backend
text.usetex: True
figure.autolayout: True
figure.constrained_layout.use: False
font.size: 40
axes.grid: True
axes.labelcolor: red
lines.marker: o
savefig.bbox: tight
savefig.format: svg
savefig.dpi: 30
savefig.transparent: True
"""


def test_figures_are_the_same_bytes_whatever_stands_in_the_users_matplotlibrc(tmp_path):
    (tmp_path / "matplotlibrc").write_text(SETTINGS)
    (tmp_path / "draw.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "from melanoma_lib.reporting import figures\n"
        "figure = figures.confusion_matrices({'a': np.eye(2, dtype=int)}, ['mel', 'nv'])\n"
        "figures.save(figure, '04-2-confusion-matrix', sys.argv[1], note='made up')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    for folder, more in (("plain", {"MATPLOTLIBRC": os.devnull}),
                         ("hostile", {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})):
        command = [sys.executable, tmp_path / "draw.py", tmp_path / folder]
        subprocess.run(command, env=environment | more, check=True)
    files = read(tmp_path / "plain")
    assert read(tmp_path / "hostile") == files and len(files) == 2
    png, pdf = (files[f"04-2-confusion-matrix.{suffix}"] for suffix in ("png", "pdf"))
    assert png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf  # text that can be searched, as journals want it
    assert b"Matplotlib" not in png + pdf


def test_a_notebook_shows_a_figure_and_the_picture_that_was_saved(run, tmp_path):
    figure, formatter = figures.plot(run, "05-2-temperature"), DisplayFormatter()
    data, _ = formatter.format(figure, include={"image/png"})
    assert data["image/png"].startswith(b"\x89PNG")
    shown = figures.save(figure, "05-2-temperature", tmp_path, "resnet50")
    data, about = formatter.format(shown, include={"image/png"})
    saved = (tmp_path / "05-2-temperature-resnet50.png").read_bytes()
    assert base64.b64decode(data["image/png"]) == saved
    assert about["image/png"] == {
        "width": pytest.approx(figure.get_figwidth() * 110, abs=1.1),
        "alt": figures.CATALOG["05-2-temperature"] + " (resnet50)",
    }


def test_a_note_belongs_to_one_save_and_a_variant_to_the_file_name(run, tmp_path):
    figure = figures.plot(run, "05-2-temperature")
    figures.save(figure, "05-2-temperature", tmp_path, "resnet50", note="generated sample")
    names = {f"05-2-temperature-resnet50.{suffix}" for suffix in ("png", "pdf")}
    assert read(tmp_path).keys() == names
    assert figure.get_supxlabel() == "generated sample"
    figures.save(figure, "05-2-temperature", tmp_path)
    assert figure.get_supxlabel() == ""


def test_a_note_covers_nothing(run, tmp_path):
    figure = figures.plot(run, "06-1-roc")
    figures.save(figure, "06-1-roc", tmp_path, note="image split: optimistic")
    note = next(text for text in figure.texts if text.get_text().startswith("image split"))
    box = note.get_window_extent()
    others = [axes.get_tightbbox() for axes in figure.axes]
    others += [legend.get_window_extent() for legend in figure.legends]
    assert not any(box.overlaps(other) for other in others)


def test_unknown_names_and_bad_variants_are_refused(run, tmp_path):
    figure = figures.plot(run, "04-1-training-curves", "model_0")
    with pytest.raises(MelanomaError, match="06-1-roc"):
        figures.save(figure, "99-9-nothing", tmp_path)
    for variant in ("../x", "a b", "résumé", "x\n"):
        with pytest.raises(MelanomaError, match="variant"):
            figures.save(figure, "04-1-training-curves", tmp_path, variant)
    assert not list(tmp_path.iterdir())


def test_a_failing_write_keeps_the_old_file(run, tmp_path):
    name = "04-1-training-curves"
    (tmp_path / f"{name}.png").write_bytes(b"old")
    figure = figures.plot(run, name, "model_0")

    def broken(path, **_options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    refused = pytest.raises(MelanomaError, match="disk full")
    with mock.patch.object(figure, "savefig", broken), refused:
        figures.save(figure, name, tmp_path)
    assert read(tmp_path) == {f"{name}.png": b"old"}
