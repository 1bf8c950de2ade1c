import dataclasses
import re

import pytest

from melanoma_lib.data.classes import MELANOMA
from melanoma_lib.inference import wording
from melanoma_lib.inference.predictor import Decision, Prediction


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


POINT = {
    "name": "specificity_95", "criterion": "specificity", "target": 0.95, "threshold": 0.4,
    "test": {"sensitivity": estimate(0.7), "specificity": estimate(0.9), "missed": estimate(30),
             "false_alarms": estimate(50)},
}  # fmt: skip


def case(probability, positive):
    prediction = Prediction(None, {MELANOMA: probability, "nv": 1 - probability}, 0.0, False)
    return prediction, Decision(POINT, positive, True, {MELANOMA: 0.2, "other": 0.97})


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.314, "31%"), (0.0314, "3.1%"), (0.999, "99.9%"), (0, "less than 0.1%"),
     (0.9999, "more than 99.9%")],
)  # fmt: skip
def test_a_percentage_is_never_certain(fraction, text):
    assert wording.percent(fraction) == text


def test_the_explanation_gives_the_models_own_test_results():
    positive = " ".join(wording.explain_decision(*case(0.5, True)))
    for part in ("50%, is at or above the threshold of 40%", "70% (95% interval 60 to 80%)",
                 "90%", "miss 30", "50 false", "other diagnoses", "3.0%"):
        assert part in positive
    negative = " ".join(wording.explain_decision(*case(0.3, False)))
    assert "below the threshold" in negative
    assert "melanomas in the validation split, 20%" in negative


def test_an_image_that_is_referred_gets_no_decision_in_any_words():
    """Of images out of distribution, test_page.py."""
    prediction, decision = case(0.5, True)
    third = estimate(0.3)
    referral = {"referred": third, "sensitivity": third, "found_or_referred": third}
    point = POINT | {"referral": referral}
    referred = dataclasses.replace(decision, referred=True, operating_point=point)
    texts = [wording.decision_text(referred), wording.short_verdict(prediction, referred),
             *wording.explain_decision(prediction, referred)]  # fmt: skip
    assert not re.search("positive|negative|threshold", " ".join(texts))


def test_the_summary_repeats_the_decision_whatever_is_answered():
    prediction, decision = case(0.5, True)
    for answers in (["yes"] * 3, ["no"] * 3, ["not sure", "yes", "no"]):
        text = wording.summarize_answers(prediction, decision, answers)
        assert wording.decision_text(decision).lower() in text and "50%" in text
    assert "specificity of at least 95%" in wording.decision_text(decision)
    assert "You named 1 of" in text and "see a doctor soon" in text


def test_every_answer_has_its_comment():
    for number in range(len(wording.QUESTIONS)):
        comments = [wording.comment_answer(number, answer) for answer in wording.ANSWERS]
        assert len(set(comments)) == 3 and all(len(text) > 50 for text in comments)
