"""A run on a terminal while it computes, drawn from its files alone; elsewhere a line a minute."""

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from melanoma_lib.config import Config
from melanoma_lib.core.environment import environment_variables
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.log import LOG, RunLog
from melanoma_lib.core.progress import HEADLESS, duration
from melanoma_lib.pipeline.run import Step
from melanoma_lib.pipeline.status import RunView, StepView, inspect_run, status_lines

NARROW = 80  # columns, below which the display leaves out what matters least
RECENT = 4  # epochs of a training that are shown
LATEST = 3  # lines of the log
MANY = 8  # trainings, beyond which only those that run have a line
MINUTE = 60.0  # seconds between two lines about an epoch where there is no terminal


def is_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor, and somebody watches it."""
    dumb = os.environ.get("TERM", "dumb") in ("dumb", "unknown")
    return sys.stdout.isatty() and not dumb and not os.environ.get(HEADLESS)


@contextlib.contextmanager
def shown(config: Config, steps: Sequence[Step], log: RunLog) -> Iterator[None]:
    """Shows how the steps go while the block runs; what it prints then goes to the log alone.

    Where there is no terminal, what is printed is shown, and a line a minute within an epoch.
    """
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        if log.shown and is_terminal():
            log.shown = False
            stack.callback(setattr, log, "shown", True)
            stack.enter_context(_live(Console(file=sys.__stdout__), config, steps))
        else:
            stack.callback(ended.set)
            threading.Thread(
                target=_print_minutes, args=(config, steps, ended), daemon=True
            ).start()
        stack.enter_context(environment_variables(**{HEADLESS: "1"}))  # no bars besides
        yield


def watch(config: Config, steps: Sequence[Step]) -> None:
    """Shows a run until all is done or Ctrl-C; without a terminal its state once a minute."""
    live = is_terminal()
    console = Console()
    with _live(console, config, steps) if live else contextlib.nullcontext():
        while not (view := inspect_run(config, steps)).is_done:
            if not live:
                console.print(render(view, console.width, 1000), end="\n\n")
            time.sleep(1 if live else MINUTE)
    if not live:
        console.print(render(view, console.width, 1000))


@contextlib.contextmanager
def _live(console: Console, config: Config, steps: Sequence[Step]) -> Iterator[None]:
    last: RenderableType = Text()

    def refresh() -> RenderableType:
        nonlocal last
        with contextlib.suppress(MelanomaError, OSError, ValueError, KeyError):  # in between files
            last = render(inspect_run(config, steps), console.width, console.height)
        return last

    with Live(console=console, get_renderable=refresh, refresh_per_second=1,
              redirect_stdout=False, redirect_stderr=False):  # fmt: skip
        yield


def render(view: RunView, width: int, height: int) -> RenderableType:
    """The display of a run for a terminal of so many columns and lines."""
    narrow = width < NARROW
    running = [each for each in view.steps if each.step.training_key and each.state == "running"]
    parts = [Text(view.config.output_dir, "bold", no_wrap=True, overflow="ellipsis")]
    parts += [_overall(view), _loops(view, narrow)]
    room = height - 14 - len(running) - len(view.config.architectures)
    for each in running if room > RECENT else running[:1]:
        if each.epochs and room > 2:
            parts.append(_epochs(each, min(RECENT, room - 1), narrow))
            room -= 2 + min(RECENT, len(each.epochs))
    parts += [Text(line) for line in _chapters(view) + _device(view)]
    parts += [Text(line, "yellow" if "alive" in line else "") for line in status_lines(view)[1:]]
    if room > LATEST:
        parts.append(Text("\n".join(_latest(view)), "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _overall(view: RunView) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(ProgressBar(100, 100 * view.fraction), f"{view.fraction:4.0%}")
    since = f"{duration(time.time() - view.since)} so far; " if view.since else ""
    return Group(grid, Text(since + status_lines(view)[0]))


def _loops(view: RunView, narrow: bool) -> RenderableType:
    """A line a training: where it is, with a bar of the loop that runs, or what it ended with."""
    table = Table.grid(padding=(0, 1))
    for no_wrap in (True, True, False, False):
        table.add_column(no_wrap=no_wrap)
    trainings = [each for each in view.steps if each.step.training_key]
    running = [each for each in trainings if each.state == "running"]
    for each in trainings if len(trainings) <= MANY else running:
        name = each.step.name.partition("-")[2]
        if not each.now:
            table.add_row(name, each.state, *([each.kept] if each.epochs else []))
            continue
        now, epochs = each.now, each.step.config.epochs
        label = f"{now['label']}/{epochs}" if each.in_epoch else now["label"]
        details = [] if narrow else _details(each)
        total = now["total"] or 0
        bar = ProgressBar(total or 1, now["done"], width=10 if narrow else 20)
        table.add_row(name, label, bar, ", ".join([f"{now['done']}/{total}", *details]))
    if len(trainings) <= MANY:
        return table
    counts = Counter(each.state for each in trainings if each not in running)
    return Group(table, "trainings: " + "; ".join(f"{n} {state}" for state, n in counts.items()))


def _details(each: StepView) -> list[str]:
    """Of the loop that runs: its loss, its speed and its time left."""
    now = each.now
    if not now["done"]:
        return []
    left = (now["total"] or 0) / now["done"] * now["seconds"] - now["seconds"]
    details = [f"loss {now['loss']:.3f}"] if "loss" in now else []
    if each.in_epoch:
        rate = now["done"] * each.step.config.batch_size / max(now["seconds"], 1e-9)
        details.append(f"{rate:,.1f} images/s")
    return [*details, f"{duration(max(left, 0))} left"]


def _epochs(each: StepView, count: int, narrow: bool) -> RenderableType:
    """The last epochs of a training, and which epoch's weights are kept."""
    table = Table(box=None, padding=(0, 1), title_justify="left", title_style="",
                  title=f"{each.step.name.partition('-')[2]}: {each.kept}")  # fmt: skip
    columns = {"epoch": "{}", "train_loss": "{:.4f}", "train_accuracy": "{:.3f}",
               "val_loss": "{:.4f}", "val_accuracy": "{:.3f}"}  # fmt: skip
    if not narrow:
        columns["images_per_second"] = "{:,.1f}"
    for name in columns:
        table.add_column(name.replace("_per_second", "/s").replace("_", " "), justify="right")
    best = each.best["epoch"]
    for row in each.epochs[-count:]:
        cells = [text.format(row[name] if name == "epoch" else float(row[name]))
                 for name, text in columns.items()]  # fmt: skip
        table.add_row(*cells, style="bold" if row["epoch"] == best else "")
    return table


