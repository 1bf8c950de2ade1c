"""The house keeps its shape: imports run downwards, functions fit a screen, facts stand once."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from helpers import ROOT

from melanoma_lib.data.classes import CLASS_NAMES, COLOURS

LIBRARY = ROOT / "melanoma_lib"

# The rooms from the ground up, and what each may import; all but core may also import config.
ROOMS = {
    "core": (),
    "data": ("core",),
    "models": ("core", "data"),
    "evaluation": ("core", "data", "models"),
    "training": ("core", "data", "models", "evaluation", "explanation"),
    "explanation": ("core", "data", "models", "evaluation"),
    "reporting": ("core", "data", "models", "evaluation", "explanation"),
    "inference": ("core", "data", "models", "evaluation", "explanation"),
    "pipeline": ("core", "reporting"),
}


def modules():
    """The library's files by their dotted name below melanoma_lib, without the exercises."""
    return {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in LIBRARY.rglob("*.py")
        if path.parent.name != "exercises" and path != LIBRARY / "__init__.py"
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


def test_every_file_lies_in_a_room():
    assert {name.partition(".")[0] for name in modules()} == {*ROOMS, "__main__", "cli", "config"}


@pytest.mark.parametrize("room", [*ROOMS, "config"])
def test_imports_between_rooms_run_one_way(room):
    allowed = {room, *ROOMS.get(room, ("core",)), *({"config"} if room != "core" else ())}
    files = {name: path for name, path in modules().items() if name.partition(".")[0] == room}
    assert files
    for name, path in files.items():
        used = {other.partition(".")[0] for other in imported(path)}
        assert used & {*ROOMS, "config", "cli", "exercises"} <= allowed, name


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_one_sentence_what_is_in_it(room):
    says = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text()))
    assert says and says.endswith(".") and "\n\n" not in says


@pytest.mark.parametrize("room", [*ROOMS, "exercises"])
def test_what_a_room_exports_exists_and_is_documented(room):
    package = importlib.import_module(f"melanoma_lib.{room}")
    names = getattr(package, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        exported = getattr(package, name)
        if callable(exported):
            assert inspect.getdoc(exported), name
            assert exported.__module__.startswith(package.__name__), name


def test_tables_figures_and_pixels_are_made_without_importing_a_network():
    """Importing torch and timm takes several seconds."""
    code = (
        "import sys, melanoma_lib.reporting.figures, melanoma_lib.reporting.latex;"
        "from melanoma_lib.core import MelanomaError, write_json;"
        "from melanoma_lib.data import make_split, open_dataset, validate_dataset;"
        "print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


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


@pytest.mark.parametrize(
    ("order", "times"),
    [
        (r"akiec\W+bcc\W+bkl\W+df\W+mel", 0),  # even classes.py lists one diagnosis a line
        (r"MEL\W+NV\W+BCC", 1),  # that of the ISIC challenge
    ],
)
def test_the_order_of_classes_is_stated_once(order, times):
    assert sum(len(re.findall(order, path.read_text())) for path in modules().values()) == times


def test_the_order_is_alphabetical():
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
    for requirement in {each for each in stated if not each.startswith("melanoma-lib[")}:
        name, floor = re.split(">=|==", requirement)
        number = [int(part) for part in re.findall(r"\d+", pins[name])[:3]]
        assert number >= [int(part) for part in re.findall(r"\d+", floor)], requirement


def test_conda_installs_the_project_and_states_no_dependency_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [re.split(r"\W", name)[0] for name in names] == ["python", "pip"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["--constraint constraints.txt", "--editable ."]


def test_the_page_of_figures_is_current():
    from melanoma_lib.reporting.figures import catalog_markdown

    assert (ROOT / "figures" / "README.md").read_text() == catalog_markdown()


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("notebooks/**/*.ipynb")]


def anchors(page):
    """What links may name in a page: its headings, in Jupyter's spelling or GitHub's."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in nbformat.read(page, 4).cells)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        yield heading.replace(" ", "-")
        yield re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_in_the_project(page):
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", page.read_text()):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists() and path.is_relative_to(ROOT), link  # JupyterLab serves no more
        assert not anchor or anchor in anchors(path), link


def test_documents_have_one_title():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        assert page.suffix == ".ipynb" or len(re.findall(r"^# ", text, re.M)) == 1, page.name


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
