"""Images a second in training: what one would write or use instead, and what the library does.

    python benchmarks/speed.py                  # four architectures, on generated pictures
    CUDA_VISIBLE_DEVICES= taskset -c 0,1 python benchmarks/speed.py     # on two cores of a CPU
    python benchmarks/speed.py --table          # only the tables of docs/performance.md

All train the same networks on the same files, loading included. `plain` is what a good student
writes: Pillow and torchvision's transforms for each image in each epoch, a DataLoader with a worker
on every core, Adam, float32. `timm` is timm's loader with its own augmentation, and a step with
channels_last, fused Adam and the precision of the library. `ours` is the library as `melanoma
train` runs it. They take turns, so that whatever else the machine does meets all alike. The first
steps of an epoch do not count: memory is asked for and queues fill in them, which a whole epoch of
218 steps hardly notices. Predicting and decoding are measured for docs/cloud.md.
"""

import argparse
import datetime
import itertools
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timm.data
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from melanoma_lib.config import Config
from melanoma_lib.core.environment import device_name, pick_device, usable_cores, versions
from melanoma_lib.core.files import PROJECT, read_json, write_csv, write_json, write_text
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.images import decode
from melanoma_lib.data.layouts import COLUMNS
from melanoma_lib.data.torch_dataset import HAM10000Dataset, to_gpu_memory
from melanoma_lib.evaluation.predictions import predict_logits
from melanoma_lib.models.build import build_model, get_architecture, normalisation
from melanoma_lib.training.cuda_graph import WARM_UP, with_cuda_graph
from melanoma_lib.training.loop import train_epoch, train_step
from melanoma_lib.training.precision import ComputeSettings, computes_bfloat16
from melanoma_lib.training.recipe import make_optimizer
from melanoma_lib.training.train import prepare

SCHEMA = 2
FOLDER = Path(__file__).parent
PAGE = PROJECT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: python benchmarks/speed.py --table -->\n", "<!-- end -->"
METHODS = ("plain", "timm", "ours")
NOISE = 54  # of the generated pictures' grain, which makes their files as large as HAM10000's
UNCOUNTED = WARM_UP + 3  # steps of an epoch before those that count
CORES = usable_cores()


def generate(folder: Path, images: int) -> None:
    """Writes pictures of blobs with grain, as large as HAM10000's, and a table of them."""
    rng, rows = np.random.default_rng(0), []
    y, x = np.mgrid[-1:1:450j, -1:1:600j]
    for number in range(images):
        blob = 80 * (x**2 + y**2 < rng.uniform(0.1, 0.5))
        pixels = rng.uniform(150, 220, 3) - blob[..., None] + rng.normal(0, NOISE, (450, 600, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"P{number}.jpg", quality=95)
        diagnosis = CLASS_NAMES[number % len(CLASS_NAMES)]
        row = (f"L{number}", f"P{number}", diagnosis, "histo", 50, "female", "back")
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    write_csv(folder / "HAM10000_metadata.csv", rows)


class Pictures(Dataset):
    """Images decoded whenever they are asked for, one by one, and their labels."""

    def __init__(self, paths: list[Path], labels: list[int], transform: Callable | None = None):
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int):
        with Image.open(self.paths[item]) as image:
            return self.transform(image.convert("RGB")), self.labels[item]


def plain_loader(paths: list[Path], labels: list[int], config: Config, pin: bool) -> DataLoader:
    """What a good student writes, with the recipe's augmentation."""
    change = config.augmentation
    transform = transforms.Compose([
        transforms.Resize((config.image_size, config.image_size)),
        transforms.RandomHorizontalFlip(change.flip),
        transforms.RandomVerticalFlip(change.flip),
        transforms.RandomRotation(change.rotation),
        transforms.ColorJitter(change.brightness, change.contrast, change.saturation),
        transforms.ToTensor(),
        transforms.Normalize(timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD),
    ])
    pictures = Pictures(paths, labels, transform)
    return DataLoader(pictures, config.batch_size, shuffle=True, drop_last=True, pin_memory=pin,
                      num_workers=CORES, persistent_workers=True)  # fmt: skip


def timed(step: Callable, device: torch.device) -> tuple[Callable, Callable[[], float]]:
    """The step, and a function for the end of an epoch: images a second of its steps that count."""
    times, images = [], []

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed_step(model, optimizer, batch, *rest):
        if len(images) == UNCOUNTED:
            times.append(now())
        images.append(len(batch))
        return step(model, optimizer, batch, *rest)

    def rate() -> float:
        found = sum(images[UNCOUNTED:]) / (now() - times.pop())
        images.clear()
        return found

    return timed_step, rate


def by_hand(model: nn.Module, optimizer, batches, device: torch.device, tune: bool) -> Callable:
    """A function that trains on the batches once; `tune` lets cuDNN look for its fastest ways."""
    step, rate = timed(train_step, device)

    def epoch() -> float:
        torch.backends.cudnn.benchmark = tune
        model.train()
        for batch in batches:
            step(model, optimizer, *(part.to(device, non_blocking=True) for part in batch))
        torch.backends.cudnn.benchmark = False
        return rate()

    return epoch


