import pandas as pd
import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.dataset_files import open_dataset, read_metadata
from melanoma_lib.data.split import SAME_LESION, is_leaked, lesion_groups, make_split, split_rows


def table_of(dataset):
    return dataset / "HAM10000_metadata.csv"


def edit(dataset, change):
    table = change(pd.read_csv(table_of(dataset), dtype=str))
    table.to_csv(table_of(dataset), index=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="dx"), "missing column dx"),
        (lambda t: t.assign(dx="melanoma"), "unknown diagnosis melanoma"),
        (lambda t: pd.concat([t, t.head(2)]), "listed more than once: ISIC_9000001, ISIC_9000002"),
        (lambda t: t.assign(age="old"), "age is not a number: old"),
        (lambda t: t.assign(image_id="../" + t["image_id"]), "unsafe image_id"),
        (lambda t: t.head(0), "no rows"),
    ],
)
def test_a_wrong_table_is_named_in_one_line(dataset, change, message):
    edit(dataset, change)
    with pytest.raises(MelanomaError, match=message) as error:
        read_metadata(table_of(dataset))
    assert "\n" not in str(error.value)


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
    with pytest.raises(MelanomaError, match=r"3 of the 105 images .* ISIC_9000001, ISIC_9000002"):
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
