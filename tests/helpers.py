"""What tests of several rooms make: a small dataset, runs, tables of patients."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_model

from melanoma_lib.config import Config
from melanoma_lib.core.files import read_json, write_csv, write_json
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.shifts import SHIFTS
from melanoma_lib.data.torch_dataset import HAM10000Dataset
from melanoma_lib.evaluation.predictions import (
    Predictions,
    concatenate,
    load_predictions,
    save_predictions,
)
from melanoma_lib.explanation.occlusion_metrics import OCCLUSION_FILE
from melanoma_lib.reporting.compare import compare

ROOT = Path(__file__).parents[1]
# A short training of small pictures.
CONFIG = Config(epochs=3, batch_size=8, image_size=32, learning_rate=1e-3, device="cpu")
KEYS = ["test_efficientnet", "test_resnet"]  # networks of timm that train in seconds


def make_dataset(folder: Path, lesions_per_class: int = 10, size: int = 24) -> Path:
    """One or two flat pictures a lesion, their colour telling the class apart, with masks."""
    rng = np.random.default_rng(0)
    rows, number = [], 0
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for label, dx in enumerate(CLASS_NAMES):
        for lesion in range(lesions_per_class):
            for _ in range(1 + lesion % 2):
                number += 1
                name = f"ISIC_9{number:06d}"
                colour = np.array([30 * label, 200 - 25 * label, 90 + 60 * (label % 3)])
                pixels = colour + rng.integers(0, 30, (size, size + 8, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / "images" / f"{name}.jpg", quality=95)
                mask = np.zeros((size, size + 8), bool)
                mask[size // 4 : -size // 4, size // 4 : -size // 4] = True
                Image.fromarray(mask).save(folder / "masks" / f"{name}_segmentation.png")
                rows.append(
                    {
                        "lesion_id": f"HAM_9{label}{lesion:05d}",
                        "image_id": name,
                        "dx": dx,
                        "dx_type": "histo",
                        "age": "" if number % 17 == 0 else "45.0",
                        "sex": "female" if number % 2 else "male",
                        "localization": "back",
                    }
                )
    write_csv(folder / "HAM10000_metadata.csv", rows)
    return folder


def make_run(run_dir, skills=(2.0, 1.0), split="lesion", training_seed=0) -> dict[str, dict]:
    """Trained models that see the same lesions, the first one better; returns their latencies."""
    rng = np.random.default_rng(0)
    n = 400
    labels = rng.choice(7, n, p=[0.1, 0.1, 0.1, 0.05, 0.2, 0.4, 0.05])
    rng = np.random.default_rng(training_seed) if training_seed else rng
    for number, skill in enumerate(skills):
        folder = run_dir / f"model_{number}"
        folder.mkdir(parents=True)
        predictions = Predictions(
            image_ids=np.array([f"ISIC_{i:07d}" for i in range(n)]),
            lesion_ids=np.array([f"HAM_{i // 2:07d}" for i in range(n)]),
            splits=np.array(["val"] * (n // 2) + ["test"] * (n // 2)),
            labels=labels,
            logits=(rng.normal(size=(n, 7)) + skill * np.eye(7)[labels]).astype(np.float32),
        )
        save_predictions(folder / "predictions.parquet", predictions)
        write_json(
            folder / "run.json",
            {
                "finished": True, "name": f"Model_{number}", "timm_name": "m", "parameters": 10,
                "epochs": 2, "best_epoch": 1, "train_seconds": 5.0, "device": "CPU",
                "dataset": {"name": "generated sample", "generated": True, "fingerprint": "f"},
                "recipe": "r", "config": {"split": split, "training_seed": training_seed},
            },
        )
        write_json(
            folder / "bundle.json",
            {
                "temperature": 1.3,
                "weights_sha256": f"w{number}",
                "operating_points": [
                    {"name": "specificity_95", "criterion": "specificity", "target": 0.95,
                     "threshold": 0.4}
                ],
            },
        )
    return fast(*(f"model_{number}" for number in range(len(skills))))


def shift_images(run_dir, keys) -> None:
    """Leaves predictions that a shift blurs, as chapter 07 does; distances get no meaning."""
    rng = np.random.default_rng(5)
    for key in keys:
        path = run_dir / key / "predictions.parquet"
        predictions = load_predictions(path)
        save_predictions(path, predictions, distance=rng.random(len(predictions.labels)))
        test = predictions.split("test")
        noise = rng.normal(scale=4, size=test.logits.shape).astype(np.float32)
        shifted = [
            dataclasses.replace(test, logits=test.logits + noise, splits=np.full(len(noise), name))
            for name in SHIFTS
        ]
        weights = read_json(run_dir / key / "bundle.json")["weights_sha256"]
        altered = run_dir / key / OCCLUSION_FILE.format("test")
        save_predictions(altered, concatenate(shifted), f"{weights} dataset")


def write_bundle(folder, key):
    """Leaves the bundle of an untrained network in a folder; returns the network."""
    # These import timm, for which most tests need not wait.
    from melanoma_lib.models.build import build_model
    from melanoma_lib.models.bundle import save_bundle
    from melanoma_lib.models.out_of_distribution import fit_reference_set

    torch.manual_seed(0)
    model = build_model(key, 7, 32).eval()
    save_model(model, folder / "model.safetensors")
    save_bundle(
        folder, fit_reference_set(np.eye(6), np.arange(6)), architecture=key,
        class_names=CLASS_NAMES, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, temperature=1.5,
        operating_points=[], generated=True,
    )  # fmt: skip
    return model


def computed_in(folder, precision):
    """Records the precision of a training, as run.json has held it since there are two."""
    record = read_json(folder / "run.json")
    settings = {"precision": precision, "layout": "channels_last", "threads": 2}
    write_json(folder / "run.json", record | {"arithmetic": settings})


def fast(*keys):
    return {key: {"median_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "device": "CPU"} for key in keys}


def table_of(predictions) -> pd.DataFrame:
    """A table of patients for the images of some predictions."""
    n = len(predictions.image_ids)
    return pd.DataFrame(
        {
            "image_id": predictions.image_ids,
            "dx_type": ["histo", "follow_up"] * (n // 2),
            "age": np.resize([20.0, 45.0, 80.0, np.nan], n),
            "sex": np.resize(["male", "female", "female", "unknown"], n),
            "localization": "back",
        }
    )


def results_of(run_dir, latency, metadata):
    """Leaves beside trained models what chapters 04 and 08 leave; returns the results' file."""
    for key in latency:
        rows = [
            {"epoch": n, "train_loss": 2 / n, "val_loss": 2.5 / n, "train_accuracy": n / 4,
             "val_accuracy": n / 5, "best": True}
            for n in (1, 2, 3)
        ]  # fmt: skip
        write_csv(run_dir / key / "history.csv", rows)
    results = compare(run_dir, latency, metadata, resamples=50)
    return write_json(run_dir / "comparison_results.json", results)


