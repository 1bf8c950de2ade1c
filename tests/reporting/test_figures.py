"""The figures: every one draws cleanly, is legible, and is saved safely and reproducibly."""

import re
import warnings
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.text import Text

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, DISPLAY_NAMES
from melanoma_lib.evaluation.operating_points import operating_curve
from melanoma_lib.reporting import figures

matplotlib.use("agg")  # no windows on a desktop
MODELS = ("ResNet-50", "EfficientNet-B3", "DenseNet-121", "ViT-B/16")


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


def lesion_leak(_models):
    leak = pd.Series([n < k for k in range(7) for n in range(10)], np.repeat(CLASS_NAMES, 10))
    return figures.lesion_leak(pd.Series([1, 1, 1, 2, 2, 6]), leak)


def abcde(_models):
    table = metadata()[["dx"]].assign(asymmetry=0.3, border=1.2, colours=range(63),
                                         diameter=0.5)
    return figures.abcde(table)


def architectures(models):
    table = pd.DataFrame({"name": models})
    return figures.architectures(table.assign(parameters=[23.5, 10.7, 7.0, 85.8][: len(models)],
                                              gmacs=4.1))


def training_curves(models):
    history = pd.DataFrame({
        "epoch": [1, 2, 3], "train_loss": [1.2, 0.6, 0.3], "val_loss": [1.1, 0.7, 0.8],
        "train_accuracy": [0.5, 0.8, 0.9], "val_accuracy": [0.55, 0.7, 0.69],
        "best": [False, True, False],
    })
    return figures.training_curves(dict.fromkeys(models, history))


def confusion_matrices(models):
    matrix = np.random.default_rng(1).integers(0, 900, (7, 7))
    matrix[3] = 0  # a class without test images
    return figures.confusion_matrices(dict.fromkeys(models, matrix), CLASS_NAMES)


def reliability(models):
    low = np.arange(5) / 5
    table = pd.DataFrame({"low": low, "high": low + 0.2, "count": [0, 5, 20, 80, 400]})
    for column, shift in (("confidence", 0), ("accuracy", 0.02), ("accuracy_low", -0.1),
                          ("accuracy_high", 0.08)):
        table[column] = (low + 0.1 + shift).clip(0, 1)
        table.loc[0, column] = np.nan
    tables = {model: {"before": table, "after": table} for model in models}
    return figures.reliability(tables)


def temperature_curve(models):
    grid = np.geomspace(0.25, 4, 20)
    nll = dict.fromkeys(models, 0.5 + np.log(grid / 1.4) ** 2)
    return figures.temperature_curve(grid, nll, dict.fromkeys(models, 1.4), 1522)


def points(models, *rows):
    """Operating points: label, sensitivity, specificity, threshold, criterion, of each model."""
    names = ["point", "sensitivity", "specificity", "threshold", "criterion"]
    table = pd.concat([pd.DataFrame(rows, columns=names).assign(model=model) for model in models],
                      ignore_index=True)
    for measure in ("sensitivity", "specificity"):
        table[f"{measure}_low"], table[f"{measure}_high"] = table[measure] - 0.1, table[measure]
    return table.assign(target=table["criterion"].map({"specificity": 0.95}), melanomas=167,
                        others=1335)


TWO_POINTS = ("Youden index", 0.72, 0.8, 0.2, None), ("specificity 95%", 0.3, 0.95, 0.03,
                                                     "specificity")  # fmt: skip


def roc(models):
    rates = np.linspace(0, 1, 20)
    curve = pd.DataFrame({"specificity": 1 - rates, "sensitivity": rates**0.2})
    areas = dict.fromkeys(models, "0.920 (95% interval 0.900 to 0.940)")
    return figures.roc(dict.fromkeys(models, curve), areas, points(models, *TWO_POINTS))


def threshold_curves(models):
    grid = np.linspace(0, 1, 20)
    curve = pd.DataFrame({"threshold": grid, "sensitivity": 1 - grid, "specificity": grid})
    return figures.threshold_curves(dict.fromkeys(models, curve), points(models, *TWO_POINTS))


