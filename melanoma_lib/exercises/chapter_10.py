"""The exercises of chapter 10: prices, interruptions, sharded batches, the names in a job."""

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import torch


def smaller_machine(answer: float) -> str | None:
    if abs(answer - 0.90 / 3.67) < 0.005:
        return "Upside down: it may be slower, so the number is above 1."
    return None if abs(answer - 3.67 / 0.90) < 0.05 else "Hours times price must be the same."


def how_often(answer: Sequence[float]) -> str | None:
    start, hours, price = 1 / 6, 10, 0.4  # price: of the interruptible machine, relative
    saved = (hours + start) * (1 - price) / price  # hours of the cheap machine
    right = saved / (hours / 20 / 2 + start), saved / (hours / 2 + start)
    for given, number, kind in zip(answer, right, ("with", "without"), strict=True):
        if abs(given - number * price) < 0.02 * number:
            return "The repeated hours are paid at the low price too."
        if abs(given - number * hours / (hours + start)) < 0.005 * number:
            return "Nearly: every training has a first start, on both machines."
        if abs(given - number) > 0.002 * number:
            return (
                f"{given:.4g} {kind} checkpoints: how many hours of the cheap machine does the "
                "saving pay for, and how many does an interruption cost?"
            )
    return None


def unequal_shards(answer: Callable[..., torch.Tensor]) -> str | None:
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))  # stand for gradients
    shards = torch.stack([images[:10].mean(0), images[10:].mean(0)])
    result = answer(shards, [10, 6])
    if result.shape != (4,):
        return f"Give one number for each weight, (4,), and not {tuple(result.shape)}."
    if torch.allclose(result, images.mean(0), atol=1e-6):
        return None
    if torch.allclose(result, shards.mean(0), atol=1e-6):
        return "An image in the smaller shard then counts more than one in the larger."
    if torch.allclose(result, images.sum(0), atol=1e-5):
        return "That is the sum over the images; divide by how many there are."
    return "What is the weight of the first 10 images in the mean over 16?"


def undefined_names(answer: Callable[[Mapping], Sequence[str]], job: Mapping) -> str | None:
    if list(answer(job)):
        return f"The job has no undefined name; you find {list(answer(job))}."
    name = next(iter(job["inputs"]))
    broken = copy.deepcopy(dict(job))
    broken["inputs"] = {key: value for key, value in job["inputs"].items() if key != name}
    if list(answer(broken)) != [f"inputs.{name}"]:
        return f"Without its input {name}, the command's inputs.{name} is undefined."
    broken["command"] += " ${{outputs.typo}} ${{ inputs." + name + " }}"
    if list(answer(broken)) != [f"inputs.{name}", "outputs.typo"]:
        return "Outputs can be misspelt too; blanks are allowed; and each name is listed once."
    return None


def cost_estimate(answer: Mapping, measured_hours: Mapping[str, float]) -> str | None:
    fields = ("machine", "price_per_hour", "looked_up", "speed_up", "hours", "dollars")
    missing = [field for field in fields if field not in answer]
    if missing:
        return f"{missing[0]} is missing."
    if not isinstance(answer["machine"], str) or len(answer["machine"]) < 4:
        return "Give the name by which the cloud rents the machine out."
    date.fromisoformat(answer["looked_up"])  # raises what is wrong with it
    hours = sum(measured_hours.values()) / answer["speed_up"]
    if abs(answer["hours"] - hours) > 0.02 * hours:
        return f"At that speed-up the four trainings take {hours:.3g} hours together."
    trainings = hours * answer["price_per_hour"]
    if answer["dollars"] <= trainings:
        return f"The trainings alone cost {trainings:.2f} dollars; what else is paid?"
    if answer["dollars"] > 3 * trainings + 5 * answer["price_per_hour"]:
        return f"That is far more than the trainings' {trainings:.2f} dollars: what is it for?"
    return None


CHECKS = {
    "10.1": smaller_machine,
    "10.2": how_often,
    "10.3": unequal_shards,
    "10.4": undefined_names,
    "10.5": cost_estimate,
}
