"""A dataset's table and files as they are found and checked, and its split."""

import shutil

import pandas as pd
import pytest

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import open_dataset, read_metadata
from melanoma_lib.data.split import SAME_LESION, is_leaked, lesion_groups, make_split, split_rows
from melanoma_lib.data.validate import validate_dataset


def table_of(dataset):
    return dataset / "HAM10000_metadata.csv"


def edit(dataset, change):
    table = change(pd.read_csv(table_of(dataset), dtype=str))
    table.to_csv(table_of(dataset), index=False)


def test_variants_of_the_published_table_are_read(dataset):
    plain = read_metadata(table_of(dataset))
    edit(dataset, lambda t: t.assign(dataset="vidir_modern"))  # the eighth column
    assert "dataset" in read_metadata(table_of(dataset))
    text = table_of(dataset).read_text()
    table_of(dataset).write_text("\ufeff" + text.replace(",", "\t"), encoding="utf-8")
    again = read_metadata(table_of(dataset))
    pd.testing.assert_frame_equal(plain, again[plain.columns])
    assert plain["age"].isna().any() and (plain["age"].dropna() == 45).all()


def test_absent_images_are_listed(dataset):
    for number in (1, 2, 3):
        (dataset / "images" / f"ISIC_900000{number}.jpg").unlink()
    named = r"^3 of the 105 images .* ISIC_9000001, ISIC_9000002.*\Z"  # in one line
    with pytest.raises(MelanomaError, match=named):
        open_dataset(dataset)


def test_an_empty_or_absent_folder_is_reported(tmp_path):
    with pytest.raises(MelanomaError, match="holds no HAM10000_metadata table"):
        open_dataset(tmp_path)
    with pytest.raises(MelanomaError, match="does not exist"):
        open_dataset(tmp_path / "absent")


def test_images_may_lie_in_two_folders_and_shadow_files_are_ignored(dataset):
    whole = open_dataset(dataset)
    images = sorted((dataset / "images").iterdir())
    (dataset / "part_2").mkdir()
    (dataset / "__MACOSX").mkdir()
    for image in images[50:]:
        image.rename(dataset / "part_2" / image.name)
    (dataset / "__MACOSX" / "._ISIC_9000001_segmentation.png").write_bytes(b"junk")
    (dataset / "part_2" / "._ISIC_9000001.jpg").write_bytes(b"junk")
    parts = open_dataset(dataset)
    assert [p.name for p in parts.images] == [p.name for p in whole.images]
    assert len(parts.masks) == len(whole.images)
    assert parts.fingerprint == whole.fingerprint and not parts.generated


@pytest.mark.parametrize(
    ("kind", "source", "copy"),
    [
        ("image", "images/ISIC_9000002.jpg", "augmented/ISIC_9000001.jpg"),
        ("image", "images/ISIC_9000002.jpg", "images/ISIC_9000001.png"),
        ("image", "masks/ISIC_9000001_segmentation.png", "labels/ISIC_9000001.png"),
        ("mask", "masks/ISIC_9000002_segmentation.png", "masks/ISIC_9000001.png"),
    ],
)
def test_different_files_for_one_id_are_named(dataset, capsys, kind, source, copy):
    (dataset / copy).parent.mkdir(exist_ok=True)
    content = (dataset / source).read_bytes()
    (dataset / copy).write_bytes(content + b"2" * (kind == "mask"))  # all masks are the same
    with pytest.raises(MelanomaError, match=f"1 image ids .* as their {kind}") as error:
        open_dataset(dataset)
    assert copy in str(error.value) and str(error.value).count(f"{dataset}/") == 2
    assert main(["data", "check", str(dataset)]) == 2
    assert copy in capsys.readouterr().err


def test_copies_of_a_file_are_no_contradiction(dataset):
    before = open_dataset(dataset).fingerprint
    shutil.copytree(dataset / "images", dataset / "ham10000_images")
    assert open_dataset(dataset).fingerprint == before


@pytest.mark.parametrize("folder", ["masks", "ISIC_Segmentation_Masks", "lesion-mask/png"])
def test_masks_may_be_named_like_the_images(dataset, folder):
    (dataset / "masks").rename(dataset / "moved")
    (dataset / folder).mkdir(parents=True)
    for mask in (dataset / "moved").iterdir():
        mask.rename(dataset / folder / mask.name.replace("_segmentation", ""))
    files = open_dataset(dataset)
    assert {path.parent for path in files.images} == {dataset / "images"}
    assert {path.parent for path in files.masks.values()} == {dataset / folder}
    assert len(files.masks) == 105


def test_a_name_in_the_table_is_an_image_however_it_ends(dataset):
    image = dataset / "images" / "ISIC_9000001.jpg"
    image.rename(image.with_stem("left_segmentation"))
    edit(dataset, lambda t: t.replace({"image_id": {"ISIC_9000001": "left_segmentation"}}))
    files = open_dataset(dataset)
    assert files.images[0].name == "left_segmentation.jpg" and len(files.masks) == 104


