"""The same alternatives as `mixture` at other sizes, where both sides are nothing but matrix products in the end."""

from __future__ import annotations

from studies.cost.benchmarks import Bound
from studies.cost.benchmarks.mixture import prepare

__all__ = ["EXPECTED", "QUESTION", "SIZES", "prepare"]

QUESTION = "How does the gain over autograd change with components and dimension?"
SIZES = {
    "smoke": [{"components": 2, "dimension": 5, "states": 100}],
    "full": [
        {"components": 1, "dimension": 2, "states": 100_000},
        {"components": 100, "dimension": 10, "states": 10_000},
        {"components": 4, "dimension": 200, "states": 2000},
    ],
}
EXPECTED: tuple[Bound, ...] = ()
