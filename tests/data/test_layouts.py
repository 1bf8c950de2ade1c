"""Tables in the layouts of other publishers, converted to the diagnoses of HAM10000."""

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA, NO_MELANOMA
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import decode
from melanoma_lib.data.layouts import (
    COLUMNS,
    DERMAMNIST_TEST,
    DIAGNOSIS_NAMES,
    NAMED,
    OF_DIAGNOSIS,
    OTHER_DIAGNOSES,
    describe_excluded,
    diagnoses_markdown,
    layout_of,
)
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


ARCHIVE = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,"
    "diagnosis_3,diagnosis_4,diagnosis_confirm_type,image_manipulation,image_type,lesion_id,sex\n"
)


def archive(*rows):
    """An export of the ISIC archive, of (id, levels, lesion, type of image, how it was made)."""
    lines = []
    for name, levels, lesion, image_type, made in rows:
        names = [*levels.split(" > "), "", "", ""][:4]
        quoted = ",".join(f'"{each}"' for each in names)
        lines.append(f"{name},Who,CC-0,55,head/neck,{quoted},histopathology,{made},{image_type},"
                     f"{lesion},male\n")  # fmt: skip
    return ARCHIVE + "".join(lines)


NEVI = "Benign > Benign melanocytic proliferations > Nevus"
MELANOMAS = "Malignant > Malignant melanocytic proliferations (Melanoma)"
EPIDERMAL = "Malignant > Malignant epidermal proliferations"
SOFT = "Benign > Benign soft tissue proliferations"
EXPORT = [
    ("ISIC_1", f"{NEVI} > Nevus, Atypical, Dysplastic, or Clark", "IL_1", "dermoscopic", "altered"),
    ("ISIC_2", NEVI, "IL_1", "dermoscopic", ""),
    ("ISIC_3", f"{MELANOMAS} > Melanoma in situ", "IL_2", "dermoscopic", ""),
    ("ISIC_4", f"{MELANOMAS} > Melanoma Invasive > Melanoma Invasive, Nodular", "IL_3",
     "dermoscopic", ""),
    ("ISIC_5", f"{MELANOMAS} > Melanoma metastasis", "IL_4", "dermoscopic", ""),
    ("ISIC_6", f"{MELANOMAS} > Melanoma, NOS", "IL_5", "clinical: close-up", ""),
    ("ISIC_7", f"{EPIDERMAL} > Squamous cell carcinoma in situ", "", "dermoscopic", ""),
    ("ISIC_8", f"{EPIDERMAL} > Squamous cell carcinoma, Invasive", "", "dermoscopic", ""),
    ("ISIC_9", f"{SOFT} - Vascular", "", "dermoscopic", ""),
    ("ISIC_10", f"{SOFT} - Vascular > Pyogenic granuloma", "", "dermoscopic", ""),
    ("ISIC_11", f"{SOFT} - Fibro-histiocytic > Dermatofibroma", "", "dermoscopic", ""),
    ("ISIC_12", f"{SOFT} - Fibro-histiocytic > Scar", "", "dermoscopic", ""),
    ("ISIC_13", "Indeterminate", "", "dermoscopic", ""),
    ("ISIC_14", "", "", "dermoscopic", ""),
    ("ISIC_15", NEVI, "", "", ""),
    ("ISIC_16", NEVI, "", "dermoscopic", "synthetic"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["metadata.csv", "ham10000_metadata_2025-03-19.csv"])
def test_an_export_of_the_isic_archive(tmp_path, name):
    """A name stands for what is below it; other images, and what does not map, are counted."""
    (tmp_path / name).write_text(archive(*EXPORT))
    write_images(tmp_path, [row[0] for row in EXPORT])
    files = open_dataset(tmp_path, external=True)
    found = dict(zip(files.metadata["image_id"], files.metadata["dx"], strict=True))
    assert files.name == "ISIC archive" and found == {
        "ISIC_1": "nv", "ISIC_2": "nv", "ISIC_3": "mel", "ISIC_4": "mel", "ISIC_7": "akiec",
        "ISIC_9": "vasc", "ISIC_10": "vasc", "ISIC_11": "df",
    }  # fmt: skip
    assert files.excluded == {
        "of type clinical: close-up": 1, "of type (empty)": 1,
        "of diagnosis melanoma metastasis": 1, "of diagnosis scar": 1, "of diagnosis (empty)": 1,
        "of diagnosis squamous cell carcinoma, invasive": 1, "of diagnosis indeterminate": 1,
        "synthetic": 1,
    }  # fmt: skip
    assert list(files.metadata["lesion_id"][:3]) == ["IL_1", "IL_1", "IL_2"]
    assert set(files.metadata["dx_type"]) == {"histo"} and set(files.metadata["age"]) == {55}
    assert set(files.metadata["localization"]) == {"head/neck"}
    with pytest.raises(MelanomaError, match="a run needs HAM10000"):
        open_dataset(tmp_path)
    assert main(["data", "check", str(tmp_path)]) == 0


def test_an_older_export_of_the_archive_and_one_of_another_name(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text(
        "isic_id,benign_malignant,diagnosis\nISIC_1,malignant,melanoma\nISIC_2,benign,nevus\n"
        "ISIC_3,benign,pigmented benign keratosis\nISIC_4,benign,lentigo NOS\n"
        "ISIC_5,malignant,squamous cell carcinoma\nISIC_6,benign,\n"
    )
    read = read_table(table)
    assert read.layout.name == "ISIC archive" and list(read.rows["dx"]) == ["mel", "nv", "bkl"]
    assert sum(read.excluded.values()) == 3 and "of diagnosis lentigo nos" in read.excluded


@pytest.mark.parametrize("name", ["train.csv", "ISIC_2020_Training_GroundTruth_v2.csv"])
def test_isic_2020_only_says_melanoma_or_not(tmp_path, name, capsys):
    lesion = ",lesion_id" if "v2" in name else ""
    (tmp_path / name).write_text(
        f"image_name,patient_id{lesion},sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target\n" + "".join(
            f"ISIC_{row},IP_1{',IL_1' * bool(lesion)},male,45,torso,{text}\n"
            for row, text in enumerate(
                ["unknown,benign,0", "melanoma,malignant,1", "nevus,benign,0", "unknown,benign,"]
            )
        )
    )  # fmt: skip
    (tmp_path / "test.csv").write_text("image_name,patient_id\nISIC_9,IP_1\n")
    write_images(tmp_path / "train", [f"ISIC_{row}" for row in range(4)])
    files = open_dataset(tmp_path, external=True)
    assert files.name == "ISIC 2020" and files.excluded == {"of diagnosis (empty)": 1}
    assert list(files.metadata["dx"]) == [NO_MELANOMA, MELANOMA, NO_MELANOMA]
    assert set(files.metadata["localization"]) == {"torso"}
    assert files.metadata["lesion_id"].nunique() == (1 if lesion else 3)
    assert main(["data", "check", str(tmp_path)]) == 0
    report = " ".join(capsys.readouterr().out.split())
    assert "mel melanoma 1 no melanoma 2" in report and "basal" not in report


def test_bcn20000_names_its_images_with_their_suffix(tmp_path):
    (tmp_path / "bcn_20k_train.csv").write_text(
        "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split\n"
        "BCN_0000000001.jpg,55.0,anterior torso,MEL,BCN_0003884,2012-05-16,male,train\n"
        "BCN_0000000002.jpg,55.0,,SCC,BCN_0000019,2012-05-16,male,train\n"
        "BCN_0000000003.jpg,,,AK,BCN_0003499,2012-05-16,,train\n"
    )
    write_images(tmp_path / "bcn_20k_train", [f"BCN_000000000{row}" for row in (1, 2, 3)])
    files = open_dataset(tmp_path, external=True)
    assert files.name == "BCN20000" and files.excluded == {"of diagnosis scc": 1}
    assert list(files.metadata["image_id"]) == ["BCN_0000000001", "BCN_0000000003"]
    assert list(files.metadata["dx"]) == ["mel", "akiec"]
    assert list(files.metadata["lesion_id"]) == ["BCN_0003884", "BCN_0003499"]


def test_milk10k_of_which_only_the_dermoscopic_images_are_read(tmp_path):
    heads = [
        "AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC"
    ]  # fmt: skip
    truth = ["lesion_id," + ",".join(heads)]
    images = ["lesion_id,image_type,isic_id,age_approx,sex,skin_tone_class,site"]
    for row, code in enumerate([*heads, "MEL"]):
        truth.append(f"IL_{row}," + ",".join("1.0" if code == head else "0.0" for head in heads))
        images.append(f"IL_{row},clinical: close-up,ISIC_{row}1,70,male,1,head_neck_face")
        images.append(f"IL_{row},dermoscopic,ISIC_{row}2,70,male,1,head_neck_face")
    table = tmp_path / "MILK10k_Training_GroundTruth.csv"
    table.write_text("\n".join(truth) + "\n")
    with pytest.raises(MelanomaError, match=r"put MILK10k_Training_Metadata\.csv of the same"):
        open_dataset(tmp_path, external=True)
    (tmp_path / "MILK10k_Training_Metadata.csv").write_text("\n".join(images) + "\n")
    for row in range(12):  # in a folder for each lesion
        folder = tmp_path / "MILK10k_Training_Input" / f"IL_{row}"
        write_images(folder, [f"ISIC_{row}1", f"ISIC_{row}2"])
    files = open_dataset(tmp_path, external=True)
    assert list(files.metadata["dx"]) == [
        "akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "mel"
    ]  # fmt: skip
    assert files.metadata["image_id"].str.endswith("2").all()
    assert files.excluded == {"of type clinical: close-up": 12} | {
        f"of diagnosis {name}": 1 for name in ("ben_oth", "inf", "mal_oth", "sccka")
    }
    assert files.name == "MILK10k" and set(files.metadata["localization"]) == {"head_neck_face"}


def test_pad_ufes_20_is_said_to_be_no_dermoscopy(tmp_path):
    (tmp_path / "metadata.csv").write_text(
        "patient_id,lesion_id,smoke,age,gender,region,diagnostic,img_id,biopsed\n" + "".join(
            f"PAT_{row},{7 * row},,8,FEMALE,ARM,{code},PAT_{row}_{7 * row}_530.png,False\n"
            for row, code in enumerate(["NEV", "SEK", "ACK", "BCC", "MEL", "SCC"])
        )
    )  # fmt: skip
    write_images(tmp_path / "images" / "imgs_part_1", [f"PAT_{n}_{7 * n}_530" for n in range(6)])
    files = open_dataset(tmp_path, external=True)
    assert files.name == "PAD-UFES-20" and files.excluded == {"of diagnosis scc": 1}
    assert list(files.metadata["dx"]) == ["nv", "bkl", "akiec", "bcc", "mel"]
    assert set(files.metadata["sex"]) == {"female"} and set(files.metadata["age"]) == {8}
    assert set(files.metadata["localization"]) == {"arm"}
    report, problems = validate_dataset(tmp_path)
    assert not problems and "the images are clinical photographs by smartphones" in report


def test_derm7pt_of_which_the_dermoscopic_images_are_read(tmp_path):
    names = [
        "basal cell carcinoma", "blue nevus", "clark nevus", "combined nevus", "congenital nevus",
        "dermal nevus", "dermatofibroma", "lentigo", "melanoma", "melanoma (in situ)",
        "melanoma (less than 0.76 mm)", "melanoma (0.76 to 1.5 mm)", "melanoma (more than 1.5 mm)",
        "melanoma metastasis", "melanosis", "miscellaneous", "recurrent nevus",
        "reed or spitz nevus", "seborrheic keratosis", "vascular lesion",
    ]  # fmt: skip
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "meta.csv").write_text(
        "case_num,diagnosis,seven_point_score,location,sex,management,clinic,derm,case_id,notes\n"
        + "".join(
            f"{row},{name},0,back,male,excision,NEL/NEL{row:03d}.JPG,NEL/Nel{row + 500}.jpg,,\n"
            for row, name in enumerate(names)
        )
    )
    write_images(tmp_path / "images" / "NEL", [f"Nel{row + 500}" for row in range(len(names))])
    files = open_dataset(tmp_path, external=True)
    assert files.name == "Derm7pt" and files.metadata["image_id"][0] == "Nel500"
    counts = files.metadata["dx"].value_counts().to_dict()
    assert counts == {"nv": 7, "mel": 5, "bcc": 1, "bkl": 1, "df": 1, "vasc": 1}
    left_out = ("lentigo", "melanoma metastasis", "melanosis", "miscellaneous")
    assert files.excluded == {f"of diagnosis {name}": 1 for name in left_out}


def test_the_names_of_diagnoses_stand_in_the_data_card():
    text = (ROOT / "data" / "README.md").read_text()
    assert diagnoses_markdown() in text
    names = [name for names in DIAGNOSIS_NAMES.values() for name in names]
    assert len({*names, *CLASS_NAMES, *OTHER_DIAGNOSES}) == len(names) + 7 + len(OTHER_DIAGNOSES)
    assert names == [name.lower() for name in names]


def test_of_many_diagnoses_the_most_frequent_are_named():
    many = {f"{OF_DIAGNOSIS}{n}": 100 - n for n in range(NAMED + 2)}
    text = describe_excluded({"of type x": 5} | many | {"synthetic": 1})
    assert text.startswith("5 of type x, 100 of diagnosis 0") and f"diagnosis {NAMED}," not in text
    assert text.endswith(f"1 synthetic, {100 - NAMED + 99 - NAMED} of 2 other diagnoses")
    assert "other" not in describe_excluded(dict(list(many.items())[1:]))


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
