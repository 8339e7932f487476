"""Mixtures: construction, errors, size, automatic differentiation, the line."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats
from support.close import assert_close
from support.libraries import converter
from support.strategies import covariance

from oracles import AdditivePerturbation, GaussianMixture

RNG = np.random.default_rng(5)
WEIGHTS = np.array([0.25, 0.75])
MEANS = RNG.standard_normal((2, 3))
COVARIANCES = np.stack([0.3 * np.eye(3), covariance(RNG, 3, "full")])
STATES = RNG.standard_normal((4, 3))


def test_importing_loads_neither_torch_nor_jax():
    """Assert that `import oracles` leaves both libraries unloaded."""
    code = "import sys, oracles; sys.exit(any(name in sys.modules for name in ('torch', 'jax', 'sympy', 'mpmath')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lists_become_numpy_float64():
    """Assert that nested lists of integers are accepted and give float64."""
    law = GaussianMixture([1], [[0, 1]], [[[2, 0], [0, 1]]])
    assert law.score([0, 0]).dtype == np.float64


def test_dense_covariances_come_back_from_every_representation():
    """Assert that `covariances` are the matrices that were given."""
    factors, variances = RNG.standard_normal((2, 3, 2)), RNG.uniform(0.1, 1.0, (2, 3))
    assert_close(GaussianMixture(WEIGHTS, MEANS, COVARIANCES).covariances, COVARIANCES)
    assert_close(GaussianMixture.diagonal(WEIGHTS, MEANS, variances).covariances, variances[:, :, None] * np.eye(3))
    low = factors @ np.swapaxes(factors, 1, 2) + 0.2 * np.eye(3)
    assert_close(GaussianMixture.low_rank(WEIGHTS, MEANS, factors, 0.2).covariances, low)


def test_numbers_take_the_kind_of_the_arrays_beside_them():
    """Assert that lists beside float32 tensors become float32 tensors."""
    law = GaussianMixture.isotropic([0.5, 0.5], torch.zeros(2, 3), 1.0)
    assert law.weights.dtype == torch.float32
    assert law.noised(0.1).score(torch.zeros(3)).dtype == torch.float32


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: GaussianMixture([0.5, 0.6], MEANS, COVARIANCES), ValueError, "weights sum to 1.1"),
    (lambda: GaussianMixture([-0.5, 1.5], MEANS, COVARIANCES), ValueError, "weights contains a negative value"),
    (lambda: GaussianMixture([1.0], MEANS, COVARIANCES), ValueError, "weights has shape"),
    (lambda: GaussianMixture(WEIGHTS, MEANS[0], COVARIANCES), ValueError, "means has shape"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES[0]), ValueError, "covariances has shape"),
    (lambda: GaussianMixture(WEIGHTS, MEANS * np.nan, COVARIANCES), ValueError, "means contains values that are not"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, np.full((2, 3, 3), np.inf)), ValueError, "covariances contains values"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, -COVARIANCES), ValueError, "not positive semi-definite"),
    (
        lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES + np.eye(3)[[1, 0, 2]][:, [0, 2, 1]]),
        ValueError,
        "symmetric",
    ),
    (lambda: GaussianMixture.isotropic(WEIGHTS, MEANS, -1.0), ValueError, "variances contains a negative value"),
    (lambda: GaussianMixture.isotropic(WEIGHTS, MEANS, [1.0, 1.0, 1.0]), ValueError, "variances has shape"),
    (lambda: GaussianMixture.diagonal(WEIGHTS, MEANS, [1.0, 1.0]), ValueError, "variances has shape"),
    (lambda: GaussianMixture.low_rank(WEIGHTS, MEANS, MEANS), ValueError, "factors has shape"),
    (lambda: GaussianMixture.empirical([]), ValueError, "means has shape"),
    (lambda: GaussianMixture.empirical([[0.0], [1.0, 2.0]]), ValueError, "rectangular"),
    (lambda: GaussianMixture(WEIGHTS.astype("float32"), MEANS, COVARIANCES), TypeError, "dtype"),
    (lambda: GaussianMixture(WEIGHTS, np.array([[0], [1]]), [[[1.0]], [[1.0]]]), TypeError, "not floating point"),
    (lambda: GaussianMixture(torch.tensor(WEIGHTS), MEANS, COVARIANCES), TypeError, "one library"),
    (lambda: GaussianMixture("ab", MEANS, COVARIANCES), ValueError, "weights is not a rectangular array"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, None), TypeError, "covariances must be an array or numbers"),
    (lambda: GaussianMixture.empirical(MEANS).score(MEANS), ValueError, r"take .noised\(sigma\) first"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).score(torch.zeros(3)), TypeError, "one library"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).score(MEANS.astype("f4")), TypeError, "one dtype"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).noised([1.0, 2.0]), TypeError, "must be a number"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).noised(np.ones(2)), ValueError, "must be one number"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).noised(1.0, alpha=0.0), ValueError, "alpha = 0.0"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).noised(1e-160), ValueError, "its square vanishes"),
    (lambda: GaussianMixture(WEIGHTS, MEANS, COVARIANCES).cdf(MEANS), ValueError, "dimension 1"),
    (lambda: GaussianMixture.isotropic([1.0], [[0.0]], 1.0).quantile([0.5, 1.0]), ValueError, "between 0 and 1"),
    (lambda: GaussianMixture.isotropic([1.0], [[0.0]], 1.0).sample(-1), ValueError, "n = -1"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused_with_one_sentence(call, error, message):
    """Assert the type of the error and that one line of text quotes what is wrong."""
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_arrays_on_different_devices_are_refused():
    """Assert that an array on the meta device is not mixed with one on the CPU."""
    law = GaussianMixture.isotropic(torch.ones(1), torch.zeros(1, 2), 1.0)
    with pytest.raises(ValueError, match="one device"):
        law.score(torch.zeros(2, device="meta"))


def test_results_do_not_depend_on_the_batch():
    """Assert that states give the same results in one call, in pieces and one by one."""
    law = GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    states = RNG.standard_normal((30_000, 3))
    whole = law.score_jacobian(states)
    assert_close(np.concatenate([law.score_jacobian(part) for part in np.array_split(states, 7)]), whole, rtol=1e-12)
    assert_close(np.stack([law.score_jacobian(x) for x in states[::3000]]), whole[::3000], rtol=1e-12, atol=1e-13)


def test_many_components_are_evaluated_in_pieces(monkeypatch):
    """Assert that cutting the components into many pieces changes nothing but the rounding."""
    law = GaussianMixture.isotropic(np.full(50, 0.02), RNG.standard_normal((50, 3)), 0.3)
    u, v = RNG.standard_normal((2, 4, 3))
    whole = [law.log_density(STATES), law.score_jacobian(STATES), law.third_order(STATES, u, v)]
    monkeypatch.setattr("oracles._mixture.local.PIECE", 9)
    pieces = [law.log_density(STATES), law.score_jacobian(STATES), law.third_order(STATES, u, v)]
    for part, one in zip(pieces, whole, strict=True):
        assert_close(part, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["isotropic", "low_rank"])
def test_high_dimension_needs_no_square_matrix(kind):
    """Assert that d = 10 000 stays far below the 800 MB of one d×d matrix."""
    d, k = 10_000, 6
    means, weights = RNG.standard_normal((k, d)), np.full(k, 1 / k)
    factors = RNG.standard_normal((k, d, 3))
    tracemalloc.start()
    law = (
        GaussianMixture.isotropic(weights, means, 0.5)
        if kind == "isotropic"
        else GaussianMixture.low_rank(weights, means, factors, 0.5)
    )
    noised, x = law.noised(0.1), means[:2] + 0.7
    results = [noised.log_density(x), noised.score(x), noised.score_divergence(x), noised.third_order(x, x, x)]
    results += [noised.score_jacobian_product(x, x), law.denoiser(x, 0.1), law.sample(3, 0)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(np.all(np.isfinite(result)) for result in results)
    assert peak < 50e6


def test_ten_thousand_components_work():
    """Assert that K = 10 000 gives the score of the smoothed law that the components sample."""
    points = np.random.default_rng(0).standard_normal((10_000, 2))
    law = GaussianMixture.empirical(points).noised(0.5)
    x = np.array([[0.3, -0.4], [1.0, 0.5]])
    assert_close(law.score(x), -x / 1.25, rtol=0, atol=0.05)


def reverse(function: Any, x: np.ndarray) -> np.ndarray:
    """The gradient of the sum of a torch function."""
    argument = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(function(argument).sum(), argument)[0].numpy()


def torch_law() -> GaussianMixture:
    return GaussianMixture(*map(torch.tensor, (WEIGHTS, MEANS, COVARIANCES)))


def test_torch_reverse_mode_goes_through_every_method():
    """Assert that gradients in x of every method equal the next closed form."""
    law, numpy = torch_law(), GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    ones, v = np.ones((4, 3)), RNG.standard_normal((4, 3))
    assert_close(reverse(law.log_density, STATES), numpy.score(STATES))
    assert_close(reverse(law.score, STATES), numpy.score_jacobian_product(STATES, ones))
    moved = reverse(lambda x: law.score_jacobian_product(x, torch.tensor(v)), STATES)
    assert_close(moved, numpy.third_order(STATES, v, ones))
    basis = np.eye(3)
    third = sum(numpy.third_order(STATES, np.tile(e, (4, 1)), np.tile(e, (4, 1))) for e in basis)
    assert_close(reverse(law.score_divergence, STATES), third)
    mean, spread = law.posterior(torch.tensor(STATES, requires_grad=True), 0.4)
    assert_close(
        reverse(lambda x: law.denoiser(x, 0.4), STATES),
        (law.posterior(torch.tensor(STATES), 0.4)[1].numpy() / 0.16).sum(1),
    )
    assert mean.requires_grad
    assert spread.requires_grad


def test_torch_function_transforms_go_through():
    """Assert that vmap, jacfwd and jacrev of single states reproduce the closed forms."""
    law, numpy = torch_law(), GaussianMixture(WEIGHTS, MEANS, COVARIANCES)
    x = torch.tensor(STATES)
    assert_close(torch.func.vmap(law.score)(x), numpy.score(STATES))
    assert_close(torch.func.vmap(torch.func.jacfwd(law.score))(x), numpy.score_jacobian(STATES))
    assert_close(torch.func.vmap(torch.func.jacrev(torch.func.grad(law.log_density)))(x), numpy.score_jacobian(STATES))


def test_noise_level_can_be_differentiated_and_mapped():
    """Assert the heat equation by autograd in σ, and that vmap over σ gives the law at each level."""
    law, x = torch_law(), torch.tensor(STATES[0])
    sigma = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(law.noised(sigma).log_density(x), sigma)
    noised = law.noised(0.6)
    assert_close(slope, (0.6 * (noised.score_divergence(x) + noised.score(x).square().sum())).numpy())
    levels = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    mapped = torch.func.vmap(lambda s: law.noised(s).score(x))(levels)
    assert_close(mapped, torch.stack([law.noised(float(s)).score(x) for s in levels]).numpy())


def test_jax_transforms_go_through():
    """Assert that jit, grad, vmap and forward mode of JAX reproduce the closed forms, at traced noise levels too."""
    law, numpy = (
        GaussianMixture(*map(jnp.asarray, (WEIGHTS, MEANS, COVARIANCES))),
        GaussianMixture(WEIGHTS, MEANS, COVARIANCES),
    )
    x = jnp.asarray(STATES)
    score = jax.jit(lambda y, s: law.noised(s).score(y))
    assert_close(score(x, 0.3), numpy.noised(0.3).score(STATES))
    assert_close(jax.vmap(jax.grad(law.log_density))(x), numpy.score(STATES))
    assert_close(jax.jit(jax.vmap(jax.jacfwd(law.score)))(x), numpy.score_jacobian(STATES))


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_gradients_in_a_full_covariance_are_right_at_repeated_eigenvalues(library):
    """Assert derivatives along Σ̇ by autograd at Σ = 0.3 I (to second order in torch) against differences of values."""
    direction = np.array([[0.2, 0.5, -0.1], [0.5, -0.4, 0.3], [-0.1, 0.3, 0.6]])

    def value(eta: Any, convert: Any) -> Any:
        moved = convert(COVARIANCES) + eta * convert(np.stack([direction, np.zeros((3, 3))]))
        return GaussianMixture(convert(WEIGHTS), convert(MEANS), moved).noised(0.2).log_density(convert(STATES[0]))

    def plain(eta: float) -> float:
        return float(value(eta, np.asarray))

    step = 1e-3
    slope = (8 * (plain(step) - plain(-step)) - (plain(2 * step) - plain(-2 * step))) / (12 * step)
    bend = (16 * (plain(step) + plain(-step)) - plain(2 * step) - plain(-2 * step) - 30 * plain(0.0)) / (12 * step**2)
    if library == "torch":
        first = torch.func.grad(lambda eta: value(eta, torch.tensor))
        start = torch.tensor(0.0, dtype=torch.float64)
        assert_close(float(torch.func.grad(first)(start)), bend, rtol=1e-5, atol=0)
    else:
        first = jax.grad(lambda eta: value(eta, jnp.asarray))
        start = jnp.asarray(0.0)
    assert_close(float(first(start)), slope, rtol=1e-8, atol=0)


def test_gradients_reach_weights_means_and_variances():
    """Assert that torch gradients in weights, means, diagonals and scales equal numerical differences."""
    parameters = [torch.tensor(a, requires_grad=True) for a in (WEIGHTS, MEANS, np.full((2, 3), 0.4))]

    def value(*args: torch.Tensor) -> torch.Tensor:
        return GaussianMixture.diagonal(*args).noised(0.3).score(torch.tensor(STATES[0]))[1]

    def shifted(weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
        move = torch.stack([weights, -weights])
        return value(torch.tensor(WEIGHTS) + move, means, variances)

    start = (torch.tensor(0.0, dtype=torch.float64, requires_grad=True), *parameters[1:])
    assert torch.autograd.gradcheck(shifted, start)
    assert torch.autograd.gradgradcheck(shifted, start)


def test_gradients_reach_low_rank_factors():
    """Assert torch gradients in the factors, at equal singular values, against numerical differences."""
    start = torch.tensor(np.eye(3)[None, :, :2].repeat(2, axis=0), requires_grad=True)

    def value(factors: torch.Tensor) -> torch.Tensor:
        law = GaussianMixture.low_rank(torch.tensor(WEIGHTS), torch.tensor(MEANS), factors, 0.1)
        return law.noised(0.3).score(torch.tensor(STATES[0]))[1]

    assert torch.autograd.gradcheck(value, start)


def test_float64_accuracy_survives_full_rank_factors():
    """Assert that as many factors as dimensions give the law of the dense covariance."""
    factors = RNG.standard_normal((2, 3, 5))
    law = GaussianMixture.low_rank(WEIGHTS, MEANS, factors, 0.1)
    dense = GaussianMixture(WEIGHTS, MEANS, factors @ np.swapaxes(factors, 1, 2) + 0.1 * np.eye(3))
    assert_close(law.score(STATES), dense.score(STATES))


LINE = GaussianMixture.isotropic([0.3, 0.0, 0.7], [[-2.0], [50.0], [1.0]], [0.25, 1.0, 4.0])


def test_cdf_and_survival_match_scipy():
    """Assert F and 1 − F against SciPy, including tails of 1e-200."""
    x = np.array([[-60.0], [-2.0], [0.3], [5.0], [70.0]])
    parts = [(0.3, stats.norm(-2.0, 0.5)), (0.7, stats.norm(1.0, 2.0))]
    assert_close(LINE.cdf(x), sum(w * law.cdf(x[:, 0]) for w, law in parts), rtol=1e-12, atol=0)
    assert_close(LINE.survival(x), sum(w * law.sf(x[:, 0]) for w, law in parts), rtol=1e-12, atol=0)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax", "strict"])
def test_quantile_inverts_the_cdf_in_both_tails(library):
    """Assert F(F⁻¹(u)) = u relative to u from 1e-300 to 1/2, from below and from above."""
    convert = converter(library)
    law = GaussianMixture.isotropic(
        convert([0.3, 0.0, 0.7]), convert([[-2.0], [50.0], [1.0]]), convert([0.25, 1.0, 4.0])
    )
    u = np.array([1e-300, 1e-30, 1e-5, 0.1, 0.3, 0.5])
    assert_close(law.cdf(law.quantile(convert(u))), u, rtol=1e-10, atol=0)
    assert_close(law.survival(law.quantile(convert(u), upper=True)), u, rtol=1e-10, atol=0)


def test_quantile_carries_derivatives():
    """Assert dF⁻¹/du = 1/p and the second derivative −p′/p³ by autograd."""
    law = GaussianMixture.isotropic(*map(converter("torch"), ([0.3, 0.7], [[-2.0], [1.0]], [0.25, 4.0])))
    u = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    x = law.quantile(u)
    (slope,) = torch.autograd.grad(x.sum(), u, create_graph=True)
    (bend,) = torch.autograd.grad(slope, u)
    density = law.log_density(x.detach()).exp()
    assert_close(slope, (1 / density).numpy())
    assert_close(bend, (-law.score(x.detach())[0] / density**2).numpy())


def test_sample_is_the_same_in_every_library():
    """Assert that one seed gives the same draws in NumPy, torch and float32."""
    draws = GaussianMixture(WEIGHTS, MEANS, COVARIANCES).sample(5, seed=1)
    assert_close(torch_law().sample(5, seed=1), draws, rtol=1e-14, atol=1e-15)


def test_draws_are_exchangeable():
    """Assert that the order of draws does not tell their component: both halves have the law's mean."""
    law = GaussianMixture.isotropic([0.5, 0.5], [[-5.0], [5.0]], 0.01)
    draws = law.sample(4000, seed=0)
    assert abs(draws[:2000].mean()) < 5 * 5 / np.sqrt(2000)


def test_contaminated_laws_keep_their_representations():
    """Assert that the mixture of a low-rank and an isotropic law forms no dense matrix of either."""
    low = GaussianMixture.low_rank(WEIGHTS, MEANS, RNG.standard_normal((2, 3, 1)), 0.1)
    law = AdditivePerturbation(low, GaussianMixture.empirical(MEANS)).at(0.2).noised(0.5)
    assert repr(law) == "GaussianMixture(components=4, dimension=3, covariances=lowrank, isotropic)"
