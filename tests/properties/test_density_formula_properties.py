"""Properties of the study's own estimators and identities over generated laws."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import Parameters, mixtures

from oracles import GaussianMixture
from studies.density_formula import evidence
from studies.density_formula.estimators import estimate
from studies.density_formula.learned import score_error
from studies.density_formula.problems import exact_setup, noisy_states, truth

SEEDS = st.integers(0, 2**31)


@given(law=mixtures((2, 3, 5), kinds=("full", "diagonal")), seed=SEEDS)
@settings(max_examples=8)
def test_forward_paths_bound_the_density_from_below(law: Parameters, seed: int) -> None:
    """Assert that Itô's sum along forward-noised paths lies below log p in the mean, up to its own noise."""
    exact = GaussianMixture(*law)
    x = noisy_states(exact, 24, seed)
    result = estimate("ito", exact_setup(exact), x, 256, seed)
    assert result is not None
    gap = (truth(exact, x) - result.value).numpy()
    assert gap.mean() > -4 * gap.std() / np.sqrt(len(gap)) - 1e-6


@given(law=mixtures((1, 2, 3), kinds=("full",)), seed=SEEDS)
@settings(max_examples=8)
def test_a_right_score_has_no_excess(law: Parameters, seed: int) -> None:
    """Assert that the integrated error of a law's own score vanishes, and that of a shifted one does not."""
    exact = GaussianMixture(*law)
    setup = exact_setup(exact)
    assert float(score_error(setup.score, exact, 32, seed).max()) < 1e-12
    shifted = lambda y, s: setup.score(y + 0.3, s)  # noqa: E731 — one shift, named where it is used
    assert float(score_error(shifted, exact, 32, seed).mean()) > 1e-6


@given(m=st.floats(-1, 1), spread=st.floats(-1, 0.3))
@settings(max_examples=10)
def test_the_evidence_bound_never_exceeds_the_likelihood(m: float, spread: float) -> None:
    """Assert it on average over ρ, for any member of the family."""
    theta = torch.tensor([m, spread], dtype=torch.float64)
    x, mass = evidence.data_nodes()
    exact = (mass * evidence.log_density(theta, x, torch.tensor(0.05).double())).sum()
    assert float(exact - (mass * evidence.bound(theta, x, 64)).sum()) > 0
