"""The exactly trained network: every value by a second route, its limits, its flows, and what it refuses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from support.close import assert_close
from sympy.simplify.fu import TR8

from oracles import features
from oracles.empirical import EmpiricalLaw
from oracles.features import Contamination, Displacement, FeatureDenoiser, FittedDenoiser, Reweighting, moving, removal

RNG = np.random.default_rng(22)
FREQUENCIES = np.array([[1.3, -0.4], [0.2, 1.7], [-0.9, 0.8], [2.0, 0.5], [0.0, 0.0]])
PHASES = np.array([0.3, -1.0, 2.0, 0.7, 0.0])
POINTS = RNG.standard_normal((7, 2)) + 0.3
WEIGHTS = np.array([0.1, 0.2, 0.05, 0.25, 0.1, 0.2, 0.1])
TOWARD, TOWARD_WEIGHTS = RNG.standard_normal((3, 2)), np.array([0.5, 0.2, 0.3])
DISPLACEMENTS = RNG.standard_normal((7, 2))
STATES, SIGMA, RIDGE = RNG.standard_normal((4, 2)), 0.6, 1e-2
LATENTS = 4.0 * RNG.standard_normal((3, 2))


def skip(sigma: Any) -> Any:
    """A skip that no data enter."""
    return 0.8 / (0.8 + sigma * sigma)


NETWORK = FeatureDenoiser(FREQUENCIES, PHASES, RIDGE, skip)
FITTED = NETWORK.fit(POINTS, WEIGHTS)


def hermite(dimension: int, count: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, d) and weights of the standard normal law."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(count)
    grid = np.stack(np.meshgrid(*[nodes] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)
    masses = np.stack(np.meshgrid(*[mass / mass.sum()] * dimension, indexing="ij"), axis=-1)
    return grid, masses.reshape(-1, dimension).prod(axis=1)


def by_quadrature(frequencies, phases, points, weights, sigma) -> tuple[np.ndarray, np.ndarray]:
    """G and B from their definitions, the expectation over noise by Gauss–Hermite quadrature."""
    noise, mass = hermite(points.shape[1])
    x = points[:, None, :] + sigma * noise
    waves = np.cos(x @ frequencies.T + phases)
    gram = np.einsum("i,e,iej,iek->jk", weights, mass, waves, waves)
    miss = points[:, None, :] - skip(sigma) * x
    return gram, np.einsum("i,e,ied,iek->dk", weights, mass, miss, waves)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.5])
@pytest.mark.parametrize("dimension", [1, 2])
def test_expectations_are_those_of_quadrature(dimension, sigma):
    """Assert G, B and hence W against Gauss–Hermite quadrature of their definitions."""
    frequencies, points = FREQUENCIES[:, :dimension], POINTS[:, :dimension]
    level = FeatureDenoiser(frequencies, PHASES, RIDGE, skip).fit(points, WEIGHTS).noised(sigma)
    gram, target = by_quadrature(frequencies, PHASES, points, WEIGHTS, sigma)
    assert_close(level.level.gram(0), gram, rtol=1e-12, atol=1e-13)
    assert_close(level.level.target(0), target, rtol=1e-11, atol=1e-13)
    assert_close(level.coefficients, np.linalg.solve(gram + RIDGE * np.eye(5), target.T).T, rtol=1e-9, atol=1e-10)


def test_expectations_are_those_of_symbolic_integration():
    """Assert G and B of two features and one point on the line against SymPy's integrals, to twelve digits.

    SymPy turns products of cosines into sums and integrates `eⁿ cos(p + q e)` against the normal density, n = 0, 1.
    """
    e, p, q = sympy.symbols("e p q", real=True)
    density = sympy.exp(-(e**2) / 2) / sympy.sqrt(2 * sympy.pi)
    waves = [sympy.expand_trig(e**n * sympy.cos(p + q * e)) for n in (0, 1)]
    integrals = [sympy.integrate(sympy.expand(w * density), (e, -sympy.oo, sympy.oo)) for w in waves]

    def expected(expression: sympy.Expr) -> float:
        terms = sympy.Add.make_args(sympy.expand(TR8(sympy.expand(expression))))
        return float(sum(_term(term) for term in terms))

    def _term(term: sympy.Expr) -> sympy.Expr:
        (wave,) = term.atoms(sympy.cos) or (sympy.Integer(1),)
        factor = sympy.Poly(term / wave, e)
        (power,) = factor.monoms()[0]
        angle = sympy.expand(wave.args[0]) if wave.args else sympy.Integer(0)
        return factor.coeffs()[0] * sympy.N(integrals[power].subs({p: angle.coeff(e, 0), q: angle.coeff(e, 1)}), 30)

    point, sigma, c = sympy.Rational(1, 3), sympy.Rational(1, 2), sympy.Rational(80, 105)
    x = point + sigma * e
    features_of_x = [
        sympy.cos(sympy.Rational(3, 2) * x + sympy.Rational(1, 2)),
        sympy.cos(sympy.Rational(-2, 3) * x + 2),
    ]
    gram = [[expected(one * other) for other in features_of_x] for one in features_of_x]
    target = [[expected((point - c * x) * wave) for wave in features_of_x]]
    level = FeatureDenoiser([[1.5], [-2 / 3]], [0.5, 2.0], RIDGE, skip).fit([[1 / 3]]).noised(0.5).level
    assert_close(level.gram(0), np.array(gram), rtol=1e-12, atol=1e-14)
    assert_close(level.target(0), np.array(target), rtol=1e-12, atol=1e-14)


class Digits:
    """The network in mpmath with fifty digits, sums over points and both signs written out, at one level."""

    def __init__(self, frequencies: Any, phases: Any, ridge: float, sigma: float, variance: float = 0.8):
        self.omega = [[mp.mpf(float(v)) for v in row] for row in frequencies]
        self.phases, self.ridge, self.sigma = [mp.mpf(float(v)) for v in phases], mp.mpf(ridge), mp.mpf(sigma)
        self.skip = mp.mpf(variance) / (mp.mpf(variance) + self.sigma**2)

    def _angle(self, j: int, x: Any) -> Any:
        return mp.fdot(self.omega[j], x) + self.phases[j]

    def score(self, x: Any, points: Any, weights: Any) -> Any:
        """(D(x) − x)/σ² trained on points with weights of either sign, as a column."""
        m, d, s2 = len(self.phases), len(x), self.sigma**2
        gram, target = mp.zeros(m, m), mp.zeros(d, m)
        for w, y in zip(weights, points, strict=True):
            for j in range(m):
                damping = mp.exp(-s2 * mp.fdot(self.omega[j], self.omega[j]) / 2)
                for a in range(d):
                    target[a, j] += w * damping * (1 - self.skip) * y[a] * mp.cos(self._angle(j, y))
                    target[a, j] += w * damping * self.skip * s2 * self.omega[j][a] * mp.sin(self._angle(j, y))
                for k in range(m):
                    for sign in (1, -1):
                        both = [p + sign * q for p, q in zip(self.omega[j], self.omega[k], strict=True)]
                        wave = mp.cos(self._angle(j, y) + sign * self._angle(k, y))
                        gram[j, k] += w * mp.exp(-s2 * mp.fdot(both, both) / 2) * wave / 2
        waves = mp.matrix([mp.cos(self._angle(j, x)) for j in range(m)])
        answer = target * mp.lu_solve(gram + self.ridge * mp.eye(m), waves)
        return (self.skip * mp.matrix(x) + answer - mp.matrix(x)) / s2


def exact(values: Any) -> list[Any]:
    return [[mp.mpf(float(v)) for v in row] for row in values] if np.ndim(values) == 2 else [mp.mpf(v) for v in values]


def floats(column: Any) -> np.ndarray:
    return np.array([float(v) for v in column])


def differences(path: Any, order: int, digits: int = 50) -> np.ndarray:
    """The derivative of `order` at 0 of a function of η with fifty digits, by central differences of step 1e-12."""
    with mp.workdps(digits):
        step = mp.mpf(10) ** -9
        offsets = [mp.mpf(order) / 2 - i for i in range(order + 1)]
        terms = [(-1) ** i * mp.binomial(order, i) * path(h * step) for i, h in enumerate(offsets)]
        return floats(sum(terms[1:], terms[0]) / step**order)


@pytest.mark.parametrize("sigma", [0.05, 0.6, 3.0])
def test_score_is_that_of_fifty_digits(sigma):
    """Assert the score against mpmath."""
    with mp.workdps(50):
        network = Digits(FREQUENCIES, PHASES, RIDGE, sigma)
        truth = [floats(network.score(exact([x])[0], exact(POINTS), exact(WEIGHTS))) for x in STATES[:2]]
    assert_close(FITTED.score(STATES[:2], sigma), np.stack(truth), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1e2, 1e4])
def test_extreme_levels_are_those_of_fifty_digits(sigma):
    """Assert the score and its derivative with the default skip from σ = 1e-6 to 1e4, where 1 − c would cancel."""
    fitted = FeatureDenoiser(FREQUENCIES, PHASES, RIDGE).fit(POINTS, WEIGHTS)
    states = STATES[:1] * max(1.0, sigma)
    with mp.workdps(50):
        network = Digits(FREQUENCIES, PHASES, RIDGE, sigma, float(fitted.variance))
        points, base, new = exact(np.concatenate([POINTS, TOWARD])), exact(WEIGHTS), exact(TOWARD_WEIGHTS)

        def path(eta: Any) -> Any:
            return network.score(exact(states)[0], points, [(1 - eta) * w for w in base] + [eta * w for w in new])

        score, slope = floats(path(mp.mpf(0))), differences(path, 1)
    assert_close(fitted.score(states, sigma)[0], score, rtol=1e-9, atol=1e-10 * float(np.abs(score).max()))
    value = fitted.score_derivative(states, sigma, TOWARD, TOWARD_WEIGHTS)[0]
    assert_close(value, slope, rtol=1e-8, atol=1e-9 * float(np.abs(slope).max()))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_toward_points_are_differences_of_fifty_digits(order):
    """Assert ∂ⁿs/∂ηⁿ toward points, at η = 0, against central differences in η of step 1e-9."""
    with mp.workdps(50):
        network, x = Digits(FREQUENCIES, PHASES, RIDGE, SIGMA), exact(STATES[:1])[0]
        points, base, new = exact(np.concatenate([POINTS, TOWARD])), exact(WEIGHTS), exact(TOWARD_WEIGHTS)

        def path(eta: Any) -> Any:
            return network.score(x, points, [(1 - eta) * w for w in base] + [eta * w for w in new])

        truth = differences(path, order)
    value = FITTED.score_derivative(STATES[:1], SIGMA, TOWARD, TOWARD_WEIGHTS, order)[0]
    assert_close(value, truth, rtol=1e-9, atol=1e-9 * float(np.abs(truth).max()))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_moving_points_are_differences_of_fifty_digits(order):
    """Assert ∂ⁿs/∂ηⁿ of displaced points against central differences in η of step 1e-9."""
    with mp.workdps(50):
        network, x = Digits(FREQUENCIES, PHASES, RIDGE, SIGMA), exact(STATES[:1])[0]
        points, speeds, weights = exact(POINTS), exact(DISPLACEMENTS), exact(WEIGHTS)

        def path(eta: Any) -> Any:
            moved = [[a + eta * b for a, b in zip(*pair, strict=True)] for pair in zip(points, speeds, strict=True)]
            return network.score(x, moved, weights)

        truth = differences(path, order)
    value = moving(FITTED, DISPLACEMENTS).score_derivative(STATES[:1], SIGMA, order)[0]
    assert_close(value, truth, rtol=1e-9, atol=1e-9 * float(np.abs(truth).max()))


def paths(base: FittedDenoiser) -> dict[str, Any]:
    """One path of each kind."""
    rates = np.array([0.3, -0.1, 0.1, -0.2, 0.05, -0.05, -0.1])
    return {
        "contamination": Contamination(base, TOWARD, TOWARD_WEIGHTS),
        "reweighting": Reweighting(base, rates),
        "removal": removal(base, [1, 4])[0],
        "moving": Displacement(base, DISPLACEMENTS),
    }


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["contamination", "reweighting", "removal", "moving"])
def test_derivatives_away_from_zero_are_differences_of_retrained_networks(name, order):
    """Assert ∂ⁿs^η at η = .1 against fourth-order differences of the next lower derivative, of retraining for n = 1."""
    path, eta, step = paths(FITTED)[name], 0.1, 1e-3

    def lower(at: float) -> np.ndarray:
        if order == 1:
            return path.at(at).score(STATES, SIGMA)
        return path.score_derivative(STATES, SIGMA, order - 1, at)

    one, two = (lower(eta + k * step) - lower(eta - k * step) for k in (1, 2))
    truth = (8 * one - two) / (12 * step)
    value = path.score_derivative(STATES, SIGMA, order, eta)
    assert_close(value, truth, rtol=1e-8, atol=1e-8 * float(np.abs(truth).max()))


def test_derivative_toward_points_is_the_sum_over_them():
    """Assert linearity in ν: the derivative toward points is the mean of those toward each."""
    parts = [w * FITTED.score_derivative(STATES, SIGMA, y[None]) for w, y in zip(TOWARD_WEIGHTS, TOWARD, strict=True)]
    assert_close(FITTED.score_derivative(STATES, SIGMA, TOWARD, TOWARD_WEIGHTS), sum(parts), rtol=1e-11, atol=1e-12)


def test_splitting_and_permuting_points_changes_nothing():
    """Assert the same score and derivative from doubled points with half the weights, in another order."""
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    points, weights = np.concatenate([POINTS, POINTS[order]]), np.concatenate([WEIGHTS, WEIGHTS[order]]) / 2
    other = NETWORK.fit(points, weights)
    assert_close(other.score(STATES, SIGMA), FITTED.score(STATES, SIGMA), rtol=1e-11)
    assert_close(
        other.score_derivative(STATES, SIGMA, TOWARD), FITTED.score_derivative(STATES, SIGMA, TOWARD), rtol=1e-9
    )


def test_blocks_of_points_change_nothing(monkeypatch):
    """Assert the same moments from points and pairs of frequencies taken a few at a time."""
    monkeypatch.setattr("oracles.features._moments.BLOCK", 10)
    other = FeatureDenoiser(FREQUENCIES, PHASES, RIDGE, skip).fit(POINTS, WEIGHTS)
    assert_close(other.score(STATES, SIGMA), FITTED.score(STATES, SIGMA), rtol=1e-12)


def test_removal_is_training_without_the_points():
    """Assert that the path's end is the network trained on what is left."""
    path, eta = removal(FITTED, [1, 4])
    kept = np.array([0, 2, 3, 5, 6])
    other = NETWORK.fit(POINTS[kept], WEIGHTS[kept] / WEIGHTS[kept].sum())
    assert_close(path.at(eta).score(STATES, SIGMA), other.score(STATES, SIGMA), rtol=1e-11)


