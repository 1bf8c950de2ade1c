"""The code map names things that exist."""

import importlib
import re

import pytest
from helpers import ROOT

ROOMS = {path.stem for path in (ROOT / "melanoma_lib").iterdir()}
NAMES = sorted(
    name for name in set(re.findall(r"`([\w.]+)`", (ROOT / "docs" / "code_map.md").read_text()))
    if name.partition(".")[0] in ROOMS and not name.endswith(".py")
)  # fmt: skip


def test_the_map_covers_every_room():
    library = {path.parent.name for path in (ROOT / "melanoma_lib").glob("*/__init__.py")}
    assert library - {"core", "cli", "exercises"} <= {name.partition(".")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_map_names_exists(name):
    found, *rest = importlib.import_module("melanoma_lib"), *name.split(".")
    module = "melanoma_lib"
    for part in rest:
        if not hasattr(found, part):
            importlib.import_module(f"{module}.{part}")
        found, module = getattr(found, part), f"{module}.{part}"
