"""Posteriors of linear observations: dense grids, block formulas, sixty digits, identities, extremes, derivatives."""

from __future__ import annotations

import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from support.close import assert_close
from support.strategies import covariance

import sensitivity
from oracles import AdditivePerturbation, GaussianMixture, flow
from oracles._mixture import conditioning
from oracles.empirical import EmpiricalLaw

RNG = np.random.default_rng(24)
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = 1.5 * RNG.standard_normal((3, 4)) + 0.3
MATRICES = np.stack([0.4 * covariance(RNG, 4, kind) for kind in ("full", "repeated", "singular")])
VARIANCES = np.array([[0.3, 0.8, 0.05, 1.1], [0.0, 0.4, 0.4, 0.9], [0.6, 0.6, 0.6, 0.6]])
FACTORS = RNG.standard_normal((3, 4, 2))
LAWS: dict[str, GaussianMixture] = {
    "full": GaussianMixture(WEIGHTS, MEANS, MATRICES),
    "diagonal": GaussianMixture.diagonal(WEIGHTS, MEANS, VARIANCES),
    "isotropic": GaussianMixture.isotropic(WEIGHTS, MEANS, VARIANCES[:, 0]),
    "low_rank": GaussianMixture.low_rank(WEIGHTS, MEANS, FACTORS, VARIANCES[:, 0]),
    "rank_only": GaussianMixture.low_rank(WEIGHTS, MEANS, FACTORS, 0.0),
    "empirical": GaussianMixture.empirical(MEANS, WEIGHTS),
}
LAWS["groups"] = AdditivePerturbation(LAWS["low_rank"], LAWS["empirical"]).at(0.4)
NOISES = {"scalar": lambda p: 0.3, "vector": lambda p: np.linspace(0.1, 0.8, p), "matrix": lambda p: noise_matrix(p)}


def noise_matrix(size: int) -> np.ndarray:
    factor = np.random.default_rng(size).standard_normal((size, size))
    return factor @ factor.T + 0.1 * np.eye(size)


