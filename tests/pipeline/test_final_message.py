import pytest

from melanoma_lib.config import Config
from melanoma_lib.core.files import write_json, write_text
from melanoma_lib.pipeline import run
from melanoma_lib.pipeline.final_message import final_message


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, "trained", lambda *_: True)
    monkeypatch.chdir(tmp_path)
    return Config(output_dir=str(tmp_path / "my run"), architectures=("a", "b"), epochs=2)


@pytest.fixture
def steps(config):
    """A run that ended well, with results of two networks."""
    steps = run.plan(config, "data")
    for step in steps:
        mark(step, "done")
    metrics = {
        name: {"melanoma_auc": {"value": auc, "low": auc - 0.1, "high": auc + 0.01},
               "accuracy": {"value": 0.8, "low": 0.7, "high": 0.9}}
        for name, auc in (("Second", 0.9), ("First", 0.95))
    }  # fmt: skip
    models = {name: {"name": name, "metrics": found} for name, found in metrics.items()}
    write_json(steps[0].config.run_dir / "comparison_results.json", {"models": models})
    write_text(steps[0].config.run_dir / "summary.md", "words")
    (steps[0].config.run_dir / "notebooks").mkdir()
    return steps


def mark(step, state, **more):
    record = {"schema": run.SCHEMA, "outputs": {}, "key": step.key, "state": state} | more
    write_json(run.step_status_path(step), record)


def test_a_run_that_ended_well_says_what_was_found_where_it_is_and_what_comes_next(config, steps):
    lines = final_message(config, steps, 230.0).splitlines()
    assert lines[0] == "all is done, in 3 min 50 s"
    assert lines[2:4] == [
        "  First: melanoma AUC 0.950 [0.850, 0.960], accuracy 0.800 [0.700, 0.900]",
        "  Second: melanoma AUC 0.900 [0.800, 0.910], accuracy 0.800 [0.700, 0.900]",
    ]
    assert "results   my run/summary.md" in lines and "chapters  my run/notebooks" in lines
    commands = lines[lines.index("next:") + 1 :]
    assert len(commands) == 3 and all("'my run" in command for command in commands)


def test_of_a_run_with_failures_the_first_lines_say_what_failed_and_how_to_go_on(config, steps):
    mark(steps[4], "failed", error="ValueError: no such thing (see x.failed.ipynb)")
    for step in steps[-4:]:
        run.step_status_path(step).unlink()
    lines = final_message(config, steps, 60.0).splitlines()
    assert lines[0].startswith(f"1 of {len(steps)} steps failed")
    assert lines[1] == f"  {steps[4].name}: ValueError: no such thing (see x.failed.ipynb)"
    assert all(step.name in lines[2] for step in steps[-4:])
    assert "the same command goes on" in lines[3]
    assert "next:" not in lines and not any("AUC" in line for line in lines)


def test_a_run_that_did_not_end_has_no_last_lines(config, steps):
    """As where another process holds its folder."""
    mark(steps[2], "started", started=0)
    assert final_message(config, steps, 1.0) == ""
