"""The display of a run, drawn from its files, and what is shown where there is no terminal."""

import dataclasses
import os
import pty
import re
import select
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from melanoma_lib.config import Config
from melanoma_lib.core.files import write_csv, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.core.log import LOG, run_log
from melanoma_lib.core.progress import write_progress
from melanoma_lib.pipeline import display, run
from melanoma_lib.pipeline.display import is_terminal, render, shown
from melanoma_lib.pipeline.status import inspect_run


@pytest.fixture
def config(tmp_path):
    return Config(output_dir=str(tmp_path / "run"), architectures=("a", "b"), epochs=20)


@pytest.fixture
def steps(config):
    """A run whose first network is in its seventh epoch, the third having been the best."""
    steps = run.plan(config, "data")
    first = next(step for step in steps if step.training_key)
    folder = Path(config.output_dir) / "a"
    write_json(folder / "run.json", {"training_key": first.training_key})
    rows = [
        {"epoch": n, "train_loss": 1 / n, "train_accuracy": 0.5, "images_per_second": 1234.5,
         "val_loss": 0.75, "val_accuracy": 0.7 + n / 100, "best": n <= 3, "seconds": 60.0}
        for n in range(1, 7)
    ]  # fmt: skip
    write_csv(folder / "history.csv", rows)
    record = {"label": "epoch 7", "done": 50, "total": 200, "seconds": 15.0, "time": time.time(),
              "device": "NVIDIA H200", "used": 12.34e9, "memory": 139e9, "loss": 0.4321}
    write_progress(run.step_progress_path(first), record)
    (Path(config.output_dir) / LOG).write_text("2026-11-30 03:31:47 04_training-a: started\n")
    with lock(config.training_lock("a")):
        yield steps


def screen(config, steps, width=100, height=40, **options):
    console = Console(width=width, height=height, force_terminal=True, **options)
    with console.capture() as captured:
        console.print(render(inspect_run(config, steps), width, height))
    return captured.get()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_training_is_shown_within_its_epoch_with_the_last_ones_and_the_one_kept(config, steps):
    text = plain(screen(config, steps))
    (line,) = [line for line in text.splitlines() if "epoch 7/20" in line]
    # 50 batches of 32 images in 15 s, and 150 batches to go.
    assert "50/200, loss 0.432, 106.7 images/s, 45 s left" in line
    assert "a: epoch 3 kept: accuracy 0.730 on validation" in text
    assert re.search(r"^ +6 +0\.1667 +0\.500 +0\.7500 +0\.760 +1,234\.5", text, re.M)
    assert not re.search(r"^ +2 +0\.5000", text, re.M)  # only the last ones
    assert "NVIDIA H200: 12.3 of 139 GB in use" in text and "b waiting" in text
    assert "00 01 02 03 05 06 07 12 11 08 waiting" in text and "04_training-a: started" in text
    assert "if b take as long as the others" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("height", [10, 24])
def test_the_display_fits_its_terminal(config, steps, width, height):
    text = plain(screen(config, steps, width, height))
    assert all(len(line) <= width for line in text.splitlines())
    assert "50/200" in text and "7/20" in text
    assert len(text.splitlines()) <= 24


def test_many_trainings_are_counted_and_those_that_run_are_shown(config, steps):
    several = dataclasses.replace(config, trainings=6)
    text = plain(screen(several, run.plan(several, "data")))
    assert "epoch 7/20" in text and "trainings: 11 waiting" in text
    assert len(text.splitlines()) < 20


def test_without_colours_there_are_none(config, steps, monkeypatch):
    colour = r"\x1b\[[0-9;]*[39][0-9]"
    assert re.search(colour, screen(config, steps, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(colour, screen(config, steps, color_system="standard"))


def test_where_nothing_has_begun_or_all_is_done_the_display_says_so(config, tmp_path):
    steps = run.plan(config, "data")
    text = plain(screen(config, steps))
    assert "not known before the first epoch" in text and "no process is alive" in text
    assert "  0%" in text
    for step in steps:
        record = {"schema": run.SCHEMA, "outputs": {}, "key": step.key, "state": "done"}
        write_json(run.step_status_path(step), record | {"seconds": 60, "started": 0})
        if step.training_key:
            folder = Path(config.output_dir) / step.parameters["architecture"]
            asked = {"training_key": step.training_key, "epochs": 20, "finished": True}
            write_json(folder / "run.json", asked)
    text = plain(screen(config, steps))
    assert "100%" in text and "all is done" in text and "alive" not in text
    display.watch(config, steps)  # returns at once


def test_without_a_terminal_a_line_a_minute_is_printed_and_logged(
    config, steps, capsys, monkeypatch
):
    monkeypatch.setattr(display, "MINUTE", 0.05)
    assert not is_terminal()
    with run_log(Path(config.output_dir), "run") as log, shown(config, steps, log):
        time.sleep(0.5)
        print("  7/20  epoch")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "04_training-a:   7/20   batch 50 of 200, loss 0.432, 106.7 images/s, 45 s left"
    )
    assert "  7/20  epoch" in lines
    assert lines[0] in (Path(config.output_dir) / LOG).read_text()
    after = len(capsys.readouterr().out)
    time.sleep(0.2)
    assert len(capsys.readouterr().out) == after == 0  # the thread has ended


def on_terminal(*arguments, columns=100, **environment):
    """Runs a command on a pseudo-terminal; returns its exit code and all that it shows."""
    pid, screen = pty.fork()
    if not pid:
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": str(columns), **environment})
        os.environ.pop("MELANOMA_HEADLESS", None)
        os.execv(sys.executable, [sys.executable, *map(str, arguments)])
    seen, deadline = b"", time.time() + 120
    while time.time() < deadline:
        try:
            if select.select([screen], [], [], 1)[0]:
                seen += os.read(screen, 100_000)
        except OSError:  # the command has ended
            break
    os.close(screen)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode("utf-8", "replace")


def test_on_a_terminal_a_training_has_one_display_and_its_lines_are_in_the_log(dataset, tmp_path):
    code, seen = on_terminal(
        "-m", "melanoma_lib", "train", "test_resnet", "--data-dir", dataset, "--output-dir",
        tmp_path / "run", "--no-pretrained", "--image-size", "32", "--batch-size", "16",
        "--epochs", "30", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, seen
    text = plain(seen)
    assert re.search(r"all is done, in .*test_resnet: epoch \d+ kept.*next:", text, re.S)
    epochs = [line for line in text.splitlines() if re.search(r"/30 +[0-9.]+ +[0-9.]+ ", line)]
    assert all(re.match(r"\r?\d{4}-", line) for line in epochs)  # those of the log, and no others
    log = (tmp_path / "run" / LOG).read_text()
    assert all(f" {epoch}/30 " in log for epoch in (1, 15, 30)) and "ended after" in log
    assert not list((tmp_path / "run").rglob(".*.progress*"))


def test_watching_ends_when_all_is_done(config, monkeypatch, capsys):
    monkeypatch.setattr(display, "MINUTE", 0.1)
    (step,) = run.plan(config, "data")[:1]
    watching = threading.Thread(target=display.watch, args=(config, [step]), daemon=True)
    watching.start()
    time.sleep(0.3)
    record = {"schema": run.SCHEMA, "outputs": {}, "key": step.key, "state": "done"}
    write_json(run.step_status_path(step), record | {"seconds": 60, "started": 0})
    watching.join(10)
    assert not watching.is_alive()
    shown = capsys.readouterr().out
    assert "no process is alive" in shown and "all is done" in shown
