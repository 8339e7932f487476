"""Gradients of the training loss in the parameters: of one example, of a measure of points, of a change of the data.

g_i = ∂_θ ℓ_i with ℓ_i the mean of example i over its draws, g_ν = Σ_j c_j g_j for points with weights c. A change
χ = Σ_j c_j (ν_j − ρ) has the gradient Σ_j c_j (g_νj − g_ρ); points y_i that move along v_i have Σ w_i ∂g_i/∂y_i v_i.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sensitivity.measures.points import Points
from sensitivity.perturbations.displacement import Move
from sensitivity.perturbations.perturbation import Perturbation, Sum
from sensitivity.responses.examples import check_points
from sensitivity.responses.losses import checked, draws_of
from sensitivity.responses.weights import Weights


class DataLoss:
    """The training loss on given data.

    Args:
        weights: the score as a function of its parameters.
        loss: see `DenoisingLoss`.
        data: the training data ρ.
        block: rows (example and draw) in one network call.

    Attributes:
        evaluations: rows evaluated so far, with or without derivatives.
    """

    def __init__(self, weights: Weights, loss: Any, data: Points, block: int):
        self.weights, self.loss, self.data, self.block = weights, loss, data, block
        self.sigma, self.noise = draws_of(loss, data.data[0])
        self.evaluations = 0

    @property
    def draws(self) -> int:
        """K."""
        return len(self.sigma)

    def rows(self, clean: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x₀, σ and ε of pairs numbered example·K + draw."""
        draw = pairs % self.draws
        return clean[pairs // self.draws], self.sigma[draw], self.noise[draw]

    def blocks(self, count: int) -> Iterator[Tensor]:
        """The numbers of all pairs of this many examples, by blocks."""
        return iter(torch.arange(count * self.draws, device=self.sigma.device).split(self.block))

    def values(self, vector: Tensor, clean: Tensor, pairs: Tensor) -> Tensor:
        """ℓ of every pair, (pairs,), at θ = vector."""
        self.evaluations += len(pairs)
        x0, sigma, noise = self.rows(clean, pairs)
        return checked(self.loss(self.weights.score_at(vector), x0, sigma, noise), len(pairs))

    @cached_property
    def base(self) -> Tensor:
        """g_ρ, (P,)."""
        return self.of_points(self.data)

    def of_points(self, points: Points) -> Tensor:
        """g_ν, (P,)."""
        check_points(points, self.data, "ParameterResponse")
        clean, total = points.data.detach(), torch.zeros_like(self.weights.vector)
        for pairs in self.blocks(len(clean)):
            shares = points.weights[pairs // self.draws] / self.draws
            total = total + self._gradient(lambda w, pairs=pairs, c=shares: (c * self.values(w, clean, pairs)).sum())
        return total

    def of_each(self, clean: Tensor) -> Iterator[Tensor]:
        """g_i of one example after the other: a batch of its own draws needs one backward pass."""
        for example in clean.split(1):
            total = torch.zeros_like(self.weights.vector)
            for pairs in self.blocks(1):
                total = total + self._gradient(
                    lambda w, e=example, pairs=pairs: self.values(w, e, pairs).sum() / self.draws
                )
            yield total

    def of_change(self, change: Perturbation) -> Tensor:
        """The gradient of a change per unit mass moved, (P,).

        Raises:
            ValueError: for measures that are not made of points.
        """
        if isinstance(change, Sum):
            return torch.stack([factor * self.of_change(part) for factor, part in change.parts]).sum(0)
        if isinstance(change, Move):
            return self._of_move(change)
        total = torch.zeros_like(self.weights.vector)
        for c, measure in change.masses or ():
            if isinstance(measure, Points):
                total = total + c * (self.of_points(measure) - self.base)
        return total

    def _of_move(self, change: Move) -> Tensor:
        """Σ_i w_i ∂_y g_i·v_i, as the parameters' gradient of the loss's slope along v."""
        points, total = change.points, torch.zeros_like(self.weights.vector)
        for pairs in self.blocks(len(points)):
            shares = points.weights[pairs // self.draws] / self.draws

            def slope(w: Tensor, pairs: Tensor = pairs, shares: Tensor = shares) -> Tensor:
                clean = points.data.detach().clone().requires_grad_()
                value = (shares * self.values(w, clean, pairs)).sum()
                (along,) = torch.autograd.grad(value, clean, create_graph=True)
                return (along * change.displacement.detach()).sum()

            total = total + self._gradient(slope)
        return total

    def _gradient(self, value: Any) -> Tensor:
        with exact_attention(), torch.enable_grad():
            vector = self.weights.vector.detach().requires_grad_()
            result = value(vector)
            gradient = torch.autograd.grad(result, vector, allow_unused=True)[0] if result.requires_grad else None
        if gradient is None:
            raise ValueError(
                "the loss does not depend on the parameters of module; give the module that the score calls, and a "
                "loss that calls the score it is given, without detach."
            )
        return gradient


def exact_attention() -> AbstractContextManager[None]:
    """Attention by its composite kernel: the fused ones have no second derivatives."""
    return sdpa_kernel(SDPBackend.MATH)


def check_change(change: Perturbation, data: Points) -> None:
    """Refuse a change whose gradient is not known, in words."""
    for _, part in change.parts if isinstance(change, Sum) else ((1.0, change),):
        if isinstance(part, Move):
            check_points(part.points, data, "ParameterResponse")
            continue
        for _, measure in part.masses or ():
            if not isinstance(measure, Points):
                raise ValueError(
                    f"ParameterResponse takes the gradients of examples, and a {type(measure).__name__} has none; give "
                    "Points drawn from it."
                )
            check_points(measure, data, "ParameterResponse")
