"""How often foreign pictures are noticed, by each network of a run: docs/out_of_distribution.md.

    python benchmarks/out_of_distribution.py RUN DATA_DIR NAME

measures and adds to the JSON beside this file; without arguments the page is written again. Two
lists of foreign pictures: on `chosen_on` the rule in `models.out_of_distribution` was chosen among
others, `kept_apart` was only looked at afterwards. The images of the test split say how often the
rule is wrong. Photographs are those that matplotlib and scikit-learn are installed with.
"""

import argparse
import datetime
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import sklearn.datasets
import torch
from PIL import Image, ImageDraw, ImageFilter

from melanoma_lib.config import Config
from melanoma_lib.core.environment import versions
from melanoma_lib.core.files import PROJECT, read_json, write_json, write_text
from melanoma_lib.data.dataset_files import open_dataset
from melanoma_lib.data.images import read_image
from melanoma_lib.data.split import split_rows
from melanoma_lib.models.build import normalise, to_input
from melanoma_lib.models.bundle import find_bundles, load_bundle
from melanoma_lib.models.out_of_distribution import (
    N_TEXTURE,
    capture_features,
    fit_reference_set,
)

RESULTS = Path(__file__).parent / "out-of-distribution-cpu.json"
PAGE = PROJECT / "docs" / "out_of_distribution.md"
SIZE = 600, 450
SKIN = ["#e0ac96", "#f1c27d", "#c68642", "#8d5524", "#ffdbac", "#e8beac"]
BATCH_SIZE = 16
INTRODUCTION = """\
# Foreign pictures

A network assigns one of its diagnoses to any picture. Before that, a picture that is unlike the
validation images is to be noticed
([`models/out_of_distribution.py`](../melanoma_lib/models/out_of_distribution.py)): by its features
or by its texture. The columns `features` show what a rule without textures would notice. The rule
was chosen on the first list of pictures; the second was kept apart from the choice. The last two
columns are the images of the test split that are noticed wrongly. Written by
`python benchmarks/out_of_distribution.py` from the JSON in `benchmarks/`.

- Chosen on: {chosen_on}.
- Kept apart: {kept_apart}.
"""


def plain(colour: str) -> Image.Image:
    """One colour."""
    return Image.new("RGB", SIZE, colour)


def ellipses(ground: str, colour: str, *boxes: tuple, blur: float = 0) -> Image.Image:
    """Ellipses in boxes (left, top, right, bottom)."""
    image = plain(ground)
    for box in boxes:
        ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image.filter(ImageFilter.GaussianBlur(blur))


def stripes(period: int, axis: int) -> Image.Image:
    """Black and white stripes, `period` pixels wide each."""
    bright = np.indices(SIZE[::-1])[axis] // period % 2 == 0
    return Image.fromarray(np.uint8(255 * bright)).convert("RGB")


def noise(seed: int, blur: float) -> Image.Image:
    """Random colours, blurred."""
    values = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    return Image.fromarray(values).filter(ImageFilter.GaussianBlur(blur))


def gradient(left: tuple, right: tuple) -> Image.Image:
    """One colour that becomes another from left to right."""
    position = np.linspace(0, 1, SIZE[0])[None, :, None]
    row = (1 - position) * np.array(left) + position * np.array(right)
    return Image.fromarray(np.repeat(row, SIZE[1], 0).astype(np.uint8))


def page_of_text() -> Image.Image:
    """Black lines of text on white."""
    image = plain("white")
    for line in range(10, SIZE[1], 14):
        ImageDraw.Draw(image).text((10, line), "the quick brown fox " * 5, fill="black")
    return image


def chosen_on() -> dict[str, Image.Image]:
    """The pictures that the rule was chosen on."""
    colours = [*SKIN[:3], "#808080", "white"]
    return {
        **{f"plain {colour}": plain(colour) for colour in colours},
        "brown ellipse on skin": ellipses(SKIN[0], "#5a321e", (200, 150, 400, 300)),
        "dark ellipse on skin": ellipses(SKIN[1], "#3c1e14", (150, 100, 450, 350)),
        "brown ellipse on white": ellipses("white", "#784628", (220, 140, 380, 310)),
        "narrow stripes": stripes(8, 0),
        "wide stripes": stripes(40, 1),
        "noise": noise(1, 0),
        "blurred noise": noise(2, 4),
        "shaded skin colour": gradient((224, 172, 150), (120, 70, 50)),
    }


