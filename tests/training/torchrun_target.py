"""Run by test_distributed.py under torchrun: `melanoma` with its arguments, watched.

Writes its process id to MELANOMA_TEST/pid-<rank>, and to MELANOMA_TEST/writes-<rank> a line for
every file that it opens for writing, renames or removes below MELANOMA_TEST/run.
"""

import os
import runpy
import sys
from pathlib import Path

folder, rank = Path(os.environ["MELANOMA_TEST"]), os.environ["RANK"]
(folder / f"pid-{rank}").write_text(str(os.getpid()))
writes = os.open(folder / f"writes-{rank}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate"}


def watch(event, arguments):
    writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writing or event in CHANGES) and str(arguments[0]).startswith(str(folder / "run")):
        os.write(writes, f"{event} {arguments[0]}\n".encode())


sys.addaudithook(watch)
runpy.run_module("melanoma_lib", run_name="__main__")
