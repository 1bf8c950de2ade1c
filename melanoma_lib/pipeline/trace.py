"""Whether a figure or a table is still what its run would draw."""

from pathlib import Path

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import PROJECT, sha256
from melanoma_lib.core.provenance import read_provenance
from melanoma_lib.pipeline.run import RUN_CONFIG, state_of
from melanoma_lib.pipeline.status import recorded_run


def trace(path: Path, output_dir: str = "") -> list[str]:
    """Lines that say where a file comes from, and whether it is current.

    `output_dir` is the folder of its run; without it that is looked for around the file, and among
    the project's runs. Raises `MelanomaError` where the file carries nothing.
    """
    origin = read_provenance(path)
    lines = [f"{name + ':':<9} {value}" for name, value in origin.items()]
    return [*lines, verdict(origin, run_folder(path, origin, output_dir))]


def run_folder(path: Path, origin: dict[str, str], output_dir: str) -> Path | None:
    """The folder of the run that a file says it comes from; None where it is not found."""
    around = [*path.resolve().parents, PROJECT / "runs" / origin["run"]]
    places = [Path(output_dir)] if output_dir else around
    found = (place for place in places if (place / RUN_CONFIG).exists())
    return next((place for place in found if place.resolve().name == origin["run"]), None)


def verdict(origin: dict[str, str], folder: Path | None) -> str:
    """Whether the run would draw the same today."""
    if folder is None:
        return f"unknown: the run {origin['run']} is not here; name its folder with --output-dir"
    if "results" in origin:
        results = folder / "comparison_results.json"
        same = results.exists() and sha256(results)[:16] == origin["results"]
        return "current: these are the run's results" if same else "outdated: the results changed"
    try:
        _, steps = recorded_run(folder)
    except MelanomaError as error:
        return f"unknown: {error}"
    step = next((step for step in steps if step.name == origin["chapter"]), None)
    if step is None:
        return "outdated: the run has no such chapter any more"
    if step.key != origin["key"]:
        return "outdated: the code, the data or a setting that it depends on has changed"
    if state_of(step) != "done":
        return "outdated: its chapter has to be executed again"
    return "current: the run would draw the same"
