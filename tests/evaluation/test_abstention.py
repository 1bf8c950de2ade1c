"""Abstention: risk and coverage by hand, resamples as repeated images, what a referral leaves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.classes import CLASS_NAMES, MELANOMA
from melanoma_lib.evaluation.abstention import (
    Referral,
    area_under_risk_coverage,
    referral_estimates,
    referral_threshold,
    risk_coverage_curve,
    uncertainties,
)
from melanoma_lib.evaluation.bootstrap import bootstrap_weights
from melanoma_lib.evaluation.predictions import Predictions
from melanoma_lib.evaluation.trained_run import TrainedRun


def test_uncertainty_by_hand():
    found = uncertainties(np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    assert found["confidence"].tolist() == [0.5, 0]
    assert found["margin"].tolist() == [0.75, 0]
    assert found["entropy"] == pytest.approx([1.5 * np.log(2), 0])


UNSURE = np.array([0.3, 0.1, 0.2, 0.3])
WRONG = np.array([True, False, True, False])


def test_the_curve_answers_equally_uncertain_images_together():
    curve = risk_coverage_curve(UNSURE, WRONG)
    assert curve["coverage"].tolist() == [0.25, 0.5, 1]
    assert curve["risk"].tolist() == [0, 0.5, 0.5]


def test_the_area_by_hand():
    # The risks at the four images, from the most certain on: 0, 1/2, and 2/4 for the two alike.
    assert area_under_risk_coverage(UNSURE, WRONG) == pytest.approx((0 + 1 / 2 + 2 / 4 + 2 / 4) / 4)
    assert area_under_risk_coverage(np.zeros(4), WRONG) == WRONG.mean()  # no order at all


@given(st.data())
def test_weights_are_repeated_images(data):
    n = data.draw(st.integers(1, 8))
    rows = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    unsure, times = (np.array(data.draw(rows)) for _ in range(2))
    wrong = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if times.sum():
        drawn = np.repeat(np.arange(n), times)
        (found,) = area_under_risk_coverage(unsure, wrong, times[None].astype(float))
        assert found == pytest.approx(area_under_risk_coverage(unsure[drawn], wrong[drawn]))


@given(st.lists(st.integers(0, 5), min_size=1), st.floats(0.01, 0.99))
def test_a_threshold_refers_at_most_its_fraction(unsure, fraction):
    unsure = np.array(unsure, float)
    threshold = referral_threshold(unsure, fraction)
    assert (unsure > threshold).mean() <= fraction + 1e-9
    lower = unsure[unsure < threshold]
    assert not len(lower) or (unsure > lower.max()).mean() > fraction - 1e-9


@pytest.mark.parametrize("fraction", [0, 1, -0.1, np.nan])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(MelanomaError, match="between 0 and 1"):
        referral_threshold(UNSURE, fraction)


def test_a_referral_by_hand():
    """Four melanomas and four nevi, each a lesion: one of either kind referred."""
    melanoma, nevus = (CLASS_NAMES.index(code) for code in (MELANOMA, "nv"))
    scores = np.array([0.9, 0.8, 0.3, 0.6, 0.1, 0.2, 0.7, 0.4])
    probabilities = np.full((8, 7), 1e-9)
    probabilities[:, melanoma], probabilities[:, nevus] = scores, 1 - scores
    names = np.array([f"{n}" for n in range(8)])
    test = Predictions(names, names, np.full(8, "test"), np.repeat([melanoma, nevus], 4),
                       np.log(probabilities))  # fmt: skip
    referred = np.array([0, 0, 1, 0, 0, 0, 1, 0], bool)
    training = TrainedRun({}, {"temperature": 1.0}, test)
    found = referral_estimates([Referral(training, 0.65, referred)], bootstrap_weights(names, 50))
    values = {name: each["value"] for name, each in found.items()}
    assert values == pytest.approx({
        "referred": 2 / 8, "accuracy": 6 / 6, "sensitivity": 2 / 3, "specificity": 1,
        "melanomas_referred": 1 / 4, "found_or_referred": 3 / 4,
    })  # fmt: skip
    assert all(each["low"] <= each["value"] <= each["high"] for each in found.values())
