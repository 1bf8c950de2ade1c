"""The estimates for GPUs that were not measured: by hand, and as the page shows them."""

import runpy
from types import SimpleNamespace

import pytest

from melanoma_lib.config import Config
from melanoma_lib.core.files import PROJECT

gpu = SimpleNamespace(**runpy.run_path(str(PROJECT / "benchmarks" / "gpu_times.py")))
TWO = {  # B is half as fast as the reference A, and C, derived, half as fast as B
    "networks": {"rates": {"net": {"images_per_second": 100, "image_size": 2 * Config.image_size}}},
    "series": {"s": {"reference": 10}},
    "gpus": {"A": {"series": "s", "resnet50": 10}, "B": {"series": "s", "resnet50": 5}},
    "derived": {"C": {"from": "B", "ratio": [1, 2]}},
    "measured": {"like": "B"},
}
MEASURED = {"rates": {"net": {"ours": {"median": 100}}}}


def test_an_estimate_by_hand():
    assert gpu.relative(TWO) == {"C": 0.25, "B": 0.5, "A": 1.0}
    # Four times the pixels at 100 a second are 400 of the recipe's; 100 on B are 200 on A.
    assert gpu.rates(TWO, MEASURED) == {"net": (400, 200)}
    # Of 10,015 images 70% are trained on and 15% predicted at three times the rate.
    assert gpu.minutes(200) == pytest.approx(20 * 10_015 * 0.75 / 200 / 60)


def test_every_published_rate_has_its_source_and_the_recipe_its_networks():
    published, _ = gpu.read()
    parts = [published["networks"], *published["series"].values(), *published["derived"].values()]
    assert all(part["source"] and part["url"].startswith("https://") for part in parts)
    assert tuple(published["networks"]["rates"]) == Config().architectures
    reference = published["gpus"][published["reference"]]
    assert reference["resnet50"] == published["series"][reference["series"]]["reference"]


def test_the_page_holds_what_the_rates_give():
    text, (published, measured) = gpu.PAGE.read_text(), gpu.read()
    assert gpu.page(text, published, measured) == text
    published["gpus"]["A10"]["resnet50"] /= 2
    assert gpu.page(text, published, measured) != text
