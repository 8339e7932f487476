"""Influences of points: the transposed sampler against the forward one, every solver, streamed, several functionals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case
from support.strategies import image_law
from torch import nn

from sensitivity import (
    Grid,
    Mixture,
    Outcome,
    PerBranch,
    Points,
    Toward,
    as_score,
    guided,
    influence,
    sample_sensitivity,
)
from sensitivity.jacobians.kept import Graph, Graphs
from sensitivity.readings import adjoint, influences
from sensitivity.readings.streaming import Recorded

GRID = Grid(SIGMA_MAX, SIGMA_MIN, 6)
SOLVERS = ["euler", "heun", "rk4", "dopri5", "exponential", "2m", "sde"]


def _curved(x):
    return x.flatten(1).square().sum(1) + x.flatten(1)[:, 0]


def _wavy(x):
    return torch.sin(x.flatten(1)).sum(1)


def _points(problem, count=7, block=3):
    data = torch.from_numpy(np.asarray(problem.base.sample(count, 3)))
    return Points(data, bandwidth=0.3, block=block)


def _forward(score, latents, functions, points, **options):
    """∇φ·δ_i for every functional and point, (F, batch, N), by N forward tangents."""
    changes = [Toward(Points(row[None], bandwidth=points.bandwidth)) for row in points.data]
    result = sample_sensitivity(score, latents, changes, **options)
    x = result.samples.detach().requires_grad_()
    gradients = [torch.autograd.grad(function(x).sum(), x)[0] for function in functions]
    pairs = [[(g * d).flatten(1).sum(1) for d in result.sensitivity] for g in gradients]
    return torch.stack([torch.stack(row, 1) for row in pairs]), result


@pytest.mark.parametrize("denoise", [False, True], ids=["plain", "denoised"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_adjoint_is_the_transpose_of_the_forward_sampler(solver, denoise):
    """Assert the inner-product identity to 1e-12 for each point, functional and solver, with random probes."""
    problem = case("d3_k4_s0", samples=3)
    points = _points(problem)
    options = {
        "grid": GRID,
        "anchor": problem.exact,
        "solver": solver,
        "denoise": denoise,
        "trace": "hutchinson",
        "probes": 2,
        "seed": 6,
    }
    wanted, forward = _forward(problem.score, problem.latents, [_curved, _wavy], points, **options)
    result = influence(problem.score, problem.latents, [_curved, _wavy], points, **options)
    scale = wanted.abs().amax(-1, keepdim=True)
    assert float(((result.values - wanted) / scale).abs().max()) < 1e-12
    assert_close(result.samples, forward.samples, rtol=1e-13, atol=1e-13)
    assert_close(result.functional, torch.stack([_curved(result.samples), _wavy(result.samples)]))
    assert bool(torch.isnan(result.relative_error).all() if solver == "sde" else (result.relative_error > 0).all())


def test_the_stated_share_bounds_what_errors_of_log_densities_do(monkeypatch):
    """Assert that log densities off by their stated errors, of any sign, move the values by no more than that share."""
    problem = case("d3_k4_s0", samples=3)
    options = {"grid": GRID, "anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 6}
    given = (problem.score, problem.latents, [_curved, _wavy], _points(problem))
    value, right = influence(*given, **options), Recorded.of.__func__
    generator = torch.Generator().manual_seed(0)
    for signs in (None, torch.ones, torch.zeros):

        def of(cls, *rest, signs=signs):
            whole = right(cls, *rest)
            drawn = torch.rand(whole.errors.shape, generator=generator) < 0.5
            sign = drawn.double() if signs is None else signs(whole.errors.shape, dtype=torch.float64)
            return replace(whole, logs=whole.logs + (2 * sign - 1) * whole.errors)

        monkeypatch.setattr(Recorded, "of", classmethod(of))
        moved = influence(*given, **options).values - value.values
        share = (moved.norm(dim=-1) / value.values.norm(dim=-1)).amax(0)
        assert bool((share <= value.relative_error * (1 + 1e-9)).all())
    assert bool((share > 0.05 * value.relative_error).any())  # every log density too low: all terms grow


@pytest.mark.parametrize("d", [784, 3072])
def test_influences_in_image_size_state_an_error_that_is_theirs(d):
    """Assert, against the closed form of a Gaussian's flow, stated errors of hundredths; e^10 before at d = 3072."""
    law = image_law(d, 1, 10, 0.1, 0.5, 7)
    rng, (top, bottom) = np.random.default_rng(3), (20.0, 0.05)
    mean, variance = law.means[0], law.variances[0]
    points = mean + np.sqrt(variance) * rng.standard_normal((20, d))
    latents = mean + np.sqrt(variance + top**2) * rng.standard_normal((2, d))
    direction = rng.standard_normal(d) / np.sqrt(d)
    base = Mixture(*(torch.from_numpy(part) for part in law), covariance_type="diagonal")
    along = torch.from_numpy(direction)
    result = influence(
        base.score, torch.from_numpy(latents), lambda x: x @ along, torch.from_numpy(points), Grid(top, bottom, 20),
        anchor=base, trace="hutchinson", probes=2, seed=0,
    )  # fmt: skip
    # δ = ∫ σ Φ ṡ dσ, with the flow x and its derivative Φ in the start in closed form.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    half = np.log(top / bottom) / 2
    truth = np.zeros((2, 20))
    for u, weight in zip(half * nodes + np.log(top * bottom) / 2, half * weights, strict=True):
        v, here = np.exp(2 * u), variance + np.exp(2 * u)
        x = mean + (latents - mean) * np.sqrt(here / (variance + top**2))
        gap = points - x[:, None]
        log_ratio = (
            -0.5 * (gap**2 / v + np.log(v)).sum(2) + 0.5 * ((x - mean) ** 2 / here + np.log(here)).sum(1)[:, None]
        )
        slope = gap / v + ((x - mean) / here)[:, None]
        truth += v * weight * np.exp(log_ratio) * (slope @ (direction * np.sqrt((variance + bottom**2) / here)))
    error = np.linalg.norm(result.values.numpy() - truth, axis=1) / np.linalg.norm(truth, axis=1)
    stated = result.relative_error.numpy()
    assert np.all(error <= 3 * stated)
    assert np.all(stated < 0.1)
    if d == 3072:
        assert bool((result.grid_error > 5).all())  # of log p at the path's end
        assert "of their length" in result.outcome.sentence


