"""The generated sample: layout, reproducibility, safety, and the appearance of the diagnoses."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data import synthetic
from melanoma_lib.data.artifacts import ARTIFACTS
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import COLUMNS, open_dataset
from melanoma_lib.data.images import read_image
from melanoma_lib.data.split import lesion_groups, make_split

SMALL = {"LESIONS": dict.fromkeys(CLASS_NAMES, 2), "IMAGES_PER_LESION": {1: 10, 2: 4}}


@pytest.fixture
def small(monkeypatch) -> None:
    """Shrinks the sample to two lesions a class, for tests that generate it again."""
    for name, value in SMALL.items():
        monkeypatch.setattr(synthetic, name, value)


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "HAM10000_metadata.csv", dtype=str)


def read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image in [0, 1] and its mask."""
    with Image.open(folder / "images" / f"{name}.jpg") as image:
        pixels = np.asarray(image, np.float32) / 255
    with Image.open(folder / "masks" / f"{name}_segmentation.png") as mask:
        assert mask.mode == "1"
        return pixels, np.asarray(mask)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_counts_and_layout(sample_dir):
    table = table_of(sample_dir)
    marker = json.loads((sample_dir / "sample.json").read_text())
    assert tuple(table.columns) == COLUMNS
    assert set(table["dx"]) == set(CLASS_NAMES)
    assert len(table) == marker["images"] == 866
    assert table["lesion_id"].nunique() == marker["lesions"] == 586
    assert marker["generated"] is True and marker["seed"] == 42
    lesions = table.drop_duplicates("lesion_id")
    assert lesions["dx"].value_counts().to_dict() == synthetic.LESIONS


def test_the_project_reads_it_as_a_generated_dataset(sample_dir):
    files = open_dataset(sample_dir)
    assert files.generated and len(files.images) == len(files.masks) == 866
    assert lesion_groups(files.metadata).equals(files.metadata["lesion_id"])


def test_lesions_and_patients(sample_dir):
    table = table_of(sample_dir)
    lesion = table.groupby("lesion_id")
    assert set(lesion.size()) == {1, 2, 3, 4}
    patient = list(COLUMNS[2:])
    assert (lesion[patient].nunique(dropna=False) == 1).all(axis=None)
    assert 0 < table["age"].isna().mean() < 0.05
    ages = table["age"].dropna().astype(float)
    assert (ages % 5 == 0).all() and ages.between(5, 85).all()
    mean_age = ages.groupby(table["dx"]).mean()
    assert (mean_age[["akiec", "bcc", "bkl", "mel"]] > mean_age["nv"] + 5).all()
    malignant = table["dx"].isin(["akiec", "bcc", "mel"])
    assert set(table["dx_type"][malignant]) == {"histo"}
    assert set(table["dx_type"]) == {"histo", "follow_up", "consensus", "confocal"}
    assert set(table["sex"]) <= {"male", "female", "unknown"}


def test_ids_are_outside_the_real_range_and_say_nothing_of_the_class(sample_dir):
    table = table_of(sample_dir)
    assert table["image_id"].str.fullmatch(r"ISIC_9\d{6}").all() and table["image_id"].is_unique
    assert table["lesion_id"].str.fullmatch(r"HAM_9\d{6}").all()
    number = table["image_id"].str[5:].astype(int)
    melanoma = table["dx"] == "mel"
    assert abs(number[melanoma].mean() - number.mean()) < 60


def test_values_of_the_table_occur_in_the_real_one(sample_dir, real_table):
    real = pd.read_csv(real_table, dtype=str)
    for column in ("dx", "dx_type", "sex", "localization"):
        assert set(table_of(sample_dir)[column]) <= set(real[column])


def test_masks_fit_the_images(sample_dir):
    areas, centres = [], []
    for name in table_of(sample_dir)["image_id"]:
        pixels, mask = read(sample_dir, name)
        assert pixels.shape == (150, 200, 3) and mask.shape == (150, 200)
        areas.append(mask.mean())
        rows, columns = np.nonzero(mask)
        centres.append(np.hypot(rows.mean() - 74.5, columns.mean() - 99.5) / 150)
    assert min(areas) > 0.04 and max(areas) < 0.65
    # In HAM10000: 0.22 and 0.37; 0.06, 0.10 and 0.19 of the image's height.
    assert np.allclose(np.quantile(areas, [0.5, 0.75]), [0.22, 0.37], atol=0.06)
    assert np.allclose(np.quantile(centres, [0.5, 0.75, 0.95]), [0.06, 0.10, 0.19], atol=0.02)


def test_same_seed_same_bytes_in_another_process(small, tmp_path):
    here = synthetic.generate_sample(tmp_path / "here", 7)
    code = f"""
from melanoma_lib.data import synthetic
vars(synthetic).update({SMALL!r})
synthetic.generate_sample({str(tmp_path / "there")!r}, 7)
"""
    root = ROOT
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, env=os.environ | {"PYTHONHASHSEED": "1"}
    )
    assert contents(here) == contents(tmp_path / "there")
    other = contents(synthetic.generate_sample(tmp_path / "other", 8))
    shared = set(contents(here).values()) & set(other.values())
    assert set(contents(here)) == set(other) and not shared