def test_gradient_of_the_loss_vanishes_at_the_fit():
    """Assert that no change of W lowers the denoising loss, drawn with common noise: a Monte-Carlo statement.

    At the minimum `E (x_i − D) φᵀ = λ W`; forty thousand draws, five standard errors.
    """
    rng, count = np.random.default_rng(3), 40_000
    clean = POINTS[rng.choice(7, count, p=WEIGHTS)]
    x = clean + SIGMA * rng.standard_normal(clean.shape)
    terms = (clean - FITTED.denoiser(x, SIGMA))[:, :, None] * NETWORK.features(x)[:, None, :]
    error = terms.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(terms.mean(axis=0) - RIDGE * FITTED.coefficients(SIGMA)) <= 5 * error)


def test_infinite_ridge_leaves_the_skip():
    """Assert D → c x as λ grows, at the rate 1/λ."""
    gaps = [
        np.abs(
            FeatureDenoiser(FREQUENCIES, PHASES, ridge, skip).fit(POINTS).denoiser(STATES, SIGMA) - skip(SIGMA) * STATES
        )
        for ridge in (1e6, 1e8)
    ]
    assert gaps[0].max() < 1e-5
    assert_close(gaps[1] * 100, gaps[0], rtol=1e-4)


def test_default_skip_is_that_of_the_variance_and_stays():
    """Assert c = v/(v + σ²) with v of the first data, also after retraining."""
    fitted = FeatureDenoiser(FREQUENCIES, PHASES, 1e9).fit(POINTS, WEIGHTS)
    mean = WEIGHTS @ POINTS
    variance = float(WEIGHTS @ ((POINTS - mean) ** 2).sum(axis=1)) / 2
    expected = variance / (variance + SIGMA**2) * STATES
    assert_close(fitted.denoiser(STATES, SIGMA), expected, rtol=1e-7, atol=1e-8)
    assert_close(fitted.at(0.5, 10 * TOWARD).denoiser(STATES, SIGMA), expected, rtol=1e-7, atol=1e-6)


