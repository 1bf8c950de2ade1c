"""Tables in the layouts of other publishers, converted to the diagnoses of HAM10000."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode
from melanoma_lib.data.layouts import COLUMNS, LAYOUTS, find_table, layout_of, read_table

ISIC_2018 = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
ISIC_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]


def one_hot(path, heads, codes, first=1, **more):
    """A ground truth as the challenges publish it: a row for each image, one-hot diagnoses."""
    rows = pd.DataFrame(0.0, range(len(codes)), heads)
    for row, code in enumerate(codes):
        rows.loc[row, code] = 1.0
    names = [f"ISIC_{first + row:07d}" for row in range(len(codes))]
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.assign(**more).set_index(pd.Index(names, name="image")).to_csv(path)
    return names


def write_images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (12, 9), (hash(name) % 200, 90, 60)).save(folder / f"{name}.jpg")


def test_the_test_set_of_isic_2018_in_the_layout_of_the_challenge(tmp_path):
    """One-hot diagnoses; the synthetic image is excluded; each image counts as a lesion."""
    codes = [*ISIC_2018, "NV"]
    table = tmp_path / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    names = one_hot(table, ISIC_2018, codes, first=35061)
    assert names[-1] == "ISIC_0035068"
    write_images(tmp_path / "ISIC2018_Task3_Test_Images", names)
    files = open_dataset(tmp_path, external=True)
    assert files.name == "ISIC 2018 test set" and files.excluded == {"synthetic": 1}
    assert list(files.metadata["dx"]) == ["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"]
    assert list(files.metadata["lesion_id"]) == list(files.metadata["image_id"]) == names[:-1]
    assert [path.stem for path in files.images] == names[:-1]
    assert files.metadata["age"].isna().all() and set(files.metadata["sex"]) == {"unknown"}


def test_the_test_set_of_isic_2018_as_the_dataverse_has_it(tmp_path):
    rows = pd.DataFrame({
        "isic_id": ["ISIC_0034524", "ISIC_0034525", "ISIC_0035068"], "dx": ["nv", "mel", "nv"],
        "lesion_id": ["HAM_1", None, "HAM_3"], "age": ["40", "", "3"],
    })  # fmt: skip
    for name, columns in (("isic_id", {}), ("image_id", {"isic_id": "image_id"})):
        table = tmp_path / name / "ISIC2018_Task3_Test_GroundTruth.tab"
        table.parent.mkdir()
        rows.rename(columns=columns).to_csv(table, sep="\t", index=False)
        write_images(table.parent, rows["isic_id"])
        files = open_dataset(table.parent, external=True)
        assert list(files.metadata["dx"]) == ["nv", "mel"]
        assert list(files.metadata["lesion_id"]) == ["HAM_1", "ISIC_0034525"]
        assert files.metadata["age"].tolist()[0] == 40 and files.excluded == {"synthetic": 1}


def test_isic_2019_with_its_second_table(tmp_path):
    """AK is akiec; SCC and UNK are excluded and counted; score_weight is not a diagnosis."""
    codes = ["AK", "SCC", "MEL", "UNK", "SCC", "VASC"]
    table = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    names = one_hot(table, ISIC_2019, codes, score_weight=1.0)
    further = pd.DataFrame({
        "image": names, "age_approx": 55.0, "anatom_site_general": ["head/neck", *[None] * 5],
        "lesion_id": ["BCN_1", "BCN_1", "HAM_2", None, None, None], "sex": "female",
    })  # fmt: skip
    write_images(tmp_path / "ISIC_2019_Training_Input", names)
    for folder in ("beside", "."):
        place = tmp_path / folder / "ISIC_2019_Training_Metadata.csv"
        place.parent.mkdir(exist_ok=True)
        further.to_csv(place, index=False)
        files = open_dataset(tmp_path, external=True)
        assert list(files.metadata["dx"]) == ["akiec", "mel", "vasc"]
        assert files.excluded == {"of diagnosis scc": 2, "of diagnosis unk": 1}
        assert list(files.metadata["lesion_id"]) == ["BCN_1", "HAM_2", "ISIC_0000006"]
        assert list(files.metadata["localization"]) == ["head/neck", "unknown", "unknown"]
        assert (files.metadata["age"] == 55).all() and (files.metadata["sex"] == "female").all()
        place.unlink()
        assert open_dataset(tmp_path, external=True).metadata["age"].isna().all()


@pytest.mark.parametrize("size", [28, 64])
def test_dermamnist_is_one_file(tmp_path, size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (14, size, size, 3), np.uint8)
    labels = np.arange(14, dtype=np.uint8)[:, None] % 7
    arrays = {f"{split}_{what}": values for split in ("train", "val", "test")
              for what, values in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / f"dermamnist_{size}.npz", **arrays)
    files = open_dataset(tmp_path, external=True)
    assert list(files.metadata["dx"]) == [*CLASS_NAMES, *CLASS_NAMES]
    assert files.metadata["image_id"][13] == "test-00013" and "HAM10000" in files.layout.overlap
    assert np.array_equal(decode(files, size, tmp_path / "cache"), images)
    assert decode(files, 32, tmp_path / "cache").shape == (14, 32, 32, 3)
    arrays["test_images"] = images[::-1]
    np.savez(tmp_path / f"dermamnist_{size}.npz", **arrays)
    assert open_dataset(tmp_path, external=True).fingerprint != files.fingerprint


def test_the_layout_follows_from_the_file_name(tmp_path):
    names = [layout_of(tmp_path / name).name for name in (
        "HAM10000_metadata", "ISIC2018_Task3_Test_GroundTruth.csv",
        "ISIC_2019_Training_GroundTruth.csv", "dermamnist_224.npz", "mine.csv")]  # fmt: skip
    assert names == [layout.name for layout in LAYOUTS] + ["HAM10000"]
    with pytest.raises(MelanomaError, match=r"holds no HAM10000_metadata table.*dermamnist"):
        find_table(tmp_path)


def test_a_run_is_not_trained_on_another_layout(tmp_path, capsys):
    names = one_hot(tmp_path / "ISIC_2019_Training_GroundTruth.csv", ISIC_2019, ["MEL", "NV"])
    write_images(tmp_path, names)
    assert main(["run", "--data-dir", str(tmp_path), "--output-dir", str(tmp_path / "run")]) == 2
    assert "melanoma evaluate" in capsys.readouterr().err and not (tmp_path / "run").exists()


def truth(text, name="ISIC2018_Task3_Test_GroundTruth.csv"):
    def write(folder):
        (folder / name).write_text(text)

    return write


def arrays(**values):
    return lambda folder: np.savez(folder / "dermamnist.npz", **values)


IMAGES = np.zeros((3, 28, 28, 3), np.uint8)
BAD = {
    "two diagnoses": (truth("image,MEL,NV\nISIC_1,1,1\nISIC_2,1,0\n"), "exactly one.*ISIC_1$"),
    "no diagnosis": (truth("image,MEL,NV\nISIC_1,0,0\n"), "exactly one diagnosis: ISIC_1"),
    "a word for a number": (truth("image,MEL,NV\nISIC_1,yes,0\n"), "exactly one diagnosis"),
    "no column of diagnoses": (truth("image,a\nISIC_1,1\n"), "missing column dx"),
    "no column of images": (truth("a,MEL\nISIC_1,1\n"), "missing column image_id"),
    "no diagnosis of HAM10000": (truth("image,SCC,UNK\nISIC_1,1,0\n"), "no row has one of"),
    "an unsafe id": (truth("image,MEL\n../ISIC_1,1\n"), "unsafe image_id"),
    "an image twice": (truth("image,MEL\nISIC_1,1\nISIC_1,1\n"), "more than once"),
    "an absent image": (truth("image,MEL\nISIC_1,1\n"), "1 of the 1 images"),
    "no rows": (truth("image,MEL\n"), "no row"),
    "no zip file": (truth("x", "dermamnist.npz"), "cannot be read as DermaMNIST"),
    "other arrays": (arrays(a=IMAGES), "cannot be read as DermaMNIST"),
    "more labels": (arrays(test_images=IMAGES, test_labels=np.zeros(4, int)), "not laid out"),
    "an eighth class": (arrays(test_images=IMAGES, test_labels=np.array([0, 7, 1])), "not laid"),
    "grey images": (arrays(test_images=IMAGES[..., 0], test_labels=np.zeros(3, int)), "not laid"),
    "fractions": (arrays(test_images=IMAGES / 2, test_labels=np.zeros(3, int)), "not laid out"),
    "code": (arrays(test_images=np.array([{}]), test_labels=np.zeros(1, int)), "cannot be read"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_wrong_table_is_named_in_one_line(tmp_path, fault):
    make, message = BAD[fault]
    make(tmp_path)
    with pytest.raises(MelanomaError, match=message):
        open_dataset(tmp_path, external=True)


def test_every_layout_has_the_columns_of_ham10000(tmp_path):
    one_hot(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv", ISIC_2018, ["MEL"])
    rows = read_table(tmp_path / "ISIC2018_Task3_Test_GroundTruth.csv").rows
    assert set(COLUMNS) <= set(rows) and not rows.drop(columns="age").isna().any().any()
