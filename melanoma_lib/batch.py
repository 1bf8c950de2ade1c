"""The batch: executes the notebooks in order through papermill, and only what is not up to date.

A step is one execution of one notebook. Its key covers everything its outcome depends on: the
notebook, the parameters it declares, the library, the dataset, and the keys of the steps it
builds on. A step is up to date when it finished with the same key and its outputs exist.
Executing chapter 04 again is cheap: a finished training is only read.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from melanoma_lib.artifacts import PROJECT, MelanomaError, digest, offenders, read_json, write_json
from melanoma_lib.config import Config
from melanoma_lib.progress import HEADLESS

NOTEBOOKS = PROJECT / "notebooks"
TRAINING = "04"  # executed once per architecture
AFTER_TRAINING = ("05", "06", "07", "08")
EPOCH_LINE = re.compile(r"\s*(epoch {2}|going on|\d+/\d+ )")  # what `fit` prints


@dataclass(frozen=True)
class Step:
    """One execution of a notebook; `key` says what its outcome depends on."""

    name: str
    notebook: Path
    parameters: dict = field(compare=False)
    key: str


def chapters() -> list[Path]:
    """The notebooks the batch runs, in order."""
    return sorted(NOTEBOOKS.glob("0[0-8]_*.ipynb"))


def declared(notebook: Path) -> dict[str, object]:
    """The names in a notebook's parameters cell."""
    import papermill

    with _quiet():
        return papermill.inspect_notebook(str(notebook))


def plan(config: Config, fingerprint: str, extra: dict[str, object] | None = None) -> list[Step]:
    """The steps of a run in order.

    `extra` are notebook parameters beside the configuration's; raises `MelanomaError` for one
    that no notebook declares.
    """
    extra = extra or {}
    names = {path: declared(path) for path in chapters()}
    unknown = set(extra) - {name for known in names.values() for name in known}
    if unknown:
        known = sorted({name for declared in names.values() for name in declared})
        raise MelanomaError(
            f"no notebook has a parameter {offenders(sorted(unknown))}; there are "
            f"{', '.join(known)}"
        )
    common = digest([_library_digest(), fingerprint])
    steps: list[Step] = []
    for path in chapters():
        chapter = path.stem[:2]
        for architecture in config.architectures if chapter == TRAINING else [""]:
            values = _values(config, architecture) | extra
            values = {name: values[name] for name in names[path] if name in values}
            builds_on = [s.key for s in steps if s.notebook.stem[:2] == TRAINING]
            key = digest(
                [common, hashlib.sha256(path.read_bytes()).hexdigest(), values]
                + (builds_on if chapter in AFTER_TRAINING else [])
            )
            name = f"{path.stem}-{architecture}" if architecture else path.stem
            steps.append(Step(name, path, values, key))
    return steps


def _values(config: Config, architecture: str) -> dict[str, object]:
    """The configuration as notebook parameters, which are scalars."""
    values = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    del values["augmentation"]
    return values | {
        "architecture": architecture,
        "architectures": ",".join(config.architectures),
        "figures_dir": str(config.figures),
        "weights": config.weights.get(architecture, ""),
    }


def _library_digest() -> str:
    state = hashlib.sha256()
    for path in sorted((PROJECT / "melanoma_lib").rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def marker(config: Config, step: Step) -> Path:
    """The file that says how far a step has come, and with which key."""
    return Path(config.output_dir) / "steps" / f"{step.name}.json"


def state_of(config: Config, step: Step) -> str:
    """`done`, `stale` (done with other inputs), `failed`, `started` or `waiting`."""
    path = marker(config, step)
    if not path.exists():
        return "waiting"
    record = read_json(path)
    if record["state"] != "done":
        return record["state"]
    whole = record["key"] == step.key and all(Path(name).exists() for name in record["outputs"])
    return "done" if whole else "stale"


def run(config: Config, steps: list[Step]) -> None:
    """Executes the steps that are not up to date; raises `MelanomaError` for one that fails."""
    output = Path(config.output_dir)
    with lock(output):
        for number, step in enumerate(steps, start=1):
            head = f"[{number:2d}/{len(steps)}] {step.name}"
            if state_of(config, step) == "done":
                print(f"{head}: up to date", flush=True)
                continue
            print(head, flush=True)
            start = time.perf_counter()
            execute(config, step)
            print(f"{' ' * 8}done in {time.perf_counter() - start:.0f} s", flush=True)


def execute(config: Config, step: Step) -> None:
    """Executes one notebook and records it; a failed notebook is kept beside the good ones."""
    import papermill

    folder = Path(config.output_dir) / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    target, failed = folder / f"{step.name}.ipynb", folder / f"{step.name}.failed.ipynb"
    record = {"schema": 1, "key": step.key, "state": "started", "started": time.time()}
    write_json(marker(config, step), record)
    earlier = set(_figures(config, step).items())
    try:
        with _environment(HEADLESS, "1"), _log(Path(config.output_dir) / "run.log"):
            papermill.execute_notebook(
                str(step.notebook),
                str(failed),
                parameters=step.parameters,
                kernel_name="python3",
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                log_output=True,
            )
    except papermill.PapermillExecutionError as error:
        write_json(marker(config, step), record | {"state": "failed"})
        raise MelanomaError(
            f"{step.name} failed: {error.ename}: {error.evalue.strip()} (see {failed})"
        ) from None
    except RuntimeError as error:  # the kernel died, for example for want of memory
        write_json(marker(config, step), record | {"state": "failed"})
        raise MelanomaError(f"{step.name}: {error}; run again to go on") from None
    failed.replace(target)
    made = set(_figures(config, step).items()) - earlier
    record |= {
        "state": "done",
        "seconds": time.time() - record["started"],
        "outputs": [str(target), *sorted(name for name, _ in made)],
    }
    write_json(marker(config, step), record)


def _figures(config: Config, step: Step) -> dict[str, int]:
    """The figures of the step's chapter with the time they were written."""
    found = config.figures.glob(f"{step.notebook.stem[:2]}-*")
    return {str(path): path.stat().st_mtime_ns for path in found}


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process; raises `MelanomaError` naming who holds it already."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise MelanomaError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for it "
                "or choose another --output-dir"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def in_use(folder: Path) -> bool:
    """Whether a batch holds the folder at this moment."""
    if not (folder / ".lock").exists():
        return False
    with (folder / ".lock").open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    earlier = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if earlier is not None:
            os.environ[name] = earlier


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Terminal(logging.Handler):
    """Shows the training table's lines while a notebook runs."""

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            if EPOCH_LINE.match(line):
                print(f"{' ' * 8}{line}", flush=True)


@contextlib.contextmanager
def _log(path: Path) -> Iterator[None]:
    """Sends what a notebook prints to the run's log, and its epochs to the terminal too."""
    logger = logging.getLogger("papermill")
    handlers = [logging.FileHandler(path, encoding="utf-8"), _Terminal()]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
