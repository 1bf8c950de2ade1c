"""Intervals over trainings against published numbers, Welch's test, an ANOVA and known truths."""

import runpy

import numpy as np
import pytest
import scipy.stats
from scipy.special import logit

from melanoma_lib.core.files import PROJECT, read_json
from melanoma_lib.evaluation.bootstrap import difference, interval, p_value
from melanoma_lib.evaluation.trainings import (
    difference_of_trainings,
    estimate_of_trainings,
    paired_difference,
    probability_of_outperforming,
    variance_components,
)


def resamples_of(covariance, rng, count=200, exact=True):
    """Resamples (count, K) of mean 0 with this covariance, exactly or as they are drawn."""
    drawn = rng.normal(size=(count, len(covariance)))
    if exact:
        drawn -= drawn.mean(0)
        drawn = np.linalg.solve(np.linalg.cholesky(np.cov(drawn, rowvar=False)), drawn.T).T
    return drawn @ np.linalg.cholesky(covariance + 1e-15 * np.eye(len(covariance))).T


def compound(k, variance, shared):
    return np.full((k, k), shared) + (variance - shared) * np.eye(k)


# Van Dyke et al. (1993): AUC of five readers with cine and spin-echo MRI, 114 patients, as analysed
# in the documentation of RJafroc: values, Var, Cov2; mean, standard error, df, low, high.
VAN_DYKE = [
    ([0.9196, 0.8588, 0.9039, 0.9731, 0.8298], 0.0010141, 0.0004840,
     0.8970, 0.03317, 12.74, 0.8252, 0.9689),
    ([0.9478, 0.9053, 0.9217, 0.9994, 0.9300], 0.0005905, 0.0002042,
     0.9408, 0.02157, 12.71, 0.8941, 0.9875),
]  # fmt: skip


@pytest.mark.parametrize(("values", "variance", "shared", "mean", "error", "df", "low", "high"),
                         VAN_DYKE)  # fmt: skip
def test_one_architecture_is_obuchowski_rockette_and_hillis(
    values, variance, shared, mean, error, df, low, high
):
    values = np.array(values)
    resampled = values + resamples_of(compound(5, variance, shared), np.random.default_rng(0))
    found = estimate_of_trainings((values, resampled, None))
    assert found["value"] == pytest.approx(mean, abs=1e-4)
    scale = mean * (1 - mean)  # theirs is symmetric in the AUC, ours in its log odds
    ends = [mean + scale * (logit(found[end]) - logit(mean)) for end in ("low", "high")]
    assert ends == pytest.approx([low, high], abs=2e-3)
    half = scipy.stats.t.ppf(0.975, df) * error
    assert (ends[1] - ends[0]) / 2 == pytest.approx(half, rel=2e-2)
    parts = found["variance"]
    assert parts["lesions"] == pytest.approx(shared)
    assert parts["interaction"] == pytest.approx(variance - shared)
    assert parts["trainings"] == pytest.approx(values.var(ddof=1) - variance + shared)
    assert found["fraction_trainings"] == pytest.approx(1 - shared / error**2, abs=0.01)


def test_equal_spreads_are_hillis_readers_nested_in_tests():
    """F = MS(T) / (MS[R(T)] + K max(Cov2 - Cov3, 0)) on 1 and its df (Hillis, 2014)."""
    k, variance, shared, across = 4, 9e-4, 6e-4, 2e-4
    first = np.array([0.80, 0.86, 0.83, 0.91])
    second = first - 0.05
    covariance = np.block([
        [compound(k, variance, shared), np.full((k, k), across)],
        [np.full((k, k), across), compound(k, variance, shared)],
    ])
    resampled = resamples_of(covariance, np.random.default_rng(0))
    found = difference_of_trainings((first, resampled[:, :k], None), (second, resampled[:, k:], 9))
    within = first.var(ddof=1)
    denominator = within + k * (shared - across)
    df = denominator**2 / (within**2 / (2 * (k - 1)))
    f = k * ((first.mean() - second.mean()) ** 2 / 2) / denominator
    assert found["p"] == pytest.approx(scipy.stats.f.sf(f, 1, df))
    half = scipy.stats.t.ppf(0.975, df) * np.sqrt(2 / k * denominator)
    assert (found["low"], found["high"]) == pytest.approx((0.05 - half, 0.05 + half))


