"""Every statistic of the studies has its level where there is nothing to see, and its power where there is.

Levels are held within three standard errors of a simulated share; where another method was used before, it is shown to
be wrong on the same draws.
"""

import numpy as np
import pytest
from scipy import stats

from studies import statistics as st
from studies.statistics.trainings import FEWEST_TRAININGS


def within_three(share, expected, draws):
    """Whether a simulated share is within three standard errors of what is expected."""
    return abs(share - expected) <= 3 * np.sqrt(expected * (1 - expected) / draws)


def trainings(rng, count, *, latents=40, pixels=64, signal=0.7, common=0.5, quality=1.0):
    """A prediction and changes of `count` trainings, part of whose noise all latents share."""
    truth = rng.normal(size=(latents, pixels))
    noise = np.sqrt(1 - common) * rng.normal(size=(count, latents, pixels))
    noise = noise + np.sqrt(common) * rng.normal(size=(count, 1, pixels))
    predicted = quality * truth + np.sqrt(1 - quality**2) * rng.normal(size=truth.shape)
    return predicted, signal * truth + noise


DRAWS = 200


@pytest.fixture(scope="module")
def perfect_shares_of_eight():
    """Shares of a perfect prediction, with intervals over trainings and latents and over latents alone."""
    rng = np.random.default_rng(7)
    values = []
    for _ in range(DRAWS):
        table = st.products(*trainings(rng, 8))
        both = st.share_of_trainings(table, resamples=60).share
        values.append((both.estimate, both.low <= 1 <= both.high, _latents_alone(table)))
    return np.array(values, dtype=float)


def _latents_alone(table):
    """Whether the interval that was published before, over latents alone, covers 1."""
    rng = np.random.default_rng(0)
    unit = table / np.sqrt(np.einsum("nii->ni", table))[:, :, None] / np.sqrt(np.einsum("nii->ni", table))[:, None, :]
    count = table.shape[1] - 1
    between = unit[:, 1:, 1:][:, ~np.eye(count, dtype=bool)].mean(1)
    tops = table[:, 0, 1:].sum(1) / np.sqrt(table[:, 0, 0] * table[:, 1:, 1:].sum((1, 2)))
    draws = rng.integers(len(table), size=(200, len(table)))
    limits = np.sqrt(st.spearman_brown(np.median(between[draws], axis=1), count))
    low, high = np.quantile(np.median(tops[draws], axis=1) / limits, [0.025, 0.975])
    return low <= 1 <= high


def test_a_share_with_the_training_as_unit_has_its_level(perfect_shares_of_eight):
    """Assert that the interval covers the share 1 of a perfect prediction, and that one over latents does not."""
    estimates, covered, alone = perfect_shares_of_eight.T
    assert covered.mean() >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / DRAWS)
    assert alone.mean() < 0.9
    assert abs(estimates.mean() - 1) < 3 * estimates.std() / np.sqrt(DRAWS) + 0.003


def test_a_share_with_the_training_as_unit_has_power():
    """Assert that eight trainings tell a prediction of .8 of the ceiling from a perfect one."""
    rng = np.random.default_rng(8)
    values = [
        st.share_of_trainings(st.products(*trainings(rng, 8, quality=0.8)), resamples=60).share for _ in range(40)
    ]
    assert np.mean([each.high < 0.95 for each in values]) > 0.9
    assert abs(np.mean([each.estimate for each in values]) - 0.8) < 0.02


def test_centring_takes_away_what_all_latents_share():
    """Assert that the wrong latent's prediction correlates through the mean change alone, and not after centring."""
    rng = np.random.default_rng(9)
    predicted, changes = trainings(rng, 4, common=0.0)
    shift = 2 * rng.normal(size=(1, 64))
    predicted, changes = predicted + shift, changes + shift
    wrong = np.roll(predicted, 1, axis=0)
    plain = st.share_of_trainings(st.products(wrong, changes)).correlation.estimate
    clean = st.share_of_trainings(st.products(st.centred(wrong), st.centred(changes))).correlation.estimate
    assert plain > 0.5
    assert abs(clean) < 0.1
    right = st.share_of_trainings(st.products(st.centred(predicted), st.centred(changes)))
    assert 0.97 < right.share.estimate < 1.03


