"""Forward sensitivities of samples against exact truths, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case, check_line

from sensitivity import Grid, Outcome, PerBranch, Points, Toward, sample_sensitivity
from sensitivity.measures.measure import Ratio
from studies.bridge import engine_measure

GRID = Grid(SIGMA_MAX, SIGMA_MIN, 8)


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"trace": "hutchinson", "probes": 2, "seed": 0}, marks=pytest.mark.slow)],
    ids=["exact", "probes"],
)
def test_one_dimension_equals_the_quantile_oracle(options):
    """Assert 1e-6 agreement with the solver-free truth; in one dimension probes by signs are exact too."""
    check_line(**options)


def test_three_dimensions_equal_the_flow_oracle():
    """Assert that samples, sensitivities, log density and log ratio agree with the high-precision flow."""
    problem = case("d3_k4_s0")
    samples, slope = problem.truth.sample_sensitivity(problem.latents.numpy(), SIGMA_MAX, SIGMA_MIN)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 160, spacing="log")
    result = sample_sensitivity(
        problem.score, problem.latents, problem.change, grid, anchor=problem.exact, solver="dopri5"
    )
    assert_close(result.samples, samples, rtol=0, atol=1e-6)
    assert_close(result.sensitivity, slope, rtol=1e-6, atol=1e-6)
    logs = np.asarray(problem.base.noised(SIGMA_MIN).log_density(samples))
    assert_close(result.log_density, logs, rtol=0, atol=1e-5)
    assert_close(result.log_ratio, np.asarray(problem.truth.log_ratio(samples, SIGMA_MIN)), rtol=0, atol=1e-4)
    assert_close(result.log_density_error, np.zeros(5))
    assert result.outcome.sentence == "5 of 5 samples finished."


def _run(problem, change=None, **options):
    given = {"grid": GRID, "anchor": problem.exact, **options}
    return sample_sensitivity(
        given.pop("score", problem.score), given.pop("latents", problem.latents), change or problem.change, **given
    )


@pytest.mark.parametrize("trace", ["exact", "hutchinson", "hutch++"])
def test_several_perturbations_give_what_each_gives_alone(trace):
    """Assert that directions share network calls and probes but not results."""
    problem = case("d3_k4_s0")
    changes = [problem.change, Toward(Points(problem.latents / SIGMA_MAX, bandwidth=0.5)), -2.0 * problem.change]
    options = {"trace": trace, "seed": 1, "probes": 3}
    together = _run(problem, changes, **options)
    for k, change in enumerate(changes):
        alone = _run(problem, change, **options)
        assert_close(together.sensitivity[k], alone.sensitivity, rtol=1e-11, atol=1e-13)
        assert_close(together.log_ratio[k], alone.log_ratio, rtol=1e-11)
    assert_close(together.sensitivity[2], -2 * together.sensitivity[0], rtol=1e-11, atol=1e-13)


def test_points_sum_to_their_measure():
    """Assert that the sensitivity toward weighted points is the weighted mean of the single ones."""
    problem = case("d2_k3_s0")
    data = torch.from_numpy(np.asarray(problem.base.sample(4, 5)))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    whole = _run(problem, Toward(Points(data, weights, bandwidth=0.3)))
    parts = _run(problem, [Toward(Points(row[None], bandwidth=0.3)) for row in data])
    assert_close(whole.sensitivity, torch.einsum("k,kbd->bd", weights, parts.sensitivity), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("options", [{"standard_error": True}, {"order": 2}, {"solver": "sde"}, {"denoise": True}])
def test_results_do_not_depend_on_chunks(options):
    """Assert that chunks of 2 and 5 latents give the same numbers with random probes."""
    problem = case("d3_k4_s0")
    shared = {"trace": "hutchinson", "probes": 3, "seed": 4, **options}
    whole, cut = _run(problem, **shared), _run(problem, chunk_size=2, **shared)
    for name in ("samples", "sensitivity", "log_ratio", "log_density", "standard_error", "bias", "curvature"):
        if getattr(whole, name) is not None:
            assert_close(getattr(cut, name), getattr(whole, name), rtol=1e-11, atol=1e-12)
    assert torch.equal(cut.outcome.codes, whole.outcome.codes)


def test_a_generator_and_a_seed_fix_the_probes():
    """Assert that equal seeds repeat a run and unequal ones do not."""
    problem = case("d3_k4_s0", samples=2)
    options = {"trace": "hutchinson", "probes": 1}
    first, again, other = (_run(problem, seed=s, **options).sensitivity for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    drawn = [_run(problem, generator=torch.Generator().manual_seed(7), **options).sensitivity for _ in range(2)]
    assert torch.equal(*drawn)


def test_states_of_any_shape_give_the_flat_answer():
    """Assert that (batch, 2, 5) states give the reshaped result of (batch, 10) ones."""
    problem = case("d10_k3_s0", samples=2)
    flat = _run(problem, grid=Grid(SIGMA_MAX, SIGMA_MIN, 3))

    def score(x, sigma):
        return problem.score(x.flatten(1), sigma).reshape(x.shape)

    class Shaped:
        def log_density(self, x, sigma):
            return problem.exact.log_density(x.flatten(1), sigma)

    points = Points(problem.latents[:, :10].reshape(-1, 2, 5) / SIGMA_MAX, bandwidth=1.0)
    flat_points = Points(problem.latents / SIGMA_MAX, bandwidth=1.0)
    shaped = _run(
        problem,
        Toward(points),
        score=score,
        latents=problem.latents.reshape(-1, 2, 5),
        anchor=Shaped(),
        grid=Grid(SIGMA_MAX, SIGMA_MIN, 3),
    )
    flat = _run(problem, Toward(flat_points), grid=Grid(SIGMA_MAX, SIGMA_MIN, 3))
    assert_close(shaped.sensitivity.flatten(1), flat.sensitivity, rtol=1e-11, atol=1e-13)


def test_single_precision_agrees_to_single_precision():
    """Assert that dtype follows the latents and the numbers those of float64."""
    problem = case("d2_k3_s0")
    wide = _run(problem)
    measure = engine_measure(problem.toward, dtype=torch.float32)
    narrow = _run(problem, Toward(measure), score=problem.exact.score, latents=problem.latents.float())
    assert narrow.sensitivity.dtype == torch.float32
    assert_close(narrow.sensitivity.double(), wide.sensitivity, rtol=2e-3, atol=2e-4)


def test_the_jackknife_error_is_the_spread_over_seeds():
    """Assert that the mean reported variance is within 30 % of the variance over 300 independent runs of one latent."""
    problem = case("d3_k4_s0", samples=1)
    latents = problem.latents.expand(300, -1).contiguous()
    options = {"trace": "hutchinson", "probes": 16, "seed": 3, "standard_error": True}
    runs = _run(problem, latents=latents, grid=Grid(SIGMA_MAX, SIGMA_MIN, 16), **options)
    told, seen = runs.standard_error.square().mean(), runs.sensitivity.var(0).mean()
    assert 0.7 < float(told / seen) < 1.3
    told, seen = runs.log_density_error.square().mean(), runs.log_density.var()
    assert 0.7 < float(told / seen) < 1.3


def test_the_reported_bias_is_that_of_the_exponential_of_noise():
    """Assert that mean estimate minus exact-trace value is the mean reported bias within four standard errors."""
    problem = case("d3_k4_s0", samples=1)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 16)
    exact = _run(problem, grid=grid).sensitivity
    options = {"trace": "hutchinson", "probes": 6, "seed": 3, "standard_error": True}
    runs = _run(problem, latents=problem.latents.expand(600, -1).contiguous(), grid=grid, **options)
    bias = runs.sensitivity.mean(0) - exact[0]
    error = (runs.sensitivity - runs.bias).std(0) / math.sqrt(600)
    assert bool(((bias - runs.bias.mean(0)).abs() < 4 * error).all())
    assert bool((runs.bias.mean(0).abs() > 0).all())


def test_one_probe_has_no_standard_error():
    """Assert that a single probe says NaN and an exact trace says zero."""
    problem = case("d3_k4_s0", samples=2)
    one = _run(problem, trace="hutchinson", probes=1, seed=0, standard_error=True)
    assert one.standard_error.isnan().all()
    assert one.log_density_error.isnan().all()
    none = _run(problem, standard_error=True)
    assert_close(none.standard_error, torch.zeros_like(none.sensitivity))


def test_a_sample_whose_score_fails_stops_there_and_alone():
    """Assert that the others are untouched, the bad one keeps a finite state, and its outcome says where."""
    problem = case("d2_k3_s0", samples=3)

    def broken(x, sigma):
        wide = problem.score(x, sigma)
        return torch.where(x[:, :1] > 0, float("nan"), wide) if sigma < 3.0 else wide  # only sample 1 comes there

    good, bad = _run(problem), _run(problem, score=broken)
    assert [bad.outcome[i] for i in range(3)] == [Outcome.FINISHED, Outcome.NONFINITE_SCORE, Outcome.FINISHED]
    assert_close(bad.sensitivity[[0, 2]], good.sensitivity[[0, 2]])
    assert bool(bad.samples.isfinite().all() and bad.sensitivity.isfinite().all())
    assert 2.0 < float(bad.outcome.levels[1]) < 6.0
    assert "1: non-finite score" in bad.outcome.sentence


def test_a_coarse_grid_is_said_to_be_coarse():
    """Assert that three Heun steps are marked and 18 are not."""
    problem = case("d2_k3_s0")
    assert "step too coarse" in _run(problem, grid=Grid(SIGMA_MAX, 0.01, 3)).outcome.sentence
    assert bool(_run(problem, grid=Grid(SIGMA_MAX, 0.01, 18)).outcome.finished.all())


def test_a_noisy_log_density_is_said_to_be_noisy():
    """Assert that a standard error above one nat marks the sample and lets it finish its path."""
    problem = case("d10_k3_s0", samples=4)
    result = _run(problem, trace="hutchinson-gaussian", probes=2, seed=0)
    assert "log-ratio error too large" in result.outcome.sentence
    assert bool(result.samples.isfinite().all())


class _Known(Ratio):
    """The exact ratio of the problem's laws, as a classifier would give it."""

    def __init__(self, problem):
        self.problem = problem

    def log_density_and_score(self, x, sigma):
        measure, base = self.problem.measure, self.problem.exact
        value = measure.log_density(x, sigma) - base.log_density(x, sigma)
        return value, measure.score(x, sigma) - base.score(x, sigma)

    def log_density(self, x, sigma):
        return self.log_density_and_score(x, sigma)[0]

    def score_product(self, x, sigma, tangent):
        return torch.func.jvp(lambda y: self.log_density_and_score(y, sigma)[1], (x,), (tangent,))[1]


