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
from melanoma_lib.data.layouts import COLUMNS, DERMAMNIST_TEST, layout_of
from melanoma_lib.data.tables import find_tables, read_table
from melanoma_lib.data.validate import validate_dataset

ISIC_2018 = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
ISIC_2019 = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
TRAINING = "ISIC2018_Task3_Training_GroundTruth.csv"


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
    assert set(COLUMNS) <= set(files.metadata)


@pytest.mark.parametrize("name", ["isic_id", "image_id"])
def test_the_test_set_of_isic_2018_as_the_dataverse_has_it(tmp_path, name):
    rows = pd.DataFrame({
        name: ["ISIC_0034524", "ISIC_0034525", "ISIC_0035068"], "dx": ["nv", "mel", "nv"],
        "lesion_id": ["HAM_1", None, "HAM_3"], "age": ["40", "", "3"],
    })  # fmt: skip
    rows.to_csv(tmp_path / "ISIC2018_Task3_Test_GroundTruth.tab", sep="\t", index=False)
    write_images(tmp_path, rows[name])
    files = open_dataset(tmp_path, external=True)
    assert list(files.metadata["dx"]) == ["nv", "mel"]
    assert list(files.metadata["lesion_id"]) == ["HAM_1", "ISIC_0034525"]
    assert files.metadata["age"].tolist()[0] == 40 and files.excluded == {"synthetic": 1}


def test_ham10000_in_the_layout_of_the_challenge_is_trained_on(tmp_path):
    """The training set of ISIC 2018, whose lesions are in a table of their own."""
    names = one_hot(tmp_path / "truth" / TRAINING, ISIC_2018, ["MEL", "NV", "NV"])
    write_images(tmp_path / "ISIC2018_Task3_Training_Input", names)
    with pytest.raises(MelanomaError, match=r"one lesion; put \S+_Training_LesionGroupings\.csv"):
        open_dataset(tmp_path)
    second = tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv"
    groupings = pd.DataFrame({
        "image": names, "lesion_id": ["HAM_1", "HAM_2", "HAM_2"],
        "diagnosis_confirm_type": ["histopathology", "serial imaging showing no change", None],
    })  # fmt: skip
    groupings.to_csv(second, index=False)
    files = open_dataset(tmp_path)
    assert files.name == "HAM10000" and list(files.metadata["dx"]) == ["mel", "nv", "nv"]
    assert list(files.metadata["lesion_id"]) == ["HAM_1", "HAM_2", "HAM_2"]
    assert list(files.metadata["dx_type"]) == ["histo", "follow_up", "unknown"]
    groupings.replace("HAM_1", "HAM_2").to_csv(second, index=False)
    assert open_dataset(tmp_path).fingerprint != files.fingerprint
    groupings[1:].to_csv(second, index=False)
    with pytest.raises(MelanomaError, match="empty or unsafe lesion_id"):
        open_dataset(tmp_path)


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


TWO_OF_EACH = np.arange(14) % 7


def save_npz(path, size=28, labels=TWO_OF_EACH):
    images = np.random.default_rng(0).integers(0, 255, (len(labels), size, size, 3), np.uint8)
    np.savez(path, test_images=images, test_labels=labels.astype(np.uint8)[:, None])
    return images


@pytest.mark.parametrize("size", [28, 64])
def test_dermamnist_is_one_file(tmp_path, size):
    images = save_npz(tmp_path / f"dermamnist_{size}.npz", size)
    files = open_dataset(tmp_path, external=True)
    assert list(files.metadata["dx"]) == [*CLASS_NAMES, *CLASS_NAMES]
    assert files.metadata["image_id"][13] == "test-00013"
    assert np.array_equal(decode(files, size, tmp_path / "cache"), images)
    assert decode(files, 32, tmp_path / "cache").shape == (14, 32, 32, 3)
    save_npz(tmp_path / f"dermamnist_{size}.npz", size, np.zeros(14))
    assert open_dataset(tmp_path, external=True).fingerprint != files.fingerprint


def test_only_dermamnist_itself_is_said_to_have_been_seen(tmp_path):
    published = np.repeat(range(7), DERMAMNIST_TEST)
    assert len(published) == 2_005
    for labels, seen in ((published, True), (published[1:], False)):
        save_npz(tmp_path / "dermamnist.npz", 4, labels)
        layout = read_table(tmp_path / "dermamnist.npz").layout
        assert ("HAM10000" in layout.overlap) == seen and (layout.name == "DermaMNIST") == seen


