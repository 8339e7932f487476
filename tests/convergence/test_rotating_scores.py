"""Log densities of a score that is no gradient, as a trained network's is: at the order of the solver, and said so.

s = ∇log p_σ + κ A x/(v + σ²) with A antisymmetric and p_σ = N(0, (v + σ²)I): div A x = 0 and the rotation keeps p_σ, so
that the flow of s transports the same Gaussians and log p at any computed end state is known. What the rule along the
nodes takes from ∫ s·dx off the flow is then off by ∫ (∇log p − s)·dx.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensitivity import GaussianAnchor, Grid, PerBranch, as_score, guided, log_density, sample
from studies.data import load
from studies.networks import Architecture
from studies.training import Objective, Recipe, train_many

D, V = 16, 0.25
LAW = GaussianAnchor(torch.zeros(D, dtype=torch.float64), V)
TURN = torch.kron(torch.eye(D // 2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).double()
LATENTS = 20 * torch.randn(4, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _errors(share: float, solver: str, steps: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Largest true and stated errors of log p in nats, a step count each."""
    found = []
    for count in steps:
        options = {"anchor": LAW, "log_density": True, "trace": "exact", "solver": solver}
        grid = Grid(20.0, 0.05, count)
        run = sample(
            lambda x, sigma: LAW.score(x, sigma) + share * x @ TURN.T / (V + sigma**2), LATENTS, grid, **options
        )
        gap = run.log_density - LAW.log_density(run.samples, grid.sigma_min)
        found.append((float(gap.abs().max()), float(run.grid_error.max())))
    true, stated = np.array(found).T
    return true, stated


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("2m", 2), ("heun", 2)])
def test_an_asymmetric_jacobian_costs_the_order_of_the_solver(solver, order):
    """Assert orders 1 and 2 for a tenth of asymmetry and 4 without it, and that the stated errors hold for both."""
    true, stated = _errors(0.1, solver, (40, 80, 160))
    assert np.abs(np.log2(true[:-1] / true[1:]) - order).max() < 0.2
    assert (true <= stated).all()
    right, same = _errors(0.0, solver, (40, 80))
    assert np.log2(right[0] / right[1]) > 3.5
    assert (right <= same).all()
    # For a gradient the work off the flow is no error, and none is stated.
    assert (same < 0.01).all()


def test_a_rule_that_takes_every_score_for_a_gradient_is_caught(monkeypatch):
    """Assert that without the unsure share the truth is far outside the stated error."""
    monkeypatch.setattr("sensitivity.jacobians.trial.off_flow", lambda products, route: 0.0)
    true, stated = _errors(0.1, "euler", (80,))
    assert true > 30 * stated


def test_more_steps_of_heun_leave_a_hundredth_of_a_nat():
    """Assert that a tenth of asymmetry costs Heun less than a seventh of what it costs Euler."""
    euler, heun = (_errors(0.1, solver, (40, 100))[0] for solver in ("euler", "heun"))
    assert (heun < 0.15 * euler).all()
    assert heun[1] < 0.01


# A good perceptron of 57 000 parameters and a bad convolutional network.
RECIPES = {
    "perceptron": Recipe(
        Architecture(width=128, depth=3), Objective(mean=-0.8, spread=1.4), steps=1500, rate=2e-3, halflife=75
    ),
    "U-Net": Recipe(
        Architecture("unet", width=12, depth=2), Objective(mean=-0.8, spread=1.4), steps=300, rate=2e-3, halflife=15
    ),
}


def _trained(kind, only=None):
    """A network on 8×8 digits, or on those of one class, and the digits."""
    digits = load("digits")
    images = digits.images.float() if only is None else digits.images.float()[digits.labels == only]
    images = images.flatten(1) if kind == "perceptron" else images
    weights = torch.full((len(images),), 1 / len(images)).double()
    (made,) = train_many(RECIPES[kind], images, seeds=[0], weights=[weights])
    return as_score(made.network.double().eval(), "denoiser"), GaussianAnchor.from_data(images.double())