def operating_points(models):
    return figures.operating_points(points(models, *TWO_POINTS))


def grad_cam(models):
    mask = np.zeros((24, 24), bool)
    mask[5:15, :12] = True  # meets the edge of the image
    heat = np.linspace(0, 1, 24 * 24).reshape(24, 24)
    title = "melanoma, predicted melanocytic nevus"
    return figures.grad_cam([
        {"image": image, "title": title, "overlays": dict.fromkeys(models, heat), "mask": outline}
        for image, outline in zip(images(3), (mask, None, ~mask & mask), strict=True)
    ])


def intervals(models, column, names):
    return pd.DataFrame([{"model": model, column: name, "value": 0.5, "low": 0.4, "high": 0.65}
                         for model in models for name in names])


def mask_overlap(models):
    names = [*models, *(f"random weights: {name}" for name in models), "baseline: centre prior"]
    heads = ["Hottest pixel in the lesion\n(n = 1,502)", "Faithfulness, ROAD\n(n = 32)"]
    return figures.mask_overlap(intervals(names, "score", heads))


def randomised_weights(models):
    steps = pd.DataFrame({"share": [0.02, 0.5, 1], "value": [0.8, 0.4, np.nan],
                          "low": [0.7, 0.3, np.nan], "high": [0.9, 0.5, np.nan]})  # fmt: skip
    curves = dict.fromkeys(models, steps)
    return figures.randomised_weights({"Grad-CAM": curves, "LayerCAM": curves}, 32)


def comparison(models):
    names = ["Accuracy", "Balanced accuracy", "Macro F1", "Melanoma AUC", "ECE"]
    return figures.comparison(intervals(models, "metric", names), "n = 1,502 images")


def accuracy_latency(models):
    latency = np.array([8.2, 9.1, 9.6, 14.5])[: len(models)]
    accuracy = np.array([0.842, 0.851, 0.846, 0.868])[: len(models)]
    return figures.accuracy_latency(pd.DataFrame({
        "model": models, "latency_ms": latency, "latency_low": latency - 0.4,
        "latency_high": latency + 0.6, "accuracy": accuracy, "accuracy_low": accuracy - 0.018,
        "accuracy_high": accuracy + 0.017, "parameters": [23.5, 10.7, 7.0, 85.8][: len(models)],
    }), 1502)


def decision_curves(models):
    at = np.linspace(0.01, 0.6, 30)
    curve = pd.DataFrame({"threshold": at, "model": 0.2 - 0.1 * at,
                          "treat_all": 0.2 - 0.8 * at / (1 - at)})
    return figures.decision_curves(dict.fromkeys(models, curve), 1502)


def subgroups(models):
    def figure(value, low, high):
        return {"value": value, "low": low, "high": high}

    rows = [
        ("Sex", "female", False, figure(0.9, 0.85, 0.94), figure(0.6, 0.5, 0.7)),
        ("Sex", "male", False, figure(0.88, 0.8, 0.93), figure(0.5, 0.4, 0.6)),
        ("How the diagnosis was made", "confocal microscopy", True, figure(1.0, None, None),
         figure(None, None, None)),
    ]  # fmt: skip
    names = ["attribute", "group", "small", "Melanoma AUC", "Sensitivity"]
    table = pd.DataFrame(rows, columns=names).assign(lesions=1234, melanoma_lesions=56)
    return figures.subgroups(table, {"Melanoma AUC": 0.89, "Sensitivity": 0.55})