def methods(
    key: str, part: HAM10000Dataset, paths: list[Path], config: Config, settings: ComputeSettings
) -> dict[str, Callable[[], float]]:
    """What is measured of an architecture: functions that return images a second, by name."""
    device, pace, size = pick_device(config.device), config.learning_rate, config.image_size
    pin, files = device.type == "cuda", (paths, part.labels[part.rows].tolist())
    plain, fast, ours = (build_model(key, len(CLASS_NAMES), size).to(device) for _ in METHODS)
    of_timm = timm.data.create_loader(
        Pictures(*files), (3, size, size), config.batch_size, is_training=True, device=device,
        vflip=config.augmentation.flip, color_jitter=config.augmentation.brightness,
        num_workers=CORES, pin_memory=pin,
    )  # fmt: skip
    train, network = to_gpu_memory(part, device), settings.wrap(ours)
    optimizer = make_optimizer(ours, config)
    step, rate = timed(with_cuda_graph(train_step, device), device)
    numbers = itertools.count(1)

    def epoch() -> float:
        train_epoch(network, optimizer, train, config, next(numbers), step=step)
        return rate()

    def predict() -> float:
        start = time.perf_counter()
        predict_logits(network, train, config.batch_size, normalisation(network))
        return len(train) / (time.perf_counter() - start)

    adam_of_plain = torch.optim.Adam(plain.parameters(), pace)
    return {
        "plain": by_hand(plain, adam_of_plain, plain_loader(*files, config, pin), device, False),
        "timm": by_hand(
            settings.wrap(fast), make_optimizer(fast, config), of_timm, device, True
        ),
        "ours": epoch,
        "predicting": predict,
    }


def add(rates: dict, name: str, rate: float) -> None:
    """Adds one measured rate, images a second."""
    found = [*rates.get(name, {}).get("images_per_second", []), rate]
    middle = float(np.median(found))
    rates[name] = {"median": middle, "lowest": min(found), "highest": max(found)}
    rates[name]["images_per_second"] = found
    print(f"{name}: {rate:.1f} images/s", flush=True)


def about(config: Config, images: int) -> dict:
    """What the results depend on."""
    cpu, git = Path("/proc/cpuinfo"), ("git", "-C", str(FOLDER), "rev-parse", "--short", "HEAD")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "device": device_name(nn.Linear(1, 1).to(pick_device(config.device))),
        "processor": next(iter(models), platform.processor()),
        "cores": CORES,
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown",
        "versions": versions(),
        "dataset": "generated pictures",
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "images": images,
    }


def measure(config: Config, images: int, repeats: int, output: Path) -> None:
    """Measures everything, the methods in turn, and writes the file after each architecture."""
    data = prepare(config)
    train = data.dataset("train")
    rows = train.rows[: images + UNCOUNTED * config.batch_size]
    part = HAM10000Dataset(train.pixels, train.labels, rows)
    paths = [data.files.images[row] for row in rows]
    native = computes_bfloat16(pick_device(config.device))
    settings = ComputeSettings("bfloat16" if native else "float32")
    results = about(config, images) | {"chosen": {}, "rates": {}, "decoding": {}}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            decode(data.files, config.image_size, cache)
            seconds = time.perf_counter() - start
        add(results["decoding"], "all", len(data.files.images) / seconds)
    for key in config.architectures:
        results["chosen"][key] = {"arithmetic": asdict(settings)}
        rates = results["rates"].setdefault(key, {})
        epochs = methods(key, part, paths, config, settings)
        for _, (name, epoch) in itertools.product(range(repeats), epochs.items()):
            print(f"{key}, ", end="")
            add(rates, name, epoch())
        write_json(output, results)


def table(results: dict) -> str:
    """The rates of one machine in Markdown, and what they are."""
    heads = ("images a second", *METHODS, "ours / plain", "ours / timm", "ours is in")
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for key, rates in results["rates"].items():
        plain, fast, ours = (rates[method]["median"] for method in METHODS)
        shown = [_spread(rates[method]) for method in METHODS]
        precision = results["chosen"][key]["arithmetic"]["precision"]
        ratios = [f"{ours / other:.1f}" for other in (plain, fast)]
        lines.append([get_architecture(key).display_name, *shown, *ratios, precision])
    packages = ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "timm"))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + (
        f"\n{results['date']}, {results['device']} ({results['processor']}, {results['cores']} "
        f"cores), {packages}, commit {results['commit']}; {results['dataset']}, "
        f"{results['image_size']} px, batches of {results['batch_size']}, epochs of "
        f"{results['images']} images: median, and in brackets the slowest and the fastest.\n"
    )


def _spread(rate: dict) -> str:
    """The median, and in brackets the extremes if there is more than one measurement."""
    low, middle, high = (
        f"{rate[name]:,.{int(rate[name] < 100)}f}" for name in ("lowest", "median", "highest")
    )
    return middle + f" ({low} to {high})" * (len(rate["images_per_second"]) > 1)


def page(text: str) -> str:
    """docs/performance.md with its tables made again from the files beside this one."""
    machines = [read_json(path) for path in sorted(FOLDER.glob("speed-*.json"))]
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n".join(map(table, machines)) + END + rest.partition(END)[2]


def main() -> None:
    """Measures, or writes the tables."""
    kind, recipe = "cuda" if torch.cuda.is_available() else "cpu", Config()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--architectures", nargs="+", default=recipe.architectures)
    option("--image-size", type=int, default=recipe.image_size)
    option("--images", type=int, default=96 if kind == "cpu" else 1536, help="of an epoch")
    option("--repeats", type=int, default=3)
    option("--output", type=Path, default=FOLDER / f"speed-{kind}.json")
    option("--table", action="store_true", help="only write the tables of docs/performance.md")
    options = parser.parse_args()
    if options.table:
        write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MELANOMA_CACHE"] = folder
        config = Config(data_dir=folder, output_dir=folder, image_size=options.image_size,
                        architectures=tuple(options.architectures))  # fmt: skip
        images = options.images - options.images % config.batch_size
        needed = images + UNCOUNTED * config.batch_size
        generate(Path(folder), max(needed * 10 // 7 + 2, 100))  # seven tenths are trained on
        measure(config, images, options.repeats, options.output)


if __name__ == "__main__":
    main()
