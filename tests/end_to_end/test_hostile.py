"""Hostile input: each case ends in the right result or in one line that names what is wrong."""

import io
import pickle
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import write_bundle
from PIL import Image
from safetensors.torch import save_file

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import read_image
from melanoma_lib.evaluation.trained_run import load_trained_run
from melanoma_lib.models.build import build_model
from melanoma_lib.models.bundle import SCHEMA, load_bundle

KEY = "test_resnet"


@pytest.fixture(autouse=True)
def _within_seconds():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 10


@contextmanager
def one_line(says=""):
    """The block raises an error of one line that says this."""
    with pytest.raises(MelanomaError, match=says) as error:
        yield
    assert "\n" not in str(error.value) and len(str(error.value)) < 2000


# -- the table ---------------------------------------------------------------------------------


def set_cell(column, value, row=0):
    return lambda table: table.assign(**{column: [value, *table[column][1:]]})


def text(change, encoding="utf-8", **options):
    """Writes the table after a change, in some dialect."""
    return lambda path, table: path.write_text(
        change(table).to_csv(index=False, **options), encoding=encoding
    )


def raw(function):
    return lambda path, _: path.write_bytes(function(path.read_bytes()))


def unchanged(table):
    return table


GOOD_TABLES = {
    "semicolons": text(unchanged, sep=";"),
    "semicolons, and a name with a tab": text(lambda t: t.assign(**{"a\tb": "x"}), sep=";"),
    "blanks around names and values": text(
        lambda t: (" " + t + " ").rename(columns="  {} ".format)
    ),
    "a comma after every row": raw(lambda b: b.replace(b"back\n", b"back,\n")),
    "Windows line ends": text(unchanged, lineterminator="\r\n"),
    "quoted cells": text(unchanged, quoting=1),
    "further columns with odd names": text(lambda t: t.assign(**{"a b,c": "x"})),
    "columns in another order": text(lambda t: t[t.columns[::-1]]),
    "an age that is empty": text(set_cell("age", "")),
    "an age that is unknown": text(set_cell("age", "unknown")),
    "letters of other languages": text(set_cell("localization", "Rücken, 背中")),
    "a lesion with two diagnoses": text(
        lambda t: t.assign(lesion_id=[t["lesion_id"][40], *t["lesion_id"][1:]])
    ),
}
BAD_TABLES = {
    "no dx": (text(lambda t: t.drop(columns="dx")), "missing column dx"),
    "no lesion_id": (text(lambda t: t.drop(columns="lesion_id")), "missing column lesion_id"),
    "no column at all known": (text(lambda t: t.set_axis(list("abcdefg"), axis=1)), "missing col"),
    "no rows": (text(lambda t: t[:0]), "no rows"),
    "nothing at all": (raw(lambda _: b""), "cannot be read"),
    "an unknown diagnosis": (text(set_cell("dx", "melanoma")), "unknown diagnosis melanoma"),
    "a diagnosis in capitals": (text(set_cell("dx", "MEL")), "unknown diagnosis MEL"),
    "no diagnosis": (text(set_cell("dx", "")), r"unknown diagnosis \(empty\)"),
    "a repeated image": (
        text(lambda t: pd.concat([t, t[:1]])), "image_id listed more than once: ISIC_9000001"
    ),
    "an image id with a path": (text(set_cell("image_id", "../../etc/passwd")), "unsafe image_id"),
    "an absolute image id": (text(set_cell("image_id", "/etc/passwd")), "unsafe image_id"),
    "an image id with a line break": (text(set_cell("image_id", "a\nb")), "unsafe image_id"),
    "an image id with a NUL": (raw(lambda b: b.replace(b"ISIC_9000001", b"a\0b")), "unsafe|read"),
    "an empty image id": (text(set_cell("image_id", "")), r"unsafe image_id: \(empty\)"),
    "an empty lesion id": (text(set_cell("lesion_id", "")), r"unsafe lesion_id: \(empty\)"),
    "a lesion id with a path": (text(set_cell("lesion_id", "a/b")), "unsafe lesion_id"),
    "an age in words": (text(set_cell("age", "fifty")), "age is not a number: fifty"),
    "UTF-16": (text(unchanged, "utf-16"), "cannot be read"),
    "Latin-1 letters": (text(set_cell("localization", "Rücken"), "latin-1"), "cannot be read"),
    "a picture": (raw(lambda _: b"\xff\xd8\xff\xe0" + bytes(range(256))), "cannot be read"),
    "a ZIP archive": (raw(lambda b: zipped(b)), "cannot be read|missing column"),
    "a quote that never ends": (raw(lambda b: b.replace(b"ISIC_9000002", b'"ISIC', 1)), "read|abs"),
    "rows of unequal length": (raw(lambda b: b + b"a,b,c,d,e,f,g,h,i,j\n"), "cannot be read"),
    "HTML": (raw(lambda _: b"<!DOCTYPE html><p>403</p>"), "missing column"),
}


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("HAM10000_metadata.csv", content)
    return buffer.getvalue()


