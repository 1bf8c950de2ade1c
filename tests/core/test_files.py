import json
import resource
import stat

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import (
    atomic_path,
    checksum_holds,
    digest,
    read_history,
    read_json,
    remove_temporary_files,
    write_csv,
    write_json,
    write_text,
)
from melanoma_lib.reporting import figures
from melanoma_lib.training.checkpoint import save_checkpoint, save_results


def test_a_failing_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.fixture
def small_files():
    """No file may grow beyond 100 kB: like a disk that fills up half-way through a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


BIG = {"weights": torch.zeros(100_000)}
WRITERS = {
    "text": lambda path: write_text(path, "x" * 200_000),
    "results": lambda path: write_json(path, ["x" * 200_000]),
    "table": lambda path: write_csv(path, [{"a": "x" * 200_000}]),
    "checkpoint": lambda path: save_checkpoint(path.parent, BIG | {"epoch": 2}),
    "weights": lambda path: save_results(path.parent, [{"best": True}], BIG),
    "figure": lambda path: figures.save(noise(), "01-3-examples", path.parent),
}


def noise():
    figure = plt.figure(layout="constrained")
    figure.add_subplot().imshow(np.random.default_rng(0).random((500, 500)))
    return figure


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_and_loses_nothing(kind, tmp_path, request):
    """What torch, safetensors, matplotlib and Python raise is one line, and the old file stays."""
    names = {"checkpoint": "old", "weights": "model.safetensors", "figure": "01-3-examples.png"}
    path = tmp_path / names.get(kind, "file")
    path.write_text("old")
    request.getfixturevalue("small_files")
    with pytest.raises(MelanomaError, match=r"cannot be written .* MB are free there"):
        WRITERS[kind](path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_reason_is_the_first_line_that_says_something(tmp_path):
    refused = pytest.raises(MelanomaError, match=r"\(no space\)")
    with refused, atomic_path(tmp_path / "weights"):
        raise OSError("\n            no space\nmore")
    assert not list(tmp_path.iterdir())


def test_an_error_that_is_not_of_writing_comes_through_as_itself(tmp_path):
    path = write_text(tmp_path / "weights", "old")
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), atomic_path(path):
        raise RuntimeError("shapes do not fit")
    unsaveable = {"epoch": 1, "model": (number for number in range(3))}
    with pytest.raises(TypeError, match="cannot pickle 'generator'"):
        save_checkpoint(tmp_path, unsaveable)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_names_what_the_system_said(tmp_path, small_files):
    """And not the error that torch raises in its place."""
    with pytest.raises(MelanomaError, match="File too large"):
        save_checkpoint(tmp_path, BIG | {"epoch": 2})


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    editors = ".ipynb_checkpoints"  # which JupyterLab leaves beside a file it has saved
    for name in ("folder", editors):
        (tmp_path / name).mkdir()
    for name in (".checkpoint-0001-ab12.pt", "history.csv", "folder/.deeper-1"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [editors, "folder", "history.csv"]
    remove_temporary_files(tmp_path / "absent")


def test_a_missing_file_may_have_a_default(tmp_path):
    path = tmp_path / "run.json"
    assert read_json(path, {}) == {}
    with pytest.raises(MelanomaError, match="does not exist"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(MelanomaError, match="cannot be read"):
        read_json(path, {})


def test_written_files_have_ordinary_permissions(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    written = write_text(tmp_path / "written", "x")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_checksum_in_the_name_notices_a_flipped_bit(tmp_path):
    with atomic_path(tmp_path / "a.bin", checksum=True) as temporary:
        temporary.write_bytes(b"content")
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("a-") and path.suffix == ".bin"
    assert checksum_holds(path)
    path.write_bytes(b"contens")
    assert not checksum_holds(path)


def test_json_refuses_nan_and_reports_bad_files_in_one_line(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == json.loads('{"x": 1}')
    (tmp_path / "b.json").write_text('{"x": ')
    for name in ("b.json", "absent.json"):
        with pytest.raises(MelanomaError) as error:
            read_json(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_history_comes_back_as_it_was_written(tmp_path):
    assert read_history(tmp_path) == []
    write_csv(tmp_path / "history.csv", [{"epoch": 1, "val_loss": 0.5}])
    assert read_history(tmp_path) == [{"epoch": "1", "val_loss": "0.5"}]


def test_a_summary_names_ten_items_and_counts_all():
    text = summarize_items([f"x{i}" for i in range(12)])
    assert "x9" in text and "x10" not in text and "12 in all" in text
    assert summarize_items(["a", "b"]) == "a, b"


def test_digest_ignores_key_order_but_not_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
