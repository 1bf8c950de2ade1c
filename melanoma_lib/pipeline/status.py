"""The state of a run, from its files: what is done, what is running, how long it will take."""

import functools
import os
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melanoma_lib.config import LEAKAGE, Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, read_history, read_json
from melanoma_lib.core.locks import locked
from melanoma_lib.core.log import LOG
from melanoma_lib.core.progress import duration
from melanoma_lib.pipeline.run import (
    LOCK,
    RUN_CONFIG,
    Step,
    phase,
    plan,
    relocate,
    state_of,
    step_progress_path,
    step_status_path,
)

RUNS = PROJECT / "runs"
CHAPTER = 30.0  # seconds that a chapter is taken for until it has been executed once
SILENCE = 90.0  # seconds after which a process that writes nothing may be dead


@dataclass(frozen=True)
class StepView:
    """A step as its files show it; `now` is the loop that runs, as `core.progress` writes it."""

    step: Step
    state: str  # of `state_of`; for started running or interrupted, without its notebook trained
    seconds: float  # that it took, or since it began; 0: unknown
    usual: float  # that it took the last time; 0: unknown
    epochs: list[dict[str, str]]  # the finished ones of a training
    now: dict

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done, wholly or in part."""
        return self.state not in ("done", "trained")

    @property
    def epoch_seconds(self) -> float | None:
        """Of a training, by its finished epochs or a tenth of the first; None: not measured."""
        if self.epochs:
            return statistics.mean(float(row["seconds"]) for row in self.epochs)
        if self.in_epoch and 10 * self.now["done"] >= self.now["total"] > 0:
            return self.now["seconds"] * self.now["total"] / self.now["done"]
        return None

    @property
    def best(self) -> dict[str, str]:
        """Of a training with epochs, the one whose weights are kept: the last that was a best."""
        return [row for row in self.epochs if row["best"] == "True"][-1]

    @property
    def kept(self) -> str:
        """Which epoch's weights are kept, in words."""
        accuracy = float(self.best["val_accuracy"])
        return f"epoch {self.best['epoch']} kept: accuracy {accuracy:.3f} on validation"

    @property
    def in_epoch(self) -> bool:
        """Whether the loop that runs is that over the batches of an epoch."""
        return self.now.get("label", "").startswith("epoch")


@dataclass(frozen=True)
class RunView:
    """A run as its files show it, at one moment."""

    config: Config
    steps: list[StepView]
    alive: bool  # whether a process works on it
    since: float | None  # when that began
    left: float | None  # seconds; None: not known yet
    unmeasured: list[str]  # trainings taken to be as long as the others
    fraction: float  # of the work that is done

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not any(each.is_open for each in self.steps)


def find_runs(output_dir: str = "") -> list[Path]:
    """The run in a folder, or else all in the project's `runs`; `MelanomaError` without any."""
    folders = [Path(output_dir).resolve()] if output_dir else sorted(RUNS.glob("*"))
    if found := [folder for folder in folders if _asked(folder)]:
        return found
    raise MelanomaError(
        f"there is no run in {output_dir or RUNS}; `melanoma run --preset sample` makes one in "
        "minutes"
    )


def recorded_run(folder: Path) -> tuple[Config, list[Step]]:
    """The configuration and the steps with which a run was last started, from its folder alone."""
    record = _asked(folder)
    try:
        values = relocate(record["config"], lambda path: os.path.normpath(folder / path))
        config = Config.from_json(values | {"output_dir": str(folder)})
    except (KeyError, TypeError) as error:
        raise MelanomaError(
            f"{folder} was made by another version ({error}); give status the run's options"
        ) from None
    steps = plan(config, **record["asked"])
    return config, [step for step in steps if step.training_key or record.get("chapters", True)]


