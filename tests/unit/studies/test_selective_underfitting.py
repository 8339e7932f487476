"""The study of selective underfitting: its toolkit against independent routes, its claims against planted faults."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from oracles import GaussianMixture
from studies import selective_underfitting as study
from studies.claim_bounds import Verdict
from studies.networks import Architecture, build
from studies.selective_underfitting import (
    Distilled,
    Empirical,
    Shells,
    calibrated_distance,
    conditional,
    memorised_share,
)
from studies.selective_underfitting.claims import (
    claims,
    deviation,
    features,
    freedom,
    guidance,
    memoriser,
    perception,
    quality,
    reach,
    returning,
    toy,
)
from studies.selective_underfitting.comparison import against_paper, regions
from studies.selective_underfitting.config import Config, Ladder
from studies.selective_underfitting.features import RandomFeatures, quadrature
from studies.selective_underfitting.lengths import excesses, parts_of
from studies.selective_underfitting.measures import energy_distance, errors, mean_error, parts
from studies.selective_underfitting.paths import noised, path
from studies.selective_underfitting.signs import few_and_many, perfect, pulled, selective, sign, table
from studies.selective_underfitting.summaries import changes, spearman
from studies.study import Context
from studies.training import Objective, Recipe, train
from studies.training.batches import Batches, Draw

LADDER = Ladder("digits", "mlp", 16, 2, 16, 32)
CONFIG = replace(Config.smoke(), ladders=(LADDER,))


@pytest.fixture
def points():
    """Twelve points in five dimensions, float64."""
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_shells_hold_the_stated_probability(points):
    """Assert that noised points fall into their own shell with the stated probability, within binomial error."""
    shells = Shells(points[:1], probability=0.9)
    x = points[:1] + 0.3 * torch.randn(4000, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inside = int(shells.contains(x, 0.3).sum())
    assert stats.binomtest(inside, 4000, 0.9).pvalue > 1e-4


def test_deviation_is_the_ratio_nearest_to_one(points):
    """Assert that r⋆ and the nearest ratio agree with a loop over points, collapsed states included."""
    x = torch.cat([points[:2], 3 * points[:4] + 1])
    shells = Shells(points)
    every = np.array([[float((a - b).norm()) / (0.7 * 5**0.5) for b in points] for a in x])
    best = every[np.arange(len(x)), np.abs(every - 1).argmin(1)]
    np.testing.assert_allclose(shells.deviation(x, 0.7), best, rtol=1e-12)
    np.testing.assert_allclose(shells.nearest(x, 0.7), every.min(1), rtol=1e-12)
    assert float(shells.nearest(x, 0.7)[0]) == 0.0


def test_overlap_is_the_worst_pairs_coefficient(points):
    """Assert that the overlap is the integral of the geometric mean of the two closest noised points."""
    gaps = torch.cdist(points, points) + 1e9 * torch.eye(12, dtype=torch.float64)
    gap, sigma = float(gaps.min()), 0.8
    grid = np.linspace(-12, 12 + gap, 20001)
    product = np.sqrt(stats.norm.pdf(grid, 0, sigma) * stats.norm.pdf(grid, gap, sigma))
    assert Shells(points).overlap(sigma) == pytest.approx(float(np.trapezoid(product, grid)), rel=1e-9)
    assert Shells(points[:1]).overlap(sigma) == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Shells(torch.zeros(0, 3)), "N ≥ 1"),
        (lambda: Shells(torch.zeros(2, 3), probability=1.0), "probability=1.0"),
        (lambda: Shells(torch.zeros(2, 3)).ratios(torch.zeros(1, 3), 0.0), "σ > 0"),
        (lambda: Shells(torch.zeros(2, 3)).ratios(torch.zeros(1, 4), 1.0), "4 entries"),
        (lambda: Shells(torch.zeros(2, 3)).overlap(0.0), "σ > 0"),
        (lambda: study.shell_bounds(0), "dimension=0"),
        (lambda: study.shell_probability(3, 2.0, 1.0), "low ≤ high"),
        (lambda: calibrated_distance(torch.zeros(1, 3), torch.zeros(1, 3)), "two of each"),
        (lambda: calibrated_distance(torch.zeros(1, 3), torch.zeros(4, 2)), "shape"),
        (lambda: conditional(torch.zeros(2, 1), torch.zeros(2), 7), "label=7"),
        (lambda: conditional(torch.zeros(2, 1), torch.zeros(3), 0), "labels"),
        (lambda: Distilled(), "data="),
        (lambda: Distilled(data=torch.zeros(2, 1), thickness=0.5), "thickness=0.5"),
        (lambda: RandomFeatures(2, -1), "size=-1"),
    ],
)
def test_bad_input_says_what_to_do(call, words):
    """Assert that bad input raises a ValueError that quotes it."""
    with pytest.raises(ValueError, match=words):
        call()


def test_memorisation_tells_copies_from_new_points(points):
    """Assert that copies are memorised at every threshold and a far point at none, and that shares rise with it."""
    assert memorised_share(points, points) == [1.0] * 7
    far = torch.full((3, 5), 50.0, dtype=torch.float64)
    assert memorised_share(far, points) == [0.0] * 7
    shares = memorised_share(torch.cat([points + 0.3, far]), points)
    assert shares == sorted(shares)


def test_empirical_score_is_that_of_the_oracle(points):
    """Assert that the memoriser agrees with the oracle's empirical law, and a class with the law of its points."""
    x, labels = points + 0.2, torch.arange(12) % 3
    oracle = GaussianMixture.empirical(points.numpy()).noised(0.4)
    np.testing.assert_allclose(Empirical(points).score(x, 0.4), oracle.score(x.numpy()), rtol=1e-9, atol=1e-9)
    values = GaussianMixture.empirical(points[labels == 1].numpy()).noised(0.4).score(x.numpy())
    np.testing.assert_allclose(conditional(points, labels, 1).score(x, 0.4), values, rtol=1e-9, atol=1e-9)


