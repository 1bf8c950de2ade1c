"""Does a network need the lesion? Its predictions with parts of the image hidden, added, shifted.

A network that still tells melanoma when the lesion is hidden has found a shortcut (Bissoto et al.,
2019); one whose answer changes with a ruler or with ink looks at them (Winkler et al., 2019).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from melanoma_lib.core.environment import pick_device
from melanoma_lib.core.files import digest, read_json
from melanoma_lib.core.progress import progress
from melanoma_lib.data.artifacts import ARTIFACTS
from melanoma_lib.data.dataset_files import DatasetFiles
from melanoma_lib.data.images import decode, read_mask
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.data.synthetic import without_artifacts
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.predictions import (
    concatenate,
    load_predictions,
    predict_logits,
    save_predictions,
    saved_key,
)
from melanoma_lib.explanation.occlusion_metrics import OCCLUSION_FILE, SCHEMA
from melanoma_lib.models.bundle import load_bundle

SEED = 42  # of the artifacts that are added
MARGIN = 1 / 20  # of the side: by how much the mask grows, because a border is soft
FRAME = 1 / 8  # of the side: the width of the frame
LARGEST = 0.9  # of the image: a larger mask leaves no skin to show
FILL_SIDE = 64  # at which hidden pixels are interpolated: what is smooth needs no more


def dilate(mask: np.ndarray, margin: float = MARGIN) -> np.ndarray:
    """A mask (side, side), boolean, dilated by `margin` of the side in each direction."""
    pixels = 2 * round(margin * len(mask)) + 1
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(pixels))) > 0


def inpaint_lesion(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The lesion painted over with the colours of the skin around it, uint8 (side, side, 3).

    Solves Laplace's equation within the dilated mask, as ROAD's imputation (Rong et al., 2022).
    """
    import torch
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    hidden, small = dilate(mask), (FILL_SIDE, FILL_SIDE)
    coarse = np.array(Image.fromarray(image).resize(small))
    known = ~np.asarray(Image.fromarray(hidden).resize(small, Image.Resampling.NEAREST))
    filled = NoisyLinearImputer(noise=0)(
        torch.from_numpy(coarse).permute(2, 0, 1).float(), torch.from_numpy(known)
    )
    filled = Image.fromarray(np.uint8(filled.clamp(0, 255).permute(1, 2, 0).numpy()))
    smooth = np.asarray(filled.resize(image.shape[1::-1], Image.Resampling.BICUBIC))
    return np.where(hidden[..., None], smooth, image)


def only_lesion(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The lesion and its border, on the mean colour of everything else, uint8 (side, side, 3)."""
    rest = ~dilate(mask)
    return np.where(rest[..., None], np.uint8(image[rest].mean(0)), image)


def only_frame(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The frame of an image, its mean colour elsewhere, uint8 (side, side, 3).

    A lesion that reaches into the frame is hidden there too.
    """
    width, hidden = round(FRAME * len(image)), dilate(mask)
    hidden[width:-width, width:-width] = True
    return np.where(hidden[..., None], np.uint8(image[~hidden].mean(0)), image)


HIDDEN: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "lesion_hidden": inpaint_lesion, "only_lesion": only_lesion, "only_frame": only_frame,
}  # fmt: skip


def add_artifact(image: np.ndarray, name: str, seed: Sequence[int]) -> np.ndarray:
    """An image with one of `ARTIFACTS` painted over it, uint8 (side, side, 3)."""
    rgb = np.float32(image).transpose(2, 0, 1) / 255
    ARTIFACTS[name][0](rgb, np.random.default_rng(seed))
    return np.uint8(255 * rgb.clip(0, 1)).transpose(1, 2, 0)


def altered_images(
    files: DatasetFiles, image_ids: Sequence[str], size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Some images altered in each way: its name, which of the images (n,), their pixels.

    Pixels are uint8 (n, size, size, 3). Parts are hidden by the lesion masks, in images that have
    one and show skin beside the lesion; artifacts are added to all images, and removed from those
    of a generated sample that show them; each of `SHIFTS` changes all images.
    """
    pixels = decode(files, size)[files.rows_of(image_ids)]
    masks = {row: read_mask(files.masks[name], size)
             for row, name in enumerate(image_ids) if name in files.masks}  # fmt: skip
    masks = {row: mask for row, mask in masks.items() if dilate(mask).mean() < LARGEST}
    for name, hide in HIDDEN.items():
        if masks:
            hidden = [hide(pixels[row], mask) for row, mask in progress(masks.items(), name)]
            yield name, np.array(list(masks)), np.stack(hidden)
    for name in ARTIFACTS:
        added = [add_artifact(image, name, [SEED, row]) for row, image in enumerate(pixels)]
        yield f"{name}_added", np.arange(len(pixels)), np.stack(added)
    folder = Path(files.images[0]).parents[1] if files.generated else Path()
    for name, images in without_artifacts(folder, image_ids, size).items():
        rows = [row for row, image_id in enumerate(image_ids) if image_id in images]
        if rows:
            yield f"{name}_removed", np.array(rows), np.stack([images[image_ids[r]] for r in rows])
    for name, (shift, _) in SHIFTS.items():
        yield name, np.arange(len(pixels)), shift(pixels)


def predict_altered(
    folders: Sequence[Path], files: DatasetFiles, split: str = "test", device: str = "auto",
    batch_size: int = 32,
) -> None:  # fmt: skip
    """Writes what trained networks of one run make of the altered images of a split.

    `folders` are those of architectures in the run. Each receives `occlusion-SPLIT.parquet`, with
    the columns of predictions.parquet, where `part` names the alteration. What is there is kept as
    long as weights and images are the same.
    """
    keys, models, found = {}, {}, defaultdict(list)
    for folder in map(Path, folders):
        images = load_predictions(folder / "predictions.parquet").split(split)
        weights = read_json(folder / "bundle.json").get("weights_sha256")
        dataset = digest([SCHEMA, files.fingerprint, files.mask_fingerprint,
                          images.image_ids.tolist()])  # fmt: skip
        key = f"{weights} {dataset}"
        if saved_key(folder / OCCLUSION_FILE.format(split)) != key:
            keys[folder], models[folder] = key, load_bundle(folder)
    if not models:
        return
    size = next(iter(models.values()))[1]["image_size"]
    for name, rows, pixels in altered_images(files, images.image_ids, size):
        dataset = HAM10000Dataset(pixels, images.labels[rows], np.arange(len(rows)))
        for folder, (model, bundle) in models.items():
            model.to(pick_device(device))
            logits = predict_logits(model, dataset, batch_size, (bundle["mean"], bundle["std"]))
            altered = replace(images.take(rows), splits=np.full(len(rows), name), logits=logits)
            found[folder].append(altered)
    for folder, altered in found.items():
        path = folder / OCCLUSION_FILE.format(split)
        save_predictions(path, concatenate(altered), keys[folder])
