"""The exercises of chapter 10: prices, interruptions, sharded batches, the names in a job."""

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import torch

from melanoma_lib.exercises import call, exercise, number, require, require_close


@exercise("10.1", "a number")
def break_even_slowdown(answer: float) -> None:
    mistakes = {"Upside down: it may be slower, so the number is above 1.": 0.90 / 3.67}
    require_close(answer, 3.67 / 0.90, "Hours times price must be the same.", mistakes, atol=0.05)


@exercise("10.2", "two numbers of interruptions, with checkpoints and without")
def break_even_interruptions(answer: Sequence[float]) -> None:
    start, hours, price = 1 / 6, 10, 0.4  # price: of the interruptible machine, relative
    saved = (hours + start) * (1 - price) / price  # hours of the cheap machine
    right = saved / (hours / 20 / 2 + start), saved / (hours / 2 + start)
    for given, interruptions, kind in zip(answer, right, ("with", "without"), strict=True):
        first_start = interruptions * hours / (hours + start)
        mistakes = {
            "The repeated hours are paid at the low price too.": interruptions * price,
            "Nearly: every training has a first start, on both machines.": first_start,
        }
        hint = (
            f"{given:.4g} {kind} checkpoints: how many hours of the cheap machine does the "
            "saving pay for, and how many does an interruption cost?"
        )
        require_close(given, interruptions, hint, mistakes, rtol=0.002)


@exercise("10.3", "a function of (gradients, sizes) that returns a tensor")
def unequal_shards(answer: Callable[..., torch.Tensor]) -> None:
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))  # stand for gradients
    shards = torch.stack([images[:10].mean(0), images[10:].mean(0)])
    unweighted = "An image in the smaller shard then counts more than one in the larger."
    summed = "That is the sum over the images; divide by how many there are."
    mistakes = {unweighted: shards.mean(0), summed: images.sum(0)}
    hint = "What is the weight of the first 10 images in the mean over 16?"
    require_close(answer(shards, [10, 6]), images.mean(0), hint, mistakes)


@exercise("10.4", "a function of (job) that returns a list of names")
def undefined_names(answer: Callable[[Mapping], Sequence[str]], job: Mapping) -> None:
    found = list(answer(job))
    require(not found, f"The job has no undefined name; you find {found}.")
    name = next(iter(job["inputs"]))
    broken = copy.deepcopy(dict(job))
    broken["inputs"] = {key: value for key, value in job["inputs"].items() if key != name}
    hint = f"Without its input {name}, the command's inputs.{name} is undefined."
    require(list(answer(broken)) == [f"inputs.{name}"], hint)
    broken["command"] += " ${{outputs.typo}} ${{ inputs." + name + " }}"
    hint = "Outputs can be misspelt too; blanks are allowed; and each name is listed once."
    require(list(answer(broken)) == [f"inputs.{name}", "outputs.typo"], hint)


@exercise("10.5", "a dictionary of the six things that are asked for, prices and hours as numbers")
def cost_estimate(answer: Mapping, measured_hours: Mapping[str, float]) -> None:
    for field in ("machine", "price_per_hour", "looked_up", "speed_up", "hours", "dollars"):
        require(field in answer, f"{field} is missing.")
    machine = answer["machine"]
    named = isinstance(machine, str) and len(machine) >= 4
    require(named, "Give the name by which the cloud rents the machine out.")
    call(date.fromisoformat, answer["looked_up"])
    price, dollars = number(answer["price_per_hour"]), number(answer["dollars"])
    hours = sum(measured_hours.values()) / number(answer["speed_up"])
    hint = f"At that speed-up the four trainings take {hours:.3g} hours together."
    require_close(answer["hours"], hours, hint, rtol=0.02)
    trainings = hours * price
    require(dollars > trainings, f"The trainings alone cost {trainings:.2f}; what else is paid?")
    hint = f"That is far more than the trainings' {trainings:.2f} dollars: what is it for?"
    require(dollars <= 3 * trainings + 5 * price, hint)