@pytest.mark.parametrize("count", [2, 3, 8])
def test_intervals_without_products_are_safe_against_common_noise(count):
    """Assert coverage of a perfect share by its simulated chance, at the worst case at its level and else above it."""
    rho = 0.2
    chance = st.perfect_shares(count, 40, rho, draws=600)
    low, high = np.quantile(chance, [0.025, 0.975])
    again = st.perfect_shares(count, 40, rho, draws=600, seed=1)
    assert within_three(((low <= again) & (again <= high)).mean(), 0.95, 300)
    wide = st.perfect_shares(count, 40, rho, dimension=64, draws=300, seed=2)
    assert ((low <= wide) & (wide <= high)).mean() > 0.95


def test_perfect_shares_state_the_bias_of_the_plain_estimator():
    """Assert that few trainings at a low signal do not give 1 on average, and that many do."""
    few, many = st.perfect_shares(2, 64, 0.15, draws=800), st.perfect_shares(16, 64, 0.5, draws=800)
    assert abs(few.mean() - 1) > 5 * few.std() / np.sqrt(800)
    assert abs(many.mean() - 1) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: st.products(np.ones((3, 4)), np.ones((3, 4))), "give .n, pixels., .P, n, pixels."),
        (lambda: st.share_of_trainings(np.ones((5, 3, 3))), f"give {FEWEST_TRAININGS} or more"),
        (lambda: st.share_of_trainings(np.ones((5, 3))), "give finite products"),
        (lambda: st.perfect_shares(1, 5, 0.5), "give two or more"),
        (lambda: st.perfect_shares(2, 5, 1.0), "give two or more"),
        (lambda: st.within_groups([1, 2, 3], [1, 2, 3], "aaa"), "two groups are the least"),
        (lambda: st.within_groups([1, 2, 3], [1, 2, 3], "aa"), "one for each"),
        (lambda: st.data_share([1.0, -1.0], [1.0, 1.0]), "must be positive"),
        (lambda: st.censored_slope([1, 2, 3], [1, 2, 9], lowest=0.5, highest=3.0), "a slope needs 3"),
        (lambda: st.censored_slope([1, 2, 3], [1, 2, 3], lowest=3, highest=3.0), "are no range"),
        (lambda: st.family_intervals([1.0], [0.0], 3, 0.0), "must be positive"),
        (lambda: st.family_intervals([1.0], [1.0], 3, 0.0, tail=0.7), "tail=0.7"),
    ],
)
def test_input_that_has_no_answer_is_refused(call, message):
    """Assert the sentences."""
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("units", [2, 3, 6])
def test_a_mean_over_units_has_its_level_however_few_they_are(units):
    """Assert coverage with two seeds, three draws and six geometries, and that pooling ten values of each has not."""
    rng, draws = np.random.default_rng(11), 800
    values = rng.normal(size=(draws, units, 1)) + 0.3 * rng.normal(size=(draws, units, 10))
    items = [st.mean_of_units(each.mean(1)) for each in values]
    assert within_three(np.mean([each.low <= 0 <= each.high for each in items]), 0.95, draws)
    pooled = [st.mean_of_units(each.ravel()) for each in values]
    assert np.mean([each.low <= 0 <= each.high for each in pooled]) < 0.7


def grouped(rng, slope):
    """Five groups of ten values: within them y goes with x by `slope`, between them against it."""
    x = np.concatenate([10 * g + rng.normal(size=10) for g in range(5)])
    y = np.concatenate([-10 * g + rng.normal(size=10) for g in range(5)]) + slope * (
        x - np.repeat(np.arange(5) * 10, 10)
    )
    return x, y, np.repeat(np.arange(5), 10)


def test_correlation_within_groups_has_level_and_power():
    """Assert 5 % of false alarms without a relation in groups, where pooling always finds one, and power with one."""
    rng, draws = np.random.default_rng(3), 600
    null = [st.within_groups(*grouped(rng, 0.0)) for _ in range(draws)]
    assert within_three(np.mean([not each.mean.low <= 0 <= each.mean.high for each in null]), 0.05, draws)
    assert all(each.pooled < -0.9 for each in null)
    real = [st.within_groups(*grouped(rng, 1.0)).mean for _ in range(100)]
    assert np.mean([each.low > 0 for each in real]) > 0.9


def differences(rng, data, replicates, *, seed_part=1.0, pixels=60):
    """Root mean squares of differences of networks on other data and on the same, R replicates."""
    values = [np.sqrt(data) * rng.normal(size=(replicates, 2, 1, pixels))]
    values += [np.sqrt(seed_part) * rng.normal(size=(replicates, 2, 2, pixels))]
    f = values[0] + values[1]
    cross = np.sqrt(((f[:, 0, 0] - f[:, 1, 1]) ** 2).mean(-1) / 2 + ((f[:, 0, 1] - f[:, 1, 0]) ** 2).mean(-1) / 2)
    within = np.sqrt(((f[:, :, 0] - f[:, :, 1]) ** 2).mean((1, 2)))
    return cross, within


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_the_share_of_the_data_is_covered(share):
    """Assert that the interval covers D²/(D² + S²) at its level with ten replicates and with three."""
    rng, draws = np.random.default_rng(4), 800
    for replicates in (10, 3):
        values = [st.data_share(*differences(rng, share / (1 - share), replicates)) for _ in range(draws)]
        assert within_three(np.mean([each.low <= share <= each.high for each in values]), 0.95, draws)