def test_lesions_that_do_not_matter_leave_students_and_welchs_t():
    rng = np.random.default_rng(1)
    first, second = rng.normal(8.0, 0.02, 5), rng.normal(7.7, 0.06, 3)
    trainings = [(values, np.tile(values, (50, 1)), None) for values in (first, second)]
    found, theirs = difference_of_trainings(*trainings), scipy.stats.ttest_ind(
        first, second, equal_var=False
    )
    assert found["p"] == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((ends.low, ends.high))
    one = estimate_of_trainings(trainings[0])
    ends = scipy.stats.ttest_1samp(first, 0).confidence_interval()
    assert (one["low"], one["high"]) == pytest.approx((ends.low, ends.high))
    for estimated in (one, found):
        assert estimated["fraction_trainings"] == pytest.approx(1)


def test_a_mean_over_lesions_has_the_components_of_a_two_way_anova():
    """Lesions by trainings, one cell each: mean squares by hand against jackknifed covariances."""
    rng, n, k = np.random.default_rng(2), 60, 4
    cells = rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(1, k)) + rng.normal(size=(n, k))
    rows, columns, mean = cells.mean(1, keepdims=True), cells.mean(0), cells.mean()
    ms_lesions = k * rows.var(ddof=1)
    ms_trainings = n * columns.var(ddof=1)
    ms_interaction = ((cells - rows - columns + mean) ** 2).sum() / ((n - 1) * (k - 1))
    jackknifed = (n * columns - cells) / (n - 1)
    # Scaled so that their covariance is the jackknife's, (n - 1) / n times the sum of products.
    resampled = columns + (jackknifed - columns) * (n - 1) / np.sqrt(n)
    parts = variance_components(columns, np.cov(resampled, rowvar=False))
    assert parts["lesions"] == pytest.approx((ms_lesions - ms_interaction) / (n * k))
    assert parts["interaction"] == pytest.approx(ms_interaction / n)
    assert parts["trainings"] == pytest.approx((ms_trainings - ms_interaction) / n)
    variance = parts["lesions"] + (parts["interaction"] + parts["trainings"]) / k
    by_anova = (ms_lesions + ms_trainings - ms_interaction) / (n * k)
    assert variance == pytest.approx(by_anova)


def test_pairs_of_trainings_leave_the_paired_t_test_where_lesions_do_not_matter():
    rng = np.random.default_rng(6)
    first = 0.8 + rng.normal(0, 0.05, 6)
    second = first - 0.02 + rng.normal(0, 0.01, 6)
    trainings = [(values, np.tile(values, (50, 1)), None) for values in (first, second)]
    found, theirs = paired_difference(*trainings), scipy.stats.ttest_rel(first, second)
    assert found["p"] == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((ends.low, ends.high))
    apart = difference_of_trainings(*trainings)
    assert apart["high"] - apart["low"] > 2 * (found["high"] - found["low"])


def test_differences_that_are_all_positive_may_still_be_none():
    """An interval of differences is not cut off at 0."""
    values, nothing = np.array([0.01, 0.09]), np.zeros(2)
    trainings = [(each, np.tile(each, (9, 1)), None) for each in (values, nothing)]
    assert paired_difference(*trainings)["low"] < 0


def test_one_pair_has_the_difference_of_the_bootstrap():
    first, second = 0.8 + 0.02 * np.random.default_rng(7).normal(size=(2, 200, 1))
    found = paired_difference(([0.8], first, 40), ([0.7], second, 40))
    today = difference((0.8, first[:, 0], 40), (0.7, second[:, 0], 40))
    assert found == today | {"p": p_value((first - second)[:, 0])}
    same = paired_difference(([0.8], first, 40), ([0.8], first, 40))
    assert same["p"] == 1 and same["low"] < 0 < same["high"]


def test_one_training_has_the_interval_of_the_lesions():
    rng = np.random.default_rng(3)
    first, second = 0.8 + 0.02 * rng.normal(size=(2, 200))
    one = estimate_of_trainings((0.8, first, 40))
    assert one == interval(0.8, first, 40)
    pair = difference_of_trainings((0.8, first, 40), ([0.7], second[:, None], 40))
    of_lesions = difference((0.8, first, 40), (0.7, second, 40)) | {"p": p_value(first - second)}
    assert pair == of_lesions
    none = probability_of_outperforming((0.8, first, 40), ([0.7], second[:, None], 40))
    assert none == {"value": None, "low": None, "high": None}


def test_what_is_not_defined_is_none_and_what_does_not_vary_has_what_its_lesions_allow():
    values, undefined = np.array([0.5, np.nan]), np.full((20, 2), np.nan)
    assert estimate_of_trainings((values, undefined, 5))["value"] is None
    assert difference_of_trainings(*2 * [(values, undefined, 5)])["low"] is None
    assert probability_of_outperforming(*2 * [(values, undefined, 5)])["value"] is None
    perfect = np.ones(3), np.ones((20, 3)), 4
    found = estimate_of_trainings(perfect)
    assert (found["low"], found["high"]) == pytest.approx((0.025 ** (1 / 4), 1))
    assert difference_of_trainings(perfect, perfect)["high"] == pytest.approx(1 - 0.025 ** (1 / 4))