FIGURES = {
    "01-1-class-counts": lambda _: figures.class_counts(metadata()),
    "01-2-patients": lambda _: figures.patients(metadata()),
    "01-3-examples": lambda _: figures.examples({"nv": images(6), "mel": images(4)}),
    "01-4-lesion-leak": lesion_leak,
    "01-5-abcde": abcde,
    "02-1-augmentation": lambda models: figures.augmentation(images(1)[0], images(2 * len(models))),
    "03-1-architectures": architectures,
    "04-1-training-curves": training_curves,
    "04-2-confusion-matrix": confusion_matrices,
    "05-1-reliability": reliability,
    "05-2-temperature": temperature_curve,
    "06-1-roc": roc,
    "06-2-thresholds": threshold_curves,
    "06-3-operating-points": operating_points,
    "05-3-melanoma-reliability": reliability,
    "06-4-decision-curves": decision_curves,
    "07-1-grad-cam": grad_cam,
    "07-2-mask-overlap": mask_overlap,
    "07-3-doubtful-maps": grad_cam,
    "07-4-randomised-weights": randomised_weights,
    "07-5-agreement": comparison,
    "08-1-comparison": comparison,
    "08-2-training-curves": training_curves,
    "08-3-confusion-matrices": confusion_matrices,
    "08-4-accuracy-latency": accuracy_latency,
    "08-5-subgroups": subgroups,
    "08-6-price-of-leakage": comparison,
}
ONCE = {  # drawn by a function that another figure uses too
    "05-3-melanoma-reliability", "07-3-doubtful-maps", "07-5-agreement", "08-2-training-curves",
    "08-3-confusion-matrices", "08-6-price-of-leakage",
}
each_figure = pytest.mark.parametrize(
    ("name", "count"),
    [(name, count) for name in FIGURES if name not in ONCE for count in (1, 4)
     if count == 4 or not name.startswith("01")],  # chapter 01 shows no models
)


@lru_cache
def drawn(name, count):
    """The size of a figure in pixels and (string, points, box) of every text drawn in it."""
    texts, draw = [], Text.draw

    def spy(text, renderer, *rest, **options):
        if text.get_visible() and text.get_text().strip():
            texts.append((text.get_text(), text.get_fontsize(), text.get_window_extent(renderer)))
        return draw(text, renderer, *rest, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name](MODELS[:count])
        with mock.patch.object(Text, "draw", spy):
            figure.draw_without_rendering()
    plt.close(figure)
    assert figure.get_figwidth() == figures.WIDTH
    return figure.bbox.frozen(), texts


@pytest.fixture(autouse=True)
def no_open_figures():
    plt.close("all")
    yield
    plt.close("all")


def test_every_figure_of_the_catalogue_is_drawn_here_and_has_a_caption():
    assert set(FIGURES) == set(figures.CATALOG)
    for name, caption in figures.CATALOG.items():
        assert re.fullmatch(r"0[1-8]-\d-[a-z-]+", name)
        assert caption.endswith(".") and len(caption) > 40


@each_figure
def test_texts_are_legible_and_inside_the_figure(name, count):
    page, texts = drawn(name, count)
    assert texts
    for string, size, box in texts:
        assert size >= 7, string
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, string
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, string


