"""Checks before the first epoch of what would stop a run later."""

import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from melanoma_lib.config import PRECISIONS, Config
from melanoma_lib.core.environment import pick_device, usable_cores
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.files import existing_folder, read_json
from melanoma_lib.core.progress import duration
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decoded_path
from melanoma_lib.data.split import SPLITS, make_split, split_rows
from melanoma_lib.models.build import ARCHITECTURES, build_model, get_architecture
from melanoma_lib.training.checkpoint import KEEP
from melanoma_lib.training.dry_run import dry_run, loss_and_gradients
from melanoma_lib.training.precision import ComputeSettings, computes_bfloat16

ROOM_FOR_TWO = 30e9  # bytes of a GPU's memory: two notebooks were seen to take 29.3e9
CHECKPOINT = 16  # bytes a parameter: the weights, Adam's two averages and the best weights
LONG = 3600  # seconds of training that nobody should begin on a CPU without knowing
TIMED_IMAGES = 4


def check_training(
    config: Config, files: DatasetFiles, architectures: Sequence[str | None]
) -> dict[str, int]:
    """The number of parameters of each network that is still to be trained.

    Raises `MelanomaError` for what would stop a training later: an unknown architecture or device,
    a network that cannot be trained at the image size, weights that do not fit, a split without
    melanomas, fewer training images than a batch holds, too little room on a disk.
    """
    for key in config.architectures:
        get_architecture(key)
    unused = set(config.weights) - set(config.architectures)
    if unused:
        raise MelanomaError(f"--weights names {', '.join(unused)}, which is not to be trained")
    device = pick_device(config.device)
    split = make_split(files.metadata, config.split, config.seed, config.leaked_fraction)
    for name in SPLITS:
        rows = split.iloc[split_rows(split, name)]
        if (rows["dx"] == MELANOMA).mean() in (0, 1):
            raise MelanomaError(f"the split {name} needs both melanomas and other images")
        if name == "train" and len(rows) < config.batch_size:
            raise MelanomaError(
                f"{len(rows)} training images do not fill one batch; see --batch-size"
            )
    sizes = {}
    for key in filter(None, architectures):
        if _unfinished(config, files, key):
            if key not in ARCHITECTURES:  # those take every size
                dry_run(key, config.image_size, ComputeSettings(), device)
            weights = config.weights.get(key, "")
            with torch.device("cpu" if config.pretrained or weights else "meta"):  # no memory
                model = build_model(
                    key, len(CLASS_NAMES), config.image_size, config.pretrained, weights
                )
            sizes[key] = sum(parameter.numel() for parameter in model.parameters())
    _check_disk(config, files, sizes)
    return sizes


def _check_disk(config: Config, files: DatasetFiles, sizes: Mapping[str, int]) -> None:
    """Raises `MelanomaError` when checkpoints, best weights and pixels would not fit."""
    checkpoints = CHECKPOINT * max(sizes.values(), default=0)  # the one that is being written
    for key, parameters in sizes.items():
        for training in _unfinished(config, files, key):
            folder = Path(training.output_dir) / key
            asked = training.training_key(key, files.fingerprint)
            ours = read_json(folder / "run.json", {}).get("training_key") == asked
            there = sum(path.stat().st_size for path in folder.glob("*.*")) if ours else 0
            checkpoints += max((KEEP * CHECKPOINT + 4) * parameters - there, 0)
    pixels = decoded_path(files, config.image_size)
    decoded = len(files.images) * config.image_size**2 * 3
    wanted = {Path(config.output_dir): checkpoints, pixels.parent: decoded * (not pixels.exists())}
    disks = defaultdict(dict)
    for folder, count in wanted.items():
        disks[existing_folder(folder).stat().st_dev][folder] = count
    for folders in disks.values():
        free = shutil.disk_usage(existing_folder(next(iter(folders)))).free
        if sum(folders.values()) > free:
            needs = " and ".join(f"{size / 1e9:.1f} GB in {name}" for name, size in folders.items())
            raise MelanomaError(
                f"too little disk space: {needs} are needed and {free / 1e9:.1f} GB are free; "
                "`melanoma clean` lists what may go"
            )


def _unfinished(config: Config, files: DatasetFiles, key: str) -> list[Config]:
    """The configurations of an architecture's trainings that are still to be done."""
    trainings = [config.training(number) for number in range(1, config.trainings + 1)]
    return [
        training for training in trainings
        if not training.trained(key, training.training_key(key, files.fingerprint))
    ]  # fmt: skip


def cpu_warning(config: Config, files: DatasetFiles, sizes: Mapping[str, int]) -> str:
    """What somebody should know whose trainings `auto` puts on the CPU for over an hour; or "".

    sizes: the networks to be trained. How long that takes is estimated from a step of each.
    """
    if config.device != "auto" or not sizes or pick_device(config.device).type != "cpu":
        return ""
    split = make_split(files.metadata, config.split, config.seed, config.leaked_fraction)
    images = config.epochs * len(split_rows(split, "train"))
    rates = {key: _images_per_second(key, config) for key in sizes}
    seconds = sum(len(_unfinished(config, files, key)) * images / rates[key] for key in sizes)
    if seconds < LONG:
        return ""
    measured = ", ".join(f"{key} {rate:.1f}" for key, rate in rates.items())
    rule = "=" * 80
    return f"""{rule}
WARNING: PyTorch finds no GPU. On this CPU the training takes about {duration(seconds)},
by the first steps of each network (images a second: {measured}).
If there is a GPU, `nvidia-smi` shows it. Ctrl-C ends this; `--device cpu` says
that it is meant; `melanoma run --preset sample` shows everything in minutes.
{rule}"""


def _images_per_second(key: str, config: Config) -> float:
    """Forward and backward of a few random images on the CPU, after as many to warm up."""
    device = torch.device("cpu")
    native = "bfloat16" if computes_bfloat16(device) else "float32"
    settings = ComputeSettings(native if config.precision == PRECISIONS[0] else config.precision)
    model = build_model(key, len(CLASS_NAMES), config.image_size).train()
    images = torch.rand(TIMED_IMAGES, 3, config.image_size, config.image_size)
    loss_and_gradients(model, settings, images)
    start = time.perf_counter()
    loss_and_gradients(model, settings, images)
    return TIMED_IMAGES / (time.perf_counter() - start)


def default_jobs(config: Config) -> int:
    """How many notebooks run side by side: one a core up to four, or two on a GPU.

    There one trains while the other starts or scores its maps, if the memory is enough for both.
    """
    device = pick_device(config.device)
    if device.type == "cpu":
        return min(4, usable_cores())
    if device.type != "cuda":
        return 1
    return 2 if torch.cuda.get_device_properties(device).total_memory > ROOM_FOR_TWO else 1
