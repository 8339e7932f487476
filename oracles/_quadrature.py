"""Adaptive Gauss–Legendre quadrature of many integrals at once, whose panels start from given centres and widths.

An integrand is known to vary within `width_j` of `centre_j`, and no faster than in proportion to the distance from it:
a panel of length h at the distance D from it is halved until h ≤ width_j + D/2 for every j. Each panel then takes the
rule of 12 nodes, its error is the difference from the rule of 8, and panels are halved further where that is large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Features", "integrate"]

ROUNDS = 40  # of halving, each time the panels whose error is too large
_FINE, _COARSE = np.polynomial.legendre.leggauss(12), np.polynomial.legendre.leggauss(8)
_NODES = np.concatenate([_FINE[0], _COARSE[0]])

Integrand = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Features:
    """Where n integrands vary: centres and widths (n, J)."""

    centres: np.ndarray
    widths: np.ndarray


@dataclass
class _Panels:
    """Panels of all integrals: the integral each belongs to, its ends, value, error and the size of its terms."""

    owner: np.ndarray
    low: np.ndarray
    high: np.ndarray


def integrate(
    integrand: Integrand, features: Features, reach: float, tolerance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∫ f_i over |t| ≤ reach for n integrands.

    Args:
        integrand: f(i, t) for integrals i (m,) and points t (m,): values (m, C), the first of which is judged.
        features: where they vary.
        reach: half the length of the interval.
        tolerance: absolute errors (n,) below which panels are no longer halved.

    Returns:
        values (n, C), errors (n,) of the first value, and its sizes ∫ |f| (n,).
    """
    panels = _started(features, reach)
    value, error, size = _evaluated(integrand, panels)
    for _ in range(ROUNDS):
        total = np.bincount(panels.owner, error, minlength=len(tolerance))
        count = np.bincount(panels.owner, minlength=len(tolerance))
        # Where the sum is too large some panel has more than its fair share, tolerance/count: all above half of it are
        # halved, unless they are as short as numbers can tell.
        short = panels.high - panels.low < 8 * np.finfo(float).eps * reach
        poor = (total > tolerance)[panels.owner] & (error > (0.5 * tolerance / count)[panels.owner]) & ~short
        if not poor.any():
            break
        halves = _halved(panels, poor)
        more = _evaluated(integrand, halves)
        value, error, size = (
            np.concatenate([old[~poor], new]) for old, new in zip((value, error, size), more, strict=True)
        )
        panels = _joined(panels, ~poor, halves)
    n = len(tolerance)
    sums = np.stack([np.bincount(panels.owner, column, minlength=n) for column in value.T], -1)
    return sums, np.bincount(panels.owner, error, minlength=n), np.bincount(panels.owner, size, minlength=n)


def _started(features: Features, reach: float) -> _Panels:
    """Panels that are as short as the features ask for."""
    n = len(features.centres)
    panels = _Panels(np.arange(n), np.full(n, -reach), np.full(n, reach))
    done: list[_Panels] = []
    while len(panels.owner):
        middle, length = 0.5 * (panels.low + panels.high), panels.high - panels.low
        # From the feature to the nearer end of the panel; negative where it lies inside.
        gap = np.abs(middle[:, None] - features.centres[panels.owner]) - 0.5 * length[:, None]
        allowed = np.min(features.widths[panels.owner] + 0.5 * np.maximum(gap, 0.0), axis=1)
        # A feature narrower than the spacing of numbers is left to what can be resolved.
        long = length > np.maximum(allowed, 64 * np.finfo(float).eps * reach)
        done.append(_Panels(panels.owner[~long], panels.low[~long], panels.high[~long]))
        panels = _halved(panels, long)
    return _Panels(*(np.concatenate([getattr(p, name) for p in done]) for name in ("owner", "low", "high")))


def _halved(panels: _Panels, chosen: np.ndarray) -> _Panels:
    owner, low, high = panels.owner[chosen], panels.low[chosen], panels.high[chosen]
    middle = 0.5 * (low + high)
    return _Panels(np.tile(owner, 2), np.concatenate([low, middle]), np.concatenate([middle, high]))


def _joined(panels: _Panels, kept: np.ndarray, more: _Panels) -> _Panels:
    pairs = ((getattr(panels, name)[kept], getattr(more, name)) for name in ("owner", "low", "high"))
    return _Panels(*(np.concatenate(pair) for pair in pairs))


def _evaluated(integrand: Integrand, panels: _Panels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (P, C), errors and sizes (P,) of the panels."""
    half = 0.5 * (panels.high - panels.low)
    points = (0.5 * (panels.low + panels.high))[:, None] + half[:, None] * _NODES
    values = integrand(np.repeat(panels.owner, len(_NODES)), points.ravel()).reshape(*points.shape, -1)
    fine, coarse = values[:, :12], values[:, 12:]
    value = half[:, None] * np.einsum("pnc,n->pc", fine, _FINE[1])
    # The rule of 12 is kept and the one of 8 only judges it: the difference is the error of the coarser.
    rough = half * (coarse[..., 0] @ _COARSE[1])
    return value, np.abs(value[:, 0] - rough), half * (np.abs(fine[..., 0]) @ _FINE[1])
