"""The shared statistics against SciPy, against known cases, and against faults."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from studies import statistics as st

H = np.logspace(-1, -5, 9)


def test_fit_slope_recovers_an_exact_power_law() -> None:
    """Assert that C h^p gives p and log C with no residual."""
    fitted = st.fit_slope(H, 3 * H**1.5)
    assert fitted.slope == pytest.approx(1.5, abs=1e-13)
    assert fitted.intercept == pytest.approx(np.log(3), abs=1e-12)
    assert fitted.standard_error < 1e-13
    assert fitted.count == 9


def test_fit_slope_agrees_with_a_weighted_normal_equation() -> None:
    """Assert that slope, standard error and interval equal the textbook formulas."""
    rng = np.random.default_rng(0)
    y = H * np.exp(0.2 * rng.normal(size=9))
    fitted = st.fit_slope(H, y)
    design = np.stack([np.ones(9), np.log(H)], axis=1)
    solution, residual, *_ = np.linalg.lstsq(design, np.log(y), rcond=None)
    covariance = np.linalg.inv(design.T @ design) * residual[0] / 7
    assert fitted.slope == pytest.approx(solution[1], rel=1e-12)
    assert fitted.standard_error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-10)
    half = stats.t.ppf(0.975, 7) * np.sqrt(covariance[1, 1])
    assert fitted.interval() == pytest.approx((solution[1] - half, solution[1] + half), rel=1e-10)


def test_slope_intervals_cover_the_true_slope_as_often_as_they_say() -> None:
    """Assert 90 % coverage over simulated lines, within four standard errors of a share."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        low, high = st.fit_slope(H, H * np.exp(0.3 * rng.normal(size=9))).interval(0.9)
        hits += low <= 1 <= high
    assert abs(hits / 600 - 0.9) < 4 * np.sqrt(0.09 / 600)


def test_floor_rule_keeps_the_slope_that_a_floor_would_bend() -> None:
    """Assert that an additive floor bends the plain fit and not the one that knows it."""
    y = H + 1e-4
    assert st.fit_slope(H, y).slope < 0.8
    ruled = st.fit_slope(H, y, floor=1e-4)
    assert ruled.used.tolist() == (y >= 1e-3).tolist()
    assert ruled.slope == pytest.approx(1, abs=0.02)


def test_floor_may_differ_from_point_to_point() -> None:
    """Assert that a rounding floor that grows as h falls removes the smallest h only."""
    ruled = st.fit_slope(H, H + 3e-11 / H, floor=3e-11 / H)
    assert not ruled.used[-1]
    assert ruled.used[:5].all()


def test_zero_errors_are_left_out() -> None:
    """Assert that an exact zero, which has no logarithm, is not fitted."""
    y = H.copy()
    y[3] = 0.0
    assert st.fit_slope(H, y).used.sum() == 8


def test_wrong_coefficient_is_seen_in_the_slope() -> None:
    """Assert that an O(1) error, as from a doubled term, gives slope 0 and not 1."""
    assert abs(st.fit_slope(H, 0.3 + H).slope) < 0.1


def test_slope_of_medians_ignores_a_heavy_tail_and_brackets_the_truth() -> None:
    """Assert that medians give slope 1 with errors whose mean does not exist."""
    rng = np.random.default_rng(2)
    rates = np.abs(rng.standard_cauchy(400))
    errors = H[:, None] * rates * np.exp(0.1 * rng.normal(size=(9, 400)))
    slope = st.slope_of_medians(H, errors)
    assert slope.low < 1 < slope.high
    assert slope.high - slope.low < 0.05
    assert slope.estimate == st.fit_slope(H, np.median(errors, axis=1)).slope


def test_local_slopes_see_the_order_change() -> None:
    """Assert slopes 2 then 1 where the law changes."""
    h = np.array([1.0, 0.5, 0.25])
    np.testing.assert_allclose(st.local_slopes(h, [8.0, 2.0, 1.0]), [2.0, 1.0])


def test_bootstrap_equals_scipy() -> None:
    """Assert that interval and standard error are SciPy's for the same generator."""
    values = np.random.default_rng(3).exponential(size=80)
    expected = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0))
    result = st.bootstrap(values)
    assert result.bounds == (expected.confidence_interval.low, expected.confidence_interval.high)
    assert result.standard_error == expected.standard_error


