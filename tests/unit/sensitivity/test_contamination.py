"""Sources of perturbations against the oracle, against differences of exact laws, and their algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS
from torch import Tensor

from oracles.mixture import GaussianMixture
from oracles.perturbation import AdditivePerturbation
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Remove, Reweight, Toward
from sensitivity.perturbations.displacement import Move
from sensitivity.perturbations.perturbation import Perturbation

RNG = np.random.default_rng(8)
DATA = RNG.normal(size=(12, 3)) * np.array([0.5, 1.0, 2.0])
NEW = RNG.normal(size=(4, 3)) + 0.5
SHIFT = RNG.normal(size=(4, 3))
LOG_WEIGHTS = RNG.normal(size=4)
BANDWIDTH = 0.6
SIGMA = 0.7


def torched(array: np.ndarray) -> Tensor:
    """A copy as a tensor."""
    return torch.from_numpy(np.array(array))


def smoothed(points: np.ndarray, weights: np.ndarray | None = None) -> GaussianMixture:
    """The oracle's law of points with the common bandwidth."""
    w = np.full(len(points), 1 / len(points)) if weights is None else weights / weights.sum()
    return GaussianMixture.isotropic(w, points, BANDWIDTH**2)


def engine(points: np.ndarray) -> Points:
    """The engine's measure of the same points."""
    return Points(torched(points), bandwidth=BANDWIDTH, block=3)


BASE = smoothed(np.concatenate([DATA, NEW]))
X = BASE.noised(SIGMA).sample(20, 1)


def local(perturbation: Perturbation, law: GaussianMixture = BASE, x: np.ndarray = X) -> tuple[Tensor, Tensor, Tensor]:
    """ṡ, s̈ and `∇ṡ t` at the states, with the oracle's score and log density of the base law."""
    noised = law.noised(SIGMA)
    score, log_density = torched(noised.score(x)), torched(noised.log_density(x))
    tangent = torched(np.cos(x))
    product = torched(noised.score_jacobian_product(x, tangent.numpy()))
    state = torched(x)
    return (
        perturbation.source(state, SIGMA, score, log_density),
        perturbation.second_source(state, SIGMA, score, log_density),
        perturbation.source_product(state, SIGMA, score, product, log_density, tangent),
    )


