"""DOP853 for a block of independent small systems, the error held in the worst of them.

SciPy's controller takes one root mean square over the whole state, so that in a block of n latents one hard latent may
err √n times more than the tolerance says. Here the state is a stack (m, n, d) of m quantities (x, δ, ζ) of n latents,
and a step is accepted when the error of *every* quantity of *every* latent passes: with
e = error estimate in R^d, `|e|_rms <= rtol (scale + max_i |y_i|)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import DOP853

Stack = np.ndarray
SMALLEST_RTOL = 100 * np.finfo(float).eps
"""Below this SciPy's controller would be asked for less than rounding."""


class _WorstBlock(DOP853):
    """DOP853 whose error norm is the largest of the blocks' own norms (Hairer, Nørsett, Wanner 1993, II.10)."""

    block = (1, 1)

    def _estimate_error_norm(self, K: np.ndarray, h: float, scale: np.ndarray) -> float:
        # SciPy's scale is atol + rtol |y_i| for each coordinate i: the largest of a block makes it one of the whole
        # vector, so that a coordinate near zero asks for no accuracy of its own.
        scales = scale.reshape(self.block).max(axis=1)
        # Of two embedded errors DOP853 makes e₅²/√(e₅² + .01 e₃²), which falls as h⁸ as the method's own error does;
        # here for each block by itself, not for the whole state.
        fifth = _mean_square(K, self.E5, self.block) / scales**2
        third = _mean_square(K, self.E3, self.block) / scales**2
        size = fifth + 0.01 * third
        norms = np.divide(fifth, np.sqrt(size), out=np.zeros_like(size), where=size != 0)
        return float(np.abs(h) * norms.max())


def _mean_square(K: np.ndarray, weights: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    return np.mean((K.T @ weights).reshape(block) ** 2, axis=1)


def solve(
    field: Callable[[float, Stack], Stack], start: Stack, begin: float, end: float, rtol: float, scale: float
) -> tuple[Stack, int]:
    """State at `end` of `dy/du = field(u, y)`, `y(begin) = start` of shape (m, n, d), and the steps taken.

    Raises:
        FloatingPointError: if the step size underflows: the field is not finite or not smooth at the level named.
    """
    shape = start.shape
    solver = _WorstBlock(
        lambda u, y: field(u, y.reshape(shape)).ravel(), begin, start.ravel(), end, rtol=rtol, atol=rtol * scale
    )
    solver.block = (shape[0] * shape[1], shape[2])
    steps = 0
    while solver.status == "running":
        solver.step()
        steps += 1
    if solver.status == "failed":
        raise FloatingPointError(
            f"the flow's step size underflowed at sigma = {np.exp(solver.t):.3g} (rtol = {rtol:g}): "
            "the score is not finite or not smooth there; check the law and the latents"
        )
    return solver.y.reshape(shape), steps