def write(dataset, function):
    path = dataset / "HAM10000_metadata.csv"
    function(path, pd.read_csv(path, dtype=str, keep_default_na=False))


@pytest.mark.parametrize("case", GOOD_TABLES)
def test_a_table_that_is_odd_but_right_is_read(dataset, case):
    write(dataset, GOOD_TABLES[case])
    files = open_dataset(dataset)
    assert len(files.metadata) == 105 and set(files.metadata["dx"]) == set(CLASS_NAMES)


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_is_wrong_is_named(dataset, case):
    function, message = BAD_TABLES[case]
    write(dataset, function)
    with one_line(message):
        open_dataset(dataset)


def test_a_folder_that_links_to_itself_is_walked_once(dataset):
    (dataset / "images" / "again").symlink_to(dataset)
    assert len(open_dataset(dataset).images) == 105


def test_a_link_to_nowhere_is_an_image_that_cannot_be_read(dataset):
    image = next((dataset / "images").glob("*.jpg"))
    image.unlink()
    image.symlink_to(dataset / "nowhere.jpg")
    with one_line(image.stem):
        open_dataset(dataset)


# -- images ------------------------------------------------------------------------------------


def picture(width=40, height=30):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


GOOD_IMAGES = {
    "a PNG named .jpg": lambda path: picture().save(path, "PNG"),
    "a progressive JPEG": lambda path: picture().save(path, "JPEG", progressive=True),
    "one pixel": lambda path: picture(1, 1).save(path, "PNG"),
    "a very long strip": lambda path: picture(5000, 1).save(path, "PNG"),
}
BAD_IMAGES = {
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not an image"),
    "HTML": lambda path: path.write_text("<html>404</html>"),
    "a JPEG that ends early": lambda path: cut(path, "JPEG"),
    "a PNG that ends early": lambda path: cut(path, "PNG"),
    "a header alone": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF"),
    "20,000 x 20,000 pixels": lambda path: Image.new("1", (20_000, 20_000)).save(path, "PNG"),
    "a folder": lambda path: path.mkdir(),
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
}


def cut(path, kind):
    picture(200, 150).save(path, kind)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize("case", GOOD_IMAGES)