def test_more_features_approach_the_empirical_denoiser():
    """Assert that the mean squared distance to E[X | x] under noised points falls eightfold at each step, to 1e-7."""
    points, sigma = np.array([[-1.2], [0.1], [0.9]]), 0.4
    noise, mass = hermite(1, 40)
    x = points[:, None, :] + sigma * noise
    truth = EmpiricalLaw(points).denoiser(x, sigma)
    errors = []
    for count in (4, 8, 16, 32):
        omega = np.arange(count)[:, None] * 0.6  # the cosines and sines of a series
        network = FeatureDenoiser(np.concatenate([omega, omega]), np.repeat([0.0, -np.pi / 2], count), 1e-9)
        miss = np.sum((network.fit(points).denoiser(x, sigma) - truth) ** 2, axis=-1)
        errors.append(float(np.mean(miss @ mass)))
    assert all(fine < coarse / 8 for coarse, fine in pairwise(errors))
    assert errors[-1] < 1e-7


def test_random_features_are_those_of_the_kernel():
    """Assert `2 mean_j φ_j(x) φ_j(y) → exp(−|x − y|²/2ℓ²)`, four thousand features, five standard errors."""
    network = FeatureDenoiser.random(4000, 2, length=0.7, ridge=1.0, seed=4)
    x, y = network.features(STATES[0]), network.features(STATES[0] + np.array([0.4, -0.3]))
    products = 2 * x * y
    assert abs(products.mean() - np.exp(-0.25 / (2 * 0.49))) < 5 * products.std() / np.sqrt(4000)