def latest_run(output_dir: str = "") -> Path:
    """Of the runs that `find_runs` finds the one that was begun last."""
    def last_started(run: Path) -> float:
        files = (run / LOG, run / RUN_CONFIG)
        return max((path.stat().st_mtime for path in files if path.exists()), default=0.0)

    return max(find_runs(output_dir), key=last_started)


def _asked(folder: Path) -> dict:
    """What `run` recorded; for trainings without notebooks, or of earlier versions, their own."""
    trained = [read_json(path) for path in sorted(folder.glob("*/run.json"))]
    record = read_json(folder / RUN_CONFIG, {})
    if record or not trained:
        return record
    names = [training["architecture"] for training in trained]
    asked = {"fingerprint": trained[0]["dataset"]["fingerprint"]}
    return {"config": trained[0]["config"] | {"architectures": names}, "asked": asked}


def inspect_run(config: Config, steps: Sequence[Step]) -> RunView:
    """The run now; reading it disturbs nothing."""
    locks = {Path(config.output_dir) / LOCK}
    locks |= {step.config.training_lock(step.parameters["architecture"])
              for step in steps if step.training_key}  # fmt: skip
    held = [path for path in locks if locked(path)]
    since = min((path.stat().st_mtime for path in held), default=None)
    views = [_look_at(step, Path(config.output_dir) / LOCK in held, since) for step in steps]
    # Between machines a file system may know no locks: whoever writes is alive.
    here = any(socket.gethostname() in path.read_text() for path in locks if path.exists())
    written = (path for path in map(step_progress_path, steps) if path.exists() and not here)
    fresh = any(abs(time.time() - path.stat().st_mtime) < SILENCE for path in written)
    wholes, lefts, unmeasured = _estimates(views)
    started = read_json(Path(config.output_dir) / RUN_CONFIG, {})
    left = _side_by_side(views, lefts, started.get("jobs", 1), started.get("devices", 0))
    done = 1 - sum(lefts) / sum(wholes) if any(wholes) else 0.0
    return RunView(config, views, bool(held) or fresh, since, left, unmeasured, done)


def _look_at(step: Step, by_run: bool, since: float | None) -> StepView:
    stamps = [step_status_path(step), Path(step.config.output_dir) / "run.json"]
    if step.training_key:
        stamps[1] = Path(step.config.output_dir) / step.parameters["architecture"] / "run.json"
    state = _state(step, *(path.stat().st_mtime_ns if path.exists() else 0 for path in stamps))
    record = read_json(step_status_path(step), {})
    seconds = record.get("seconds", time.time() - record.get("started", time.time()))
    if state == "started":
        state = "running" if by_run and record["started"] >= since else "interrupted"
    if step.training_key:
        architecture = step.parameters["architecture"]
        if locked(step.config.training_lock(architecture)):
            state = "running"  # also by `melanoma train`
        elif state == "waiting" and step.config.trained(architecture, step.training_key):
            state = "trained"
    epochs = finished_epochs(step) if step.training_key else []
    return StepView(
        step,
        "interrupted" if state == "waiting" and epochs else state,
        seconds if state in ("done", "running") else 0.0,
        record.get("seconds") or record.get("usual") or 0.0,
        epochs,
        read_json(step_progress_path(step), {}) if state == "running" else {},
    )


@functools.lru_cache(maxsize=1000)
def _state(step: Step, *_stamps: int) -> str:
    """`state_of`, which reads all outputs, once for each change of the step's records."""
    return state_of(step)


