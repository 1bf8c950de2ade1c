import re

import numpy as np
import pytest
from helpers import make_run, results_of, table_of
from matplotlib.text import Text

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, read_json, write_csv, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.evaluation import metrics, operating_points
from melanoma_lib.evaluation.bootstrap import bootstrap_weights, estimate, format_estimate
from melanoma_lib.evaluation.predictions import Predictions, load_predictions
from melanoma_lib.evaluation.subgroups import ATTRIBUTES
from melanoma_lib.reporting import figures
from melanoma_lib.reporting.compare import compare
from melanoma_lib.reporting.figures import PLOTS, plot
from melanoma_lib.reporting.leakage import price_of_leakage
from melanoma_lib.reporting.run import open_run, open_trained


@pytest.fixture
def results_file(trained):
    return results_of(*trained)


LEAKAGE = ("08-6-price-of-leakage", "08-7-leaked-fraction", "08-8-two-splits")


def row_names(figure):
    """The names of the rows of a horizontal plot."""
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def test_what_needs_no_images_and_no_other_chapter_is_drawn_from_the_run(results_file):
    run = open_run(results_file)
    for name in figures.CATALOG:
        for key in run.results["models"] if name in figures.PER_MODEL else [""]:
            figure = plot(run, name, key)
            more = name < "02" or name[:2] in ("07", "11") or name in LEAKAGE
            assert (figure is not None) == (name in PLOTS and not more)


def pixels(figure):
    return figure._repr_png_()


def test_chapters_plot_before_the_comparison_what_is_plotted_after_it(tmp_path):
    latency = make_run(tmp_path, skills=(50.0, 1.0))  # the first makes no error
    table = table_of(load_predictions(tmp_path / "model_0" / "predictions.parquet"))
    results = compare(tmp_path, latency, table)
    after = open_run(write_json(tmp_path / "comparison_results.json", results))
    before = open_trained(tmp_path, latency)
    for name in ("05-1-reliability", "06-1-roc", "06-3-operating-points", "06-4-decision-curves"):
        assert pixels(plot(before, name)) == pixels(plot(after, name)), name
    (curve, _), _ = (legend.texts for legend in plot(before, "06-1-roc").legends)
    assert re.fullmatch(r"Model_0: AUC 1\.000 \[0\.\d{3}, 1\.000\]", curve.get_text())


def test_a_figure_per_model_shows_that_model(results_file):
    run = open_run(results_file)
    for key, name in (("model_0", "Model_0"), ("model_1", "Model_1")):
        (axes,) = plot(run, "04-2-confusion-matrix", key).axes
        assert axes.get_title(loc="left").startswith(name)
    titles = [axes.get_title(loc="left") for axes in plot(run, "04-1-training-curves", key).axes]
    assert titles == ["Model_1", ""]


def test_operating_points_are_those_of_the_results(results_file):
    run = open_run(results_file)
    figure = plot(run, "06-3-operating-points")
    drawn = {line.get_xdata()[0] for line in figure.axes[0].lines}
    for model in run.results["models"].values():
        assert model["operating_points"][0]["test"]["sensitivity"]["value"] in drawn
    assert figure.axes[0].get_title(loc="left") == "specificity of at least 95%"


def test_the_table_draws_the_dataset_and_must_be_the_runs_own(results_file, trained, tmp_path):
    rows = trained[2].assign(lesion_id=lambda t: t["image_id"], dx="nv", age="40.0")
    rows["dx"] = np.resize(["nv", "mel", "bkl"], len(rows))
    table = write_csv(tmp_path / "table.csv", rows.to_dict("records"))
    results = read_json(results_file)
    for images in (len(rows) + 1, len(rows)):
        results["dataset"]["images"] = images
        write_json(results_file, results)
        if images != len(rows):
            with pytest.raises(MelanomaError, match="not the table"):
                open_run(results_file, table)
    run = open_run(results_file, table)
    words = {text.get_text() for text in plot(run, "01-1-class-counts").findobj(Text)}
    assert {"Images (n = 400)", "Lesions (n = 400)"} <= words
    assert plot(run, "01-4-lesion-leak") and plot(run, "01-2-patients")


def test_two_splits_are_drawn_where_the_results_hold_it(results_file, tmp_path):
    make_run(tmp_path / "image", split="image")
    results = read_json(results_file)
    price = price_of_leakage(results_file.parent, tmp_path / "image", "model_0", 50)
    run = open_run(write_json(results_file, results | {"price_of_leakage": price}))
    assert row_names(plot(run, "08-8-two-splits")) == [
        f"split by {side}\n(n = 200 images)" for side in ("lesion", "image")
    ]


def test_results_that_do_not_belong_to_the_run_are_refused(results_file):
    bundle = results_file.parent / "model_1" / "bundle.json"
    write_json(bundle, read_json(bundle) | {"temperature": 2.0})
    with pytest.raises(MelanomaError, match="model_1 was trained again"):
        open_run(results_file)
    write_json(results_file, read_json(results_file) | {"schema": 1})
    with pytest.raises(MelanomaError, match="another layout"):
        open_run(results_file)
    with pytest.raises(MelanomaError, match="does not exist"):
        open_run(results_file.with_name("absent.json"))


def test_groups_keep_their_headings(results_file):
    run = open_run(results_file)
    recorded = {name for key, name in ATTRIBUTES.items() if key != "skin_tone"}  # estimated by 08
    assert recorded <= set(row_names(plot(run, "08-5-subgroups", "model_0")))


@pytest.mark.parametrize("others", [1, 2])
def test_chapter_06_passes_over_resamples_without_a_threshold_to_choose(others):
    """Few validation lesions: many resamples hold melanomas alone, or others alone."""
    book = read_json(PROJECT / "notebooks" / "06_operating_thresholds.ipynb")
    (cell,) = [cell for cell in book["cells"] if cell["id"] == "c06-053"]
    truth = np.array([True, True] + [False] * others)
    labels = np.where(truth, CLASS_NAMES.index("mel"), 0)
    names = np.arange(len(truth)).astype(str)
    split = Predictions(names, names, names, labels, np.zeros((len(truth), 7)))
    scores = np.linspace(0.9, 0.1, len(truth))
    given = {
        "val": split, "test": split, "chosen_on": scores, "reported_on": scores,
        "weights": bootstrap_weights(names, 500), "target_specificity": 0.9,
        "chosen_threshold": 0.5, "np": np, "bootstrap_weights": bootstrap_weights,
        "estimate": estimate, "format_estimate": format_estimate, "metrics": metrics,
        "operating_points": operating_points, "Markdown": str,
    }  # fmt: skip
    exec("".join(cell["source"]), given)
    assert 0 < len(given["again"]) < 500 and "nan" not in " ".join(given["ends"])
