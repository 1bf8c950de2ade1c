"""Measures what docs/cloud.md and chapter 10 calculate with, on the machine it runs on.

    python benchmarks/rates.py                 # about five minutes on two cores; seconds on a GPU
    python -m melanoma_lib.scaling             # writes the table of docs/cloud.md again

Writes rates.json beside it: the machine in words, the date, and images a second. Decoded are
generated pictures of HAM10000's size, with noise that makes their files as large as HAM10000's.
"""

import argparse
import datetime
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speed import picture

from melanoma_lib.artifacts import write_json
from melanoma_lib.config import Config
from melanoma_lib.data.classes import CLASS_NAMES
from melanoma_lib.data.pixels import HAM10000Dataset, check_images
from melanoma_lib.experiment import device_name
from melanoma_lib.models import build_model, normalisation, pick_device
from melanoma_lib.predictions import predict_logits
from melanoma_lib.scaling import RATES
from melanoma_lib.training import train_epoch

BATCH = 32


def decoding(images: int, size: int) -> tuple[float, float]:
    """Images a second on all cores, and the mean size of their files in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(images)]
        for number, path in enumerate(paths):
            path.write_bytes(picture(number))
        pixels = np.empty((images, size, size, 3), np.uint8)
        start = time.perf_counter()
        check_images(paths, into=pixels)
        seconds = time.perf_counter() - start
        return images / seconds, sum(path.stat().st_size for path in paths) / images


def training(key: str, config: Config, batches: int) -> tuple[float, float]:
    """Images a second of an epoch and of predicting, after a warm-up of one batch."""
    rng = np.random.default_rng(0)
    shape = (batches * BATCH, config.image_size, config.image_size, 3)
    labels = np.arange(len(CLASS_NAMES)).repeat(batches * BATCH)[: batches * BATCH]
    data = HAM10000Dataset(rng.integers(0, 256, shape, np.uint8), labels, np.arange(shape[0]))
    warm = HAM10000Dataset(data.pixels, labels, np.arange(BATCH))
    model = build_model(key, len(CLASS_NAMES), config.image_size).to(pick_device(config.device))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    train_epoch(model, optimizer, warm, config, 1)
    trained = train_epoch(model, optimizer, data, config, 2)["images_per_second"]
    predict_logits(model, warm, BATCH, normalisation(model))
    start = time.perf_counter()
    predict_logits(model, data, BATCH, normalisation(model))
    return trained, len(data) / (time.perf_counter() - start)


def main() -> None:
    """Measures, prints and writes rates.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="to decode")
    parser.add_argument("--batches", type=int, default=4, help="to train on; more on a GPU")
    parser.add_argument("--image-size", type=int, default=Config().image_size)
    parser.add_argument("--architectures", nargs="+", default=Config().architectures)
    parser.add_argument(
        "--price-per-hour", type=float, default=0.096,
        help="US dollars for such a machine; default: two cores (Standard_D2s_v5, early 2026)",
    )
    parser.add_argument("--output", type=Path, default=RATES)
    options = parser.parse_args()
    config = Config(image_size=options.image_size)
    rates: dict = {"train": {}, "predict": {}}
    rates["decode"], rates["jpeg_bytes"] = decoding(options.images, config.image_size)
    for key in options.architectures:
        rates["train"][key], rates["predict"][key] = training(key, config, options.batches)
        print(f"{key}: {rates['train'][key]:.1f} images/s", flush=True)
    device = device_name(torch.nn.Linear(1, 1).to(pick_device()))
    write_json(
        options.output,
        {
            "schema": 1,
            "machine": f"{device}; decoding on {os.cpu_count()} cores",
            "date": datetime.date.today().isoformat(),
            "image_size": config.image_size,
            "price_per_hour": options.price_per_hour,
            **rates,
        },
    )


if __name__ == "__main__":
    main()
