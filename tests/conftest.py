"""Fixtures shared by the tests: a small dataset of plain pictures, the generated sample, runs."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.artifacts import write_csv, write_json
from melanoma_lib.cli import main
from melanoma_lib.comparison import compare
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.metadata import DatasetFiles, open_dataset
from melanoma_lib.data.sample import generate_sample
from melanoma_lib.predictions import Predictions, load_predictions, save_predictions

os.environ["MELANOMA_HEADLESS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test depends on the internet
# Side by side, processes would wait for each other's threads. (The process that starts
# them sets no number, which they would inherit.)
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.fixture(autouse=True)
def as_many_threads():
    """A training sets how many threads its process computes with; the next test has them again."""
    torch = sys.modules.get("torch")
    threads = torch and torch.get_num_threads()
    yield
    if threads:
        torch.set_num_threads(threads)


# The real dataset, where a copy lies beside the project or in its data folder.
REAL = [
    Path(__file__).parents[1] / "data" / "ham10000",
    Path(__file__).parents[2] / "shared" / "data" / "ham10000",
]


@pytest.fixture(scope="session")
def real_table() -> Path:
    """The real table of HAM10000; tests on it are skipped where it is missing."""
    for folder in REAL:
        if (folder / "HAM10000_metadata.csv").exists():
            return folder / "HAM10000_metadata.csv"
    pytest.skip("needs the real table in data/ham10000")


def make_dataset(folder: Path, lesions_per_class: int = 10, size: int = 24) -> Path:
    """One or two flat pictures a lesion, their colour telling the class apart, with masks."""
    rng = np.random.default_rng(0)
    rows, number = [], 0
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for label, dx in enumerate(CLASS_NAMES):
        for lesion in range(lesions_per_class):
            for _ in range(1 + lesion % 2):
                number += 1
                name = f"ISIC_9{number:06d}"
                colour = np.array([30 * label, 200 - 25 * label, 90 + 60 * (label % 3)])
                pixels = colour + rng.integers(0, 30, (size, size + 8, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / "images" / f"{name}.jpg", quality=95)
                mask = np.zeros((size, size + 8), bool)
                mask[size // 4 : -size // 4, size // 4 : -size // 4] = True
                Image.fromarray(mask).save(folder / "masks" / f"{name}_segmentation.png")
                rows.append(
                    {
                        "lesion_id": f"HAM_9{label}{lesion:05d}",
                        "image_id": name,
                        "dx": dx,
                        "dx_type": "histo",
                        "age": "" if number % 17 == 0 else "45.0",
                        "sex": "female" if number % 2 else "male",
                        "localization": "back",
                    }
                )
    write_csv(folder / "HAM10000_metadata.csv", rows)
    return folder


@pytest.fixture(scope="session")
def _dataset(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def dataset(_dataset, tmp_path) -> Path:
    """A copy of the small dataset that a test may damage."""
    return Path(shutil.copytree(_dataset, tmp_path / "dataset"))


def make_run(run_dir, skills=(2.0, 1.0), split="lesion") -> dict[str, dict]:
    """Trained models that see the same lesions, the first one better; returns their latencies."""
    rng = np.random.default_rng(0)
    n = 400
    labels = rng.choice(7, n, p=[0.1, 0.1, 0.1, 0.05, 0.2, 0.4, 0.05])
    for number, skill in enumerate(skills):
        folder = run_dir / f"model_{number}"
        folder.mkdir(parents=True)
        predictions = Predictions(
            image_ids=np.array([f"ISIC_{i:07d}" for i in range(n)]),
            lesion_ids=np.array([f"HAM_{i // 2:07d}" for i in range(n)]),
            parts=np.array(["val"] * (n // 2) + ["test"] * (n // 2)),
            labels=labels,
            logits=(rng.normal(size=(n, 7)) + skill * np.eye(7)[labels]).astype(np.float32),
        )
        save_predictions(folder / "predictions.parquet", predictions)
        write_json(
            folder / "run.json",
            {
                "finished": True, "name": f"Model_{number}", "timm_name": "m", "parameters": 10,
                "epochs": 2, "best_epoch": 1, "train_seconds": 5.0, "device": "CPU",
                "dataset": {"name": "generated sample", "generated": True, "fingerprint": "f"},
                "recipe": "r", "config": {"split": split},
            },
        )
        write_json(
            folder / "bundle.json",
            {
                "temperature": 1.3,
                "operating_points": [
                    {"name": "specificity_95", "criterion": "specificity", "target": 0.95,
                     "threshold": 0.4}
                ],
            },
        )
    return fast(*(f"model_{number}" for number in range(len(skills))))


def fast(*keys):
    return {key: {"median_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "device": "CPU"} for key in keys}



def table_of(predictions) -> pd.DataFrame:
    """A table of patients for the images of some predictions."""
    n = len(predictions.image_ids)
    return pd.DataFrame(
        {
            "image_id": predictions.image_ids,
            "dx_type": ["histo", "follow_up"] * (n // 2),
            "age": np.resize([20.0, 45.0, 80.0, np.nan], n),
            "sex": np.resize(["male", "female", "female", "unknown"], n),
            "localization": "back",
        }
    )


@pytest.fixture
def trained(tmp_path):
    """A run of two trained models: its folder, and what `compare` takes besides."""
    latency = make_run(tmp_path / "run")
    predictions = load_predictions(tmp_path / "run" / "model_0" / "predictions.parquet")
    return tmp_path / "run", latency, table_of(predictions)


KEYS = ["test_efficientnet", "test_resnet"]  # networks of timm that train in seconds


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
    from melanoma_lib.explanations import explain  # with torch, which reads OMP_NUM_THREADS then

    folder = shutil.copytree(sample_run, tmp_path_factory.mktemp("explained") / "run")
    explain(folder / KEYS[0], sample_files, "cpu", faithful_images=6, chosen_on=10)
    return folder


@pytest.fixture(scope="session")
def explained_results(explained, sample_files) -> dict:
    """By model, what `compare` finds in that run."""
    found = compare(explained, fast(*KEYS), sample_files.metadata, resamples=200)
    return json.loads(json.dumps(found, allow_nan=False))["models"]


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    os.environ["MELANOMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
