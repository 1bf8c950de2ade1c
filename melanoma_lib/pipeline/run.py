"""The batch: executes the notebooks in order through papermill, and only what is not up to date.

Chapters 05 to 07 wait for all trainings of chapter 04, and chapter 08 for everything, because it
measures time and wants the machine for itself; what does not wait for each other may run side by
side. A step is one execution of one notebook. Its key covers everything its outcome depends on:
the notebook, the parameters it declares, the library, the dataset, and the keys of the steps it
builds on. A step is up to date when it finished with the same key and its outputs exist. Executing
chapter 04 again is cheap: a finished training is only read.
"""

import ast
import dataclasses
import hashlib
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from melanoma_lib.config import Config, format_operating_points
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import PROJECT, digest, read_json, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import HEADLESS
from melanoma_lib.pipeline.execute import DIED, execute_notebook, start_process

NOTEBOOKS = PROJECT / "notebooks"
LOCK = ".lock"  # in a run folder that a batch holds
ASKED = "config.json"  # in a run folder: what it was last asked for
SCHEMA = 2  # of the files that say how far a step has come
TRAINING = "04"  # executed once per architecture
LAST = "08"  # measures time, so nothing runs beside it


@dataclass(frozen=True)
class Step:
    """One execution of a notebook; `key` says what its outcome depends on."""

    name: str
    notebook: Path
    parameters: dict = field(compare=False)
    key: str
    training_key: str = ""  # of a training: what its weights depend on

    @property
    def chapter(self) -> str:
        """The two digits before the notebook's name."""
        return self.notebook.stem[:2]

    def reads(self, other: "Step") -> bool:
        """Whether this step reads what the other one leaves."""
        if self.chapter == LAST:
            return TRAINING <= other.chapter < LAST
        return self.chapter > TRAINING == other.chapter

    def waits_for(self, other: "Step") -> bool:
        """Whether this step cannot begin before the other one is done."""
        return self is not other if self.chapter == LAST else self.reads(other)


def chapters() -> list[Path]:
    """The notebooks the batch runs, in order."""
    return sorted(NOTEBOOKS.glob("0[0-8]_*.ipynb"))


def declared(notebook: Path) -> list[str]:
    """The names in a notebook's parameters cell."""
    cells = read_json(notebook)["cells"]
    found = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    tree = ast.parse("".join(line for cell in found for line in cell["source"]))
    return [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]


def plan(
    config: Config, fingerprint: str, extra: dict[str, object] | None = None, contents: str = ""
) -> list[Step]:
    """The steps of a run in order.

    `fingerprint` is what trainings know of the dataset, `contents` what figures show beside that
    (its masks). `extra` are notebook parameters beside the configuration's; raises
    `MelanomaError` for one that no notebook declares, or that the configuration holds.
    """
    extra = extra or {}
    fixed = sorted(set(extra) & {*Config.__dataclass_fields__, "architecture"})
    if fixed:
        raise MelanomaError(f"{summarize_items(fixed)} cannot be set with -p; use its own option")
    names = {path: declared(path) for path in chapters()}
    known = {name for parameters in names.values() for name in parameters}
    if unknown := sorted(set(extra) - known):
        there = ", ".join(sorted(known))
        names = summarize_items(unknown)
        raise MelanomaError(f"no notebook has a parameter {names}; there are {there}")
    common = digest([_library_digest(), fingerprint, contents])
    steps: list[Step] = []
    for path in chapters():
        chapter = path.stem[:2]
        for architecture in config.architectures if chapter == TRAINING else [""]:
            values = _values(config, architecture) | extra
            values = {name: values[name] for name in names[path] if name in values}
            training_key = config.training_key(architecture, fingerprint) if architecture else ""
            name = f"{path.stem}-{architecture}" if architecture else path.stem
            step = Step(name, path, values, "", training_key)
            key = digest(
                [common, hashlib.sha256(path.read_bytes()).hexdigest(), values, training_key]
                + [earlier.key for earlier in steps if step.reads(earlier)]
                + ([_trained_elsewhere(config)] if "other_split" in names[path] else [])
            )
            steps.append(dataclasses.replace(step, key=key))
    return steps


def _trained_elsewhere(config: Config) -> str:
    """What the run on the other split was trained with, if one is named."""
    if not config.other_split:
        return ""
    record = read_json(Path(config.other_split) / config.architectures[0] / "run.json")
    return digest([record.get(name) for name in ("training_key", "epochs", "finished")])


def _values(config: Config, architecture: str) -> dict[str, object]:
    """The configuration as notebook parameters, which are scalars."""
    values = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    del values["augmentation"]
    return values | {
        "architecture": architecture,
        "architectures": ",".join(config.architectures),
        "operating_points": format_operating_points(config.operating_points),
        "figures_dir": str(config.figures),
        "weights": config.weights.get(architecture, ""),
    }