def test_an_image_that_is_odd_but_whole_is_read(tmp_path, case):
    GOOD_IMAGES[case](tmp_path / "a.jpg")
    pixels = read_image(tmp_path / "a.jpg", 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_that_is_not_whole_is_named(tmp_path, case):
    BAD_IMAGES[case](tmp_path / "a.jpg")
    with one_line(r"a\.jpg"):
        read_image(tmp_path / "a.jpg", 16)


# -- weights -----------------------------------------------------------------------------------


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def state_of(key):
    state = build_model(key, 1000, 64).state_dict()
    return {name: value.contiguous() for name, value in state.items()}


BAD_WEIGHTS = {
    "a pickle with code in it": lambda path: torch.save({"a": Evil(path.parent / "evil")}, path),
    "a bare pickle with code": lambda path: path.write_bytes(
        pickle.dumps(Evil(path.parent / "evil"))
    ),
    "text": lambda path: path.write_text("weights"),
    "nothing": lambda path: path.write_bytes(b""),
    "no tensor that fits": lambda path: save_file({"a": torch.zeros(3)}, path),
    "another architecture's": lambda path: save_file(state_of("test_vit"), path),
    "wrong shapes": lambda path: save_file(
        {name: torch.zeros(2, *value.shape) for name, value in state_of(KEY).items()}, path
    ),
    "a file that ends early": lambda path: (
        save_file(state_of(KEY), path), path.write_bytes(path.read_bytes()[:-1000])
    ),
    "a header that lies": lambda path: path.write_bytes(b"\xff" * 8 + b"{}"),
}


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_named_and_run_nothing(tmp_path, case, suffix):
    path = tmp_path / f"weights.{suffix}"
    BAD_WEIGHTS[case](path)
    with one_line(r"weights\..* does not fit test_resnet"):
        build_model(KEY, 7, 64, weights=str(path))
    assert not (tmp_path / "evil").exists()


# -- bundles, predictions, records --------------------------------------------------------------


def metadata(**changes):
    return lambda folder: write_json(
        folder / "bundle.json", read_json(folder / "bundle.json") | changes
    )


BAD_BUNDLES = {
    "an older schema": metadata(schema=0),
    "a newer schema": metadata(schema=99),
    "other weights": lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no metadata": lambda folder: (folder / "bundle.json").unlink(),
    "metadata that is no JSON": lambda folder: (folder / "bundle.json").write_text("{"),
    "metadata that is a list": lambda folder: (folder / "bundle.json").write_text("[]"),
    "metadata that is missing": lambda folder: write_json(
        folder / "bundle.json", {"schema": SCHEMA}
    ),
    "another architecture": metadata(architecture="test_vit"),
    "an architecture that does not exist": metadata(architecture="resnet9000"),
    "classes in another order": metadata(class_names=CLASS_NAMES[::-1]),
    "fewer classes": metadata(class_names=CLASS_NAMES[:5]),
    "a temperature of zero": metadata(temperature=0),
    "an image size in words": metadata(image_size="large"),
}
SAYS = {
    "an older schema": "another version",
    "a newer schema": "another version",
    "other weights": r"not the file of its bundle\.json",
    "no metadata": "does not exist",
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_a_bundle_that_is_wrong_is_named(tmp_path, case):
    write_bundle(tmp_path, KEY)
    BAD_BUNDLES[case](tmp_path)
    with one_line(SAYS.get(case, "")):
        load_bundle(tmp_path)


def parquet(change):
    def rewrite(folder):
        path = folder / "model_0" / "predictions.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return rewrite


BAD_RUNS = {
    "predictions that are text": lambda run: (
        (run / "model_0" / "predictions.parquet").write_text("x")
    ),
    "predictions without logits": parquet(lambda t: t[["image_id", "lesion_id", "part", "label"]]),
    "predictions with a class missing": parquet(lambda t: t.drop(columns="logit_mel")),
    "logits in another order": parquet(lambda t: t[[*t.columns[:4], *t.columns[:3:-1]]]),
    "a logit that is not finite": parquet(lambda t: t.assign(logit_mel=float("nan"))),
    "a label nobody knows": parquet(lambda t: t.assign(label="cancer")),
    "no images": parquet(lambda t: t[:0]),
    "a record that is a list": lambda run: (run / "model_0" / "run.json").write_text("[]"),
    "a record that is no JSON": lambda run: (run / "model_0" / "run.json").write_text("{,"),
    "a record of nothing": lambda run: write_json(run / "model_0" / "run.json", {}),
    "a record without numbers": lambda run: write_json(
        run / "model_0" / "run.json", {"finished": True}
    ),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_run_that_was_edited_is_named(trained, case):
    folder, *_ = trained
    BAD_RUNS[case](folder)
    with one_line():
        load_trained_run(folder / "model_0")
