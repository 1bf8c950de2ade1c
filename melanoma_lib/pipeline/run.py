"""The notebooks executed in order through papermill; what is up to date is skipped.

A step is one execution of one notebook. Its key is a digest of everything its outcome depends on:
the notebook, its parameters, the library, the dataset, and the keys of the steps whose results it
reads. A step is up to date when it finished with the same key and its outputs exist. Executing
chapter 04 again is cheap, because a finished training is only read.

Chapters 05 to 07 wait for all trainings of chapter 04. Chapter 08 waits for everything, because it
measures latency. Steps that do not wait for each other may run in parallel.
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
LOCK = ".lock"  # in a run folder, held while its notebooks are executed
ASKED = "config.json"  # in a run folder: the configuration and parameters it was last run with
SCHEMA = 2  # of the status files of steps
TRAINING = "04"  # executed once per architecture
LAST = "08"  # measures time, so nothing runs beside it


@dataclass(frozen=True)
class Step:
    """One execution of a notebook; `key` is a digest of all that its outcome depends on."""

    name: str
    notebook: Path
    parameters: dict = field(compare=False)
    key: str
    training_key: str = ""  # of chapter 04: identifies the training

    @property
    def chapter(self) -> str:
        """The two digits before the notebook's name."""
        return self.notebook.stem[:2]

    def reads(self, other: "Step") -> bool:
        """Whether this step reads results of the other one."""
        if self.chapter == LAST:
            return TRAINING <= other.chapter < LAST
        return self.chapter > TRAINING == other.chapter

    def waits_for(self, other: "Step") -> bool:
        """Whether this step cannot begin before the other one is done."""
        return self is not other if self.chapter == LAST else self.reads(other)


def chapters() -> list[Path]:
    """The notebooks of a run, in order."""
    return sorted(NOTEBOOKS.glob("0[0-8]_*.ipynb"))


def declared(notebook: Path) -> list[str]:
    """The names of the parameters that a notebook declares."""
    cells = read_json(notebook)["cells"]
    found = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    tree = ast.parse("".join(line for cell in found for line in cell["source"]))
    return [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]


def plan(
    config: Config, fingerprint: str, extra: dict[str, object] | None = None, contents: str = ""
) -> list[Step]:
    """The steps of a run in order.

    `fingerprint` identifies the table and images of the dataset, `contents` its masks, which only
    figures depend on. `extra` are notebook parameters that the configuration does not hold. Raises
    `MelanomaError` for a parameter that no notebook declares, or that the configuration holds.
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
    """Identifies the training of the run on the other split; "" without one."""
    if not config.other_split:
        return ""
    record = read_json(Path(config.other_split) / config.architectures[0] / "run.json")
    return digest([record.get(name) for name in ("training_key", "epochs", "finished")])


def _values(config: Config, architecture: str) -> dict[str, object]:
    """The configuration as notebook parameters: strings, numbers and booleans."""
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
    """The status file of a step in its run folder: state, key and outputs."""
    return Path(config.output_dir) / "steps" / f"{step.name}.json"


def state_of(config: Config, step: Step) -> str:
    """One of `waiting`, `started`, `failed`, `done`, and `stale`: done, but with another key."""
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
    """Whether the run folder holds the finished training of a step of chapter 04."""
    key = step.training_key
    return not key or config.trained(step.parameters["architecture"], key)


def _files(config: Config, step: Step) -> dict[str, int]:
    """A step's notebook, figures and tables that exist, with the times they were written."""
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
    """Executes the steps that are not up to date, up to `jobs` in parallel.

    Steps begin in the order given as soon as they wait for nothing. `devices` are GPUs as in
    CUDA_VISIBLE_DEVICES; parallel steps get one each, in turn. `asked`, the arguments of `plan`, is
    recorded with the configuration. Steps that do not wait for a failed one still run; then
    `MelanomaError` is raised.
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
    """Executes steps in parallel, only `shared` at a time while there are trainings; the errors."""
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
                if execution.handle_message():
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
    """A step in execution by another process, and its status file."""

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

    def handle_message(self) -> bool:
        """Handles a message of the process; returns whether it was the last, and records that."""
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