def test_bootstrap_standard_error_of_a_mean_is_the_usual_one() -> None:
    """Assert s/√n within a tenth."""
    values = np.random.default_rng(4).normal(size=300)
    assert st.bootstrap(values).standard_error == pytest.approx(values.std() / np.sqrt(300), rel=0.1)


def test_bootstrap_of_degenerate_values_says_so() -> None:
    """Assert a zero-width interval for constants and none for one value, without warnings."""
    assert st.bootstrap([2.0, 2.0, 2.0]).bounds == (2.0, 2.0)
    assert np.isnan(st.bootstrap([2.0]).low)
    two_valued = st.bootstrap([0.0] * 30 + [1.0], np.median)
    assert two_valued.bounds == (0.0, 0.0)


@pytest.mark.parametrize("n", [6, 9, 10, 25, 100, 333])
@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_quantile_interval_equals_scipys_quantile_test(n: int, q: float) -> None:
    """Assert the same order statistics as SciPy, with ±∞ where SciPy has none."""
    values = np.random.default_rng(n).normal(size=n)
    expected = stats.quantile_test(values, p=q).confidence_interval(0.95)
    interval = st.quantile_interval(values, q)
    assert interval.low == (expected.low if np.isfinite(expected.low) else -np.inf)
    assert interval.high == (expected.high if np.isfinite(expected.high) else np.inf)


@pytest.mark.parametrize("n", [6, 9, 20, 51])
@pytest.mark.parametrize("q", [0.5, 0.8])
def test_quantile_interval_covers_and_no_narrower_one_would(n: int, q: float) -> None:
    """Assert by the binomial law that each end leaves at most 2.5 % and the next one in would leave more."""
    values = np.arange(1.0, n + 1)
    interval = st.quantile_interval(values, q)
    if np.isfinite(interval.low):
        assert stats.binom.cdf(interval.low - 1, n, q) <= 0.025 < stats.binom.cdf(interval.low, n, q)
    if np.isfinite(interval.high):
        assert stats.binom.sf(interval.high - 1, n, q) <= 0.025 < stats.binom.sf(interval.high - 2, n, q)


def test_coverage_tells_honest_from_small_standard_errors() -> None:
    """Assert that true standard errors pass and halved ones fail."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=2000)
    scale = rng.uniform(0.5, 2, size=2000)
    estimates = truth + scale * rng.normal(size=2000)
    honest = st.coverage(estimates, scale, truth)
    assert honest.holds
    assert honest.expected == pytest.approx(0.9545, abs=1e-4)
    assert not st.coverage(estimates, scale / 2, truth).holds


def test_share_interval_equals_the_wilson_formula() -> None:
    """Assert the closed form of Wilson 1927."""
    value, z = st.share_interval(7, 40), stats.norm.ppf(0.975)
    centre = (7 / 40 + z**2 / 80) / (1 + z**2 / 40)
    half = z / (1 + z**2 / 40) * np.sqrt(7 / 40 * 33 / 40 / 40 + z**2 / 6400)
    assert value.bounds == pytest.approx((centre - half, centre + half), rel=1e-12)


def test_paired_equals_scipys_signed_rank_test() -> None:
    """Assert the exact p-value without ties and the normal one with them."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=30), rng.normal(0.5, 1, size=30)
    comparison = st.paired(a, b)
    assert comparison.p_value == stats.wilcoxon(a - b, method="exact").pvalue
    assert comparison.larger == (a > b).sum()
    ties = np.round(a), np.round(b)
    expected = stats.wilcoxon(ties[0] - ties[1], zero_method="pratt", method="approx").pvalue
    assert st.paired(*ties).p_value == expected


def test_paired_sees_a_small_common_shift_that_pooled_values_hide() -> None:
    """Assert that pairing finds a shift a hundred times smaller than the spread."""
    rng = np.random.default_rng(7)
    a = rng.normal(0, 10, size=60)
    comparison = st.paired(a + 0.1 + 0.02 * rng.normal(size=60), a)
    assert comparison.p_value < 1e-6
    assert comparison.difference.low > 0.05
    assert stats.mannwhitneyu(a + 0.1, a).pvalue > 0.5


def test_paired_of_equal_measurements_has_p_one() -> None:
    """Assert no difference where nothing differs."""
    comparison = st.paired([1.0, 2.0], [1.0, 2.0])
    assert comparison.p_value == 1.0
    assert comparison.difference.estimate == 0.0