def test_of_several_sizes_the_largest_is_taken_and_the_others_are_named(tmp_path, capsys):
    for name, size in (("dermamnist", 28), ("dermamnist_128", 128), ("dermamnist_64", 64)):
        save_npz(tmp_path / f"{name}.npz", size)
    assert open_dataset(tmp_path, external=True).images.shape[1] == 128
    said = capsys.readouterr().err
    assert all(f"{name}.npz" in said for name in ("dermamnist", "dermamnist_64", "dermamnist_128"))


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_one_line(tmp_path, flips, save):
    path = tmp_path / "dermamnist.npz"
    images = save_npz(path)
    save(path, test_images=images, test_labels=TWO_OF_EACH)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + (bytes([content[half] ^ 4]) + content[half + 1 :]) * flips)
    with pytest.raises(MelanomaError, match="cannot be read as DermaMNIST"):
        open_dataset(tmp_path, external=True)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("HAM10000_metadata", "HAM10000"),
        (TRAINING, "HAM10000"),
        ("mine.csv", "HAM10000"),
        ("ISIC2018_Task3_Validation_GroundTruth.csv", "ISIC 2018 validation set"),
        ("ISIC2018_Task3_Test_GroundTruth.csv", "ISIC 2018 test set"),
        ("ISIC_2019_Training_GroundTruth.csv", "ISIC 2019"),
        ("dermamnist_224.npz", "DermaMNIST"),
        ("mine.npz", "DermaMNIST"),
    ],
)
def test_the_layout_follows_from_the_file_name(tmp_path, name, layout):
    assert layout_of(tmp_path / name).name == layout


COMMA = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["HAM10000_metadata.csv", "HAM10000_metadata (1).csv"], 0),
        (["HAM10000_metadata", "Copy of HAM10000_metadata.csv", "a/HAM10000_metadata_old.csv"], 0),
        (["HAM10000_metadata (1).csv", "HAM10000_metadata.pdf", "HAM10000_metadata.xlsx"], 0),
        (["HAM10000_metadata (1).csv", "deep/er/HAM10000_metadata.tab"], 1),
        (["HAM10000_metadata.csv", "old/HAM10000_metadata.csv"], 0),
        (["HAM10000_metadata.csv", "ISIC2018_Task3_Test_GroundTruth.csv", "dermamnist.npz"], 0),
        (["ham10000_metadata.csv", "notes.csv"], 0),
        (["HAM10000_metadata.csv", "HAM10000_metadata.txt"], None),
        (["a/HAM10000_metadata.csv", "b/HAM10000_metadata.csv"], None),
        (["HAM10000_metadata (1).csv", "HAM10000_metadata (2).csv"], None),
        (["ISIC_2019_Test_GroundTruth.csv", "ISIC_2019_Training_GroundTruth.csv"], None),
        ([TRAINING, "dermamnist.npz"], None),
    ],
)
def test_the_published_name_goes_first_and_equals_are_named(tmp_path, names, chosen):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(COMMA + str(number))
    if chosen is not None:
        assert find_tables(tmp_path)[0] == tmp_path / names[chosen]
    else:
        with pytest.raises(MelanomaError, match="several tables") as error:
            find_tables(tmp_path)
        assert all(str(tmp_path / name) in str(error.value) for name in names)
        for name in names:  # copies are no contradiction
            (tmp_path / name).write_text(COMMA)
        assert find_tables(tmp_path) == [tmp_path / names[0]]


def test_tables_that_are_passed_over_are_said(dataset, capsys):
    (dataset / "HAM10000_metadata (1).csv").write_text(COMMA)
    open_dataset(dataset)
    assert "passed over: " in (said := capsys.readouterr().err) and "metadata (1).csv" in said
    report, _ = validate_dataset(dataset)
    assert f"table: {dataset / 'HAM10000_metadata.csv'}\n" in report and "(1).csv" in report


def test_a_file_that_only_has_the_name_of_a_table_is_named(tmp_path):
    with pytest.raises(MelanomaError, match=r"holds no HAM10000_metadata table.*DermaMNIST"):
        find_tables(tmp_path)
    (tmp_path / "HAM10000_metadata.pdf").write_bytes(b"%PDF-1.7")
    with pytest.raises(MelanomaError, match=r"metadata\.pdf is not a table"):
        find_tables(tmp_path)
    (tmp_path / "HAM10000_metadata.csv").write_bytes(b"%PDF-1.7\nobj\n")
    with pytest.raises(MelanomaError, match=r"missing column .*first line reads %PDF-1\.7"):
        open_dataset(tmp_path)


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
