"""Numbers to any number of digits: the same formula at two working precisions, the second twice the first.

A value is returned when both agree to the digits asked for; otherwise the precision is doubled. Cancellation costs
digits, not correctness.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

LARGEST = 12_000
"""Working digits at which a value that still moves is given up."""

ZERO = mpmath.mpf(10) ** -60
"""Share of its natural size below which a value is zero."""

Number = Any
Array = np.ndarray  # of mpf, dtype object


def certified(evaluate: Callable[[], Array], digits: int, scale: Callable[[], Number] | None = None) -> Array:
    """`evaluate()`, an object array of mpf, at the first working precision p for which p and 2p agree to `digits`.

    Agreement is in the largest entry's size: `max |a − b| <= 10^−digits max |b|`. With `scale`, the natural size of
    the quantity, a value below 10^−60 of it counts as zero and is returned as zeros.

    Raises:
        ArithmeticError: where no precision up to 12 000 digits makes the value stand still.
    """
    working = 2 * digits + 20
    with mpmath.workdps(working):
        coarse = evaluate()
    while working < LARGEST:
        working *= 2
        with mpmath.workdps(working):
            fine = evaluate()
            # 10^−60 is told from zero only by digits that go beyond it.
            if scale is not None and working > 80 and size(fine) <= ZERO * scale():
                return 0 * fine
            if size(coarse - fine) <= mpmath.mpf(10) ** -digits * size(fine):
                return fine
        coarse = fine
    raise ArithmeticError(
        f"a value does not converge to {digits} digits with {LARGEST} working digits: is it exactly zero?"
    )


def exact(value: Any) -> Array:
    """Numbers as mpf: floats are the binary numbers that they are, strings are decimals or fractions "a/b"."""
    array = np.array(value, dtype=object)
    return np.array([_exact(v) for v in array.ravel()], dtype=object).reshape(array.shape)


def _exact(value: Any) -> Number:
    if isinstance(value, str):
        value = Fraction(value)
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value) if isinstance(value, mpmath.mpf) else mpmath.mpf(float(value))


def size(array: Array) -> Number:
    """The largest absolute entry; 0 for an empty array."""
    return max((abs(v) for v in array.ravel()), default=mpmath.mpf(0))


def differences(path: Callable[[Any, int], Array], digits: int, step_digits: int) -> dict[str, Any]:
    """Value, first and second derivative of `path(eta, working_digits)` at η = 0 by central differences.

    Steps are h = 10^−step_digits and 2h, extrapolated once (truncation of order h⁴); `path` is asked for `digits`
    digits more than h² takes. The error bars are what the extrapolation changed, times 16 h (more than its next
    term unless derivatives grow by 1/h from order to order), plus the noise of `path` over h or h².

    Raises:
        ArithmeticError: where h and 2h differ by more than a hundredth: the step is outside the linear range.
    """
    working, step = digits + 2 * step_digits, mpmath.mpf(10) ** -step_digits
    with mpmath.workdps(working + 10):
        here, other = path(0, working), path(0, working - 6)
        near, far = ([path(sign * k * step, working) for sign in (-1, 1)] for k in (1, 2))
        # At 6 digits fewer the path moves by what those lack; its own error is 10^−6 of that, two digits of which are
        # reserve.
        noise = size(here - other) * mpmath.mpf(10) ** -4
        first = [(b - a) / (2 * k * step) for k, (a, b) in ((1, near), (2, far))]
        second = [(a - 2 * here + b) / (k * step) ** 2 for k, (a, b) in ((1, near), (2, far))]
        # The absolute weights of the values add up to 3/2 over h and 17/3 over h²: 4 and 8 are above both.
        d1, e1 = _extrapolated(first, step, 4 * noise / step)
        d2, e2 = _extrapolated(second, step, 8 * noise / step**2)
        return {
            "samples": here,
            "samples_error": noise,
            "first": d1,
            "first_error": e1,
            "second": d2,
            "second_error": e2,
        }


def _extrapolated(pair: list[Array], step: Number, noise: Number) -> tuple[Array, Number]:
    near, far = pair
    change = size(near - far)
    if change > size(near) / 100 + noise:
        raise ArithmeticError(
            "differences at h and 2h do not agree to two digits: derivatives grow too fast for this step"
        )
    return (4 * near - far) / 3, 16 * step * change + noise