def test_a_transpose_that_forgets_the_node_before_is_seen(monkeypatch):
    """Plant: no cotangent goes on to the step before; assert that the two-step method's identity fails."""
    right = adjoint.retreat
    monkeypatch.setattr(adjoint, "retreat", lambda *given: (right(*given)[0], None))
    with pytest.raises(AssertionError):
        test_the_adjoint_is_the_transpose_of_the_forward_sampler("2m", False)


class _Network(nn.Module):
    """A denoiser with normalisation and attention, random weights."""

    def __init__(self, channels=4):
        super().__init__()
        self.enter = nn.Conv1d(1, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.attend = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.leave = nn.Conv1d(channels, 1, 3, padding=1)

    def forward(self, x, sigma):
        scaled = x / (1 + sigma[:, None, None] ** 2).sqrt()
        hidden = torch.tanh(self.norm(self.enter(scaled))) + sigma[:, None, None].log()
        tokens = hidden.transpose(1, 2).contiguous()
        attended = self.attend(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2)
        return scaled + self.leave(hidden + attended)


def test_the_identity_holds_for_a_network_with_attention_and_group_norm():
    """Assert 1e-12 for a neural score whose products need cures."""
    torch.manual_seed(0)
    score = as_score(_Network().double().eval(), "denoiser")
    latents = SIGMA_MAX * torch.randn(2, 1, 6, dtype=torch.float64)
    points = Points(torch.randn(5, 1, 6, dtype=torch.float64), bandwidth=0.5, block=2)

    class Anchor:
        def log_density(self, x, sigma):
            return -0.5 * x.flatten(1).square().sum(1) / (1 + sigma**2)

    options = {"grid": Grid(SIGMA_MAX, 0.5, 4), "anchor": Anchor(), "trace": "hutchinson", "probes": 1, "seed": 0}
    wanted, _ = _forward(score, latents, [_curved], points, **options)
    result = influence(score, latents, _curved, points, **options)
    assert float(((result.values - wanted[0]) / wanted[0].abs().amax(-1, keepdim=True)).abs().max()) < 1e-12


def test_blocks_and_chunks_change_nothing():
    """Assert independence of how points and latents are cut."""
    problem = case("d2_k3_s0")
    options = {"grid": GRID, "anchor": problem.exact, "trace": "hutchinson", "probes": 2, "seed": 2}
    whole = influence(problem.score, problem.latents, _curved, _points(problem, block=100), **options)
    for block, chunk in ((1, None), (2, 2), (100, 1)):
        cut = influence(
            problem.score, problem.latents, _curved, _points(problem, block=block), chunk_size=chunk, **options
        )
        assert_close(cut.values, whole.values, rtol=1e-10, atol=1e-12)


def test_many_stage_rows_are_summed_like_few(monkeypatch):
    """Assert that the number of stage rows handled at once changes nothing."""
    problem = case("d2_k3_s0", samples=2)
    options = {"grid": GRID, "anchor": problem.exact}
    whole = influence(problem.score, problem.latents, [_curved, _wavy], _points(problem), **options)
    monkeypatch.setattr("sensitivity.readings.point_kernels.ROWS", 5)
    cut = influence(problem.score, problem.latents, [_curved, _wavy], _points(problem), **options)
    assert_close(cut.values, whole.values, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_the_largest_influences_come_without_the_full_matrix(k):
    """Assert that top_k is the sorted head of the full result."""
    problem = case("d2_k3_s0", samples=3)
    options = {"grid": GRID, "anchor": problem.exact}
    points = _points(problem, count=11, block=4)
    whole = influence(problem.score, problem.latents, [_curved, _wavy], points, **options)
    head = influence(problem.score, problem.latents, [_curved, _wavy], points, top_k=k, **options)
    order = whole.values.abs().argsort(-1, descending=True)[..., :k]
    assert torch.equal(head.indices, order)
    assert_close(head.values, whole.values.gather(-1, order), rtol=1e-12)


def test_a_pooled_functional_is_split_over_its_samples():
    """Assert that the parts through each sample sum to the derivative of the pooled number, chunks or not."""
    problem = case("d2_k3_s0", samples=4)
    points, options = _points(problem), {"grid": GRID, "anchor": problem.exact}

    def spread(x):
        return x.var(0).sum()

    changes = [Toward(Points(row[None], bandwidth=points.bandwidth)) for row in points.data]
    forward = sample_sensitivity(problem.score, problem.latents, changes, **options)
    slopes = torch.stack([torch.func.jvp(spread, (forward.samples,), (tangent,))[1] for tangent in forward.sensitivity])
    for chunk in (None, 3):
        result = influence(problem.score, problem.latents, spread, points, chunk_size=chunk, **options)
        assert_close(result.values.sum(0), slopes, rtol=1e-11, atol=1e-12)


def test_rates_scale_points():
    """Assert that a point that moves no mass has no influence and one at double speed has twice as much."""
    problem = case("d2_k3_s0", samples=2)
    points, options = _points(problem, count=3), {"grid": GRID, "anchor": problem.exact}
    plain = influence(problem.score, problem.latents, _curved, points, **options)
    rates = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    rated = influence(problem.score, problem.latents, _curved, points, rates=rates, **options)
    assert_close(rated.values, plain.values * rates)


def test_a_stopped_sample_takes_its_influence_from_the_steps_it_took():
    """Assert that forward and adjoint agree for a sample whose score fails midway, and that others are untouched."""
    problem = case("d2_k3_s0", samples=3)

    def broken(x, sigma):
        wide = problem.score(x, sigma)
        return torch.where(x[:, :1] > 0, float("nan"), wide) if sigma < 3.0 else wide  # only sample 1 comes there

    points, options = _points(problem), {"grid": GRID, "anchor": problem.exact}
    wanted, _ = _forward(broken, problem.latents, [_curved], points, **options)
    result = influence(broken, problem.latents, _curved, points, **options)
    assert result.outcome[1] is Outcome.NONFINITE_SCORE
    assert_close(result.values, wanted[0], rtol=1e-10, atol=1e-12)


def test_plain_tensors_are_points():
    """Assert that a tensor of points is taken as Points without bandwidth."""
    problem = case("d2_k3_s0", samples=2)
    options = {"grid": GRID, "anchor": problem.exact}
    data = _points(problem).data
    named = influence(problem.score, problem.latents, _curved, Points(data), **options)
    bare = influence(problem.score, problem.latents, _curved, data, **options)
    assert_close(bare.values, named.values)


def test_bad_functionals_and_rates_are_refused():
    """Assert that each error says what to give instead."""
    problem = case("d2_k3_s0", samples=2)
    points, options = _points(problem), {"grid": GRID, "anchor": problem.exact}
    bad = [
        (lambda x: x, {}, ValueError, r"functional 0 returns \(2, 2\)"),
        (lambda x: 1.0, {}, ValueError, "functional 0 returns float"),
        (lambda x: x.detach().sum(1), {}, ValueError, "functional 0 does not depend on the samples"),
        (_curved, {"rates": torch.ones(3)}, ValueError, r"rates has shape \(3,\)"),
        (_curved, {"anchor": None}, ValueError, "anchor=None"),
        (_curved, {"top_k": 0}, ValueError, "top_k=0"),
        (_curved, {"products": "finite"}, ValueError, "products='finite' are differences"),
    ]
    for function, extra, kind, words in bad:
        with pytest.raises(kind, match=words):
            influence(problem.score, problem.latents, function, points, **{**options, **extra})


def _with_limit(monkeypatch, limit):
    """Influences on a network whose graphs are kept up to a limit, and what was kept."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3)).double().requires_grad_(False)
    kept = Graphs(limit=limit)
    monkeypatch.setattr(influences, "Graphs", lambda: kept)
    problem = case("d3_k4_s0", samples=3)
    score = as_score(lambda x, sigma: network(x / (1 + sigma[:, None])), "denoiser")
    options = {"anchor": problem.exact, "trace": "hutchinson", "probes": 1, "seed": 0}
    return influence(score, problem.latents, _curved, _points(problem), GRID, **options), kept


def test_kept_graphs_change_no_bit_and_save_evaluations(monkeypatch):
    """Assert equal values with all graphs, some and none, and one evaluation less for each graph that is kept."""
    stages, node = 2 * GRID.steps, 1
    none, _ = _with_limit(monkeypatch, 0)
    every, kept = _with_limit(monkeypatch, 1 << 28)
    some, _ = _with_limit(monkeypatch, int(5.5 * kept.size * 3))
    assert torch.equal(none.values, every.values)
    assert torch.equal(none.values, some.values)
    assert none.cost.evaluations == 2 * stages + node
    assert every.cost.evaluations == stages + node
    assert some.cost.evaluations == 2 * stages + node - 5
    assert kept.used == pytest.approx(stages * kept.size * 3)


def test_a_graph_counts_each_intermediate_result_once():
    """Assert the bytes of the exponential, which two operations keep, and not those of a parameter."""
    weight = nn.Parameter(torch.ones(6, 6, dtype=torch.float64))
    x = torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
    value = x.exp().sin()
    assert Graph(None, x, value).size == 2 * 6 * 8
    assert Graph(None, x, value @ weight).size == 2 * 2 * 6 * 8  # the product keeps its first factor for the parameter


def test_branches_that_share_a_score_are_evaluated_again(monkeypatch):
    """Assert that a graph is used only where it is known whose it is: the pull through one twice would be an error."""
    problem = case("d3_k4_s0", samples=2)
    score = problem.score
    both = PerBranch(problem.exact, problem.exact)
    result = influence(
        guided(score, score, 2.0), problem.latents, _curved, _points(problem), GRID, anchor=both,
        rates=PerBranch(None, torch.ones(7, dtype=torch.float64)), trace="exact",
    )  # fmt: skip
    assert bool(torch.isfinite(result.values).all())
    assert result.cost.evaluations == 2 * (2 * 2 * GRID.steps + 1)
