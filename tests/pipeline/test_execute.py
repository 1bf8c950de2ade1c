"""Processes that have torch already, and notebooks executed in one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
from helpers import report_process
from nbformat.v4 import new_code_cell, new_notebook

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline import execute

forked = pytest.mark.skipif(not execute.FORKS, reason="processes are forked on Linux only")
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


def python(code, *folders, **environment):
    """A process that can import what lies here."""
    path = os.pathsep.join([*map(str, folders), str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@forked
def test_a_function_is_called_elsewhere_and_its_error_comes_back(monkeypatch):
    monkeypatch.setenv("OF_NOW", "no")
    execute.run_in_process(os.getpid)  # what forks are made from is there before the change
    monkeypatch.setenv("OF_NOW", "yes")
    process, imported, value, number = execute.run_in_process(report_process, 3)
    assert process != os.getpid() and imported and value == "yes" and number == 3
    with pytest.raises(FileNotFoundError, match="-1"):
        execute.run_in_process(report_process, -1)
    with pytest.raises(MelanomaError, match="its process died"):
        execute.run_in_process(report_process, 0)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")
def test_nothing_that_is_imported_asks_for_a_gpu():
    """A process that has asked CUDA even for the number of GPUs leaves its forks without one."""
    code = (
        "import torch\n"
        "def stop(*_): raise SystemExit('asked for a GPU')\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = stop\n"
        "import melanoma_lib.pipeline.preload\n"
        "print('imported', end='')\n"
        "torch.cuda.is_available()"
    )
    out, err = python(code).communicate()
    assert (out, err.strip()) == ("imported", "asked for a GPU")


@forked
def test_an_interrupt_is_heard_while_imports_run_and_told_by_one_process(tmp_path):
    """By a shell, Ctrl-C reaches every process of the command."""
    slow = "import time\nopen('begun', 'w').close()\ntime.sleep(30)"
    (tmp_path / "pandas.py").write_text(slow)  # one of those that are imported
    code = (
        "from melanoma_lib.pipeline import execute\n"
        f"import os; os.chdir({str(tmp_path)!r})\n"
        "try:\n    execute.run_in_process(os.getpid)\n"
        "except KeyboardInterrupt:\n    print('interrupted')"
    )
    process = python(code, tmp_path)
    wait_for(lambda: (tmp_path / "begun").exists())
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
        "from melanoma_lib.pipeline import execute; execute.PRELOAD = 'json'\n"
        "from test_execute import note_and_wait\n"
        f"print(execute.start_process(note_and_wait, {str(tmp_path)!r})[1].recv())"
    )
    parent, noted = python(code), tmp_path / "pid"
    wait_for(lambda: noted.exists() and noted.read_text().endswith("\n"))
    child = int(noted.read_text())
    os.kill(child, 0)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not Path(f"/proc/{child}").exists())


def test_where_nothing_can_be_forked_a_process_begins_from_nothing(tmp_path):
    """A server's socket would lie in this folder, and its name may have 107 characters."""
    (deep := tmp_path / ("d" * 90)).mkdir()
    code = (
        "import os; from melanoma_lib.pipeline import execute\n"
        "if __name__ == '__main__': "
        "print(execute.FORKS, execute.run_in_process(os.getpid) != os.getpid())"
    )
    out, err = python(code, TMPDIR=str(deep)).communicate()
    assert out.strip() == "False True", err


def notebook(path, *cells):
    book = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(book, path)


def run_here(path, target, parameters):
    """Executes a notebook in another process; the lines that were sent."""
    log = target.with_name("run.log")
    arguments = path, parameters, target, log, ENVIRONMENT
    process, messages = execute.start_process(execute.execute_notebook, *arguments)
    received = []
    try:
        while True:
            received.append(messages.recv())
    except EOFError:
        process.join()
    if isinstance(received[-1], Exception):
        raise received[-1]
    return received[:-1]


CELLS = (
    "number = 0",
    "print('one')\nprint('  1/2  0.5 *')\nnumber + 1",
    "import sys\nprint('two', file=sys.stderr)",
    "from IPython.display import Markdown, display\nimport pandas as pd\n"
    "display(Markdown('*a*'))\nprint('after')\npd.DataFrame({'n': [number]})",
    "import matplotlib.pyplot as plt\n"
    "figure, axes = plt.subplots(figsize=(1, 1))\nplt.close(figure)\nfigure",
    "number;",
    "print('no end of line', end='')",
)


def test_cells_show_what_a_kernel_shows(tmp_path):
    """The oracle is papermill's own engine."""
    path, target, theirs = (tmp_path / name for name in ("in.ipynb", "out.ipynb", "their.ipynb"))
    notebook(path, *CELLS)
    sent = run_here(path, target, {"number": 6})
    papermill.execute_notebook(path, theirs, {"number": 6}, progress_bar=False)
    ours, right = (nbformat.read(file, 4).cells for file in (target, theirs))
    for cell, other in zip(ours, right, strict=True):
        assert cell.source == other.source
        kinds = [(output.output_type, set(output.get("data", ()))) for output in cell.outputs]
        assert kinds == [(o.output_type, set(o.get("data", ()))) for o in other.outputs]
        for output, their in zip(cell.outputs, other.outputs, strict=True):
            if "image/png" not in output.get("data", ()):
                assert output == their | {k: output[k] for k in ("execution_count",) if k in output}
    assert sent == ["  1/2  0.5 *"]
    log = target.with_name("run.log").read_text()
    assert "out: one\n" in log and "out: two\n" in log


def test_an_exception_leaves_the_notebook_up_to_there(tmp_path):
    path, target = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    notebook(path, "number = 0", "1 / number", "print('later')")
    with pytest.raises(MelanomaError, match=r"ZeroDivisionError: .*see .*out.failed.ipynb"):
        run_here(path, target, {})
    cells = nbformat.read(target.with_suffix(".failed.ipynb"), 4).cells
    shown = [output.output_type for cell in cells for output in cell.get("outputs", [])]
    assert shown == ["error"] and not target.exists()


def test_each_notebook_has_its_own_folder_threads_and_random_numbers(tmp_path):
    path = tmp_path / "in.ipynb"
    ask = "import os, numpy, torch\n(os.getcwd(), torch.get_num_threads(), os.environ['X'])"
    notebook(path, "number = 0", ask, "(numpy.random.rand(), torch.rand(1).item())")
    shown = []
    for name in ("a", "b"):
        run_here(path, tmp_path / f"{name}.ipynb", {})
        cells = nbformat.read(tmp_path / f"{name}.ipynb", 4).cells
        shown.append([eval(cell.outputs[0].data["text/plain"]) for cell in cells[-2:]])
    assert shown[0][0] == shown[1][0] == (str(tmp_path), 1, "x")
    assert shown[0][1] != shown[1][1]


@pytest.fixture(autouse=True)
def variable(monkeypatch):
    monkeypatch.setenv("X", "x")


def wait_for(condition, seconds=120):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)
