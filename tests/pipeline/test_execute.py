"""Processes that have torch already, and notebooks executed in one."""

import json
import os
import signal
import sys
import time

import nbformat
import papermill
import pytest
import torch
from helpers import UnreadableError, python, raise_error, report_process, wait_for, write_notebook

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline import execute

forked = pytest.mark.skipif(not execute.FORKS, reason="processes are forked on Linux only")


@forked
def test_a_function_is_called_elsewhere(monkeypatch):
    monkeypatch.setenv("OF_NOW", "no")
    execute.run_in_process(os.getpid)  # what forks are made from is there before the change
    monkeypatch.setenv("OF_NOW", "yes")
    process, imported, value, number = execute.run_in_process(report_process, 3)
    assert process != os.getpid() and imported and value == "yes" and number == 3


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (raise_error, [FileNotFoundError, "a"], "^FileNotFoundError: a$"),
        (raise_error, [MelanomaError, "as it is"], "^as it is$"),
        (raise_error, [SystemExit, 3], "^SystemExit: 3$"),
        (raise_error, [UnreadableError, 1, 2], "^UnreadableError: 1 and 2$"),
        (eval, ["lambda: 0"], "pickle"),
        (os._exit, [0], "its process died"),
    ],
)
def test_whatever_is_raised_elsewhere_comes_back_as_one_line(function, arguments, message):
    with pytest.raises(MelanomaError, match=message):
        execute.run_in_process(function, *arguments)


@forked
def test_a_process_whose_result_nobody_awaits_ends_without_a_word():
    """As that of `melanoma run` where nothing is left to do."""
    process, receiver = execute.start_process(raise_error, KeyError)
    receiver.close()
    process.join()
    assert process.exitcode == 0


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
    process = python(code, folders=[tmp_path])
    wait_for(lambda: (tmp_path / "begun").exists())
    start = time.time()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    process.wait()
    assert time.time() - start < 15
    os.killpg(process.pid, signal.SIGKILL)  # the server would end by itself after its import
    assert process.stderr.read() == ""


def test_where_nothing_can_be_forked_a_process_begins_from_nothing(tmp_path):
    """A server's socket would lie in this folder, and its name may have 107 bytes."""
    (deep := tmp_path / ("\N{MELTING FACE}" * 20)).mkdir()
    code = (
        "import os; from melanoma_lib.pipeline import execute\n"
        "if __name__ == '__main__': "
        "print(execute.FORKS, execute.run_in_process(os.getpid) != os.getpid())"
    )
    out, err = python(code, TMPDIR=str(deep)).communicate()
    assert out.strip() == "False True", err


@pytest.fixture
def executed(tmp_path):
    """Executes cells, the first of which declares parameters, as a notebook called out."""

    def execute_cells(*cells, name="out", **parameters):
        write_notebook(tmp_path / "in.ipynb", *cells)
        target = tmp_path / f"{name}.ipynb"
        arguments = tmp_path / "in.ipynb", parameters, target, tmp_path / "cells.log"
        variables = {"OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
        process, messages = execute.start_process(
            execute.execute_notebook, *arguments, environment=variables
        )
        sent = []
        while not sent or isinstance(sent[-1], str):
            sent.append(messages.recv())
        process.join()
        if error := sent.pop():
            raise error
        return nbformat.read(target, 4).cells, sent

    return execute_cells


CELLS = (
    "number = 0",
    "print('one')\nnumber + 1",
    "print('  1/2  0.5 *')  # log",
    "import sys\nprint('two', file=sys.stderr)",
    "from IPython.display import Markdown, display\nimport pandas as pd\n"
    "display(Markdown('*a*'))\nprint('after')\npd.DataFrame({'n': [number]})",
    "import matplotlib.pyplot as plt\n"
    "figure, axes = plt.subplots(figsize=(1, 1))\nplt.close(figure)\nfigure",
    "number;",
    "print('no end of line', end='')",
)


def test_cells_show_what_a_kernel_shows(executed, tmp_path):
    """The oracle is papermill's own engine."""
    cells, sent = executed(*CELLS, number=6)
    theirs = tmp_path / "their.ipynb"
    papermill.execute_notebook(tmp_path / "in.ipynb", theirs, {"number": 6}, progress_bar=False)
    for cell, other in zip(cells, nbformat.read(theirs, 4).cells, strict=True):
        assert cell.source == other.source
        kinds = [(output.output_type, set(output.get("data", ()))) for output in cell.outputs]
        assert kinds == [(o.output_type, set(o.get("data", ()))) for o in other.outputs]
        for output, their in zip(cell.outputs, other.outputs, strict=True):
            if "image/png" not in output.get("data", ()):
                assert output == their | {k: output[k] for k in ("execution_count",) if k in output}
    assert sent == ["  1/2  0.5 *", "two"]  # a warning would be on standard error
    log = (tmp_path / "cells.log").read_text()
    assert "out: one\n" in log and "out: two\n" in log


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / number", "ZeroDivisionError: "),
        ("number +", "SyntaxError: "),
        ("%no_such_magic", "UsageError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Odd(Exception):\n    def __init__(self, one, two): pass\nraise Odd(1, 2)", "Odd: "),
    ],
)
def test_an_exception_leaves_the_notebook_up_to_there(executed, tmp_path, code, message):
    with pytest.raises(MelanomaError, match=rf"^{message}.*see .*out.failed.ipynb"):
        executed("number = 0", code, "print('later')")
    cells = nbformat.read(tmp_path / "out.failed.ipynb", 4).cells
    shown = [output.output_type for cell in cells for output in cell.get("outputs", [])]
    assert "error" in shown and "later" not in str(cells[-1].outputs)
    assert not (tmp_path / "out.ipynb").exists()


def test_each_notebook_has_its_own_folder_threads_and_random_numbers(executed, tmp_path):
    ask = (
        "import os, numpy, torch\n"
        "(os.getcwd(), torch.get_num_threads(), os.environ['IPYTHONDIR'])"
    )
    shown = []
    for name in ("a", "b"):
        cells, _ = executed("n = 0", ask, "(numpy.random.rand(), torch.rand(1).item())", name=name)
        shown.append([eval(cell.outputs[0].data["text/plain"]) for cell in cells[-2:]])
    assert shown[0][0] == shown[1][0] == (str(tmp_path), 1, str(tmp_path / "ipython"))
    assert shown[0][1] != shown[1][1]
    assert not list(tmp_path.rglob("*.sqlite"))  # the reader's history stays the reader's


def test_no_kernel_that_is_installed_is_taken(executed, tmp_path, monkeypatch):
    """Another project may have left one called python3 on the user's path."""
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "other", "language": "R"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    cells, _ = executed("n = 1", "import sys; sys.executable")
    assert cells[-1].outputs[0].data["text/plain"] == repr(sys.executable)
