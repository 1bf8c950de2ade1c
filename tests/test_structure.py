"""The house keeps its shape: imports run downwards, functions fit a screen, facts stand once."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "melanoma_lib"

# From the ground up: a module may import only those before it.
# fmt: off
ORDER = (
    "artifacts", "memory", "progress", "data.classes", "config", "distributed", "listeners",
    "data.layouts", "data.metadata", "data.download", "data.sample", "data.images", "data.augment",
    "data.pixels", "data.check", "abcde", "models", "predictions", "metrics", "intervals",
    "map_scores", "scaling", "significance", "calibration", "thresholds", "checkpoints", "graphs",
    "arithmetic", "training", "xai", "familiar", "bundle", "experiment", "explanations",
    "subgroups", "comparison", "diagnose", "verdict", "tables", "figures", "redraw", "external",
    "thesis", "preloaded", "processes", "kernels", "batch", "status", "site", "app", "cli",
    "__main__",
)
# fmt: on


def modules():
    return {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts): path
        for path in LIBRARY.rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "exercises"
    }


def imported(path):
    """The library's modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = "melanoma_lib."
    return {name.removeprefix(ours) for name in names if name.startswith(ours)}


def test_every_module_has_its_place():
    assert set(modules()) == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_downwards(name):
    below = set(ORDER[: ORDER.index(name)])
    above = (imported(modules()[name]) & set(ORDER)) - below
    assert not above, f"{name} imports {above}"


def test_tables_figures_and_pixels_are_made_without_importing_a_network():
    """Importing torch and timm takes several seconds."""
    code = (
        "import sys, melanoma_lib.redraw, melanoma_lib.thesis, melanoma_lib.data.check;"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_nothing_rests_on_the_exercises():
    assert not [name for name, path in modules().items() if "exercises" in path.read_text()]


def test_every_module_has_its_test_file():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    # Small ones are tested with the module that uses them.
    with_another = {"progress": "cli", "data.classes": "structure", "checkpoints": "training",
                    "preloaded": "processes", "__main__": "distributed"}  # fmt: skip
    missing = {with_another.get(name, name.removeprefix("data.")) for name in ORDER} - tests
    assert not missing


def test_functions_fit_a_screen():
    long = [
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert not long


def test_public_functions_say_what_they_do():
    silent = [
        f"{name}.{node.name}"
        for name, path in modules().items()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_the_class_order_is_stated_once():
    order = re.compile(r"akiec\W+bcc\W+bkl\W+df\W+mel")
    found = [path.name for path in modules().values() if order.search(path.read_text())]
    assert not found  # even classes.py lists one diagnosis a line


def test_the_order_of_the_isic_challenge_is_stated_once():
    order = re.compile(r"MEL\W+NV\W+BCC")
    found = [hit for path in modules().values() for hit in order.findall(path.read_text())]
    assert len(found) == 1


def test_the_order_is_alphabetical():
    from melanoma_lib.data.classes import CLASS_NAMES, COLOURS

    assert list(CLASS_NAMES) == sorted(CLASS_NAMES) and len(set(COLOURS.values())) == 7


def test_dependencies_are_stated_once_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name.lower().replace("_", "-")] = version
    extras = project["optional-dependencies"].values()
    stated = {requirement for group in (project["dependencies"], *extras) for requirement in group}
    for requirement in stated - {"melanoma-lib[cloud,listen]"}:
        name, floor = requirement.split(">=")
        number = [int(part) for part in re.findall(r"\d+", pins[name])[:3]]
        assert number >= [int(part) for part in re.findall(r"\d+", floor)], requirement


def test_conda_installs_the_project_and_states_no_dependency_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [re.split(r"\W", name)[0] for name in names] == ["python", "pip"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]


def test_the_page_of_figures_is_current():
    from melanoma_lib.figures import catalog_page

    assert (ROOT / "figures" / "README.md").read_text() == catalog_page()


def test_links_between_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("notebooks/**/*.ipynb")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_medical_background_cites_what_it_lists():
    text = (ROOT / "docs" / "medical_background.md").read_text()
    body, _, references = " ".join(text.split()).partition("## References")
    cited = {
        (re.sub(r"[^a-z]", "", name.split()[0].lower()), year)
        for name, year in re.findall(r"([A-Z]\w+(?: [A-Za-z. ]+)?), (\d{4})\b", body)
    }
    keys = re.findall(r"\[`([a-z]+)(\d{4})[a-z0-9]+`\]", references)
    listed = {("us" if name == "uspstf" else name, year) for name, year in keys}
    assert cited == listed
