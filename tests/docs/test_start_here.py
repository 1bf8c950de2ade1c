"""Chapter 00 names every folder of the project, and ten commands that there are."""

import re
import subprocess

import nbformat
import pytest
from helpers import ROOT

from melanoma_lib.cli import build_parser

BOOK = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", 4)
(SECTION,) = [cell.source for cell in BOOK.cells if "## Folders and ten commands" in cell.source]
NAMED = re.findall(r"^\| `([^`]+)` \|", SECTION, re.M)
COMMANDS = [name for name in NAMED if " " in name]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the history of the project")
def test_every_folder_is_named():
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    tracked = {path.partition("/")[0] for path in files if "/" in path}
    folders = {name for name in tracked if not name.startswith(".")}
    assert {*NAMED} - {*COMMANDS} == folders | {"runs"}


def test_there_are_ten_commands_that_exist():
    assert len(COMMANDS) == 10
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in [*COMMANDS, *re.findall(r"`(melanoma \w+ --[^`]+)`", SECTION)]:
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets
        elif "--help" not in arguments:
            build_parser().parse_args(arguments)