def _estimates(views: Sequence[StepView]) -> tuple[list[float], list[float | None], list[str]]:
    """For each step the seconds it takes and those left of them, and what is not measured yet.

    None where no training is measured. What follows a training, as its heat maps, is taken to be as
    long as after others, or as an epoch.
    """
    trainings = [view for view in views if view.step.training_key]
    by_name = {view.step.parameters["architecture"]: view.epoch_seconds for view in trainings
               if view.epoch_seconds}  # fmt: skip
    usual = statistics.mean(by_name.values()) if by_name else 0.0
    after = [max(view.seconds - sum(float(row["seconds"]) for row in view.epochs), 0.0)
             for view in trainings if view.state == "done" and view.epochs]  # fmt: skip
    wholes, lefts, unmeasured = [], [], []
    for view in views:
        architecture = view.step.parameters.get("architecture")
        if not view.step.training_key:
            whole = view.usual or CHAPTER
            left = max(whole - view.seconds, 0.0)
        else:
            epoch = view.epoch_seconds or by_name.get(architecture, usual)
            rest = statistics.mean(after) if after else epoch
            whole = view.step.config.epochs * epoch + rest
            left = whole - len(view.epochs) * epoch
            if view.in_epoch:
                left -= view.now["seconds"]
            elif len(view.epochs) == view.step.config.epochs:
                left = rest - (view.seconds - sum(float(row["seconds"]) for row in view.epochs))
            left = min(max(left, 0.0), whole)
            if view.is_open and architecture not in by_name:
                unmeasured.append(view.step.name.partition("-")[2])
        wholes.append(whole)
        lefts.append(left if view.is_open else 0.0)
    return wholes, lefts, unmeasured


def _side_by_side(
    views: Sequence[StepView], lefts: Sequence[float], jobs: int, devices: int
) -> float | None:
    """The seconds left where `jobs` steps run at a time; trainings take turns on a GPU.

    A chapter waits until those of an earlier `phase` are done.
    """
    if any(v.step.training_key and v.is_open for v in views) and not any(
        v.epoch_seconds for v in views if v.step.training_key
    ):
        return None
    on_gpu = any(view.now.get("device", "CPU") != "CPU" for view in views)
    beside = max(devices, 1) if on_gpu else jobs
    seconds = 0.0
    phases = [phase(view.step.chapter) for view in views]
    for number in sorted(set(phases)):
        found = [(view.step, left) for view, left, of in zip(views, lefts, phases, strict=True)
                 if of == number]  # fmt: skip
        trainings = [left for step, left in found if step.training_key]
        every = [left for _, left in found]
        seconds += max(max(every, default=0), sum(every) / jobs, sum(trainings) / beside)
    return seconds


def report(config: Config, steps: Sequence[Step]) -> str:
    """The state of every step of a run, and the time left, as text."""
    view, lines = inspect_run(config, steps), []
    for each in view.steps:
        details = []
        if each.step.training_key and each.state != "done":
            details.append(f"{len(each.epochs)} of {config.epochs} epochs")
        if each.seconds:
            details.append(duration(each.seconds))
        lines.append(f"{each.step.name:32s} {each.state:12s} {', '.join(details)}".rstrip())
    return "\n".join([config.output_dir, *lines, *status_lines(view)])


def status_lines(view: RunView) -> list[str]:
    """The time left, whether a process is alive, and what is not counted."""
    if view.is_done:
        lines = ["all is done"]
    elif view.left is None:
        lines = ["time left: not known before the first epoch"]
    else:
        lines = [f"time left: about {duration(view.left)}"]
        if view.unmeasured:
            lines[0] += f", if {', '.join(view.unmeasured)} take as long as the others"
    if not view.is_done and not view.alive:
        lines.append("no process is alive: the command that began it goes on from here")
    if (Path(view.config.output_dir) / LEAKAGE).exists():
        lines.append("the trainings of melanoma leakage are not counted")
    return lines


def finished_epochs(step: Step) -> list[dict[str, str]]:
    """The history so far of the training of a step of chapter 04; [] if it has not begun.

    A training in the folder with other parameters, or with more epochs, does not count.
    """
    folder = Path(step.config.output_dir) / step.parameters["architecture"]
    record = read_json(folder / "run.json", {})
    history = read_history(folder) if record.get("training_key") == step.training_key else []
    history = [row for row in history if row["epoch"] != "0"]  # what precedes the first
    return history if len(history) <= step.config.epochs else []