def test_underfitting_is_selective():
    """Assert a fit of the empirical denoiser inside the shells that is a tenth of the error outside, in d = 6."""
    rng, sigma = np.random.default_rng(8), 0.5
    points = rng.standard_normal((12, 6))
    law = EmpiricalLaw(points)
    fitted = FeatureDenoiser.random(400, 6, length=1.5, ridge=1e-6, seed=1).fit(points)
    noise = sigma * rng.standard_normal((200, 6))
    inside = points[rng.integers(12, size=200)] + noise
    outside = rng.standard_normal((200, 6)) * 1.5 + noise
    gaps = [
        np.mean(np.sum((fitted.denoiser(x, sigma) - law.denoiser(x, sigma)) ** 2, axis=1)) for x in (inside, outside)
    ]
    assert gaps[0] < 0.1 * gaps[1]


def test_library_derivatives_along_eta_are_the_derivative():
    """Assert ṡ and s̈ toward points against (nested) forward mode of torch and JAX through exact retraining."""
    first, second = (FITTED.score_derivative(STATES, SIGMA, TOWARD, TOWARD_WEIGHTS, n, 0.2) for n in (1, 2))

    def along(convert: Any) -> Any:
        fitted = FeatureDenoiser(convert(FREQUENCIES), convert(PHASES), RIDGE, skip).fit(
            *map(convert, (POINTS, WEIGHTS))
        )
        return lambda eta: fitted.at(eta, convert(TOWARD), convert(TOWARD_WEIGHTS)).score(convert(STATES), SIGMA)

    in_jax = jax.jvp(along(jnp.array), (0.2,), (1.0,))[1]
    assert_close(np.asarray(in_jax), first, rtol=1e-9, atol=1e-10)
    eta, one = torch.tensor(0.2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)

    def slope(at: Any) -> Any:
        return torch.func.jvp(along(torch.tensor), (at,), (one,))[1]

    assert_close(slope(eta), first, rtol=1e-9, atol=1e-10)
    assert_close(torch.func.jvp(slope, (eta,), (one,))[1], second, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["reweighting", "removal", "moving"])
