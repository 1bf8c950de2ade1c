import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.artifacts import MelanomaError
from melanoma_lib.metrics import sensitivity, specificity
from melanoma_lib.thresholds import (
    CRITERIA,
    choose_operating_points,
    choose_threshold,
    operating_curve,
)


def test_a_threshold_with_ties_worked_out_by_hand():
    """Ten others at .1 .2 .3 .4 .5 .6 .7 .8 .8 .9 and melanomas at .5 .8 .95.

    Specificity >= 80 % needs eight others below: at .8 only seven are, so the threshold is .9,
    where eight and the one at .8 twice make nine. The nearest value to 80 % would be 70 % at .8.
    """
    others = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9]
    scores = np.array([*others, 0.5, 0.8, 0.95])
    positive = np.array([False] * 10 + [True] * 3)
    assert choose_threshold(positive, scores, "specificity", 0.8) == 0.9
    assert choose_threshold(positive, scores, "specificity", 0.7) == 0.8
    assert choose_threshold(positive, scores, "sensitivity", 0.6) == 0.8
    assert choose_threshold(positive, scores, "sensitivity", 1.0) == 0.5


def test_nobody_is_called_when_all_scores_are_equal():
    positive, scores = np.array([True, False, False]), np.full(3, 0.4)
    threshold = choose_threshold(positive, scores, "specificity", 0.95)
    assert 0.4 < threshold < 0.4001
    assert choose_threshold(positive, scores, "sensitivity", 0.95) == 0.4


def test_the_curve_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    positive, scores = rng.random(200) < 0.3, rng.integers(0, 40, 200) / 40
    curve = operating_curve(positive, scores)
    false, true, _ = sklearn.metrics.roc_curve(positive, scores, drop_intermediate=False)
    assert np.allclose(1 - curve["specificity"], false[::-1])
    assert np.allclose(curve["sensitivity"], true[::-1])


def test_one_kind_alone_is_an_error():
    with pytest.raises(MelanomaError, match="both melanomas and other"):
        operating_curve(np.array([True, True]), np.array([0.1, 0.2]))


def test_operating_points_have_names():
    rng = np.random.default_rng(0)
    points = choose_operating_points(rng.random(100) < 0.4, rng.random(100))
    assert [point["name"] for point in points] == [
        "specificity_95", "specificity_90", "sensitivity_95"
    ]
    assert len(points) == len(CRITERIA)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=50).filter(
        lambda rows: len({positive for positive, _ in rows}) == 2
    ),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
)
def test_the_target_is_met_and_no_other_threshold_costs_less(rows, target):
    positive, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 8
    figures = {"specificity": specificity, "sensitivity": sensitivity}
    for criterion, other in (("specificity", "sensitivity"), ("sensitivity", "specificity")):
        threshold = choose_threshold(positive, scores, criterion, target)
        assert figures[criterion](positive, scores, threshold) >= target - 1e-9
        gained = figures[other](positive, scores, threshold)
        for rival in [*np.unique(scores), 2.0]:
            if figures[criterion](positive, scores, rival) >= target:
                assert figures[other](positive, scores, rival) <= gained + 1e-12
