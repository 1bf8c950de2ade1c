import json
import os
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
    message = r"cannot be written \(.*File too large.*\); .* MB are free there"
    with pytest.raises(MelanomaError, match=message):
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


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "links").mkdir()
    for target in (tmp_path / "there.txt", tmp_path / "new" / "file.txt"):
        link = tmp_path / "links" / target.name
        link.symlink_to(target)
        write_text(link, "old")
        kept = target.with_name("hard link")
        kept.hardlink_to(target)
        write_text(link, "new")
        assert link.is_symlink() and target.read_text() == "new" and kept.read_text() == "old"
    assert len(list((tmp_path / "links").iterdir())) == 2


def test_a_pipe_is_written_through_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_csv(pipe, [{"image": "\udce9.jpg"}])
    assert os.read(reader, 100) == b"image\n\\udce9.jpg\n"
    os.close(reader)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_what_standard_output_goes_to_is_appended_to(tmp_path):
    path, usual = tmp_path / "out", os.dup(1)
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
    try:
        os.write(1, b"before\n")
        write_text(path, "text\n")
        os.write(1, b"after\n")
    finally:
        os.dup2(usual, 1)
        os.close(usual)
    assert path.read_text() == "before\ntext\nafter\n"


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MelanomaError, match="it is a folder"), atomic_path(tmp_path):
        pytest.fail("the block was entered")


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    assert write_text(tmp_path / ("\N{GREEK SMALL LETTER OMEGA}" * 127), "x").read_text() == "x"


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    editors = ".ipynb_checkpoints"  # which JupyterLab leaves beside a file it has saved
    for name in ("folder", editors):
        (tmp_path / name).mkdir()
    for name in (".checkpoint-0001-ab12.pt", "history.csv", "folder/.deeper-1"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [editors, "folder", "history.csv"]
    remove_temporary_files(tmp_path / "absent")


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


def test_json_comes_back_or_what_is_wrong_is_one_line(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert read_json(path, {}) == {}
    with pytest.raises(MelanomaError, match=r"a\.json does not exist"):
        read_json(path)
    assert read_json(write_json(path, {"x": 1})) == json.loads('{"x": 1}')
    path.write_text('{"x": ')
    with pytest.raises(MelanomaError, match=r"a\.json cannot be read[^\n]+$"):
        read_json(path, {})


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
