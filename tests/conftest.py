"""Fixtures shared by the tests: a small dataset of plain pictures, the generated sample, runs."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from melanoma_lib.core.environment import usable_cores

os.environ["MELANOMA_HEADLESS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test depends on the internet
# Side by side, processes would wait for each other's threads. (The process that starts
# them sets no number, which they would inherit.) PyTorch reads the number when it is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))

from helpers import KEYS, ROOT, fast, make_dataset, make_run, table_of

from melanoma_lib.cli import main
from melanoma_lib.data.dataset_files import DatasetFiles, open_dataset
from melanoma_lib.data.synthetic import generate_sample
from melanoma_lib.evaluation.predictions import load_predictions
from melanoma_lib.reporting.compare import compare


@pytest.fixture(autouse=True)
def as_many_threads():
    """A training sets how many threads its process computes with; the next test has them again."""
    torch = sys.modules.get("torch")
    threads = torch and torch.get_num_threads()
    yield
    if threads:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _hears_interrupts():
    """A shell makes what it starts in the background deaf to Ctrl-C, which tests send.

    So does a test before, when libraries that are run in it take the signal for themselves.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_backend():
    """A command sets matplotlib's backend for its process, which here is that of all tests."""
    os.environ.pop("MPLBACKEND", None)


# The real dataset, where a copy lies beside the project or in its data folder.
REAL = [ROOT / "data" / "ham10000", ROOT.parent / "shared" / "data" / "ham10000"]


@pytest.fixture(scope="session")
def real_table() -> Path:
    """The real table of HAM10000; tests on it are skipped where it is missing."""
    for folder in REAL:
        if (folder / "HAM10000_metadata.csv").exists():
            return folder / "HAM10000_metadata.csv"
    pytest.skip("needs the real table in data/ham10000")


@pytest.fixture(scope="session")
def _dataset(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def dataset(_dataset, tmp_path) -> Path:
    """A copy of the small dataset that a test may damage."""
    return Path(shutil.copytree(_dataset, tmp_path / "dataset"))


@pytest.fixture
def trained(tmp_path):
    """A run of two trained models: its folder, and what `compare` takes besides."""
    latency = make_run(tmp_path / "run")
    predictions = load_predictions(tmp_path / "run" / "model_0" / "predictions.parquet")
    return tmp_path / "run", latency, table_of(predictions)


@pytest.fixture(scope="session")
def sample_dir(tmp_path_factory) -> Path:
    """The generated sample."""
    return generate_sample(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="session")
def sample_run(sample_dir, tmp_path_factory) -> Path:
    """A run folder with two networks trained on the generated sample for one epoch each."""
    folder = tmp_path_factory.mktemp("sample-run")
    for key in KEYS:
        arguments = ["train", key, "--preset", "sample", "--epochs", "1", "--batch-size", "16"]
        places = ["--data-dir", str(sample_dir), "--output-dir", str(folder)]
        assert main([*arguments, *places]) == 0
    return folder


@pytest.fixture(scope="session")
def sample_files(sample_dir) -> DatasetFiles:
    """The files of the generated sample."""
    return open_dataset(sample_dir)


@pytest.fixture(scope="session")
def explained(sample_run, sample_files, tmp_path_factory) -> Path:
    """The sample's run with the maps of one of its two networks scored."""
    from melanoma_lib.explanation import score_heat_maps  # imports torch: see OMP_NUM_THREADS

    folder = shutil.copytree(sample_run, tmp_path_factory.mktemp("explained") / "run")
    score_heat_maps(folder / KEYS[0], sample_files, "cpu", faithful_images=6, chosen_on=10)
    return folder


@pytest.fixture(scope="session")
def explained_results(explained, sample_files) -> dict:
    """By model, what `compare` finds in that run."""
    found = compare(explained, fast(*KEYS), sample_files.metadata, resamples=200)
    return json.loads(json.dumps(found, allow_nan=False))["models"]


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    os.environ["MELANOMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