@each_figure
def test_no_text_covers_another(name, count):
    for (one, _, a), (other, _, b) in combinations(drawn(name, count)[1], 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert width < 1 or height < 1, f"{one!r} covers {other!r}"


@pytest.mark.parametrize(
    "name", ["01-1-class-counts", "01-3-examples", "01-4-lesion-leak", "01-5-abcde",
             "04-2-confusion-matrix"]
)
def test_classes_are_spelled_out(name):
    words = {" ".join(text.split()) for text, *_ in drawn(name, 4)[1]}
    assert any(word.startswith("melanoma") for word in words)
    assert any(word.startswith("melanocytic nevus") for word in words)
    assert not words & set(CLASS_NAMES)


def test_counts_percentages_and_sample_sizes_are_written():
    figure = figures.confusion_matrices({"ViT-B/16": np.array([[3, 1], [0, 4]])}, ["mel", "nv"])
    words = [text.get_text() for text in figure.findobj(Text)]
    assert {"3\n75%", "1\n25%", "0", "4\n100%", "ViT-B/16 (n = 8 images)"} <= set(words)
    assert DISPLAY_NAMES["nv"].replace(" ", "\n") in words
    counts = [text for text, *_ in drawn("01-1-class-counts", 1)[1]]
    assert {"9 (14.3%)", "Images (n = 63)", "Lesions (n = 32)"} <= set(counts)


def test_a_model_keeps_its_colour_whatever_the_figure_and_the_number_of_models():
    def colours(count):
        axes = temperature_curve(MODELS[:count]).axes[0]
        return [line.get_color() for line in axes.lines if line.get_marker() != "None"]

    assert colours(4)[:2] == colours(2) == list(figures.MODEL_COLOURS[:2])


def test_ages_fall_into_the_middle_of_bins_of_five_years():
    table = metadata().assign(dx="nv", age=np.repeat([30.0, 35.0, 80.0], 21))
    corners = figures.patients(table).axes[0].collections[0].get_paths()[0].vertices[:, 0]
    assert {27.5, 32.5, 37.5, 77.5, 82.5} <= set(corners)


def test_the_target_is_drawn_only_where_it_applies():
    panels = operating_points(MODELS).axes
    dashed = [sum(line.get_linestyle() == "--" for line in axes.lines) for axes in panels]
    assert dashed == [0, 0, 0, 1]


def test_every_threshold_decides_as_the_next_row_of_the_curve():
    # Worked by hand: melanomas score 0.8 and 0.3, the others 0.5, 0.1 and 0.
    scores = np.array([0.8, 0.3, 0.5, 0.1, 0.0])
    curve = operating_curve(np.array([True, True, False, False, False]), scores)
    chosen = [(str(value), 0.5, 0.5, value, None) for value in (0.3, 0.4, 0.9, 0.0)]
    (axes,) = figures.threshold_curves({"a": curve}, points(["a"], *chosen)).axes
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
    curve = pd.DataFrame({"threshold": [1e-7, 1.0], "sensitivity": [1, 0], "specificity": [0, 1]})
    chosen = points(["a"], ("sensitivity 95%", 0.95, 0.5, 1e-6, "sensitivity"))
    figure = figures.threshold_curves({"a": curve}, chosen)
    assert 0 < figure.axes[0].get_xlim()[0] < 1e-6


@pytest.mark.parametrize(
    ("rates", "floor"),
    [([(0.05, 0.93)], 0.8), ([(0.1, 0.6)], 0.6), ([(0.05, 0.41), (0.46, 0.95)], 0.4),
     ([(0.62, 0.1)], 0.8), ([(0.0, 0.0), (0.2, 1.0), (1.0, 1.0)], 0)],
)
def test_the_zoom_is_high_specificity_down_to_its_lowest_point(rates, floor):
    curve = pd.DataFrame({"specificity": [1, 0.5, 0], "sensitivity": [0, 0.5, 1]})
    table = points(["a"], *(("p", found, 1 - alarms, 0.5, None) for alarms, found in rates))
    full, zoom = figures.roc({"a": curve}, {"a": "0.5"}, table).axes
    region = [*zoom.get_xlim(), *zoom.get_ylim()]
    assert np.allclose(region, [0, 0.2, floor, 1], atol=0.01)
    assert region[0] <= 0 and region[3] >= 1
    (frame,) = full.patches
    assert np.allclose(frame.get_bbox().extents, np.array(region)[[0, 2, 1, 3]])
    drawn = [sum(line.get_marker() == "o" for line in axes.lines) for axes in (full, zoom)]
    inside = sum(alarms <= 0.2 for alarms, _ in rates)
    assert drawn == [len(rates), inside]  # markers at the edge would not be clipped


def test_models_on_other_images_have_their_counts_beside_their_names():
    table = points(["a", "b"], ("p", 0.8, 0.8, 0.5, "specificity"))
    for melanomas, named in (([9, 167], ["a\n(9 melanomas, 1,335 others)",
                                         "b\n(167 melanomas, 1,335 others)"]),
                             (167, ["a", "b"])):  # fmt: skip
        left, right = figures.operating_points(table.assign(melanomas=melanomas)).axes
        assert [text.get_text() for text in left.get_yticklabels()] == named
        assert ("1,335" in right.get_xlabel()) == (named == ["a", "b"])


def test_small_costs_keep_two_digits():
    table = pd.DataFrame({"name": ["a", "b", "c"], "parameters": [85.84, 1.0, 0.96]})
    figure = figures.architectures(table.assign(gmacs=[0.057, 0.1, 12]))
    words = {text.get_text() for text in figure.findobj(Text)}
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
    table = pd.DataFrame({"model": names, "parameters": 123.4})
    figure = figures.accuracy_latency(table.assign(
        latency_ms=9, latency_low=8, latency_high=10, accuracy=0.8, accuracy_low=0.7,
        accuracy_high=0.9,
    ), 9)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    assert not box.overlaps(figure.axes[0].get_tightbbox())
    assert [text.get_text() for text in legend.texts] == [f"{name} (123 M)" for name in names]


def bare(name):
    """Figures of data with as little in them as can be."""
    nothing = {"model": "ViT-B/16", "value": None, "low": None, "high": None}
    if name == "reliability":
        bins = pd.DataFrame({"low": [0.0], "high": [1.0], "count": [0]})
        bins = bins.assign(confidence=np.nan, accuracy=np.nan, accuracy_low=np.nan,
                           accuracy_high=np.nan)
        return figures.reliability({"a": {"before": bins, "after": bins}})
    if name == "temperature_curve":
        return figures.temperature_curve(np.array([1.0]), {"a": np.array([0.5])}, {"a": 1.0}, 1)
    if name == "mask_overlap":
        return figures.mask_overlap(pd.DataFrame([nothing | {"score": "Heat"}]))
    if name == "comparison":
        known = nothing | {"model": "ResNet-50", "value": 0.5, "low": 0.4, "high": 0.6}
        return figures.comparison(pd.DataFrame([nothing, known]).assign(metric="AUC"))
    if name == "operating_points":
        return figures.operating_points(points(["a"], ("b", np.nan, np.nan, 0.5, None)))
    if name == "training_curves":
        history = {"epoch": [1], "train_loss": [1.0], "val_loss": [np.nan], "train_accuracy": [0.5],
                   "val_accuracy": [0.5], "best": [False]}
        return figures.training_curves({"a": pd.DataFrame(history)})
    if name == "confusion_matrices":
        return figures.confusion_matrices({"a": np.zeros((7, 7), int)}, CLASS_NAMES)
    if name == "roc":
        curve = pd.DataFrame({"specificity": [1.0, 0.0], "sensitivity": np.nan})
        table = points(["a"], ("b", np.nan, 0.5, 0.5, None))
        return figures.roc({"a": curve}, {"a": "none"}, table)
    if name == "threshold_curves":
        curve = {"threshold": [0.0], "sensitivity": [1.0], "specificity": [0.0]}
        table = points(["a"], ("b", np.nan, 0.5, 0.0, None))
        return figures.threshold_curves({"a": pd.DataFrame(curve)}, table)
    if name == "grad_cam":
        row = {"image": images(1)[0], "title": "a", "overlays": {"b": np.zeros((24, 24))}}
        return figures.grad_cam([row | {"mask": np.ones((24, 24), bool)}])
    one = metadata().query("dx == 'nv'").assign(age=np.nan, sex="unknown", localization="ear")
    if name == "abcde":
        empty = {"asymmetry": np.nan, "border": 1.0, "colours": 2.0, "diameter": 0.5}
        return figures.abcde(one[["dx"]].assign(**empty))
    return {"patients": figures.patients, "class_counts": figures.class_counts}[name](one)


@pytest.mark.parametrize("name", [
    "reliability", "temperature_curve", "mask_overlap", "comparison", "operating_points",
    "training_curves", "confusion_matrices", "roc", "threshold_curves", "grad_cam", "abcde",
    "patients", "class_counts",
])  # fmt: skip
def test_little_or_missing_data_draws_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare(name).draw_without_rendering()


def test_a_value_stands_beside_its_own_model_whatever_the_order():
    rows = [("a", "AUC", 0.1), ("b", "AUC", 0.2), ("b", "F1", 0.4), ("a", "F1", 0.3)]
    table = pd.DataFrame(rows, columns=["model", "metric", "value"])
    panels = figures.comparison(table.assign(low=table["value"], high=table["value"])).axes
    values = [{text.get_position()[1]: text.get_text() for text in axes.texts} for axes in panels]
    assert values == [{"a": "0.100", "b": "0.200"}, {"a": "0.300", "b": "0.400"}]


def test_the_style_does_not_leak():
    before = dict(matplotlib.rcParams)
    roc(MODELS)
    assert dict(matplotlib.rcParams) == before


def test_equal_figures_are_saved_as_equal_bytes(tmp_path):
    name, contents = "08-4-accuracy-latency", []
    for folder in ("a", "b"):
        saved = figures.save(FIGURES[name](MODELS[:1]), name, tmp_path / folder, note="made up")
        assert (saved.png.name, saved.pdf.name) == (f"{name}.png", f"{name}.pdf")
        contents.append([path.read_bytes() for path in (saved.png, saved.pdf)])
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"\x89PNG") and contents[0][1].startswith(b"%PDF")
    assert b"/Type3" not in contents[0][1]  # text that can be searched, as journals want it
    assert b"Matplotlib" not in contents[0][0] + contents[0][1]
    assert not plt.get_fignums()


