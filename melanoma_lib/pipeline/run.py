"""The batch: executes the notebooks in order through papermill, and only what is not up to date.

Chapters 05 to 07 wait for all trainings of chapter 04, and chapter 08 for everything, because it
measures time and wants the machine for itself; what does not wait for each other may run side by
side. A step is one execution of one notebook. Its key covers everything its outcome depends on:
the notebook, the parameters it declares, the library, the dataset, and the keys of the steps it
builds on. A step is up to date when it finished with the same key and its outputs exist. Executing
chapter 04 again is cheap: a finished training is only read.
"""

import contextlib
import hashlib
import itertools
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from melanoma_lib.config import Config, format_operating_points
from melanoma_lib.core.errors import MelanomaError, summarize_items
from melanoma_lib.core.files import PROJECT, digest, read_json, write_json
from melanoma_lib.core.locks import lock
from melanoma_lib.core.progress import HEADLESS

NOTEBOOKS = PROJECT / "notebooks"
LOCK = ".lock"  # in a run folder that a batch holds
SCHEMA = 2  # of the files that say how far a step has come
TRAINING = "04"  # executed once per architecture
LAST = "08"  # measures time, so nothing runs beside it
EPOCH_LINE = re.compile(r"epoch {4}|going on| *\d+/\d+ ")  # what `fit` prints
SHOW = "--InlineBackend.print_figure_kwargs={'bbox_inches': None}"  # or each is drawn once more


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

    def needs(self, other: "Step") -> bool:
        """Whether this step reads what the other one leaves."""
        if self.chapter >= LAST:
            return self is not other
        return self.chapter > TRAINING == other.chapter


def chapters() -> list[Path]:
    """The notebooks the batch runs, in order."""
    return sorted(NOTEBOOKS.glob("0[0-8]_*.ipynb"))


def declared(notebook: Path) -> dict[str, object]:
    """The names in a notebook's parameters cell."""
    return _papermill().inspect_notebook(str(notebook))


def _papermill() -> ModuleType:
    """papermill, imported without what takes most of its time and that no notebook needs."""
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema then does not check addresses
    import papermill

    return papermill


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
            builds_on = [s.key for s in steps if s.chapter == TRAINING]
            key = digest(
                [common, hashlib.sha256(path.read_bytes()).hexdigest(), values, training_key]
                + (builds_on if chapter > TRAINING else [])
                + ([_trained_elsewhere(config)] if "other_split" in names[path] else [])
            )
            name = f"{path.stem}-{architecture}" if architecture else path.stem
            steps.append(Step(name, path, values, key, training_key))
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


def marker(config: Config, step: Step) -> Path:
    """The file that says how far a step has come, and with which key."""
    return Path(config.output_dir) / "steps" / f"{step.name}.json"


def state_of(config: Config, step: Step) -> str:
    """`done`, `stale` (done with other inputs), `failed`, `started` or `waiting`."""
    path = marker(config, step)
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


def run(config: Config, steps: list[Step], jobs: int = 1, devices: Sequence[str] = ()) -> None:
    """Executes the steps that are not up to date, up to `jobs` side by side.

    The first in the order given begins that waits for nothing. `devices` are GPUs as
    CUDA_VISIBLE_DEVICES names them; side by side, each has one in turn. A step that fails does
    not stop the others that do not need it; `MelanomaError` is raised then.
    """
    waiting = []
    with lock(Path(config.output_dir) / LOCK):
        for step in steps:
            if state_of(config, step) == "done":
                print(f"{step.name}: up to date", flush=True)
            else:
                waiting.append(step)
        trainings = sum(bool(step.training_key) for step in steps)
        errors = _work(config, waiting, jobs, min(jobs, trainings), devices)
    for text in list(errors)[1:]:
        print(text, flush=True)
    if errors:
        raise next(iter(errors.values()))


