"""How far a prediction for a group may be trusted, in words.

The finite prediction Δ_η and the first-order one ηδ differ by the curvature of the samples in η: to leading order
|Δ_η − ηδ| = η²|ζ|/2. Their relative distance e = |Δ_η − ηδ|/|ηδ| is proportional to |η|, so that it reaches a `share`
at the mass |η| share/e, the radius of trust: no further derivative is needed, and any response with a finite form has
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from sensitivity.sampler.outcome import Outcomes

SHARE = 0.25
"""Relative distance of the finite from the first-order prediction up to which the interval is as it was calibrated."""
REFUSED = 2.0
"""An interval that would have to be wider than for any calibration group, by more than this factor, is not given."""


class Trust(Enum):
    """How a group stands to its interval; `sentence` says it in words.

    Example:
        >>> Trust.WITHIN.sentence
        'within the radius of trust'
    """

    WITHIN = 0
    UNJUDGED = 1
    WIDENED = 2
    REFUSED = 3
    TOO_FEW = 4
    UNCALIBRATED = 5

    @property
    def sentence(self) -> str:
        """The state in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Trust.WITHIN: "within the radius of trust",
    Trust.UNJUDGED: "not judged, since form='first' knows no radius of trust",
    Trust.WIDENED: "beyond the radius of trust, with intervals that are wider by as much",
    Trust.REFUSED: "further beyond the radius of trust than any calibration group, without an interval: retrain one, "
    "or change less",
    Trust.TOO_FEW: "without an interval, there being too few calibration groups for the level",
    Trust.UNCALIBRATED: "without an interval, there being no calibration: retrain a few groups, see Calibration.of",
}


@dataclass(frozen=True)
class GroupOutcomes:
    """How each group's prediction is to be taken.

    Attributes:
        names: of the groups.
        trust: how each stands to its interval.
        samples: how the samples of each group ended.
        note: what the intervals assume.

    Example:
        >>> trust = GroupOutcomes(("a",), (Trust.WITHIN,), (Outcomes(torch.tensor([0]), torch.tensor([float("nan")])),))
        >>> trust["a"], trust.sentence
        (<Trust.WITHIN: 0>, '1 of 1 groups within the radius of trust. 1 of 1 samples finished.')
    """

    names: tuple[Any, ...]
    trust: tuple[Trust, ...]
    samples: tuple[Outcomes, ...]
    note: str = ""

    def __getitem__(self, name: Any) -> Trust:
        if name not in self.names:
            raise KeyError(f"there is no group {name!r}; the groups are {list(self.names)}.")
        return self.trust[self.names.index(name)]

    @property
    def sentence(self) -> str:
        """One sentence or more for all groups."""
        parts = []
        for state in dict.fromkeys((Trust.WITHIN, *Trust)):
            who = [str(name) for name, trust in zip(self.names, self.trust, strict=True) if trust is state]
            listed = "" if state is Trust.WITHIN or len(who) == len(self.names) else f" ({', '.join(who)})"
            if who:
                parts.append(f"{len(who)} of {len(self.names)} groups {state.sentence}{listed}")
        note = f" {self.note}" if self.note else ""
        return "; ".join(parts) + "." + note + " " + Outcomes.join(list(self.samples)).sentence


def departures(change: Tensor, first: Tensor) -> Tensor:
    """e = |Δ_η − ηδ|/|ηδ| for each group and sample, (K, batch) from (K, batch, *shape); 0 where nothing moves."""
    gap, size = ((change - first).flatten(2).norm(dim=2), first.flatten(2).norm(dim=2))
    return torch.where(gap > 0, gap / size, torch.zeros_like(gap))


def stretches(departure: Tensor, share: float) -> Tensor:
    """By how much the interval of each group is wider, (K,): the median departure over samples beyond the share."""
    return (departure.median(1).values / share).clamp(min=1.0)


def judged(stretch: Sequence[float], calibrated: float) -> tuple[Trust, ...]:
    """Within, widened or refused, from the stretch of each group and the largest of the calibration groups."""
    limit = REFUSED * calibrated
    return tuple(Trust.WITHIN if each <= 1 else Trust.WIDENED if each <= limit else Trust.REFUSED for each in stretch)
