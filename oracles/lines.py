r"""Laws on the real line, noised exactly: Gaussian mixtures, uniform, Laplace, and mixtures of these.

A law is ρ * N(0, τ²) with ρ the clean law and τ its noise, `noised(sigma, alpha)`: X → αX + σε. Methods work
element by element on arrays of any shape: with p the density and F the distribution function,

    log_density = log p,   score = s = p′/p,   score_slope = s′,   score_curvature = s″,
    log_cdf = log F,       log_sf = log(1 − F),

all in logarithms, so that both tails stay right where F or 1 − F underflows. Φ, φ are the standard normal's.

- uniform on (a, b): `p = [Φ(z_a) − Φ(z_b)]/(b−a)`, `F = τ [H(z_a) − H(z_b)]/(b−a)`, `z_a = (x−a)/τ` and
  `H(z) = zΦ(z) + φ(z)`; where τ > b − a these differences cancel, and 32-point Gauss–Legendre over the
  uniform variable is exact to rounding instead;
- Laplace(m, b), y = x − m: `A = e^{τ²/2b² − y/b} Φ(y/τ − τ/b)`, `B = A(−y)`, `p = (A + B)/2b`,
  `F = Φ(y/τ) − A/2 + B/2`, `s = (B − A)/b(A + B) = tanh(D/2)/b`, `D = log B/A = log M(c+z) − log M(c−z)`,
  `c = τ/b`, `z = y/τ`, M = (1 − Φ)/φ the Mills ratio, whose derivatives `(log M)' = t − 1/M = −q` do not cancel.

Example:
    >>> law = Uniform(-1.0, 1.0).noised(0.5)
    >>> bool(abs(np.exp(law.log_cdf(0.3)) + np.exp(law.log_sf(0.3)) - 1.0) < 1e-15)
    True
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_ndtr, logsumexp

from oracles import _line_tails as tails
from oracles._line_tails import LOG_ROOT_2PI, NODE_WEIGHTS, NODES
from oracles._protocols import Gaussians


@dataclass(frozen=True)
class Shape:
    """log p, s, s′, s″, log F and log(1 − F) of one part at the points."""

    log_density: np.ndarray
    score: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    log_cdf: np.ndarray
    log_sf: np.ndarray


class Line(ABC):
    """A law on the line: `center` and `spread` (mean and standard deviation), `noised`, `sample`, and `_shape`."""

    center: Any
    spread: Any

    @abstractmethod
    def noised(self, sigma: float, alpha: float = 1.0) -> Line:
        """The law of αX + σε."""

    @abstractmethod
    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws, a function of `seed` alone."""

    @abstractmethod
    def _shape(self, x: np.ndarray) -> Shape:
        """Everything at the points."""

    def evaluate(self, x: ArrayLike) -> Shape:
        """Density, score, its derivatives and both tails at the points, from one evaluation."""
        with np.errstate(divide="ignore", under="ignore"):
            return self._shape(np.asarray(x, dtype=float))

    def log_density(self, x: ArrayLike) -> np.ndarray:
        """log p(x) in nats."""
        return self.evaluate(x).log_density

    def score(self, x: ArrayLike) -> np.ndarray:
        """s(x) = p′/p."""
        return self.evaluate(x).score

    def score_slope(self, x: ArrayLike) -> np.ndarray:
        """s′(x)."""
        return self.evaluate(x).slope

    def score_curvature(self, x: ArrayLike) -> np.ndarray:
        """s″(x)."""
        return self.evaluate(x).curvature

    def log_cdf(self, x: ArrayLike) -> np.ndarray:
        """log F(x)."""
        return self.evaluate(x).log_cdf

    def log_sf(self, x: ArrayLike) -> np.ndarray:
        """log(1 − F(x))."""
        return self.evaluate(x).log_sf