def test_distilled_gradient_is_the_mean_of_the_denoising_gradient():
    """Assert that targets of the conditional mean leave the expected gradient of denoising unchanged."""
    data = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    network = build(Architecture(width=8, depth=1), (3,), seed=1, dtype=torch.float64)
    with torch.no_grad():
        network.body.output.weight.normal_(generator=torch.Generator().manual_seed(3))
    draw = Draw(*(part[0] for part in Batches(data.repeat(20_000, 1), [None], [0], 80_000).draw(0)))
    pair = []
    for objective in (Objective(kind="blind"), Distilled(data=data)):  # equal weights, for τ = 1
        network.zero_grad()
        objective.losses(network, draw).mean().backward()
        pair.append(network.body.output.weight.grad.clone())
    assert float((pair[0] - pair[1]).norm() / pair[0].norm()) < 0.03
    network.zero_grad()
    Distilled(data=data + 1).losses(network, draw).mean().backward()  # a wrong D_score is told apart
    assert float((pair[0] - network.body.output.weight.grad).norm() / pair[0].norm()) > 0.2


def test_distilled_targets_are_those_of_the_score_set_for_stacks_and_images():
    """Assert that targets have the shape of states for any leading shape and equal D⋆ of D_score."""
    data = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    objective = Distilled(data=data)
    state, sigma = torch.randn(2, 5, 1, 4, 4), torch.rand(2, 5) + 0.1
    result = objective.targets(state, sigma)
    single = Empirical(data)(state[1, 2:3], float(sigma[1, 2]))
    torch.testing.assert_close(result[1, 2:3], single, rtol=1e-4, atol=1e-4)


