import os
import subprocess
import sys

import nbformat
import pytest

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.pipeline import kernels, processes

forked = pytest.mark.skipif(not processes.FORKING, reason="processes are forked on Linux only")


@pytest.fixture
def execute(tmp_path):
    """Executes cells in a new kernel; returns their outputs. What is sent is in `sent`."""

    def run(*cells, threads=1):
        source, target = tmp_path / "source.ipynb", tmp_path / "executed.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        kernelspec = {"name": "python3", "display_name": "", "language": "python"}
        notebook.metadata["kernelspec"] = kernelspec
        nbformat.write(notebook, source)
        environment = {"OMP_NUM_THREADS": str(threads)}
        kernel, listening = processes.start(kernels.serve, tmp_path, **environment)
        client, messages = processes.start(
            kernels.execute, source, {}, target, tmp_path / "run.log", listening
        )
        listening.close()
        run.sent = []
        try:
            while line := processes.receive(messages):
                run.sent.append(line)
        finally:
            processes.stop(kernel, client)
        return [cell["outputs"] for cell in nbformat.read(target, 4).cells]

    return run


@forked
def test_a_kernel_is_new_but_for_what_is_imported(execute, tmp_path):
    ask = (
        "import sys, os, multiprocessing\n"
        "print('torch' in sys.modules, 'melanoma_lib.models' in sys.modules, os.getcwd(),"
        " multiprocessing.get_start_method(), multiprocessing.current_process().daemon, __name__,"
        " 'seen' in globals(), hasattr(sys.modules['torch'], 'seen'))\n"
        "seen = sys.modules['torch'].seen = True"
    )
    alone = subprocess.run(
        [sys.executable, "-c", "import multiprocessing as m; print(m.get_start_method())"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    method = alone.stdout.strip()
    expected = ["True", "False", str(tmp_path), method, "False", "__main__", "False", "False"]
    for _ in range(2):
        ((output,),) = execute(ask)
        assert output.text.split() == expected


@forked
def test_no_two_kernels_draw_the_same_and_each_may_use_a_gpu(execute):
    """CUDA refuses to work in a fork of a process that has asked for a GPU."""
    ask = (
        "import numpy as np, random, torch\n"
        "print(torch.cuda._is_in_bad_fork(), random.random(), np.random.rand(), torch.rand(1)[0])"
    )
    (usable, *first), (_, *second) = (execute(ask)[0][0].text.split() for _ in range(2))
    assert not set(first) & set(second) and usable == "False"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_computes_with_the_threads_it_is_given(execute, threads):
    ask = (
        "import torch, threadpoolctl, os\n"
        "pools = {pool['num_threads'] for pool in threadpoolctl.threadpool_info()}\n"
        "print(torch.get_num_threads(), *pools, os.environ['OMP_NUM_THREADS'])"
    )
    assert execute(ask, threads=threads)[0][0].text.split() == [str(threads)] * 3


def test_outputs_stand_in_the_order_in_which_they_came(execute, tmp_path):
    first, second = execute(
        "import sys, matplotlib.pyplot as plt\n"
        "print('before')\nplt.plot([1, 2])\nplt.show()\nprint('after')\n"
        "print('aside', file=sys.stderr)\n'value'",
        "print('  1/2  0.5 *')",
    )
    assert [output.get("name", output.output_type) for output in first] == [
        "stdout", "display_data", "stdout", "stderr", "execute_result"
    ]
    assert "image/png" in first[1].data and second[0].text == "  1/2  0.5 *\n"
    log = (tmp_path / "run.log").read_text()
    assert "executed: before" in log and "executed:   1/2  0.5 *" in log
    assert execute.sent == ["  1/2  0.5 *"]


def test_an_exception_is_told_and_kept_beside_the_target(execute, tmp_path):
    with pytest.raises(MelanomaError, match=r"ValueError: no such thing \(see .*failed.ipynb\)"):
        execute("print('before')", "raise ValueError('no such thing')", "print('never')")
    assert not (tmp_path / "executed.ipynb").exists()
    cells = nbformat.read(tmp_path / "executed.failed.ipynb", 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output.output_type for output in outputs] == ["stream", "error"]


def test_a_kernel_that_dies_is_noticed(execute):
    with pytest.raises(MelanomaError, match="its process died"):
        execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_kernel_leaves_no_file_that_tells_how_to_connect(execute):
    code = "from jupyter_core.paths import jupyter_runtime_dir as d; print(d(), os.getpid())"
    folder, number = execute(f"import os; {code}")[0][0].text.split()
    assert not os.path.exists(f"{folder}/kernel-{number}.json")  # noqa: PTH110