class NormalMixture(Line):
    """`Σ_k w_k N(m_k, v_k)`; weights (K,) are normalised, variances (K,) may be 0 (noise the law then)."""

    def __init__(self, weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> None:
        self.weights = _probabilities(weights)
        self.means, self.variances = (np.asarray(a, dtype=float).reshape(-1) for a in (means, variances))
        if not self.weights.size == self.means.size == self.variances.size:
            raise ValueError(
                f"weights, means and variances must have one length, not {self.weights.size}, {self.means.size} and "
                f"{self.variances.size}"
            )
        if not (
            np.all(np.isfinite(self.means)) and np.all(self.variances >= 0) and np.all(np.isfinite(self.variances))
        ):
            raise ValueError("means must be finite and variances finite and not negative")
        self.center = float(self.weights @ self.means)
        self.spread = float(np.sqrt(self.weights @ (self.variances + (self.means - self.center) ** 2)))

    def noised(self, sigma: float, alpha: float = 1.0) -> NormalMixture:
        """The law of αX + σε."""
        return NormalMixture(self.weights, alpha * self.means, alpha**2 * self.variances + sigma**2)

    def _shape(self, x: np.ndarray) -> Shape:
        if not np.all(self.variances > 0):
            raise ValueError("a variance is 0: the law has no density until it is noised, call noised(sigma) first")
        v = self.variances
        y = x[..., None] - self.means
        z = y / np.sqrt(v)
        return _mix(
            np.log(self.weights),
            Shape(
                -0.5 * z**2 - 0.5 * np.log(v) - LOG_ROOT_2PI,
                -y / v,
                np.broadcast_to(-1 / v, z.shape),
                np.zeros_like(z),
                log_ndtr(z),
                log_ndtr(-z),
            ),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws, a function of `seed` alone."""
        rng = np.random.default_rng(seed)
        k = rng.choice(self.weights.size, n, p=self.weights)
        return self.means[k] + np.sqrt(self.variances[k]) * rng.standard_normal(n)


@dataclass(frozen=True)
class Uniform(Line):
    """Uniform on (low, high), plus Gaussian noise of standard deviation `noise`."""

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

    def _shape(self, x: np.ndarray) -> Shape:
        _check_noise(self.noise)
        # Under wide noise the two tails nearly cancel, but the law is smooth on the interval's scale: Gauss's rule
        # over the interval is a mixture of normals that equals it to rounding.
        if self.noise > self.high - self.low:
            return self._wide()._shape(x)
        return self._narrow(x)

    def _wide(self) -> NormalMixture:
        means = self.center + 0.5 * (self.high - self.low) * NODES
        return NormalMixture(0.5 * NODE_WEIGHTS, means, np.full(NODES.size, self.noise**2))

    def _narrow(self, x: np.ndarray) -> Shape:
        width, t = self.high - self.low, self.noise
        za, zb = (x - self.low) / t, (x - self.high) / t
        flip = za + zb > 0  # Φ(za) − Φ(zb) = Φ(−zb) − Φ(−za): take the tail that does not round to 1
        upper, lower = np.where(flip, -zb, za), np.where(flip, -za, zb)
        mass = tails.log_difference(log_ndtr(upper), log_ndtr(lower))
        fa, fb = (np.exp(-0.5 * z**2 - LOG_ROOT_2PI - mass) for z in (za, zb))
        # p′/p, p″/p and p‴/p in units of the noise, of which the score and its derivatives are the cumulants.
        first, second, third = fa - fb, zb * fb - za * fa, (za**2 - 1) * fa - (zb**2 - 1) * fb
        s = first / t
        # F is the mean of Φ((x − u)/t) over the interval, (t/width) [h(z_a) − h(z_b)] with h(z) = zΦ(z) + φ(z), whose
        # derivative is Φ.
        scale = np.log(t / width)
        return Shape(
            mass - np.log(width),
            s,
            second / t**2 - s**2,
            third / t**3 - 3 * s * second / t**2 + 2 * s**3,
            scale + tails.log_difference(tails.log_hinge(za), tails.log_hinge(zb)),
            scale + tails.log_difference(tails.log_hinge(-zb), tails.log_hinge(-za)),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws, a function of `seed` alone."""
        rng = np.random.default_rng(seed)
        return rng.uniform(self.low, self.high, n) + self.noise * rng.standard_normal(n)


@dataclass(frozen=True)
class Laplace(Line):
    """Density `exp(−|x − location|/scale)/(2 scale)`, plus Gaussian noise of standard deviation `noise`."""

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

    def _shape(self, x: np.ndarray) -> Shape:
        _check_noise(self.noise)
        b, t = self.scale, self.noise
        y = x - self.location
        z, c = y / t, t / b
        # p = (A + B)/2b with A′ = −A/b + c and B′ = B/b − c, so that s = tanh(½ log(B/A))/b. In the middle A and B are
        # nearly equal, and the logarithm of their ratio is integrated, not subtracted.
        log_a, log_b = tails.log_tilted(y, b, t), tails.log_tilted(-y, b, t)
        log_ratio = np.where(np.abs(z) < c - 4, tails.log_mills_difference(z, c), log_b - log_a)
        ahead, behind = tails.mills_slope(c + z), tails.mills_slope(c - z)
        ratio_slope, ratio_curvature = -(ahead[0] + behind[0]) / t, -(ahead[1] - behind[1]) / t**2
        tanh = np.tanh(0.5 * log_ratio)
        # 1 − tanh² without the difference, which far out would be one of two numbers that round to 1.
        inverse = np.exp(-np.abs(log_ratio))
        sech2 = 4 * inverse / (1 + inverse) ** 2
        left, right = tails.log_laplace_tail(y, b, t, log_b), tails.log_laplace_tail(-y, b, t, log_a)
        return Shape(
            np.logaddexp(log_a, log_b) - np.log(2 * b),
            tanh / b,
            sech2 * ratio_slope / (2 * b),
            sech2 * (ratio_curvature - tanh * ratio_slope**2) / (2 * b),
            # The tail on the other side is near 1: it is 1 less this one. −1e-300 keeps log1p finite where that one is
            # not asked for.
            np.where(y <= 0, left, np.log1p(-np.exp(np.minimum(right, -1e-300)))),
            np.where(y >= 0, right, np.log1p(-np.exp(np.minimum(left, -1e-300)))),
        )

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws, a function of `seed` alone."""
        rng = np.random.default_rng(seed)
        return rng.laplace(self.location, self.scale, n) + self.noise * rng.standard_normal(n)


class LineMixture(Line):
    """`Σ_k w_k ρ_k` of any laws on the line; weights (K,) are normalised."""

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

    def _shape(self, x: np.ndarray) -> Shape:
        parts = [law.evaluate(x) for law in self.laws]
        names = Shape.__dataclass_fields__
        return _mix(np.log(self.weights), Shape(*(np.stack([getattr(p, n) for p in parts], -1) for n in names)))

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` independent draws, a function of `seed` alone."""
        rng = np.random.default_rng(seed)
        k = rng.choice(len(self.laws), n, p=self.weights)
        draws = np.stack([law.sample(n, int(rng.integers(2**63))) for law in self.laws], -1)
        return np.take_along_axis(draws, k[:, None], -1)[:, 0]


def as_line(law: Any) -> Line:
    """The law itself when it is one on the line, or the `NormalMixture` of a Gaussian mixture with d = 1.

    Raises:
        TypeError: for any other law.
    """
    if isinstance(law, Line):
        return law
    if isinstance(law, Gaussians) and law.dimension == 1:
        return NormalMixture(
            *(np.asarray(a, dtype=float).reshape(-1) for a in (law.weights, law.means, law.covariances))
        )
    raise TypeError(
        f"law of type {type(law).__name__} is not one on the line: give a Gaussian mixture with d = 1 or a law of "
        "oracles.lines, such as Uniform"
    )


def _mix(log_weights: np.ndarray, parts: Shape) -> Shape:
    """The mixture over the last axis: cumulants of the parts' scores g under the responsibilities γ."""
    joint = log_weights + parts.log_density
    total = logsumexp(joint, axis=-1, keepdims=True)
    gamma = np.exp(joint - total)

    def mean(a: np.ndarray) -> np.ndarray:
        return np.sum(gamma * a, axis=-1)

    s = mean(parts.score)
    # Cumulants: s′ and s″ of the mixture are the mean of the parts' own and the second and third central moments of g.
    c = parts.score - s[..., None]
    return Shape(
        total[..., 0],
        s,
        mean(parts.slope + c**2),
        mean(parts.curvature + 3 * c * parts.slope + c**3),
        logsumexp(log_weights + parts.log_cdf, axis=-1),
        logsumexp(log_weights + parts.log_sf, axis=-1),
    )


def _probabilities(weights: ArrayLike) -> np.ndarray:
    w = np.asarray(weights, dtype=float).reshape(-1)
    if not (w.size and np.all(np.isfinite(w)) and np.all(w >= 0) and w.sum() > 0):
        raise ValueError(f"weights = {w!r} must be finite, not negative, and not all zero")
    return w / w.sum()


def _check_noise(noise: float) -> None:
    if not noise > 0:
        raise ValueError(f"the law carries noise {noise!r} and has no smooth density: call noised(sigma), sigma > 0")
