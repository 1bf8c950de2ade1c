"""The message at the end of a run: failures, headline results, paths, next commands."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import read_json
from melanoma_lib.core.progress import duration
from melanoma_lib.pipeline.run import COMPARISON, Step, state_of, step_status_path
from melanoma_lib.pipeline.status import inspect_run

RESULTS = "comparison_results.json"


def final_message(config: Config, steps: Sequence[Step], seconds: float) -> str:
    """The last lines of a run that took so long, from its files; "" for one that did not end."""
    output, states = Path(config.output_dir), {step: state_of(step) for step in steps}
    failed = [step for step in steps if states[step] == "failed"]
    if not failed and set(states.values()) != {"done"}:
        return ""
    lines = [f"all is done, in {duration(seconds)}", ""]
    if failed:
        lines = [f"{len(failed)} of {len(steps)} steps failed, after {duration(seconds)}:"]
        for step in failed:
            reason = read_json(step_status_path(step)).get("error", "see the log")
            lines.append(f"  {step.name}: {reason}")
        if waiting := [step.name for step in steps if states[step] not in ("done", "failed")]:
            lines.append(f"not done because of that: {', '.join(waiting)}")
        lines += ["what is done is kept: correct the cause, and the same command goes on", ""]
    compared = [step for step in steps if step.chapter == COMPARISON and states[step] == "done"]
    found = _headlines(output / RESULTS) if compared else []
    lines += [f"  {line}" for line in found] + [""] * bool(found)
    places = {"results": output / "summary.md", "figures": config.figures,
              "chapters": output / "notebooks", "log": output / "run.log"}  # fmt: skip
    lines += [f"{name:9s} {_short(path)}" for name, path in places.items() if path.exists()]
    if compared:
        run, results = (shlex.quote(_short(path)) for path in (output, output / RESULTS))
        lines += _next(
            f"site --output-dir {run}",
            f"figures --results {results} --output-dir page",
            f"serve --bundle {run}",
        )
    return "\n".join(lines)


def final_message_of_trainings(config: Config, steps: Sequence[Step], seconds: float) -> str:
    """The last lines of trainings without notebooks, which took so long."""
    run = shlex.quote(_short(Path(config.output_dir)))
    views = inspect_run(config, steps).steps
    found = [f"  {each.step.name.partition('-')[2]}: {each.kept}" for each in views if each.epochs]
    next_ = _next(
        f"predict IMAGE --bundle {run}", f"serve --bundle {run}", f"status --output-dir {run}"
    )
    return "\n".join([f"all is done, in {duration(seconds)}", "", *found, *next_])


def _next(*commands: str) -> list[str]:
    return ["", "next:", *(f"  melanoma {command}" for command in commands)]


def _headlines(results: Path) -> list[str]:
    from melanoma_lib.reporting.summary import headlines  # slow to import

    try:
        return headlines(read_json(results))
    except (MelanomaError, KeyError):  # of another version
        return []


def _short(path: Path) -> str:
    """A path relative to the folder that the command was started in, if it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
