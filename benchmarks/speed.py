"""Measures training side by side with what one would write or use instead, in one run.

    python benchmarks/speed.py                          # generated pictures, four architectures
    python benchmarks/speed.py --repeats 2 --seconds 80 # on a large GPU; on two cores of its CPU:
    CUDA_VISIBLE_DEVICES= taskset -c 0,1 python benchmarks/speed.py --output FILE
    python benchmarks/speed.py --growth                 # also time and memory by number of images
    python benchmarks/speed.py --table                  # only README's table and plot

All train the same networks on the same files, loading included. `plain` is what a good student
writes: Pillow and torchvision's transforms for each image in each epoch, a DataLoader with a worker
on every core, float32. `timm` is timm's loader with its own augmentation, and its training step
with channels_last, fused Adam, and bfloat16 where ours chose it (without AVX-512 it is slow).
`ours` is the library as `melanoma train` runs it. They take turns, so that whatever else the
machine does meets all alike, in epochs of `--images` after a few steps that do not count: in the
first ones of an epoch memory is asked for and queues fill, which a whole epoch of 218 steps hardly
notices. Also measured: our epoch without its steps (`loading`), `predicting`, and decoding.

The file is written after each epoch, and what is in it with the same settings, machine and commit
is not measured again: interrupt the command (`--seconds` does it by itself) and go on later.
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

from melanoma_lib import scaling
from melanoma_lib.config import Config
from melanoma_lib.core import environment, errors, files
from melanoma_lib.core.environment import pick_device
from melanoma_lib.data import torch_dataset
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.images import decode
from melanoma_lib.data.layouts import COLUMNS
from melanoma_lib.data.torch_dataset import HAM10000Dataset, to_gpu_memory
from melanoma_lib.evaluation.predictions import predict_logits
from melanoma_lib.models.build import build_model, get_architecture, normalisation
from melanoma_lib.reporting import figures
from melanoma_lib.training import train
from melanoma_lib.training.cuda_graph import WARM_UP, captured
from melanoma_lib.training.loop import train_epoch, train_step
from melanoma_lib.training.precision import Arithmetic, adam, choose

SCHEMA = 2
FOLDER = Path(__file__).parent
README, PLOT = files.PROJECT / "README.md", files.PROJECT / "docs" / "speed.png"
BEGIN = "<!-- measured: python benchmarks/speed.py --table -->\n"
METHODS = ("plain", "timm", "ours")
WIDTH, HEIGHT, NOISE = 600, 450, 54  # HAM10000's pictures; grain that makes JPEGs as large
DISTINCT = 64  # generated pictures; more images are links to these
RECIPE_IMAGES = 7010  # HAM10000's training part: what `choose` has to know
UNCOUNTED, ON_A_GPU = 3, WARM_UP + 3  # steps of an epoch before those that count
GROWTH, SMALL = (1_000, 2_500, 5_000, 10_015), "test_resnet"  # sizes and network of `--growth`
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def picture(seed: int) -> bytes:
    """A JPEG of a blob on a plain ground, with grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    blob = 80 * (x**2 + y**2 < rng.uniform(0.1, 0.5))
    pixels = rng.uniform(150, 220, 3) - blob[..., None] + rng.normal(0, NOISE, (HEIGHT, WIDTH, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


@contextlib.contextmanager
def dataset(data_dir: str, images: int) -> Iterator[str]:
    """The folder of the dataset, or of a generated one in HAM10000's layout, its cache in it."""
    if data_dir:
        yield data_dir
        return
    with tempfile.TemporaryDirectory() as name:
        rows, paths = [], [Path(name, f"P{number}.jpg") for number in range(images)]
        for number, path in enumerate(paths):
            if number < DISTINCT:
                path.write_bytes(picture(number))
            else:
                path.hardlink_to(paths[number % DISTINCT])
            diagnosis = CLASS_NAMES[number % len(CLASS_NAMES)]
            row = (f"L{number}", path.stem, diagnosis, "histo", 50, "female", "back")
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        files.write_csv(Path(name, "HAM10000_metadata.csv"), rows)
        os.environ["MELANOMA_CACHE"] = name
        yield name


# -- methods: each gives a function that runs one epoch ----------------------------------------


class Pictures(Dataset):
    """Images decoded whenever they are asked for, one by one, and their labels."""

    def __init__(self, paths: list[Path], labels: list[int]):
        self.paths, self.labels, self.transform = paths, labels, None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int):
        with Image.open(self.paths[item]) as image:
            return self.transform(image.convert("RGB")), self.labels[item]


def plain_loader(pictures: Pictures, config: Config, device: torch.device) -> Iterable:
    """What a good student writes, with the recipe's augmentation."""
    how, size = config.augmentation, config.image_size
    mean_std = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    steps = [
        transforms.Resize((size, size)),
        transforms.RandomHorizontalFlip(how.flip),
        transforms.RandomVerticalFlip(how.flip),
        transforms.RandomRotation(how.rotation),
        transforms.ColorJitter(how.brightness, how.contrast, how.saturation),
        transforms.ToTensor(),
        transforms.Normalize(*mean_std),
    ]
    pictures.transform = transforms.Compose(steps)
    return DataLoader(
        pictures, config.batch_size, shuffle=True, drop_last=True, num_workers=CORES,
        pin_memory=device.type == "cuda", persistent_workers=True,
    )  # fmt: skip


def timm_loader(pictures: Pictures, config: Config, device: torch.device) -> Iterable:
    """timm's own: crops, flips, colours, and normalisation on the device, a batch ahead."""
    how = config.augmentation
    shape = 3, config.image_size, config.image_size
    return timm.data.create_loader(
        pictures, shape, config.batch_size, is_training=True, vflip=how.flip,
        color_jitter=how.brightness, num_workers=CORES, pin_memory=device.type == "cuda",
        device=device,
    )  # fmt: skip


class Bench:
    """Networks and loaders of the methods, made when they are first needed."""

    def __init__(
        self, data: torch_dataset.TrainingData, config: Config, images: int, results: dict
    ):
        self.data, self.config, self.chosen = data, config, results["chosen"]
        self.device = pick_device(config.device)
        self.uncounted = ON_A_GPU if self.device.type == "cuda" else UNCOUNTED
        part, images = data.dataset("train"), images + self.uncounted * config.batch_size
        self.part = HAM10000Dataset(part.pixels, part.labels, part.rows[:images], part.names)
        if len(self.part) < images:
            raise errors.MelanomaError(f"there are {len(part)} training images; see --images")
        self.threads = torch.get_num_threads()
        self.loaders: dict[str, Iterable] = {}
        self.trained: dict[str, tuple] = {}

    def now(self) -> float:
        """The time at which everything so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def epoch(self, key: str, method: str) -> Callable[[], float]:
        """A function that trains on (or loads, or predicts) the images once: images a second."""
        if method in ("plain", "timm"):
            return self.loaded(key, method)
        how = self.arithmetic(key)
        if key not in self.trained:
            self.trained.clear()  # the architecture before
            model = build_model(key, len(CLASS_NAMES), self.config.image_size).to(self.device)
            self.trained[key] = how.wrap(model)
        network, train = self.trained[key], to_gpu_memory(self.part, self.device)
        optimizer, numbers = adam(network, self.config.learning_rate), itertools.count(1)
        step = captured(train_step, self.device) if method == "ours" else no_step

        def run() -> float:
            torch.set_num_threads(how.threads)
            steps, start = itertools.count(), []

            def counted(*of):
                if next(steps) == self.uncounted:
                    start.append(self.now())
                return step(*of)

            train_epoch(network, optimizer, train, self.config, next(numbers), step=counted)
            return self.rate(*start)

        def predict() -> float:
            torch.set_num_threads(how.threads)
            mean_std, start = normalisation(network), self.now()
            predict_logits(network, train, self.config.batch_size, mean_std)
            return len(train) / (self.now() - start)

        return predict if method == "predicting" else run

    def rate(self, start: float) -> float:
        """Images a second of an epoch whose first step that counts began at `start`."""
        return (len(self.part) - self.uncounted * self.config.batch_size) / (self.now() - start)

    def arithmetic(self, key: str) -> Arithmetic:
        """How the library would train this network here, tried once."""
        torch.set_num_threads(self.threads)
        if key not in self.chosen:
            model = build_model(key, len(CLASS_NAMES), self.config.image_size)
            how, tried = choose(model, self.config, RECIPE_IMAGES, self.device, train_step)
            self.chosen[key] = {"arithmetic": asdict(how), "tried": tried}
        return Arithmetic(**self.chosen[key]["arithmetic"])

    def loaded(self, key: str, method: str) -> Callable[[], float]:
        """An epoch of one of the two that decode their images themselves."""
        fast, size, device = method == "timm", self.config.image_size, self.device
        layout = torch.channels_last if fast else torch.contiguous_format
        short = fast and self.arithmetic(key).precision == "bfloat16"
        model = build_model(key, len(CLASS_NAMES), size).to(device, memory_format=layout).train()
        options = {"fused": True} if fast else {}
        optimizer = torch.optim.Adam(model.parameters(), self.config.learning_rate, **options)
        if method not in self.loaders:
            paths = [self.data.files.images[row] for row in self.part.rows]
            pictures = Pictures(paths, self.part.labels[self.part.rows].tolist())
            make = timm_loader if fast else plain_loader
            self.loaders[method] = make(pictures, self.config, device)

        def run() -> float:
            torch.set_num_threads(self.threads)
            torch.backends.cudnn.benchmark = fast  # as timm's own script does
            for number, (images, labels) in enumerate(self.loaders[method]):
                if number == self.uncounted:
                    start = self.now()
                images, labels = (x.to(device, non_blocking=True) for x in (images, labels))
                images = images.contiguous(memory_format=layout)
                with torch.autocast(device.type, torch.bfloat16, enabled=short):
                    loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            torch.backends.cudnn.benchmark = False
            return self.rate(start)

        return run


def no_step(model, optimizer, images, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of a training step: what is left of an epoch is its loading."""
    return images.new_zeros(()), images.new_zeros(len(images), len(CLASS_NAMES))


# -- growth ------------------------------------------------------------------------------------


def grow(images: int, config: Config) -> dict[str, float]:
    """Seconds of preparing, training and evaluating so many images, and the peak memory in GB."""
    with dataset("", images) as folder:
        times = [time.perf_counter()]
        data = train.prepare(replace(config, data_dir=folder, output_dir=folder))
        times.append(time.perf_counter())
        model = build_model(SMALL, len(CLASS_NAMES), config.image_size)
        model = model.to(pick_device(config.device))
        train_epoch(model, adam(model, config.learning_rate), data.dataset("train"), config, 1)
        times.append(time.perf_counter())
        train.predict(model, data, config.batch_size)
        times.append(time.perf_counter())
    steps = ("prepare_seconds", "train_seconds", "evaluate_seconds")
    return dict(zip(steps, np.diff(times).tolist(), strict=True)) | {"peak_gb": peak_memory()}


def peak_memory() -> float:
    """The most memory this process has had, GB; pixels mapped from a file count while they fit."""
    lines = Path("/proc/self/status").read_text().splitlines()
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def middles(growth: dict[str, list[dict]]) -> dict[str, dict[str, float]]:
    """By number of images the median of each measure over the repeats."""
    return {
        images: {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
        for images, runs in growth.items()
    }


def fits(growth: dict[str, list[dict]]) -> dict[str, dict]:
    """Of each measure the straight line by least squares: constant, per 1,000 images, and R^2."""
    images = np.array([int(count) for count in growth]) / 1000
    rows, lines = list(middles(growth).values()), {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        slope, constant = np.polyfit(images, values, 1)
        r2 = np.corrcoef(images, values)[0, 1] ** 2 if values.std() else 1.0
        lines[name] = {"constant": constant, "per_1000_images": slope, "r2": r2}
    return lines


# -- table and plot ----------------------------------------------------------------------------


def complete(results: dict) -> dict[str, dict]:
    """The rates by architecture where every method was measured."""
    needed = {*METHODS, "loading"}
    return {key: rates for key, rates in results["rates"].items() if needed <= set(rates)}


def table(results: dict) -> str:
    """The rates of one machine in Markdown, and what they are."""
    heads = ("images a second", *METHODS, "ours / plain", "ours / timm", "loading", "ours is in")
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for key, rates in complete(results).items():
        shown = [_spread(rates[method]) for method in METHODS]
        ours, *others = (rates[name]["median"] for name in ("ours", "plain", "timm", "loading"))
        ratios = [f"{ours / other:.1f}" for other in others[:2]]
        precision = results["chosen"][key]["arithmetic"]["precision"]
        share = f"{ours / others[2]:.1%}"
        lines.append([get_architecture(key).display_name, *shown, *ratios, share, precision])
    return _markdown(lines) + (
        f"\n{_basis(results)}, batches of {results['batch_size']}, epochs of "
        f"{results['images']} images: median, and in brackets the slowest and the fastest."
        f"{_steps_alone(results)}\n"
    )


def _steps_alone(results: dict) -> str:
    """On a GPU, where loading and steps overlap: what an epoch takes more than its steps."""
    shares = [
        1 - rates["ours"]["median"] / max(tried.values())
        for key, rates in complete(results).items()
        if (tried := results["chosen"][key].get("tried"))
    ]
    if results["device"].startswith("CPU") or not shares:
        return ""
    return (
        f" Steps alone, as the choice timed them, take {min(shares):.1%} to {max(shares):.1%} less "
        "time than our epochs."
    )


def growth_table(results: dict) -> str:
    """Time and memory of one machine against the number of images, in Markdown."""
    counts = [int(count) for count in results["growth"]]
    lines = [("", *(f"{count:,}" for count in counts), "constant", "per 1,000 images", "R²")]
    lines += [["---"] + ["---:"] * (len(counts) + 3)]
    for name, line in results["growth_fits"].items():
        found = [f"{row[name]:.2f}" for row in middles(results["growth"]).values()]
        fit = [f"{line['constant']:.2f}", f"{line['per_1000_images']:.3f}", f"{line['r2']:.3f}"]
        lines.append([name.replace("_gb", " memory, GB").replace("_", ", "), *found, *fit])
    repeats = min(map(len, results["growth"].values()))
    return _markdown(lines) + (
        f"\nBy number of images, with {SMALL}, medians of {repeats}; {_basis(results)}.\n"
    )


def _markdown(lines: list) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _basis(results: dict) -> str:
    """When and on what was measured."""
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in ("torch", "timm"))
    return (
        f"{results['date']}, {results['device']} ({results['processor']}, {results['cores']} "
        f"cores), {versions}, commit {results['commit']}; {results['dataset']}, "
        f"{results['image_size']} px"
    )


def _spread(rate: dict) -> str:
    """The median, and in brackets the extremes if there is more than one measurement."""
    several = len(rate["images_per_second"]) > 1
    ends = f" ({_rate(rate['lowest'])} to {_rate(rate['highest'])})" * several
    return _rate(rate["median"]) + ends


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


@figures.style()
def plot(machines: list[dict]) -> figures.Figure:
    """Images a second by architecture and method, one panel a machine."""
    counts = [len(complete(results)) for results in machines]
    figure, panels = plt.subplots(
        len(machines), figsize=(figures.WIDTH, 0.7 + 0.6 * (len(counts) + sum(counts))),
        squeeze=False, height_ratios=[count + 0.3 for count in counts],
    )  # fmt: skip
    colours = (figures.LIGHT, figures.MODEL_COLOURS[5], figures.MODEL_COLOURS[0])
    for axes, results in zip(panels[:, 0], machines, strict=True):
        rates = complete(results)
        for place, (method, colour) in enumerate(zip(METHODS, colours, strict=True)):
            found = [rate[method]["median"] for rate in rates.values()]
            where = np.arange(len(found)) + 0.27 * (place - 1)
            bars = axes.barh(where, found, 0.25, color=colour, label=method)
            axes.bar_label(bars, [*map(_rate, found)], padding=3, size=7.5)
        axes.set_yticks(range(len(rates)), [get_architecture(key).display_name for key in rates])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.1)
        axes.set_title(f"{results['device']}, {results['cores']} cores")
    panels[-1, 0].set_xlabel("Images a second in training, loading included")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=len(METHODS))
    return figure


