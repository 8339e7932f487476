"""Tails of the noised uniform and Laplace laws without cancellation.

Φ, φ are the standard normal's distribution function and density, M = (1 − Φ)/φ, `q = 1/M − t`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)
NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)


def log_difference(larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    """log(e^larger − e^smaller)."""
    # By expm1, since 1 − e^a loses its digits where the two are nearly equal.
    return larger + np.log(-np.expm1(smaller - larger))


def log_hinge(z: np.ndarray) -> np.ndarray:
    """log(zΦ(z) + φ(z)) = log E(z + ε)₊; for z < −4 by the continued fraction of the repeated integrals of erfc."""
    # At −4 the two terms cancel to a twentieth of themselves; from there on the fraction has converged to rounding.
    t = np.maximum(-z, 4.0)
    near = np.maximum(z, -4.0)
    direct = np.log(near * ndtr(near) + np.exp(-0.5 * near**2 - LOG_ROOT_2PI))
    return np.where(z < -4.0, log_ndtr(-t) + np.log(fraction(t)), direct)


def fraction(t: np.ndarray) -> np.ndarray:
    """q(t) = 1/(t + 2/(t + 3/(t + …))) = φ/(1 − Φ) − t for t ≥ 4, by its continued fraction."""
    # From the far end, which is right whatever it begins with once it is deep enough: for t ≥ 4, 80 terms are.
    tail = np.zeros_like(t)
    for n in range(80, 1, -1):
        tail = n / (t + tail)
    return 1 / (t + tail)


def mills_slope(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q(t) = φ/(1 − Φ) − t and q'(t) = q(q + t) − 1."""
    far, near = np.maximum(t, 4.0), np.minimum(t, 4.0)
    # q falls like 1/t, so that φ/(1 − Φ) − t loses ε t² of it: from 4 on it comes from its own fraction. Both branches
    # are evaluated everywhere, at places where neither overflows.
    hazard = np.exp(-0.5 * near**2 - LOG_ROOT_2PI - log_ndtr(-near))
    q = np.where(t > 4.0, fraction(far), hazard - near)
    return q, q * (q + t) - 1


def log_mills_difference(z: np.ndarray, c: float) -> np.ndarray:
    """log M(c + z) − log M(c − z) = −∫_{−z}^{z} q(c + u) du for |z| < c − 4, where the logarithms nearly cancel."""
    # Outside, where the caller takes the difference of logarithms, anything finite will do.
    z = np.where(np.abs(z) < c - 4, z, 0.0)
    u = np.maximum(c + z[..., None] * NODES, 4.0)
    return -z * np.sum(NODE_WEIGHTS * fraction(u), axis=-1)


def log_tilted(y: np.ndarray, b: float, t: float) -> np.ndarray:
    """log of `A = e^{t²/2b² − y/b} Φ(y/t − t/b)`, without the cancelling exponents where Φ is small."""
    z = y / t - t / b
    # Φ(z) = ½ e^{−z²/2} erfcx(−z/√2), and t²/2b² − y/b − z²/2 is −y²/2t²: nothing large is left to cancel.
    scaled = -0.5 * (y / t) ** 2 + np.log(0.5 * erfcx(-np.minimum(z, 0.0) / np.sqrt(2)))
    return np.where(z < 0, scaled, 0.5 * (t / b) ** 2 - y / b + log_ndtr(np.maximum(z, 0.0)))


def log_laplace_tail(y: np.ndarray, b: float, t: float, log_b: np.ndarray) -> np.ndarray:
    """log F(y) for y <= 0, by Mills ratios; not used above 0."""
    low = -np.abs(y)
    mills = 0.5 * erfcx(-low / t / np.sqrt(2)) - 0.25 * erfcx((t / b - low / t) / np.sqrt(2))
    return np.logaddexp(-0.5 * (low / t) ** 2 + np.log(mills), log_b - np.log(2))
