"""The commands `figures`, `trace`, `checklist`, `site` and `evaluate`, for finished runs."""

import argparse
from pathlib import Path

from melanoma_lib.cli.options import add_dataset_options
from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the five commands to the parser."""
    test = commands.add_parser("evaluate", help="a trained run on images from elsewhere")
    test.add_argument(
        "--bundle", required=True, metavar="DIR", help="a run's folder, or one architecture's in it"
    )
    add_dataset_options(test)
    test.add_argument("--output-dir", metavar="DIR", help="default: external/<dataset> in the run")
    test.add_argument(
        "--batch-size", type=int, metavar="N", default=Config().batch_size,
        help="images in a step; default: %(default)s",
    )
    test.add_argument("--device", default=Config().device, help="default: %(default)s")
    test.set_defaults(command=evaluate)

    page = commands.add_parser("figures", help="redraw a run for a document, without training")
    page.add_argument("--results", required=True, metavar="FILE", help="comparison_results.json")
    page.add_argument("--output-dir", required=True, metavar="DIR", help="figures, figures.tex")
    size = {"type": float, "help": "default: %(default)s"}
    page.add_argument("--width", metavar="CM", default=16, **size)
    page.add_argument("--font-size", metavar="PT", default=8, **size)
    page.add_argument("--metadata", metavar="FILE", help="the dataset's table, for its figures")
    page.add_argument(
        "--figures-dir", metavar="DIR", help="the run's figures, for what needs images or models"
    )
    page.set_defaults(command=redraw_figures)

    origin = commands.add_parser("trace", help="where a figure or a table comes from")
    origin.add_argument("file", metavar="FILE", help="PNG, PDF, .tex or .csv")
    origin.add_argument("--output-dir", default="", metavar="DIR",
                        help="the run; default: looked for around the file, and in runs")
    origin.set_defaults(command=trace)

    listed = commands.add_parser("checklist", help="a reporting checklist, filled in from a run")
    listed.add_argument("--standard", required=True, choices=("tripod-ai", "claim"))
    listed.add_argument("--results", required=True, metavar="FILE", help="comparison_results.json")
    listed.add_argument("--output-dir", metavar="DIR", help="default: the run's folder")
    listed.set_defaults(command=fill_checklist)

    site = commands.add_parser("site", help="a run's executed notebooks as web pages")
    site.add_argument("--output-dir", default=Config().output_dir, metavar="DIR",
                      help="the run; default: runs/thesis")
    site.add_argument("--site-dir", metavar="DIR", help="default: the folder site in the run")
    site.set_defaults(command=build_website)


def trace(options: argparse.Namespace) -> None:
    """`melanoma trace`: where a file comes from, and whether it is current."""
    from melanoma_lib.pipeline.trace import trace as trace_file

    print("\n".join(trace_file(Path(options.file), options.output_dir)))


def evaluate(options: argparse.Namespace) -> None:
    """`melanoma evaluate`: an external test."""
    from melanoma_lib.data.dataset_files import open_dataset
    from melanoma_lib.models.bundle import find_bundles
    from melanoma_lib.models.hub import PREFIX
    from melanoma_lib.reporting import external_test

    if not (options.data_dir or options.metadata):
        raise MelanomaError("evaluate needs images from elsewhere; name their folder: --data-dir")
    if options.bundle.startswith(PREFIX) and not options.output_dir:
        raise MelanomaError("a model of the hub has no folder for results; name --output-dir")
    folders = [path.resolve() for path in find_bundles(options.bundle)]
    data = options.data_dir or ("" if options.img_dir else Path(options.metadata).parent)
    files = open_dataset(data, options.metadata or "", options.img_dir or "", external=True)
    outcome = external_test.evaluate(folders, files, options.device, options.batch_size)
    run = folders[0].parent
    name = Path(options.data_dir or options.metadata).resolve().stem
    folder = Path(options.output_dir or run / "external" / name)
    external_test.write(*outcome, run, folder)
    print(f"\n{(folder / 'summary.md').read_text(encoding='utf-8')}\n{folder}")


def redraw_figures(options: argparse.Namespace) -> None:
    """`melanoma figures`: figures, tables and LaTeX for a document."""
    from melanoma_lib.core.provenance import attach_provenance
    from melanoma_lib.reporting import latex
    from melanoma_lib.reporting.run import open_run

    results = Path(options.results).expanduser().resolve()
    drawn = options.figures_dir or Config(output_dir=str(results.parent)).figures
    run = open_run(results, options.metadata or "")
    folder = Path(options.output_dir)
    with attach_provenance(_origin(results)):
        outcome = latex.write(run, folder, Path(drawn), options.width, options.font_size)
    for word in ("redrawn", "copied", "missing"):
        names = [name for name, became in outcome.items() if became == word]
        print(f"{word:10s} {len(names):3d}  {', '.join(names)}")
    if "missing" in outcome.values():
        print(f"missing are those that need images, models or another run: not in {drawn}")


def fill_checklist(options: argparse.Namespace) -> None:
    """`melanoma checklist`: Markdown and LaTeX."""
    from melanoma_lib.core.provenance import attach_provenance
    from melanoma_lib.reporting.checklist import write_checklist
    from melanoma_lib.reporting.checklist_answers import read_run_files

    results = Path(options.results).expanduser().resolve()
    run_files, folder = read_run_files(results), Path(options.output_dir or results.parent)
    with attach_provenance(_origin(results)):
        paths, counts = write_checklist(options.standard, run_files, folder)
    print("\n".join([*map(str, paths), counts]))


def _origin(results: Path) -> dict[str, str]:
    """What files that are made of a results file say of where they come from."""
    from melanoma_lib.core.files import sha256
    from melanoma_lib.core.provenance import collect_provenance

    return collect_provenance(run=results.parent.name, results=sha256(results)[:16])


def build_website(options: argparse.Namespace) -> None:
    """`melanoma site`: the executed notebooks as web pages."""
    from melanoma_lib.pipeline.website import build

    run = Path(options.output_dir).expanduser().resolve()
    print(build(run, Path(options.site_dir or run / "site")))
