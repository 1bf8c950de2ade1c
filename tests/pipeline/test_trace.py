import json
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from melanoma_lib.cli import main
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json, sha256, write_json
from melanoma_lib.core.provenance import (
    VARIABLE,
    attach_provenance,
    collect_provenance,
    read_provenance,
)
from melanoma_lib.pipeline import trace
from melanoma_lib.reporting import figures
from melanoma_lib.reporting.compare import compare
from melanoma_lib.reporting.table_formats import write_tables

ORIGIN = {"run": "run", "chapter": "06_x", "key": "k1", "commit": "abc", "date": "2026-11-30",
          "command": r"melanoma run --output-dir 'a (b) \c'", "dataset": "f"}  # fmt: skip


@pytest.fixture
def files(trained):
    """A figure and a table in a run's folder: PNG, PDF, CSV and LaTeX."""
    folder, *_ = trained
    write_json(folder / "config.json", {"config": {}, "asked": {}})
    results = compare(*trained, resamples=50)
    write_json(folder / "comparison_results.json", results)
    history = pd.DataFrame({"epoch": [1], "train_loss": 1.0, "val_loss": 1.0,
                            "train_accuracy": 0.5, "val_accuracy": 0.5, "best": True})  # fmt: skip
    for key in results["models"]:
        history.to_csv(folder / key / "history.csv", index=False)
    with attach_provenance(ORIGIN):
        figure = figures.training_curves({"net": history})
        figures.save(figure, "04-1-training-curves", folder)
        write_tables(results, folder)
    stems = [folder / "04-1-training-curves", folder / "comparison_table"]
    return [stem.with_suffix(s) for stem in stems for s in (".png", ".pdf", ".csv", ".tex")
            if stem.with_suffix(s).exists()]  # fmt: skip


def test_every_kind_of_file_carries_where_it_comes_from(files):
    assert {path.suffix for path in files} == {".png", ".pdf", ".csv", ".tex"}
    assert all(read_provenance(path) == ORIGIN for path in files)
    table = pd.read_csv(next(path for path in files if path.suffix == ".csv"), comment="#")
    assert len(table) == 3


def test_equal_files_are_equal_and_nothing_is_carried_outside(files, trained, tmp_path):
    before = {path.name: sha256(path) for path in files}
    results = read_json(trained[0] / "comparison_results.json")
    with attach_provenance(ORIGIN):
        write_tables(results, trained[0])
    assert {path.name: sha256(path) for path in files} == before
    write_tables(results, tmp_path / "by_hand")
    with pytest.raises(MelanomaError, match="does not say"):
        read_provenance(tmp_path / "by_hand" / "comparison_table.csv")


def test_what_carries_nothing_is_refused(tmp_path, capsys):
    for name, content in (("a.png", b"no png"), ("a.pdf", b"%PDF"), ("a.csv", b""), ("a.md", b"")):
        (tmp_path / name).write_bytes(content)
        assert main(["trace", str(tmp_path / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "state", "word"),
    [("k1", "done", "current"), ("k2", "done", "outdated"), ("k1", "stale", "outdated")],
)
def test_a_file_is_current_while_its_step_is(files, monkeypatch, capsys, key, state, word):
    step = SimpleNamespace(name="06_x", key=key)
    monkeypatch.setattr(trace, "recorded_run", lambda folder: (None, [step]))
    monkeypatch.setattr(trace, "state_of", lambda step: state)
    assert main(["trace", str(files[0])]) == 0
    *told, verdict = capsys.readouterr().out.splitlines()
    assert verdict.startswith(word) and any("abc" in line for line in told)


def test_a_run_that_is_elsewhere_can_be_named(files, tmp_path, monkeypatch, capsys):
    moved = files[0].rename(tmp_path.parent / f"{tmp_path.name}.png")
    assert main(["trace", str(moved)]) == 0
    assert "unknown" in capsys.readouterr().out
    monkeypatch.setattr(trace, "recorded_run", lambda folder: (None, []))
    assert main(["trace", str(moved), "--output-dir", str(files[1].parent)]) == 0
    assert "outdated" in capsys.readouterr().out


def test_redrawn_figures_are_current_until_the_results_change(files, tmp_path, capsys):
    results = files[0].parent / "comparison_results.json"
    folder = str(tmp_path / "document")
    assert main(["figures", "--results", str(results), "--output-dir", folder]) == 0
    run = ["--output-dir", str(results.parent)]
    for name in ("06-1-roc.png", "comparison_table.tex"):
        capsys.readouterr()
        assert main(["trace", str(Path(folder, name)), *run]) == 0
        assert "current" in capsys.readouterr().out
    results.write_text(results.read_text() + " ")
    assert main(["trace", str(Path(folder, "06-1-roc.pdf")), *run]) == 0
    assert "outdated" in capsys.readouterr().out


def test_the_origin_names_commit_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "run", "--preset", "sample"])
    found = collect_provenance(run="r")
    assert found["command"] == "melanoma run --preset sample" and found["run"] == "r"
    monkeypatch.setenv(VARIABLE, json.dumps({"run": "outer"}))
    with attach_provenance(found):
        pass
    assert json.loads(os.environ[VARIABLE]) == {"run": "outer"}