def test_holm_equals_the_definition() -> None:
    """Assert step-down maxima of (n − i) p_(i), in the order given."""
    p = np.array([0.2, 0.001, 0.02, 0.9, 0.015])
    expected = {0.001: 0.005, 0.015: 0.06, 0.02: 0.06, 0.2: 0.4, 0.9: 0.9}
    np.testing.assert_allclose(st.holm(p), [expected[each] for each in p])


def test_spearman_brown_matches_simulated_averages() -> None:
    """Assert that the mean of four replicates correlates with another such mean as predicted."""
    rng = np.random.default_rng(8)
    signal = rng.normal(size=40_000)
    first, second = (signal + rng.normal(0, 2, size=(4, 40_000)) for _ in range(2))
    single = st.correlations(first[0], second[0])
    predicted = st.spearman_brown(single, 4)
    assert st.correlations(first.mean(0), second.mean(0)) == pytest.approx(float(predicted), abs=0.03)
    assert st.spearman_brown(st.spearman_brown(0.3, 5), 1 / 5) == pytest.approx(0.3)


def test_ceiling_is_what_the_noiseless_truth_attains() -> None:
    """Assert that the true signal correlates with the mean of replicates as the ceiling says."""
    rng = np.random.default_rng(9)
    signal = rng.normal(size=5000)
    replicates = signal + rng.normal(0, 1.5, size=(3, 5000))
    top = st.ceiling(replicates, resamples=200)
    attained = float(st.correlations(signal, replicates.mean(0)))
    assert top.correlation.estimate == pytest.approx(attained, abs=0.02)
    assert top.correlation.low < attained < top.correlation.high
    assert top.mean_reliability == pytest.approx(top.correlation.estimate**2)


def test_ceiling_of_pure_noise_is_near_zero() -> None:
    """Assert that replicates without a signal promise nothing."""
    top = st.ceiling(np.random.default_rng(10).normal(size=(2, 2000)), resamples=100)
    assert top.correlation.low == 0.0
    assert top.correlation.estimate < 0.3


def test_correlations_equal_scipy_and_are_nan_for_constants() -> None:
    """Assert Pearson's r row by row."""
    rng = np.random.default_rng(11)
    a, b = rng.normal(size=(3, 50)), rng.normal(size=(3, 50))
    np.testing.assert_allclose(st.correlations(a, b), [stats.pearsonr(x, y)[0] for x, y in zip(a, b, strict=True)])
    assert np.isnan(st.correlations(np.full(5, 0.1), np.arange(5.0)))


