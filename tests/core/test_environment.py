import builtins
import io
import os
import subprocess
import sys

import pytest
import torch

from melanoma_lib.config import Config
from melanoma_lib.core.environment import pick_device, usable_cores
from melanoma_lib.training.preflight import default_jobs


@pytest.fixture
def machine(monkeypatch):
    """Makes the machine one of 64 cores, all for this process, and its cgroup files these."""

    def fake(files):
        files = {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
        opened, exists = builtins.open, os.path.exists
        ours = "/sys/fs/cgroup/"

        def open_fake(path, *arguments, **options):
            if str(path).startswith(ours):
                return io.StringIO(files[str(path)])
            return opened(path, *arguments, **options)

        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
        monkeypatch.setattr(builtins, "open", open_fake)
        monkeypatch.setattr(
            os.path, "exists",
            lambda path: path in files if str(path).startswith(ours) else exists(path),
        )  # fmt: skip

    return fake


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_cores_are_those_that_the_container_allots(machine, files, cores):
    machine(files)
    assert usable_cores() == cores
    assert default_jobs(Config(device="cpu")) == min(4, cores)


def test_pytorch_computes_with_no_more_threads_than_there_are_cores(machine):
    machine({"cpu.max": "100000 100000"})
    torch.set_num_threads(3)
    pick_device("cpu")
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_that_the_process_is_tied_to():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import sys; from melanoma_lib.core.environment import usable_cores\n"
        "print(usable_cores(), 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1 False\n"
