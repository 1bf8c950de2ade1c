"""The notebooks executed in order through papermill; what is up to date is skipped.

A step is one execution of one notebook. Its key is a digest of everything its outcome depends on:
the notebook, its parameters, the library, the dataset, and the keys of the steps whose results it
reads. A step is up to date when it finished with the same key and its outputs exist unchanged.
Keys and outputs are known by content and not by place or time, so that a copy of a run is as up to
date as the run. Executing chapter 04 again is cheap, because a finished training is only read.
"""

import ast
import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from melanoma_lib.config import LEAKAGE_RESULTS, PATHS, Config, format_operating_points
from melanoma_lib.core.environment import usable_cores
from melanoma_lib.core.errors import MelanomaError, describe_error, summarize_items
from melanoma_lib.core.files import PROJECT, digest, read_json, sha256, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import HEADLESS, PROGRESS_FILE
from melanoma_lib.core.provenance import VARIABLE, collect_provenance
from melanoma_lib.pipeline.execute import DIED, end_processes, execute_notebook, start_process

NOTEBOOKS = PROJECT / "notebooks"
LOCK = ".lock"  # in a run folder, held while its notebooks are executed
RUN_CONFIG = "config.json"  # in a run folder: the configuration and parameters it was last run with
CELLS_LOG = "notebooks.log"  # in a run folder: all that cells print
SCHEMA = 3  # of the status files of steps
TRAINING, COMPARISON = "04", "08"  # the first is executed once per architecture
# By chapter, those whose results it reads, and those it only waits for: 08 measures time, so that
# nothing may run beside it.
READS = {"05": ["04"], "06": ["04"], "07": ["04"], "11": ["04", "07"],
         COMPARISON: ["04", "05", "06", "07", "11"], "12": ["04"]}  # fmt: skip
AFTER = {COMPARISON: ["00", "01", "02", "03", "12"]}
BY_HAND = ("09", "10")  # chapters that no run executes: the web page and the cloud
# By chapter, what it leaves in the run folder besides its executed notebook.
RESULTS = {
    "11": ["abstention_results.json"],
    COMPARISON: ["comparison_*", "summary.md", "tables/*"],
}


@dataclass(frozen=True)
class Step:
    """One execution of a notebook; `key` is a digest of all that its outcome depends on."""

    name: str
    notebook: Path
    parameters: dict = field(compare=False)
    key: str
    config: Config = field(compare=False)  # of the run, or of a further training in it
    training_key: str = ""  # of chapter 04: identifies the training

    @property
    def chapter(self) -> str:
        """The two digits before the notebook's name."""
        return self.notebook.stem[:2]

    def reads(self, other: "Step") -> bool:
        """Whether this step needs what the other one leaves."""
        return other.chapter in READS.get(self.chapter, [])

    def waits_for(self, other: "Step") -> bool:
        """Whether this step cannot begin before the other one has ended."""
        return self.reads(other) or other.chapter in AFTER.get(self.chapter, [])


def chapters() -> list[Path]:
    """The notebooks of a run, in the order in which they are executed."""
    found = [path for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if path.stem[:2] not in BY_HAND]
    return sorted(found, key=lambda path: (phase(path.stem[:2]), path))


def phase(chapter: str) -> int:
    """How many chapters at most must be done one after the other before this one can begin."""
    before = READS.get(chapter, []) + AFTER.get(chapter, [])
    return 1 + max(map(phase, before), default=-1)


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
    library = [sha256(path) for path in sorted((PROJECT / "melanoma_lib").rglob("*.py"))]
    common = digest([library, fingerprint, contents])
    steps: list[Step] = []
    for path in chapters():
        chapter = path.stem[:2]
        for trained, architecture, number in _executions(config, chapter):
            values = _values(trained, architecture) | extra
            values = {name: values[name] for name in names[path] if name in values}
            training_key = trained.training_key(architecture, fingerprint) if architecture else ""
            elsewhere = _trained_elsewhere(config) if "other_split" in values else ""
            read = [step.key for step in steps if step.chapter in READS.get(chapter, [])]
            # Where things lie is no part of it, and what lies there is in the rest of the key.
            settings = {name: values[name] for name in values if name not in (*PATHS, "weights")}
            key = digest([common, sha256(path), settings, training_key, elsewhere, *read])
            name = "-".join(filter(None, [path.stem, architecture, number]))
            steps.append(Step(name, path, values, key, trained, training_key))
    return steps


