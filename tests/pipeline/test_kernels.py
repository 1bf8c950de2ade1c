import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from melanoma_lib.pipeline.kernels import ForkedKernelManager, in_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")

PARENT = """
from test_kernels import execute
execute("import os, time; print(os.getpid(), file=open('pid', 'w'), flush=True); time.sleep(600)")
"""


def execute(*cells, kernel="python3"):
    """The outputs of cells in a new kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, kernel_manager_class=ForkedKernelManager, kernel_name=kernel
    ).execute()
    return [cell["outputs"] for cell in notebook.cells]


def printed(*cells, **options):
    return [output[0]["text"].split() for output in execute(*cells, **options)]


def test_a_kernel_is_new_but_for_what_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = (
        "import sys, os, multiprocessing\n"
        "print('torch' in sys.modules, 'melanoma_lib.models.build' in sys.modules, os.getcwd(),"
        " multiprocessing.get_start_method(), __name__, 'seen' in globals())\n"
        "seen = sys.modules['torch'].seen = True"
    )
    alone = subprocess.run(
        [sys.executable, "-c", "import multiprocessing as m; print(m.get_start_method())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = ["True", "False", str(tmp_path), alone.stdout.strip(), "__main__", "False"]
    assert printed(ask) == [expected] == printed(ask)
    (attribute,) = printed("import torch; print(hasattr(torch, 'seen'))")
    assert attribute == ["False"]


def test_no_two_kernels_draw_the_same_and_each_may_use_a_gpu():
    """CUDA refuses to work in a fork of a process that has asked for a GPU."""
    draw = (
        "import numpy as np, random, torch\n"
        "print(random.random(), np.random.rand(), torch.rand(1).item())"
    )
    ask = "print(torch.cuda._is_in_bad_fork())"
    (first, usable), (second, _) = printed(draw, ask), printed(draw, ask)
    assert not set(first) & set(second) and usable == ["False"]


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="torch is built without CUDA")
def test_nothing_that_is_imported_asks_for_a_gpu():
    """A process that has asked CUDA even for the number of GPUs leaves its forks without one."""
    code = (
        "import importlib, torch\n"
        "from melanoma_lib.pipeline.kernels import IMPORTED\n"
        "def stop(*_): raise SystemExit('asked for a GPU')\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = stop\n"
        "[importlib.import_module(name) for name in IMPORTED]\n"
        "print('imported', end='')\n"
        "torch.cuda.is_available()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr.strip()) == ("imported", "asked for a GPU")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_computes_with_the_threads_it_is_given(threads, monkeypatch):
    ask = (
        "import torch, threadpoolctl, os\n"
        "pools = {pool['num_threads'] for pool in threadpoolctl.threadpool_info()}\n"
        "print(torch.get_num_threads(), *pools, os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    assert printed(ask) == [[str(threads)] * 3]


def test_figures_are_shown_in_the_notebook(monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    (outputs,) = execute("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()")
    assert "image/png" in outputs[0]["data"]


def of_here(number):
    """Whose process called it, and what is imported there."""
    if number < 0:
        raise FileNotFoundError(f"{number}")
    return os.getpid(), "timm" in sys.modules, number


def test_a_function_is_called_in_a_fork_and_its_error_comes_back():
    process, imported, number = in_fork(of_here, 3)
    assert process != os.getpid() and imported and number == 3
    with pytest.raises(FileNotFoundError, match="-1"):
        in_fork(of_here, -1)


def test_an_interrupt_while_the_server_imports_is_told_by_one_process():
    code = (
        "import time; from melanoma_lib.pipeline.kernels import start_server\n"
        "start_server()\nprint('started', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\n", "")


def test_a_kernel_that_dies_is_noticed():
    with pytest.raises(DeadKernelError):
        execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_kernel_ends_with_the_process_that_started_it(tmp_path):
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, env=here)
    noted, end = tmp_path / "pid", time.time() + 60
    while not (noted.exists() and noted.read_text().endswith("\n")) and time.time() < end:
        time.sleep(0.1)
    kernel = int(noted.read_text())
    assert Path(f"/proc/{kernel}").exists()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{kernel}").exists() and time.time() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{kernel}").exists()


FORKED = "import multiprocessing as m; print(m.parent_process() is not None)"


def test_where_nothing_can_be_forked_an_ordinary_kernel_starts(tmp_path, monkeypatch):
    assert printed(FORKED) == [["True"]]
    launch = ["env", sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (tmp_path / "kernels" / "another").mkdir(parents=True)
    (tmp_path / "kernels" / "another" / "kernel.json").write_text(
        json.dumps({"argv": launch, "display_name": "another Python", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert printed(FORKED, kernel="another") == [["False"]]
    # The server's socket lies in this folder, and its name may have 107 characters.
    (deep := tmp_path / ("d" * 90)).mkdir()
    code = "from test_kernels import *; print(printed(FORKED))"
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(deep)}
    run = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True)
    assert run.stdout.strip() == "[['False']]", run.stderr


def test_a_server_that_cannot_import_is_no_obstacle(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('not an ImportError')")
    code = (
        "from melanoma_lib import kernels; kernels.IMPORTED = ('broken',)\n"
        "from test_kernels import *; print(printed(FORKED), in_fork(of_here, 3)[0] == os.getpid())"
    )
    folders = os.pathsep.join([str(Path(__file__).parent), str(tmp_path)])
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": folders},
                         capture_output=True, text=True)  # fmt: skip
    assert run.stdout.strip() == "[['False']] True", run.stderr