def _library_digest() -> str:
    state = hashlib.sha256()
    for path in sorted((PROJECT / "melanoma_lib").rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def step_status_path(config: Config, step: Step) -> Path:
    """The file that says how far a step has come, and with which key."""
    return Path(config.output_dir) / "steps" / f"{step.name}.json"


def state_of(config: Config, step: Step) -> str:
    """`done`, `stale` (done with other inputs), `failed`, `started` or `waiting`."""
    path = step_status_path(config, step)
    if not path.exists():
        return "waiting"
    record = read_json(path)
    if record.get("schema") != SCHEMA:
        return "stale"
    if record["state"] != "done":
        return record["state"]
    there = _files(config, step)
    whole = all(there.get(name) == written for name, written in record["outputs"].items())
    return "done" if whole and record["key"] == step.key and _trained(config, step) else "stale"


def _trained(config: Config, step: Step) -> bool:
    """Whether the run folder holds the training that a step of chapter 04 left there."""
    key = step.training_key
    return not key or config.trained(step.parameters["architecture"], key)


def _files(config: Config, step: Step) -> dict[str, int]:
    """What a step may have written, with the time it was written: notebook, figures, tables."""
    output, architecture = Path(config.output_dir), step.parameters.get("architecture", "")
    ending = f"-{architecture}" if architecture else ""
    found = [output / "notebooks" / f"{step.name}.ipynb"]
    drawn = config.figures.glob(f"{step.chapter}-*")
    found += [path for path in drawn if path.stem.endswith(ending)]  # names may hold dots
    if step.chapter == "08":
        found += [*output.glob("comparison_*"), *output.glob("summary.md")]
        found += output.glob("tables/*")
    return {str(path): path.stat().st_mtime_ns for path in found if path.exists()}


def run(
    config: Config,
    steps: list[Step],
    jobs: int = 1,
    devices: Sequence[str] = (),
    asked: Mapping[str, object] | None = None,
) -> None:
    """Executes the steps that are not up to date, up to `jobs` side by side.

    The first in the order given begins that waits for nothing. `devices` are GPUs as
    CUDA_VISIBLE_DEVICES names them; side by side, each has one in turn. What `plan` was `asked`
    for is recorded with the configuration. A step that fails does not stop the others that do not
    wait for it; `MelanomaError` is raised then.
    """
    waiting = []
    with lock(Path(config.output_dir) / LOCK):
        for step in steps:
            if state_of(config, step) == "done":
                print(f"{step.name}: up to date", flush=True)
            else:
                waiting.append(step)
        if waiting and asked:
            record = {"config": dataclasses.asdict(config), "asked": asked}
            write_json(Path(config.output_dir) / ASKED, record)
        trainings = sum(bool(step.training_key) for step in steps)
        errors = _work(config, waiting, jobs, min(jobs, trainings), devices)
    for error in errors[1:]:
        print(error, flush=True)
    if errors:
        raise errors[0]


def _work(
    config: Config, waiting: list[Step], jobs: int, shared: int, devices: Sequence[str]
) -> list[MelanomaError]:
    """Executes steps side by side, `shared` of them while one is a training; what went wrong."""
    running: dict[Connection, _Execution] = {}
    errors = []
    free = list(itertools.islice(itertools.cycle(devices or [""]), jobs))
    try:
        while waiting or running:
            unfinished = [*waiting, *(execution.step for execution in running.values())]
            ready = [s for s in waiting if not any(s.waits_for(other) for other in unfinished)]
            # A training resumes exactly only with the same number of threads, whatever is left;
            # and threads that wait for those of another process make it many times slower.
            most = shared if any(step.training_key for step in unfinished) else jobs
            beside = min(most, len(ready) + len(running))
            for step in ready[: most - len(running)]:
                threads = (os.cpu_count() or 1) // (shared if step.training_key else beside)
                execution = _Execution(config, step, max(1, threads), free.pop(0))
                running[execution.messages] = execution
                waiting.remove(step)
            for messages in wait(list(running)):
                execution = running[messages]
                if execution.ended():
                    del running[messages]
                    free.append(execution.device)
                    if execution.error:
                        errors.append(execution.error)
                        waiting = [s for s in waiting if not s.waits_for(execution.step)]
    finally:
        for execution in running.values():
            execution.process.kill()
    return errors


class _Execution:
    """A step that another process executes, and what the run folder records about it."""

    def __init__(self, config: Config, step: Step, threads: int, device: str):
        self.config, self.step, self.device = config, step, device
        self.error: MelanomaError | None = None
        self.status = step_status_path(config, step)
        before = read_json(self.status, {}).get("outputs", {})  # until they are written again
        self.record = {"schema": SCHEMA, "key": step.key, "started": time.time(), "outputs": before}
        write_json(self.status, self.record | {"state": "started"})
        print(f"{step.name}: started", flush=True)
        self.earlier = _files(config, step)
        environment = {HEADLESS: "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": str(threads)}
        environment |= {"CUDA_VISIBLE_DEVICES": device} if device else {}
        output = Path(config.output_dir).resolve()
        target = output / "notebooks" / f"{step.name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        self.process, self.messages = start_process(
            execute_notebook, step.notebook, step.parameters, target, output / "run.log",
            environment,
        )  # fmt: skip

    def ended(self) -> bool:
        """Takes a message of the process; returns whether it was the last, and records that."""
        try:
            message = self.messages.recv()
        except EOFError:
            message = MelanomaError(DIED)
        if isinstance(message, str):
            print(f"{self.step.name}: {message}", flush=True)
            return False
        if message is None:
            self._record_outputs()
        else:
            self.error = MelanomaError(f"{self.step.name} failed: {message}")
            write_json(self.status, self.record | {"state": "failed"})
            print(f"{self.step.name}: failed", flush=True)
        self.process.join()
        return True

    def _record_outputs(self) -> None:
        seconds = time.time() - self.record["started"]
        outputs = dict(sorted(_files(self.config, self.step).items() - self.earlier.items()))
        for gone in set(self.record["outputs"]) - set(outputs):  # not of this execution any more
            Path(gone).unlink(missing_ok=True)
        done = {"state": "done", "seconds": seconds, "outputs": outputs}
        write_json(self.status, self.record | done)
        print(f"{self.step.name}: done in {seconds:.0f} s", flush=True)