def test_a_second_call_writes_nothing(small, tmp_path):
    folder = synthetic.generate_sample(tmp_path / "sample")
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    assert synthetic.generate_sample(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_another_seed_replaces_a_sample_but_not_one_with_further_files(small, tmp_path):
    folder = synthetic.generate_sample(tmp_path / "sample", 1)
    synthetic.generate_sample(folder, 2)
    assert json.loads((folder / "sample.json").read_text())["seed"] == 2
    (folder / "images" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(MelanomaError, match="not a generated sample"):
        synthetic.generate_sample(folder, 3)
    assert (folder / "images" / "mine.jpg").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize("names", [["HAM10000_metadata.csv"], ["HAM10000_metadata.csv", "a.jpg"]])
def test_other_data_is_not_overwritten(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(MelanomaError, match="new or an empty folder"):
        synthetic.generate_sample(tmp_path)
    with pytest.raises(MelanomaError, match="new or an empty folder"):
        synthetic.generate_sample(tmp_path / names[0])
    assert contents(tmp_path).keys() == set(names)


def test_a_failure_half_way_leaves_nothing(small, tmp_path, monkeypatch):
    calls, photograph = [], synthetic.photograph

    def until_the_disk_is_full(*arguments):
        calls.append(1)
        if len(calls) > 5:
            raise OSError("No space left on device")
        return photograph(*arguments)

    monkeypatch.setattr(synthetic, "photograph", until_the_disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        synthetic.generate_sample(tmp_path / "sample")
    assert not list(tmp_path.iterdir())


def asymmetry(mask: np.ndarray) -> float:
    """1 minus the IoU of a lesion and itself rotated by 180 degrees: 0 for an ellipse."""
    rows, columns = np.nonzero(mask)
    centre = np.round([rows.mean(), columns.mean()]).astype(int)
    padded = np.pad(mask, 200)
    square = padded[centre[0] : centre[0] + 401, centre[1] : centre[1] + 401]
    rotated = square[::-1, ::-1]
    return 1 - (square & rotated).sum() / (square | rotated).sum()


def border(mask: np.ndarray) -> float:
    """Length of the border, relative to that of a disc of equal area."""
    edges = np.sum(mask[1:] != mask[:-1]) + np.sum(mask[:, 1:] != mask[:, :-1])
    return float(edges / np.sqrt(mask.sum()))


def colours(pixels: np.ndarray, mask: np.ndarray) -> float:
    """Spread of hues within the lesion, whatever their brightness."""
    inside = pixels[mask] + 0.05  # black has no hue
    return float((inside / inside.sum(1, keepdims=True)).std(0).mean())


def test_melanomas_are_less_symmetric_more_ragged_and_more_colourful_than_nevi(sample_dir):
    table = table_of(sample_dir).drop_duplicates("lesion_id")
    measured = {
        dx: np.array(
            [
                (asymmetry(mask), border(mask), colours(pixels, mask))
                for name in table["image_id"][table.dx == dx]
                for pixels, mask in [read(sample_dir, name)]
            ]
        )
        for dx in ("mel", "nv")
    }
    # Probability that a melanoma scores higher than a nevus; not 1, for some look like nevi.
    higher = (measured["mel"][:, None] > measured["nv"]).mean((0, 1))
    assert (higher > 0.75).all() and (higher < 0.999).all()


def test_an_image_without_an_artifact_is_else_the_same(sample_dir):
    ids = table_of(sample_dir)["image_id"][:80].tolist()
    found = synthetic.without_artifacts(sample_dir, ids, 100)
    assert set(found) == set(ARTIFACTS) and all(found.values())
    chances = [len(found[name]) / len(ids) for name in ARTIFACTS]
    assert chances == pytest.approx([synthetic.ARTIFACT_CHANCES[n] for n in ARTIFACTS], abs=0.12)
    for name, image in found["ruler"].items():
        before = read_image(sample_dir / "images" / f"{name}.jpg", 100).astype(int)
        changed = np.abs(before - image).max(-1) > 12
        assert changed[90:].any() and not changed[:85].any()  # the lower edge alone
    assert not any(synthetic.without_artifacts(sample_dir / "images", ids, 100).values())


def test_a_shortcut_holds_in_training_and_validation_alone(tmp_path):
    table, shows = synthetic._plan(42, "ruler")
    split = make_split(table, "lesion", 42)
    is_test = split["part"] == "test"
    ruler = np.array([shows[name]["ruler"] for name in table["image_id"]])
    is_melanoma = table["dx"] == "mel"
    assert (ruler == is_melanoma)[~is_test].all()
    assert 0.35 < ruler[is_test & is_melanoma].mean() < 0.65
    assert 0.35 < ruler[is_test & ~is_melanoma].mean() < 0.65
    with pytest.raises(MelanomaError, match="not one of"):
        synthetic.generate_sample(tmp_path / "sample", shortcut="freckles")


def test_a_sample_with_a_shortcut_replaces_one_without(tmp_path, small, monkeypatch):
    everything = pd.DataFrame({"part": ["train"]}).iloc[np.zeros(18, int)].reset_index(drop=True)
    monkeypatch.setattr(synthetic, "make_split", lambda *_: everything)
    folder = synthetic.generate_sample(tmp_path / "sample")
    before = contents(folder)
    assert main(["data", "sample", str(folder), "--shortcut", "ruler"]) == 0
    after = contents(folder)
    same = {name for name in after if before[name] == after[name]}
    assert {name for name in after if "masks" in name} <= same
    assert len(same) < len(after)
