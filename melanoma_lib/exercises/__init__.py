"""Exercises: `check` says whether an answer is right, or what is wrong with it.

The checks of a chapter stand in a module of their own, `chapter_05.py`; each is a function that
takes the answer and returns what is wrong with it, or nothing.
"""

import importlib
from collections.abc import Callable

Check = Callable[..., str | None]


def check(exercise: str, *answer: object) -> None:
    """Prints whether the answer to an exercise is right, what is wrong, or that it is open.

    exercise: chapter and number, "05.2". answer: what the exercise asks for; `...` (Ellipsis) is
    an answer not yet given. Never raises for a wrong answer, so that a notebook always runs.
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answer)}")


def verdict(exercise: str, *answer: object) -> str:
    """What `check` prints: "right", "open", or "not yet" and what is wrong."""
    checks = checks_of(exercise.partition(".")[0])
    if exercise not in checks:
        raise KeyError(f"there is no exercise {exercise}; there are {', '.join(checks)}")
    if any(part is ... for part in answer):
        return "open"
    try:
        wrong = checks[exercise](*answer)
    except Exception as error:  # the reader's own function may raise anything
        wrong = f"{type(error).__name__}: {error}"
    return f"not yet. {wrong}" if wrong else "right"


def checks_of(chapter: str) -> dict[str, Check]:
    """The checks of a chapter ("05") by the name of their exercise."""
    return importlib.import_module(f"melanoma_lib.exercises.chapter_{chapter}").CHECKS
