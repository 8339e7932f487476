"""How far a long call is: what is done, of how much, how fast, and what is left.

Every long call takes `progress=`: False is silence, True one line on standard error, and a function is called with
(done, total, rate, remaining): two counts, counts a second, and seconds. It is called in the process that made the
call, after each step of the sampler (counted latent by latent) or each shard of data.

Example:
    >>> import torch
    >>> from sensitivity import GaussianAnchor, Grid, sample
    >>> law, told = GaussianAnchor(torch.zeros(2), 1.0), []
    >>> _ = sample(law.score, torch.zeros(3, 2), Grid(10.0, 0.1, 4), progress=lambda *numbers: told.append(numbers[:2]))
    >>> told
    [(3, 12), (6, 12), (9, 12), (12, 12)]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

Report = Callable[[int, int, float, float], Any]
T = TypeVar("T")


@dataclass
class Progress:
    """How far a call is.

    Attributes:
        total: what there is to do.
        report: None for silence, or what is called with (done, total, rate, remaining).
        fresh: what of the done was computed now; the rest was there before and says nothing of the rate.
    """

    total: int
    report: Report | None
    done: int = 0
    fresh: int = 0
    start: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, total: int, asked: Any, unit: str = "steps") -> Progress:
        """`progress=` as it was given: False, True, or a function."""
        if not isinstance(asked, bool) and not callable(asked):
            raise TypeError(f"progress={asked!r} is a {type(asked).__name__}: give True, False or a function.")
        return cls(total, asked if callable(asked) else Line(unit) if asked else None)

    def add(self, count: int, reused: bool = False) -> None:
        """So much more is done."""
        self.done, self.fresh = self.done + count, self.fresh + (0 if reused else count)
        if self.report is not None:
            rate = self.fresh / max(time.perf_counter() - self.start, 1e-9)
            self.report(self.done, self.total, rate, (self.total - self.done) / rate if rate else 0.0)

    def over(self, items: Iterable[T], each: int = 1) -> Iterator[T]:
        """The items one by one; when the next is asked for, `each` more is done."""
        for item in items:
            yield item
            self.add(each)


@dataclass(frozen=True)
class Line:
    """One line on standard error, written over itself.

    Attributes:
        unit: what is counted.
    """

    unit: str

    def __call__(self, done: int, total: int, rate: float, remaining: float) -> None:
        end = "\n" if done >= total else ""
        words = f"\r{done} of {total} {self.unit}, {rate:.0f} a second, {remaining:.0f} s left "
        print(words, end=end, file=sys.stderr, flush=True)
