"""The command `melanoma predict`: what it prints, writes and keeps."""

import csv
import io
import json
import os
import threading

import pytest
from helpers import KEYS
from PIL import Image

from melanoma_lib.cli import main
from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.inference import predictor, wording


@pytest.fixture
def files(sample_dir, tmp_path):
    """Three images, the last one bad."""
    (tmp_path / "bad.jpg").write_text("no image")
    return [*sorted((sample_dir / "images").iterdir())[:2], tmp_path / "bad.jpg"]


@pytest.fixture
def command(sample_run, files, capsys):
    """Runs `melanoma predict`, by default on the three images; returns code, stdout and stderr."""

    def run(*options, images=files, bundle=KEYS[0]):
        arguments = ["predict", *images, "--bundle", sample_run / bundle, *options]
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def one_by_one(monkeypatch):
    """Sets what happens before the second image is read; each image is a batch."""

    def interfere(action):
        read, number = predictor.read_image, iter(range(10))

        def read_image(path, size):
            if next(number) == 1:
                action()
            return read(path, size)

        monkeypatch.setattr(predictor, "BATCH_SIZE", 1)
        monkeypatch.setattr(predictor, "read_image", read_image)

    return interfere


def rows_of(table):
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_an_image_and_the_exit_code_tells_of_bad_ones(command):
    code, out, err = command()
    lines = out.splitlines()
    assert lines[0] == wording.DISCLAIMER and lines[1] == wording.GENERATED
    assert "specificity_95" in lines[2] and "sensitivity" in lines[2] and len(lines) == 5
    assert code == 1 and "bad.jpg: not a readable image" in err and err.count("\n") == 1
    assert command(images=[lines[3].partition(":")[0]])[0] == 0


