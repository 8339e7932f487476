"""What holds for the flow of every mixture."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.close import assert_close
from support.strategies import Parameters, mixture_pairs, mixtures, points, sigmas

from oracles import AdditivePerturbation, GaussianMixture, flow
from oracles._pointwise import local


class Plain:
    """A mixture as a law of another type, which the flow evaluates by its methods."""

    def __init__(self, law: GaussianMixture) -> None:
        self.law = law

    def noised(self, sigma: float) -> GaussianMixture:
        return self.law.noised(sigma)


@given(st.data(), mixtures(), sigmas())
def test_the_flows_own_evaluation_is_the_laws(data: st.DataObject, law: Parameters, sigma: float) -> None:
    """Assert that density, score, products and third order agree with GaussianMixture's methods."""
    x = data.draw(points(law, sigma, spread=2.0))
    mixture, u, v = GaussianMixture(*law), np.roll(x, 1, axis=0), x[::-1].copy()
    here, there = local(mixture)(sigma, x), local(Plain(mixture))(sigma, x)
    steepest = max(np.linalg.norm(np.linalg.inv(c), 2) for c in mixture.noised(sigma).covariances)
    assert_close(here.log_density, there.log_density, rtol=1e-10, atol=1e-10)
    assert_close(here.score, there.score, rtol=1e-9, atol=1e-10 * steepest**0.5)
    size = np.max(np.abs(u)) * np.max(np.abs(v))
    assert_close(here.product(u), there.product(u), rtol=1e-8, atol=1e-9 * steepest * np.max(np.abs(u)))
    assert_close(here.third_order(u, v), there.third_order(u, v), rtol=1e-8, atol=1e-9 * steepest**1.5 * size)


@given(mixture_pairs(dimensions=(1, 2), components=3), st.integers(0, 2**32 - 1))
def test_sensitivities_are_the_first_order_of_finite_shares(pair: tuple[Parameters, Parameters], seed: int) -> None:
    """Assert that (x_η − x_{η/2})·2/η − δ, extrapolated, is of second order for every pair of laws."""
    p = AdditivePerturbation(*(GaussianMixture(*law) for law in pair))
    z = 20.0 * np.random.default_rng(seed).standard_normal((3, p.base.dimension))
    x, delta = flow.sensitivity(p, z, 20.0, 0.5)
    zeta = flow.sensitivity(p, z, 20.0, 0.5, order=2)[1]
    eta = 1e-5
    quotient = (flow.sample(p.at(eta), z, 20.0, 0.5) - x) / eta
    third = 1e3 * (1 + np.abs(delta).max() + np.abs(zeta).max()) ** 3 * eta**2
    assert np.all(np.abs(quotient - delta - 0.5 * eta * zeta) <= third + 1e-6 * (1 + np.abs(delta)))


@given(st.data(), mixtures(dimensions=(2, 3)))
def test_flows_turn_and_move_with_their_law(data: st.DataObject, law: Parameters) -> None:
    """Assert that rotating and translating law and latents rotates and translates the samples."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    d = law.dimension
    q, shift = np.linalg.qr(rng.standard_normal((d, d)))[0], rng.standard_normal(d)
    turned = GaussianMixture(law.weights, law.means @ q.T + shift, _symmetric(q @ law.covariances @ q.T))
    z = 20.0 * rng.standard_normal((4, d))
    x = flow.sample(GaussianMixture(*law), z, 20.0, 0.1)
    moved = flow.sample(turned, z @ q.T + shift, 20.0, 0.1)
    assert np.median(np.abs(moved - (x @ q.T + shift))) < 1e-9


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    return (matrices + np.swapaxes(matrices, 1, 2)) / 2
