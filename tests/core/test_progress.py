import json
import os
import time

import pytest

from melanoma_lib.core import progress as module
from melanoma_lib.core.environment import environment_variables
from melanoma_lib.core.progress import PROGRESS_FILE, progress, write_progress


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "steps" / "a.progress"))
    return tmp_path / "steps" / "a.progress"


def test_a_loop_that_is_watched_writes_where_it_is(path, monkeypatch):
    """At its beginning, then about once a second, and at its end."""
    monkeypatch.setattr(module, "PAUSE", 0.0)
    losses, seen = [], []
    for item in progress([5, 6, 7], "epoch 2", losses=losses):
        record = json.loads(path.read_text())
        seen.append((record["done"], record.get("loss")))
        time.sleep(0.03)
        losses.append(float(item))
    assert seen[0] == (0, None) and seen[-1] in ((2, 5.5), (1, 5.0), (0, None))
    record = json.loads(path.read_text())
    assert (record["label"], record["done"], record["total"]) == ("epoch 2", 3, 3)
    assert record["loss"] == 6.0 and 0.09 <= record["seconds"] < 5
    assert record["device"] == "CPU" and 0 < record["used"] < record["memory"]
    assert list(path.parent.iterdir()) == [path]


def test_what_is_not_due_is_not_written(path):
    assert list(progress(iter("ab"), "x", total=2)) == ["a", "b"]
    for item in progress("abc", "x"):
        assert json.loads(path.read_text())["done"] == 0, item  # less than a second has passed


def test_a_progress_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "file" / "a.progress"))
    assert list(progress(range(3), "x")) == [0, 1, 2]


def test_of_several_processes_the_first_writes(path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert list(progress(range(3), "x")) == [0, 1, 2] and not path.exists()


def test_who_reads_while_another_writes_reads_a_whole_file(tmp_path):
    for number in range(50):
        write_progress(tmp_path / "p", {"n": number})
        assert json.loads((tmp_path / "p").read_text()) == {"n": number}


def test_variables_are_set_inside_the_block_only(monkeypatch):
    monkeypatch.setenv("ONE", "before")
    with environment_variables(ONE="1", TWO="2"):
        assert (os.environ["ONE"], os.environ["TWO"]) == ("1", "2")
    assert os.environ["ONE"] == "before" and "TWO" not in os.environ