def test_sample_sensitivities_are_differences_of_retrained_flows(name):
    """Assert δ and ζ against fourth-order central differences of flows of exactly retrained networks."""
    path, step = paths(FITTED)[name], 1e-2
    samples, first = path.sample_sensitivity(LATENTS, 4.0, 0.2)
    second = path.sample_sensitivity(LATENTS, 4.0, 0.2, order=2)[1]
    at = {k: path.sample(LATENTS, k * step, 4.0, 0.2) for k in (-3, -2, -1, 0, 1, 2, 3)}
    odd = [at[k] - at[-k] for k in (1, 2, 3)]
    even = [at[k] - 2 * at[0] + at[-k] for k in (1, 2, 3)]
    assert_close(samples, at[0], rtol=1e-11, atol=1e-11)
    slope = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * step)
    bend = (270 * even[0] - 27 * even[1] + 2 * even[2]) / (180 * step**2)
    assert_close(first, slope, rtol=1e-6, atol=1e-6 * float(np.abs(slope).max()))
    assert_close(second, bend, rtol=1e-5, atol=1e-5 * float(np.abs(bend).max()))


def test_sensitivity_toward_points_is_a_difference_of_flows():
    """Assert dx/dη at η = .3, where both signs of a step are legal, against a central difference of retrained flows."""
    base, eta, step = FITTED.at(0.3, TOWARD, TOWARD_WEIGHTS), 0.3, 1e-4
    rates = np.concatenate([-WEIGHTS, TOWARD_WEIGHTS])
    first = Reweighting(base, rates).sample_sensitivity(LATENTS, 4.0, 0.2)[1]
    ends = [FITTED.at(eta + s * step, TOWARD, TOWARD_WEIGHTS).sample(LATENTS, 4.0, 0.2) for s in (1, -1)]
    assert_close(first, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-6 * float(np.abs(first).max()))


