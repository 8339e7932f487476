"""Streaming over points: independence of blocks and order, float32 accuracy, pairing with cotangents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close

from oracles.mixture import GaussianMixture
from sensitivity.measures import distances
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward
from sensitivity.perturbations.displacement import Move

GENERATOR = torch.Generator().manual_seed(11)
DATA = torch.randn(40, 7, dtype=torch.float64, generator=GENERATOR)
X = torch.randn(5, 7, dtype=torch.float64, generator=GENERATOR)
WEIGHTS = torch.rand(40, dtype=torch.float64, generator=GENERATOR)


def values(points: Points, x: torch.Tensor = X, sigma: float = 0.4) -> torch.Tensor:
    """Everything a measure gives, in one vector for each state."""
    log_density, score = points.log_density_and_score(x, sigma)
    return torch.cat([log_density[:, None], score, points.score_product(x, sigma, x.flip(1))], 1)


@pytest.mark.parametrize("block", [1, 3, 39, 40, 1000])
def test_blocks_change_nothing(block: int) -> None:
    """Assert that the size of the blocks is memory only."""
    assert_close(values(Points(DATA, WEIGHTS, block=block)), values(Points(DATA, WEIGHTS)), rtol=1e-12, atol=1e-11)


def test_order_of_points_changes_nothing() -> None:
    """Assert that permuted points with permuted weights are the same measure."""
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert_close(values(Points(DATA[order], WEIGHTS[order])), values(Points(DATA, WEIGHTS)), rtol=1e-12, atol=1e-11)


def test_split_points_change_nothing() -> None:
    """Assert that a point of weight 2c is two points of weight c, and that weight 0 is no point."""
    split = Points(torch.cat([DATA, DATA[:1], X]), torch.cat([WEIGHTS, WEIGHTS[:1], X.new_zeros(5)]))
    doubled = WEIGHTS.clone()
    doubled[0] *= 2
    assert_close(values(split), values(Points(DATA, doubled)), rtol=1e-12, atol=1e-11)


def test_block_of_weightless_points_contributes_nothing() -> None:
    """Assert that a leading block of zero weights gives no NaN."""
    measure = Points(torch.cat([X, DATA]), torch.cat([X.new_zeros(5), WEIGHTS]), block=5)
    assert_close(values(measure), values(Points(DATA, WEIGHTS)), rtol=1e-12, atol=1e-11)


def test_parts_sum_to_the_whole() -> None:
    """Assert that densities of two halves, weighted by their mass, add to the density of all."""
    halves = [Points(DATA[:15], WEIGHTS[:15]), Points(DATA[15:], WEIGHTS[15:])]
    shares = torch.stack([WEIGHTS[:15].sum(), WEIGHTS[15:].sum()]) / WEIGHTS.sum()
    logs = torch.stack([half.log_density(X, 0.4) for half in halves])
    whole = torch.logsumexp(logs + shares.log()[:, None], 0)
    assert_close(whole, Points(DATA, WEIGHTS).log_density(X, 0.4), rtol=1e-12)


def test_translation_and_scaling() -> None:
    """Assert that `x → cx + b` with `σ → cσ` divides the score by c, the density by `c^d`."""
    c, b = 3.0, torch.full((7,), 100.0, dtype=torch.float64)
    moved = Points(c * DATA + b, WEIGHTS)
    log_density, score = moved.log_density_and_score(c * X + b, 0.4 * c)
    expected, direction = Points(DATA, WEIGHTS).log_density_and_score(X, 0.4)
    assert_close(log_density, expected - 7 * np.log(c), rtol=1e-10)
    assert_close(score, direction / c, rtol=1e-9, atol=1e-9)


def near_duplicates(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images with a cluster of near duplicates, states noised at .002 of the scale, and the level."""
    generator = torch.Generator().manual_seed(2)
    data = scale * torch.rand(900, 784, generator=generator)
    copies = data[:1] + 1e-4 * scale * torch.randn(100, 784, generator=generator)
    data = torch.cat([data, copies])
    sigma = torch.tensor(0.002 * scale)
    x = data[[0, 5, 950, 999]] + sigma * torch.randn(4, 784, generator=generator)
    return data, x, sigma


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float32_log_density_is_within_a_hundredth_of_a_nat(scale: float) -> None:
    """Assert the accuracy rule in float32, near duplicates included, against a float64 oracle of the same points."""
    data, x, sigma = near_duplicates(scale)
    truth = GaussianMixture.empirical(data.double().numpy()).noised(float(sigma)).log_density(x.double().numpy())
    got = Points(data).log_density(x, sigma)
    assert got.dtype == torch.float32
    assert_close(got.double(), torch.from_numpy(truth), rtol=0, atol=1e-2)


def test_float32_pairing_is_accurate() -> None:
    """Assert that ratios r_i from float32 points agree with float64 ones to a per cent."""
    data, x, sigma = near_duplicates()
    points, exact = Points(data), Points(data.double())
    cotangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    log_density = points.log_density(x, sigma)
    got = points.pairing(x, sigma, points.score(x, sigma), log_density, cotangent)
    wide, level = x.double(), sigma.double()
    wanted = exact.pairing(wide, level, exact.score(wide, level), exact.log_density(wide, level), cotangent.double())
    assert_close(got.double(), wanted, rtol=1e-2, atol=1e-2 * float(wanted.abs().max()))