def test_a_notebook_shows_the_picture_that_was_saved(tmp_path):
    figure = temperature_curve(MODELS)
    saved = figures.save(figure, "05-2-temperature", tmp_path, "resnet50")
    formatter = DisplayFormatter()
    data, metadata = formatter.format(saved, include={"text/plain", "image/png"})
    assert data == {
        "text/plain": "<figure 05-2-temperature-resnet50>", "image/png": saved.png.read_bytes()
    }
    width, height = figure.get_size_inches() * 110
    assert metadata["image/png"] == {
        "width": pytest.approx(width, abs=1.1),
        "height": pytest.approx(height, abs=1.1),
        "alt": figures.CATALOG["05-2-temperature"] + " (resnet50)",
    }


def test_a_note_belongs_to_one_save_and_a_variant_to_the_file_name(tmp_path):
    figure = temperature_curve(MODELS)
    saved = figures.save(figure, "05-2-temperature", tmp_path, "resnet50", note="generated sample")
    assert saved.png.name == "05-2-temperature-resnet50.png"
    assert saved.pdf.name == "05-2-temperature-resnet50.pdf"
    assert figure.get_supxlabel() == "generated sample"
    figures.save(figure, "05-2-temperature", tmp_path)
    assert figure.get_supxlabel() == ""


