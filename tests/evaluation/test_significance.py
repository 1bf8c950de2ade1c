"""DeLong against the definition, McNemar and Holm against numbers worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_lib.evaluation.metrics import auc
from melanoma_lib.evaluation.significance import delong, holm, mcnemar


def by_definition(positive, *scores):
    """AUCs and their covariance from all pairs and the structural components (DeLong, 1988)."""
    wins = np.array([
        [[(x > y) + (x == y) / 2 for y in s[~positive]] for x in s[positive]] for s in scores
    ])
    of_positives, of_negatives = wins.mean(2), wins.mean(1)
    covariance = np.cov(of_positives) / of_positives.shape[1]
    covariance += np.cov(of_negatives) / of_negatives.shape[1]
    return wins.mean((1, 2)), covariance


@pytest.mark.parametrize("levels", [4, 30, 10**9])  # many ties, few, none
def test_delong_agrees_with_its_definition(levels):
    rng = np.random.default_rng(levels)
    positive = rng.random(90) < 0.3
    common = rng.normal(size=90) + positive
    scores = [np.round(common + rng.normal(size=90), 9) for _ in range(2)]
    if levels < 100:
        scores = [np.round(s * levels / 4) for s in scores]
    result = delong(positive, *scores)
    aucs, covariance = by_definition(positive, *scores)
    error = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert [result["auc_a"], result["auc_b"]] == pytest.approx(aucs.tolist())
    assert result["auc_a"] == pytest.approx(float(auc(positive, scores[0])))
    assert result["difference"] == pytest.approx(aucs[0] - aucs[1])
    assert result["standard_error"] == pytest.approx(error)
    assert result["z"] == pytest.approx((aucs[0] - aucs[1]) / error)
    assert result["p"] == pytest.approx(2 * scipy.stats.norm.sf(abs(result["z"])))


def test_delong_worked_out_by_hand():
    """Positives 3, 1 and negatives 2, 0 in the first model; the second tells them apart.

    The first wins 3 of 4 pairs. The differences of components are (0, -1/2) for both kinds, of
    variance 1/8; so the variance is 1/8 / 2 + 1/8 / 2 = 1/8 and z = -0.25 / sqrt(1/8).
    """
    positive = np.array([True, True, False, False])
    result = delong(positive, np.array([3.0, 1, 2, 0]), np.array([3.0, 2, 1, 0]))
    assert (result["auc_a"], result["auc_b"], result["difference"]) == (0.75, 1, -0.25)
    assert result["z"] == pytest.approx(-0.25 * np.sqrt(8))
    assert result["p"] == pytest.approx(0.4795, abs=1e-4)


def test_delong_without_variance():
    positive, scores = np.array([True, True, False, False]), np.array([4.0, 3, 2, 1])
    same = delong(positive, scores, 10 * scores)
    assert (same["difference"], same["standard_error"], same["z"], same["p"]) == (0, 0, None, 1)
    opposite = delong(positive, scores, -scores)
    assert (opposite["difference"], opposite["z"], opposite["p"]) == (1, None, 0)


def test_delong_needs_two_images_of_either_kind():
    one = delong(np.array([True, False, False]), np.array([1.0, 2, 0]), np.array([3.0, 2, 0]))
    assert one["difference"] == -0.5 and one["p"] is None
    none = delong(np.array([False, False]), np.array([1.0, 2]), np.array([1.0, 2]))
    assert set(none.values()) == {None}


def test_delongs_p_is_uniform_when_the_models_are_equally_good():
    """Under the null hypothesis about 5 % of the p-values lie below 0.05, and half below 0.5."""
    rng = np.random.default_rng(0)
    positive = np.arange(300) < 100
    p_values = []
    for _ in range(1000):
        common = rng.normal(size=300) + positive
        p_values.append(delong(positive, *(common + rng.normal(size=(2, 300))))["p"])
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.05)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=60
    ).filter(lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2)
)
def test_swapping_the_models_changes_the_sign_alone(rows):
    positive = np.array([row[0] for row in rows])
    a, b = (np.array([row[column] for row in rows], float) for column in (1, 2))
    one, other = delong(positive, a, b), delong(positive, b, a)
    assert one["difference"] == -other["difference"]
    assert (one["p"], one["standard_error"]) == (other["p"], other["standard_error"])
    assert 0 <= one["p"] <= 1
    assert delong(positive, np.exp(a), b**3) == one  # the order of scores is all that counts
    assert delong(positive, a, a)["p"] == 1


def test_mcnemar_worked_out_by_hand():
    """Ten images only the first has right, two only the second: 2 (1 + 12 + 66) / 4096."""
    a = np.array([True] * 10 + [False] * 2 + [True] * 50 + [False] * 9)
    b = np.array([False] * 10 + [True] * 2 + [True] * 50 + [False] * 9)
    assert mcnemar(a, b) == {"b": 10, "c": 2, "p": pytest.approx(158 / 4096)}
    assert mcnemar(b, a) == {"b": 2, "c": 10, "p": pytest.approx(158 / 4096)}
    assert mcnemar(a, a) == {"b": 0, "c": 0, "p": 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_the_sign_test_of_the_images_that_differ(rows):
    a, b = np.array(rows).T
    result = mcnemar(a, b)
    differ = result["b"] + result["c"]
    assert differ == (a != b).sum()
    if differ:
        theirs = scipy.stats.binomtest(result["b"], differ, 0.5).pvalue
        assert result["p"] == pytest.approx(theirs)


def test_holm_worked_out_by_hand():
    """In rising order 4 x 0.005, 3 x 0.01, 2 x 0.03 and 0.04, which may not fall below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]


def test_a_test_that_was_not_made_is_not_counted():
    adjusted = holm([0.02, np.nan, 0.03])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04]) and np.isnan(adjusted[1])
    assert np.isnan(holm([None, None])).all() and len(holm([])) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_bonferroni_over_every_set_of_tests(p_values):
    """Closed testing (Marcus, Peritz and Gabriel, 1976): all sets that hold a test must reject."""
    sets = [s for size in range(1, len(p_values) + 1)
            for s in combinations(range(len(p_values)), size)]  # fmt: skip
    closed = [
        max(min(1, len(s) * min(p_values[i] for i in s)) for s in sets if test in s)
        for test in range(len(p_values))
    ]
    assert holm(p_values) == pytest.approx(closed)