BAD = {
    "two points": (lambda: st.fit_slope([1.0, 2.0], [1.0, 2.0]), "a slope needs 3"),
    "one step size": (lambda: st.fit_slope([1.0] * 4, [1.0, 2.0, 3.0, 4.0]), "at different h"),
    "a negative error": (lambda: st.fit_slope(H, -H), "must be positive"),
    "a NaN error": (lambda: st.fit_slope(H, H * np.nan), "NaN or infinite"),
    "another length": (lambda: st.fit_slope(H, H[1:]), "match one to one"),
    "all under the floor": (lambda: st.fit_slope(H, H, floor=1.0), "exceed 10 times the floor"),
    "a negative floor": (lambda: st.fit_slope(H, H, floor=-1.0), "floor must be finite"),
    "no values": (lambda: st.bootstrap([]), "at least 1"),
    "level above one": (lambda: st.bootstrap([1.0, 2.0], level=95), "no probability"),
    "a matrix": (lambda: st.median_interval(np.ones((2, 2))), "1 dimension"),
    "quantile one": (lambda: st.quantile_interval([1.0], 1.0), "between 0 and 1"),
    "too many successes": (lambda: st.share_interval(3, 2), "is no share"),
    "negative standard errors": (lambda: st.coverage([0.0], [-1.0], [0.0]), "negative values"),
    "p of two": (lambda: st.holm([2.0]), "between 0 and 1"),
    "no replicates": (lambda: st.spearman_brown(0.5, 0), "not positive"),
    "reliability of two": (lambda: st.spearman_brown(2.0, 2), "no correlation"),
    "one replicate": (lambda: st.ceiling(np.ones((1, 9))), "two or more"),
    "unequal shapes": (lambda: st.correlations([1.0, 2.0], [1.0, 2.0, 3.0]), "equal ones"),
    "neighbours at one h": (lambda: st.local_slopes([1.0, 1.0], [1.0, 2.0]), "neighbouring h different"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_statistics_input_is_refused_with_the_reason(case: str) -> None:
    """Assert a ValueError that says why."""
    call, reason = BAD[case]
    with pytest.raises(ValueError, match=reason):
        call()


@pytest.mark.parametrize(("units", "spread", "mean"), [(2, 0.0, 0.05), (2, 0.1, 0.5), (5, 0.0, 0.5), (8, 0.1, 0.3)])
def test_shares_of_units_cover_with_and_without_differences_between_units(
    units: int, spread: float, mean: float
) -> None:
    """Assert at least the stated coverage, to three standard errors of the simulation, of a share and a difference."""
    rng, runs, trials = np.random.default_rng(3), 200, np.full(units, 64)
    inside = np.zeros(2)
    for _ in range(runs):
        result = np.clip(mean + spread * rng.uniform(-1, 1, size=(2, units)), 0, 1)
        first, second = rng.binomial(64, result)
        share, difference = st.share_of_units(first, trials), st.shares_apart(first, second, trials)
        inside += [share.low <= mean <= share.high, difference.low <= 0 <= difference.high]
    assert (inside / runs > 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)).all()


def test_shares_of_samples_alone_would_not_cover() -> None:
    """Assert that the interval of pooled samples, which stood here before, misses far more than one share in twenty."""
    rng, runs, missed = np.random.default_rng(4), 300, 0
    for _ in range(runs):
        counts = rng.binomial(128, 0.5 + 0.2 * rng.uniform(-1, 1, size=2))
        pooled = st.share_interval(int(counts.sum()), 256)
        missed += not pooled.low <= 0.5 <= pooled.high
    assert missed / runs > 0.3


def test_shares_apart_have_power() -> None:
    """Assert that a difference of .5 between eight units that differ by .1 is seen nearly always."""
    rng, runs = np.random.default_rng(5), 100
    seen = sum(
        st.shares_apart(
            *rng.binomial(64, np.array([[0.7], [0.2]]) + rng.uniform(-0.1, 0.1, (2, 8))), np.full(8, 64)
        ).low
        > 0
        for _ in range(runs)
    )
    assert seen > 95


def test_the_area_under_the_curve_is_that_of_scikit_learn_and_of_the_curve() -> None:
    """Assert it with ties, by scikit-learn and by trapezoids."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 12, 40).astype(float), rng.integers(3, 15, 60).astype(float)
    curve = st.roc(one, other)
    labels = np.r_[np.ones(40), np.zeros(60)]
    assert curve.area.estimate == pytest.approx(roc_auc_score(labels, -np.r_[one, other]), rel=1e-12)
    assert np.trapezoid(curve.true, curve.false) == pytest.approx(curve.area.estimate, rel=1e-12)
    assert (curve.false[0], curve.true[0], curve.false[-1], curve.true[-1]) == (0, 0, 1, 1)


def test_intervals_of_the_area_cover_as_often_as_they_say() -> None:
    """Assert 90 % coverage of a known area, Φ(1/√2), and that the interval of independent values alone is caught."""
    true, rng, hits, short = float(stats.norm.cdf(1 / np.sqrt(2))), np.random.default_rng(1), 0, 0
    for _ in range(1500):
        area = st.roc(rng.normal(size=30), rng.normal(1.0, size=50), level=0.9).area
        hits += area.low <= true <= area.high
        half = stats.norm.ppf(0.95) * np.sqrt(area.estimate * (1 - area.estimate) / 80 / 8)  # planted: too many pairs
        short += abs(area.estimate - true) <= half
    assert abs(hits / 1500 - 0.9) < 0.03
    assert short / 1500 < 0.8


def test_two_kinds_that_are_told_apart_wholly_have_no_interval() -> None:
    """Assert NaN ends, and refusals."""
    curve = st.roc([0.0, 1.0], [2.0, 3.0])
    assert curve.area.estimate == 1
    assert np.isnan(curve.area.low)
    assert curve.true_at(0.0) == 1
    with pytest.raises(ValueError, match="two of each"):
        st.roc([0.0], [1.0, 2.0])
