import re
import shutil
import subprocess

import pytest
from helpers import make_run, results_of, table_of
from matplotlib.figure import Figure

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.reporting import figures, tables
from melanoma_lib.reporting.latex import write
from melanoma_lib.reporting.run import open_run

TAKEN = "07-1-grad-cam"
SOME = ("01-3-examples", "04-1-training-curves", "06-1-roc", TAKEN, "08-1-comparison")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder for a page of 15 cm and 10 pt, what became of its figures, and the run."""
    folder = tmp_path_factory.mktemp("thesis")
    latency = make_run(folder / "run")
    metadata = table_of(load_predictions(folder / "run" / "model_0" / "predictions.parquet"))
    run = open_run(results_of(folder / "run", latency, metadata))
    figures.save(Figure(), TAKEN, folder / "run" / "figures")
    with pytest.MonkeyPatch.context() as patch:  # test_run.py plots the others
        patch.setattr(figures, "CATALOG", {name: figures.CATALOG[name] for name in SOME})
        outcome = write(run, folder / "page", folder / "run" / "figures", 15, 10)
    return folder / "page", outcome, run


def test_every_figure_is_redrawn_taken_over_or_named_as_missing(page):
    folder, outcome, run = page
    assert outcome["06-1-roc"] == outcome["04-1-training-curves-model_1"] == "redrawn"
    assert outcome[TAKEN] == "copied" and outcome["01-3-examples"] == "missing"
    for name, became in outcome.items():
        there = all((folder / f"{name}{suffix}").exists() for suffix in (".png", ".pdf", ".tex"))
        assert there == (became != "missing"), name
    taken = folder / f"{TAKEN}.pdf"
    assert taken.read_bytes() == (run.folder / "figures" / taken.name).read_bytes()


def test_figures_are_as_wide_as_the_page(page):
    folder, outcome, _ = page
    for name, became in outcome.items():
        if became == "redrawn":
            box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", (folder / f"{name}.pdf").read_bytes())
            assert float(box[1]) == pytest.approx(15 / 2.54 * 72, abs=0.01)


def test_larger_text_is_larger_and_the_style_comes_back(page):
    def sizes():
        figure = figures.plot(page[2], "06-4-decision-curves")
        (axes,) = figure.axes
        return figure.get_figwidth() * 2.54, axes.xaxis.label.get_size()

    before = sizes()
    with figures.page(15, 10):
        assert sizes() == pytest.approx((15, 11.25))
    assert sizes() == before == pytest.approx((16, 9))
    for page_of in ((8, 10), (60, 10), (15, 4)):
        with pytest.raises(MelanomaError, match="not legible"), figures.page(*page_of):
            pass


@pytest.mark.parametrize("font_size", [8, 9, 10])
def test_legends_and_titles_stay_inside_a_narrow_page(page, font_size):
    legends = []
    with figures.page(15, font_size):
        for name in ("05-1-reliability", "06-1-roc", "06-2-thresholds", "08-4-accuracy-latency"):
            figure = figures.plot(page[2], name)
            figure.draw_without_rendering()
            legends += figure.legends
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, name
                assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes), name
    assert legends


def test_what_is_there_is_brought_in_with_caption_and_label(page):
    folder, outcome, _ = page
    text = (folder / "figures.tex").read_text()
    inputs = re.findall(r"^\\input\{\\melanomafigures/(.*)\.tex\}$", text, re.M)
    shown = [name for name, became in outcome.items() if became != "missing"]
    assert inputs[: len(shown)] == shown
    rest = {name.partition("-model_")[0] for name in inputs[len(shown) :]}
    absent = {"trainings", "outperformance", "leakage", "price_of_leakage", "explanations"}
    absent |= {"risk_coverage", "referral", "promised_thresholds", "prediction_sets", "shifts"}
    absent |= {"occlusion"}
    assert rest == set(tables.CAPTIONS) - absent
    floats = [(folder / f"{name}.tex").read_text() for name in inputs]
    labels = [label for text in floats for label in re.findall(r"\\label\{(.*)\}", text)]
    assert len(set(labels)) == len(labels) == len(inputs)
    text = (folder / "04-1-training-curves-model_1.tex").read_text()
    assert "\\caption[Model\\_1: Loss and accuracy" in text and "each epoch. The weights" in text
    assert "95\\% intervals" in (folder / "08-1-comparison.tex").read_text()
    assert "Generated sample, split by lesion" in (folder / "comparison_table.tex").read_text()


def test_a_long_table_is_split_by_model(page):
    folder, _, run = page
    rows = tables.table(run.results, "subgroups").rows
    parts = sorted(folder.glob("subgroups*.tex"))
    split = len(rows) > 30
    assert len(parts) == (2 if split else 1)
    count = sum(line.endswith("\\\\") for part in parts for line in part.read_text().splitlines())
    assert count == len(rows) + len(parts)  # and a line of heads in each


def test_the_command_says_what_became_of_the_figures(page, tmp_path, capsys, monkeypatch):
    names = ("01-3-examples", "08-4-accuracy-latency")
    monkeypatch.setattr(figures, "CATALOG", {name: figures.CATALOG[name] for name in names})
    results, out = page[2].folder / "comparison_results.json", tmp_path / "out"
    arguments = ["figures", "--results", str(results), "--output-dir", str(out)]
    assert main([*arguments, "--font-size", "20"]) == 2
    assert "not legible" in capsys.readouterr().err and not out.exists()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert re.search(r"redrawn +1  08-4", said) and re.search(r"missing +1  01-3", said)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX: texlive-latex-extra")
def test_latex_builds_a_document_of_all_figures_and_tables(page, tmp_path):
    folder, _, _ = page
    (tmp_path / "doc.tex").write_text(
        r"\documentclass[a4paper]{article}\usepackage[textwidth=15cm]{geometry}"
        r"\usepackage{graphicx,booktabs,adjustbox}"
        rf"\newcommand{{\melanomafigures}}{{{folder}}}"
        r"\begin{document}\input{\melanomafigures/figures.tex}"
        r"See \ref{fig:06-1-roc} and \ref{tab:comparison_table}.\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "doc"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        if "adjustbox.sty' not found" in done.stdout:
            pytest.skip("needs adjustbox (Debian: texlive-latex-extra)")
        assert done.returncode == 0, done.stdout[-2000:]
    problems = re.findall(r"^(?:LaTeX Warning.*undefined.*|Overfull \\hbox.*)$", done.stdout, re.M)
    assert not problems and (tmp_path / "doc.pdf").stat().st_size > 50_000
