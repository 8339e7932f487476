"""The high-precision flow: its derivatives, its error bars, its controller, and what it refuses."""

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS, problem

from oracles import AdditivePerturbation, GaussianMixture, flow
from oracles._dop853 import solve
from oracles.transport import QuantileOracle


def contamination(name: str) -> AdditivePerturbation:
    p = PROBLEMS[name]
    return AdditivePerturbation(GaussianMixture(*p.base), GaussianMixture(*p.toward))


def latents(n: int, d: int, seed: int = 0) -> np.ndarray:
    return 80.0 * np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("name", ["d1_k3_s0", "d2_k3_s0", "d5_k2_s0"])
def test_variational_equations_are_derivatives_of_the_flow_of_the_mixed_law(name: str) -> None:
    """Assert that δ and ζ at η = 0.2 are the differences of flows of ρ_η, which know nothing of them."""
    p, h = contamination(name), 5e-4
    z = latents(5, p.base.dimension)
    x = {k: flow.sample(p.at(0.2 + k * h), z, 80.0, 0.05, rtol=1e-13) for k in (-2, -1, 0, 1, 2)}
    exact = flow.truth(p, z, 80.0, 0.05, order=2, eta=0.2)
    first = (8 * (x[1] - x[-1]) - x[2] + x[-2]) / (12 * h)
    second = (16 * (x[1] + x[-1]) - x[2] - x[-2] - 30 * x[0]) / (12 * h**2)
    assert_close(exact.samples, x[0], rtol=0, atol=1e-10)
    assert_close(exact.sensitivity, first, rtol=1e-6, atol=1e-8)
    assert_close(exact.second, second, rtol=1e-4, atol=1e-4)
    assert_close(flow.sensitivity(p, z, 80.0, 0.05, order=2, eta=0.2)[1], exact.second, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_error_bars_bound_the_true_error(order: int) -> None:
    """Assert that the bar exceeds the distance to the solver-free quantile oracle at every latent, but not hugely."""
    p, z = contamination("d1_k3_s0"), latents(24, 1)
    reference = flow.truth(p, z, 80.0, 1e-2, order=order, rtol=1e-8)
    oracle = QuantileOracle(p.base, p.toward)
    exact = [oracle.sensitivity(z, 80.0, 1e-2, order=k)[1] for k in range(1, order + 1)]
    values = [reference.sensitivity, reference.second][:order]
    for k, (value, truth) in enumerate(zip(values, exact, strict=True), start=1):
        error = np.abs(value - truth)[:, 0]
        assert np.all(error <= reference.errors[k] + 1e-12)
    assert np.max(reference.errors) < 1e-5
    assert_close(flow.error_bar(p, z, 80.0, 1e-2, order=order, rtol=1e-8), reference.errors, rtol=0)


@pytest.mark.parametrize("name", ["d1_k3_s0", "d2_k3_s0", "d10_k3_s0"])
def test_error_bars_are_below_ten_digits_at_the_default_tolerance(name: str) -> None:
    """Assert that median bars at σ_min = 1e-3 are below 1e-11 for samples and sensitivities."""
    p = contamination(name)
    errors = flow.error_bar(p, latents(16, p.base.dimension), 80.0, 1e-3)
    assert np.median(errors) < 1e-11
    assert np.max(errors) < 1e-8


def test_a_hard_latent_is_as_accurate_in_a_block_as_alone() -> None:
    """Assert that the worst latent keeps its accuracy beside 255 easy ones, which a mean-square norm would not."""
    law = GaussianMixture.isotropic([0.5, 0.5], [[-3.0], [3.0]], 0.02)
    z = np.concatenate([np.full((255, 1), 150.0), [[1e-4]]])
    exact = QuantileOracle(law, law).sample(z, 0.0, 80.0, 0.01)
    error = np.abs(flow.sample(law, z, 80.0, 0.01, rtol=1e-6) - exact)[-1, 0]
    alone = np.abs(flow.sample(law, z[-1:], 80.0, 0.01, rtol=1e-6) - exact[-1:])[0, 0]
    assert error <= 2 * alone + 1e-9


def test_the_worst_block_rules_the_step() -> None:
    """Assert that SciPy still calls the overridden norm: repeating an easy block changes no step."""
    rates = np.array([1.0, 30.0]).reshape(1, 2, 1)

    def steps(copies: int) -> int:
        r = np.concatenate([rates] + [rates[:, :1]] * copies, axis=1)
        return solve(lambda u, y: -r * y, np.ones_like(r), 0.0, 2.0, 1e-9, 1.0)[1]

    assert steps(0) == steps(1000)


def test_going_up_undoes_going_down() -> None:
    """Assert that latents_of inverts sample, and that a trajectory passes through both ends."""
    p = contamination("d2_k3_s0")
    z = latents(5, 2)
    path = flow.trajectory(p.base, z, [80.0, 3.0, 0.1])
    assert_close(path[-1], flow.sample(p.base, z, 80.0, 0.1), rtol=0, atol=1e-10)
    assert_close(path[0], z, rtol=0)
    assert_close(flow.latents_of(p.base, path[-1], 80.0, 0.1), z, rtol=1e-8, atol=1e-6)


def test_order_zero_takes_a_law() -> None:
    """Assert that truth with order 0 gives a law's samples with bars and no derivatives."""
    p = contamination("d2_k3_s0")
    exact = flow.truth(p.base, latents(4, 2), 80.0, 0.1, order=0)
    assert exact.sensitivity is None
    assert exact.errors.shape == (1, 4)
    assert_close(flow.truth(p, latents(4, 2), 80.0, 0.1, order=0).samples, exact.samples, rtol=0)


def test_results_do_not_depend_on_chunks_or_order_beyond_the_tolerance() -> None:
    """Assert that chunk size and permutation of the latents leave samples and sensitivities in place."""
    p, z = contamination("d2_k3_s0"), latents(5, 2)
    x, delta = flow.sensitivity(p, z, 80.0, 0.05)
    for chunk_size in (2, 4):
        y, moved = flow.sensitivity(p, z[::-1], 80.0, 0.05, chunk_size=chunk_size)
        assert_close(y[::-1], x, rtol=0, atol=3e-11)
        assert_close(moved[::-1], delta, rtol=0, atol=3e-10)


def test_units_scale_out() -> None:
    """Assert that x → cx, σ → cσ with scale = c gives c times the samples and sensitivities."""
    p, c = PROBLEMS["d2_k3_s0"], 1e-3
    z = latents(5, 2)

    def scaled(a):
        return GaussianMixture(a.weights, c * a.means, c**2 * a.covariances)

    small = AdditivePerturbation(scaled(p.base), scaled(p.toward))
    x, delta = flow.sensitivity(contamination("d2_k3_s0"), z, 80.0, 0.05)
    y, moved = flow.sensitivity(small, c * z, c * 80.0, c * 0.05, scale=c)
    assert_close(y / c, x, rtol=1e-9, atol=1e-10)
    assert_close(moved / c, delta, rtol=1e-9, atol=1e-10)


def test_torch_laws_and_latents_give_torch_truths() -> None:
    """Assert that a float32 torch law is integrated in float64 and returned in the latents' kind."""
    p = PROBLEMS["d2_k3_s0"]
    laws = [GaussianMixture(*(torch.tensor(a, dtype=torch.float32) for a in law)) for law in (p.base, p.toward)]
    z = torch.tensor(latents(4, 2), dtype=torch.float32)
    x, delta = AdditivePerturbation(*laws).sample_sensitivity(z, 80.0, 0.05)
    assert x.dtype == delta.dtype == torch.float32
    exact = flow.sensitivity(contamination("d2_k3_s0"), z.double().numpy(), 80.0, 0.05)
    assert_close(x.double().numpy(), exact[0], rtol=1e-5, atol=1e-5)
    assert_close(delta.double().numpy(), exact[1], rtol=1e-4, atol=1e-4)


def test_any_shape_of_latents_is_kept() -> None:
    """Assert that (d,), (a, b, d) and (0, d) latents come back in their shape."""
    law = contamination("d2_k3_s0").base
    for shape in ((2,), (2, 3, 2), (0, 2)):
        z = 80.0 * np.ones(shape)
        assert flow.sample(law, z, 80.0, 1.0).shape == shape


class Dipole:
    """A perturbation without `toward`: half a contamination, known by its score derivative only."""

    def __init__(self, p: AdditivePerturbation) -> None:
        self.base, self._p = p.base, p

    def score_derivative(self, x: np.ndarray, sigma: float) -> np.ndarray:
        return 0.5 * self._p.score_derivative(x, sigma)


def test_perturbations_without_a_target_are_taken_by_their_score_derivative() -> None:
    """Assert that half a contamination has half the sensitivity, and that second order is refused with the reason."""
    p, z = contamination("d2_k3_s0"), latents(4, 2)
    assert_close(flow.sensitivity(Dipole(p), z, 80.0, 0.1)[1], 0.5 * flow.sensitivity(p, z, 80.0, 0.1)[1], rtol=1e-9)
    with pytest.raises(TypeError, match="needs a contamination"):
        flow.sensitivity(Dipole(p), z, 80.0, 0.1, order=2)


class Broken:
    """A law whose score is NaN below σ = 1."""

    def noised(self, sigma: float) -> "Broken":
        self.sigma = sigma
        return self

    def score(self, x: np.ndarray) -> np.ndarray:
        return -x / self.sigma**2 if self.sigma > 1 else np.full_like(x, np.nan)


def test_a_score_that_is_not_finite_stops_with_its_level() -> None:
    """Assert that the message names the level where the integration could not go on."""
    with pytest.raises(FloatingPointError, match=r"sigma = 1\b"):
        flow.sample(Broken(), np.ones((2, 1)), 80.0, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda law, z: flow.sample(law, z, 0.1, 80.0), "0 < sigma_min < sigma_max"),
        (lambda law, z: flow.sample(law, z, 80.0, 0.0), "0 < sigma_min < sigma_max"),
        (lambda law, z: flow.sample(law, z * np.nan, 80.0, 0.1), "latents must be finite"),
        (lambda law, z: flow.sample(law, 1.0, 80.0, 0.1), r"shape \(\.\.\., d\)"),
        (lambda law, z: flow.sample(law, z, 80.0, 0.1, rtol=1e-16), "rtol = 1e-16"),
        (lambda law, z: flow.sample(law, z, 80.0, 0.1, scale=0.0), "scale = 0.0"),
        (lambda law, z: flow.sample(law, z, 80.0, 0.1, chunk_size=0), "chunk_size = 0"),
        (lambda law, z: flow.sensitivity(law, z, 80.0, 0.1, order=3), "order = 3"),
        (lambda law, z: flow.truth(law, z, 80.0, 0.1, order=-1), "order = -1"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(call, message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(ValueError, match=message):
        call(contamination("d2_k3_s0").base, latents(3, 2))


@pytest.mark.slow
def test_a_hundred_dimensions_take_seconds() -> None:
    """Assert that 64 latents in d = 100 reach bars below 1e-9 in the median."""
    p = problem(100, 4)
    perturbation = AdditivePerturbation(GaussianMixture(*p.base), GaussianMixture(*p.toward))
    errors = flow.error_bar(perturbation, latents(64, 100), 80.0, 1e-3)
    assert np.median(errors) < 1e-9