def test_influence_is_the_forward_sensitivity_of_every_point():
    """Assert the adjoint's φ̇ toward each point against ∇φ·δ of the forward solve, and a mean of zero."""
    values = FITTED.influence(LATENTS, np.cos, 4.0, 0.2)
    assert values.shape == (3, 7)
    for i, point in enumerate(POINTS):
        samples, delta = FITTED.sample_sensitivity(LATENTS, point[None], 4.0, 0.2)
        truth = np.sum(np.cos(samples) * delta, axis=1)
        assert_close(values[:, i], truth, rtol=1e-9, atol=1e-9 * float(np.abs(values).max()))
    assert np.abs(values @ WEIGHTS).max() < 1e-12 * np.abs(values).max()


def test_influence_takes_arrays_other_points_and_any_shape():
    """Assert equal values from a gradient given as an array, for stacked latents, and toward other points."""
    samples = FITTED.sample(LATENTS, 4.0, 0.2)
    values = FITTED.influence(LATENTS, np.cos, 4.0, 0.2, points=TOWARD)
    assert_close(FITTED.influence(LATENTS, np.cos(samples), 4.0, 0.2, points=TOWARD), values, rtol=1e-9)
    one = FITTED.influence(LATENTS[0], np.cos, 4.0, 0.2, points=TOWARD)
    assert_close(one, values[0], rtol=1e-8, atol=1e-9)
    delta = FITTED.sample_sensitivity(LATENTS, TOWARD, 4.0, 0.2, toward_weights=TOWARD_WEIGHTS)[1]
    assert_close(values @ TOWARD_WEIGHTS, np.sum(np.cos(samples) * delta, axis=1), rtol=1e-9, atol=1e-10)


def test_small_blocks_of_latents_give_the_same_influence(monkeypatch):
    """Assert independence of how latents are grouped, to the solver's tolerance."""
    values = FITTED.influence(LATENTS, np.cos, 4.0, 0.2)
    monkeypatch.setattr("oracles.features._influence.STATE", 1)
    assert_close(FITTED.influence(LATENTS, np.cos, 4.0, 0.2), values, rtol=1e-8, atol=1e-9)


def test_what_is_kept_belongs_to_no_graph():
    """Assert two backward passes through one network, gradients after a pass without them, and use in and after jit."""
    points = torch.tensor(POINTS, requires_grad=True)
    fitted = FeatureDenoiser(torch.tensor(FREQUENCIES), torch.tensor(PHASES), RIDGE, skip).fit(points)
    with torch.no_grad():
        fitted.score(torch.tensor(STATES), SIGMA)
    gradients = [torch.autograd.grad(fitted.score(torch.tensor(STATES), SIGMA).sum(), points)[0] for _ in range(2)]
    assert_close(gradients[0], gradients[1], rtol=1e-12)
    assert float(gradients[0].abs().max()) > 0
    ours = FeatureDenoiser(jnp.array(FREQUENCIES), jnp.array(PHASES), RIDGE, skip).fit(jnp.array(POINTS))
    compiled = jax.jit(lambda x: ours.score(x, SIGMA))(jnp.array(STATES))
    assert_close(np.asarray(ours.score(jnp.array(STATES), SIGMA)), np.asarray(compiled), rtol=1e-10, atol=1e-12)


def test_torch_latents_give_torch_results():
    """Assert kind and values of samples, sensitivities and influence for a network in torch."""
    network = FeatureDenoiser(torch.tensor(FREQUENCIES), torch.tensor(PHASES), RIDGE, skip)
    fitted, latents = network.fit(torch.tensor(POINTS), torch.tensor(WEIGHTS)), torch.tensor(LATENTS)
    samples, delta = fitted.sample_sensitivity(latents, torch.tensor(TOWARD), 4.0, 0.2)
    values = fitted.influence(latents, torch.cos, 4.0, 0.2)
    assert {type(v) for v in (samples, delta, values)} == {torch.Tensor}
    assert_close(samples, FITTED.sample(LATENTS, 4.0, 0.2), rtol=1e-10)
    assert_close(values, FITTED.influence(LATENTS, np.cos, 4.0, 0.2), rtol=1e-9, atol=1e-10)


