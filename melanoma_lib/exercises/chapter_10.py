"""The exercises of chapter 10: prices, interruptions, shared batches, a job's names."""

import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import torch


def smaller_machine(answer: float) -> str | None:
    if abs(answer - 0.90 / 3.67) < 0.005:
        return "Upside down: it may be slower, so the number is above 1."
    return None if abs(answer - 3.67 / 0.90) < 0.05 else "Hours times price must be the same."


def how_often(answer: Sequence[float]) -> str | None:
    start, hours, share = 1 / 6, 10, 0.4
    saved = (hours + start) * (1 - share) / share  # hours of the cheap machine
    right = saved / (hours / 20 / 2 + start), saved / (hours / 2 + start)
    for given, number, kind in zip(answer, right, ("with", "without"), strict=True):
        if abs(given - number * share) < 0.02 * number:
            return "The hours that are done again are paid at the low price, too."
        if abs(given - number * hours / (hours + start)) < 0.005 * number:
            return "Nearly: every training has a first start, on both machines."
        if abs(given - number) > 0.002 * number:
            return (
                f"{given:.4g} {kind} checkpoints: how many hours of the cheap machine are had for "
                "what it saves, and how many does an interruption cost?"
            )
    return None


def unequal_shares(answer: Callable[..., torch.Tensor]) -> str | None:
    images = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))  # each its gradient
    shares = torch.stack([images[:10].mean(0), images[10:].mean(0)])
    result = answer(shares, [10, 6])
    if result.shape != (4,):
        return f"One number a weight is asked for, (4,), and not {tuple(result.shape)}."
    if torch.allclose(result, images.mean(0), atol=1e-6):
        return None
    if torch.allclose(result, shares.mean(0), atol=1e-6):
        return "So an image in the smaller share counts more than one in the larger."
    if torch.allclose(result, images.sum(0), atol=1e-5):
        return "That is the sum over the images; divide by how many there are."
    return "How much of the mean over 16 images comes from the first 10?"


def misspelt(answer: Callable[[Mapping], Sequence[str]], job: Mapping) -> str | None:
    if list(answer(job)):
        return f"The job as it is has no fault; you find {list(answer(job))}."
    name = next(iter(job["inputs"]))
    broken = copy.deepcopy(dict(job))
    broken["inputs"] = {key: value for key, value in job["inputs"].items() if key != name}
    if list(answer(broken)) != [f"inputs.{name}"]:
        return f"Without its input {name}, the command asks for inputs.{name}."
    broken["command"] += " ${{outputs.typo}} ${{ inputs." + name + " }}"
    if list(answer(broken)) != [f"inputs.{name}", "outputs.typo"]:
        return "An output can be misspelt, too; blanks are allowed; and each name is listed once."
    return None


def planned(answer: Mapping, measured_hours: Mapping[str, float]) -> str | None:
    parts = ("machine", "price_per_hour", "looked_up", "speed_up", "hours", "dollars")
    missing = [part for part in parts if part not in answer]
    if missing:
        return f"{missing[0]} is missing."
    if not isinstance(answer["machine"], str) or len(answer["machine"]) < 4:
        return "Give the name under which the machine is rented."
    date.fromisoformat(answer["looked_up"])  # raises what is wrong with it
    hours = sum(measured_hours.values()) / answer["speed_up"]
    if abs(answer["hours"] - hours) > 0.02 * hours:
        return f"At that speed-up the four trainings take {hours:.3g} hours together."
    trainings = hours * answer["price_per_hour"]
    if answer["dollars"] <= trainings:
        return f"The trainings alone cost {trainings:.2f} dollars; what else is paid?"
    if answer["dollars"] > 3 * trainings + 5 * answer["price_per_hour"]:
        return f"That is far more than the trainings' {trainings:.2f} dollars: for what?"
    return None


CHECKS = {
    "10.1": smaller_machine,
    "10.2": how_often,
    "10.3": unequal_shares,
    "10.4": misspelt,
    "10.5": planned,
}
