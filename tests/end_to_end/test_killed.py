"""A training killed with SIGKILL at any moment ends bit for bit like one that was left alone."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import hear_signals, python
from safetensors.torch import load_file

from melanoma_lib.core.files import read_history
from melanoma_lib.evaluation.predictions import load_predictions

TARGET = Path(__file__).with_name("kill_target.py")
KEY = "test_efficientnet"
WAIT = 0.4  # seconds that a checkpoint lies there by half


def start(dataset, run, epochs, wait):
    command = [sys.executable, TARGET, dataset, run, str(epochs), str(wait)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill(process, checkpoints, seconds):
    """Kills it so many seconds after it began to write so many checkpoints."""
    for _ in range(checkpoints):
        while not process.stdout.readline().startswith("writing"):
            assert process.poll() is None, "it ended before it could be killed"
    time.sleep(seconds)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def outcome(run):
    """What must not depend on interruptions: weights, history without times, predictions."""
    folder = run / KEY
    history = [
        {name: value for name, value in row.items() if "second" not in name}
        for row in read_history(folder)
    ]
    predictions = load_predictions(folder / "predictions.parquet")
    return load_file(folder / "model.safetensors"), history, predictions


def same(first, second):
    weights, history, predictions = first
    others, other_history, other_predictions = second
    return (
        weights.keys() == others.keys()
        and all(np.array_equal(weights[name], others[name]) for name in weights)
        and history == other_history
        and np.array_equal(predictions.image_ids, other_predictions.image_ids)
        and np.array_equal(predictions.logits, other_predictions.logits)
    )


def assert_kills_change_nothing(dataset, tmp_path, epochs, kills):
    """Every third kill falls into the writing of a checkpoint, the others anywhere."""
    undisturbed = start(dataset, tmp_path / "undisturbed", epochs, 0)
    assert undisturbed.communicate()[0].endswith("finished\n")
    chance = random.Random(0)
    for number in range(kills):
        process = start(dataset, tmp_path / "killed", epochs, WAIT)
        if number % 3 == 0:
            kill(process, 1, 0)
        elif number % 3 == 1:
            kill(process, 0, chance.uniform(0, 8))  # while it starts, or in the first epochs
        else:
            kill(process, chance.choice([1, 2]), chance.uniform(0, 2 * WAIT))
    last = start(dataset, tmp_path / "killed", epochs, 0)
    assert last.communicate()[0].endswith("finished\n") and last.returncode == 0
    assert same(outcome(tmp_path / "undisturbed"), outcome(tmp_path / "killed"))
    assert not list((tmp_path / "killed" / KEY).glob(".*"))  # no halves are left behind


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_training_and_the_same_command_goes_on(dataset, tmp_path, number):
    """As Ctrl-C does, in the middle of an epoch."""
    command = [sys.executable, "-m", "melanoma_lib", "train", KEY, "--data-dir", dataset,
               "--output-dir", tmp_path, "--no-pretrained", "--image-size", "32",
               "--batch-size", "16", "--epochs"]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "1000"], preexec_fn=hear_signals, **pipes)
    try:
        while not re.match(" *2/1000 ", process.stdout.readline()):
            assert process.poll() is None
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert error.splitlines()[-1] == "melanoma: interrupted; the same command goes on from here"
    epochs = len(read_history(tmp_path / KEY))
    assert epochs > 1
    done = subprocess.run([*command, f"{epochs + 1}"], **pipes, check=True)
    assert f"{epochs + 1}/{epochs + 1} " in done.stdout and "\n 1/" not in done.stdout


def test_sigterm_while_images_are_decoded_leaves_nothing_by_half(dataset, tmp_path):
    """What a cloud or a scheduler sends first."""
    code = (
        "import sys, time; from melanoma_lib import cli; from melanoma_lib.data import images\n"
        "read = images.read_image\n"
        "def slowly(*arguments):\n"
        "    print('decoding', flush=True)\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    return read(*arguments)\n"
        "images.read_image = slowly\n"
        "sys.exit(cli.main(sys.argv[2:]))"
    )
    command = ["train", "test_resnet", "--data-dir", dataset, "--output-dir", tmp_path / "run",
               "--no-pretrained", "--image-size", "32", "--batch-size", "16",
               "--epochs", "1"]  # fmt: skip
    cache = {"MELANOMA_CACHE": str(tmp_path / "cache")}
    process = python(code, "0.3", *command, **cache)
    while "decoding" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert error.splitlines()[-1] == "melanoma: interrupted; the same command goes on from here"
    assert not list((tmp_path / "cache").iterdir())
    process = python(code, "0", *command, **cache)
    assert process.communicate()[1] == "" and process.returncode == 0


def test_three_kills_change_nothing(dataset, tmp_path):
    assert_kills_change_nothing(dataset, tmp_path, epochs=16, kills=3)


@pytest.mark.slow
def test_twenty_one_kills_change_nothing(dataset, tmp_path):
    assert_kills_change_nothing(dataset, tmp_path, epochs=80, kills=21)
