"""Data or seeds: what part of the squared difference between two networks belongs to their data.

A network's value is f = μ + D + S + I: its data's effect, its seed's, and what the two do together. For networks A and
A′ of the same data and other seeds `E|f_A − f_A′|² = 2(S² + I²)` (*within*), and for A and B of other data and other
seeds `E|f_A − f_B|² = 2(D² + S² + I²)` (*cross*). The data's share is

    D²/(D² + S² + I²) = 1 − within²/cross².

A ratio cross/within of 1.1, which looks like an effect, is a share of 17 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from studies.statistics._checks import finite, same_length
from studies.statistics.groups import mean_of_units
from studies.statistics.intervals import Interval

__all__ = ["data_share"]


def data_share(cross: ArrayLike, within: ArrayLike, *, level: float = 0.95) -> Interval:
    """The data's share of the squared difference, with an interval over replicates.

    Student's interval of the mean of `log(cross²/within²)` over replicates, mapped by `1 − exp(−·)`; an estimate below
    zero says that other seeds differed by more than other data.

    Args:
        cross: (R,) root mean square differences of networks on other data, one for each independent replicate.
        within: (R,) of networks on the same data.
        level: confidence level.

    Raises:
        ValueError: different lengths, values that are not finite, or not positive.

    Example:
        >>> print(data_share([1.1, 1.1], [1.0, 1.0]))
        0.1736 [0.1736, 0.1736]
    """
    a, b = finite("cross", cross), finite("within", within)
    same_length(a, b, "cross and within")
    if (a <= 0).any() or (b <= 0).any():
        raise ValueError("cross and within must be positive: they are compared on a logarithmic scale.")
    estimate = mean_of_units(2 * np.log(a / b), level=level)
    share = [-float(np.expm1(-value)) for value in (estimate.estimate, estimate.low, estimate.high)]
    return Interval(*share)
