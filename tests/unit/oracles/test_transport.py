"""The solver-free truths against finite η, against the high-precision flow, and against each other."""

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS

from oracles import AdditivePerturbation, GaussianMixture, flow
from oracles.lines import Laplace, LineMixture, NormalMixture, Uniform
from oracles.transport import GaussianOracle, ProductLaw, ProductOracle, QuantileOracle

NORMALS = NormalMixture([0.5, 0.3, 0.2], [-2.0, 0.5, 3.0], [0.3, 0.1, 0.6])
PAIRS = {
    "normals": (NORMALS, NormalMixture([0.6, 0.4], [-1.0, 2.0], [0.4, 0.3])),
    "uniform to laplace": (Uniform(-1.0, 2.0), Laplace(0.5, 0.3)),
    "laplace to uniform": (Laplace(0.0, 1.0), Uniform(-1.0, 1.0)),
    "overlapping": (NormalMixture([0.5, 0.5], [0.0, 0.4], [1.0, 1.2]), NormalMixture([1.0], [0.2], [0.9])),
    "mixed": (LineMixture([0.4, 0.6], [Uniform(-1.0, 1.0), Laplace(2.0, 0.5)]), NORMALS),
}


class Contamination:
    """The least that the flow asks of a perturbation."""

    def __init__(self, base, toward):
        self.base, self.toward = base, toward


def latents(shape, sigma: float = 80.0, seed: int = 0) -> np.ndarray:
    return sigma * np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(params=PAIRS, name="pair")
def _pair(request: pytest.FixtureRequest):
    return PAIRS[request.param]


def test_samples_keep_the_probability_to_their_left(pair) -> None:
    """Assert that F at the sample equals F at the latent, also for a finite share moved."""
    oracle, z = QuantileOracle(*pair), latents(50)
    for eta in (0.0, 0.3):
        x = oracle.sample(z, eta, 80.0, 1e-3)
        low, high = oracle._at(eta, 1e-3), oracle._at(eta, 80.0)
        assert_close(low.log_cdf(x), high.log_cdf(z), rtol=1e-12, atol=1e-13)


def test_sensitivities_are_derivatives_of_the_samples(pair) -> None:
    """Assert that orders 1 and 2, at η = 0.2, agree with differences of samples at finite η."""
    oracle, z, h = QuantileOracle(*pair), latents(40), 3e-4
    x = {k: oracle.sample(z, 0.2 + k * h, 80.0, 0.05) for k in (-2, -1, 0, 1, 2)}
    first = (8 * (x[1] - x[-1]) - x[2] + x[-2]) / (12 * h)
    second = (16 * (x[1] + x[-1]) - x[2] - x[-2] - 30 * x[0]) / (12 * h**2)
    assert_close(oracle.sensitivity(z, 80.0, 0.05, eta=0.2)[1], first, rtol=1e-6, atol=1e-7)
    assert_close(oracle.sensitivity(z, 80.0, 0.05, order=2, eta=0.2)[1], second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["normals", "uniform to laplace", "laplace to uniform"])
def test_quantile_oracle_and_flow_agree_to_eleven_digits(name: str) -> None:
    """Assert that inversion and DOP853, which share no formula but the density, give x, δ and ζ alike."""
    base, toward = PAIRS[name]
    z = latents(5)
    x, delta = QuantileOracle(base, toward).sensitivity(z, 80.0, 0.02)
    zeta = QuantileOracle(base, toward).sensitivity(z, 80.0, 0.02, order=2)[1]
    exact = flow.truth(Contamination(ProductLaw([base]), ProductLaw([toward])), z[:, None], 80.0, 0.02, order=2)
    assert_close(exact.samples[:, 0], x, rtol=1e-11, atol=1e-11)
    assert_close(exact.sensitivity[:, 0], delta, rtol=1e-11, atol=1e-11)
    assert_close(exact.second[:, 0], zeta, rtol=1e-10, atol=1e-10)


def test_far_tails_keep_their_digits() -> None:
    """Assert that latents forty standard deviations out follow the outermost component, on both sides."""
    base = NormalMixture([0.5, 0.5], [-1.0, 2.0], [0.5, 0.5])
    oracle = QuantileOracle(base, NormalMixture([1.0], [0.0], [0.4]))
    z = np.array([-4000.0, -800.0, 800.0, 4000.0])
    x, delta = oracle.sensitivity(z, 80.0, 0.1)
    assert np.all(np.isfinite(x))
    assert np.all(np.isfinite(delta))
    h = 1e-7
    step = (oracle.sample(z, h, 80.0, 0.1) - oracle.sample(z, -h, 80.0, 0.1)) / (2 * h)
    assert_close(delta, step, rtol=2e-4, atol=1e-6)


