"""Where a figure or a table comes from: run, chapter, commit, command, dataset, date.

The pipeline puts it into the environment of each chapter, and what is written there carries it.
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from melanoma_lib.core.environment import environment_variables
from melanoma_lib.core.errors import MelanomaError, printable
from melanoma_lib.core.files import PROJECT

VARIABLE = "MELANOMA_PROVENANCE"  # in the environment: JSON
PNG_FIELD, PDF_FIELD = "Source", "Keywords"  # of the metadata of a figure
COMMENTS = {".tex": "% ", ".csv": "# "}  # before the last line of a table


def collect_provenance(**more: str) -> dict[str, str]:
    """The commit of this project with its date, the command that is running, and what is added.

    The date is the commit's and not today's, so that equal runs write equal files.
    """
    log = ["git", "-C", PROJECT, "log", "-1", "--format=%h %cs"]
    commit = date = ""
    with contextlib.suppress(OSError):  # git may not be there, nor a repository
        found = subprocess.run(log, capture_output=True, text=True)
        commit, _, date = found.stdout.strip().partition(" ")
    command = shlex.join(["melanoma", *sys.argv[1:]])
    return {"commit": commit, "date": date, "command": command} | more


def current_provenance() -> str:
    """What a file that is written now is to carry, JSON in a line of ASCII; "" outside of runs."""
    return os.environ.get(VARIABLE, "")


def last_line(suffix: str) -> str:
    """The same as the last line of a table; `suffix` is one of `COMMENTS`."""
    return f"{COMMENTS[suffix]}{current_provenance()}\n" if current_provenance() else ""


def attach_provenance(origin: dict[str, str]) -> contextlib.AbstractContextManager[None]:
    """Makes the files that are written inside the block carry it."""
    return environment_variables(**{VARIABLE: json.dumps(origin)})


def read_provenance(path: Path) -> dict[str, str]:
    """What a figure (PNG, PDF) or a table (.tex, .csv) carries.

    Raises `MelanomaError` when the file cannot be read, or carries nothing.
    """
    readers = {".png": _of_png, ".pdf": _of_pdf, **dict.fromkeys(COMMENTS, _of_text)}
    if path.suffix not in readers:
        raise MelanomaError(f"{printable(path)} is none of {', '.join(readers)}")
    try:
        text = readers[path.suffix](path)
        return json.loads(text)
    except (OSError, ValueError, KeyError, IndexError):
        raise MelanomaError(
            f"{printable(path)} does not say where it comes from; files of `melanoma run` do"
        ) from None


def _of_png(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return image.info[PNG_FIELD]


def _of_pdf(path: Path) -> str:
    found = re.search(rb"/%s \(((?:\\.|[^\\)])*)\)" % PDF_FIELD.encode(), path.read_bytes())
    return re.sub(rb"\\(.)", rb"\1", found[1] if found else b"").decode()


def _of_text(path: Path) -> str:
    *_, last = path.read_text(encoding="utf-8").rstrip().splitlines()
    return last.removeprefix(COMMENTS[path.suffix])