def test_json_for_programs_and_a_table(command, tmp_path):
    table = tmp_path / "out.csv"
    _, out, _ = command("--json", "--csv", table, "--operating-point", "sensitivity_95")
    document = json.loads(out)
    assert document["notice"] == wording.DISCLAIMER
    assert document["operating_point"]["name"] == "sensitivity_95"
    assert document["operating_point"]["test"]["sensitivity"]["low"] is not None
    first, *_, bad = document["images"]
    assert sum(first["probabilities"].values()) == pytest.approx(1) and "error" in bad
    rows = rows_of(table)
    assert rows[0]["predicted"] == first["predicted"]
    assert float(rows[0]["p_mel"]) == first["probabilities"][MELANOMA]
    assert "bad.jpg" in rows[2]["error"] and not rows[2]["predicted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bundle": "nowhere"}, "melanoma run --preset sample"),
        ({"images": ["{empty}"]}, "holds no images"),
        ({"options": ["--operating-point", "best"]}, "has no operating point 'best'"),
        ({"options": ["--csv", "{empty}"]}, "cannot be written"),
        ({"options": ["--overlay-dir", "{file}"]}, "File exists"),
    ],
)
def test_bad_input_is_one_line_before_any_image_is_read(
    command, tmp_path, one_by_one, options, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    one_by_one(lambda: pytest.fail("an image was read"))
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file"}
    given = {
        name: value if name == "bundle" else [text.format(**places) for text in value]
        for name, value in options.items()
    }
    code, out, err = command(*given.pop("options", []), **given)
    assert code == 2 and message in err and err.count("\n") == 1 and "positive" not in out


def test_of_a_run_the_best_model_is_named_beside_the_json(command):
    code, out, err = command("--json", bundle=".")
    assert code == 1 and json.loads(out)["model"]
    assert json.loads(out)["bundle"] in err and err.count("\n") == 2  # and the bad image


def test_an_interrupt_keeps_what_is_done_and_says_so(command, one_by_one, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    one_by_one(interrupt)
    table = tmp_path / "out.csv"
    code, out, err = command("--csv", table)
    assert code == 130 and "1 of 3 images" in err and str(table) in err
    assert "goes on from here" not in err
    assert out.count("positive for melanoma") + out.count("negative for melanoma") == 1
    assert len(rows_of(table)) == 1


def test_a_row_is_written_through_a_pipe_before_the_next_image_is_read(
    command, one_by_one, tmp_path
):
    pipe, lines, arrived = tmp_path / "pipe", [], threading.Event()
    os.mkfifo(pipe)

    def read():
        with pipe.open() as file:
            for line in file:
                lines.append(line)
                if len(lines) == 2:  # the names of the columns, and the first image
                    arrived.set()

    reader = threading.Thread(target=read)
    reader.start()
    in_time = []
    one_by_one(lambda: in_time.append(arrived.wait(10)))
    code, *_ = command("--csv", pipe)
    reader.join()
    assert in_time == [True] and code == 1 and len(lines) == 4 and pipe.is_fifo()


def test_a_reader_that_has_seen_enough_ends_the_command(sample_run, files, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    table = tmp_path / "out.csv"
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        arguments = ["predict", *files, "--bundle", sample_run / KEYS[0], "--csv", table]
        assert main(list(map(str, arguments))) == 141
    assert table.exists()


@pytest.mark.parametrize("name", [b"\xe9.jpg", "\N{LATIN SMALL LETTER E WITH ACUTE}.jpg".encode()])
def test_names_that_cannot_be_shown_are_escaped(
    sample_run, files, tmp_path, monkeypatch, name
):  # fmt: skip
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(files[0].read_bytes())
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    table = tmp_path / "out.csv"
    for options in (["--csv", str(table), "--overlay-dir", str(tmp_path)], ["--json"]):
        assert main(["predict", str(path), "--bundle", str(sample_run / KEYS[0]), *options]) == 0
    stdout.flush()
    lines = stdout.buffer.getvalue().decode("ascii").splitlines()
    assert "e9.jpg" in lines[3]
    document = json.loads("".join(lines[4:]))
    assert document["images"][0]["image"] == str(path)
    assert rows_of(table)[0]["image"] in (str(path), f"{tmp_path}/\\udce9.jpg")


def test_a_name_with_a_line_break_is_one_line(command, files, tmp_path):
    paths = [tmp_path / f"{kind}\n\x1b[2J.jpg" for kind in ("good", "bad", "absent")]
    for path, content in zip(paths, (files[0], files[2]), strict=False):
        path.write_bytes(content.read_bytes())
    code, out, err = command("--overlay-dir", tmp_path / "heat", images=paths)
    assert code == 1 and out.count(r"good\n\x1b[2J") == 2 and len(out.splitlines()) == 4
    errors = [line.partition(".jpg")[0].rpartition("/")[2] for line in err.splitlines()]
    assert errors == [r"bad\n\x1b[2J", r"absent\n\x1b[2J"]


def test_a_dash_is_a_picture_from_standard_input(command, files, monkeypatch):
    reader, writer = os.pipe()
    usual = os.dup(0)
    os.dup2(reader, 0)
    try:
        with os.fdopen(writer, "wb") as file:
            file.write(files[0].read_bytes())
        code, out, _ = command("--json", images=["-"])
    finally:
        os.dup2(usual, 0)
    (row,) = json.loads(out)["images"]
    _, expected, _ = command("--json", images=files[:1])
    assert code == 0
    assert row["probabilities"] == json.loads(expected)["images"][0]["probabilities"]


def test_every_picture_of_a_folder_is_read_or_named(command, files, tmp_path):
    folder = tmp_path / "folder"
    good, bad, pipe = (folder / name for name in ("good.bmp", "bad.heic", "pipe.jpg"))
    folder.mkdir()
    Image.open(files[0]).save(good)
    bad.write_bytes(b"\0\0\0\x18ftypheic")
    os.mkfifo(pipe)
    code, out, err = command("--json", images=[folder])
    _, unread, read = json.loads(out)["images"]
    assert code == 1 and read["image"] == str(good) and "error" not in read
    assert unread["image"] == str(bad) and str(bad) in unread["error"]
    assert f"{pipe} is a pipe" in err and err.count("\n") == 2
