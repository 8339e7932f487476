"""The named laws of the problem suites: parameters, seeds and digests; the same name is always the same law.

A law is a Gaussian mixture `ρ = Σ_k w_k N(μ_k, Σ_k)` in one of four forms: full covariances `Σ_k (d, d)`, isotropic
`v_k I`, low rank `F_k F_kᵀ + v_k I`, or points (`Σ_k = 0`). Parameters are rounded to ten decimals, so that they and
their digests do not depend on the last bit of a linear algebra library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from oracles import GaussianMixture
from studies.errors import StudyError
from studies.study import suggestion

__all__ = ["LAWS", "Law", "law", "oracle"]

Arrays = dict[str, np.ndarray]
ARRAYS = ("weights", "means", "full", "variances", "factors")


@dataclass(frozen=True)
class Law:
    """The parameters of a mixture, and nothing that evaluates it.

    Attributes:
        name: the law's name in this package.
        weights: `w` (K,).
        means: `μ` (K, d).
        full: covariances (K, d, d), or None.
        variances: `v` (K,), or None.
        factors: `F` (K, d, r), or None.

    A law with neither covariances, variances nor factors consists of points.
    """

    name: str
    weights: Any
    means: Any
    full: Any = None
    variances: Any = None
    factors: Any = None

    @property
    def dimension(self) -> int:
        """`d`."""
        return self.means.shape[1]

    @property
    def form(self) -> str:
        """`full`, `isotropic`, `low-rank` or `points`."""
        if self.full is not None:
            return "full"
        if self.factors is not None:
            return "low-rank"
        return "points" if self.variances is None else "isotropic"

    @property
    def covariances(self) -> Any:
        """Dense covariances (K, d, d), whatever the form."""
        if self.full is not None:
            return self.full
        eye = self._eye()
        zero = 0.0 * self.weights if self.variances is None else self.variances
        dense = zero[:, None, None] * eye
        return dense if self.factors is None else dense + self.factors @ self.factors.swapaxes(-1, -2)

    def _eye(self) -> Any:
        # Torch's tensors do not know their namespace of the array standard; other libraries' arrays do.
        xp = self.means.__array_namespace__() if hasattr(self.means, "__array_namespace__") else None
        if xp is not None:
            return xp.eye(self.dimension, dtype=self.means.dtype)
        import torch

        return torch.eye(self.dimension, dtype=self.means.dtype, device=self.means.device)

    def map(self, convert: Callable[[np.ndarray], Any]) -> Law:
        """The same law with every array converted."""
        fields = ((name, getattr(self, name)) for name in ARRAYS)
        return Law(self.name, **{name: None if value is None else convert(value) for name, value in fields})

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the parameters (NumPy arrays only)."""
        hasher = hashlib.sha256()
        for name in ARRAYS:
            value = getattr(self, name)
            if value is not None:
                hasher.update(f"{name}{value.shape}".encode())
                hasher.update((np.round(value, 10) + 0.0).astype("<f8").tobytes())
        return hasher.hexdigest()[:12]


def oracle(law: Law) -> GaussianMixture:
    """The exact law, in the array library of the parameters."""
    if law.form == "full":
        return GaussianMixture(law.weights, law.means, law.full)
    if law.form == "isotropic":
        return GaussianMixture.isotropic(law.weights, law.means, law.variances)
    if law.form == "low-rank":
        variances = 0.0 if law.variances is None else law.variances
        return GaussianMixture.low_rank(law.weights, law.means, law.factors, variances)
    return GaussianMixture.empirical(law.means, law.weights)


def _weights(rng: np.random.Generator, k: int) -> np.ndarray:
    raw = rng.uniform(0.4, 2.0, k)
    return raw / raw.sum()


def _full(seed: int, d: int, k: int, spread: float = 1.5, low: float = 0.05, high: float = 1.0) -> Arrays:
    """Rotated covariances with eigenvalues log-uniform in [low, high]: anisotropic, unequal, asymmetric."""
    rng = np.random.default_rng(seed)
    covariances = []
    for _ in range(k):
        rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
        values = np.exp(rng.uniform(np.log(low), np.log(high), d))
        covariances.append((rotation * values) @ rotation.T)
    means = spread * rng.standard_normal((k, d)) + 0.3
    return {"weights": _weights(rng, k), "means": means, "full": np.stack(covariances)}


def _line(weights: list[float], means: list[float], variances: list[float]) -> Arrays:
    return {
        "weights": np.array(weights),
        "means": np.array(means)[:, None],
        "full": np.array(variances)[:, None, None],
    }


def _isotropic(seed: int, d: int, k: int, spread: float, low: float, high: float) -> Arrays:
    rng = np.random.default_rng(seed)
    means = spread * rng.standard_normal((k, d))
    return {"weights": _weights(rng, k), "means": means, "variances": rng.uniform(low, high, k)}


