"""The state of the thesis: figures and tables by section of the guide, and the writing."""

import datetime
import re
from pathlib import Path

import pytest

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import write_json
from melanoma_lib.pipeline import run
from melanoma_lib.pipeline.thesis import FILE, GUIDE, init, read_writing, sections, thesis
from melanoma_lib.reporting.figures import CATALOG
from melanoma_lib.reporting.tables import CAPTIONS


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Config(output_dir=str(tmp_path / "run"), architectures=("a", "b"), epochs=10)


@pytest.fixture
def steps(config):
    return run.plan(config, "data")


def mark(step):
    """Leaves what the execution of a step leaves."""
    record = {"schema": run.SCHEMA, "outputs": {}, "key": step.key, "state": "done"}
    write_json(run.step_status_path(step), record)


@pytest.fixture
def written(config, steps):
    """Leaves every chapter done, but of the figures only the curves of 04 and the ROC of 06."""
    names = ["04-1-training-curves-a", "04-1-training-curves-b", "06-1-roc"]
    config.figures.mkdir(parents=True)
    for name in names:
        (config.figures / f"{name}.pdf").write_text("figure")
    for step in steps:
        if step.training_key:
            record = {"training_key": step.training_key, "epochs": 10, "finished": True}
            folder = Path(config.output_dir) / step.parameters["architecture"]
            write_json(folder / "run.json", record)
        mark(step)


def section_of(number, config, steps):
    return next(line for line in thesis(config, steps).splitlines() if f" {number} " in line)


def test_a_section_is_ready_when_all_it_rests_on_is_there(config, steps, written):
    ready = section_of("4.1", config, steps)
    assert ready.startswith("ready") and ready.count("04-1-training-curves-") == 2
    assert "lacks" not in ready
    open_ = section_of("5.4", config, steps)
    assert open_.startswith("open") and "06-1-roc; lacks 06-3-operating-points" in open_
    assert open_.endswith("operating_points")
    assert section_of("1.2", config, steps).startswith("text only")


def test_a_figure_of_a_chapter_that_is_not_up_to_date_is_lacking(config, steps, written):
    (config.figures / "04-1-training-curves-b.pdf").unlink()
    line = section_of("4.1", config, steps)
    assert line.startswith("open") and line.endswith("curves-a; lacks 04-1-training-curves-b")
    step = next(step for step in steps if step.training_key)
    run.step_status_path(step).unlink()
    line = section_of("4.1", config, steps)
    assert line.endswith("lacks 04-1-training-curves-a, 04-1-training-curves-b")


def test_the_guide_rests_on_figures_tables_and_sources_that_exist():
    guide = GUIDE.read_text()
    keys = set(re.findall(r"^@\w+\{(\w+),", (GUIDE.parent / "references.bib").read_text(), re.M))
    named = {"Figures": set(CATALOG), "Tables": set(CAPTIONS), "Sources": keys}
    for kind, known in named.items():
        lists = re.findall(rf"^- {kind}: (.*(?:\n  .*)*)", guide, re.M)
        names = set(re.findall(r"`([^`]+)`", " ".join(lists)))
        assert names and names <= known, kind
        if kind != "Sources":
            assert not known - names  # every figure and table has its section
    assert len(sections(guide)) > 10
    for names in sections(guide).values():
        unknown = set(names) - set(CATALOG) - set(CAPTIONS) - keys
        assert all("." in name or name.startswith("--") for name in unknown)  # files and options


def test_the_file_for_the_writing_has_the_sections_of_the_guide_and_is_never_overwritten(
    config, capsys
):
    assert main(["thesis", "init"]) == 0
    heads = [head.partition(" ")[0] for head in sections(GUIDE.read_text())]
    assert list(read_writing(Path(FILE))) == heads and "The problem" in Path(FILE).read_text()
    assert main(["thesis", "init"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_figures_and_writing_stand_side_by_side_with_what_is_late(config, steps, written):
    assert "melanoma thesis init" in thesis(config, steps)
    init(Path(FILE))
    today = datetime.date.today()
    past, future = (today + datetime.timedelta(days) for days in (-1, 1))
    text = Path(FILE).read_text()
    for number, status, words, due in (
        ("1.1", "done", 1500, past), ("1.2", "draft", 200, past), ("4.1", "draft", 50, future)
    ):  # fmt: skip
        old = rf"(\['{number}'\].*\n)status = .*\nwords = 0\n"
        text, count = re.subn(old, rf'\1status = "{status}"\nwords = {words}\ndue = {due}\n', text)
        assert count == 1
    Path(FILE).write_text(text)
    assert "done, 1500 words" in section_of("1.1", config, steps)
    assert "late" not in section_of("1.1", config, steps)
    assert f"draft, 200 words, late since {past}" in section_of("1.2", config, steps)
    line = section_of("4.1", config, steps)
    assert f"draft, 50 words, due {future}" in line and line.endswith("04-1-training-curves-b")
    last = thesis(config, steps).splitlines()[-1]
    assert last.startswith("writing: 1 of ") and last.endswith("1,750 words; late: 1.2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("['1.1'\n", "cannot be read"),
        ("['9.9']\nstatus = 'open'", "no section 9.9"),
        ("['1.1']\nstatus = 'finished'", "status is one of open, draft, done"),
        ("['1.1']\nstatus = 'open'\nwords = 'many'", "words a number"),
        ("['1.1']\nstatus = 'open'\ndue = 'soon'", "due a date"),
        ("title = 'mine'", "no section title"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(MelanomaError, match=message):
        read_writing(tmp_path / FILE)