def test_a_note_covers_nothing(tmp_path):
    figure = roc(MODELS)
    figures.save(figure, "06-1-roc", tmp_path, note="image split: optimistic")
    note = next(text for text in figure.texts if text.get_text().startswith("image split"))
    box = note.get_window_extent()
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert not any(box.overlaps(legend.get_window_extent()) for legend in figure.legends)


def test_unknown_names_and_bad_variants_are_refused(tmp_path):
    figure = training_curves(MODELS[:1])
    with pytest.raises(MelanomaError, match="06-1-roc"):
        figures.save(figure, "99-9-nothing", tmp_path)
    for variant in ("../x", "a b", "résumé", "x\n"):
        with pytest.raises(MelanomaError, match="variant"):
            figures.save(figure, "04-1-training-curves", tmp_path, variant)
    assert not list(tmp_path.iterdir())


def test_a_failing_write_keeps_the_old_file(tmp_path):
    name = "04-1-training-curves"
    saved = figures.save(training_curves(MODELS[:1]), name, tmp_path)
    before = saved.png.read_bytes(), saved.pdf.read_bytes()
    figure = training_curves(MODELS)

    def broken(path, **_options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    refused = pytest.raises(MelanomaError, match="disk full")
    with mock.patch.object(figure, "savefig", broken), refused:
        figures.save(figure, name, tmp_path)
    assert (saved.png.read_bytes(), saved.pdf.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2
    assert not plt.get_fignums()
