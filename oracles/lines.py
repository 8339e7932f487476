r"""Laws on the real line, noised exactly: Gaussian mixtures, uniform, Laplace, and mixtures of these.

A law is ρ * N(0, τ²) with ρ the clean law and τ its noise, ``noised(sigma, alpha)``: X → αX + σε.  Methods work
element by element on arrays of any shape: with p the density and F the distribution function,

    log_density = log p,   score = s = p'/p,   score_slope = s',   score_curvature = s'',
    log_cdf = log F,       log_sf = log(1 − F),

all in logarithms, so that both tails stay right where F or 1 − F underflows.  Φ, φ are the standard normal's.

- uniform on (a, b): ``p = [Φ(z_a) − Φ(z_b)]/(b−a)``, ``F = τ [H(z_a) − H(z_b)]/(b−a)``, ``z_a = (x−a)/τ`` and
  ``H(z) = zΦ(z) + φ(z)``; where τ > b − a these differences cancel, and 32-point Gauss–Legendre over the
  uniform variable is exact to rounding instead;
- Laplace(m, b), y = x − m: ``A = e^{τ²/2b² − y/b} Φ(y/τ − τ/b)``, ``B = A(−y)``, ``p = (A + B)/2b``,
  ``F = Φ(y/τ) − A/2 + B/2``, ``s = (B − A)/b(A + B)``.

>>> law = Uniform(-1.0, 1.0).noised(0.5)
>>> bool(abs(np.exp(law.log_cdf(0.3)) + np.exp(law.log_sf(0.3)) - 1.0) < 1e-15)
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfcx, log_ndtr, logsumexp, ndtr

LOG_ROOT_2PI = 0.5 * np.log(2 * np.pi)
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(32)


class LineLaw(Protocol):
    """What a law on the line offers; ``center`` and ``spread`` are its mean and standard deviation."""

    @property
    def center(self) -> float: ...
    @property
    def spread(self) -> float: ...
    def noised(self, sigma: float, alpha: float = 1.0) -> LineLaw: ...
    def log_density(self, x: ArrayLike) -> np.ndarray: ...
    def score(self, x: ArrayLike) -> np.ndarray: ...
    def score_slope(self, x: ArrayLike) -> np.ndarray: ...
    def score_curvature(self, x: ArrayLike) -> np.ndarray: ...
    def log_cdf(self, x: ArrayLike) -> np.ndarray: ...
    def log_sf(self, x: ArrayLike) -> np.ndarray: ...
    def sample(self, n: int, seed: int) -> np.ndarray: ...


@dataclass(frozen=True)
class _Shape:
    """log p, s, s', s'', log F and log(1 − F) of one part at the points."""

    log_density: np.ndarray
    score: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    log_cdf: np.ndarray
    log_sf: np.ndarray


