"""Checks before the first epoch of what would stop a run later."""

from collections.abc import Sequence

import torch

from melanoma_lib.config import Config
from melanoma_lib.core.environment import pick_device, usable_cores
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.split import SPLITS, make_split, split_rows
from melanoma_lib.models.build import ARCHITECTURES, build_model, get_architecture
from melanoma_lib.training.dry_run import dry_run
from melanoma_lib.training.precision import ComputeSettings

ROOM_FOR_TWO = 30e9  # bytes of a GPU's memory: two notebooks were seen to take 29.3e9


def preflight(
    config: Config, files: DatasetFiles, architectures: Sequence[str | None]
) -> tuple[dict[str, int], int]:
    """What `check_training` and `default_jobs` return; both may start CUDA."""
    return check_training(config, files, architectures), default_jobs(config)


def check_training(
    config: Config, files: DatasetFiles, architectures: Sequence[str | None]
) -> dict[str, int]:
    """The number of parameters of each network that is still to be trained.

    Raises `MelanomaError` for what would stop a training later: an unknown architecture or device,
    a network that cannot be trained at the image size, weights that do not fit, a split without
    melanomas, fewer training images than a batch holds.
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
        if not config.trained(key, config.training_key(key, files.fingerprint)):
            if key not in ARCHITECTURES:  # those take every size
                dry_run(key, config.image_size, ComputeSettings(), device)
            weights = config.weights.get(key, "")
            with torch.device("cpu" if config.pretrained or weights else "meta"):  # no memory
                model = build_model(
                    key, len(CLASS_NAMES), config.image_size, config.pretrained, weights
                )
            sizes[key] = sum(parameter.numel() for parameter in model.parameters())
    return sizes


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
