"""What is done, what runs, and how long it will take, read from a run folder."""

import time
from pathlib import Path

from melanoma_lib.artifacts import locked, read_history, read_json
from melanoma_lib.batch import LOCK, marker, plan, state_of
from melanoma_lib.config import Config
from melanoma_lib.data.metadata import open_dataset


def report(config: Config) -> str:
    """The state of every step of a run, and the time left, as text."""
    files = open_dataset(config.data_dir, config.metadata, config.img_dir)
    holder = Path(config.output_dir) / LOCK
    running_since = holder.stat().st_mtime if locked(holder) else float("inf")
    lines = []
    for step in plan(config, files.fingerprint):
        state = state_of(config, step)
        if state == "started":
            started = read_json(marker(config, step))["started"]
            state = "running" if started >= running_since else "interrupted"
        detail = ""
        if state in ("done", "running"):
            record = read_json(marker(config, step))
            seconds = record.get("seconds", time.time() - record["started"])
            detail = duration(seconds)
        architecture = step.parameters.get("architecture")
        if architecture and state != "done":
            epochs = len(read_history(Path(config.output_dir) / architecture))
            detail = f"{epochs} of {config.epochs} epochs{', ' + detail if detail else ''}"
        lines.append(f"{step.name:32s} {state:12s} {detail}".rstrip())
    return "\n".join([config.output_dir, *lines, time_left(config)])


def time_left(config: Config) -> str:
    """How long the trainings still take, from the epochs measured in this run so far."""
    seconds, unknown = 0.0, []
    for architecture in config.architectures:
        done = read_history(Path(config.output_dir) / architecture)
        epochs = [float(row["seconds"]) for row in done]
        if epochs:
            seconds += max(config.epochs - len(epochs), 0) * sum(epochs) / len(epochs)
        else:
            unknown.append(architecture)
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
