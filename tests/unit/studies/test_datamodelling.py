"""The linear datamodelling score: values by hand, coverage by simulation, a ceiling that the truth reaches."""

import numpy as np
import pytest
from scipy import stats

import studies
from studies import lds


def problem(rng, *, subsets=48, seeds=2, noise=2.0, common=0.0, quality=1.0, points=60, queries=6):
    """Masks, outputs and an attribution; outputs are linear in the mask with noise of networks and of seeds."""
    masks = rng.random((subsets, points)) < 0.5
    truth = rng.normal(size=(queries, points))
    outputs = masks @ truth.T + noise * rng.normal(size=(seeds, subsets, queries))
    outputs = outputs + common * np.einsum("sn,kqn->ksq", masks, rng.normal(size=(seeds, queries, points)))
    scores = quality * truth + (1 - quality**2) ** 0.5 * rng.normal(size=truth.shape)
    return masks, outputs, scores


def test_the_score_is_the_mean_rank_correlation_over_queries():
    """Assert the value against SciPy's Spearman, for one seed and the mean of three."""
    masks, outputs, scores = problem(np.random.default_rng(0), seeds=3)
    for given, mean in ((outputs, outputs.mean(0)), (outputs[0], outputs[0])):
        each = [stats.spearmanr(masks @ scores[q], mean[:, q]).statistic for q in range(len(scores))]
        assert lds(masks, given, scores).value == pytest.approx(np.mean(each), abs=1e-12)


def test_signs_scales_and_shifts_do_what_they_must():
    """Assert that the sign turns the score, and that positive factors and added constants leave it."""
    masks, outputs, scores = problem(np.random.default_rng(1))
    value = lds(masks, outputs, scores).value
    assert lds(masks, outputs, -scores).value == pytest.approx(-value)
    assert lds(masks, 3 * outputs + 5, scores * np.arange(1, 7)[:, None]).value == pytest.approx(value)
    assert lds(masks.astype(int), outputs, scores).value == value
    assert lds(masks, outputs, np.zeros_like(scores)).value == 0


@pytest.mark.parametrize(
    ("seeds", "common", "noise", "size"),
    [(1, 0.0, 3.0, 32), pytest.param(4, 0.0, 3.0, 32, marks=pytest.mark.slow), (4, 2.0, 1.0, 64)],
)
def test_the_interval_covers_the_score_of_infinitely_many_subsets(seeds, common, noise, size):
    """Assert 95 % coverage within three standard errors, for noise of networks and for what seeds share."""
    rng, draws = np.random.default_rng(2), 200
    scores = truth = rng.normal(size=(4, 40))
    covered = []

    def study(subsets, kinds):
        masks = rng.random((subsets, 40)) < 0.5
        drift = common * rng.normal(size=(kinds, 4, 40))
        outputs = masks @ truth.T + np.einsum("sn,kqn->ksq", masks, drift)
        return masks, outputs + noise * rng.normal(size=(kinds, subsets, 4)), scores

    target = np.mean([_value(*study(1000, seeds)) for _ in range(80)])
    for _ in range(draws):
        low, high = lds(*study(size, seeds)).interval
        covered.append(low <= target <= high)
    assert abs(np.mean(covered) - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / draws)


def _value(masks, outputs, scores):
    ranks = [stats.rankdata(each, axis=0) for each in (masks @ scores.T, outputs.mean(0))]
    a, b = (each - each.mean(0) for each in ranks)
    return float(((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))).mean())


def test_a_perfect_attribution_attains_the_ceiling_and_a_weaker_one_does_not():
    """Assert the ceiling against the scores of the truth and of a prediction of quality .5."""
    rng = np.random.default_rng(3)
    gaps = [(result := lds(*problem(rng, seeds=4, noise=4.0))).value - result.ceiling for _ in range(30)]
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / 30**0.5 + 0.01
    weak = [(result := lds(*problem(rng, seeds=4, quality=0.5))).ceiling - result.value for _ in range(30)]
    assert min(weak) > 0.2
    assert np.isnan(lds(*problem(rng, seeds=1)).ceiling)


def test_wrong_attributions_are_rejected():
    """Assert that another query's scores and scores of permuted points have intervals below a good one's."""
    masks, outputs, scores = problem(np.random.default_rng(4))
    low = lds(masks, outputs, scores).interval[0]
    assert lds(masks, outputs, np.roll(scores, 1, axis=0)).interval[1] < low
    assert lds(masks, outputs, scores[:, ::-1]).interval[1] < low


M, F, T = problem(np.random.default_rng(5), subsets=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((M, F[:, :5], T), "masks, outputs and scores have shapes"),
        ((M[0], F, T), "masks, outputs and scores have shapes"),
        ((M, F, T[:, :-1]), "masks, outputs and scores have shapes"),
        ((M * 0.5, F, T), "values other than 0 and 1"),
        ((M, F * np.nan, T), "outputs holds NaN"),
        ((M, F, T * np.inf), "scores holds NaN"),
        ((M[:3], F[:, :3], T), "4 subsets, one query and one point are the least"),
        ((M, F[:0], T), "are the least"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(arguments, message):
    """Assert the sentences."""
    with pytest.raises(ValueError, match=message):
        lds(*arguments)


def test_the_function_is_exported_lazily():
    """Assert that the package promises both names and gives them when asked."""
    assert {"lds", "Lds"} <= set(studies.__all__)
    assert studies.Lds._fields == ("value", "interval", "ceiling")