def test_naive_distances_break_the_accuracy_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that the expanded form in float32, a planted fault, is caught by the accuracy rule."""

    def naive(x: torch.Tensor, y: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return ((x * x).sum(1, keepdim=True) + (y * y).sum(1) - 2 * x @ y.T).double()

    monkeypatch.setattr("sensitivity.measures.points.squared_distances", naive)
    with pytest.raises(AssertionError, match="differ"):
        test_float32_log_density_is_within_a_hundredth_of_a_nat(1.0)


def test_large_blocks_match_direct_distances() -> None:
    """Assert that the two ways of forming distances agree, in values and in derivatives."""
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(3000, 64, dtype=torch.float64, generator=generator)
    x = y[:4] + 1e-3 * torch.randn(4, 64, dtype=torch.float64, generator=generator)
    assert x.shape[0] * y.numel() > distances.DIRECT
    centre = y.mean(0)
    lengths = distances.squared_lengths(y, centre)
    streamed = distances.squared_distances(x, y, centre, lengths)
    direct = ((x[:, None] - y) ** 2).sum(-1)
    assert_close(streamed, direct, rtol=1e-12)
    tangent = torch.randn(4, 64, dtype=torch.float64, generator=generator)
    product = torch.func.jvp(lambda s: distances.squared_distances(s, y, centre, lengths), (x,), (tangent,))[1]
    assert_close(product, 2 * ((x[:, None] - y) * tangent[:, None]).sum(-1), rtol=1e-9, atol=1e-10)


def test_pairing_is_the_source_of_each_point() -> None:
    """Assert that entry i is `λ·ṡ` for `Toward` the single point i, at a number, and at a level for each state."""
    base = Points(X.flip(0) + 0.3, bandwidth=1.0)
    points = Points(DATA, WEIGHTS, bandwidth=0.2, block=7)
    cotangent = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    for sigma in (0.5, torch.tensor([0.4, 0.5, 0.9, 2.0, 5.0], dtype=torch.float64)):
        log_density, score = base.log_density_and_score(X, sigma)
        got = points.pairing(X, sigma, score, log_density, cotangent)
        sources = [Toward(Points(y[None], bandwidth=0.2)).source(X, sigma, score, log_density) for y in DATA]
        wanted = torch.stack([(source * cotangent).sum(1) for source in sources], 1)
        assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def test_pairing_adds_in_place() -> None:
    """Assert that `out` accumulates, and is what is returned."""
    points, base = Points(DATA), Points(X, bandwidth=1.0)
    log_density, score = base.log_density_and_score(X, 0.5)
    once = points.pairing(X, 0.5, score, log_density, X)
    out = once.clone()
    assert points.pairing(X, 0.5, score, log_density, X, out=out) is out
    assert_close(out, 2 * once, rtol=1e-14)


def test_pairing_with_the_empirical_base_sums_to_zero() -> None:
    """Assert that `Σ_i λ·ṡ_i = 0` where the base law is the empirical measure of the same points."""
    points = Points(DATA)
    log_density, score = points.log_density_and_score(X, 0.5)
    pairing = points.pairing(X, 0.5, score, log_density, X)
    assert_close(pairing.sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-10 * float(pairing.abs().max()))


def test_no_states_are_fine() -> None:
    """Assert that an empty batch gives empty results."""
    log_density, score = Points(DATA).log_density_and_score(X[:0], 0.5)
    assert log_density.shape == (0,)
    assert score.shape == (0, 7)


def test_autocast_does_not_touch_measures() -> None:
    """Assert that points, mixtures and moves compute in the dtype of their states under autocast."""
    data, x = DATA.float(), X.float()
    weights = torch.full((40,), 1 / 40)
    measures = [Points(data), Mixture(weights, data, torch.eye(7).expand(40, 7, 7))]
    move = Move(Points(data), data.flip(0))
    zero = torch.zeros(5)

    def everything() -> list[torch.Tensor]:
        items = [value for measure in measures for value in measure.log_density_and_score(x, 0.5)]
        items += [measure.score_product(x, 0.5, x.flip(0)) for measure in measures]
        return [*items, measures[0].pairing(x, 0.5, x, zero, x), move.source(x, 0.5, x, zero)]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = everything()
    for got, wanted in zip(cast, plain, strict=True):
        assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [0.5, torch.tensor(0.5), torch.full((4,), 0.5), torch.full((4,), 0.5).double()])
def test_results_have_the_dtype_of_the_states(sigma: torch.Tensor | float) -> None:
    """Assert float32 results for float32 states at scalar and per-sample levels of either dtype."""
    points, x = Points(torch.randn(5, 3)), torch.randn(4, 3)
    values = (*points.log_density_and_score(x, sigma), points.score_product(x, sigma, x))
    assert {value.dtype for value in values} == {torch.float32}
