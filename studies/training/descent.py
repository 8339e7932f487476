"""Rules of descent as pure functions of their state, so that a run can be differentiated.

A state is a tuple of flat vectors (P,): the parameters θ first, then what the rule remembers. With g the gradient, α
the learning rate and t = 1, 2, … the step's number,

- Adam: `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`,
  `θ ← (1 − αλ)θ − α m̂/(√(v̂ + ε₀) + ε)`, `m̂ = m/(1 − β₁ᵗ)`, `v̂ = v/(1 − β₂ᵗ)` (Kingma & Ba 2015, arXiv 1412.6980;
  λ > 0 is AdamW, Loshchilov & Hutter 2019, arXiv 1711.05101);
- descent with momentum: `b ← μb + g`, `θ ← (1 − αλ)θ − αb`.

√ has no derivative at 0. Where all gradients so far were exactly 0 (behind a layer that starts at zero), a change of
the data with rate ġ moves m by (1 − β₁)ġ and √v by |ġ| times the change, so that their quotient moves by ṁ/ε alone to
first order: the derivative of √ is taken as 0 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

State = tuple[Tensor, ...]


class Rule(Protocol):
    """One step of descent."""

    @property
    def memory(self) -> int:
        """How many vectors it remembers beside θ; they start at 0."""
        ...

    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """The state after step number `count` = 1, 2, …."""
        ...


@dataclass(frozen=True)
class Adam:
    """Adam, and AdamW where `decay` is positive.

    Attributes:
        first, second: β₁, β₂.
        epsilon: ε.
        inner: ε₀, in units of a squared gradient.
        decay: λ.

    Example:
        >>> theta, mean, square = Adam().step((torch.zeros(1),) * 3, torch.ones(1), 0.5, 1)
        >>> round(float(theta), 6)
        -0.5
    """

    first: float = 0.9
    second: float = 0.99
    epsilon: float = 1e-8
    inner: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        betas = (self.first, self.second)
        if not all(0 <= beta < 1 for beta in betas) or min(self.epsilon, self.inner, self.decay) < 0:
            raise ValueError(f"{self} needs 0 ≤ first, second < 1 and epsilon, inner, decay ≥ 0.")

    @property
    def memory(self) -> int:
        """m and v."""
        return 2

    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """The state after step number `count` = 1, 2, …."""
        theta, mean, square = state
        mean = self.first * mean + (1 - self.first) * gradient
        square = self.second * square + (1 - self.second) * gradient**2
        size = root(square / (1 - self.second**count) + self.inner) + self.epsilon
        theta = (1 - rate * self.decay) * theta - rate / (1 - self.first**count) * mean / size
        return theta, mean, square


@dataclass(frozen=True)
class Momentum:
    """Descent with momentum μ (0: none) and decay λ."""

    momentum: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1 or self.decay < 0:
            raise ValueError(f"{self} needs 0 ≤ momentum < 1 and decay ≥ 0.")

    @property
    def memory(self) -> int:
        """b."""
        return 1

    def step(self, state: State, gradient: Tensor, rate: float, count: int) -> State:
        """The state after step number `count`, which plays no part."""
        theta, velocity = state
        velocity = self.momentum * velocity + gradient
        return (1 - rate * self.decay) * theta - rate * velocity, velocity


RULES: dict[str, type[Adam] | type[Momentum]] = {"Adam": Adam, "Momentum": Momentum}


def root(value: Tensor) -> Tensor:
    """√value, with derivative 0 where value is 0."""
    positive = value > 0
    # The inner choice keeps √0 out of the branch that is not taken: its infinite derivative times 0 would be no number.
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