def test_the_optimal_scores_derivative_is_not_the_networks():
    """Assert that `r (s^ν − s)` of the points' law differs from ṡ by more than half: the network is no optimum."""
    law, new = (EmpiricalLaw(*pair).noised(SIGMA) for pair in ((POINTS, WEIGHTS), (TOWARD, TOWARD_WEIGHTS)))
    ratio = np.exp(new.log_density(STATES) - law.log_density(STATES))[:, None]
    population = ratio * (new.score(STATES) - law.score(STATES))
    actual = FITTED.score_derivative(STATES, SIGMA, TOWARD, TOWARD_WEIGHTS)
    assert np.linalg.norm(population - actual) > 0.5 * np.linalg.norm(actual)


def test_the_condition_number_is_that_of_numpy():
    """Assert cond(G + λI) by singular values of the quadrature's matrix."""
    gram, _ = by_quadrature(FREQUENCIES, PHASES, POINTS, WEIGHTS, SIGMA)
    assert_close(FITTED.condition(SIGMA), float(np.linalg.cond(gram + RIDGE * np.eye(5))), rtol=1e-9)


NEARLY_EQUAL = np.array([[1.0, 0.0], [1.0 + 1e-6, 1e-6], [0.5, 1.0], [0.5, 1.0 + 1e-3]])


@pytest.mark.parametrize("ridge", [1e-6, 1e-8])
def test_rounding_stays_within_the_stated_accuracy(ridge):
    """Assert that an ill-conditioned answer errs by less than `eps · condition`, which is within the accuracy."""
    network = FeatureDenoiser(NEARLY_EQUAL, PHASES[:1].repeat(4), ridge, skip)
    fitted = network.fit(POINTS, WEIGHTS)
    stated = np.finfo(float).eps * fitted.condition(0.1)
    with mp.workdps(50):
        truth = floats(
            Digits(NEARLY_EQUAL, PHASES[:1].repeat(4), ridge, 0.1).score(
                exact(STATES)[0], exact(POINTS), exact(WEIGHTS)
            )
        )
    assert stated < network.accuracy
    assert np.abs(fitted.score(STATES[0], 0.1) - truth).max() < stated * np.abs(truth).max()


def test_an_answer_spoilt_by_rounding_is_refused():
    """Assert the message with level, condition number and remedy, also inside a flow."""
    fitted = FeatureDenoiser(NEARLY_EQUAL, PHASES[:1].repeat(4), 1e-12, skip).fit(POINTS)
    message = r"at sigma = 0.1 the condition number of G \+ ridge I is .*: rounding may change .* raise ridge"
    with pytest.raises(ValueError, match=message):
        fitted.score(STATES, 0.1)
    with pytest.raises(ValueError, match="condition number"):
        fitted.sample(LATENTS, 4.0, 0.1)
    loose = FeatureDenoiser(NEARLY_EQUAL, PHASES[:1].repeat(4), 1e-12, skip, accuracy=0.5).fit(POINTS)
    assert np.all(np.isfinite(loose.score(STATES, 0.1)))