def test_the_share_of_the_data_has_power():
    """Assert that ten replicates see a share of a fifth, and that a ratio of 1.1 is no more than 17 %."""
    rng = np.random.default_rng(5)
    values = [st.data_share(*differences(rng, 0.25, 10)) for _ in range(100)]
    assert np.mean([each.low > 0 for each in values]) > 0.9
    assert st.data_share([1.1], [1.0]).estimate == pytest.approx(1 - 1.1**-2)


def test_family_intervals_decide_as_holm_does():
    """Assert that an end is beyond the null exactly where Holm's adjusted p-value is below the level."""
    rng = np.random.default_rng(6)
    for _ in range(50):
        means, errors = rng.normal(0.5, 1.5, 12), rng.uniform(0.3, 0.8, 12)
        intervals = st.family_intervals(means, errors, 4, 0.1)
        adjusted = st.holm(stats.t.sf((means - 0.1) / errors, 4))
        assert [each.low > 0.1 for each in intervals] == [bool(p <= 0.05) for p in adjusted]
        adjusted = st.holm(stats.t.cdf((means - 0.1) / errors, 4))
        assert [each.high < 0.1 for each in intervals] == [bool(p <= 0.05) for p in adjusted]


def test_family_intervals_have_level_and_power():
    """Assert 5 % of families with a false alarm, where single tests have many, and power at a large effect."""
    rng, draws = np.random.default_rng(7), 1000
    alarms, single = 0, 0
    for _ in range(draws):
        data = rng.normal(size=(20, 5))
        errors = data.std(1, ddof=1) / 5**0.5
        alarms += any(each.low > 0 for each in st.family_intervals(data.mean(1), errors, 4, 0.0))
        single += any(stats.t.sf(data.mean(1) / errors, 4) < 0.05)
    assert within_three(alarms / draws, 0.05, draws)
    assert single / draws > 0.5
    data = 3 + rng.normal(size=(20, 5))
    intervals = st.family_intervals(data.mean(1), data.std(1, ddof=1) / 5**0.5, 4, 0.0)
    assert sum(each.low > 0 for each in intervals) >= 10


def onsets(rng, slope, *, scatter=0.4):
    """Onsets at five sizes, three each, some of them beyond the range [.05, 1]."""
    x = np.repeat(10.0 ** np.arange(5), 3)
    y = 1.2 * x**slope * np.exp(scatter * rng.normal(size=15))
    return x, np.where(y < 0.05, np.nan, np.where(y > 1.0, np.inf, y))


def test_a_censored_slope_has_its_level_and_power():
    """Assert coverage of the slope, that leaving out what was not seen is biased, and power against no slope."""
    rng, draws = np.random.default_rng(8), 100
    value, plain = [], []
    for _ in range(draws):
        x, y = onsets(rng, -0.3)
        value.append(st.censored_slope(x, y, lowest=0.05, highest=1.0).slope)
        kept = np.isfinite(y)
        plain.append(np.polyfit(np.log(x[kept]), np.log(y[kept]), 1)[0])
    assert within_three(np.mean([each.low <= -0.3 <= each.high for each in value]), 0.95, draws)
    assert abs(np.mean([each.estimate for each in value]) + 0.3) < 0.03
    assert np.mean(plain) > -0.3 + 3 * np.std(plain) / draws**0.5
    assert np.mean([each.high < 0 for each in value]) > 0.95


def test_a_censored_slope_without_censoring_is_least_squares():
    """Assert estimate and interval against SciPy where everything is seen."""
    rng = np.random.default_rng(9)
    x = np.repeat(10.0 ** np.arange(4), 3)
    y = 0.5 * x**-0.5 * np.exp(0.2 * rng.normal(size=12))
    fit = st.censored_slope(x, y, lowest=1e-9, highest=1e9)
    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, 10) * line.stderr
    assert fit.slope.estimate == pytest.approx(line.slope, abs=1e-4)
    assert fit.slope.bounds == pytest.approx((line.slope - half, line.slope + half), abs=1e-3)
    assert fit.censored == 0