def test_thick_shells_spread_log_uniformly_and_independently_of_the_level():
    """Assert that the factor's logarithm is uniform in ±log κ and uncorrelated with the level."""
    level = torch.rand(20_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    u = Distilled(data=torch.zeros(2, 1), thickness=3.0).factor(level).log() / np.log(3)
    assert stats.kstest(u.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(float(torch.corrcoef(torch.stack([u, level]))[0, 1])) < 0.03
    assert bool((Distilled(data=torch.zeros(2, 1)).factor(level) == 1).all())


def test_networks_of_other_score_sets_are_cached_apart(tmp_path):
    """Assert that a recipe that differs in D_score alone is trained anew."""
    cache = Context(CONFIG, folder=tmp_path / "x").cache
    pool = torch.randn(8, 2, generator=torch.Generator().manual_seed(6))
    values = []
    for part in (pool[:4], pool[4:]):
        recipe = Recipe(Architecture(width=4, depth=1), Distilled(data=part), steps=3, batch=4)
        values.append(train(recipe, pool, cache=cache).network(pool, 0.5))
    assert not torch.equal(*values)
    assert len(list((tmp_path / "cache").glob("networks-*.safetensors"))) == 2


def test_paths_of_the_memoriser_end_on_training_points(points):
    """Assert that the exact empirical score takes every latent to a datum, through every level asked for."""
    train_set = 3 * points
    score = Empirical(train_set).score
    start = 10 * torch.randn(8, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    states = path(score, start, (10.0, 3.0, 1.0, 0.3, 0.05), 8)
    assert len(states) == 5
    assert memorised_share(states[-1], train_set, (0.05,)) == [1.0]


def test_noise_depends_on_seed_and_level_alone(points):
    """Assert that states are the same for every caller and differ between levels."""
    assert torch.equal(noised(points, 0.5), noised(points, 0.5))
    assert not torch.equal((noised(points, 0.5) - points) / 0.5, (noised(points, 0.4) - points) / 0.4)


def test_energy_distance_is_twice_the_integral_of_squared_cdf_differences():
    """Assert the one-dimensional identity with SciPy's distance (its square, up to the diagonal's bias)."""
    x, y = (torch.randn(500, 1, generator=torch.Generator().manual_seed(k)) * (1 + k) for k in (0, 1))
    expected = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2
    bias = float(torch.pdist(x).mean() + torch.pdist(y).mean()) / 500
    assert energy_distance(x, y) == pytest.approx(expected - bias, abs=2e-4)


def test_outside_errors_need_states_outside(points):
    """Assert that inside states are left out and that too few give NaN."""
    shells, network = Shells(points, 0.999), lambda x, sigma: torch.zeros_like(x)
    assert np.isnan(mean_error(network, Empirical(points), noised(points, 0.1), 0.1, shells))
    assert np.isnan(mean_error(network, Empirical(points), points[:3] + 9, 0.1, shells))
    assert mean_error(network, Empirical(points), points + 9, 0.1, shells) > 0


def test_quadrature_integrates_the_noise_exactly():
    """Assert that fourth moments of the noise are exact."""
    states, weights, origin = quadrature(np.array([[0.0, 1.0], [2.0, -1.0]]), 0.5, order=4)
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ ((states - origin) ** 4)[:, 0] == pytest.approx(3 * 0.5**4)


def level_rows(
    inside: float, trajectory: float, returned: tuple[float, float] = (1.0, 0.0), pull: float = 0.0
) -> pd.DataFrame:
    """Rows of a ladder whose errors change by the given factors from the smaller networks to the base."""
    rng, rows = np.random.default_rng(0), []
    for rung in ("base", "narrow", "shallow", "short", "shorter"):
        for seed in range(3):
            for sigma in (0.8, 0.4, 0.1):
                power = 1.0 if rung == "base" else 0.0
                noise = np.exp(0.02 * rng.standard_normal(2))
                row = {"ladder": LADDER.name, "kind": "level", "rung": rung, "seed": seed, "sigma": sigma}
                row |= {"inside_empirical": inside**power * noise[0], "returned": returned[int(sigma == 0.8)]}
                row |= {"heldout_pull": pull * power + 0.01 * noise[0]}
                outside = ("trajectory_empirical", "own_empirical", "heldout_empirical")
                rows.append(row | dict.fromkeys(outside, trajectory**power * noise[1]))
    return pd.DataFrame(rows)


CONFIG3 = replace(CONFIG, levels=(0.8, 0.4, 0.1))


@pytest.mark.parametrize("axis", ["training", "late training", "capacity"])
def test_the_sign_pattern_is_found_and_its_opposite_refused(axis):
    """Assert that the claim holds on planted selective underfitting, and fails when signs are turned."""
    good, bad = level_rows(0.8, 1.2), level_rows(1.2, 0.8)
    for column in ("inside", "trajectory", "own"):
        assert sign(good, LADDER, CONFIG3, axis, column).holds
        assert not sign(bad, LADDER, CONFIG3, axis, column).holds


def test_the_weak_sense_fails_where_the_outside_error_falls_more():
    """Assert that inside errors must fall by more than held-out ones."""
    assert selective(level_rows(0.5, 0.8), LADDER, CONFIG3).holds
    assert not selective(level_rows(0.8, 0.5), LADDER, CONFIG3).holds


def test_a_perfect_denoiser_above_the_start_is_reported():
    """Assert that the claim fails where the gap exceeds the error of the shortest training."""
    rows = level_rows(1, 1)
    for gap, expected in ((0.8, True), (1.2, False)):
        assert perfect(rows.assign(heldout_gap=gap), LADDER, CONFIG3).holds is expected


def test_the_rank_claim_on_regions_can_fail():
    """Assert that memorised shares that rise with the held-out error are reported."""
    for sign_of, expected in ((-1, True), (1, False)):
        rows = [
            {"kind": "freedom", "network": "unet", "heldout_errors": [k, float("nan")], "memorised": [k**sign_of] * 7}
            for k in range(1, 11)
        ]
        assert reach(pd.DataFrame(rows), "unet").holds is expected


def test_few_points_must_pull_more_than_many():
    """Assert that ladders are paired by size and that an equal pull is not taken for a difference."""
    many = replace(LADDER, size=64)
    config = replace(CONFIG3, ladders=(LADDER, many, replace(many, kind="unet")))
    assert few_and_many(config) == [(LADDER, many)]
    for pulls, expected in (((0.5, 0.1), True), ((0.1, 0.1), False), ((0.1, 0.5), False)):
        each = [level_rows(1, 1, pull=p).assign(ladder=one.name) for p, one in zip(pulls, (LADDER, many), strict=True)]
        assert pulled(pd.concat(each), LADDER, many, config).holds is expected


def test_changes_are_those_of_a_loop():
    """Assert that changes of the logarithm are paired by seed and level, and that missing levels drop out."""
    rows = level_rows(0.5, 2.0)
    rows.loc[(rows.rung == "base") & (rows.sigma == 0.4), "inside_empirical"] = np.nan
    result = changes(rows, CONFIG3, ("narrow", "shallow"), "inside_empirical")
    assert len(result) == 2 * 3 * 2
    value = {rung: rows[(rows.rung == rung) & (rows.seed == 1) & (rows.sigma == 0.1)] for rung in ("base", "shallow")}
    expected = np.log(value["base"].inside_empirical.iloc[0] / value["shallow"].inside_empirical.iloc[0])
    assert result["shallow", 1, 0.1] == pytest.approx(expected)


def test_parts_add_up_to_the_error(points):
    """Assert own + gap (1 − 2 pull) = error for any centre, the pull at both ends, and NaN for too few states."""
    x = points + 0.3
    centre, network = points * 0.9, lambda y, sigma: 0.8 * y + 0.1
    value, gap, pull = parts(network, Empirical(points), centre, x, 0.5)
    error = float(errors(network, Empirical(points), x, 0.5).mean())
    assert value + gap * (1 - 2 * pull) == pytest.approx(error, rel=1e-12)
    ends = [parts(d, Empirical(points), centre, x, 0.5)[2] for d in (lambda y, s: centre, Empirical(points))]
    assert ends == pytest.approx([0.0, 1.0])
    assert np.isnan(parts(network, Empirical(points), centre[:3], x[:3], 0.5)).all()


def test_parts_of_a_ladder_add_up_to_the_change():
    """Assert that the two bars of a level sum to the relative change of the held-out error."""
    shared = {"kind": "level", "sigma": 0.1, "seed": 0}
    short = shared | {"rung": "shorter", "heldout_own": 1.0, "heldout_gap": 10.0, "heldout_pull": 0.1}
    base = shared | {"rung": "base", "heldout_own": 0.5, "heldout_gap": 10.0, "heldout_pull": 0.3}
    value = parts_of(pd.DataFrame([short, base]), CONFIG3).iloc[0]
    before, after = 1 + 10 * (1 - 0.2), 0.5 + 10 * (1 - 0.6)
    assert value.own + value.pull == pytest.approx(after / before - 1)
    assert value.own < 0
    assert value.pull < 0


def test_return_claims_fail_for_a_network_that_never_or_always_returns():
    """Assert that both return claims can fail."""
    assert [c.holds for c in returning(level_rows(1, 1), LADDER, CONFIG3)] == [True, True]
    assert [c.holds for c in returning(level_rows(1, 1, (0.0, 1.0)), LADDER, CONFIG3)] == [False, False]


def freedom_rows(thin: float, wide: float, thick: float, spread: float = 0.0) -> pd.DataFrame:
    """Rows of two trainings with the given memorised shares, those of D_region and thick shells `spread` apart."""
    regions = [(1, 1.0, thin, 0.0), (25, 1.0, wide, spread), (1, 2.0, thick, spread)]
    shared = {"kind": "freedom", "network": "unet", "samples": 128}
    return pd.DataFrame(
        [
            shared | {"ratio": r, "thickness": k, "memorised": [m + (seed - 0.5) * distance] * 7, "seed": seed}
            for r, k, m, distance in regions
            for seed in range(2)
        ]
    )


def test_freedom_claims_can_fail():
    """Assert that a rise is seen, and neither a fall nor equality is taken for one."""
    assert [c.holds for c in freedom(freedom_rows(0.1, 0.6, 0.5), "unet", 25, 2.0)] == [True, True]
    assert [c.holds for c in freedom(freedom_rows(0.5, 0.4, 0.5), "unet", 25, 2.0)] == [False, False]


def test_the_training_and_not_the_sample_is_the_unit_of_memorised_shares():
    """Assert that a rise of .5 in 128 samples of two trainings that differ by .2 is open: one degree of freedom."""
    result = freedom(freedom_rows(0.1, 0.6, 0.6, spread=0.2), "unet", 25, 2.0)
    assert [claim.verdict for claim in result] == [Verdict.OPEN] * 2
    assert [claim.measured for claim in result] == pytest.approx([0.5, 0.5])
    assert result[0].interval == pytest.approx((0.5 - 0.1 * 12.7062, 1.0), rel=1e-4)


def test_the_guidance_claim_follows_the_learned_gaps():
    """Assert that it holds where they are larger on trajectories and fails where they are smaller, class by class."""
    for larger, verdict in (("trajectory", Verdict.HOLDS), ("training", Verdict.FAILS)):
        gaps = [
            {"kind": "gap", "states": s, "label": k, "sigma": 0.4, "learned": (1 + 0.1 * k) * (2 if s == larger else 1)}
            for s in ("training", "trajectory")
            for k in range(5)
        ]
        noisy = pd.DataFrame(gaps)
        noisy["learned"] *= np.exp(0.05 * np.random.default_rng(0).normal(size=len(noisy)))
        assert guidance(noisy).verdict is verdict


def test_feature_claim_fails_for_an_error_that_rises():
    """Assert that one rise between nested sets is enough to refuse."""
    rows = [{"kind": "features", "size": m, "seed": 0, "inside": 1 / m} for m in (4, 8, 16)]
    assert features(pd.DataFrame(rows)).holds
    rows[2]["inside"] = 0.2
    assert not features(pd.DataFrame(rows)).holds


def test_quality_follows_ranks():
    """Assert that Spearman's interval excludes zero for a monotone relation and holds it for none."""
    x = pd.Series(np.arange(30.0))
    assert spearman(x, x**3).low > 0.9
    noise = spearman(x, pd.Series(np.random.default_rng(0).standard_normal(30)))
    assert noise.low < 0 < noise.high


def deviation_rows(training: float, other: float) -> pd.DataFrame:
    """Rows of r⋆ with the given medians."""
    medians = {"inside": training, "trajectory": other, "heldout": other}
    shared = {"kind": "deviation", "sigma": 0.1}
    spread = np.linspace(-0.05, 0.05, 41)
    return pd.DataFrame([shared | {"states": k, "deviation": (m + spread).tolist()} for k, m in medians.items()])


def test_shell_claims_fail_for_states_in_the_wrong_place():
    """Assert that training states off the shells, and trajectories in them, are both reported."""
    config = replace(CONFIG, levels=(0.1,))
    assert [c.holds for c in deviation(deviation_rows(1.0, 9.0), LADDER, config)] == [True, True, True]
    assert [c.holds for c in deviation(deviation_rows(1.3, 1.0), LADDER, config)] == [False, False, False]


def test_memoriser_claim_fails_for_a_memoriser_that_does_not():
    """Assert that the control can fail."""
    rows = [{"kind": "network", "rung": "memoriser", "memorised": [share] * 7} for share in (1.0, 0.9)]
    assert [memoriser(pd.DataFrame([row]), LADDER)[0].holds for row in rows] == [True, False]


def test_toy_claims_fail_for_a_network_that_never_learns():
    """Assert that flat errors and a vanishing plateau are reported."""
    config, rng = replace(CONFIG, low=0.8), np.random.default_rng(1)
    columns = ("inside_empirical", "inside_population", "heldout_population")
    for factors, expected in (((0.5, 1.0, 0.5), [True, True, True]), ((2.0, 1e-3, 2.0), [False, False, False])):
        rows = []
        for rung, seed, sigma in product(("base", "shorter"), range(3), (0.4, 0.1)):
            values = [f if rung == "base" else 1.0 for f in factors] * np.exp(0.02 * rng.standard_normal(3))
            shared = {"problem": "gaussian20", "kind": "level", "rung": rung, "seed": seed, "sigma": sigma}
            rows.append(shared | dict(zip(columns, values, strict=True)))
        assert [claim.holds for claim in toy(pd.DataFrame(rows), config)] == expected


def test_perception_claims_fail_when_plain_and_aligned_are_exchanged():
    """Assert that the toy's claims depend on which features are aligned."""
    counts = {"aligned": (10, 300), "plain": (120, 100)}
    for names, expected in ((("aligned", "plain"), True), (("plain", "aligned"), False)):
        shared = {"kind": "perception", "samples": 400}
        rows = [
            shared | {"features": n, "between": b + seed, "within": w - seed, "seed": seed}
            for n, (b, w) in zip(names, counts.values(), strict=True)
            for seed in range(3)
        ]
        assert [claim.holds for claim in perception(pd.DataFrame(rows))] == [expected, expected]


def test_quality_claims_fail_when_errors_and_quality_are_unrelated():
    """Assert that the rank claims hold on planted monotone rows and fail on constant trajectories' reversal."""
    for power, expected in ((-1, [True, True]), (1, [True, False])):
        rows = []
        for k in range(1, 25):
            ladder = f"digits-mlp-{k % 3}"
            shared = {"ladder": ladder, "problem": "digits", "size": 9, "rung": str(k), "seed": 0.0}
            row = {"energy": float(k), "confidence": 0.5, "loss": 1.0, "excess": 0.1, "optimum": 0.5}
            rows.append(shared | {"kind": "network"} | row)
            errors = {f"{name}_empirical": float(k) ** power for name in ("trajectory", "heldout", "own")}
            rows.append(shared | {"kind": "level", "inside_empirical": float(k)} | errors)
        assert [claim.holds for claim in quality(pd.DataFrame(rows))] == expected


def test_smoke_runs_every_cell_claim_and_figure(tmp_path):
    """Assert that the smoke configuration gives all kinds of rows, the sure claims hold and figures are described."""
    config = Config.smoke()
    context = Context(config, folder=tmp_path / "x")
    rows = pd.DataFrame([row for cell in study.cells(config) for row in study.run_cell(cell, context)])
    kinds = {"network", "level", "deviation", "freedom", "gap", "guided", "features", "perception"}
    assert set(rows.kind) == kinds
    result = {claim.statement: claim for claim in claims(rows, config)}
    sure = [c for text, c in result.items() if "exact empirical score" in text or text.startswith("features")]
    assert sure
    assert all(claim.holds for claim in sure)
    assert all(figure.alt for figure in study.figures(rows, config).values())
    assert len(quality(rows)) == 2
    assert against_paper(rows, config).ours.str.len().min() > 0
    assert len(regions(rows, config)) == 3
    assert len(table(rows, config)) == 5
    assert len(excesses(rows, config)) == sum(len(ladder.rungs()) for ladder in config.ladders)


def test_every_level_has_uniquely_named_cells():
    """Assert that the cells of all four levels have unique names, the cluster's included."""
    for level in ("smoke", "quick", "full", "paper"):
        names = [cell.name for cell in study.cells(getattr(Config, level)())]
        assert len(names) == len(set(names)) > 10
