import dataclasses
import os
import re
import time
from pathlib import Path

import pytest

from melanoma_lib.cli import main
from melanoma_lib.config import Config
from melanoma_lib.core.files import read_json, write_csv, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import duration, write_progress
from melanoma_lib.pipeline import run, status
from melanoma_lib.pipeline.status import inspect_run, report, status_lines


@pytest.fixture
def config(tmp_path):
    return Config(output_dir=str(tmp_path / "run"), architectures=("a", "b"), epochs=10)


@pytest.fixture
def steps(config):
    return run.plan(config, "data")


def epochs(config, step, count, seconds=60.0):
    """Leaves what a training of so many epochs leaves."""
    folder = Path(config.output_dir) / step.parameters["architecture"]
    write_json(folder / "run.json", {"training_key": step.training_key})
    rows = [{"epoch": n + 1, "seconds": seconds} for n in range(count)]
    write_csv(folder / "history.csv", rows)


def mark(config, step, state="done", started=0):
    """Leaves what the execution of a step leaves."""
    record = {"schema": run.SCHEMA, "outputs": {}, "key": step.key, "seconds": 75}
    record |= {"state": state, "started": started}
    write_json(run.step_status_path(step), record)


def done(config, step):
    """Leaves what the execution of chapter 04 leaves, its training with it."""
    folder = Path(config.output_dir) / step.parameters["architecture"]
    record = {"training_key": step.training_key, "epochs": 10, "finished": True}
    write_json(folder / "run.json", record)
    mark(config, step)


def trainings(steps):
    return [step for step in steps if step.training_key]


def line_of(step, config, steps):
    return next(line for line in report(config, steps).splitlines() if line.startswith(step.name))


def in_epoch(step, number, done, total=100, seconds=60.0, device="CPU"):
    """Leaves what a training leaves in the middle of an epoch."""
    record = {"label": f"epoch {number}", "done": done, "total": total, "seconds": seconds,
              "time": time.time(), "device": device, "used": 2e9, "memory": 8e9,
              "loss": 0.5}  # fmt: skip
    write_progress(run.step_progress_path(step), record)


def left(config, steps):
    return status_lines(inspect_run(config, steps))[0]


def test_before_the_first_epoch_the_time_left_is_not_known(config, steps):
    first, second = trainings(steps)
    assert left(config, steps) == "time left: not known before the first epoch"
    with lock(config.training_lock("a")):
        in_epoch(first, 1, 9)
        assert "not known" in left(config, [first, second])
        in_epoch(first, 1, 10, seconds=6.0)  # a tenth: an epoch takes a minute
        # Ten minutes and one for what follows, less 6 s; as long again for the other.
        assert left(config, [first, second]) == (
            "time left: about 21 min 54 s, if b take as long as the others"
        )


def test_the_time_left_comes_from_measured_epochs_and_what_followed_them(config, steps):
    """Four of ten epochs of a minute each; what follows took 15 s the last time."""
    first, second = trainings(steps)
    epochs(config, first, 4)
    epochs(config, second, 10, seconds=6.0)
    assert left(config, [first]) == "time left: about 7 min 00 s"
    done(config, second)
    assert left(config, [first, second]) == "time left: about 6 min 15 s"
    with lock(config.training_lock("a")):
        in_epoch(first, 5, 50, seconds=30.0)
        assert left(config, [first, second]) == "time left: about 5 min 45 s"
    mark(config, second, "failed")
    assert "6 min" not in left(config, [second]) and "done" not in left(config, [second])


@pytest.mark.parametrize(
    ("jobs", "devices", "device", "minutes"),
    [(1, 0, "CPU", 22), (2, 0, "CPU", 11), (2, 0, "H200", 22), (2, 2, "H200", 11)],
)
def test_what_runs_side_by_side_counts_once(config, steps, jobs, devices, device, minutes):
    """Trainings take turns on one GPU."""
    run.record_run_config(config, {"fingerprint": "data"}, jobs=jobs, devices=devices)
    for step in trainings(steps):
        epochs(config, step, 1)
    with lock(config.training_lock("a")):
        in_epoch(trainings(steps)[0], 2, 0, seconds=0.0, device=device)
        shown = left(config, trainings(steps))
    assert shown == f"time left: about {minutes - minutes // 11} min 00 s"


def test_chapters_count_with_what_they_took_or_half_a_minute(config, steps):
    for step in trainings(steps):
        epochs(config, step, 10)
        done(config, step)
    open_ones = [step for step in steps if not step.training_key]
    assert left(config, steps) == f"time left: about {duration(30.0 * len(open_ones))}"
    record = {"schema": run.SCHEMA, "outputs": {}, "key": "another", "seconds": 75}
    write_json(run.step_status_path(open_ones[0]), record)
    assert left(config, steps) == f"time left: about {duration(30.0 * len(open_ones) + 45)}"


def test_it_is_said_when_no_process_is_alive_and_what_is_not_counted(config, steps):
    first, _ = trainings(steps)
    assert any("no process is alive" in line for line in status_lines(inspect_run(config, steps)))
    with lock(Path(config.output_dir) / run.LOCK):
        assert not any("alive" in line for line in status_lines(inspect_run(config, steps)))
    in_epoch(first, 1, 1)
    assert not inspect_run(config, steps).alive  # it was killed on this machine
    (Path(config.output_dir) / run.LOCK).write_text("process 1 on another\n")  # without locks
    assert inspect_run(config, steps).alive
    old = time.time() - 1000
    os.utime(run.step_progress_path(first), (old, old))
    assert not inspect_run(config, steps).alive
    (Path(config.output_dir) / "leakage").mkdir()
    assert "melanoma leakage are not counted" in report(config, steps)