def _executions(config: Config, chapter: str) -> list[tuple[Config, str, str]]:
    """For each execution of a chapter its configuration, architecture, and number from 2 on."""
    if chapter != TRAINING:
        return [(config, "", "")]
    return [
        (config.training(number), architecture, str(number) if number > 1 else "")
        for architecture in config.architectures
        for number in range(1, config.trainings + 1)
    ]


def _trained_elsewhere(config: Config) -> str:
    """Identifies what `melanoma leakage` found, and the training on the other split."""
    found = Path(config.output_dir) / LEAKAGE_RESULTS
    record = {}
    if config.other_split:
        record = read_json(Path(config.other_split) / config.architectures[0] / "run.json")
    trained = [record.get(name) for name in ("training_key", "epochs", "finished")]
    return digest([trained, sha256(found) if found.exists() else ""])


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


def step_status_path(step: Step) -> Path:
    """The status file of a step in its run folder: state, key and outputs."""
    return Path(step.config.output_dir) / "steps" / f"{step.name}.json"


def step_progress_path(step: Step) -> Path:
    """The file beside it to which the loop that a step is in writes its progress."""
    return step_status_path(step).with_suffix(".progress")


def state_of(step: Step) -> str:
    """One of `waiting`, `started`, `failed`, `done`, and `stale`: done, but with another key."""
    path = step_status_path(step)
    if not path.exists():
        return "waiting"
    record = _read_status(path)
    if record.get("state", "done") != "done":
        return record["state"]
    there, outputs = _outputs(step), record.get("outputs", {})
    whole = all(name in there and sha256(there[name]) == outputs[name] for name in outputs)
    training = step.training_key
    trained = not training or step.config.trained(step.parameters["architecture"], training)
    return "done" if whole and trained and record.get("key") == step.key else "stale"


def _read_status(path: Path) -> dict:
    """The content of a status file; {} if it is missing, damaged or another version's."""
    try:
        record = read_json(path, {})
    except MelanomaError:  # as after a power cut on some file systems
        return {}
    return record if record.get("schema") == SCHEMA else {}


def _outputs(step: Step) -> dict[str, Path]:
    """A step's notebook, figures and tables that exist, by their names in its status file."""
    output, architecture = Path(step.config.output_dir), step.parameters.get("architecture", "")
    ending = f"-{architecture}" if architecture else ""
    patterns = [f"notebooks/{step.name}.ipynb", *RESULTS.get(step.chapter, [])]
    found = {
        path.relative_to(output).as_posix(): path
        for pattern in patterns for path in output.glob(pattern)
    }  # fmt: skip
    drawn = step.config.figures.glob(f"{step.chapter}-*")
    return found | {
        f"figures/{path.name}": path for path in drawn if path.stem.endswith(ending)
    }  # names may hold dots


def relocate(values: Mapping, change: Callable[[str], str]) -> dict:
    """A configuration as JSON with every path in it changed."""
    paths = {name: change(values[name]) for name in PATHS if values.get(name)}
    weights = {key: change(path) for key, path in values.get("weights", {}).items()}
    return {**values, **paths, "weights": weights}


