"""A second route to every value of the coin, and what it is for: exact samples and sensitivities."""

import numpy as np
from coin import Coin

from oracles import lines, transport

QUANTITIES = ("log_density", "score", "score_slope", "score_curvature", "log_cdf", "log_sf")


def test_the_coin_is_the_mixture_of_two_points():
    """Assert all quantities against the general mixture, also far out and at little noise."""
    other = lines.NormalMixture([0.5, 0.5], [-1.5, 1.5], [0.0, 0.0])
    x = np.array([-40.0, -1.5, 0.1, 2.0, 30.0])
    for sigma in (0.05, 1.0, 20.0):
        one, two = Coin(1.5).noised(sigma), other.noised(sigma)
        for name in QUANTITIES:
            np.testing.assert_allclose(getattr(one, name)(x), getattr(two, name)(x), rtol=1e-9, atol=1e-9)


def test_the_coin_gives_exact_samples_and_their_sensitivities():
    """Assert the first derivative of the transport against a difference of transports."""
    oracle = transport.QuantileOracle(Coin(1.5), lines.Uniform(-1.0, 2.0))
    latents = np.array([[-12.0], [3.0], [25.0]])
    samples, first = oracle.sensitivity(latents, 20.0, 0.1)
    quotient = (oracle.sample(latents, 1e-6, 20.0, 0.1) - samples) / 1e-6
    np.testing.assert_allclose(quotient, first, rtol=1e-4)
