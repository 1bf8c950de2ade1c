"""Measures training side by side with what one would write or use instead, in one run.

    python benchmarks/speed.py                 # the four architectures, with generated pictures
    python benchmarks/speed.py --repeats 2 --seconds 80  # on a large GPU: about 80 s
    python benchmarks/speed.py --growth        # also: time and memory against the number of images
    python benchmarks/speed.py --table         # only README's table and plot, from the files here

Each method trains the same network on the same files, loading included. `plain` is what a good
student writes: Pillow and torchvision's transforms for each image in every epoch, a DataLoader
with a worker on each core, float32. `timm` is timm's loader with its own augmentation and its
training step with channels_last, bfloat16 and fused Adam. `ours` is the library as `melanoma train`
runs it. They take turns, so that whatever else the machine does meets all alike. An epoch is cut
to `--images`: rates do not depend on it. Also measured: our epoch without its steps (`loading`),
`predicting`, and decoding. Generated pictures are as large as HAM10000's, files and sides.

Written after each epoch: what is in the output file with the same settings, machine and commit is
not measured again, so the command may be interrupted, and `--seconds` interrupts it by itself.
"""

import argparse
import contextlib
import datetime
import io
import itertools
import math
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import timm.data
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from melanoma_lib import experiment, figures, scaling
from melanoma_lib.arithmetic import Arithmetic, adam, choose
from melanoma_lib.artifacts import (
    PROJECT,
    MelanomaError,
    atomic_path,
    read_json,
    write_csv,
    write_json,
    write_text,
)
from melanoma_lib.config import Config
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.layouts import COLUMNS
from melanoma_lib.data.pixels import HAM10000Dataset, decode, resident
from melanoma_lib.graphs import WARM_UP, captured
from melanoma_lib.models import architecture, build_model, normalisation, pick_device
from melanoma_lib.predictions import predict_logits
from melanoma_lib.scaling import HAM10000_JPEG_BYTES
from melanoma_lib.training import train_epoch, train_step

SCHEMA = 1
FOLDER = Path(__file__).parent
README, PLOT = PROJECT / "README.md", PROJECT / "docs" / "speed.png"
BEGIN = "<!-- measured: python benchmarks/speed.py --table -->\n"
METHODS = ("plain", "timm", "ours")
WIDTH, HEIGHT = 600, 450  # of HAM10000's pictures
DISTINCT = 64  # generated pictures; more images are links to these
RECIPE_IMAGES = 7010  # HAM10000's training part: what `choose` has to know
GROWTH = (1_000, 2_500, 5_000, 10_015)
SMALL = "test_resnet"  # the network of `--growth`
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# -- pictures ----------------------------------------------------------------------------------


def picture(seed: int, noise: float) -> bytes:
    """A JPEG of a blob on a plain ground, with grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    blob = 80 * (x**2 + y**2 < rng.uniform(0.1, 0.5))
    pixels = rng.uniform(150, 220, 3) - blob[..., None] + rng.normal(0, noise, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


@contextlib.contextmanager
def dataset(data_dir: str, images: int) -> Iterator[str]:
    """The folder of the dataset, or of a generated one in HAM10000's layout, its cache beside it.

    The files are as large as HAM10000's on average.
    """
    if data_dir:
        yield data_dir
        return
    noise = min(range(2, 40, 2), key=lambda n: abs(len(picture(0, n)) - HAM10000_JPEG_BYTES))
    with tempfile.TemporaryDirectory() as name:
        rows, paths = [], [Path(name, f"P{number}.jpg") for number in range(images)]
        for number, path in enumerate(paths):
            if number < DISTINCT:
                path.write_bytes(picture(number, noise))
            else:
                path.hardlink_to(paths[number % DISTINCT])
            diagnosis = CLASS_NAMES[number % len(CLASS_NAMES)]
            row = (f"L{number}", path.stem, diagnosis, "histo", 50, "female", "back")
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        write_csv(Path(name, "HAM10000_metadata.csv"), rows)
        os.environ["MELANOMA_CACHE"] = name
        yield name


class Pictures(Dataset):
    """Images decoded whenever they are asked for, one by one, and their labels."""

    def __init__(self, paths: list[Path], labels: list[int], transform: Callable | None = None):
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int):
        with Image.open(self.paths[item]) as image:
            return self.transform(image.convert("RGB")), self.labels[item]


def plain_loader(pictures: Pictures, config: Config, device: torch.device) -> Iterable:
    """What a good student writes, with the recipe's augmentation."""
    how, size = config.augmentation, config.image_size
    pictures.transform = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(how.flip),
            transforms.RandomVerticalFlip(how.flip),
            transforms.RandomRotation(how.rotation),
            transforms.ColorJitter(how.brightness, how.contrast, how.saturation),
            transforms.ToTensor(),
            transforms.Normalize(*timm_statistics()),
        ]
    )
    return DataLoader(
        pictures, config.batch_size, shuffle=True, drop_last=True, num_workers=CORES,
        pin_memory=device.type == "cuda", persistent_workers=True,
    )  # fmt: skip