def test_a_ratio_needs_no_density():
    """Assert that a perturbation known by its ratio runs without an anchor and gives the same sensitivity."""
    problem = case("d2_k3_s0", samples=2)
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 16)
    free = sample_sensitivity(problem.score, problem.latents, Toward(_Known(problem)), grid, solver="rk4", order=2)
    assert free.log_density is None
    carried = _run(problem, grid=grid, solver="rk4", order=2)
    assert_close(free.sensitivity, carried.sensitivity, rtol=1e-2, atol=1e-3)
    assert_close(free.curvature, carried.curvature, rtol=2e-2, atol=1e-2)


def test_gradients_reach_the_network_only_when_asked():
    """Assert that differentiable=True gives the derivative in a parameter, and the default none."""
    problem = case("d2_k3_s0", samples=2)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    total = {}
    for wanted in (False, True):
        result = _run(
            problem,
            score=lambda x, sigma: scale * problem.score(x, sigma),
            differentiable=wanted,
            grid=Grid(SIGMA_MAX, SIGMA_MIN, 4),
        )
        total[wanted] = result.sensitivity.sum()
    assert not total[False].requires_grad
    slope = torch.autograd.grad(total[True], scale)[0]
    values = []
    for shift in (1e-5, -1e-5):
        curved = _run(
            problem,
            score=lambda x, sigma, c=1 + shift: c * problem.score(x, sigma),
            grid=Grid(SIGMA_MAX, SIGMA_MIN, 4),
        )
        values.append(float(curved.sensitivity.sum()))
    assert_close(slope, (values[0] - values[1]) / 2e-5, rtol=1e-6)


