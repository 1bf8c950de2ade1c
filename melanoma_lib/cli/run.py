"""The commands `run`, `train` and `leakage`."""

import argparse
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from melanoma_lib.cli.options import (
    add_parameter_option,
    add_run_options,
    configuration,
    notebook_parameters,
    open_configured_dataset,
)
from melanoma_lib.config import LEAKAGE_RESULTS, Config
from melanoma_lib.core.environment import environment_variables
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.log import run_log
from melanoma_lib.core.progress import PROGRESS_FILE
from melanoma_lib.training.callbacks import OCCASIONS, TRACKERS


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds the three commands to the parser."""
    run = commands.add_parser("run", help="execute the notebooks in order: every figure and table")
    add_run_options(run)
    run.add_argument(
        "--jobs", type=int, metavar="N",
        help="notebooks side by side; default: one for each of --devices, two on one large GPU, "
        "one on a small one, or else one a core, at most four",
    )
    run.add_argument(
        "--devices", metavar="N,N", help="GPUs by number; each architecture is trained on one"
    )
    add_parameter_option(run)
    run.set_defaults(command=run_notebooks, resumes=True)

    training = commands.add_parser("train", help="train architectures, without the notebooks")
    training.add_argument("names", nargs="*", metavar="NAME", help="the same as --architectures")
    add_run_options(training)
    training.set_defaults(command=train, resumes=True)

    leak = commands.add_parser(
        "leakage", help="what test lesions in training change in one architecture's results"
    )
    leak.add_argument("architecture", metavar="ARCHITECTURE", help="one of those of the run")
    add_run_options(leak)
    leak.add_argument(
        "--leaked-fraction", dest="fractions", type=float, nargs="+", metavar="F",
        help="of the test images, those whose lesion is in training too; several make a curve; "
        "default: the largest possible, as many as leak when the dataset is split by image",
    )
    leak.set_defaults(command=leakage, resumes=True)
    for parser_of_training in (run, training, leak):
        group = parser_of_training.add_argument_group("tracking and notification")
        group.add_argument("--track", choices=TRACKERS, help="metrics of every epoch there too")
        group.add_argument(
            "--notify", metavar="URL",
            help="send messages to an address of apprise, as mail; or MELANOMA_NOTIFY",
        )
        group.add_argument(
            "--notify-on", metavar="WHAT", default=",".join(OCCASIONS[:2]),
            help=f"of {', '.join(OCCASIONS)} (a new best epoch), with commas; default: %(default)s",
        )


def run_notebooks(options: argparse.Namespace) -> None:
    """`melanoma run`: executes the notebooks that are not up to date."""
    from melanoma_lib.data.images import decode
    from melanoma_lib.pipeline import run
    from melanoma_lib.pipeline.display import shown
    from melanoma_lib.pipeline.execute import run_in_process
    from melanoma_lib.pipeline.final_message import final_message
    from melanoma_lib.training.callbacks import run_callbacks

    config = configuration(options)
    # Meanwhile the parent of all processes imports torch.
    threading.Thread(target=run_in_process, args=[os.getpid], daemon=True).start()
    if options.jobs is not None and options.jobs < 1:
        raise MelanomaError(f"--jobs is {options.jobs}; it must be 1 or more")
    devices = _visible_devices(options.devices) if options.devices else []
    files = open_configured_dataset(config)
    _check_other_split(config, files.fingerprint)
    asked = {"fingerprint": files.fingerprint, "contents": files.mask_fingerprint}
    asked["extra"] = notebook_parameters(options)
    steps = run.plan(config, **asked)
    stale = [step for step in steps if run.state_of(step) != "done"]
    jobs, warning = options.jobs or 1, ""
    if stale:
        keys = [step.parameters.get("architecture") for step in stale]
        sizes, most, warning = run_in_process(_preflight, config, files, keys)
        decode(files, config.image_size)  # once
        jobs = options.jobs or len(devices) or most
        # Chapters 00 to 03 can be read while networks train; the largest networks take longest.
        steps.sort(key=lambda s: (s.chapter, -sizes.get(s.parameters.get("architecture"), 0)))
    output = Path(config.output_dir)
    name = f"melanoma run {output.name}"
    start = time.monotonic()
    with (
        run_log(output, name) as log,
        run_callbacks(options.track, options.notify, name, options.notify_on) as message,
    ):
        if warning:
            print(warning, flush=True)
        try:
            with shown(config, steps, log) if stale else contextlib.nullcontext():
                run.run(config, steps, jobs, devices, asked)
        finally:
            if not isinstance(sys.exception(), KeyboardInterrupt):
                message.append(final_message(config, steps, time.monotonic() - start))
                print(f"\n{message[-1]}".rstrip(), flush=True)


def _check_other_split(config: Config, fingerprint: str) -> None:
    """Raises `MelanomaError` unless the run of `other_split` differs in the split alone."""
    if not config.other_split:
        return
    from melanoma_lib.evaluation.trained_run import load_trained_run

    key = config.architectures[0]
    record, *_ = load_trained_run(Path(config.other_split) / key)
    asked = config.recipe_key(key, fingerprint), config.epochs
    same = (record.get("recipe"), record["epochs"]) == asked
    if not same or record["config"]["split"] == config.split:
        raise MelanomaError(
            f"{config.other_split} must hold {key} trained like this run, on the other split; it "
            f"differs in {'more than the split' if not same else 'nothing'}"
        )


def _preflight(config: Config, files, architectures: list) -> tuple[dict[str, int], int, str]:
    """What is checked and chosen before a run, in a process of its own: it may start CUDA."""
    from melanoma_lib.training.preflight import check_training, cpu_warning, default_jobs

    sizes = check_training(config, files, architectures)
    return sizes, default_jobs(config), cpu_warning(config, files, sizes)


def _visible_devices(devices: str) -> list[str]:
    """The GPUs that --devices numbers, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    there = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
    numbers = [number.strip() for number in devices.split(",")]
    if bad := [number for number in numbers if not number.isdigit() or int(number) >= there]:
        raise MelanomaError(f"--devices names {', '.join(bad)}; this machine has {there} GPUs")
    return [names.split(",")[int(number)] for number in numbers]