def _up(score, anchor, samples, steps):
    """Log densities along a fine flow up from the samples."""
    fine = {"anchor": anchor, "trace": "exact", "grid": Grid(20.0, 0.05, steps), "solver": "rk4"}
    return log_density(score, samples, 0.05, **fine).value


def _unlike(seed):
    """A score of an untrained perceptron of eight inputs, bounded as a denoiser is, and its anchor."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(9, 32), torch.nn.Tanh(), torch.nn.Linear(32, 8)]
    network = torch.nn.Sequential(*layers).double()

    def denoiser(x, sigma):
        level = sigma.log().expand(len(x), 1) if sigma.ndim == 0 else sigma.log()[:, None]
        return 3 * network(torch.cat([x / (0.25 + sigma**2).sqrt().reshape(-1, 1), level], 1)).tanh()

    return as_score(denoiser, "denoiser"), GaussianAnchor(torch.zeros(8, dtype=torch.float64), V)


@pytest.mark.parametrize(("solver", "weight"), [("euler", 1.0), ("heun", 1.5)])
def test_guided_networks_state_what_their_branches_may_be_off_by(solver, weight):
    """Assert that no branch's log density that is finished is off a fine flow of that branch by more than it states."""
    (free, low), (bound, high) = _unlike(0), _unlike(1)
    latents = 20 * torch.randn(6, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    options = {"anchor": PerBranch(low, high), "trace": "exact", "solver": solver}
    run = sample(guided(bound, free, weight), latents, Grid(20.0, 0.05, 60), log_density=True, **options)
    gaps = [
        (own - _up(score, anchor, run.samples, 100)).abs()
        for own, score, anchor in zip(run.log_density, (free, bound), (low, high), strict=True)
    ]
    gap = torch.stack(gaps)
    assert (gap <= 2 * run.grid_error).all()
    # At this weight a branch lies far off the flow of both: nothing that fine steps could mend.
    assert not run.outcome.finished.any()
    assert float(gap.max()) > 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "counts", "fine"), [("perceptron", (20, 40, 80), 120), ("U-Net", (20, 40), 60)])
def test_table_of_a_trained_network(capsys, kind, counts, fine):
    """Print what a network's paths err by against a fine flow up from their own end states, and what they state."""
    score, anchor = _trained(kind)
    shape = (64,) if kind == "perceptron" else (1, 8, 8)
    latents = 20 * torch.randn(6, *shape, generator=torch.Generator().manual_seed(0)).double()
    lines, largest = [], {}
    for solver in ("euler", "2m", "heun"):
        for steps in counts:
            options = {"anchor": anchor, "trace": "exact", "solver": solver}
            run = sample(score, latents, Grid(20.0, 0.05, steps), log_density=True, **options)
            gap = (run.log_density - _up(score, anchor, run.samples, fine)).abs()
            assert (gap <= run.grid_error).all()
            largest[solver, steps] = float(gap.max())
            stated = f"stated {float(run.grid_error.max()):.3f}, {int(run.outcome.finished.sum())} of 6 finished"
            lines.append(f"{kind} {solver:6s} {steps:3d} true {float(gap.max()):.3f} {stated}")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert largest["euler", 20] > 1.5 * largest["heun", 40]
    if kind == "perceptron":
        assert largest["heun", 40] < 0.15
        assert largest["heun", 80] < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.5, 1.5, 2.5])
def test_table_of_guided_networks(capsys, weight):
    """Print it for the two branches of a guided score, and assert that none of their samples is finished."""
    branches = (_trained("perceptron"), _trained("perceptron", only=3))
    (free, low), (bound, high) = branches
    latents = 20 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).double()
    options = {"anchor": PerBranch(low, high), "trace": "exact"}
    run = sample(guided(bound, free, weight), latents, Grid(20.0, 0.05, 40), log_density=True, **options)
    lines = []
    for own, stated, (score, anchor) in zip(run.log_density, run.grid_error, branches, strict=True):
        gap = (own - _up(score, anchor, run.samples, 80)).abs()
        assert (gap <= stated).all()
        lines.append(f"weight {weight} true {float(gap.max()):.1f} stated {float(stated.max()):.1f} nat")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert not run.outcome.finished.any()