def test_the_cost_counts_evaluations_and_products():
    """Assert 2·8 stages and the last node, a tangent each, three directions at 9 nodes and 2 first inner stages."""
    cost = _run(case("d3_k4_s0", samples=2)).cost
    assert (cost.evaluations, cost.products, cost.sources) == (17, 50, 17)


def test_bad_arguments_are_refused_with_the_remedy():
    """Assert that each error quotes its argument."""
    problem = case("d2_k3_s0", samples=2)
    bad = [
        ({"anchor": None}, ValueError, "anchor=None has no log_density"),
        ({"grid": 7}, TypeError, "grid is a int"),
        ({"latents": problem.latents[0]}, ValueError, "latents has shape"),
        ({"latents": problem.latents * float("nan")}, ValueError, "latents"),
        ({"latents": [[1.0, 2.0]]}, TypeError, "latents is a list"),
        ({"solver": "leapfrog"}, ValueError, "solver='leapfrog' is unknown"),
        ({"solver": 3}, TypeError, "solver is a int"),
        ({"trace": "magic"}, ValueError, "trace='magic' is unknown"),
        ({"order": 3}, ValueError, "order=3"),
        ({"order": 2, "standard_error": True}, ValueError, "standard_error is known for order=1 only"),
        ({"order": 2, "trace": "hutch++", "seed": 0}, ValueError, r"hutch\+\+"),
        ({"chunk_size": 0}, ValueError, "chunk_size=0"),
        ({"score": 3.0}, TypeError, "score is a float"),
        ({"change": problem.measure}, TypeError, "perturbation is a Mixture"),
        ({"change": None}, TypeError, "perturbation is a NoneType"),
        ({"change": []}, TypeError, "perturbation is a list"),
        ({"change": [1.0]}, TypeError, "perturbation holds a float"),
        ({"change": PerBranch(problem.change, problem.change)}, TypeError, "PerBranch needs a guided score"),
        ({"generator": torch.Generator(), "seed": 1, "trace": "hutchinson"}, ValueError, "generator and seed"),
    ]
    for options, kind, words in bad:
        options = dict(options)
        with pytest.raises(kind, match=words):
            _run_raw(problem, **options)


