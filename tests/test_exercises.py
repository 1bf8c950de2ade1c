"""Exercises: an answer is right, open, or told what is wrong with it, and never stops a run."""

import pytest

from melanoma_lib import exercises


@pytest.fixture
def checks(monkeypatch):
    def seven(answer):
        return None if answer == 7 else "count again"

    monkeypatch.setattr(exercises, "checks_of", lambda chapter: {"99.1": seven, "99.2": len})


def test_a_right_answer(checks, capsys):
    exercises.check("99.1", 7)
    assert capsys.readouterr().out == "Exercise 99.1: right\n"


def test_a_wrong_answer_is_told_what_is_wrong(checks):
    assert exercises.verdict("99.1", 8) == "not yet. count again"


def test_an_untouched_exercise_is_open(checks):
    assert exercises.verdict("99.1", ...) == "open"


def test_an_answer_that_raises_does_not_stop_the_notebook(checks):
    assert exercises.verdict("99.2", 3).startswith("not yet. TypeError")


def test_an_exercise_that_does_not_exist_is_the_authors_error(checks):
    with pytest.raises(KeyError, match=r"99\.3"):
        exercises.check("99.3", 1)
