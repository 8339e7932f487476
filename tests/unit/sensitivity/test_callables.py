"""User callables and shapes: copies, checks of results, shapes of points, masses and covariances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn

from oracles import GaussianMixture
from sensitivity import (
    Estimate,
    Formula,
    GaussianAnchor,
    Grid,
    Mixture,
    Outcome,
    Points,
    Remove,
    Toward,
    as_score,
    functionals,
    influence,
    log_density,
    log_density_ratio,
    resample,
    sample_sensitivity,
    score_derivative,
)

GRID = Grid(10.0, 0.1, 16)
DATA = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
LAW = Mixture(None, DATA, 0.3)
LATENTS = 10 * torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1)).double()
NEW = Toward(Points(DATA[:2], bandwidth=1.0))


def spoiling(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact score, after which states and levels are spoilt in place."""
    value = LAW.score(x.clone(), sigma.clone())
    if not value.requires_grad and torch._C._functorch.peek_interpreter_stack() is None:
        x.zero_()
        sigma.mul_(3.0)
    return value


class Spoiling:
    """An exact anchor that spoils its arguments."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """In place."""
        value = LAW.log_density(x.clone(), sigma.clone())
        x.zero_()
        sigma.mul_(2.0)
        return value


RUNS: dict[str, Callable[[Any, Any, Tensor], Tensor]] = {
    "sensitivity": lambda s, a, x: sample_sensitivity(s, x, NEW, GRID, anchor=a, seed=0).sensitivity,
    "influence": lambda s, a, x: influence(s, x, lambda y: y[:, 0, 0, 0], DATA, GRID, anchor=a, seed=0).values,
    "resample": lambda s, a, x: resample(s, x, NEW, 0.3, GRID, anchor=a, seed=0).samples,
    "adaptive": lambda s, a, x: resample(s, x, NEW, 0.3, GRID, anchor=a, seed=0, solver="adaptive").samples,
    "flow": lambda s, a, x: log_density(s, x, 1.0, anchor=a, grid=GRID, seed=0).value,
    "formula": lambda s, a, x: (
        log_density(s, x, 1.0, anchor=a, grid=GRID, method="formula", formula=Formula(LAW), seed=0).value
    ),
    "ratio": lambda s, a, x: (
        log_density_ratio(s, LAW.score, x, 1.0, new_anchor=a, anchor=LAW, grid=GRID, probes=2, seed=0).value
    ),
    "derivative": lambda s, a, x: score_derivative(s, x, torch.tensor(1.0).double(), NEW, log_density=a),
}


@pytest.mark.parametrize("run", RUNS)
def test_callables_that_work_in_place_change_nothing(run: str) -> None:
    """Assert that neither the engine's levels nor the caller's latents are reached by a score or an anchor."""
    x = LATENTS.clone()
    expected = RUNS[run](LAW.score, LAW, x)
    assert_close(RUNS[run](spoiling, Spoiling(), x), expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(x, LATENTS)


def test_a_network_that_works_in_place_changes_nothing() -> None:
    """Assert the same inside `as_score`."""

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, 1, 1, 1).clone()
        sigma.zero_()
        return x.div_(1 + level**2)

    def clean(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    result = RUNS["sensitivity"](as_score(network, "denoiser"), LAW, LATENTS)
    assert_close(result, RUNS["sensitivity"](as_score(clean, "denoiser"), LAW, LATENTS), rtol=1e-12)


class Law:
    """An anchor of a function."""

    def __init__(self, call: Callable[[Tensor], Any]) -> None:
        self.call = call

    def log_density(self, x: Tensor, sigma: Tensor) -> Any:
        """Whatever the function says."""
        return self.call(x)


@pytest.mark.parametrize("run", [name for name in RUNS if name != "formula"])
@pytest.mark.parametrize(
    "value", [lambda x: x.sum(), lambda x: x.flatten()[:1], lambda x: x[:, 0, 0, 0] * 1j, lambda x: None]
)
def test_anchors_give_one_real_number_a_state(run: str, value: Callable[[Tensor], Any]) -> None:
    """Assert that scalars, one number for all, complex numbers and nothing are refused, not broadcast."""
    with pytest.raises((ValueError, TypeError), match=r"log_density returns"):
        RUNS[run](LAW.score, Law(value), LATENTS)


def test_a_density_that_is_not_a_number_has_no_standard_error_of_zero() -> None:
    """Assert NaN beside NaN, and that an anchor without a finite value at σ_max is an error of the run."""
    law = Law(lambda x: x[:, 0, 0, 0] * float("nan"))
    value, error = log_density(LAW.score, LATENTS, 1.0, anchor=law, grid=GRID, trace="exact")
    assert bool(value.isnan().all() and error.isnan().all())
    estimate = Estimate.of_groups(torch.tensor([[float("nan"), 1.0]]), exact=True)
    assert estimate.standard_error.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match=r"anchor\.log_density is not finite at sigma_max=10 for sample 0"):
        RUNS["sensitivity"](LAW.score, law, LATENTS)


def test_an_oracle_mixture_is_an_anchor() -> None:
    """Assert that a law with `noised(σ).log_density(x)` is noised by the engine, of tensors and of NumPy arrays."""
    means, spread = DATA.flatten(1), torch.full((5,), 0.3, dtype=torch.float64)
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    expected = RUNS["sensitivity"](LAW.score, LAW, LATENTS)
    for convert in (lambda t: t, lambda t: t.numpy()):
        oracle = GaussianMixture.isotropic(*map(convert, (weights, means, spread)))
        assert_close(RUNS["sensitivity"](LAW.score, oracle, LATENTS), expected, rtol=1e-9, atol=1e-10)
        assert_close(RUNS["flow"](LAW.score, oracle, LATENTS), RUNS["flow"](LAW.score, LAW, LATENTS), rtol=1e-9)


def test_points_have_the_shape_of_the_latents() -> None:
    """Assert that channels last for channels first are refused, by shape, and other dtypes by name."""
    for points in (DATA.movedim(1, -1), DATA.flatten(1), Points(DATA.movedim(1, -1))):
        with pytest.raises(ValueError, match="points have shape"):
            influence(LAW.score, LATENTS, functionals.patch(0), points, GRID, anchor=LAW)
    with pytest.raises(TypeError, match="points has dtype"):
        influence(LAW.score, LATENTS, functionals.patch(0), DATA.float(), GRID, anchor=LAW)


def test_points_far_from_every_path_are_said() -> None:
    """Assert an outcome where all influences of a sample are zero: points in [0, 255] for latents of scale 1."""
    far = influence(LAW.score, LATENTS, functionals.patch(0), 127.5 * (DATA + 10), GRID, anchor=LAW)
    assert bool((far.values == 0).all())
    assert all(far.outcome[k] is Outcome.NO_POINT_NEAR for k in range(3))
    assert "do points and latents have one scale" in far.outcome.sentence
    near = influence(LAW.score, LATENTS, functionals.patch(0), DATA, GRID, anchor=LAW)
    assert bool(near.outcome.finished.all())


def test_rates_may_be_a_list() -> None:
    """Assert that a list of numbers is taken as the tensor that it is."""
    options: dict[str, Any] = {"anchor": LAW, "seed": 0}
    rates = [0.0, 1.0, 2.0, 3.0, 4.0]
    listed = influence(LAW.score, LATENTS, functionals.patch(0), DATA, GRID, rates=rates, **options)
    tensor = influence(LAW.score, LATENTS, functionals.patch(0), DATA, GRID, rates=torch.tensor(rates), **options)
    assert_close(listed.values, tensor.values)


@pytest.mark.parametrize("run", ["sensitivity", "influence", "resample", "flow", "ratio"])
def test_empty_batches_give_empty_results(run: str) -> None:
    """Assert a result without samples, not an error."""
    assert RUNS[run](LAW.score, LAW, LATENTS[:0]).shape[0] == 0


def test_covariances_that_could_be_two_things_are_refused() -> None:
    """Assert that K = d needs a word where the matrix is symmetric, and that each word means what it says."""
    means, tied = torch.tensor([[0.0, 1.0], [2.0, -1.0]]).double(), torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double()
    x, one = torch.tensor([[0.5, 0.2]]).double(), torch.tensor(1.0).double()
    with pytest.raises(ValueError, match='covariance_type="diagonal" or "tied"'):
        Mixture(None, means, tied)
    full = Mixture(None, means, tied.expand(2, 2, 2))
    diagonal = Mixture(None, means, torch.stack([torch.diag(row) for row in tied]))
    assert_close(Mixture(None, means, tied, covariance_type="tied").log_density(x, one), full.log_density(x, one))
    assert_close(
        Mixture(None, means, tied, covariance_type="diagonal").log_density(x, one), diagonal.log_density(x, one)
    )
    assert_close(Mixture(None, means, tied.expand(2, 2, 2)).score(x, one), full.score(x, one))
    asymmetric = torch.tensor([[1.0, 0.3], [0.2, 0.5]]).double()
    assert Mixture(None, means, asymmetric).score(x, one).shape == x.shape
    with pytest.raises(ValueError, match=r"covariances has shape \(2, 2\), which is not covariance_type='full'"):
        Mixture(None, means, tied, covariance_type="full")


@pytest.mark.parametrize(("change", "eta"), [(NEW, 1.5), (Remove(Points(DATA[:1])), -5.0), (NEW, [0.2, 1.1, 0.3])])
def test_masses_for_which_no_law_exists_are_refused(change: Any, eta: Any) -> None:
    """Assert an error with the limits."""
    with pytest.raises(ValueError, match=r"eta=.*−m/\(N − m\)"):
        resample(LAW.score, LATENTS, change, torch.tensor(eta), GRID, anchor=LAW)


def test_masses_at_the_limits_are_laws() -> None:
    """Assert that all mass may move, and that one of two points may be removed."""
    pair = Mixture(None, DATA[:2], 0.0)
    for change, eta in ((NEW, 1.0), (Remove(Points(DATA[:1])), -1.0 + 1e-6)):
        resampled = resample(pair.score, LATENTS, change, eta, Grid(10.0, 0.5, 8), anchor=pair)
        assert bool(resampled.samples.isfinite().all())


class Normed(nn.Module):
    """A small convolution network with group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 2, 3, padding=1),
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.last(torch.tanh(self.norm(self.first(x)))) / (1 + sigma.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("of", ["latents", "network", "both"])
def test_channels_last_is_a_layout_like_any_other(of: str) -> None:
    """Assert equal sensitivities and influences for latents or weights that lie channels last."""
    plain, net = Normed().double(), Normed().double()
    x = LATENTS
    if of != "latents":
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if of != "network":
        x = x.to(memory_format=torch.channels_last)
    for run in ("sensitivity", "influence"):
        expected = RUNS[run](as_score(plain, "denoiser"), LAW, LATENTS)
        assert_close(RUNS[run](as_score(net, "denoiser"), LAW, x), expected, rtol=1e-9, atol=1e-11)


def test_a_single_network_takes_double_states() -> None:
    """Assert that a float32 module computes float64 states in its own precision, and that a closure says what to do."""
    net, single = Normed(), LATENTS.float()
    expected = as_score(net, "denoiser")(single, 0.5)
    assert_close(as_score(net, "denoiser")(LATENTS, 0.5).float(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match=r"network in torch.float32, but x has dtype torch.float64.*\.to"):
        RUNS["sensitivity"](lambda x, sigma: net(x, sigma), LAW, LATENTS)


def test_functionals_are_functions() -> None:
    """Assert that a word is not taken for a sequence of functionals."""
    with pytest.raises(TypeError, match=r"functional='ink' is no function.*functionals.patch"):
        influence(LAW.score, LATENTS, "ink", DATA, GRID, anchor=LAW)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [-1.0, 0.0, float("nan")])
def test_moments_from_a_score_need_a_level_and_samples(sigma: float) -> None:
    """Assert errors for levels that are none and for no samples."""
    mean = torch.zeros(2, 3, 3).double()
    with pytest.raises(ValueError, match="sigma = "):
        GaussianAnchor.from_score(LAW.score, mean, sigma)
    with pytest.raises(ValueError, match="samples=0"):
        GaussianAnchor.from_score(LAW.score, mean, 10.0, samples=0)


def test_exponents_are_positive_numbers() -> None:
    """Assert that a grid's exponent is one."""
    for exponent in (float("nan"), 0.0, -7.0, float("inf")):
        with pytest.raises(ValueError, match="exponent="):
            Grid(10.0, 0.1, 4, exponent=exponent)