def _run_raw(problem, **options):
    given = {"grid": GRID, "anchor": problem.exact, **options}
    return sample_sensitivity(
        given.pop("score", problem.score),
        given.pop("latents", problem.latents),
        given.pop("change", problem.change),
        **given,
    )


@pytest.mark.parametrize("options", [{}, {"trace": "hutchinson", "probes": 3, "seed": 2, "standard_error": True}])
def test_a_trajectory_keeps_every_level(options):
    """Assert that it starts at the latents with no sensitivity, ends at the result, and is exact on the way."""
    problem = case("d2_k3_s0")
    changes = [problem.change, 2.0 * problem.change]
    whole = _run(problem, changes, trajectory=True, **options)
    path = whole.trajectory
    assert torch.equal(path.levels, GRID.levels)
    assert torch.equal(path.states[0], problem.latents)
    assert not bool(path.sensitivity[0].any())
    assert torch.equal(path.states[-1], whole.samples)
    assert torch.equal(path.sensitivity[-1], whole.sensitivity)
    assert_close(path.log_density[0], problem.exact.log_density(problem.latents, SIGMA_MAX))
    assert_close(path.log_density[-1], whole.log_density)
    assert_close(path.log_density_error[-1], whole.log_density_error)
    ratio = problem.measure.log_density(path.states[3], float(path.levels[3])) - path.log_density[3]
    assert_close(path.log_ratio[3, 0], ratio)
    cut = _run(problem, changes, trajectory=True, chunk_size=2, **options).trajectory
    alone = _run(problem, trajectory=True, **options).trajectory
    for name in ("states", "sensitivity", "log_ratio", "log_density", "log_density_error"):
        assert_close(getattr(cut, name), getattr(path, name), rtol=1e-11, atol=1e-12)
    assert_close(alone.sensitivity, path.sensitivity[:, 0], rtol=1e-11, atol=1e-12)
    assert alone.log_ratio.shape == (9, 5)
    assert _run(problem).trajectory is None


def test_approximate_products_state_their_error():
    """Assert that differences report an error near the one they make, and exact products none."""
    problem = case("d2_k3_s0", samples=3)
    exact = _run(problem)
    assert exact.product_error == 0.0
    for name in ("finite", "one-sided"):
        rough = _run(problem, products=name)
        made = float((rough.sensitivity - exact.sensitivity).norm() / exact.sensitivity.norm())
        assert 0 < rough.product_error < 1e-4
        assert made < 1e3 * rough.product_error