def _work(
    config: Config, waiting: list[Step], jobs: int, shared: int, devices: Sequence[str]
) -> dict[str, BaseException]:
    """Executes steps side by side, `shared` of them while one is a training; the errors by text.

    Threads wait for the kernels, which are processes; an interrupt ends those.
    """
    running: dict[Future, tuple[Step, str]] = {}
    errors: dict[str, BaseException] = {}
    free, stop = list(itertools.islice(itertools.cycle(devices or [""]), jobs)), threading.Event()
    with _interrupted_once(), ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                unfinished = [*waiting, *(step for step, _ in running.values())]
                ready = [s for s in waiting if not any(s.needs(other) for other in unfinished)]
                # A training goes on exactly only with as many threads as before, whatever is left;
                # and threads that have to wait for another process make it many times slower.
                most = shared if any(step.training_key for step in unfinished) else jobs
                beside = min(most, len(ready) + len(running))
                for step in ready[: most - len(running)]:
                    threads = (os.cpu_count() or 1) // (shared if step.training_key else beside)
                    device = free.pop(0)
                    future = pool.submit(execute, config, step, max(1, threads), device, stop)
                    running[future] = step, device
                    waiting.remove(step)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step, device = running.pop(future)
                    free.append(device)
                    if error := future.exception():
                        errors[str(error)] = error
                        waiting = [s for s in waiting if not s.needs(step)]
        except KeyboardInterrupt:
            from melanoma_lib.pipeline.kernels import kill_all

            stop.set()
            while wait(running, timeout=0.2).not_done:
                kill_all()
            raise
    return errors


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Inside, only the first Ctrl-C counts: a second one would end what ends the kernels."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()  # which alone may say so
    if not main or before is not signal.default_int_handler:  # it is ignored, in the background
        yield
        return

    def first(*_) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def execute(config: Config, step: Step, threads: int, device: str, stop: threading.Event) -> None:
    """Executes one notebook and records it; a failed notebook is kept beside the good ones.

    On `device`, a GPU, if it is named; interrupted, when `stop` is set, it records no failure.
    """
    papermill = _papermill()
    folder = Path(config.output_dir) / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    target, failed = folder / f"{step.name}.ipynb", folder / f"{step.name}.failed.ipynb"
    path = marker(config, step)
    before = read_json(path, {}).get("outputs", {})
    record = {"schema": SCHEMA, "key": step.key, "state": "started", "started": time.time()}
    record["outputs"] = before  # until they are written again
    write_json(path, record)
    print(f"{step.name}: started", flush=True)
    earlier = _files(config, step)
    environment = {HEADLESS: "1", "OMP_NUM_THREADS": str(threads)}  # or they wait for each other
    environment |= {"CUDA_VISIBLE_DEVICES": device} if device else {}
    try:
        with _log(Path(config.output_dir) / "run.log", step.name):
            _execute(step, failed, environment)
    except papermill.PapermillExecutionError as error:
        problem = f"{error.ename}: {error.evalue.strip()} (see {failed})"
    except (RuntimeError, OSError) as error:  # the kernel died, or the disk is full
        if stop.is_set():
            return
        hint = ", with fewer --jobs if memory was short" if "died" in str(error) else ""
        problem = f"{error}; run again to go on{hint}"
    else:
        failed.replace(target)
        seconds = time.time() - record["started"]
        outputs = dict(sorted(_files(config, step).items() - earlier.items()))
        for gone in set(before) - set(outputs):  # not part of this execution any more
            Path(gone).unlink(missing_ok=True)
        done = {"state": "done", "seconds": seconds, "outputs": outputs}
        write_json(path, record | done)
        print(f"{step.name}: done in {seconds:.0f} s", flush=True)
        return
    write_json(path, record | {"state": "failed"})
    print(f"{step.name}: failed", flush=True)
    raise MelanomaError(f"{step.name} failed: {problem}")


def _execute(step: Step, output: Path, environment: Mapping[str, str]) -> None:
    """Executes a step's notebook through papermill, in a kernel with that environment."""
    import traitlets.config

    from melanoma_lib.pipeline.kernels import ForkedKernelManager

    # Two kernels that start at once may choose the same TCP port; files of their own they cannot
    # share. The folder is the kernel's alone, while papermill's `cwd` would be this process's.
    with tempfile.TemporaryDirectory(prefix="melanoma-", dir=_short_folder()) as sockets:
        manager = {"transport": "ipc", "ip": f"{sockets}/kernel", "environment": environment,
                   "folder": str(step.notebook.parent)}  # fmt: skip
        _papermill().execute_notebook(
            str(step.notebook),
            str(output),
            parameters=step.parameters,
            kernel_name="python3",
            kernel_manager_class=ForkedKernelManager,
            request_save_on_cell_execute=False,  # once at the end: the log tells of the cells
            progress_bar=False,
            log_output=True,
            config=traitlets.config.Config({"ForkedKernelManager": manager}),
            extra_arguments=["--log-level=ERROR", SHOW],
            shutdown_kernel="immediate",  # all that it made is on disk
        )


def _short_folder() -> str | None:
    """Where sockets go: names of theirs may have 107 characters, which some folders use up."""
    return "/tmp" if len(tempfile.gettempdir()) > 70 else None


class _Terminal(logging.Handler):
    """Shows the training table's lines while a notebook runs."""

    def __init__(self, name: str):
        super().__init__()
        self.name_of_step = name

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            if EPOCH_LINE.match(line):
                print(f"{self.name_of_step}: {line}", flush=True)


@contextlib.contextmanager
def _log(path: Path, name: str) -> Iterator[None]:
    """Sends what this thread's notebook prints to the run's log, and its epochs to the terminal."""
    logger, thread = logging.getLogger("papermill"), threading.get_ident()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers = [logging.FileHandler(path, encoding="utf-8"), _Terminal(name)]
    handlers[0].setFormatter(logging.Formatter(f"%(asctime)s {name}: %(message)s"))
    for handler in handlers:
        handler.addFilter(lambda record: record.thread == thread)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
