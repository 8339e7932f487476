"""Hypothesis strategies for mixtures: constructed, never filtered, singular and repeated-eigenvalue ones on purpose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st


class Parameters(NamedTuple):
    """Weights (K,), means (K, d) and covariances (K, d, d) of a mixture, float64 NumPy."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def dimension(self) -> int:
        return self.means.shape[1]


KINDS = ("full", "diagonal", "isotropic", "repeated", "low_rank", "singular")


def covariance(rng: np.random.Generator, d: int, kind: str) -> np.ndarray:
    """One covariance of the given kind, eigenvalues between about 0.01 and 4 where it is not singular."""
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    if kind == "full":
        factor = rng.standard_normal((d, d)) / np.sqrt(d)
        return factor @ factor.T + 0.05 * np.eye(d)
    if kind == "diagonal":
        return np.diag(rng.uniform(0.05, 2.0, d))
    if kind == "isotropic":
        return float(rng.uniform(0.05, 2.0)) * np.eye(d)
    if kind == "repeated":
        values = np.where(np.arange(d) < (d + 1) // 2, 0.3, 1.7)
        return rotation @ np.diag(values) @ rotation.T
    rank = max(1, d // 2) if kind == "low_rank" else 1 if d > 1 else 0
    factor = rng.standard_normal((d, rank)) if rank else np.zeros((d, 1))
    floor = 0.02 if kind == "low_rank" else 0.0
    return factor @ factor.T + floor * np.eye(d)


@st.composite
def mixtures(
    draw: st.DrawFn, dimensions: tuple[int, ...] = (1, 2, 3, 5), components: int = 4, kinds: tuple[str, ...] = KINDS
) -> Parameters:
    """Mixtures with unequal weights, scattered means and covariances of any of `kinds` (mixed within one law)."""
    d = draw(st.sampled_from(dimensions))
    k = draw(st.integers(1, components))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chosen = [draw(st.sampled_from(kinds)) for _ in range(k)]
    raw = rng.uniform(0.2, 1.0, k)
    means = draw(st.floats(0.3, 3.0)) * rng.standard_normal((k, d))
    return Parameters(raw / raw.sum(), means, np.stack([covariance(rng, d, kind) for kind in chosen]))


@st.composite
def mixture_pairs(
    draw: st.DrawFn, dimensions: tuple[int, ...] = (1, 2, 3, 5), components: int = 4, kinds: tuple[str, ...] = KINDS
) -> tuple[Parameters, Parameters]:
    """A base law and the law that it is moved toward, in one dimension d."""
    base = draw(mixtures(dimensions, components, kinds))
    return base, draw(mixtures((base.dimension,), components, kinds))


def sigmas(low: float = 1e-2, high: float = 1e2) -> st.SearchStrategy[float]:
    """Noise levels, log-uniform between `low` and `high`."""
    return st.floats(float(np.log(low)), float(np.log(high))).map(lambda u: float(np.exp(u)))


@st.composite
def points(draw: st.DrawFn, law: Parameters, sigma: float, n: int = 8, spread: float = 1.0) -> np.ndarray:
    """States (n, d) drawn from `law` noised to `sigma`, stretched by `spread` standard deviations."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    which = rng.choice(len(law.weights), n, p=law.weights)
    noise = rng.standard_normal((n, law.dimension))
    scale = np.sqrt(np.trace(law.covariances, axis1=1, axis2=2)[which] / law.dimension + sigma**2)
    return law.means[which] + spread * scale[:, None] * noise


class Images(NamedTuple):
    """An image-like mixture: weights (K,), means (K, d), variances (K, d), few of them large, the rest one small noise.

    Axes are as good as any for a grid's error, and Rademacher probes are exact for one component.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def image_law(dimension: int, components: int, rank: int, noise: float, scale: float, seed: int) -> Images:
    """`components` centres of size `scale`, `rank` directions of falling variance each, `noise` elsewhere."""
    rng = np.random.default_rng(seed)
    variances = np.full((components, dimension), noise**2)
    for row in variances:
        chosen = rng.choice(dimension, min(rank, dimension), replace=False)
        row[chosen] += scale**2 * np.exp(-np.linspace(0, 3, len(chosen))) * dimension / max(rank, 1)
    raw = rng.uniform(0.5, 1.5, components)
    return Images(raw / raw.sum(), 0.5 * scale * rng.standard_normal((components, dimension)), variances)


@st.composite
def images(draw: st.DrawFn, dimensions: tuple[int, ...] = (1, 2, 16, 64, 256, 784, 3072)) -> Images:
    """Image-like laws, low rank or isotropic, noise from .003 to .6; several components where a trace may be exact."""
    dimension = draw(st.sampled_from(dimensions))
    return image_law(
        dimension,
        draw(st.integers(1, 4)) if dimension <= 16 else 1,
        draw(st.sampled_from((0, 1, 5, 20))),
        10 ** draw(st.floats(-2.5, -0.2)),
        draw(st.sampled_from((0.25, 0.5, 1.0))),
        draw(st.integers(0, 2**32 - 1)),
    )