def test_shapes_and_kinds_follow_the_latents() -> None:
    """Assert that (n,), (n, 1) and torch latents give the same numbers in their own kind."""
    oracle, z = QuantileOracle(*PAIRS["normals"]), latents(6)
    x = oracle.sample(z, 0.1, 80.0, 0.1)
    assert_close(oracle.sample(z[:, None], 0.1, 80.0, 0.1), x[:, None], rtol=0)
    assert_close(oracle.sample(torch.tensor(z), 0.1, 80.0, 0.1), torch.tensor(x), rtol=0)


def test_moving_everything_gives_the_other_law() -> None:
    """Assert that η = 1 samples ν and that removing more mass than there is, is refused."""
    base, toward = PAIRS["normals"]
    z = latents(9)
    got = QuantileOracle(base, toward).sample(z, 1.0, 80.0, 0.1)
    assert_close(got, QuantileOracle(toward, base).sample(z, 0.0, 80.0, 0.1), rtol=1e-12)
    with pytest.raises(ValueError, match="removes more mass"):
        QuantileOracle(NormalMixture([1.0], [0.0], [1.0]), NormalMixture([1.0], [5.0], [0.1])).sample(
            z, -0.5, 80.0, 0.1
        )


def test_removal_of_a_component_is_a_negative_share() -> None:
    """Assert that η = −1/4, toward a component of weight 1/5, leaves the mixture without it."""
    base = NormalMixture([0.2, 0.8], [-1.0, 1.0], [0.3, 0.4])
    oracle = QuantileOracle(base, NormalMixture([1.0], [-1.0], [0.3]))
    without = QuantileOracle(NormalMixture([1.0], [1.0], [0.4]), base)
    z = latents(9)
    share = -0.25 * (1 - 1e-9)  # (1 + 1/4) 0.2 = 1/4: exactly -1/4 would leave a zero that rounding makes negative
    assert_close(oracle.sample(z, share, 80.0, 0.2), without.sample(z, 0.0, 80.0, 0.2), rtol=0, atol=1e-5)


def test_error_bar_grows_between_separated_modes() -> None:
    """Assert that the bar is at rounding inside a mode and larger in the gap between two."""
    oracle = QuantileOracle(NormalMixture([0.5, 0.5], [-1.0, 1.0], [0.01, 0.01]), NORMALS)
    z = np.array([30.0, 1e-6])
    bars = oracle.error_bar(z, 0.0, 80.0, 1e-3)
    assert bars[0] < 1e-14
    assert bars[1] > 1e-10


def test_product_with_one_contaminated_factor_is_the_flow_of_the_joint_contamination() -> None:
    """Assert that the factor's own transport solves the coupled problem in the plane, first and second order."""
    oracle = ProductOracle([NORMALS, Laplace(0.0, 0.7)], [PAIRS["normals"][1], None])
    z = latents((4, 2))
    joint = Contamination(oracle.base, oracle.toward)
    for order in (1, 2):
        x, moved = oracle.sensitivity(z, 80.0, 0.05, order=order)
        result = flow.sensitivity(joint, z, 80.0, 0.05, order=order, rtol=1e-11)
        assert_close(result[0], x, rtol=1e-9, atol=1e-10)
        assert_close(result[1], moved, rtol=1e-8, atol=1e-9)
    assert np.all(moved[:, 1] == 0)