def kept_apart() -> dict[str, Image.Image]:
    """The pictures that the rule is judged by."""
    ours = Path(matplotlib.get_data_path(), "sample_data")
    theirs = Path(sklearn.datasets.__file__).parent / "images"
    portrait = Image.open(ours / "grace_hopper.jpg").convert("RGB")
    temple, flower = (
        Image.open(theirs / name).convert("RGB") for name in ("china.jpg", "flower.jpg")
    )
    return {
        "a portrait": portrait,
        "the face in it": _crop(portrait, 0.3, 0.1, 0.7, 0.5),
        "a temple": temple,
        "its roof": _crop(temple, 0, 0, 0.5, 0.5),
        "a flower": flower,
        "its petals": _crop(flower, 0.3, 0.3, 0.6, 0.6),
        "a packet": Image.open(ours / "Minduka_Present_Blue_Pack.png").convert("RGB"),
        "a logo": Image.open(ours / "logo2.png").convert("RGB"),
        "a page of text": page_of_text(),
        "a chessboard": Image.fromarray(
            np.uint8(255 * ((np.indices(SIZE[::-1]) // 50).sum(0) % 2))
        ).convert("RGB"),
        **{f"plain {colour}": plain(colour) for colour in (*SKIN[3:], "black")},
        "soft ellipse on skin": ellipses(SKIN[5], "#6e3c28", (180, 120, 430, 330), blur=6),
        "ellipse on dark skin": ellipses(SKIN[3], "#281914", (230, 120, 360, 320)),
        "black ellipse": ellipses("#fae6d2", "black", (100, 80, 500, 380)),
        "two discs": ellipses(SKIN[4], "#643c28", (80, 150, 250, 320), (350, 150, 520, 320)),
        "very blurred noise": noise(9, 12),
        "a clear sky": gradient((90, 140, 220), (230, 240, 255)),
    }


def _crop(image: Image.Image, *box: float) -> Image.Image:
    corners = np.array(box) * np.tile(image.size, 2)
    return image.crop(tuple(corners.astype(int).tolist()))


def features_of(folder: Path, images: list) -> np.ndarray:
    """What `capture_features` gives for image files, or for their pixels, (n, columns)."""
    model, bundle = load_bundle(folder)
    with capture_features(model) as features, torch.inference_mode():
        for start in range(0, len(images), BATCH_SIZE):
            batch = [read_image(image, bundle["image_size"])
                     for image in images[start : start + BATCH_SIZE]]  # fmt: skip
            inputs = to_input(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2))
            model(normalise(inputs, bundle["mean"], bundle["std"]))
    return torch.cat(features).numpy()


def measure(folder: Path, files: Mapping[str, Path], split: pd.DataFrame) -> dict:
    """Of one network, by rule: what is noticed of both lists and of the test images."""
    val, test = (split.iloc[split_rows(split, name)] for name in ("val", "test"))
    lists = {"chosen_on": chosen_on(), "kept_apart": kept_apart()}
    images = [files[image_id] for image_id in (*val.image_id, *test.image_id)]
    foreign = [np.asarray(image) for pictures in lists.values() for image in pictures.values()]
    sizes = [len(val), len(test), *map(len, lists.values())]
    parts = np.split(features_of(folder, [*images, *foreign]), np.cumsum(sizes)[:-1])
    rules = {}
    for rule, end, n_texture in (("features", -N_TEXTURE, 0), ("and textures", None, N_TEXTURE)):
        val_part, *others = (part[:, :end] for part in parts)
        reference = fit_reference_set(val_part, val.lesion_id.to_numpy(str), n_texture)
        noticed = [reference.distance(part) > reference.limit for part in others]
        rules[rule] = {"test": float(noticed[0].mean())} | {
            name: {
                "fraction": float(found.mean()),
                "missed": [picture for picture, hit in zip(lists[name], found, strict=True)
                           if not hit],
            }
            for name, found in zip(lists, noticed[1:], strict=True)
        }  # fmt: skip
    return {"reference_images": len(val), "test_images": len(test), "rules": rules}


def page() -> str:
    """The page, from the results."""
    results = read_json(RESULTS)
    lists = {"chosen_on": chosen_on(), "kept_apart": kept_apart()}
    named = {name: ", ".join(pictures) for name, pictures in lists.items()}
    parts = [INTRODUCTION.format(**named)]
    measured = {network for run in results["runs"].values() for network in run["networks"]}
    if missing := [name for name in Config().architectures if name not in measured]:
        parts.append(f"Of the thesis's networks these are not measured: {', '.join(missing)}.\n")
    for name, run in results["runs"].items():
        about = f"{run['date']}, torch {run['torch']}, timm {run['timm']}."
        parts.append(f"## {name}\n\n{about}\n")
        header = ["network", *(f"{of}, {rule}" for of in ("chosen on", "kept apart", "test images")
                               for rule in ("features", "and textures"))]  # fmt: skip
        rows = [_row(network, found) for network, found in run["networks"].items()]
        table = [header, ["---"] * len(header), *rows]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in table) + "\n")
        parts += [_missed(network, found) for network, found in run["networks"].items()]
    return "\n".join(filter(None, parts))


def _row(network: str, found: Mapping) -> list[str]:
    rules = found["rules"].values()
    return [
        network,
        *(f"{rule[name]['fraction']:.0%}" for name in ("chosen_on", "kept_apart")
          for rule in rules),
        *(f"{rule['test']:.1%} of {found['test_images']:,}" for rule in rules),
    ]  # fmt: skip


def _missed(network: str, found: Mapping) -> str:
    """A sentence on what is not noticed of the pictures kept apart."""
    missed = found["rules"]["and textures"]["kept_apart"]["missed"]
    return f"{network} does not notice: {', '.join(missed)}.\n" if missed else ""


def main() -> None:
    """Measures what is asked for, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measured", nargs="*", metavar="RUN DATA_DIR NAME")
    given = parser.parse_args().measured
    if given:
        run, data_dir, name = given
        files = open_dataset(data_dir)
        paths = dict(zip(files.metadata["image_id"], files.images, strict=True))
        split = pd.read_csv(Path(run) / "split.csv")
        results = read_json(RESULTS, {"schema": 1, "runs": {}})
        results["runs"][name] = {
            "date": datetime.date.today().isoformat(),
            **{package: versions()[package] for package in ("torch", "timm")},
            "networks": {
                folder.name: measure(folder, paths, split) for folder in find_bundles(run)
            },
        }
        write_json(RESULTS, results)
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
