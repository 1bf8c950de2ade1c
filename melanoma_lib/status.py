"""What is done, what runs, and how long it will take, read from a run folder."""

import time
from pathlib import Path

from melanoma_lib.artifacts import locked, read_history, read_json
from melanoma_lib.batch import LOCK, Step, marker, state_of
from melanoma_lib.config import Config


def report(config: Config, steps: list[Step]) -> str:
    """The state of every step of a run, and the time left, as text."""
    holder = Path(config.output_dir) / LOCK
    running_since = holder.stat().st_mtime if locked(holder) else float("inf")
    lines = []
    for step in steps:
        state, details = state_of(config, step), []
        if state == "started":
            started = read_json(marker(config, step))["started"]
            state = "running" if started >= running_since else "interrupted"
        if step.training_key and locked(config.training_lock(step.parameters["architecture"])):
            state = "running"  # also by `melanoma train`
        if step.training_key and state != "done":
            details.append(f"{len(finished_epochs(config, step))} of {config.epochs} epochs")
        if state in ("done", "running") and marker(config, step).exists():
            record = read_json(marker(config, step))
            details.append(duration(record.get("seconds", time.time() - record["started"])))
        lines.append(f"{step.name:32s} {state:12s} {', '.join(details)}".rstrip())
    return "\n".join([config.output_dir, *lines, time_left(config, steps)])


def finished_epochs(config: Config, step: Step) -> list[dict[str, str]]:
    """The history of the training that a step of chapter 04 asks for, not of an earlier one."""
    folder = Path(config.output_dir) / step.parameters["architecture"]
    record = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    return read_history(folder) if record.get("training_key") == step.training_key else []


def time_left(config: Config, steps: list[Step]) -> str:
    """How long the trainings still take, from the epochs measured in this run so far."""
    seconds, unknown = 0.0, []
    for step in steps:
        if not step.training_key:
            continue
        epochs = [float(row["seconds"]) for row in finished_epochs(config, step)]
        if epochs:
            seconds += max(config.epochs - len(epochs), 0) * sum(epochs) / len(epochs)
        else:
            unknown.append(step.parameters["architecture"])
    text = f"training left: {duration(seconds)}"
    if unknown:
        text += f", and {', '.join(unknown)}, whose first epoch is not measured yet"
    return text


def duration(seconds: float) -> str:
    """Seconds as `2 h 05 min`, `3 min 20 s` or `45 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
