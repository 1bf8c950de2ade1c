"""Run by test_killed.py as its own process: trains one network, and can dawdle while it writes.

Arguments: dataset folder, run folder, epochs, seconds to wait in the middle of a checkpoint.
"""

import sys
import time
from pathlib import Path
from typing import BinaryIO

import torch

from melanoma_lib.config import Config
from melanoma_lib.training import checkpoint
from melanoma_lib.training.train import train_architecture

KEY = "test_efficientnet"


def main(data_dir: str, output_dir: str, epochs: int, wait: float) -> None:
    torch.set_num_threads(1)
    save = torch.save

    def slowly(state: dict, file: BinaryIO) -> None:
        save(state, file)
        file.flush()
        path = Path(file.name)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        print(f"writing {state['epoch']}", flush=True)
        time.sleep(wait)
        path.write_bytes(whole)

    checkpoint.torch.save = slowly
    config = Config(
        data_dir=data_dir, output_dir=output_dir, architectures=(KEY,), epochs=epochs,
        batch_size=16, image_size=32, learning_rate=3e-3, pretrained=False, device="cpu",
    )  # fmt: skip
    train_architecture(config, KEY)
    print("finished", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