def differences(law_at, x: np.ndarray = X, step: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """The same by five-point differences of exact laws along `η ↦ law_at(η)`."""
    scores = [law_at(k * step).noised(SIGMA).score(x) for k in (-2, -1, 0, 1, 2)]
    first = np.array([1, -8, 0, 8, -1]) / (12 * step)
    second = np.array([-1, 16, -30, 16, -1]) / (12 * step**2)
    tangent = np.cos(x)
    products = [law_at(k * step).noised(SIGMA).score_jacobian_product(x, tangent) for k in (-2, -1, 0, 1, 2)]
    weighted = [np.tensordot(w, np.stack(v), 1) for w, v in ((first, scores), (second, scores), (first, products))]
    return tuple(torched(v) for v in weighted)


def mixed(eta: float, *parts: tuple[float, np.ndarray]) -> GaussianMixture:
    """`ρ + η Σ_j c_j (ν_j − ρ)` for points laws ν_j, as one mixture (weights may be negative for the difference)."""
    total = sum(c for c, _ in parts)
    weights = [np.full(16, (1 - eta * total) / 16)] + [np.full(len(p), eta * c / len(p)) for c, p in parts]
    means = np.concatenate([DATA, NEW] + [p for _, p in parts])
    return _signed(np.concatenate(weights), means)


def _signed(weights: np.ndarray, means: np.ndarray) -> GaussianMixture:
    """Merge repeated points, so that removed mass lowers the weight of its point."""
    unique, inverse = np.unique(means, axis=0, return_inverse=True)
    merged = np.bincount(inverse.ravel(), weights, len(unique))
    return GaussianMixture.isotropic(merged / merged.sum(), unique, BANDWIDTH**2)


def assert_local(perturbation: Perturbation, law_at) -> None:
    """Compare ṡ, s̈ and `∇ṡ t` with differences of exact laws."""
    for got, wanted, rtol in zip(local(perturbation), differences(law_at), (1e-7, 1e-5, 1e-7), strict=True):
        assert_close(got, wanted, rtol=rtol, atol=rtol * float(wanted.abs().max()))


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_toward_a_mixture_is_the_oracles_derivative(name: str) -> None:
    """Assert that ṡ, s̈ and `∇ṡ t` toward a mixture equal the oracle's to 1e-9."""
    problem = PROBLEMS[name]
    base, toward = GaussianMixture(*problem.base), GaussianMixture(*problem.toward)
    x = base.noised(SIGMA).sample(10, 4)
    first, second, product = local(Toward(Mixture(*map(torched, problem.toward))), base, x)
    oracle = AdditivePerturbation(base, toward)
    scale = float(np.abs(oracle.score_derivative(x, SIGMA)).max())
    assert_close(first, torched(oracle.score_derivative(x, SIGMA)), rtol=1e-9, atol=1e-11 * scale)
    assert_close(second, torched(oracle.score_derivative(x, SIGMA, order=2)), rtol=1e-9, atol=1e-9 * scale)
    assert_close(product, torched(oracle.score_derivative_product(x, SIGMA, np.cos(x))), rtol=1e-9, atol=1e-9 * scale)


def test_toward_points_is_the_derivative_of_adding_them() -> None:
    """Assert that points with a bandwidth give the derivative of the contaminated law."""
    assert_local(Toward(engine(NEW)), lambda eta: mixed(eta, (1.0, NEW)))


def test_remove_is_the_same_direction_with_negative_mass() -> None:
    """Assert that `mass(N)` times the removal is the derivative of taking the points away."""
    share = Remove(engine(NEW)).mass(16)
    assert share == pytest.approx(-4 / 12)
    assert_local(Remove(engine(NEW)) * share, lambda eta: mixed(share * eta, (1.0, NEW)))


def test_removed_law_is_reached_at_its_mass() -> None:
    """Assert that `ρ + mass(N) (ν − ρ)` is exactly the law of the points that are left."""
    law = mixed(Remove(engine(NEW)).mass(16), (1.0, NEW))
    assert_close(law.noised(SIGMA).score(X), smoothed(DATA).noised(SIGMA).score(X), rtol=1e-9)


def test_reweight_reaches_the_reweighted_law() -> None:
    """Assert that masses and `mass(N)` of a reweighting give exactly the reweighted training set."""
    perturbation = Reweight(engine(NEW), torched(LOG_WEIGHTS))
    eta = perturbation.mass(16)
    multipliers = np.concatenate([np.ones(12), np.exp(LOG_WEIGHTS)])
    truth = smoothed(np.concatenate([DATA, NEW]), multipliers).noised(SIGMA).score(X)
    base = BASE.noised(SIGMA)
    score, log_density = torched(base.score(X)), torched(base.log_density(X))
    numerator, denominator = torch.zeros_like(score), torch.ones(len(X), dtype=torch.float64)
    for c, measure in perturbation.masses:
        ratio = (measure.log_density(torched(X), SIGMA) - log_density).exp()
        numerator += eta * c * ratio[:, None] * (measure.score(torched(X), SIGMA) - score)
        denominator += eta * c * (ratio - 1)
    assert_close(score + numerator / denominator[:, None], torched(truth), rtol=1e-9)


def test_reweight_is_the_derivative_of_its_path() -> None:
    """Assert that ṡ, s̈ and `∇ṡ t` of a reweighting are derivatives of the straight path to the new law."""
    perturbation = Reweight(engine(NEW), torched(LOG_WEIGHTS))

    def law_at(eta: float) -> GaussianMixture:
        weights = np.full(16, 1 / 16)
        result = np.exp(LOG_WEIGHTS)
        change = np.concatenate([-(result.mean() - 1) / 16 * np.ones(12), -(result.mean() - 1) / 16 + (result - 1) / 4])
        return smoothed(np.concatenate([DATA, NEW]), weights + eta * change)

    assert_local(perturbation, law_at)


def test_reweighting_one_point_is_moving_mass_toward_it() -> None:
    """Assert that multiplying one of N weights by `1 + ε` has mass `ε/(N + ε)` toward that point."""
    epsilon, one = 0.3, engine(NEW[:1])
    reweight = Reweight(one, torch.tensor([1 + epsilon], dtype=torch.float64).log())
    scaled = reweight * reweight.mass(16)
    plain = Toward(one) * (epsilon / (16 + epsilon))
    for got, wanted in zip(local(scaled), local(plain), strict=True):
        assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_reweighting_a_mixture_reweights_its_components() -> None:
    """Assert that log weights of a mixture act on its components."""
    problem = PROBLEMS["d2_k3_s0"].base
    law = GaussianMixture(*problem)
    log_weights = np.array([0.5, -1.0, 0.2])
    reweight = Reweight(Mixture(*map(torched, problem)), torched(log_weights))
    assert reweight.mass(50, moved=50) * reweight.masses[0][0] == pytest.approx(1.0)
    x = law.noised(SIGMA).sample(6, 0)
    new = problem.weights * np.exp(log_weights)
    truth = GaussianMixture(new / new.sum(), problem.means, problem.covariances).noised(SIGMA)
    assert_close(reweight.masses[0][1].log_density(torched(x), SIGMA), torched(truth.log_density(x)), rtol=1e-10)


def test_move_is_the_derivative_of_moving_points() -> None:
    """Assert that ṡ, s̈ and `∇ṡ t` of moved points are derivatives along the displacement."""
    move = Move(engine(NEW), torched(SHIFT))
    assert move.mass(16) == 0.25
    assert move.masses is None
    assert_local(move * move.mass(16), lambda h: smoothed(np.concatenate([DATA, NEW + h * SHIFT])))


def test_move_with_weights_and_levels_for_each_state() -> None:
    """Assert that weighted dipoles take a level for each state."""
    points = Points(torched(NEW), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), block=3)
    move, state = Move(points, torched(SHIFT)), torched(X[:3])
    levels = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    log_density, score = points.log_density_and_score(state, levels)
    together = move.source(state, levels, score, log_density)
    for i, sigma in enumerate(levels.tolist()):
        row = slice(i, i + 1)
        assert_close(together[row], move.source(state[row], sigma, score[row], log_density[row]), rtol=1e-12)


