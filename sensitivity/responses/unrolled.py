"""The answer of a training run: the derivative of the parameters that it ends with.

Where `parameters` assumes that training ended in an optimum, the derivative of the run itself, through its optimiser,
averages, order and noise, assumes nothing: it is what training again with the same seed does, to first order
(Ilyas & Engstrom 2025, arXiv 2504.16430). The run is recorded and differentiated elsewhere, by what has trained the
network; here its parameters' change is carried to the samples, and a functional's gradient in the parameters back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sensitivity.grid import Grid
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.responses.examples import Examples
from sensitivity.responses.moving_parameters import MovingParameters
from sensitivity.responses.response import Condensed, Stage, module_of
from sensitivity.responses.weights import Weights
from sensitivity.scores.score import Score


@runtime_checkable
class TrainingRecord(Protocol):
    """What a recorded training run must be able to say."""

    @property
    def module(self) -> nn.Module:
        """The trained network; θ is its `named_parameters()` in their order, (P,)."""
        ...

    @property
    def points(self) -> Points:
        """The training data with their weights w, in the order of the run's own."""
        ...

    @property
    def passes(self) -> int:
        """Rows of data that the run evaluates, for the count of cost."""
        ...

    def parameter_change(self, rates: Tensor, moves: Tensor | None = None) -> Tensor:
        """dθ/dη, (K, P), along rates of the weights, (K, N), and of the data, (K, N, *shape) or None."""
        ...

    def pull(self, cotangents: Tensor) -> Tensor:
        """Γ_k·dθ/dη toward each training point (ẇ = e_i − w), (K, N), from Γ, (K, P)."""
        ...


class UnrolledResponse(MovingParameters):
    """ṡ = ∂_θ s θ̇ with θ̇ the derivative of the training run that made θ.

    No density, no divergence, no anchor. Perturbations are made of `Points` of the training data without a bandwidth,
    or are a `Move` of them; a run knows no other points.

    Args:
        record: a `TrainingRecord`: an object with `module`, `points`, `passes`, `parameter_change` and `pull`.
        block: rows in one network call.

    Attributes:
        evaluations: rows evaluated away from the sampler's path so far; a run in forward mode, or back, counts as one
            run for each change or functional.

    Raises:
        TypeError: for an object that is no such record.

    Source: Maclaurin et al. 2015, arXiv 1502.03492; Ilyas & Engstrom 2025, arXiv 2504.16430.

    Example (θ is the mean of the data, by one step of descent; mass moves to the point at 3):
        >>> from sensitivity import Grid, Points, Toward, as_score, sample_sensitivity
        >>> class Mean:
        ...     module = nn.Linear(1, 1)
        ...     points, passes = Points(torch.tensor([[1.0], [3.0]])), 2
        ...     def parameter_change(self, rates, moves=None):
        ...         return torch.stack([0 * rates[:, 0], rates @ self.points.data[:, 0]], 1)
        ...     def pull(self, cotangents):
        ...         return cotangents[:, 1:] * (self.points.data[:, 0] - 2.0)
        >>> record = Mean()
        >>> score = as_score(lambda x, sigma: 0 * record.module(x) + record.module.bias, "denoiser")
        >>> change = Toward(Points(torch.tensor([[3.0]])))
        >>> response = UnrolledResponse(record)
        >>> result = sample_sensitivity(score, torch.ones(1, 1), change, Grid(2.0, 0.5, 4), response=response)
        >>> round(result.sensitivity.item(), 3)  # 1 − .5/2: the mean moves by 1
        0.75
    """

    def __init__(self, record: TrainingRecord, *, block: int = 256):
        if isinstance(record, type) or not isinstance(record, TrainingRecord):
            raise TypeError(
                f"record is a {record if isinstance(record, type) else type(record).__name__}; give a recorded "
                "training run, an object with module, points, passes, parameter_change and pull."
            )
        self.record, self.block = record, whole(block, "block")
        self.examples = Examples(record.points, "UnrolledResponse")
        self.runs = 0

    @property
    def needs(self) -> str:
        """A record of training."""
        return "a record of the network's training run"

    @property
    def evaluations(self) -> int:  # type: ignore[override]  # counted where it happens
        """Rows at which the network was evaluated away from the sampler's path."""
        return self.runs * self.record.passes + self.pulled

    @property
    def example(self) -> Points:
        """The first training point."""
        return Points(self.examples.points.data[:1])

    def direction(self, change: Perturbation) -> Tensor:
        """θ̇ per unit mass moved, (P,)."""
        return self._directions([change])[0]

    def _solved(self, changes: Sequence[Perturbation]) -> Tensor:
        directions = [self.examples.rates(change) for change in changes]
        moves = [moved for _, moved in directions]
        still = torch.zeros_like(self.examples.points.data)
        places = None
        if any(moved is not None for moved in moves):
            places = torch.stack([still if moved is None else moved for moved in moves])
        self.runs += len(changes)
        return self.record.parameter_change(torch.stack([rates for rates, _ in directions]), places)

    def check(self, score: Score, change: Perturbation | None, x: Tensor) -> None:
        """A score that calls the recorded network, and training examples."""
        known = module_of(score)
        if known is not None and known is not self.record.module:
            raise ValueError(
                "response=UnrolledResponse was recorded for another network than the score's; make the score of "
                "record.module."
            )
        self.weights = Weights(score, self.record.module)
        if change is not None:
            self.examples.rates(change)

    def check_points(self, points: Points) -> None:
        """Points like the examples; whether they are examples is seen when they are met."""
        self.examples.check(points)

    def condensed(self, stages: Sequence[Stage], score: Score, grid: Grid) -> Condensed:
        """Γ·θ̇ toward every example, (F, batch, examples): one run back for each functional and latent."""
        self.weights = Weights(score, self.record.module)
        pulled = self._pulled(stages)
        self.runs += len(pulled.flatten(0, 1))
        values = self.record.pull(pulled.flatten(0, 1)).unflatten(0, pulled.shape[:2])
        return {"values": values.to(stages[0].x)}

    def against(self, kept: Sequence[Condensed], points: Points, first: int = 0) -> Tensor:
        """The values of the examples that the points are; equal examples share theirs."""
        values = torch.cat([one["values"] for one in kept], 1)
        return torch.stack([values[..., indices].mean(-1) for indices in self.examples.found(points)], -1)
