"""The benchmark measures what it says, at a tiny size; and the page shows what was measured."""

import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from melanoma_lib.core.files import PROJECT, read_json

SCRIPT = PROJECT / "benchmarks" / "speed.py"
speed = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What two batches an epoch give."""
    output = tmp_path_factory.mktemp("speed") / "tiny.json"
    command = [sys.executable, SCRIPT, "--architectures", "test_resnet", "--image-size", "32",
               "--images", "64", "--repeats", "2", "--output", output]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return read_json(output)


def test_everything_is_measured(measured):
    rates = measured["rates"]["test_resnet"]
    assert set(rates) == {"plain", "timm", "ours", "predicting"}
    for rate in (*rates.values(), measured["decoding"]["all"]):
        assert len(rate["images_per_second"]) == 2 and 0 < rate["lowest"] <= rate["highest"]
    assert measured["images"] == 64 and measured["cores"] > 0
    assert measured["chosen"]["test_resnet"]["arithmetic"]["precision"] in ("float32", "bfloat16")


def test_the_first_steps_do_not_count(monkeypatch):
    clock = iter([10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    step, rate = speed.timed(lambda *batch: batch, speed.torch.device("cpu"))
    for expected in (2 * 8 / 4, 2 * 8 / 1):
        for _ in range(speed.UNCOUNTED + 2):
            assert step(None, None, "8 images", "labels") == (None, None, "8 images", "labels")
        assert rate() == expected


def test_generated_pictures_are_as_large_as_those_of_ham10000(tmp_path):
    speed.generate(tmp_path, 5)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.jpg")]
    assert len(sizes) == 5 and 2e5 < sum(sizes) / 5 < 3.5e5  # HAM10000's are 277 kB


def test_the_table_by_hand(measured):
    rates = {"plain": 2.0, "timm": 5.0, "ours": 10.0}
    found = {name: dict.fromkeys(("median", "lowest", "highest"), rate) | {
        "images_per_second": [rate]} for name, rate in rates.items()}  # fmt: skip
    found["plain"] |= {"lowest": 1.0, "highest": 200.0, "images_per_second": [1.0, 2.0, 200.0]}
    chosen = {"resnet50": {"arithmetic": {"precision": "bfloat16"}}}
    shown = speed.table(measured | {"rates": {"resnet50": found}, "chosen": chosen})
    assert "| ResNet-50 | 2.0 (1.0 to 200) | 5.0 | 10.0 | 5.0 | 2.0 | bfloat16 |" in shown


def test_the_page_shows_what_was_measured():
    text = speed.PAGE.read_text()
    assert speed.page(text) == text and text.count("| ours |") == 2  # two machines
