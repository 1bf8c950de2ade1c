import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline import processes

forked = pytest.mark.skipif(not processes.FORKING, reason="processes are forked on Linux only")
ANSWER = (
    "import os, sys\n"
    "from melanoma_lib.pipeline import processes\n"
    "from test_processes import of_here\n"
    "print(processes.FORKING, *processes.call(of_here, 3)[1:])"
)


def of_here(number):
    """Whose process called it, whether torch is imported there, and the number."""
    if number < 0:
        raise FileNotFoundError(f"{number}")
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), "torch" in sys.modules, number


def python(code, *folders, **environment):
    """A process that can import what lies here."""
    path = os.pathsep.join([*map(str, folders), str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@forked
def test_a_function_is_called_elsewhere_and_its_error_comes_back():
    process, imported, number = processes.call(of_here, 3)
    assert process != os.getpid() and imported and number == 3
    with pytest.raises(FileNotFoundError, match="-1"):
        processes.call(of_here, -1)
    with pytest.raises(MelanomaError, match="its process died"):
        processes.call(of_here, 0)


def send_environment(send, name):
    send(os.environ.get(name))
    return name


def test_a_process_has_the_environment_of_now_and_what_is_added(monkeypatch):
    processes.call(of_here, 1)  # what forks are made from is there before the change
    monkeypatch.setenv("OF_NOW", "yes")
    for name, added in (("OF_NOW", {}), ("ADDED", {"ADDED": "yes"})):
        process, messages = processes.start(send_environment, name, **added)
        assert [processes.receive(messages), processes.receive(messages)] == ["yes", name]
        processes.stop(process)
    assert "ADDED" not in os.environ


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")
def test_nothing_that_is_imported_asks_for_a_gpu():
    """A process that has asked CUDA even for the number of GPUs leaves its forks without one."""
    code = (
        "import torch\n"
        "def stop(*_): raise SystemExit('asked for a GPU')\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = stop\n"
        "import melanoma_lib.pipeline.preloaded\n"
        "print('imported', end='')\n"
        "torch.cuda.is_available()"
    )
    out, err = python(code).communicate()
    assert (out, err.strip()) == ("imported", "asked for a GPU")


def test_an_interrupt_is_heard_while_imports_run_and_told_by_one_process(tmp_path):
    """By a shell, Ctrl-C reaches every process of the command."""
    (tmp_path / "ipykernel").mkdir()  # the first that is imported
    slow = "import time\nopen('begun', 'w').close()\ntime.sleep(30)"
    (tmp_path / "ipykernel" / "__init__.py").write_text(slow)
    code = (
        "from melanoma_lib.pipeline import processes\n"
        "from test_processes import of_here\n"
        f"import os; os.chdir({str(tmp_path)!r})\n"
        "try:\n    processes.call(of_here, 3)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    process = python(code, tmp_path)
    deadline = time.time() + 60
    while not (tmp_path / "begun").exists():
        assert time.time() < deadline
        time.sleep(0.1)
    start = time.time()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    process.wait()
    assert time.time() - start < 15
    os.killpg(process.pid, signal.SIGKILL)  # the server would end by itself after its import
    assert process.stderr.read() == ""


def note_and_wait(send, folder):
    (Path(folder) / "pid").write_text(f"{os.getpid()}\n")
    time.sleep(600)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    code = (
        "from melanoma_lib.pipeline import processes; processes.PRELOADED = 'json'\n"
        "from test_processes import note_and_wait\n"
        f"print(processes.receive(processes.start(note_and_wait, {str(tmp_path)!r})[1]))"
    )
    parent, noted, end = python(code), tmp_path / "pid", time.time() + 120
    while not (noted.exists() and noted.read_text().endswith("\n")) and time.time() < end:
        time.sleep(0.1)
    child = int(noted.read_text())
    os.kill(child, 0)
    parent.kill()
    parent.communicate()
    while Path(f"/proc/{child}").exists() and time.time() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


def test_where_nothing_can_be_forked_a_process_begins_from_nothing(tmp_path):
    """A server's socket would lie in this folder, and its name may have 107 characters."""
    (deep := tmp_path / ("d" * 90)).mkdir()
    out, err = python(ANSWER, TMPDIR=str(deep)).communicate()
    assert out.strip() == "False True 3", err  # this file imports torch


@forked
def test_a_server_that_cannot_import_is_an_error(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('not an ImportError')")
    code = f"from melanoma_lib.pipeline import processes; processes.PRELOADED = 'broken'\n{ANSWER}"
    _, err = python(code, tmp_path).communicate()
    assert "not an ImportError" in err and "MelanomaError: no process could be started" in err