def record_run_config(config: Config, asked: Mapping[str, object], **more: object) -> None:
    """Writes what `status` reads a run with: its configuration, the arguments of `plan`, and more.

    jobs and devices: as of `run`; chapters: False where only networks are trained.
    """
    output = Path(config.output_dir)
    relative = relocate(dataclasses.asdict(config), lambda path: os.path.relpath(path, output))
    write_json(output / RUN_CONFIG, {"config": relative, "asked": asked} | more)


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
    recorded with the configuration. Steps that do not read what a failed one was to leave still
    run; then `MelanomaError` is raised.
    """
    output, waiting = Path(config.output_dir), []
    with lock(output / LOCK):
        for step in steps:
            if state_of(step) == "done":
                print(f"{step.name}: up to date", flush=True)
            else:
                waiting.append(step)
        if waiting and asked:
            record_run_config(config, asked, jobs=jobs, devices=len(devices))
        dataset = str((asked or {}).get("fingerprint", ""))
        origin = collect_provenance(run=output.resolve().name, dataset=dataset)
        trainings = sum(bool(step.training_key) for step in steps)
        errors = _work(waiting, jobs, min(jobs, trainings), devices, origin)
    if errors:
        raise errors[0]


def _work(
    waiting: list[Step], jobs: int, shared: int, devices: Sequence[str], origin: Mapping[str, str]
) -> list[MelanomaError]:
    """Executes steps in parallel, only `shared` at a time while there are trainings; the errors.

    Figures and tables carry `origin` and the step that wrote them.
    """
    running: list[_Execution] = []
    errors = []
    free = list(itertools.islice(itertools.cycle(devices or [""]), jobs))
    try:
        while waiting or running:
            unfinished = [*waiting, *(execution.step for execution in running)]
            ready = [s for s in waiting if not any(s.waits_for(other) for other in unfinished)]
            # A training resumes exactly only with the same number of threads, whatever is left;
            # and threads that wait for those of another process make it many times slower.
            most = shared if any(step.training_key for step in unfinished) else jobs
            beside = min(most, len(ready) + len(running))
            new = []
            for step in ready[: most - len(running)]:
                threads = usable_cores() // (shared if step.training_key else beside)
                new.append(_Execution(step, max(1, threads), free.pop(0), origin))
                waiting.remove(step)
            running += new
            with_message = wait([e.messages for e in running if e.messages], 0 if new else None)
            for execution in new + [e for e in running if e.messages in with_message]:
                if execution.advance():
                    continue
                running.remove(execution)
                free.append(execution.device)
                if execution.error:
                    errors.append(execution.error)
                    waiting = [s for s in waiting if not s.reads(execution.step)]
    finally:
        end_processes([execution.process for execution in running if execution.process])
    return errors


class _Execution:
    """A step in execution by another process, and its status file."""

    def __init__(self, step: Step, threads: int, device: str, origin: Mapping[str, str]):
        self.step, self.device = step, device
        self.environment = {HEADLESS: "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": str(threads)}
        self.environment |= {"CUDA_VISIBLE_DEVICES": device} if device else {}
        self.environment[VARIABLE] = json.dumps({**origin, "chapter": step.name, "key": step.key})
        self.status = step_status_path(step)
        self.environment[PROGRESS_FILE] = str(step_progress_path(step).resolve())
        # The outputs are those of the execution before, until they are written again.
        before = _read_status(self.status)
        self.record = {"outputs": before.get("outputs", {})}
        self.record["usual"] = before.get("seconds") or before.get("usual")
        self.record |= {"schema": SCHEMA, "key": step.key, "started": time.time()}
        self.process = self.messages = self.error = None

    def advance(self) -> bool:
        """Starts the process, then handles one of its messages; returns whether there are more.

        Whatever goes wrong is this step's `error` and stops no other step.
        """
        try:
            return self._handle_message() if self.process else self._start()
        except Exception as error:
            self.error = MelanomaError(f"{self.step.name} failed: {describe_error(error)}")
            print(f"{self.step.name}: failed", flush=True)
            with contextlib.suppress(MelanomaError):  # the disk may be full
                failed = {"state": "failed", "error": describe_error(error)}
                write_json(self.status, self.record | failed)
            return False

    def _start(self) -> bool:
        write_json(self.status, self.record | {"state": "started"})
        print(f"{self.step.name}: started", flush=True)
        self.earlier = self._times()
        config = self.step.config
        output = Path(config.output_dir).resolve()
        target = output / "notebooks" / f"{self.step.name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        self.process, self.messages = start_process(
            execute_notebook, self.step.notebook, self.step.parameters, target,
            config.run_dir.resolve() / CELLS_LOG, environment=self.environment,
        )  # fmt: skip
        return True

    def _handle_message(self) -> bool:
        try:
            message = self.messages.recv()
        except EOFError:
            self.process.join()
            time.sleep(0.2)  # a signal to all processes of the command ends this one, too
            raise MelanomaError(DIED) from None
        if isinstance(message, str):
            print(f"{self.step.name}: {message}", flush=True)
            return True
        self.process.join()
        if message:
            raise message
        self._record_outputs()
        step_progress_path(self.step).unlink(missing_ok=True)
        return False

    def _times(self) -> dict[str, int]:
        """When the outputs that exist were written."""
        there = _outputs(self.step).items()
        return {name: path.stat().st_mtime_ns for name, path in there}

    def _record_outputs(self) -> None:
        seconds = time.time() - self.record["started"]
        there = _outputs(self.step)
        written = sorted(name for name, _ in self._times().items() - self.earlier.items())
        for gone in set(self.record["outputs"]) & set(there) - set(written):
            there[gone].unlink()  # of an earlier execution
        outputs = {name: sha256(there[name]) for name in written}
        done = {"state": "done", "seconds": seconds, "outputs": outputs}
        write_json(self.status, self.record | done)
        print(f"{self.step.name}: done in {seconds:.0f} s", flush=True)
