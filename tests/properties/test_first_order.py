"""The engine's sensitivity is first order in the mass: the truth departs from it by at most ½η² max |x″|."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import problem

from oracles import AdditivePerturbation, GaussianMixture
from oracles.transport import QuantileOracle
from sensitivity import Grid, Toward, sample_sensitivity
from studies.bridge import ExactLaw, engine_measure

TOP, BOTTOM = 8.0, 0.5
GRID = Grid(TOP, BOTTOM, 16, spacing="log")


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 4), place=st.floats(-1.5, 1.5), eta=st.floats(1e-3, 0.3))
def test_one_dimension_stays_within_the_remainder_of_taylor(seed, size, place, eta):
    """Assert |x_η − x_0 − ηδ| ≤ ½η² max |x″|, x_η and x″ from the quantile oracle; no slope is fitted."""
    laws = problem(1, size, seed)
    base, toward = (GaussianMixture(law.weights, law.means, law.covariances) for law in (laws.base, laws.toward))
    latents = TOP * np.array([[place], [place + 0.4]])
    exact, oracle = ExactLaw(base), QuantileOracle(base, toward)
    result = sample_sensitivity(
        engine_measure(base).score,
        torch.from_numpy(latents),
        Toward(engine_measure(toward)),
        GRID,
        anchor=exact,
        solver="dopri5",
        products="double-vjp",
    )
    changed = np.asarray(oracle.sample(latents, eta, TOP, BOTTOM))
    start = np.asarray(oracle.sample(latents, 0.0, TOP, BOTTOM))
    bends = [_bend(base, toward, latents, mass) for mass in np.linspace(0.0, eta, 5)]
    remainder = np.abs(changed - start - eta * result.sensitivity.numpy())
    # x″ is sampled at five masses, hence the tenth on top; 1e-5 is the solver's own error in δ.
    assert np.all(
        remainder <= 0.55 * eta**2 * np.max(bends, axis=0) + 1e-5 * eta * (1 + np.abs(result.sensitivity.numpy()))
    )


def _bend(base, toward, latents, mass):
    """|d²x/dη²| at a mass m: that of the law ρ_m at zero, for ρ_{m+t} = ρ_m + t/(1−m) (ν − ρ_m)."""
    here = AdditivePerturbation(base, toward).at(mass) if mass else base
    second = QuantileOracle(here, toward).sensitivity(latents, TOP, BOTTOM, order=2)[1]
    return np.abs(np.asarray(second)) / (1 - mass) ** 2


@settings(max_examples=3)
@given(seed=st.integers(0, 10**6), dimension=st.sampled_from([2, 4]))
def test_in_more_dimensions_the_median_error_falls_with_the_mass(seed, dimension):
    """Assert that the median of |(x_η − x_0)/η − δ|/|δ| falls by 10 (within a half) as η goes from 1e-3 to 1e-4."""
    laws = problem(dimension, 3, seed)
    base, toward = (GaussianMixture(law.weights, law.means, law.covariances) for law in (laws.base, laws.toward))
    rng = np.random.default_rng(seed)
    latents = np.asarray(base.sample(9, seed)) + TOP * rng.standard_normal((9, dimension))
    exact, truth = ExactLaw(base), AdditivePerturbation(base, toward)
    result = sample_sensitivity(
        engine_measure(base).score,
        torch.from_numpy(latents),
        Toward(engine_measure(toward)),
        Grid(TOP, BOTTOM, 24, spacing="log"),
        anchor=exact,
        solver="dopri5",
        products="double-vjp",
    )
    start = np.asarray(truth.sample(latents, 0.0, TOP, BOTTOM))
    errors = []
    for eta in (1e-3, 1e-4):
        slope = (np.asarray(truth.sample(latents, eta, TOP, BOTTOM)) - start) / eta
        gap = np.linalg.norm(slope - result.sensitivity.numpy(), axis=1)
        errors.append(np.median(gap / np.linalg.norm(result.sensitivity.numpy(), axis=1)))
    assert 5.0 < errors[0] / errors[1] < 15.0
