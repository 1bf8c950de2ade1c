"""Fixtures shared by the tests: a small dataset of plain pictures, and the generated sample."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_lib.artifacts import write_csv
from melanoma_lib.data.classes import CLASS_NAMES

os.environ["MELANOMA_HEADLESS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test depends on the internet

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


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    os.environ["MELANOMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