def coloured(n=40):
    """Pictures whose brightness tells their class."""
    labels = np.arange(n) % 7
    noise = np.random.default_rng(1).integers(0, 20, (n, 32, 32, 3))
    pixels = (labels[:, None, None, None] * 34 + noise).astype(np.uint8)
    return HAM10000Dataset(pixels, labels, np.arange(n))


def weights_of(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def write_notebook(path, *cells):
    """A notebook of code cells, the first of which declares its parameters; `# log` is a tag."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for cell in book.cells:
        cell.metadata["tags"] = ["log"] * ("# log" in cell.source)
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(book, path)


def hear_signals():
    """A shell makes what it runs in the background deaf to Ctrl-C, and nohup to SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def python(code, *arguments, folders=(), **environment):
    """A Python process of its own group that hears signals and can import what lies in folders."""
    path = os.pathsep.join([*map(str, folders), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=hear_signals,
    )  # fmt: skip


def wait_for(condition, seconds=120):
    """Returns as soon as the condition holds; fails when it does not in time."""
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.1)


def report_process(number):
    """The process it is called in, whether torch is imported there, a variable, the number."""
    return os.getpid(), "torch" in sys.modules, os.environ.get("OF_NOW"), number


class UnreadableError(Exception):
    """Can be sent to another process, and not be read there."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def raise_error(kind, *arguments):
    raise kind(*arguments)


def refuse(number):
    """A function of the operating system that fails with an error number."""
    return lambda *_, **__: raise_error(OSError, number, os.strerror(number))