@pytest.mark.parametrize("d", [784, 3072])
def test_images_are_within_reach(d):
    """Assert derivative and influence for low-rank images with noise, against retraining and the forward solve."""
    rng = np.random.default_rng(4)
    points = rng.standard_normal((60, 5)) @ rng.standard_normal((5, d)) + 0.1 * rng.standard_normal((60, d))
    fitted = FeatureDenoiser.random(12, d, length=3 * np.sqrt(d), ridge=1e-3, seed=2).fit(points)
    x, step = points[:2] + 2.0 * rng.standard_normal((2, d)), 1e-4
    path = Reweighting(fitted, np.eye(60)[7] - 1 / 60)
    moved = (path.at(step).score(x, 2.0) - path.at(-step).score(x, 2.0)) / (2 * step)
    value = fitted.score_derivative(x, 2.0, points[7:8])
    assert_close(value, moved, rtol=1e-5, atol=1e-6 * float(np.abs(value).max()))
    latents = 40.0 * rng.standard_normal((2, d))
    values = fitted.influence(latents, np.ones_like(latents), 40.0, 1.0)
    delta = fitted.sample_sensitivity(latents, points[7:8], 40.0, 1.0)[1]
    assert_close(values[:, 7], delta.sum(axis=1), rtol=1e-7, atol=1e-8 * float(np.abs(values).max()))


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: FeatureDenoiser([1.0], [0.0], 1.0), ValueError, r"frequencies has shape \(1,\)"),
    (lambda: FeatureDenoiser([[1.0]], [0.0, 1.0], 1.0), ValueError, r"phases has shape \(2,\)"),
    (lambda: FeatureDenoiser([[np.nan]], [0.0], 1.0), ValueError, "frequencies contains values that are not finite"),
    (lambda: FeatureDenoiser([[1.0]], [0.0], 0.0), ValueError, "ridge = 0.0 must be positive"),
    (lambda: FeatureDenoiser([[1.0]], [0.0], 1.0, skip=0.5), TypeError, "skip must be a function of sigma"),
    (lambda: FeatureDenoiser([[1.0]], [0.0], 1.0, accuracy=2.0), ValueError, "accuracy = 2.0 must lie between"),
    (lambda: FeatureDenoiser.random(3, 1, 0.0, 1.0, 0), ValueError, "length = 0.0 must be positive"),
    (lambda: NETWORK.fit(POINTS[:, :1]), ValueError, "points has shape"),
    (lambda: NETWORK.fit(POINTS[0]), ValueError, "points has shape"),
    (lambda: NETWORK.fit(POINTS, WEIGHTS[:3]), ValueError, "weights has shape"),
    (lambda: NETWORK.fit(POINTS, 2 * WEIGHTS), ValueError, "weights sum to 2"),
    (lambda: NETWORK.fit(torch.tensor(POINTS)), TypeError, "one library"),
    (lambda: FITTED.score(STATES, -1.0), ValueError, "sigma = -1.0 must be positive"),
    (lambda: FITTED.score(STATES[:, :1], 1.0), ValueError, "x has shape"),
    (lambda: FITTED.score_derivative(STATES, 1.0, TOWARD, order=0), ValueError, "order = 0 must be a positive integer"),
    (lambda: FITTED.score_derivative(STATES, 1.0, TOWARD[:, :1]), ValueError, "toward has shape"),
    (lambda: FITTED.at(-0.1, TOWARD), ValueError, r"eta = -0.1 leaves \[0, 1\].* see removal"),
    (lambda: FITTED.sample(LATENTS, 0.1, 4.0), ValueError, "sigma_max = 0.1"),
    (lambda: FITTED.sample_sensitivity(LATENTS, TOWARD, 4.0, 0.2, 3), ValueError, "order = 3 must be 1 or 2"),
    (lambda: FITTED.influence(LATENTS, LATENTS[0], 4.0, 0.2), ValueError, "functional_gradient has shape"),
    (lambda: FITTED.influence(LATENTS, LATENTS * np.nan, 4.0, 0.2), ValueError, "functional_gradient contains"),
    (lambda: Reweighting(FITTED, WEIGHTS[:2]), ValueError, "rates has shape"),
    (lambda: Reweighting(FITTED, WEIGHTS), ValueError, "rates sum to 1"),
    (lambda: Reweighting(FITTED, WEIGHTS - np.eye(7)[0]).at(0.5), ValueError, "weights contains a negative value"),
    (lambda: Displacement(FITTED, POINTS[:2]), ValueError, "displacements has shape"),
    (lambda: removal(FITTED, [9]), ValueError, "indices must be distinct and between 0 and 6"),
    (lambda: removal(FITTED, list(range(7))), ValueError, "remove some of it, but not all"),
    (lambda: Contamination(NETWORK, TOWARD), TypeError, "base must be a FittedDenoiser"),
    (
        lambda: FeatureDenoiser([[1.0]], [0.0], 1.0, skip=lambda s: [s, s]).fit([[1.0]]).score([1.0], 1.0),
        TypeError,
        "skip",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input_is_refused_with_a_reason(call, kind, message):
    """Assert the sentence that quotes the argument."""
    with pytest.raises(kind, match=message):
        call()


def test_the_module_is_reached_from_the_package():
    """Assert `oracles.features`."""
    assert features.FeatureDenoiser is FeatureDenoiser