class _Line:
    """The methods of a law from one evaluation of everything (these laws serve as truth, not for speed)."""

    def _shape(self, x: np.ndarray) -> _Shape:
        raise NotImplementedError

    def _at(self, x: ArrayLike) -> _Shape:
        with np.errstate(divide="ignore", under="ignore"):
            return self._shape(np.asarray(x, dtype=float))

    def log_density(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats."""
        return self._at(x).log_density

    def score(self, x: ArrayLike) -> np.ndarray:
        """s(x) = p'/p."""
        return self._at(x).score

    def score_slope(self, x: ArrayLike) -> np.ndarray:
        """s'(x)."""
        return self._at(x).slope

    def score_curvature(self, x: ArrayLike) -> np.ndarray:
        """s''(x)."""
        return self._at(x).curvature

    def log_cdf(self, x: ArrayLike) -> np.ndarray:
        """log F(x)."""
        return self._at(x).log_cdf

    def log_sf(self, x: ArrayLike) -> np.ndarray:
        """log(1 − F(x))."""
        return self._at(x).log_sf


class NormalMixture(_Line):
    """``Σ_k w_k N(m_k, v_k)``; weights (K,) are normalised, variances (K,) may be 0 (noise the law then)."""

    def __init__(self, weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> None:
        self.weights = _probabilities(weights)
        self.means, self.variances = (np.asarray(a, dtype=float).reshape(-1) for a in (means, variances))
        if not self.weights.size == self.means.size == self.variances.size:
            raise ValueError(
                f"weights, means and variances must have one length, not {self.weights.size}, {self.means.size} and "
                f"{self.variances.size}"
            )
        if not (np.all(np.isfinite(self.means)) and np.all(self.variances >= 0) and np.all(np.isfinite(self.variances))):
            raise ValueError("means must be finite and variances finite and not negative")
        self.center = float(self.weights @ self.means)
        self.spread = float(np.sqrt(self.weights @ (self.variances + (self.means - self.center) ** 2)))

    def noised(self, sigma: float, alpha: float = 1.0) -> NormalMixture:
        """The law of αX + σε."""
        return NormalMixture(self.weights, alpha * self.means, alpha**2 * self.variances + sigma**2)

    def _shape(self, x: np.ndarray) -> _Shape:
        if not np.all(self.variances > 0):
            raise ValueError("a variance is 0: the law has no density until it is noised, call noised(sigma) first")
        v = self.variances
        y = x[..., None] - self.means
        z = y / np.sqrt(v)
        return _mix(
            np.log(self.weights),
            _Shape(
                -0.5 * z**2 - 0.5 * np.log(v) - LOG_ROOT_2PI,
                -y / v,
                np.broadcast_to(-1 / v, z.shape),
                np.zeros_like(z),
                log_ndtr(z),
                log_ndtr(-z),
            ),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """``n`` independent draws, a function of ``seed`` alone."""
        rng = np.random.default_rng(seed)
        k = rng.choice(self.weights.size, n, p=self.weights)
        return self.means[k] + np.sqrt(self.variances[k]) * rng.standard_normal(n)


@dataclass(frozen=True)
class Uniform(_Line):
    """Uniform on (low, high), plus Gaussian noise of standard deviation ``noise``."""

    low: float
    high: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low = {self.low!r} must be below high = {self.high!r}, both finite")

    @property
    def center(self) -> float:
        return 0.5 * (self.low + self.high)

    @property
    def spread(self) -> float:
        return float(np.sqrt((self.high - self.low) ** 2 / 12 + self.noise**2))

    def noised(self, sigma: float, alpha: float = 1.0) -> Uniform:
        """The law of αX + σε, α > 0."""
        return Uniform(alpha * self.low, alpha * self.high, float(np.hypot(alpha * self.noise, sigma)))

    def _shape(self, x: np.ndarray) -> _Shape:
        _check_noise(self.noise)
        if self.noise > self.high - self.low:
            return self._wide()._shape(x)
        return self._narrow(x)

    def _wide(self) -> NormalMixture:
        means = self.center + 0.5 * (self.high - self.low) * _NODES
        return NormalMixture(0.5 * _NODE_WEIGHTS, means, np.full(_NODES.size, self.noise**2))

    def _narrow(self, x: np.ndarray) -> _Shape:
        width, t = self.high - self.low, self.noise
        za, zb = (x - self.low) / t, (x - self.high) / t
        flip = za + zb > 0  # Φ(za) − Φ(zb) = Φ(−zb) − Φ(−za): take the tail that does not round to 1
        upper, lower = np.where(flip, -zb, za), np.where(flip, -za, zb)
        mass = _log_difference(log_ndtr(upper), log_ndtr(lower))
        fa, fb = (np.exp(-0.5 * z**2 - LOG_ROOT_2PI - mass) for z in (za, zb))
        first, second, third = fa - fb, zb * fb - za * fa, (za**2 - 1) * fa - (zb**2 - 1) * fb
        s = first / t
        scale = np.log(t / width)
        return _Shape(
            mass - np.log(width),
            s,
            second / t**2 - s**2,
            third / t**3 - 3 * s * second / t**2 + 2 * s**3,
            scale + _log_difference(_log_hinge(za), _log_hinge(zb)),
            scale + _log_difference(_log_hinge(-zb), _log_hinge(-za)),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """``n`` independent draws, a function of ``seed`` alone."""
        rng = np.random.default_rng(seed)
        return rng.uniform(self.low, self.high, n) + self.noise * rng.standard_normal(n)


@dataclass(frozen=True)
class Laplace(_Line):
    """Density ``exp(−|x − location|/scale)/(2 scale)``, plus Gaussian noise of standard deviation ``noise``."""

    location: float
    scale: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.location) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"location = {self.location!r} must be finite and scale = {self.scale!r} positive")

    @property
    def center(self) -> float:
        return self.location

    @property
    def spread(self) -> float:
        return float(np.sqrt(2 * self.scale**2 + self.noise**2))

    def noised(self, sigma: float, alpha: float = 1.0) -> Laplace:
        """The law of αX + σε, α > 0."""
        return Laplace(alpha * self.location, alpha * self.scale, float(np.hypot(alpha * self.noise, sigma)))

    def _shape(self, x: np.ndarray) -> _Shape:
        _check_noise(self.noise)
        b, t = self.scale, self.noise
        y = x - self.location
        log_a, log_b = _log_tilted(y, b, t), _log_tilted(-y, b, t)
        total = np.logaddexp(log_a, log_b)
        normal = np.exp(-0.5 * (y / t) ** 2 - np.log(t) - LOG_ROOT_2PI + np.log(2 * b) - total)  # N(y; t²)/p
        s = np.tanh(0.5 * (log_b - log_a)) / b
        second = (1 - normal) / b**2  # p'' = (p − N)/b²
        third = (s + y / t**2 * normal) / b**2
        left, right = _log_laplace_tail(y, b, t, log_b), _log_laplace_tail(-y, b, t, log_a)
        return _Shape(
            total - np.log(2 * b),
            s,
            second - s**2,
            third - 3 * s * second + 2 * s**3,
            np.where(y <= 0, left, np.log1p(-np.exp(np.minimum(right, -1e-300)))),
            np.where(y >= 0, right, np.log1p(-np.exp(np.minimum(left, -1e-300)))),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """``n`` independent draws, a function of ``seed`` alone."""
        rng = np.random.default_rng(seed)
        return rng.laplace(self.location, self.scale, n) + self.noise * rng.standard_normal(n)


class LineMixture(_Line):
    """``Σ_k w_k ρ_k`` of any laws on the line; weights (K,) are normalised."""

    def __init__(self, weights: ArrayLike, laws: Sequence[Any]) -> None:
        self.weights, self.laws = _probabilities(weights), tuple(laws)
        if self.weights.size != len(self.laws):
            raise ValueError(f"weights has {self.weights.size} entries for {len(self.laws)} laws: give one for each")
        centers, spreads = (np.array([getattr(law, name) for law in self.laws]) for name in ("center", "spread"))
        self.center = float(self.weights @ centers)
        self.spread = float(np.sqrt(self.weights @ (spreads**2 + (centers - self.center) ** 2)))

    def noised(self, sigma: float, alpha: float = 1.0) -> LineMixture:
        """The law of αX + σε."""
        return LineMixture(self.weights, [law.noised(sigma, alpha) for law in self.laws])

    def _shape(self, x: np.ndarray) -> _Shape:
        parts = [law._at(x) for law in self.laws]
        names = _Shape.__dataclass_fields__
        return _mix(np.log(self.weights), _Shape(*(np.stack([getattr(p, n) for p in parts], -1) for n in names)))

    def sample(self, n: int, seed: int) -> np.ndarray:
        """``n`` independent draws, a function of ``seed`` alone."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.laws), n, p=self.weights)
        draws = np.stack([law.sample(n, int(rng.integers(2**63))) for law in self.laws], -1)
        return np.take_along_axis(draws, k[:, None], -1)[:, 0]


def as_line(law: Any) -> Any:
    """The law itself when it is one on the line, or the :class:`NormalMixture` of a Gaussian mixture with d = 1."""
    if hasattr(law, "log_sf"):
        return law
    if getattr(law, "dimension", None) == 1 and hasattr(law, "covariances"):
        return NormalMixture(*(np.asarray(a, dtype=float).reshape(-1) for a in (law.weights, law.means, law.covariances)))
    raise TypeError(
        f"law of type {type(law).__name__} is not one on the line: give a Gaussian mixture with d = 1 or a law with "
        "log_cdf and log_sf, such as oracles.lines.Uniform"
    )


def _mix(log_weights: np.ndarray, parts: _Shape) -> _Shape:
    """The mixture over the last axis: cumulants of the parts' scores g under the responsibilities γ."""
    joint = log_weights + parts.log_density
    total = logsumexp(joint, axis=-1, keepdims=True)
    gamma = np.exp(joint - total)

    def mean(a: np.ndarray) -> np.ndarray:
        return np.sum(gamma * a, axis=-1)

    s = mean(parts.score)
    c = parts.score - s[..., None]
    return _Shape(
        total[..., 0],
        s,
        mean(parts.slope + c**2),
        mean(parts.curvature + 3 * c * parts.slope + c**3),
        logsumexp(log_weights + parts.log_cdf, axis=-1),
        logsumexp(log_weights + parts.log_sf, axis=-1),
    )


def _log_difference(larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    """log(e^larger − e^smaller)."""
    return larger + np.log(-np.expm1(smaller - larger))


def _log_hinge(z: np.ndarray) -> np.ndarray:
    """log(zΦ(z) + φ(z)) = log E(z + ε)₊; for z < −4 by the continued fraction of the repeated integrals of erfc."""
    t = np.maximum(-z, 4.0)
    tail = np.zeros_like(t)
    for n in range(80, 1, -1):  # h_1/h_0, with h_n = h_{n-1}/(t + (n+1) h_{n+1}/h_n ...)
        tail = n / (t + tail)
    near = np.maximum(z, -4.0)
    direct = np.log(near * ndtr(near) + np.exp(-0.5 * near**2 - LOG_ROOT_2PI))
    return np.where(z < -4.0, log_ndtr(-t) - np.log(t + tail), direct)


def _log_tilted(y: np.ndarray, b: float, t: float) -> np.ndarray:
    """log of ``A = e^{t²/2b² − y/b} Φ(y/t − t/b)``, without the cancelling exponents where Φ is small."""
    z = y / t - t / b
    scaled = -0.5 * (y / t) ** 2 + np.log(0.5 * erfcx(-np.minimum(z, 0.0) / np.sqrt(2)))
    return np.where(z < 0, scaled, 0.5 * (t / b) ** 2 - y / b + log_ndtr(np.maximum(z, 0.0)))


def _log_laplace_tail(y: np.ndarray, b: float, t: float, log_b: np.ndarray) -> np.ndarray:
    """log F(y) for y <= 0, by Mills ratios; not used above 0."""
    low = -np.abs(y)
    mills = 0.5 * erfcx(-low / t / np.sqrt(2)) - 0.25 * erfcx((t / b - low / t) / np.sqrt(2))
    return np.logaddexp(-0.5 * (low / t) ** 2 + np.log(mills), log_b - np.log(2))


def _probabilities(weights: ArrayLike) -> np.ndarray:
    w = np.asarray(weights, dtype=float).reshape(-1)
    if not (w.size and np.all(np.isfinite(w)) and np.all(w >= 0) and w.sum() > 0):
        raise ValueError(f"weights = {w!r} must be finite, not negative, and not all zero")
    return w / w.sum()


def _check_noise(noise: float) -> None:
    if not noise > 0:
        raise ValueError(f"the law carries noise {noise!r} and has no smooth density: call noised(sigma), sigma > 0")