def test_rotated_product_is_the_rotated_law() -> None:
    """Assert that rotating a product of Gaussian mixtures gives the transport of the rotated mixture."""
    angle = 0.7
    q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    first, second = NormalMixture([0.4, 0.6], [-1.0, 1.5], [0.2, 0.3]), NormalMixture([1.0], [0.5], [0.6])
    toward = NormalMixture([1.0], [0.3], [0.25])
    oracle = ProductOracle([first, second], [toward, None], rotation=q)

    def rotated(a: NormalMixture) -> GaussianMixture:
        means = np.stack([a.means, np.full(a.means.size, 0.5)], -1) @ q.T
        return GaussianMixture(a.weights, means, np.stack([q @ np.diag([v, 0.6]) @ q.T for v in a.variances]))

    joint = AdditivePerturbation(rotated(first), rotated(toward))
    z = latents((8, 2))
    x, moved = oracle.sensitivity(z, 80.0, 0.05)
    result = flow.sensitivity(joint, z, 80.0, 0.05)
    assert_close(result[0], x, rtol=1e-10, atol=1e-10)
    assert_close(result[1], moved, rtol=1e-9, atol=1e-10)
    assert_close(flow.sample(joint.at(0.2), z, 80.0, 0.05), oracle.sample(z, 0.2, 80.0, 0.05), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("kind", ["full", "repeated", "singular"])
def test_gaussian_closed_form_is_the_flow(d: int, kind: str) -> None:
    """Assert that the closed form equals the flow of a one-component mixture, singular covariances included."""
    mean, covariance = _gaussian(d, kind)
    law = GaussianMixture([1.0], mean[None], covariance[None])
    z = latents((7, d))
    assert_close(
        GaussianOracle(mean, covariance).sample(z, 80.0, 0.01), flow.sample(law, z, 80.0, 0.01), rtol=0, atol=1e-10
    )


def _gaussian(d: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(d)
    values = {"full": rng.uniform(0.1, 2.0, d), "repeated": np.full(d, 0.7), "singular": np.r_[0.0, np.ones(d - 1)]}
    q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    c = q @ np.diag(values[kind]) @ q.T
    return rng.standard_normal(d), (c + c.T) / 2


@pytest.mark.parametrize("kind", ["full", "repeated"])
def test_gaussian_derivatives_are_differences_of_samples(kind: str) -> None:
    """Assert that the derivatives in μ and Σ hold, repeated eigenvalues included."""
    rng, (mean, covariance) = np.random.default_rng(8), _gaussian(4, kind)
    v, raw = rng.standard_normal(4), rng.standard_normal((4, 4))
    h, z = (raw + raw.T) / 10, latents((5, 4), 10.0)
    oracle, step = GaussianOracle(mean, covariance), 1e-4

    def sample(t: float, u: float) -> np.ndarray:
        return GaussianOracle(mean + t * v, covariance + u * h).sample(z, 10.0, 0.3)

    by_mean = (sample(step, 0) - sample(-step, 0)) / (2 * step)
    by_covariance = (8 * (sample(0, step) - sample(0, -step)) - sample(0, 2 * step) + sample(0, -2 * step)) / (
        12 * step
    )
    assert_close(oracle.sensitivity_mean(z, v, 10.0, 0.3), by_mean, rtol=1e-9, atol=1e-10)
    assert_close(oracle.sensitivity_covariance(z, h, 10.0, 0.3), by_covariance, rtol=1e-7, atol=1e-9)


def test_mixture_in_one_dimension_uses_either_route() -> None:
    """Assert that AdditivePerturbation's flow truth is the quantile oracle's."""
    p = PROBLEMS["d1_k3_s0"]
    perturbation = AdditivePerturbation(GaussianMixture(*p.base), GaussianMixture(*p.toward))
    z = latents((16, 1))
    x, delta = perturbation.sample_sensitivity(z, 80.0, 1e-3)
    exact = QuantileOracle(perturbation.base, perturbation.toward).sensitivity(z, 80.0, 1e-3)
    assert_close(x, exact[0], rtol=1e-10, atol=1e-11)
    assert_close(delta, exact[1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.sample(np.array([np.nan]), 0.0, 1.0, 0.1), "latents must be finite"),
        (lambda o: o.sample(np.zeros(1), 0.0, 0.1, 1.0), "0 < sigma_min < sigma_max"),
        (lambda o: o.sample(np.zeros(1), 2.0, 1.0, 0.1), "eta = 2.0"),
        (lambda o: o.sensitivity(np.zeros(1), 1.0, 0.1, eta=1.0), "eta = 1.0"),
        (lambda o: o.sensitivity(np.zeros(1), 1.0, 0.1, order=3), "order = 3"),
        (lambda o: ProductLaw([]), "factors"),
        (lambda o: ProductLaw([NORMALS]).noised(1.0).score(np.zeros((3, 2))), r"shape \(\.\.\., 1\)"),
        (lambda o: ProductOracle([NORMALS], []), "towards has 0 entries"),
        (lambda o: ProductOracle([NORMALS], [None], rotation=np.full((1, 1), 2.0)), "orthogonal"),
        (lambda o: GaussianOracle(np.zeros(2), np.diag([1.0, -1.0])), "positive semi-definite"),
        (lambda o: GaussianOracle(np.zeros(2), np.array([[1.0, 1.0], [0.0, 1.0]])), "symmetric"),
        (lambda o: GaussianOracle(np.zeros(2), np.eye(3)), "shape"),
        (lambda o: GaussianOracle(np.array([np.inf]), np.eye(1)), "finite"),
        (lambda o: GaussianOracle(np.zeros(1), np.eye(1)).sample(np.zeros((1, 2)), 1.0, 0.1), "latents of shape"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(call, message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(ValueError, match=message):
        call(QuantileOracle(*PAIRS["normals"]))
