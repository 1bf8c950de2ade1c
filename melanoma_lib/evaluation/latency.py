"""Latency: how long a network takes for one image."""

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from melanoma_lib.core.environment import device_name

WARM_UP = 3  # first runs of a network, which are slower and not counted


def measure_latency(
    models: Mapping[str, nn.Module], image_size: int, repeats: int = 10
) -> dict[str, dict]:
    """Milliseconds from one normalised image to its logits, by model.

    Fields `median_ms`, `low_ms`, `high_ms` (5th and 95th percentile) and `device`. Batches of one;
    the models take turns, so that other load on the machine affects them alike; asynchronous
    devices are synchronised.
    """
    times: dict[str, list[float]] = {key: [] for key in models}
    with torch.inference_mode():
        for key in list(models) * (WARM_UP + repeats):
            device = next(models[key].parameters()).device
            image = torch.zeros(1, 3, image_size, image_size, device=device)
            start = time.perf_counter()
            models[key](image).cpu()  # the copy waits for the device
            times[key].append(1000 * (time.perf_counter() - start))
    latencies = {}
    for key, model in models.items():
        low, median, high = np.quantile(times[key][WARM_UP:], [0.05, 0.5, 0.95]).tolist()
        latencies[key] = {"median_ms": median, "low_ms": low, "high_ms": high,
                        "device": device_name(model)}  # fmt: skip
    return latencies
