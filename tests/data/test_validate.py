"""The report on a dataset folder: its numbers, what stops a run, and what is only odd."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from melanoma_lib.cli import main
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.download import FILES
from melanoma_lib.data.split import SAME_LESION
from melanoma_lib.data.validate import PUBLISHED, validate_dataset


def line(report, head):
    (found,) = [text for text in report.splitlines() if text.startswith(head)]
    return " ".join(found.split())


def test_a_whole_dataset_has_no_problem(dataset):
    report, problems = validate_dataset(dataset)
    assert not problems
    assert report.startswith("HAM10000: 105 images of 70 lesions, 105 masks\n")
    assert line(report, "table: ") == f"table: {dataset / 'HAM10000_metadata.csv'}"
    assert line(report, "images: ") == f"images: {dataset / 'images'} (105)"
    assert line(report, "masks: ") == f"masks: {dataset / 'masks'} (105)"
    assert line(report, "images  ") == "images 105 10,015 differs"
    assert line(report, "mel ") == "mel melanoma 15 1,113 differs"
    assert line(report, "lesions with several images").endswith("35 1,956 differs")
    assert line(report, "split by image") == "split by image: 90 train, 15 val+test"
    for head in ("same pixels", "lesions with several d", "images that", "images without"):
        assert line(report, head).endswith(" 0")


def test_oddities_are_reported_and_stop_nothing(dataset, capsys):
    table = pd.read_csv(dataset / "HAM10000_metadata.csv", dtype=str)
    table.loc[table["image_id"] == "ISIC_9000003", "dx"] = "mel"  # its lesion has another image
    table.to_csv(dataset / "HAM10000_metadata.csv", index=False)
    images = dataset / "images"
    shutil.copy(images / "ISIC_9000001.jpg", images / "ISIC_9000105.jpg")
    shutil.copy(images / "ISIC_9000001.jpg", images / "ISIC_9999999.jpg")
    (dataset / "masks" / "ISIC_9000007_segmentation.png").unlink()
    shutil.copy(images / "ISIC_9000001.jpg", dataset / "masks" / "ISIC_9000008_segmentation.jpg")
    (dataset / "masks" / "ISIC_9000008_segmentation.png").unlink()
    assert main(["data", "check", str(dataset)]) == 0
    report = capsys.readouterr().out
    assert line(report, "same pixels").endswith("1 ISIC_9000001 = ISIC_9000105")
    assert line(report, "of these").endswith("1 ISIC_9000001 = ISIC_9000105")
    assert "1 HAM_9000001" in line(report, "lesions with several diagnoses")
    assert line(report, "images that").endswith("1 ISIC_9999999")
    assert line(report, "images without").endswith("1 ISIC_9000007")
    assert line(report, "masks that").endswith("1 ISIC_9000008")


def test_everything_that_would_stop_a_run_is_named_at_once(dataset, capsys):
    images = dataset / "images"
    (images / "ISIC_9000001.jpg").unlink()
    for number in (2, 3):
        path = images / f"ISIC_900000{number}.jpg"
        path.write_bytes(path.read_bytes()[:-200])
    (dataset / "masks" / "ISIC_9000009_segmentation.png").write_bytes(b"")
    mask = (dataset / "masks" / "ISIC_9000004_segmentation.png").read_bytes()
    (images / "ISIC_9000004.jpg").write_bytes(mask)
    assert main(["data", "check", "--data-dir", str(dataset)]) == 2
    out, error = capsys.readouterr()
    assert "105 images" in out and error.count("\n") == 1
    assert "1 of the 105 images" in error and ": ISIC_9000001" in error
    assert "1 images are masks, of two values of grey: ISIC_9000004" in error
    assert "2 images cannot be read" in error and "ISIC_9000003.jpg" in error
    assert "1 masks cannot be read" in error and "ISIC_9000009" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t.head(2)]), "more than once: ISIC_9000001, ISIC_9000002"),
        (lambda t: t.drop(columns="lesion_id"), "missing column lesion_id"),
        (lambda t: t.assign(dx="melanom"), "unknown diagnosis melanom"),
        (lambda t: t.drop_duplicates("dx"), "too few to split"),
    ],
)
def test_a_table_that_cannot_be_used(dataset, capsys, change, message):
    change(pd.read_csv(dataset / "HAM10000_metadata.csv", dtype=str)).to_csv(
        dataset / "HAM10000_metadata.csv", index=False)
    assert main(["data", "check", str(dataset)]) == 2
    out, error = capsys.readouterr()
    assert message in error and " masks" in out and error.count("\n") == 1


def test_names_that_standard_output_cannot_show_are_escaped(dataset, capsysbinary):
    (dataset / "images" / os.fsdecode(b"Gr\xfcn.jpg")).write_bytes(b"not UTF-8")
    assert main(["data", "check", str(dataset)]) == 0
    assert line(capsysbinary.readouterr().out.decode(), "images that").endswith("1 Gr\\udcfcn")


def test_only_ham10000_is_compared_with_the_published_numbers(
    sample_dir, tmp_path, capsys
):
    report, problems = validate_dataset(sample_dir)
    assert not problems and report.startswith("generated sample: 866 images of 586 lesions")
    assert "published" not in report
    np.savez(tmp_path / "dermamnist.npz", test_images=np.zeros((2, 28, 28, 3), np.uint8),
             test_labels=np.array([4, 5]))  # fmt: skip
    report, problems = validate_dataset(tmp_path)
    assert not problems and "DermaMNIST: 2 images" in report and "split by" not in report
    assert "made of the images of HAM10000" not in report
    (tmp_path / "dermamnist.npz").rename(tmp_path / "ISIC_1.npz")
    truth = "image,NV,SCC\nISIC_1,1,0\nISIC_2,0,1\n"
    (tmp_path / "ISIC_2019_Training_GroundTruth.csv").write_text(truth)
    report, problems = validate_dataset(tmp_path)
    assert "left out of the table: 1 of diagnosis scc" in report
    assert "1 of the 1 images" in problems[0]


def test_the_published_numbers_agree_with_the_files_that_are_downloaded():
    assert sum(PUBLISHED[code] for code in CLASS_NAMES) == PUBLISHED["images"]
    for part in ("images", "masks"):
        files = [file for file in FILES if (file.dataset, file.part) == ("ham10000", part)]
        assert sum(file.pictures for file in files) == PUBLISHED[part]


def test_the_real_table_is_as_published(real_table, tmp_path):
    report, _ = validate_dataset(metadata=real_table, img_dir=tmp_path)
    counts = [text for text in report.splitlines() if "masks " not in text]
    assert not [text for text in counts if text.endswith("differs")]
    assert line(report, "lesions known").endswith(f" {len(SAME_LESION)}")
