"""The state of a run: what is done, what is running, and how long it will take."""

import os
import re
import time
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, read_history, read_json
from melanoma_lib.core.locks import locked
from melanoma_lib.core.progress import duration
from melanoma_lib.pipeline.run import (
    ASKED,
    COMPARISON,
    LOCK,
    Step,
    plan,
    relocate,
    state_of,
    step_status_path,
)

RUNS = PROJECT / "runs"
GUIDE = PROJECT / "docs" / "thesis_guide.md"


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
    return config, plan(config, **record["asked"])


def _asked(folder: Path) -> dict:
    """What `run` recorded; for trainings without notebooks, or of earlier versions, their own."""
    trained = [read_json(path) for path in sorted(folder.glob("*/run.json"))]
    record = read_json(folder / ASKED, {})
    if record or not trained:
        return record
    names = [training["architecture"] for training in trained]
    asked = {"fingerprint": trained[0]["dataset"]["fingerprint"]}
    return {"config": trained[0]["config"] | {"architectures": names}, "asked": asked}


def report(config: Config, steps: list[Step]) -> str:
    """The state of every step of a run, and the time left, as text."""
    holder = Path(config.output_dir) / LOCK
    running_since = holder.stat().st_mtime if locked(holder) else float("inf")
    lines = []
    for step in steps:
        state, details = state_of(step), []
        if state == "started":
            started = read_json(step_status_path(step))["started"]
            state = "running" if started >= running_since else "interrupted"
        if step.training_key and locked(
            step.config.training_lock(step.parameters["architecture"])
        ):
            state = "running"  # also by `melanoma train`
        if step.training_key and state != "done":
            details.append(f"{len(finished_epochs(step))} of {config.epochs} epochs")
        if state in ("done", "running") and step_status_path(step).exists():
            record = read_json(step_status_path(step))
            details.append(duration(record.get("seconds", time.time() - record["started"])))
        lines.append(f"{step.name:32s} {state:12s} {', '.join(details)}".rstrip())
    return "\n".join([config.output_dir, *lines, time_left(steps)])


def finished_epochs(step: Step) -> list[dict[str, str]]:
    """The history so far of the training of a step of chapter 04; [] if it has not begun.

    A training in the folder with other parameters, or with more epochs, does not count.
    """
    folder = Path(step.config.output_dir) / step.parameters["architecture"]
    record = read_json(folder / "run.json", {})
    history = read_history(folder) if record.get("training_key") == step.training_key else []
    return history if len(history) <= step.config.epochs else []


def time_left(steps: list[Step]) -> str:
    """How long the trainings will still take, estimated from the epochs of this run so far."""
    seconds, unknown = 0.0, []
    for step in steps:
        if not step.training_key:
            continue
        epochs = [float(row["seconds"]) for row in finished_epochs(step)]
        if epochs:
            seconds += max(step.config.epochs - len(epochs), 0) * sum(epochs) / len(epochs)
        else:
            unknown.append(step.name.partition("-")[2])
    text = f"training left: {duration(seconds)}"
    if unknown:
        text += f", and {', '.join(unknown)}, whose first epoch is not measured yet"
    return text


def sections(guide: str) -> dict[str, list[str]]:
    """The names in backticks below each numbered heading of the thesis guide, by heading."""
    parts = re.split(r"^###? (.*)\n", guide, flags=re.MULTILINE)[1:]
    named = zip(parts[::2], parts[1::2], strict=True)
    return {
        head: re.findall(r"`([^`]+)`", body) for head, body in named if re.match(r"\d\.\d", head)
    }


def thesis(config: Config, steps: list[Step]) -> str:
    """The state of every section of the thesis guide, and the figures and tables it has and lacks.

    States: ready, open, text only. A figure or table counts if its chapter is up to date.
    """
    from melanoma_lib.reporting.figures import CATALOG, PER_MODEL  # slow to import
    from melanoma_lib.reporting.tables import CAPTIONS, table_file

    stale = {step.chapter for step in steps if state_of(step) != "done"}
    output, lines = Path(config.output_dir), [
        f"{config.output_dir}, by docs/{GUIDE.name}; what melanoma run would make again is lacking"
    ]
    for head, names in sections(GUIDE.read_text(encoding="utf-8")).items():
        files = {}
        for name in names:
            if name in CATALOG:
                keys = [f"-{key}" for key in config.architectures] if name in PER_MODEL else [""]
                files |= {name + key: config.figures / f"{name}{key}.pdf" for key in keys}
            elif name in CAPTIONS:
                files[name] = output / f"{table_file(name)}.tex"
        lacks = [
            name for name, file in files.items()
            if (name[:2] if name[:2].isdigit() else COMPARISON) in stale or not file.exists()
        ]  # fmt: skip
        state = "open" if lacks else "ready" if files else "text only"
        has = [name for name in files if name not in lacks]
        details = ", ".join(has) + ("; lacks " if has else "lacks ") * bool(lacks)
        lines.append(f"{state:10s} {head:36s} {details}{', '.join(lacks)}".rstrip())
    return "\n".join(lines)
