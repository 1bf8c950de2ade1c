"""Exercises: `check` says whether an answer is right, or what is wrong with it.

The checks of a chapter are in a module of their own, such as `chapter_05`: functions that take
the answer and, by `require` and `require_close`, stop with a hint where something is wrong with it.
"""

import importlib
import inspect
import reprlib
import warnings
from collections.abc import Callable, Mapping

import numpy as np

# By exercise its check, and what to hand in: the words after "Give".
EXERCISES: dict[str, tuple[Callable[..., None], str]] = {}


class WrongAnswer(Exception):
    """An answer is not right; the message is a hint."""


def check(exercise: str, *answer: object) -> None:
    """Prints whether the answer to an exercise is right, what is wrong with it, or that it is open.

    exercise: chapter and number, such as "05.2". answer: what the exercise asks for; `...`
    (Ellipsis) is an answer not yet given. A wrong answer never raises, so that a notebook with
    open exercises runs to its end. Raises KeyError for an exercise that does not exist.
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answer)}")


def verdict(exercise: str, *answer: object) -> str:
    """What `check` prints: "right", "open", or "not yet" and one line on what is wrong.

    An answer of another kind than the exercise asks for makes its check fail with some error; the
    line then says what to give.
    """
    checks = checks_of(exercise.partition(".")[0])
    if exercise not in checks:
        raise KeyError(f"there is no exercise {exercise}; there are {', '.join(checks)}")
    if any(value is ... for value in answer):
        return "open"
    function, wanted = checks[exercise]
    names = inspect.signature(function).parameters
    if len(answer) != len(names):
        return f'not yet. The call is exercises.check("{exercise}", {", ".join(names)}).'
    given, *context = answer
    returned: list[object] = []

    def call_given(*arguments: object) -> object:
        returned.append(call(given, *arguments))
        return returned[-1]

    try:
        with warnings.catch_warnings(action="ignore"):
            function(call_given if callable(given) else given, *context)
    except WrongAnswer as hint:
        return f"not yet. {_line(str(hint))}"
    except Exception:
        made = f"; yours returns {_short(returned[-1])}" if returned else f", not {_short(given)}"
        return f"not yet. Give {wanted}{made}."
    return "right"


def checks_of(chapter: str) -> dict[str, tuple[Callable[..., None], str]]:
    """Those of `EXERCISES` that are of a chapter, such as "05"."""
    importlib.import_module(f"melanoma_lib.exercises.chapter_{chapter}")
    return {name: of for name, of in EXERCISES.items() if name.startswith(f"{chapter}.")}


def exercise(name: str, wanted: str) -> Callable:
    """Decorates the check of an exercise: adds it to `EXERCISES`."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        EXERCISES[name] = function, wanted
        return function

    return add


def require(condition: object, hint: str) -> None:
    """Raises `WrongAnswer` with the hint unless the condition holds.

    Conditions say what is right and not what is wrong, because a NaN fulfils neither.
    """
    if not condition:
        raise WrongAnswer(hint)


def require_close(
    answer: object,
    right: object,
    hint: str,
    mistakes: Mapping[str, object] | None = None,
    atol: float = 1e-5,
    rtol: float = 0,
) -> None:
    """Raises `WrongAnswer` unless the answer is a number or array close to the right one.

    mistakes: by hint what a mistake would give; an answer that is none of them gets `hint`. atol,
    rtol: tolerances as in `numpy.allclose`. Raises TypeError where the answer is no number.
    """
    given, right = numbers(answer), numbers(right)
    require(given.shape == right.shape, f"The shape is {given.shape} and should be {right.shape}.")
    if np.allclose(given, right, rtol, atol):
        return
    for mistake, wrong in (mistakes or {}).items():
        require(not np.allclose(given, numbers(wrong), rtol, atol), mistake)
    if np.all(abs(right) <= 1):
        percent = np.allclose(given, 100 * right, rtol, 100 * atol)
        require(not percent, "Right in percent; give a fraction, from 0 to 1.")
    raise WrongAnswer(f"NaN is not a number. {hint}" if np.isnan(given).any() else hint)


def numbers(value: object) -> np.ndarray:
    """A number, array, tensor or (nested) list of numbers as float64; else raises TypeError."""
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"not numbers: {value!r}")
    return array.astype(float)


def number(value: object) -> float:
    """A single number, which is not NaN; else raises TypeError."""
    array = numbers(value)
    if array.ndim or np.isnan(array):
        raise TypeError(f"not a number: {value!r}")
    return float(array)


def call(function: Callable, *arguments: object) -> object:
    """Calls something of the reader's own; `WrongAnswer` with its error where it raises one."""
    try:
        return function(*arguments)
    except Exception as error:
        raise WrongAnswer(f"Your code raises {type(error).__name__}: {error}") from error


def _line(text: str) -> str:
    """The text on one line of at most 300 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def _short(value: object) -> str:
    """The `repr` of any object in a few words."""
    return _line(reprlib.repr(value))