def test_images_in_a_folder_that_speaks_of_masks_are_said_to_lie_there(dataset):
    (dataset / "images").rename(dataset / "segmentation")
    with pytest.raises(MelanomaError, match=r"105 of the 105 .*\(105 lie in folders whose names"):
        open_dataset(dataset)


def test_a_folder_that_cannot_be_read_is_named(dataset, closed_folders, capsys):
    closed_folders.add(str(dataset / "masks"))
    assert not open_dataset(dataset).masks
    assert "masks cannot be read (Permission denied)" in capsys.readouterr().err
    assert main(["data", "check", str(dataset)]) == 0
    assert "masks cannot be read (Permission denied)" in capsys.readouterr().out
    closed_folders.add(str(dataset / "images"))
    with pytest.raises(MelanomaError, match=r"105 of the 105 .*images cannot be read"):
        open_dataset(dataset)


def test_impossible_ages_count_as_missing_and_are_said(dataset, capsys):
    edit(dataset, lambda t: t.assign(age=["-1", "999", "inf", "0", *t["age"][4:]]))
    metadata = open_dataset(dataset).metadata
    assert metadata["age"][:3].isna().all() and metadata["age"][3] == 0
    assert "3 ages below 0 or above 120 count as missing: -1, 999, inf" in capsys.readouterr().err
    report, problems = validate_dataset(dataset)
    assert not problems and "-1, 999, inf" in report


def test_table_and_images_may_be_given_separately(dataset, tmp_path):
    table = tmp_path / "table.csv"
    table_of(dataset).rename(table)
    files = open_dataset(metadata=table, img_dir=dataset / "images")
    assert len(files.images) == 105 and not files.masks
    assert len(open_dataset(dataset, table, dataset / "images").masks) == 105


def test_the_fingerprint_follows_table_and_images(dataset):
    before = open_dataset(dataset).fingerprint
    edit(dataset, lambda t: t.assign(sex="unknown"))
    changed = open_dataset(dataset).fingerprint
    image = next((dataset / "images").iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert len({before, changed, open_dataset(dataset).fingerprint}) == 3


def test_a_lesion_split_keeps_the_images_of_a_lesion_together(dataset):
    metadata = read_metadata(table_of(dataset))
    split = make_split(metadata, "lesion", 42)
    assert split.groupby("lesion_id")["part"].nunique().max() == 1
    assert not is_leaked(split).any()
    assert set(split["part"]) == {"train", "val", "test"}
    assert make_split(metadata, "lesion", 42).equals(split)
    assert not make_split(metadata, "lesion", 43).equals(split)
    rows = [row for name in ("train", "val", "test") for row in split_rows(split, name)]
    assert sorted(rows) == list(range(len(metadata)))


def test_an_image_split_has_the_same_images_in_val_and_test(dataset):
    split = make_split(read_metadata(table_of(dataset)), "image", 42)
    assert split["part"].value_counts().to_dict() == {"train": 90, "val+test": 15}  # int(.15 x 105)
    assert list(split_rows(split, "val")) == list(split_rows(split, "test"))
    assert is_leaked(split).any()


def test_too_few_lesions_are_reported(dataset):
    metadata = read_metadata(table_of(dataset))
    few = metadata.drop_duplicates("lesion_id").drop_duplicates("dx")
    with pytest.raises(MelanomaError, match="too few to split"):
        make_split(few, "lesion", 42)


def test_known_pairs_are_joined():
    first, second = SAME_LESION[0]
    table = pd.DataFrame(
        {"image_id": [first, "x", second, "y"], "lesion_id": ["a", "a", "b", "c"]}
    )
    assert list(lesion_groups(table)) == ["a", "a", "a", "c"]
    assert len(SAME_LESION) == 18 and len({name for p in SAME_LESION for name in p}) == 36


def test_the_published_table_has_the_published_counts(real_table):
    """Golden numbers: the thesis's first protocol and its leakage."""
    metadata = read_metadata(real_table)
    assert len(metadata) == 10015 and metadata["lesion_id"].nunique() == 7470
    assert int(metadata["age"].isna().sum()) == 57
    assert lesion_groups(metadata).nunique() == 7470 - 18
    split = make_split(metadata, "image", 42)
    assert split["part"].value_counts().to_dict() == {"train": 8513, "val+test": 1502}
    held = metadata[split["part"] != "train"]
    assert (held["dx"] == "mel").sum() == 167
    seen = held["lesion_id"].isin(metadata["lesion_id"][split["part"] == "train"])
    assert round(seen.mean(), 3) == 0.403  # by the published lesion ids
    assert round(seen[held["dx"] == "mel"].mean(), 3) == 0.695
    by_lesion = make_split(metadata, "lesion", 42)
    assert by_lesion["part"].value_counts().to_dict() == {"train": 6985, "val": 1522, "test": 1508}
    assert not is_leaked(by_lesion).any()