def problem(rows: int, seed: int = 0, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """An operator (p, d) and an observation (p,)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, d)), rng.standard_normal(rows)


def joint(law: GaussianMixture, operator: Any, observation: Any, noise: Any) -> tuple[np.ndarray, ...]:
    """Weights, means, covariances and log p(y) by the block formulas of the joint Gaussian of (x, y)."""
    matrix, spread = np.asarray(operator), noise if np.ndim(noise) == 2 else noise * np.eye(len(observation))
    cross = law.covariances @ matrix.T
    seen = matrix @ cross + spread
    inverse, residuals = np.linalg.inv(seen), observation - law.means @ matrix.T
    logs = np.log(law.weights) - 0.5 * np.linalg.slogdet(2 * np.pi * seen)[1]
    logs = logs - 0.5 * np.einsum("ki,kij,kj->k", residuals, inverse, residuals)
    evidence = np.logaddexp.reduce(logs)
    means = law.means + np.einsum("kij,kj->ki", cross @ inverse, residuals)
    covariances = law.covariances - cross @ inverse @ np.swapaxes(cross, 1, 2)
    return np.exp(logs - evidence), means, covariances, evidence


def parts(law: GaussianMixture, *observation: Any) -> tuple[Any, ...]:
    posterior = law.conditioned(*observation)
    return posterior.weights, posterior.means, posterior.covariances, law.log_evidence(*observation)


def same(actual: tuple[Any, ...], expected: tuple[Any, ...], rtol: float = 1e-10) -> None:
    for value, truth in zip(actual, expected, strict=True):
        assert_close(np.asarray(value), np.asarray(truth), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rows", [1, 2, 4, 6])
@pytest.mark.parametrize("name", LAWS)
def test_posteriors_are_those_of_block_formulas(name, rows, noise):
    """Assert weights, means, covariances and evidence for every covariance form, number of rows and form of noise."""
    operator, observation = problem(rows)
    arguments = (operator, observation, NOISES[noise](rows))
    same(parts(LAWS[name], *arguments), joint(LAWS[name], *arguments))


@pytest.mark.parametrize("name", ["full", "low_rank", "isotropic", "groups"])
def test_singular_operators_say_nothing_in_their_null_space(name):
    """Assert repeated, dependent and zero rows against block formulas."""
    operator, observation = problem(3)
    operator = np.stack([operator[0], 2 * operator[0], 0 * operator[0]])
    arguments = (operator, observation, np.array([0.2, 0.5, 0.1]))
    same(parts(LAWS[name], *arguments), joint(LAWS[name], *arguments))


def test_operators_within_the_factors_span_are_seen_right():
    """Assert block formulas where A's rows lie in the span of one component's factors: a redundant basis."""
    rng = np.random.default_rng(9)
    factors, (_, observation) = rng.standard_normal((3, 12, 4)), problem(3)
    law = GaussianMixture.low_rank(WEIGHTS, rng.standard_normal((3, 12)), factors, [0.2, 0.0, 0.7])
    operator = rng.standard_normal((3, 4)) @ factors[0].T
    posterior = law.conditioned(operator, observation, 0.4)
    assert "lowrank" in repr(posterior)
    same(parts(law, operator, observation, 0.4), joint(law, operator, observation, 0.4))


@pytest.mark.parametrize("name", ["diagonal", "isotropic", "low_rank", "rank_only"])
def test_observations_without_noise_are_met_exactly(name):
    """Assert block formulas at zero noise, `A x = y`, and no variance along A."""
    law = LAWS[name]
    if name == "diagonal":
        law = GaussianMixture.diagonal(WEIGHTS, MEANS, VARIANCES + 0.1)
    if name in ("isotropic", "low_rank"):
        law = law.noised(0.3)
    operator, observation = problem(2)
    same(parts(law, operator, observation, 0.0), joint(law, operator, observation, 0.0))
    posterior = law.conditioned(operator, observation, 0.0)
    assert_close(posterior.means @ operator.T, np.tile(observation, (3, 1)), rtol=1e-12, atol=1e-12)
    assert np.abs(operator @ posterior.covariances).max() < 1e-14
    with pytest.raises(ValueError, match="singular covariance"):
        posterior.score(MEANS)


def test_noise_in_some_directions_only():
    """Assert a singular noise matrix: one direction exact, one noisy, by block formulas."""
    operator, observation = problem(2)
    for noise in (np.array([0.0, 0.4]), np.array([[0.5, 0.5], [0.5, 0.5]])):
        law = LAWS["low_rank"].noised(0.2)
        same(parts(law, operator, observation, noise), joint(law, operator, observation, noise), rtol=1e-9)


@pytest.mark.parametrize("d", [1, 2])
def test_posterior_density_is_bayes_rule_on_a_grid(d):
    """Assert p(x | y) = p(y | x) p(x)/p(y) on a grid, and p(y) as the sum over it."""
    law = GaussianMixture(WEIGHTS, MEANS[:, :d], MATRICES[:2, :d, :d][[0, 1, 0]] + 0.1 * np.eye(d))
    operator, observation, noise = np.array([[1.0, -0.5]])[:, :d], np.array([0.7]), 0.3
    line = np.linspace(-12, 12, 801 if d == 2 else 4001)
    x = np.stack(np.meshgrid(*[line] * d, indexing="ij"), axis=-1).reshape(-1, d)
    residual = observation[0] - x @ operator[0]
    likelihood = np.exp(-0.5 * residual**2 / noise) / np.sqrt(2 * np.pi * noise)
    product = likelihood * np.exp(law.log_density(x))
    evidence = product.sum() * (line[1] - line[0]) ** d
    assert_close(float(law.log_evidence(operator, observation, noise)), float(np.log(evidence)), rtol=1e-9, atol=1e-10)
    density = np.exp(law.conditioned(operator, observation, noise).log_density(x))
    assert_close(density, product / evidence, rtol=1e-8, atol=1e-12)


def test_one_component_is_completed_square_in_sympy():
    """Assert mean and variance on the line against SymPy's solution of the score's zero, and its second derivative."""
    x, mu, v, a, y, r = sympy.symbols("x mu v a y r", positive=True)
    log_joint = -((x - mu) ** 2) / (2 * v) - (y - a * x) ** 2 / (2 * r)
    mean = sympy.solve(sympy.diff(log_joint, x), x)[0]
    variance = -1 / sympy.diff(log_joint, x, 2)
    numbers = {mu: 0.3, v: 1.7, a: 2.1, y: -0.4, r: 0.6}
    posterior = GaussianMixture.isotropic([1.0], [[0.3]], 1.7).conditioned([[2.1]], [-0.4], 0.6)
    assert_close(float(posterior.means[0, 0]), float(mean.subs(numbers)), rtol=1e-14)
    assert_close(float(posterior.covariances[0, 0, 0]), float(variance.subs(numbers)), rtol=1e-14)


@pytest.mark.parametrize(("noise", "shift"), [(1e-12, 0.0), (1e-4, 100.0), (1e8, 0.0)])
@pytest.mark.parametrize("name", ["full", "diagonal", "low_rank", "isotropic"])
def test_extremes_are_those_of_sixty_digits(name, noise, shift):
    """Assert tiny and huge noise, and an observation a hundred deviations out, against mpmath."""
    law, (operator, observation) = LAWS[name].noised(0.1), problem(2)
    observation = observation + shift
    actual = parts(law, operator, observation, noise)
    weights, means, covariances, evidence = by_digits(law, operator, observation, noise)
    assert_close(actual[0], weights, rtol=1e-7, atol=1e-12)
    assert_close(actual[1], means, rtol=1e-9, atol=1e-9)
    assert_close(actual[2], covariances, rtol=1e-9, atol=1e-11)
    along = np.einsum("pi,kij,pj->kp", operator, actual[2], operator)
    exact = np.einsum("pi,kij,pj->kp", operator, covariances, operator)
    assert np.all(along > -1e-15)
    assert_close(along, exact, rtol=1e-6, atol=1e-14)
    assert_close(float(actual[3]), evidence, rtol=1e-11)


def by_digits(law: GaussianMixture, operator: Any, observation: Any, noise: float) -> tuple[Any, ...]:
    """The posterior in information form with sixty digits."""
    with mp.workdps(60):
        a, y = mp.matrix(operator.tolist()), mp.matrix(observation.tolist())
        logs, means, covariances = [], [], []
        for w, mean, matrix in zip(law.weights, law.means, law.covariances, strict=True):
            mu, sigma = mp.matrix(mean.tolist()), mp.matrix(matrix.tolist())
            precision = sigma**-1 + a.T * a / mp.mpf(noise)
            covariances.append(precision**-1)
            means.append(covariances[-1] * (sigma**-1 * mu + a.T * y / mp.mpf(noise)))
            seen = a * sigma * a.T + mp.mpf(noise) * mp.eye(len(y))
            gap = y - a * mu
            quadratic = (gap.T * seen**-1 * gap)[0]
            logs.append(mp.log(mp.mpf(float(w))) - (quadratic + mp.log(mp.det(2 * mp.pi * seen))) / 2)
        top = max(logs)
        evidence = top + mp.log(sum(mp.exp(v - top) for v in logs))
        weights = np.array([float(mp.exp(v - evidence)) for v in logs])
        return (
            weights,
            *(np.array([np.array(m.tolist(), float) for m in ms]).squeeze() for ms in (means, covariances)),
            float(evidence),
        )


@pytest.mark.parametrize("name", LAWS)
def test_an_operator_of_zeros_changes_nothing(name):
    """Assert the prior, and the noise's own density as evidence."""
    law, observation = LAWS[name], np.array([0.3, -1.0])
    posterior = law.conditioned(np.zeros((2, 4)), observation, 0.5)
    same((posterior.weights, posterior.means, posterior.covariances), (law.weights, law.means, law.covariances))
    evidence = -0.5 * np.sum(observation**2) / 0.5 - np.log(2 * np.pi * 0.5)
    assert_close(float(law.log_evidence(np.zeros((2, 4)), observation, 0.5)), evidence, rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_one_after_the_other_is_both_at_once(name):
    """Assert sequential conditioning = joint conditioning, and that evidences multiply."""
    law, (operator, observation), noise = LAWS[name], problem(3), np.array([0.2, 0.4, 0.1])
    first = law.conditioned(operator[:1], observation[:1], noise[:1])
    rest = (operator[1:], observation[1:], noise[1:])
    both = parts(law, operator, observation, noise)
    second = parts(first, *rest)
    evidence = law.log_evidence(operator[:1], observation[:1], noise[:1]) + second[3]
    same((*second[:3], evidence), both)


def test_splitting_and_permuting_components_changes_nothing():
    """Assert the same posterior density and evidence."""
    law, (operator, observation) = LAWS["full"], problem(2)
    order = np.array([2, 0, 1, 0])
    shares = np.array([1.0, 0.3, 1.0, 0.7])
    other = GaussianMixture(WEIGHTS[order] * shares, MEANS[order], MATRICES[order])
    x = problem(5)[0]
    scores = [g.conditioned(operator, observation, 0.2).noised(0.4).score(x) for g in (law, other)]
    assert_close(scores[1], scores[0], rtol=1e-11, atol=1e-12)
    values = [float(g.log_evidence(operator, observation, 0.2)) for g in (law, other)]
    assert_close(values[1], values[0], rtol=1e-12)


def test_rotations_of_observation_and_of_space_change_nothing():
    """Assert equivariance: y → Q y with A → Q A, R → Q R Qᵀ; x → P x with A → A Pᵀ."""
    law, (operator, observation), noise = LAWS["full"], problem(3), noise_matrix(3)
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    p = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0]
    base = parts(law, operator, observation, noise)
    same(parts(law, q @ operator, q @ observation, q @ noise @ q.T), base)
    turned = GaussianMixture(WEIGHTS, MEANS @ p.T, p @ MATRICES @ p.T)
    weights, means, covariances, evidence = parts(turned, operator @ p.T, observation, noise)
    same((weights, means @ p, p.T @ covariances @ p, evidence), base)


def test_denoising_is_conditioning_on_everything():
    """Assert that A = I with noise σ² gives the posterior mean and covariance of Tweedie's formula, and log p_σ."""
    x, sigma = MEANS[0] + 0.4, 0.7
    for law in LAWS.values():
        posterior = law.conditioned(np.eye(4), x, sigma**2)
        mean, spread = law.posterior(x, sigma)
        same((posterior.mean, posterior.covariance), (mean, spread))
        assert_close(law.log_evidence(np.eye(4), x, sigma**2), law.noised(sigma).log_density(x), rtol=1e-11)


def test_points_stay_points():
    """Assert that an empirical law's posterior is its points with new weights, many of them at no cost in memory."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3000, 784))
    law = GaussianMixture.empirical(points)
    posterior = law.conditioned(rng.standard_normal((20, 784)) / 28, rng.standard_normal(20), 0.5)
    assert_close(posterior.means, points, rtol=0, atol=0)
    assert "isotropic" in repr(posterior)
    x = points[:2] + 0.3 * rng.standard_normal((2, 784))
    streamed = EmpiricalLaw(points, posterior.weights).noised(0.3).score(x)
    assert_close(posterior.noised(0.3).score(x), streamed, rtol=1e-9, atol=1e-9)


def test_noise_may_be_a_mixture():
    """Assert p(y | x) with two kinds of noise by Bayes' rule on a grid."""
    law = GaussianMixture.isotropic([0.4, 0.6], [[-1.0], [1.0]], [0.3, 0.5])
    noise = GaussianMixture.isotropic([0.7, 0.3], [[0.1], [2.0]], [0.1, 0.8])
    operator, observation = np.array([[1.5]]), np.array([0.9])
    x = np.linspace(-12, 12, 6001)[:, None]
    product = np.exp(law.log_density(x) + noise.log_density(observation - x @ operator.T))
    evidence = product.sum() * (x[1, 0] - x[0, 0])
    posterior = law.conditioned(operator, observation, noise)
    assert posterior.size == 4
    assert_close(float(law.log_evidence(operator, observation, noise)), float(np.log(evidence)), rtol=1e-10)
    assert_close(np.exp(posterior.log_density(x)), product / evidence, rtol=1e-9, atol=1e-12)


def test_the_posterior_of_a_contaminated_prior_is_contaminated():
    """Assert that η becomes `η Z_ν/((1 − η) Z_ρ + η Z_ν)`, Z the evidences: a posterior's sensitivity to its prior."""
    base, toward, (operator, observation) = LAWS["full"], LAWS["diagonal"], problem(2)
    arguments, eta, x = (operator, observation, 0.2), 0.3, MEANS[:2]
    prior = AdditivePerturbation(base, toward)
    pair, speed = prior.conditioned(*arguments)
    assert_close(float(speed), float(np.exp(toward.log_evidence(*arguments) - base.log_evidence(*arguments))))
    moved = eta * float(speed) / (1 - eta + eta * float(speed))
    truth = prior.at(eta).conditioned(*arguments).noised(0.5).score(x)
    assert_close(pair.score(x, 0.5, moved), truth, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("base", "toward"), [("full", "diagonal"), ("empirical", "datum")])
def test_posterior_samples_move_with_the_priors_data(base: str, toward: str) -> None:
    """Assert that the oracle's sensitivity, differences of the prior's posteriors and the engine's result agree.

    The second prior is made of data, of which one point receives mass: how far every posterior sample is due to it.
    """
    laws = LAWS | {"datum": GaussianMixture.empirical(MEANS[:1])}
    prior, arguments = AdditivePerturbation(laws[base], laws[toward]), (*problem(2), 0.4)
    latents, ends = 4.0 * np.random.default_rng(1).standard_normal((5, 4)), (4.0, 0.3)
    path, speed = prior.conditioned(*arguments)
    samples, moved = path.sample_sensitivity(latents, *ends)
    truth, h = float(speed) * moved, 1e-4
    others = [prior.at(k * h).conditioned(*arguments) for k in (1, 2)]
    ahead, beyond = (flow.sample(law, latents, *ends, 1e-12) for law in others)
    assert_close(truth, (4 * ahead - 3 * samples - beyond) / (2 * h), rtol=1e-4, atol=1e-5)

    own, other = (measure(law) for law in (path.base, path.toward))
    levels = torch.linspace(ends[0] ** (1 / 7), ends[1] ** (1 / 7), 129, dtype=torch.float64) ** 7
    found = sensitivity.sample_sensitivity(
        own.score, torch.tensor(latents), sensitivity.Toward(other), sensitivity.Grid.from_levels(levels), anchor=own
    )
    assert_close(found.samples.numpy(), samples, rtol=2e-3, atol=2e-3)
    assert_close(float(speed) * found.sensitivity.numpy(), truth, rtol=1e-2, atol=2e-3 * float(np.abs(truth).max()))


def measure(law: GaussianMixture) -> sensitivity.Mixture:
    """The engine's measure of the same law."""
    return sensitivity.Mixture(*(torch.tensor(part) for part in (law.weights, law.means, law.covariances)))


def test_samples_of_the_joint_law_are_calibrated():
    """Assert that draws (x, y) rank uniformly in the posterior's distribution function: a chi-square at one in 1e6."""
    law = GaussianMixture.isotropic([0.4, 0.6], [[-1.0], [1.0]], [0.3, 0.1])
    rng = np.random.default_rng(5)
    x = law.sample(600, rng)
    y = 1.5 * x + np.sqrt(0.7) * rng.standard_normal(x.shape)
    ranks = [float(law.conditioned([[1.5]], b, 0.7).cdf(a)) for a, b in zip(x, y, strict=True)]
    counts = np.histogram(ranks, bins=10, range=(0, 1))[0]
    assert np.sum((counts - 60) ** 2 / 60) < 45.1  # the 1 − 1e-6 quantile of chi-square with nine degrees


@pytest.mark.parametrize("d", [784, 3072])
def test_images_need_no_square_matrix(d):
    """Assert block formulas along the observation, without the memory of half a d×d matrix a component."""
    rng = np.random.default_rng(0)
    weights, means, factors = np.full(10, 0.1), rng.standard_normal((10, d)), rng.standard_normal((10, d, 12))
    law = GaussianMixture.low_rank(weights, means, factors, 0.01)
    operator = np.eye(d)[:: d // 40][:40] + 0.1 * rng.standard_normal((40, d))
    observation = rng.standard_normal(40)
    tracemalloc.start()
    posterior = law.conditioned(operator, observation, 0.05)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * d * d * 8 / 2
    assert "lowrank" in repr(posterior)
    seen = operator @ factors @ np.swapaxes(operator @ factors, 1, 2) + 0.01 * operator @ operator.T
    total = seen + 0.05 * np.eye(40)
    residuals = observation - means @ operator.T
    solved = np.linalg.solve(total, residuals[:, :, None])
    assert_close(posterior.means @ operator.T, means @ operator.T + (seen @ solved)[:, :, 0], rtol=1e-8, atol=1e-8)
    shrunk = seen - seen @ np.linalg.solve(total, seen)
    along = operator @ posterior.groups[0].covariances.apply(np.broadcast_to(operator, (10, 40, d))).swapaxes(1, 2)
    assert_close(along, shrunk, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["full", "isotropic", "low_rank"])
def test_the_dense_form_is_the_factorised_one(name):
    """Assert that the Joseph form, taken where derivatives are traced, has the same values."""
    law, (operator, observation) = LAWS[name], problem(2)
    traced = torch.tensor(operator, requires_grad=True)
    same(
        tuple(v.detach() for v in parts(tensors(law), traced, torch.tensor(observation), 0.2)),
        parts(law, operator, observation, 0.2),
    )


def tensors(law: GaussianMixture) -> GaussianMixture:
    return GaussianMixture(*map(torch.tensor, (law.weights, law.means, law.covariances)))


def test_derivatives_in_everything_are_differences():
    """Assert torch's derivative of evidence and posterior score along a joint change of A, y, R, w, μ and Σ."""
    (operator, observation), x = problem(2), MEANS[:2]
    changes = [0.1 * np.random.default_rng(i).standard_normal(s) for i, s in enumerate([(2, 4), (2,), (3, 4)])]

    def value(t: Any, convert: Any) -> Any:
        moved = GaussianMixture(
            convert(WEIGHTS) + t * convert(np.array([0.1, -0.1, 0.0])),
            convert(MEANS) + t * convert(changes[2]),
            (1 + t) * convert(MATRICES),
        )
        arguments = (
            convert(operator) + t * convert(changes[0]),
            convert(observation) + t * convert(changes[1]),
            0.2 + 0.1 * t,
        )
        score = moved.conditioned(*arguments).noised(0.5).score(convert(x))
        return moved.log_evidence(*arguments) + score.sum()

    step, zero = 1e-3, torch.tensor(0.0, dtype=torch.float64)
    one, two = (float(value(np.asarray(h), np.asarray) - value(np.asarray(-h), np.asarray)) for h in (step, 2 * step))
    slope = (8 * one - two) / (12 * step)
    assert_close(float(torch.func.grad(lambda t: value(t, torch.tensor))(zero)), slope, rtol=1e-8)
    assert_close(float(torch.func.jvp(lambda t: value(t, torch.tensor), (zero,), (zero + 1,))[1]), slope, rtol=1e-8)
    assert_close(float(jax.jit(jax.grad(lambda t: value(t, jnp.asarray)))(0.0)), slope, rtol=1e-8)


def test_gradient_in_the_observation_keeps_the_factors(monkeypatch):
    """Assert ∇_y log p(y) = −E[S⁻¹(y − Aμ)] by autograd, without the dense form."""
    monkeypatch.setattr(conditioning, "_dense", None)
    law, (operator, observation) = LAWS["low_rank"], problem(2)
    ours = GaussianMixture.low_rank(*map(torch.tensor, (WEIGHTS, MEANS, FACTORS, VARIANCES[:, 0])))
    y = torch.tensor(observation, requires_grad=True)
    (gradient,) = torch.autograd.grad(ours.log_evidence(torch.tensor(operator), y, 0.2), y)
    weights = joint(law, operator, observation, 0.2)[0]
    seen = operator @ law.covariances @ operator.T + 0.2 * np.eye(2)
    solved = np.linalg.solve(seen, (observation - law.means @ operator.T)[:, :, None])[:, :, 0]
    assert_close(gradient, -weights @ solved, rtol=1e-10)


def test_bayes_rule_holds_under_vmap_and_jit():
    """Assert evidence and posterior mean for a batch of observations mapped by torch and compiled by JAX."""
    law, (operator, _), batch = LAWS["full"], problem(2), problem(5, d=2)[0]
    truth = np.stack([float(law.log_evidence(operator, y, 0.2)) for y in batch])
    mapped = torch.func.vmap(lambda y: tensors(law).log_evidence(torch.tensor(operator), y, 0.2))(torch.tensor(batch))
    assert_close(mapped, truth, rtol=1e-12)
    in_jax = GaussianMixture(*map(jnp.array, (law.weights, law.means, law.covariances)))
    compiled = jax.jit(lambda y: in_jax.log_evidence(jnp.array(operator), y, 0.2))(jnp.array(batch[0]))
    assert_close(float(compiled), truth[0], rtol=1e-10)


A, Y = problem(2)
BAD: list[tuple[Any, type[Exception], str]] = [
    ((A[0], Y, 1.0), ValueError, r"operator has shape \(4,\)"),
    ((A[:, :3], Y, 1.0), ValueError, "operator has shape"),
    ((A, Y[:1], 1.0), ValueError, r"observation has shape \(1,\)"),
    ((A, Y * np.nan, 1.0), ValueError, "observation contains values that are not finite"),
    ((A, Y, -1.0), ValueError, "noise_covariance contains a negative value"),
    ((A, Y, np.ones(3)), ValueError, r"noise_covariance has shape \(3,\)"),
    ((A, Y, np.array([[1.0, 0.5], [0.0, 1.0]])), ValueError, "noise_covariance are not symmetric"),
    ((A, Y, -np.eye(2)), ValueError, "noise_covariance: not positive semi-definite"),
    ((torch.tensor(A), Y, 1.0), TypeError, "one library"),
    ((A, Y.astype("float32"), 1.0), TypeError, "dtype"),
    ((A[[0, 0]], Y, 0.0), ValueError, "only 1 independent rows"),
    ((0 * A, Y, 0.0), ValueError, "independent rows"),
    ((A, Y, LAWS["full"]), ValueError, "the noise law's means has shape"),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_observations_are_refused_with_a_reason(arguments, kind, message):
    """Assert the sentence that quotes the argument."""
    with pytest.raises(kind, match=message):
        LAWS["full"].conditioned(*arguments)


@pytest.mark.parametrize("name", ["empirical", "full", "rank_only"])
def test_exact_observations_of_laws_without_variance_are_refused(name):
    """Assert that points, and a singular component seen in too many directions, have no density without noise."""
    operator, observation = problem(3)
    with pytest.raises(ValueError, match=r"zero in a direction in which component \d of the law has no variance"):
        LAWS[name].conditioned(operator, observation, 0.0)
    if name == "full":
        with pytest.raises(ValueError, match="has no variance"):
            tensors(LAWS[name]).conditioned(torch.tensor(operator, requires_grad=True), observation.tolist(), 0.0)
