"""Inversion of a distribution function in either tail, element by element, to rounding.

Given `log F(x) = a` and `log(1 − F(x)) = b`, the smaller of the two tails is the one that fixes x. Newton in the
logarithm, h = log T − log t, kept in a bracket that halves at least at every third step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_EPS = np.finfo(float).eps


def invert(law: Any, log_lower: np.ndarray, log_upper: np.ndarray, max_steps: int = 400) -> np.ndarray:
    """x with F(x) = e^log_lower, 1 − F(x) = e^log_upper; `law` has log_density, log_cdf, log_sf, center, spread.

    Raises:
        FloatingPointError: if no bracket is found or it does not close: the distribution function is not monotone.
    """
    shape = np.shape(log_lower)
    task = _Tail(law, np.ravel(log_lower), np.ravel(log_upper))
    low, high = _bracket(task, task.target.size)
    return _close(task, low, high, max_steps).reshape(shape)


class _Tail:
    """h(x), increasing in x, and its slope, from the smaller tail of each element."""

    def __init__(self, law: Any, log_lower: np.ndarray, log_upper: np.ndarray) -> None:
        self.law, self.left = law, log_lower <= log_upper
        self.target = np.where(self.left, log_lower, log_upper)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tail = np.where(self.left, self.law.log_cdf(x), self.law.log_sf(x))
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.where(self.left, tail - self.target, self.target - tail)
            return value, np.exp(self.law.log_density(x) - tail)


def _bracket(task: _Tail, size: int) -> tuple[np.ndarray, np.ndarray]:
    low = np.full(size, task.law.center - task.law.spread)
    high = np.full(size, task.law.center + task.law.spread)
    width = np.full(size, task.law.spread)
    for _ in range(200):
        above, below = task(low)[0] > 0, task(high)[0] < 0
        if not np.any(above | below):
            return low, high
        width *= 2
        low, high = np.where(above, low - width, low), np.where(below, high + width, high)
    raise FloatingPointError("no bracket was found for a quantile: the law's distribution function is not monotone")


def _close(task: _Tail, low: np.ndarray, high: np.ndarray, max_steps: int) -> np.ndarray:
    x, third_last = 0.5 * (low + high), [high - low] * 3
    for _ in range(max_steps):
        value, slope = task(x)
        low, high = np.where(value <= 0, x, low), np.where(value >= 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # Quotients of tails that have underflowed are no numbers: such a step lies in no bracket, and the bracket
            # is halved.
            newton = x - value / slope
        # Newton alone may creep: where h bends strongly one end of the bracket moves a little and the other never.
        slow = high - low > 0.5 * third_last[0]
        inside = (newton >= low) & (newton <= high) & ~slow
        following = np.where(inside, newton, 0.5 * (low + high))
        # The width three steps ago comes first: a bracket that has not halved since is halved now, so that 400 steps
        # suffice.
        third_last = [*third_last[1:], high - low]
        done = np.abs(following - x) <= _EPS * np.abs(following)
        x = following
        if np.all(done | (high - low <= 2 * _EPS * np.abs(x))):
            return x
    raise FloatingPointError(
        f"a quantile did not converge in {max_steps} steps: the distribution function is not monotone"
    )