def _chapters(view: RunView) -> list[str]:
    """The chapters besides trainings, by their state, and the loop that runs in one."""
    states: dict[str, list[str]] = {}
    for each in view.steps:
        if not each.step.training_key:
            now = each.now
            loop = f" ({now['label']} {now['done']}/{now['total']})" if now else ""
            states.setdefault(each.state, []).append(each.step.chapter + loop)
    return ["chapters: " + "; ".join(f"{' '.join(names)} {state}" for state, names in
                                     states.items())] * bool(states)  # fmt: skip


def _device(view: RunView) -> list[str]:
    """Each device in use, with its memory."""
    used: dict[str, list] = {}
    for now in (each.now for each in view.steps if each.now):
        used.setdefault(now["device"], []).append(now)
    lines = []
    for device, found in used.items():
        # A GPU says what all processes use of it, a process on the CPU what it uses itself.
        gigabytes = (max if device != "CPU" else sum)(now["used"] for now in found) / 1e9
        lines.append(f"{device}: {gigabytes:.1f} of {found[0]['memory'] / 1e9:.0f} GB in use")
    return lines


def _latest(view: RunView) -> list[str]:
    """The last lines of the log."""
    path = Path(view.config.output_dir) / LOG
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        return file.read().decode("utf-8", "replace").splitlines()[-LATEST:]


def _print_minutes(config: Config, steps: Sequence[Step], ended: threading.Event) -> None:
    """Prints a line a minute about each epoch that takes longer than that."""
    while not ended.wait(MINUTE):
        with contextlib.suppress(MelanomaError, OSError, ValueError, KeyError):
            for each in inspect_run(config, steps).steps:
                if each.in_epoch and each.now["seconds"] > MINUTE:
                    sys.stdout.write(minute_line(each) + "\n")
                    sys.stdout.flush()


def minute_line(each: StepView) -> str:
    """Where a training is within an epoch."""
    now = each.now
    epoch = f"{now['label'].split()[1]:>3s}/{each.step.config.epochs:<3d}"
    details = ", ".join([f"batch {now['done']} of {now['total']}", *_details(each)])
    return f"{each.step.name}: {epoch}  {details}"