def page(text: str, machines: list[dict]) -> str:
    """README with its measured part made again."""
    alt = "Images a second in training, by architecture and method"
    parts = [table(results) for results in machines if complete(results)]
    parts += [growth_table(results) for results in machines if "growth_fits" in results]
    parts.append(f"![{alt}]({PLOT.relative_to(README.parent)})\n")
    return scaling.between(text, BEGIN, "\n".join(parts) if machines else "")


def show() -> None:
    """Writes README's table and its plot from the files beside this one."""
    machines = [files.read_json(path) for path in sorted(FOLDER.glob("speed-*.json"))]
    files.write_text(README, page(README.read_text(encoding="utf-8"), machines))
    if machines:
        with files.atomic_path(PLOT) as temporary:
            figure = plot([results for results in machines if complete(results)])
            figure.savefig(temporary, dpi=200, metadata={"Software": None})


# -- the run -----------------------------------------------------------------------------------


def about(options: argparse.Namespace, config: Config, fingerprint: str) -> dict:
    """What results depend on: they are added to a file only where all of this is equal."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "schema": SCHEMA,
        "device": environment.device_name(nn.Linear(1, 1).to(pick_device(config.device))),
        "processor": next(iter(models), platform.processor()),
        "cores": CORES,
        "commit": options.commit or commit(),
        "versions": environment.versions(),
        "dataset": fingerprint if options.data_dir else "generated pictures",
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "images": options.images,
    }


def commit() -> str:
    """The commit that is measured; a plus if its code was changed since."""
    git = ("git", "-C", str(files.PROJECT))
    try:
        head = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        code = [*git, "diff", "--quiet", "HEAD", "--", "melanoma_lib", "benchmarks/speed.py"]
        return head + "+" * subprocess.run(code).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def add(results: dict, output: Path, rates: dict, name: str, rate: float) -> None:
    """Adds one measured rate, images a second, and writes the file."""
    found = [*rates.get(name, {}).get("images_per_second", []), rate]
    middle = float(np.median(found))
    rates[name] = {"median": middle, "lowest": min(found), "highest": max(found)}
    rates[name]["images_per_second"] = found
    files.write_json(output, results)
    print(f"{name}: {rate:.1f} images/s", flush=True)


def measure(results: dict, data: torch_dataset.TrainingData, config: Config, options) -> None:
    """Measures what is missing in `results`, the methods in turn, until the time is up."""
    end = time.perf_counter() + (options.seconds or math.inf)
    bench = Bench(data, config, options.images, results)
    methods = (*options.methods, *(("loading", "predicting") if "ours" in options.methods else ()))
    for key in options.architectures if options.repeats else ():
        rates, epochs = results["rates"].setdefault(key, {}), {}
        for repeat, method in itertools.product(range(options.repeats), methods):
            if len(rates.get(method, {}).get("images_per_second", [])) > repeat:
                continue
            if time.perf_counter() > end:
                print("the time is up; the same command goes on", flush=True)
                return
            if method not in epochs:
                epochs[method] = bench.epoch(key, method)
                files.write_json(options.output, results)  # what was chosen
            print(f"{key}, {repeat + 1} of {options.repeats}, ", end="", flush=True)
            add(results, options.output, rates, method, epochs[method]())
    while len(results["decoding"].get("all", {}).get("images_per_second", [])) < options.repeats:
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            pixels = decode(data.files, config.image_size, cache)
            rate = len(pixels) / (time.perf_counter() - start)
        add(results, options.output, results["decoding"], "all", rate)


def measure_growth(results: dict, config: Config, options: argparse.Namespace) -> None:
    """The sizes in turn, each in a process of its own, whose peak memory is then that of it."""
    growth = results["growth"]
    for repeat, images in itertools.product(range(options.repeats), options.growth or GROWTH):
        runs = growth.setdefault(str(images), [])
        if len(runs) > repeat:
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            runs.append(pool.submit(grow, images, config).result())
        print(f"{images} images, {repeat + 1} of {options.repeats}: {runs[-1]}", flush=True)
        if len(growth) > 1:
            results["growth_fits"] = fits(growth)
        files.write_json(options.output, results)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    cuda = torch.cuda.is_available()
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = result.add_argument
    add("--data-dir", default="", help="default: generated pictures")
    add("--architectures", nargs="+", default=Config().architectures)
    add("--image-size", type=int, default=Config().image_size)
    add("--images", type=int, default=1536 if cuda else 96, help="of an epoch, in whole batches")
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
    images = options.images + ON_A_GPU * config.batch_size  # the more of the two
    needed = max(images * 10 // 7 + 2, 100)  # seven tenths are the training part
    with dataset(options.data_dir, needed) as folder, tempfile.TemporaryDirectory() as scratch:
        data = train.prepare(replace(config, data_dir=folder, output_dir=scratch))
        known = about(options, config, data.files.fingerprint)
        results = files.read_json(options.output, {})
        if any(results.get(name) != value for name, value in known.items()):
            results = known | {"chosen": {}, "rates": {}, "decoding": {}, "growth": {}}
        results["date"] = datetime.date.today().isoformat()
        sizes = [path.stat().st_size for path in data.files.images]
        results["jpeg_bytes"] = sum(sizes) / len(sizes)
        measure(results, data, config, options)
    if options.growth is not None:
        measure_growth(results, config, options)


if __name__ == "__main__":
    main()
