import csv

import pytest
from helpers import make_run

from melanoma_lib.core.files import PROJECT, read_json
from melanoma_lib.evaluation.bootstrap import format_estimate
from melanoma_lib.reporting.compare import COLUMNS, compare
from melanoma_lib.reporting.leakage import price_of_leakage
from melanoma_lib.reporting.summary import summarize
from melanoma_lib.reporting.table_formats import latex_tabular, write_tables
from melanoma_lib.reporting.tables import Table, as_dataframe, models_and_averages, table


@pytest.fixture
def results(trained):
    return compare(*trained, resamples=200)


def test_csv_tables_hold_the_results(results, tmp_path):
    paths = {path.name: path for path in write_tables(results, tmp_path)}
    rows = list(csv.DictReader(paths["comparison_table.csv"].open()))
    assert [row["model"] for row in rows] == ["Model_0", "Model_1", "Ensemble of all 2 networks"]
    for row, model in zip(rows, models_and_averages(results).values(), strict=True):
        for name in COLUMNS:
            ends = (float(row[name + end]) for end in ("", "_low", "_high"))
            assert list(ends) == list(model["metrics"][name].values())
    for name in ("operating_points", "differences", "subgroups", "confident_errors"):
        assert len(list(csv.DictReader(paths[f"{name}.csv"].open()))) > 0
        assert paths[f"{name}.tex"].exists()


def test_latex_is_safe_and_complete(results):
    text = latex_tabular(table(results, "comparison_table"), "100 % of the images")
    value = results["models"]["model_0"]["metrics"]["melanoma_auc"]["value"]
    assert "\\toprule" in text and "Model\\_0" in text and f"{value:.3f}" in text
    lines = [line for line in text.splitlines() if line.startswith("Model")]
    assert len(lines) == 2
    assert all(line.count(" & ") == len(COLUMNS) and line.endswith("\\\\") for line in lines)


def test_a_cell_in_latex_by_hand():
    figure = {"value": -0.0123, "low": -0.1, "high": 0.08}
    made = Table(
        {"model": "A & B", "gain": "p < 5 %", "p": "p"},
        [{"model": "ResNet-50_x", "gain": figure, "p": 0.0004}],
        frozenset({(0, "gain")}),
    )
    lines = latex_tabular(made, "c").splitlines()
    assert lines[1] == "\\begin{tabular}{lcc}"
    assert lines[3] == "A \\& B & p $<$ 5 \\% & p \\\\"
    assert lines[5] == (
        "ResNet-50\\_x & \\begin{tabular}[t]{@{}c@{}}\\textbf{$-$0.012}\\\\"
        "{\\scriptsize [$-$0.100, 0.080]}\\end{tabular} & $<$0.001 \\\\"
    )
    assert as_dataframe(made).to_numpy().tolist() == [
        ["ResNet-50_x", "-0.012 [-0.100, 0.080]", "<0.001"]
    ]


def test_bold_is_only_what_is_better_than_every_other(results):
    assert "textbf" in latex_tabular(table(results, "comparison_table"), "")
    for pair in results["differences"]:
        for name in COLUMNS:
            pair[name]["p_holm"] = 0.2
    assert "textbf" not in latex_tabular(table(results, "comparison_table"), "")


def test_the_summary_takes_its_numbers_from_the_results(results):
    text = summarize(results)
    for model in results["models"].values():
        assert format_estimate(model["metrics"]["melanoma_auc"]) in text
    assert text.index("Model_0") < text.index("Model_1")  # the better one first
    assert "Model_0 over Model_1" in text and "significant" in text


def test_the_summary_says_which_temperature_is_at_the_end_of_its_range(results):
    assert "end of its range" not in summarize(results)
    results["models"]["model_1"]["temperature"] = 20.0
    told = [line for line in summarize(results).splitlines() if "end of its range" in line]
    assert len(told) == 1 and "Model_1" in told[0]


def test_the_image_split_is_called_optimistic_and_its_price_is_told(tmp_path, trained):
    latency = make_run(tmp_path / "image", split="image")
    results = compare(tmp_path / "image", latency, trained[2], resamples=50)
    assert results["optimistic"] is True and "optimistic" in summarize(results)
    assert "Two splits" not in summarize(results)
    results["price_of_leakage"] = price_of_leakage(trained[0], tmp_path / "image", "model_0", 50)
    assert "Two splits with test images of their own: Model_0" in summarize(results)
    write_tables(results, tmp_path)
    head, first, *_ = (tmp_path / "tables" / "price_of_leakage.csv").read_text().splitlines()
    assert head.startswith("metric,lesion,lesion_low") and first.startswith("Accuracy,")


def test_nothing_to_tell_is_an_empty_table(results, tmp_path):
    alone = results | {"differences": []}
    write_tables(alone, tmp_path)
    assert "\\bottomrule" in (tmp_path / "tables" / "differences.tex").read_text()


def test_the_documentation_shows_what_was_measured():
    measured = read_json(PROJECT / "benchmarks" / "comparison-h200.json")
    text = (PROJECT / "docs" / "reproduce.md").read_text()
    seconds = {key: training["seconds"] for key, training in measured["trainings"].items()}
    minutes, rest = divmod(round(measured["calls"]["first"]["seconds"]), 60)
    again = measured["calls"]["second"]["notebooks"]
    for said in (
        f"{measured['gpu_memory_mib'] * 2**20 / 1e9:.1f} GB at most",
        f"fter {minutes} min {rest} s all",
        f"({sum(seconds.values()):.0f} s of training)",
        f"{seconds['resnet50']:.0f} s of training |",
        f"took {again['04_training-densenet121']:.0f} s, 05 "
        f"{again['05_calibration']:.0f} s and 06 {again['06_operating_thresholds']:.0f} s",
    ):
        assert said in text