def test_resamples_without_a_value_are_left_out_of_both():
    rng = np.random.default_rng(4)
    values = np.array([0.8, 0.7, 0.75])
    first, second = values + 0.02 * rng.normal(size=(2, 100, 3))
    holed = first.copy()
    holed[:10, 1] = np.nan
    found = difference_of_trainings((values, holed, None), (values, second, None))
    rest = difference_of_trainings((values, first[10:], None), (values, second[10:], None))
    assert found == rest


def test_ends_stay_in_the_range_of_the_metric():
    values = np.array([0.99, 0.95])
    found = estimate_of_trainings((values, np.tile(values, (9, 1)), None))
    assert 0 <= found["low"] < found["value"] < found["high"] < 1


def test_trainings_further_apart_widen_the_interval():
    noise = resamples_of(compound(3, 4e-4, 2e-4), np.random.default_rng(5))
    fractions, widths = [], []
    for spread in (0, 0.02, 0.05, 0.1):
        values = 0.8 + spread * np.array([-1, 0, 1])
        found = estimate_of_trainings((values, values + noise, None))
        fractions.append(found["fraction_trainings"])
        widths.append(found["high"] - found["low"])
    assert fractions == sorted(fractions) and widths == sorted(widths)


def test_the_probability_of_outperforming_by_hand():
    """Means 0.1 apart, variances 0.01 and 0.03 of trainings, nothing of lesions: Phi(0.5)."""
    first = 0.1 + 0.1 * np.array([-1, 0, 1])
    second = np.sqrt(0.03) * np.array([-1, 0, 1])
    trainings = [(values, np.tile(values, (9, 1)), None) for values in (first, second)]
    found = probability_of_outperforming(*trainings)
    assert found["value"] == pytest.approx(scipy.stats.norm.cdf(0.5))
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    swapped = probability_of_outperforming(*trainings[::-1], more_is_better=False)
    assert swapped["value"] == pytest.approx(found["value"])


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("of_trainings", [0.0, 0.3, 3.0])
def test_known_components_are_covered(k, of_trainings):
    """Nominal 95 %: lesions 1, interaction 0.3, and two architectures that share half of them."""
    rng, apart, trials = np.random.default_rng(k), 1.5, 300
    covariance = np.full((2 * k, 2 * k), 0.5)
    covariance[:k, :k] = covariance[k:, k:] = compound(k, 1.3, 1.0)
    root = np.linalg.cholesky(covariance)
    better = scipy.stats.norm.cdf(apart / np.sqrt(2 * (of_trainings + 0.3) + 2 * (1.0 - 0.5)))
    held = {"mean": 0, "difference": 0, "probability": 0}
    for _ in range(trials):
        values = root @ rng.normal(size=2 * k) + np.sqrt(of_trainings) * rng.normal(size=2 * k)
        values += 10  # not a fraction
        values[:k] += apart
        resampled = values + rng.normal(size=(300, 2 * k)) @ root.T
        first, second = ((values[part], resampled[:, part], None)
                         for part in (slice(k), slice(k, None)))  # fmt: skip
        for kind, found, true in (
            ("mean", estimate_of_trainings(first), 10 + apart),
            ("difference", difference_of_trainings(first, second), apart),
            ("probability", probability_of_outperforming(first, second), better),
        ):
            held[kind] += found["low"] <= true <= found["high"]
    assert min(held.values()) >= (0.92 - 0.015) * trials, held
    # With two trainings the interval of the probability is wider than it need be.
    del held["probability"]
    assert max(held.values()) <= 0.995 * trials, held


@pytest.mark.slow
def test_real_metrics_are_covered():
    benchmark = runpy.run_path(str(PROJECT / "benchmarks" / "coverage.py"))
    for number, spread in enumerate(benchmark["SPREADS"].values()):
        table = benchmark["coverage"](benchmark["worlds"](spread, 300, seed=number))
        for name, by_count in table.items():
            for k, held in by_count.items():
                least = 0.84 if k == "2" else 0.88  # two may lie close together by chance
                assert min(held.values()) >= least, (name, spread, k)


def test_the_documents_show_the_measured_coverage():
    benchmark = runpy.run_path(str(PROJECT / "benchmarks" / "coverage.py"))
    measured = read_json(PROJECT / "benchmarks" / "coverage.json")
    page = (PROJECT / "docs" / "trainings.md").read_text(encoding="utf-8")
    assert benchmark["rows"](measured) in page
