import errno
import os
import subprocess
import sys
import threading

import pytest
from helpers import refuse

from melanoma_lib.core import errors, locks
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.locks import lock, locked

IMPORTS = "import sys, time; from pathlib import Path; from melanoma_lib.core.locks import *\n"
POLL = "print('looks', flush=True)\nwhile True:\n    locked(Path(sys.argv[1]))"
HOLD = "with lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"


@pytest.fixture
def start(tmp_path):
    """Starts a process that does something with the lock file, and waits until it does."""
    processes = []

    def start_one(code):
        command = [sys.executable, "-c", IMPORTS + code, tmp_path / ".lock"]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        processes[-1].stdout.readline()
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.wait()


def test_who_looks_at_a_lock_keeps_nobody_from_it(tmp_path, start):
    """As `watch melanoma status` does beside a run; and who looks does not take others for it."""
    path = tmp_path / ".lock"
    path.touch()
    for _ in range(2):
        start(POLL)
    seen = set()
    for _ in range(1000):
        seen.add(locked(path))
        with lock(path):
            assert locked(path)
    assert seen == {False}


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, start):
    path, holder = tmp_path / ".lock", start(HOLD)
    assert locked(path)
    with pytest.raises(MelanomaError, match=f"in use by process {holder.pid} on"):
        lock(path).__enter__()
    holder.kill()
    holder.wait()
    assert not locked(path)
    with lock(path):
        pass


def test_a_lock_that_is_held_is_refused_or_waited_for(tmp_path, capsys):
    path = tmp_path / ".lock"
    with lock(path), pytest.raises(MelanomaError, match=f"in use by process {os.getpid()} on"):
        lock(path).__enter__()
    held = lock(path)
    held.__enter__()
    threading.Timer(0.2, lambda: held.__exit__(None, None, None)).start()
    with lock(path, waiting="waiting for it"):
        assert capsys.readouterr().out == "waiting for it\n"


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EPERM])
def test_where_there_are_no_locks_nothing_is_locked_and_one_line_says_so(
    tmp_path, monkeypatch, capsys, number
):
    errors._print_once.cache_clear()
    monkeypatch.setattr(locks.fcntl, "flock", refuse(number))
    for _ in range(2):
        with lock(tmp_path / ".lock"):
            assert not locked(tmp_path / ".lock")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK])
def test_what_means_locked_is_locked(tmp_path, monkeypatch, number):
    (tmp_path / ".lock").touch()
    monkeypatch.setattr(locks.fcntl, "flock", refuse(number))
    assert locked(tmp_path / ".lock")
    with pytest.raises(MelanomaError, match="in use by another process"):
        lock(tmp_path / ".lock").__enter__()


def test_a_failing_disk_is_neither(tmp_path, monkeypatch):
    monkeypatch.setattr(locks.fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        lock(tmp_path / ".lock").__enter__()
