"""Changes of the data as a training run meets them: rates of the weights of its examples, rates of the examples.

A change χ = Σ_j c_j (ν_j − ρ) with ν_j made of training examples moves their weights at the rates
ẇ = Σ_j c_j (ν_j − w), which sum to 0; the weight of equal examples is shared among them. Examples that move,
y_i → y_i + h v_i with weights u_i of the move, do so at the rates ẋ_i = (u_i/w_i) v_i.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sensitivity.measures.points import Points
from sensitivity.perturbations.displacement import Move
from sensitivity.perturbations.perturbation import Perturbation, Sum


class Examples:
    """The training data, to be found again in a change.

    Args:
        points: the examples with their weights w.
        name: of the response that asks, for messages.

    Example:
        >>> from sensitivity import Toward
        >>> examples = Examples(Points(torch.tensor([[0.0], [1.0], [1.0]])), "UnrolledResponse")
        >>> rates, moves = examples.rates(Toward(Points(torch.tensor([[1.0]]))))
        >>> rates.round(decimals=4), moves
        (tensor([-0.3333,  0.1667,  0.1667]), None)
    """

    def __init__(self, points: Points, name: str):
        self.points, self.name = points, name

    @cached_property
    def _places(self) -> dict[bytes, list[int]]:
        places: dict[bytes, list[int]] = {}
        for index, row in enumerate(_written(self.points.data)):
            places.setdefault(row, []).append(index)
        return places

    def rates(self, change: Perturbation) -> tuple[Tensor, Tensor | None]:
        """ẇ, (N,), and ẋ, (N, *shape), or None where no example moves.

        Raises:
            ValueError: for a change that is not made of training examples.
        """
        weights, moves = torch.zeros_like(self.points.weights), None
        for factor, part in change.parts if isinstance(change, Sum) else ((1.0, change),):
            if isinstance(part, Move):
                moved = factor * self._moves(part)
                moves = moved if moves is None else moves + moved
            else:
                weights = weights + factor * self._weights(part)
        return weights, moves

    def _weights(self, change: Perturbation) -> Tensor:
        total = torch.zeros_like(self.points.weights)
        if change.masses is None:
            raise ValueError(
                f"{self.name} does not know what {type(change).__name__} does to training examples; give Toward, "
                "Remove, Reweight or Move with Points of the training data."
            )
        for c, measure in change.masses:
            if not isinstance(measure, Points):
                raise ValueError(
                    f"{self.name} changes the weights of training examples, and a {type(measure).__name__} has none; "
                    "give Points of the training data."
                )
            total = total + c * (self._spread(measure) - self.points.weights)
        return total

    def _moves(self, change: Move) -> Tensor:
        shares = change.points.weights.to(self.points.weights)
        moves = torch.zeros_like(self.points.data)
        for row, indices in enumerate(self.found(change.points)):
            # Equal examples cannot be told apart, so that the displacement's share of their weight moves them all.
            share = shares[row] / self.points.weights[indices].sum()
            moves[indices] += (share * change.displacement[row]).to(moves)
        return moves

    def _spread(self, measure: Points) -> Tensor:
        weights = torch.zeros_like(self.points.weights)
        for row, indices in enumerate(self.found(measure)):
            weights[indices] += measure.weights[row].to(weights) / len(indices)
        return weights

    def check(self, measure: Points) -> None:
        """Refuse points with a bandwidth or of another shape."""
        check_points(measure, self.points, self.name)

    def found(self, measure: Points) -> list[list[int]]:
        """Where each of some points stands among the examples.

        Raises:
            ValueError: for points with a bandwidth, or points that are no examples.
        """
        self.check(measure)
        rows = _written(measure.data.to(self.points.data))
        missing = sum(row not in self._places for row in rows)
        if missing:
            raise ValueError(
                f"{missing} of {len(rows)} points are no training examples, and a training run knows no others; give "
                f"examples of the record's own points, or ParameterResponse in the place of {self.name}."
            )
        return [self._places[row] for row in rows]


def check_points(points: Points, data: Points, name: str) -> None:
    """Refuse points that cannot be examples of a training, in words; `name` is the response that gets them."""
    if points.bandwidth:
        raise ValueError(
            f"bandwidth={points.bandwidth} smooths the points, but a network is trained on examples; give Points "
            f"without a bandwidth to {name}."
        )
    if points.shape != data.shape:
        raise ValueError(
            f"points have shape {points.shape}, but the training data {data.shape}; give one like the other."
        )


def _written(data: Tensor) -> list[bytes]:
    flat = data.detach().flatten(1).cpu().contiguous()
    rows = (flat + 0.0).numpy()  # −0 becomes 0
    return [row.tobytes() for row in rows]
