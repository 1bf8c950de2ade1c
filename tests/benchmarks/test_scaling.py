"""The calculator of docs/cloud.md, and chapter 10."""

import runpy
from types import SimpleNamespace

import nbformat
import papermill
import pytest

from melanoma_lib.core.files import PROJECT, read_json
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.pipeline.run import NOTEBOOKS

scaling = SimpleNamespace(**runpy.run_path(str(PROJECT / "benchmarks" / "scaling.py")))
TEN = {
    "image_size": 100,
    "rates": {"net": {"ours": {"median": 10.0}, "predicting": {"median": 50.0}}},
    "decoding": {"all": {"median": 100.0}},
}


def test_needs_by_hand():
    """A million images: 700,000 at 10 a second and 150,000 at 50 are 73,000 seconds."""
    assert list(scaling.needs(1_000_000, TEN, "net").values()) == pytest.approx([
        276.6,  # GB of files
        30.0,  # GB: 100 * 100 * 3 bytes each
        2.4,  # GB: 150,000 * 2,000 * 8 bytes
        10_000 / 3600,
        73_000 / 3600,
        73_000 / 3600 * scaling.PRICE_PER_HOUR,
    ], rel=1e-3)  # fmt: skip


def test_the_weights_of_the_bootstrap_are_as_large_as_calculated():
    weights = bootstrap_weights([f"HAM_{number}" for number in range(150)])
    expected = scaling.needs(1000, TEN, "net")["weights of the bootstrap, GB"]
    assert weights.nbytes / 1e9 == pytest.approx(expected)


def test_the_page_holds_what_the_rates_give():
    text, measured = scaling.PAGE.read_text(), read_json(scaling.MEASURED)
    assert scaling.page(text, measured) == text
    measured["rates"]["resnet50"]["ours"]["median"] /= 2
    assert scaling.page(text, measured) != text


def test_chapter_10_runs_and_sends_nothing(tmp_path):
    source = next(NOTEBOOKS.glob("10_*.ipynb"))
    papermill.execute_notebook(
        str(source), str(tmp_path / "10.ipynb"), {"price_per_hour": 1.0}, kernel_name="python3",
        cwd=str(source.parent), progress_bar=False,
    )  # fmt: skip
    text = nbformat.writes(nbformat.read(tmp_path / "10.ipynb", 4))
    assert "dry run: 5 jobs" in text and "nothing was sent" in text
    assert "At 1.0 US dollars an hour" in text