def test_sums_and_multiples() -> None:
    """Assert that a combination has the derivatives of the combined path, second order included."""
    combined = 0.5 * Toward(engine(NEW)) - 0.25 * Remove(engine(DATA[:2])) + 0.2 * Move(engine(NEW), torched(SHIFT))
    assert combined.masses is None

    def law_at(eta: float) -> GaussianMixture:
        pieces = [(0.5, NEW), (-0.25, DATA[:2])]
        rest = (1 - eta * 0.25) / 16
        weights = [np.full(16, rest)] + [np.full(len(p), eta * c / len(p)) for c, p in pieces]
        moved = np.full(4, 0.2 / 4)
        law = np.concatenate([*weights, -moved, moved])
        return _signed(law, np.concatenate([DATA, NEW, NEW, DATA[:2], NEW, NEW + eta * SHIFT]))

    assert_local(combined, law_at)


def test_sums_are_linear() -> None:
    """Assert that first order adds and scales: source and product of a sum are the sums."""
    a, b = Toward(engine(NEW)), Move(engine(NEW), torched(SHIFT))
    both, first, second = local(2.0 * a - b), local(a), local(b)
    for got, x, y in zip((both[0], both[2]), (first[0], first[2]), (second[0], second[2]), strict=True):
        assert_close(got, 2 * x - y, rtol=1e-12, atol=1e-12)


def test_masses_of_a_sum_carry_their_factors() -> None:
    """Assert that masses of sums of sums are flat and scaled."""
    a, b = engine(NEW), engine(DATA)
    masses = (0.5 * (Toward(a) + 2 * Toward(b)) - Toward(a)).masses
    assert masses is not None
    assert [c for c, _ in masses] == [0.5, 1.0, -1.0]
    assert [measure for _, measure in masses] == [a, b, a]


def test_log_ratio_is_of_the_first_measure() -> None:
    """Assert that the reported log ratio is `log ν − log p`."""
    state, log_density = torched(X), torched(BASE.noised(SIGMA).log_density(X))
    expected = engine(NEW).log_density(state, SIGMA) - log_density
    for perturbation in (
        Toward(engine(NEW)),
        Remove(engine(NEW)) + Toward(engine(DATA)),
        Move(engine(NEW), torched(SHIFT)),
    ):
        assert_close(perturbation.log_ratio(state, SIGMA, log_density), expected, rtol=1e-12)


def test_masses_of_training_set_edits() -> None:
    """Assert the factors for N points: `m/(N+m)`, `−m/(N−m)`, `m/N`."""
    points = engine(NEW)
    assert Toward(points).mass(96) == 4 / 100
    assert Toward(points).mass(96, moved=4) == 4 / 100
    assert Remove(points).mass(100) == -4 / 96
    assert Move(points, torched(SHIFT)).mass(100) == 4 / 100


def test_planted_sign_and_scale_faults_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a wrong sign of the source and a dropped τ² make the comparison with exact laws fail."""
    from sensitivity.perturbations import contamination

    right = contamination._ratio
    for factor in (-1.0, SIGMA**2 + BANDWIDTH**2):
        monkeypatch.setattr(contamination, "_ratio", lambda *a, f=factor: (right(*a)[0], f * right(*a)[1]))
        with pytest.raises(AssertionError, match="differ"):
            test_toward_points_is_the_derivative_of_adding_them()