def test_a_run_of_trainings_alone_is_reported_without_chapters(config, steps, capsys):
    run.record_run_config(config, {"fingerprint": "data"}, chapters=False)
    found = status.recorded_run(Path(config.output_dir))
    assert [step.name for step in found[1]] == ["04_training-a", "04_training-b"]


def test_looking_at_a_run_changes_nothing_in_it(config, steps):
    """And never keeps a process from its lock."""
    mark(config, steps[0])
    epochs(config, trainings(steps)[0], 2)
    folder = Path(config.output_dir)
    with lock(folder / run.LOCK):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        inspect_run(config, steps)
        assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(("count", "data"), [(4, "other data"), (12, "data")])
def test_epochs_of_a_training_that_is_about_to_be_replaced_do_not_count(config, count, data):
    """Because it is another one, or longer than asked for."""
    first, _ = trainings(run.plan(config, "data"))
    epochs(config, first, count)
    steps = run.plan(config, data)
    assert "0 of 10 epochs" in line_of(first, config, steps)
    assert "not known" in left(config, steps)


def test_a_parameter_makes_stale_only_the_steps_that_have_it(config, steps):
    for step in steps:
        mark(config, step)
    shown = report(config, run.plan(config, "data", {"prevalence": 0.05})).splitlines()
    stale = [line.split()[0] for line in shown if " stale" in line]
    assert "06_operating_thresholds" in stale and "05_calibration" not in stale


def test_an_interrupted_step_is_not_called_running(config, steps):
    step, _ = trainings(steps)
    mark(config, step, "started")
    epochs(config, step, 3)
    line = line_of(step, config, steps)
    assert "interrupted" in line and "3 of 10 epochs" in line
    with lock(Path(config.output_dir) / run.LOCK):
        assert "running" not in report(config, steps)  # begun by an earlier batch
        mark(config, step, "started", time.time() + 1)
        assert "running" in line_of(step, config, steps)


def test_a_training_without_the_batch_is_called_running(config, steps):
    first, second = trainings(steps)
    with lock(config.training_lock("b")):
        assert "running" in line_of(second, config, steps)
        assert "waiting" in line_of(first, config, steps)


def test_a_done_step_says_how_long_it_took(config, steps):
    mark(config, steps[0])
    assert "done         1 min 15 s" in line_of(steps[0], config, steps)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder of two runs, one by the notebooks and one without; no dataset is anywhere."""
    monkeypatch.setattr(status, "RUNS", tmp_path)
    monkeypatch.setattr(run, "_work", lambda *_: [])
    config = Config(output_dir=str(tmp_path / "by_notebooks"), architectures=("a", "b"), epochs=3)
    asked = {"fingerprint": "data", "contents": "masks", "extra": {"prevalence": 0.1}}
    steps = run.plan(config, **asked)
    run.run(config, steps, asked=asked)
    mark(config, steps[0])
    training = {
        "config": dataclasses.asdict(config) | {"architectures": ["b"]}, "architecture": "b",
        "dataset": {"fingerprint": "data"}, "training_key": config.training_key("b", "data"),
    }
    write_json(tmp_path / "trained" / "b" / "run.json", training)
    write_csv(tmp_path / "trained" / "b" / "history.csv", [{"epoch": 1, "seconds": 60}])
    (tmp_path / "neither").mkdir()
    return tmp_path


def test_without_options_every_run_is_reported_from_its_folder(runs, capsys):
    assert main(["status"]) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith(str(runs / "by_notebooks")) and "done         1 min 15 s" in first
    assert "04_training-a" in first and " stale" not in first
    assert second.startswith(str(runs / "trained")) and "1 of 3 epochs" in second
    assert main(["status", "--output-dir", str(runs / "trained")]) == 0
    assert capsys.readouterr().out == second
    assert main(["status", "--thesis"]) == 0
    assert capsys.readouterr().out.count("text only") > 2


def test_a_run_that_was_moved_is_reported_as_before(runs, tmp_path, capsys):
    """With the run on the other split beside it, which its state depends on."""
    config, _ = status.recorded_run(runs / "by_notebooks")
    config = dataclasses.replace(config, other_split=str(runs / "other"), architectures=("b",))
    write_json(runs / "other" / "b" / "run.json", {"training_key": "key"})
    run.run(config, run.plan(config, "data"), asked={"fingerprint": "data"})
    (comparison,) = (step for step in run.plan(config, "data") if step.chapter == run.COMPARISON)
    mark(config, comparison)
    (tmp_path / "moved").mkdir()
    for name in ("by_notebooks", "other"):
        (runs / name).rename(tmp_path / "moved" / name)
    assert main(["status", "--output-dir", str(tmp_path / "moved" / "by_notebooks")]) == 0
    assert re.search("08_.* done", capsys.readouterr().out)


def test_where_no_run_is_one_line_says_how_to_make_one(runs, monkeypatch, capsys):
    for arguments in (["status", "--output-dir", str(runs / "neither")], ["status"]):
        monkeypatch.setattr(status, "RUNS", runs / "neither")
        assert main(arguments) == 2
        text = capsys.readouterr().err
        assert "melanoma run --preset sample" in text and text.count("\n") == 1


def test_a_run_of_another_version_is_refused_in_one_line(runs, capsys):
    path = runs / "by_notebooks" / run.RUN_CONFIG
    record = read_json(path)
    write_json(path, record | {"config": record["config"] | {"unknown": 1}})
    assert main(["status"]) == 2
    assert "another version" in capsys.readouterr().err


def test_durations_read_well():
    assert [duration(s) for s in (4.4, 75, 7500)] == ["4 s", "1 min 15 s", "2 h 05 min"]