def train(options: argparse.Namespace) -> None:
    """`melanoma train`: one architecture after the other, without the notebooks."""
    from melanoma_lib.core.files import read_json
    from melanoma_lib.data.images import decode
    from melanoma_lib.pipeline import run
    from melanoma_lib.pipeline.display import shown
    from melanoma_lib.pipeline.final_message import final_message_of_trainings
    from melanoma_lib.training import distributed
    from melanoma_lib.training.callbacks import run_callbacks
    from melanoma_lib.training.preflight import check_training, cpu_warning
    from melanoma_lib.training.train import train_architecture

    options.architectures = options.names + (options.architectures or [])
    config = configuration(options)
    name = f"melanoma train {' '.join(config.architectures)}"
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        message = stack.enter_context(
            run_callbacks(options.track, options.notify, name, options.notify_on)
        )
        stack.enter_context(distributed.group(config))
        first, known = distributed.rank() == 0, ""
        if first:
            files = open_configured_dataset(config)
            known, sizes = files.fingerprint, check_training(config, files, config.architectures)
            warning = cpu_warning(config, files, sizes)
            decode(files, config.image_size)
            log = stack.enter_context(run_log(Path(config.output_dir), name))
            if warning:
                print(warning, flush=True)
        planned = run.plan(config, distributed.broadcast(known))
        steps = [step for step in planned if step.training_key]
        train_only = {"chapters": False}  # unless a run was begun there
        before = read_json(Path(config.output_dir) / run.RUN_CONFIG, train_only)
        if first and before.get("chapters") is False:
            run.record_run_config(config, {"fingerprint": known}, **train_only)
        with shown(config, steps, log) if first else contextlib.nullcontext():
            for step in steps:
                print(f"{step.name}: started", flush=True)
                progress_file = run.step_progress_path(step)
                with environment_variables(**{PROGRESS_FILE: str(progress_file)}):
                    print(train_architecture(step.config, step.parameters["architecture"]))
                if first:
                    progress_file.unlink(missing_ok=True)
        if first:
            message.append(final_message_of_trainings(config, steps, time.monotonic() - start))
            print(f"\n{message[-1]}", flush=True)


def leakage(options: argparse.Namespace) -> None:
    """`melanoma leakage`: trains an architecture without leakage and with it, and compares them."""
    from melanoma_lib.core.files import write_json
    from melanoma_lib.data.images import decode
    from melanoma_lib.data.split import largest_leaked_fraction
    from melanoma_lib.reporting import leakage, tables
    from melanoma_lib.training import distributed
    from melanoma_lib.training.callbacks import run_callbacks
    from melanoma_lib.training.preflight import check_training
    from melanoma_lib.training.train import train_architecture

    if options.architectures:
        raise MelanomaError("leakage trains one architecture; leave out --architectures")
    key = options.architecture
    options.architectures = [key]
    config, fractions = configuration(options), options.fractions
    name = f"melanoma leakage {key}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            run_callbacks(options.track, options.notify, name, options.notify_on)
        )
        stack.enter_context(distributed.group(config))
        if distributed.rank() == 0:
            files = open_configured_dataset(config)
            check_training(config, files, [key])
            fractions = fractions or [largest_leaked_fraction(files.metadata, config.seed)]
            for fraction in fractions:
                check_training(config.with_leakage(fraction), files, [])
            decode(files, config.image_size)
            stack.enter_context(run_log(Path(config.output_dir), name))
        fractions = sorted(set(distributed.broadcast(fractions)))
        designs = [config, *map(config.with_leakage, fractions)]
        for number in range(1, config.trainings + 1):
            for design in designs:
                leak = f"{design.leaked_fraction:.1%} leaked" if design.leaked_fraction else "clean"
                print(f"training {number} of {config.trainings}, {leak}", flush=True)
                print(train_architecture(design.training(number), key))
        if distributed.rank() == 0:
            results = leakage.paired_leakage(config, key, fractions)
            path = write_json(Path(config.output_dir) / LEAKAGE_RESULTS, results)
            table = tables.as_dataframe(tables.table({"leakage": results}, "leakage"))
            shown = table.drop(columns=["Melanoma AP", "Macro F1", "ECE"])
            print(f"\n{shown.to_string(index=False)}")
            print(f"\n{leakage.summarize_leakage(results)}\n\n{path}")
