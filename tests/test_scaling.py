"""The calculator, the page that it writes, the script that measures, and chapter 10."""

import nbformat
import papermill
import pytest

from melanoma_lib.core.files import read_json
from melanoma_lib.pipeline.run import NOTEBOOKS
from melanoma_lib.scaling import PAGE, RATES, SIZES, needs, page

TEN = {"train": {"net": 10.0}, "predict": {"net": 50.0}, "decode": 100.0}


def test_needs_by_hand():
    """A million images: 700,000 at 10 a second and 150,000 at 50 are 73,000 seconds."""
    found = needs(1_000_000, TEN, "net", 100, price_per_hour=3.6)
    assert found["epoch_hours"] == pytest.approx(73_000 / 3600)
    assert found["epoch_price"] == pytest.approx(73.0)
    assert found["decode_hours"] == pytest.approx(10_000 / 3600)
    assert found["pixels_gb"] == pytest.approx(30.0)  # 100 * 100 * 3 bytes each
    assert found["resamples_gb"] == pytest.approx(2.4)  # 150,000 * 2,000 * 8 bytes
    assert found["jpeg_gb"] == pytest.approx(276.6, abs=0.1)


def test_the_weights_of_the_bootstrap_are_as_large_as_calculated():
    from melanoma_lib.evaluation.bootstrap import bootstrap_weights

    weights = bootstrap_weights([f"HAM_{number}" for number in range(150)])
    assert weights.nbytes / 1e9 == pytest.approx(needs(1000, TEN, "net", 32)["resamples_gb"])


def test_the_page_holds_what_the_rates_give():
    text = PAGE.read_text()
    assert page(text, read_json(RATES)) == text
    assert all(f"{count:,}" in text for count in SIZES.values())
    slower = read_json(RATES)
    slower["train"]["resnet50"] /= 2
    assert page(text, slower) != text


def test_chapter_10_runs_and_sends_nothing(tmp_path):
    source = next(NOTEBOOKS.glob("10_*.ipynb"))
    papermill.execute_notebook(
        str(source), str(tmp_path / "10.ipynb"), {"price_per_hour": 1.0}, kernel_name="python3",
        cwd=str(source.parent), progress_bar=False,
    )  # fmt: skip
    text = nbformat.writes(nbformat.read(tmp_path / "10.ipynb", 4))
    assert "dry run: 5 jobs" in text and "nothing was sent" in text
    assert "At 1.0 US dollars an hour" in text
