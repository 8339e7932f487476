"""Properties of density estimates over generated laws: own error bars, product laws, start levels, scaling."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import assert_close
from support.strategies import Parameters, mixtures, sigmas

from oracles import GaussianMixture
from sensitivity import Estimate, GaussianAnchor, Grid, Mixture, log_density

SEEDS = st.integers(0, 2**31)


def engine(law: Parameters, scale: float = 1.0) -> Mixture:
    weights, means, covariances = (torch.from_numpy(np.array(part)) for part in law)
    return Mixture(weights, scale * means, scale**2 * covariances)


def matched(law: Parameters, scale: float = 1.0) -> GaussianAnchor:
    exact = GaussianMixture(*law)
    return GaussianAnchor(scale * torch.from_numpy(exact.mean), scale**2 * torch.from_numpy(exact.covariance))


def states(law: Parameters, sigma: float, seed: int, count: int = 4) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, law.dimension))
    return torch.from_numpy(GaussianMixture(*law).sample(count, seed) + sigma * noise)


def by_formula(law: Parameters, x: torch.Tensor, sigma: float, seed: int, **options: object) -> Estimate:
    grid = Grid(200.0, 1e-3, 1)
    return log_density(
        engine(law).score, x, sigma, anchor=matched(law), method="formula", seed=seed, grid=grid, **options
    )


def test_formula_has_nominal_coverage_over_generated_laws() -> None:
    """Assert that 85–95 % of 90 % intervals hold the truth over 25 generated laws, 16 states each."""
    hits: dict[int, torch.Tensor] = {}

    @settings(max_examples=200, derandomize=True)
    @given(law=mixtures(components=4), sigma=sigmas(0.2, 2.0), seed=SEEDS)
    def collect(law: Parameters, sigma: float, seed: int) -> None:
        # One Gaussian is its own reference: no error at all. A repeated seed, as mutated examples have, is no new draw.
        if len(hits) >= 25 or len(law.weights) == 1 or seed in hits:
            return
        x = states(law, sigma, seed, 16)
        low, high = by_formula(law, x, sigma, seed, evaluations=600).interval(0.9)
        truth = torch.from_numpy(GaussianMixture(*law).noised(sigma).log_density(x.numpy()))
        hits[seed] = ((low - 1e-5 < truth) & (truth < high + 1e-5)).double()

    collect()
    share = float(torch.cat(list(hits.values())).mean())
    assert len(hits) == 25
    assert 0.85 <= share <= 0.95


@given(law=mixtures(), sigma=sigmas(0.1, 2.0), rise=st.floats(1.1, 5.0), seed=SEEDS)
@settings(max_examples=15)
def test_starting_at_a_higher_level_is_the_formula_of_the_noised_law(
    law: Parameters, sigma: float, rise: float, seed: int
) -> None:
    """Assert start-level consistency: log p at √(σ² + b²) of ρ equals log p at σ of ρ * N(0, b²I), with one noise."""
    x = states(law, sigma, seed)
    extra = sigma**2 * (rise**2 - 1)
    identity = np.eye(law.dimension)
    blurred = Parameters(law.weights, law.means, law.covariances + extra * identity)
    options = {"evaluations": 200}
    from_above = by_formula(law, x, sigma * rise, seed, **options)
    noised = engine(blurred)
    truth = noised.log_density(x, sigma)
    low, high = from_above.interval(0.9999)
    assert bool(((low - 1e-4 < truth) & (truth < high + 1e-4)).all())


@given(first=mixtures((1, 2)), second=mixtures((1, 2)), sigma=sigmas(0.2, 2.0), seed=SEEDS)
@settings(max_examples=10)
def test_product_laws_add(first: Parameters, second: Parameters, sigma: float, seed: int) -> None:
    """Assert that the density of a product law is the sum of its factors', each by its own estimate."""
    a, b = engine(first), engine(second)
    split = first.dimension
    x = torch.cat([states(first, sigma, seed), states(second, sigma, seed + 1)], dim=1)

    class Product:
        """ν ⊗ ν′."""

        def score(self, y: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return torch.cat([a.score(y[:, :split], level), b.score(y[:, split:], level)], dim=1)

    laws = [GaussianMixture(*law) for law in (first, second)]
    mean = torch.from_numpy(np.concatenate([law.mean for law in laws]))
    anchor = GaussianAnchor(mean, torch.block_diag(*(torch.from_numpy(law.covariance) for law in laws)))
    grid = Grid(200.0, 1e-3, 1)
    whole = log_density(
        Product().score, x, sigma, anchor=anchor, method="formula", evaluations=1600, seed=seed, grid=grid
    )
    parts = [by_formula(law, part, sigma, seed, evaluations=1600) for law, part in zip((first, second), x.split(
        [split, x.shape[1] - split], dim=1), strict=True)]  # fmt: skip
    error = torch.stack([e.standard_error for e in (whole, *parts)]).square().sum(0).sqrt()
    assert bool(((whole.value - parts[0].value - parts[1].value).abs() < 6 * error + 1e-4).all())


@given(law=mixtures(), sigma=sigmas(0.2, 2.0), scale=st.floats(0.1, 10.0), seed=SEEDS)
@settings(max_examples=10)
def test_scaling_the_data_shifts_the_log_density(law: Parameters, sigma: float, scale: float, seed: int) -> None:
    """Assert `log p_{cσ}(cx) = log p_σ(x) − d log c` with the same noise, by every route, to rounding."""
    x = states(law, sigma, seed)
    shift = law.dimension * math.log(scale)
    for options in (
        {"method": "formula", "evaluations": 100},
        {"trace": "exact"},
        {"trace": "hutchinson", "probes": 2},
    ):
        one = log_density(
            engine(law).score, x, sigma, anchor=matched(law), grid=Grid(50.0, sigma, 4), seed=seed, **options
        )
        other = log_density(
            engine(law, scale).score, scale * x, scale * sigma, anchor=matched(law, scale), seed=seed,
            grid=Grid(50.0 * scale, scale * sigma, 4), **options,
        )  # fmt: skip
        assert_close(other.value, one.value - shift, rtol=1e-7, atol=1e-7)
