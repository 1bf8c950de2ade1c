import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.config import Config
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.evaluation.metrics import sensitivity, specificity
from melanoma_lib.evaluation.operating_points import (
    choose_operating_points,
    choose_threshold,
    decision_curve,
    net_benefit,
    operating_curve,
    per_thousand,
    predictive_values,
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


def test_operating_points_have_names():
    rng = np.random.default_rng(0)
    criteria = Config().operating_points
    points = choose_operating_points(rng.random(100) < 0.4, rng.random(100), criteria)
    names = ["specificity_95", "specificity_90", "sensitivity_95"]
    assert [point["name"] for point in points] == names


def test_one_kind_alone_is_an_error():
    with pytest.raises(MelanomaError, match="both melanomas and other"):
        operating_curve(np.array([True, True]), np.array([0.1, 0.2]))


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


def test_predictive_values_worked_out_by_hand():
    """Of 1,000 lesions 20 are melanomas: 18 found, 2 missed; 49 false alarms, 931 spared."""
    ppv, npv = predictive_values(0.9, 0.95, 0.02)
    assert ppv == pytest.approx(18 / (18 + 49)) and npv == pytest.approx(931 / (931 + 2))
    assert per_thousand(0.9, 0.95, 0.02) == pytest.approx((2, 49))


def test_predictive_values_that_are_not_defined():
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])  # nothing is called
    assert np.isnan(predictive_values(1.0, 0.0, 0.1)[1])  # everything is
    ppv, npv = predictive_values(np.array([0.0, 0.8]), np.array([1.0, 0.5]), np.array([0.1, 0]))
    assert np.isnan(ppv[0]) and ppv[1] == 0 and npv.tolist() == [0.9, 1]


def test_at_the_prevalence_of_the_images_they_are_the_shares_of_the_columns():
    rng = np.random.default_rng(1)
    positive, scores = rng.random(200) < 0.3, rng.random(200)
    rates = [float(metric(positive, scores, 0.4)) for metric in (sensitivity, specificity)]
    ppv, npv = predictive_values(*rates, positive.mean())
    called = scores >= 0.4
    assert ppv == pytest.approx(sklearn.metrics.precision_score(positive, called))
    assert npv == pytest.approx(sklearn.metrics.precision_score(~positive, ~called))


def test_net_benefit_worked_out_by_hand():
    """Ten images, three melanomas, threshold 1/5: a false alarm costs 1/4 of a melanoma found.

    Two melanomas and three others are called: 2/10 - 3/10 x 1/4 = 0.125. All called:
    3/10 - 7/10 x 1/4 = 0.125 too.
    """
    positive = np.arange(10) < 3
    scores = np.array([0.9, 0.2, 0.1, 0.2, 0.5, 0.7, 0, 0, 0.1, 0.19])
    assert net_benefit(positive, scores, 0.2) == pytest.approx(0.125)
    curve = decision_curve(positive, scores, [0, 0.2, 0.5])
    assert list(curve) == ["threshold", "model", "treat_all"]
    assert curve["treat_all"].tolist() == pytest.approx([0.3, 0.125, 0.3 - 0.7])
    assert curve["model"].tolist() == pytest.approx([0.3, 0.125, 0.1 - 0.2])


@pytest.mark.parametrize("threshold", [-0.1, 1.0, np.nan])
def test_a_threshold_that_is_no_probability_has_no_net_benefit(threshold):
    with pytest.raises(MelanomaError, match="threshold probability"):
        net_benefit(np.array([True, False]), np.array([0.1, 0.2]), threshold)


def test_the_true_probability_has_the_greatest_net_benefit():
    rng = np.random.default_rng(0)
    truth = rng.beta(1, 4, 100_000)
    positive = rng.random(100_000) < truth
    grid = [0.05, 0.1, 0.2, 0.4, 0.6]
    honest, bold = (decision_curve(positive, s, grid) for s in (truth, np.sqrt(truth)))
    assert (honest["model"] >= honest["treat_all"].clip(lower=0) - 1e-3).all()
    assert (honest["model"] > bold["model"]).all()