def timm_loader(pictures: Pictures, config: Config, device: torch.device) -> Iterable:
    """timm's own: crops, flips, colours, and normalisation on the device, a batch ahead."""
    how = config.augmentation
    return timm.data.create_loader(
        pictures, config.image_size, config.batch_size, is_training=True, vflip=how.flip,
        color_jitter=how.brightness, num_workers=CORES, pin_memory=device.type == "cuda",
        device=device,
    )  # fmt: skip


def timm_statistics() -> tuple:
    """Mean and standard deviation of ImageNet."""
    return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


# -- methods: each gives a function that runs one epoch ----------------------------------------


class Bench:
    """Networks and loaders of the methods, made when they are first needed and warmed up."""

    def __init__(self, data: experiment.Data, config: Config, images: int, chosen: dict):
        self.data, self.config, self.chosen = data, config, chosen
        self.device = pick_device(config.device)
        part = data.part("train")
        if len(part) < images:
            raise MelanomaError(f"{len(part)} training images are fewer than --images {images}")
        self.part = HAM10000Dataset(part.pixels, part.labels, part.rows[:images], part.names)
        self.threads = torch.get_num_threads()
        self.warm_up = WARM_UP + 3 if self.device.type == "cuda" else 1  # steps
        self.loaders: dict[str, Iterable] = {}
        self.trained: dict[str, tuple] = {}

    def epoch(self, key: str, method: str) -> Callable[[], None]:
        """A function that trains on (or loads, or predicts) all images once, warmed up."""
        if method in ("plain", "timm"):
            return self.loaded(key, method)
        network, how, step, train = self.library(key)
        if method == "predicting":
            statistics = normalisation(network)
            return lambda: predict_logits(network, train, self.config.batch_size, statistics)
        step = step if method == "ours" else no_step
        optimizer, numbers = adam(network, self.config.learning_rate), itertools.count(1)

        def run(part: HAM10000Dataset) -> None:
            torch.set_num_threads(how.threads)
            train_epoch(network, optimizer, part, self.config, next(numbers), step=step)

        rows = np.resize(self.part.rows, self.warm_up * self.config.batch_size)
        run(resident(HAM10000Dataset(self.part.pixels, self.part.labels, rows), self.device))
        return lambda: run(train)

    def library(self, key: str) -> tuple:
        """The network, how it computes, the step and the pixels, as `train` and `fit` have them."""
        if key not in self.trained:
            self.trained.clear()  # the architecture before
            torch.set_num_threads(self.threads)
            model = build_model(key, len(CLASS_NAMES), self.config.image_size)
            if key not in self.chosen:
                how, tried = choose(model, self.config, RECIPE_IMAGES, self.device, train_step)
                self.chosen[key] = {"arithmetic": asdict(how), "tried": tried}
            how = Arithmetic(**self.chosen[key]["arithmetic"])
            network, step = how.wrap(model.to(self.device)), captured(train_step, self.device)
            self.trained[key] = network, how, step, resident(self.part, self.device)
        return self.trained[key]

    def loaded(self, key: str, method: str) -> Callable[[], None]:
        """An epoch of one of the two that decode their images themselves."""
        device, fast = self.device, method == "timm"
        layout = torch.channels_last if fast else torch.contiguous_format
        model = build_model(key, len(CLASS_NAMES), self.config.image_size).to(device).train()
        model = model.to(memory_format=layout)
        optimizer = torch.optim.Adam(
            model.parameters(), self.config.learning_rate, fused=True if fast else None
        )
        if method not in self.loaders:
            paths = [self.data.files.images[row] for row in self.part.rows]
            pictures = Pictures(paths, self.part.labels[self.part.rows].tolist())
            make = timm_loader if fast else plain_loader
            self.loaders[method] = make(pictures, self.config, device)
            for _ in self.loaders[method]:  # starts the workers
                pass

        def steps(batches: Iterable) -> None:
            torch.set_num_threads(self.threads)
            torch.backends.cudnn.benchmark = fast  # as timm's own script does
            for images, labels in batches:
                images = images.to(device, non_blocking=True)
                labels = labels.to(device, non_blocking=True)
                images = images.contiguous(memory_format=layout)
                with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                    loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            torch.backends.cudnn.benchmark = False

        shape = (self.config.batch_size, 3, self.config.image_size, self.config.image_size)
        steps([(torch.rand(shape), torch.zeros(shape[0], dtype=int))] * self.warm_up)
        return lambda: steps(self.loaders[method])


