import subprocess
import sys
from pathlib import Path

import pytest

KEPT = """
import torch
from pathlib import Path
from melanoma_lib.core.memory import kept_memory

def megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

def use():
    torch.ones(100_000_000, dtype=torch.uint8)

before = megabytes()
use()
outside = megabytes()
with kept_memory():
    use()
    inside = megabytes()
print(*(value - before for value in (outside, inside, megabytes())))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_memory_of_freed_tensors_is_kept_inside_the_block_only():
    """In a process of its own: what other threads take up there, nobody can give back."""
    shown = subprocess.run(
        [sys.executable, "-c", KEPT], capture_output=True, text=True, check=True
    ).stdout
    outside, inside, after = map(float, shown.split())
    assert outside < 50 < inside and after < 50
