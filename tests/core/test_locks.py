import os
import subprocess
import sys
import threading

import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.locks import lock, locked

POLL = (
    "import sys; from pathlib import Path; from melanoma_lib.core.locks import locked\n"
    "print('looks', flush=True)\nwhile True:\n    locked(Path(sys.argv[1]))"
)


def test_who_looks_at_a_lock_keeps_nobody_from_it(tmp_path):
    """As `watch melanoma status` does beside a run; and who looks does not take others for it."""
    path = tmp_path / ".lock"
    path.touch()
    pollers = [
        subprocess.Popen([sys.executable, "-c", POLL, path], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for poller in pollers:
            poller.stdout.readline()
        seen = set()
        for _ in range(1000):
            seen.add(locked(path))
            with lock(path):
                assert locked(path)
        assert seen == {False}
    finally:
        for poller in pollers:
            poller.kill()
            poller.wait()


def test_a_lock_that_is_held_is_refused_or_waited_for(tmp_path, capsys):
    path = tmp_path / ".lock"
    with lock(path), pytest.raises(MelanomaError, match=f"in use by process {os.getpid()} on"):
        lock(path).__enter__()
    held = lock(path)
    held.__enter__()
    threading.Timer(0.2, lambda: held.__exit__(None, None, None)).start()
    with lock(path, waiting="waiting for it"):
        assert capsys.readouterr().out == "waiting for it\n"