def _low_rank(seed: int, d: int, k: int, r: int, floor: float, spread: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((k, d, r)) / np.sqrt(r)
    means = spread * rng.standard_normal((k, d)) + 0.2
    return {"weights": _weights(rng, k), "means": means, "factors": factors, "variances": np.full(k, floor)}


def _points(seed: int, d: int, n: int, offset: float = 0.0, spread: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"weights": _weights(rng, n), "means": offset + spread * rng.standard_normal((n, d))}


def _even_points(seed: int, d: int, n: int) -> Arrays:
    rng = np.random.default_rng(seed)
    curved = rng.standard_normal((n, d))
    return {"weights": np.full(n, 1.0 / n), "means": curved + 0.3 * curved[:, :1] ** 2}


def _waves(channels: int, side: int, count: int) -> np.ndarray:
    """Smooth orthonormal patterns (d, count) on images of `channels` × `side` × `side`, d = channels side²: products of
    cosines by rising frequency, in one channel after the other (the directions in which photographs vary most)."""
    place = (np.arange(side) + 0.5) * np.pi / side
    pairs = sorted(((i, j) for i in range(4) for j in range(4)), key=lambda pair: (sum(pair), pair))
    patterns = []
    for index in range(count):
        i, j = pairs[index // channels]
        image = np.zeros((channels, side, side))
        image[index % channels] = np.outer(np.cos(i * place), np.cos(j * place))
        patterns.append(image.ravel() / np.linalg.norm(image))
    return np.stack(patterns, axis=1)


def _photo(seed: int, channels: int, side: int, k: int, r: int) -> Arrays:
    """Low rank plus noise: r smooth directions of standard deviation 1 to 3 a component, pixels of variance .04."""
    rng = np.random.default_rng(seed)
    waves = _waves(channels, side, 12)
    means = 1.2 * rng.standard_normal((k, 12)) @ waves.T
    mixed = np.stack([np.linalg.qr(rng.standard_normal((12, r)))[0] for _ in range(k)]) * rng.uniform(
        1.0, 3.0, (k, 1, r)
    )
    return {"weights": _weights(rng, k), "means": means, "factors": waves @ mixed, "variances": np.full(k, 0.04)}


def _spots(seed: int, channels: int, side: int, k: int) -> Arrays:
    """Single pictures of the same smooth directions, with the same noise of the pixels."""
    rng = np.random.default_rng(seed)
    means = 1.5 * rng.standard_normal((k, 12)) @ _waves(channels, side, 12).T
    return {"weights": _weights(rng, k), "means": means, "variances": np.full(k, 0.04)}


LAWS: dict[str, Callable[[], Arrays]] = {
    "line": lambda: _line([0.5, 0.3, 0.2], [-1.6, 0.4, 2.3], [0.09, 0.25, 0.04]),
    "line-toward": lambda: _line([0.7, 0.3], [0.9, -0.6], [0.16, 0.3]),
    "plane": lambda: _full(2, 2, 3),
    "plane-toward": lambda: _full(102, 2, 2, spread=1.0, low=0.1),
    "gaussian": lambda: _full(3, 3, 1),
    "gaussian-toward": lambda: _full(103, 3, 1, spread=0.7, low=0.1),
    "five": lambda: _full(5, 5, 4),
    "five-toward": lambda: _full(105, 5, 2, spread=1.0, low=0.1),
    "ten": lambda: _full(10, 10, 2, spread=1.0, low=0.1),
    "ten-toward": lambda: _full(110, 10, 2, spread=0.8, low=0.2),
    "hundred": lambda: _low_rank(100, 100, 3, 6, 0.2, spread=0.4),
    "hundred-toward": lambda: _low_rank(1100, 100, 2, 6, 0.25, spread=0.4),
    "sharp": lambda: _full(8, 8, 3, low=1e-4, high=2.0),
    "singular": lambda: _low_rank(4, 4, 3, 2, 0.0),
    "ball": lambda: _isotropic(6, 6, 3, 1.2, 0.2, 0.5),
    "unit": lambda: _isotropic(116, 16, 1, 1.0, 1.0, 1.0),
    "image": lambda: _full(16, 16, 3, spread=0.8, low=0.1),
    "ball-784": lambda: _isotropic(784, 784, 4, 0.15, 0.05, 0.3),
    "sheet-784": lambda: _low_rank(1784, 784, 3, 5, 0.01, spread=0.2),
    "photo-784": lambda: _photo(2784, 1, 28, 3, 4),
    "photo-784-toward": lambda: _spots(3784, 1, 28, 2),
    "photo-3072": lambda: _photo(3072, 3, 32, 3, 4),
    "photo-3072-toward": lambda: _spots(4072, 3, 32, 2),
    "points": lambda: _points(30, 3, 20),
    "far-points": lambda: _points(40, 40, 12, offset=30.0, spread=0.004),
    "training": lambda: _even_points(50, 2, 40),
    "training-ten": lambda: _even_points(51, 10, 60),
    "twenty": lambda: _full(20, 20, 40, spread=1.0),
    "fifty": lambda: _full(150, 50, 4, spread=0.8, low=0.1),
    "fifty-toward": lambda: _full(1150, 50, 2, spread=0.8, low=0.2),
}


@cache
def law(name: str) -> Law:
    """The law of that name, as NumPy arrays.

    Raises:
        StudyError: no law has the name (near ones are suggested).

    Example:
        >>> law("plane").means.shape, law("plane").form
        ((3, 2), 'full')
    """
    if name not in LAWS:
        raise StudyError(f"there is no law {name!r}; {suggestion(name, LAWS)}.")
    arrays = {key: np.round(value, 10) for key, value in LAWS[name]().items()}
    arrays["weights"] = arrays["weights"] / arrays["weights"].sum()
    return Law(name, **arrays)
