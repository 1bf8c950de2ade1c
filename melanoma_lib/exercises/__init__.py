"""Exercises: `check` says whether an answer is right, or what is wrong with it.

The checks of a chapter are in a module of their own, such as `chapter_05`: functions that take
the answer and return what is wrong with it, or None.
"""

import importlib
from collections.abc import Callable

Check = Callable[..., str | None]


def check(exercise: str, *answer: object) -> None:
    """Prints whether the answer to an exercise is right, what is wrong with it, or that it is open.

    exercise: chapter and number, such as "05.2". answer: what the exercise asks for; `...`
    (Ellipsis) is an answer not yet given. A wrong answer never raises, so that a notebook with
    open exercises runs to its end. Raises KeyError for an exercise that does not exist.
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answer)}")


def verdict(exercise: str, *answer: object) -> str:
    """What `check` prints: "right", "open", or "not yet" and what is wrong."""
    checks = checks_of(exercise.partition(".")[0])
    if exercise not in checks:
        raise KeyError(f"there is no exercise {exercise}; there are {', '.join(checks)}")
    if any(value is ... for value in answer):
        return "open"
    try:
        fault = checks[exercise](*answer)
    except Exception as error:  # the reader's own function may raise anything
        fault = f"{type(error).__name__}: {error}"
    return f"not yet. {fault}" if fault else "right"


def checks_of(chapter: str) -> dict[str, Check]:
    """The checks of a chapter, such as "05", by exercise."""
    return importlib.import_module(f"melanoma_lib.exercises.chapter_{chapter}").CHECKS
