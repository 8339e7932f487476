"""How each sample's computation ended.

A step marks bad samples on the device (no host synchronisation); the marks are read once per chunk. A halted sample
keeps its last good state, so that nothing turns into a silent NaN; its outcome says at which level it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Outcome(Enum):
    """How one sample ended; `sentence` says it in words, `halts` whether the sample stopped there.

    Example:
        >>> Outcome.FINISHED.sentence, Outcome.FINISHED.halts
        ('finished', False)
    """

    FINISHED = 0
    NONFINITE_SCORE = 1
    LOG_RATIO_ERROR = 2
    STEP_TOO_COARSE = 3
    REMOVAL_CONTRADICTED = 4
    NONFINITE_DERIVATIVE = 5
    GRID_ERROR = 6
    INEXACT_PRODUCTS = 8
    NO_POINT_NEAR = 9
    NO_LAW = 10
    OFF_FLOW = 11

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        return _SENTENCES[self]

    @property
    def halts(self) -> bool:
        """Whether a sample with this outcome keeps the state it had before."""
        return self in _HALTING


_SENTENCES = {
    Outcome.FINISHED: "finished",
    Outcome.NONFINITE_SCORE: "non-finite score",
    Outcome.LOG_RATIO_ERROR: "log-ratio error too large (random probes leave exp(log r) uncertain: give more probes, "
    "trace='exact', a control, or a KernelRatio)",
    Outcome.STEP_TOO_COARSE: "step too coarse",
    Outcome.REMOVAL_CONTRADICTED: "the estimated density contradicts the removal",
    Outcome.NONFINITE_DERIVATIVE: "overflow of the density ratio or of a Jacobian product, while the sample is sound",
    Outcome.GRID_ERROR: "the grid's error in the log density is too large (take more steps, or add levels "
    "where σ falls steeply: grid.filled(1.2))",
    Outcome.OFF_FLOW: "log p hangs on the way that a path takes off the flow, a network's score being no gradient "
    "(take solver='heun' and more steps; under guidance, along noise or beside a second network give a "
    "KernelRatio or response=, which need no log density)",
    Outcome.INEXACT_PRODUCTS: (
        "Jacobian products are differences too inexact to use (see product_error; take float64 or a network that torch "
        "can differentiate)"
    ),
    Outcome.NO_POINT_NEAR: "every influence is zero (no point near the path: do points and latents have one scale?)",
    Outcome.NO_LAW: "no law has this mass: at a point of what is taken the density would be negative (m of N points "
    "are removed by eta = −m/(N − m): take perturbation.mass(N))",
}
_HALTING = (Outcome.NONFINITE_SCORE, Outcome.REMOVAL_CONTRADICTED)


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of a batch.

    Attributes:
        codes: (batch,) values of `Outcome`.
        levels: (batch,) noise level σ of the first bad step; NaN where finished.
        note: what the run would have the reader know beside, or nothing; ends the sentence.

    Example:
        >>> outcomes = Outcomes(torch.tensor([0, 3]), torch.tensor([float("nan"), 0.5]))
        >>> outcomes.finished.tolist(), outcomes[1].name
        ([True, False], 'STEP_TOO_COARSE')
    """

    codes: Tensor
    levels: Tensor
    note: str = ""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, sample: int) -> Outcome:
        return Outcome(int(self.codes[sample]))

    @property
    def finished(self) -> Tensor:
        """(batch,) whether a sample finished."""
        return self.codes == Outcome.FINISHED.value

    @property
    def sentence(self) -> str:
        """One sentence for the run.

        Example:
            >>> Outcomes(torch.tensor([0, 1]), torch.tensor([float("nan"), 0.5])).sentence
            '1 of 2 samples finished; 1: non-finite score, first at σ = 0.5.'
        """
        total = len(self.codes)
        parts = [f"{int(self.finished.sum())} of {total} samples finished"]
        for outcome in list(Outcome)[1:]:
            bad = self.codes == outcome.value
            if bool(bad.any()):
                level = float(self.levels[bad].max())
                parts.append(f"{int(bad.sum())}: {outcome.sentence}, first at σ = {level:.3g}")
        return "; ".join(parts) + "." + (f" {self.note}" if self.note else "")

    @classmethod
    def join(cls, parts: list[Outcomes]) -> Outcomes:
        """Outcomes of consecutive chunks."""
        return cls(torch.cat([p.codes for p in parts]), torch.cat([p.levels for p in parts]), parts[0].note)


class Watch:
    """First bad step of every sample, accumulated on the device."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self._codes = torch.zeros(batch, dtype=torch.int64, device=device)
        self._levels = torch.full((batch,), float("nan"), dtype=torch.float32, device=device)
        self.running = torch.ones(batch, dtype=torch.bool, device=device)

    def mark(self, bad: Tensor, outcome: Outcome, level: float) -> None:
        """Record `outcome` at σ = level where `bad` (batch,) and nothing worse was recorded before."""
        new = bad & (self.running if outcome.halts else self._codes == Outcome.FINISHED.value)
        # Not `where` with numbers: on a GPU it copies them from the host and waits.
        self._codes = self._codes.masked_fill(new, outcome.value)
        self._levels = self._levels.masked_fill(new, level)
        if outcome.halts:
            self.running = self.running & ~bad

    def read(self) -> Outcomes:
        """The marks so far, on the CPU (one synchronisation)."""
        return Outcomes(self._codes.cpu(), self._levels.cpu())