def no_step(model, optimizer, images, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of a training step: what is left of an epoch is its loading."""
    return images.new_zeros(()), images.new_zeros(len(images), len(CLASS_NAMES))


# -- growth ------------------------------------------------------------------------------------


def grow(images: int, config: Config) -> dict[str, float]:
    """Seconds of preparing, training and evaluating so many images, and the peak memory in GB."""
    with dataset("", images) as folder:
        start = time.perf_counter()
        data = experiment.prepare(replace(config, data_dir=str(folder), output_dir=str(folder)))
        prepared = time.perf_counter()
        model = build_model(SMALL, len(CLASS_NAMES), config.image_size)
        model = model.to(pick_device(config.device))
        train_epoch(model, adam(model, config.learning_rate), data.part("train"), config, 1)
        trained = time.perf_counter()
        experiment.predict(model, data, config.batch_size)
        return {
            "prepare_seconds": prepared - start,
            "train_seconds": trained - prepared,
            "evaluate_seconds": time.perf_counter() - trained,
            "peak_memory_gb": peak_memory(),
        }


def peak_memory() -> float:
    """The most memory this process has had, GB; pixels mapped from a file count while they fit."""
    lines = Path("/proc/self/status").read_text().splitlines()
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def fits(growth: dict[str, dict]) -> dict[str, dict]:
    """Of each measure the straight line by least squares: constant, per 1,000 images, and R^2."""
    images = np.array([int(count) for count in growth]) / 1000
    lines = {}
    for name in next(iter(growth.values())):
        values = np.array([row[name] for row in growth.values()])
        slope, constant = np.polyfit(images, values, 1)
        r2 = np.corrcoef(images, values)[0, 1] ** 2 if values.std() else 1.0
        lines[name] = {"constant": constant, "per_1000_images": slope, "r2": r2}
    return lines


# -- table and plot ----------------------------------------------------------------------------


def table(results: dict) -> str:
    """The rates of one machine in Markdown, and what they are."""
    heads = ("", *METHODS, "ours / plain", "ours / timm", "loading")
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for key, rates in results["rates"].items():
        if not set(METHODS) | {"loading"} <= set(rates):
            continue  # the time was up
        median = {method: rates[method]["median"] for method in rates}
        cells = [
            f"{rate['median']:.1f} ({rate['lowest']:.1f} to {rate['highest']:.1f})"
            for rate in map(rates.get, METHODS)
        ]
        ratios = [f"{median['ours'] / median[other]:.1f}" for other in METHODS[:2]]
        share = f"{median['ours'] / median['loading']:.1%}"
        lines.append([architecture(key).name, *cells, *ratios, share])
    repeats = len(next(iter(results["rates"].values()))["ours"]["images_per_second"])
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "timm"))
    basis = (
        f"{results['date']}, {results['device']} ({results['processor']}, {results['cores']} "
        f"cores), {versions}, commit {results['commit']}; {results['dataset']}, "
        f"{results['image_size']} px, batches of {results['batch_size']}, {repeats} epochs of "
        f"{results['images']} images."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{basis}\n"


@figures.style()
def plot(machines: list[dict]) -> figures.Figure:
    """Images a second by architecture and method, one panel a machine."""
    figure, panels = plt.subplots(
        len(machines), figsize=(figures.WIDTH, 2.3 * len(machines)), squeeze=False
    )
    looks = dict(zip(METHODS, (figures.LIGHT, *figures.MODEL_COLOURS[5::-5]), strict=True))
    for axes, results in zip(panels[:, 0], machines, strict=True):
        rates = {key: found for key, found in results["rates"].items() if set(METHODS) <= {*found}}
        for shift, method in enumerate(METHODS, -1):
            found = [rate[method] for rate in rates.values()]
            bars = axes.barh(
                np.arange(len(found)) + 0.27 * shift, [rate["median"] for rate in found], 0.25,
                color=looks[method], label=method,
            )  # fmt: skip
            axes.bar_label(bars, [f"{rate['median']:.1f}" for rate in found], padding=3, size=7.5)
        axes.set_yticks(range(len(rates)), [architecture(key).name for key in rates])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.1)
        axes.set_title(f"{results['device']}, {results['cores']} cores", loc="left")
    panels[-1, 0].set_xlabel("images a second in training, loading included")
    panels[0, 0].legend(loc="lower right")
    return figure


def page(text: str, machines: list[dict]) -> str:
    """README with its measured part made again."""
    return scaling.between(text, BEGIN, "\n".join(table(results) for results in machines))


def show() -> None:
    """Writes README's table and its plot from the files beside this one."""
    machines = [read_json(path) for path in sorted(FOLDER.glob("speed-*.json"))]
    write_text(README, page(README.read_text(encoding="utf-8"), machines))
    with atomic_path(PLOT) as temporary:
        plot(machines).savefig(temporary, dpi=200, metadata={"Software": None})


# -- the run -----------------------------------------------------------------------------------


def about(options: argparse.Namespace, config: Config, fingerprint: str) -> dict:
    """What results depend on: they are added to a file only where all of this is equal."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "schema": SCHEMA,
        "device": experiment.device_name(nn.Linear(1, 1).to(pick_device(config.device))),
        "processor": next(iter(models), platform.processor()),
        "cores": CORES,
        "commit": options.commit or commit(),
        "versions": experiment.versions(),
        "dataset": "generated pictures" if not options.data_dir else fingerprint,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "images": options.images,
    }


def commit() -> str:
    """The commit that is measured; a plus if its code was changed since."""
    git = ("git", "-C", str(PROJECT))
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        code = [*git, "diff", "--quiet", "HEAD", "--", "melanoma_lib", "benchmarks/speed.py"]
        return (head.stdout.strip() or "unknown") + "+" * subprocess.run(code).returncode
    except OSError:
        return "unknown"


def add(results: dict, output: Path, rates: dict, name: str, rate: float) -> None:
    """Adds one measured rate, images a second, and writes the file."""
    found = [*rates.get(name, {}).get("images_per_second", []), rate]
    rates[name] = {
        "median": float(np.median(found)),
        "lowest": min(found),
        "highest": max(found),
        "images_per_second": found,
    }
    write_json(output, results)
    print(f"{name}: {rate:.1f} images/s", flush=True)


def measure(results: dict, data: experiment.Data, config: Config, options) -> None:
    """Measures what is missing in `results`, the methods in turn, until the time is up."""
    end = time.perf_counter() + (options.seconds or math.inf)
    bench = Bench(data, config, options.images, results["chosen"])
    with_ours = ("loading", "predicting") if "ours" in options.methods else ()
    for key in options.architectures:
        rates, epochs = results["rates"].setdefault(key, {}), {}
        for repeat, method in itertools.product(
            range(options.repeats), (*options.methods, *with_ours)
        ):
            if len(rates.get(method, {}).get("images_per_second", [])) > repeat:
                continue
            if time.perf_counter() > end:
                print("the time is up; the same command goes on", flush=True)
                return
            if method not in epochs:
                epochs[method] = bench.epoch(key, method)
            start = time.perf_counter()
            epochs[method]()
            if bench.device.type == "cuda":
                torch.cuda.synchronize(bench.device)
            print(f"{key}, {repeat + 1} of {options.repeats}, ", end="")
            rate = options.images / (time.perf_counter() - start)
            add(results, options.output, rates, method, rate)
    while len(results["decoding"].get("all", {}).get("images_per_second", [])) < options.repeats:
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            pixels = decode(data.files, config.image_size, cache)
            rate = len(pixels) / (time.perf_counter() - start)
        add(results, options.output, results["decoding"], "all", rate)


def measure_growth(results: dict, config: Config, options: argparse.Namespace) -> None:
    """Each size in a process of its own, whose peak memory is then that of the size."""
    for images in options.growth:
        if str(images) in results["growth"]:
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            results["growth"][str(images)] = pool.submit(grow, images, config).result()
        if len(results["growth"]) > 1:
            results["growth_fits"] = fits(results["growth"])
        write_json(options.output, results)
        print(f"{images} images: {results['growth'][str(images)]}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cuda = torch.cuda.is_available()
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = result.add_argument
    add("--data-dir", default="", help="default: generated pictures")
    add("--architectures", nargs="+", default=Config().architectures)
    add("--image-size", type=int, default=Config().image_size)
    add("--images", type=int, default=1536 if cuda else 96, help="of an epoch, rounded to batches")
    add("--methods", nargs="*", choices=METHODS, default=METHODS)
    add("--repeats", type=int, default=3)
    add("--seconds", type=float, default=0, help="begin no epoch later than that")
    add("--growth", nargs="*", type=int, help=f"default: {GROWTH}, with {SMALL}")
    add("--commit", default="", help="where there is no git")
    add("--output", type=Path, default=FOLDER / f"speed-{'cuda' if cuda else 'cpu'}.json")
    add("--table", action="store_true", help="only write README's table and plot again")
    return result


def main() -> None:
    """Measures what the output file lacks."""
    options = parser().parse_args()
    if options.table:
        return show()
    config = Config(image_size=options.image_size)
    options.images -= options.images % config.batch_size
    # Seven tenths are the training part, and each diagnosis needs a few.
    with dataset(options.data_dir, max(options.images * 10 // 7 + 2, 100)) as folder, \
            tempfile.TemporaryDirectory() as scratch:  # fmt: skip
        data = experiment.prepare(replace(config, data_dir=folder, output_dir=scratch))
        known = about(options, config, data.files.fingerprint)
        results = read_json(options.output) if options.output.exists() else {}
        if any(results.get(name) != value for name, value in known.items()):
            results = known | {"chosen": {}, "rates": {}, "decoding": {}, "growth": {}}
        results["date"] = datetime.date.today().isoformat()
        sizes = [path.stat().st_size for path in data.files.images]
        results["jpeg_bytes"] = sum(sizes) / len(sizes)
        measure(results, data, config, options)
    if options.growth is not None:
        options.growth = options.growth or GROWTH
        measure_growth(results, config, options)


if __name__ == "__main__":
    main()
