"""Curvature of the training loss: (H + λ)⁻¹ for the change of the parameters.

H is the Gauss-Newton matrix E Jᵀ (∂²_s ℓ) J, J the derivative of the score in the parameters: the Hessian without the
network's own second derivatives, which an exactly fitted or a linear network does not have. Its products take one pass
forward and one back. λ is given, or by a rule that looks at the training data alone: a tenth of H's mean eigenvalue
(Grosse et al. 2023, arXiv 2308.03296, section 2.2 for its size), its trace estimated by Rademacher probes.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import choose
from sensitivity.responses.gradients import DataLoss
from sensitivity.responses.losses import checked

SHARE = 0.1
"""λ in units of H's mean eigenvalue where none is given."""

PROBES = 4
LARGEST = 5000
"""Number of parameters up to which H is written out."""

_log = logging.getLogger("sensitivity")


class GaussNewton:
    """Products with H on fixed pairs of example and draw.

    Args:
        data: the loss.
        pairs: how many pairs stand for all, drawn with the seed; None takes all.
        seed: of that draw.
    """

    def __init__(self, data: DataLoss, pairs: int | None, seed: int = 0):
        self.data = data
        total = len(data.data) * data.draws
        generator = torch.Generator().manual_seed(seed)
        some = torch.arange(total) if pairs is None or pairs >= total else torch.randperm(total, generator=generator)
        self.pairs = some[:pairs].to(data.sigma.device)
        shares = data.data.weights[self.pairs // data.draws]
        self.shares = shares / shares.sum()
        self._decided: Products | None = None

    def __len__(self) -> int:
        return len(self.data.weights)

    def product(self, vectors: Tensor) -> Tensor:
        """H v for rows v, (Q, P)."""
        total = torch.zeros_like(vectors)
        for forward, hessian, back in self._blocks():
            total = total + torch.stack([back(hessian(forward(vector))) for vector in vectors])
        return total

    def mean_eigenvalue(self, seed: int = 0) -> float:
        """tr H/P from a few Rademacher probes."""
        vector = self.data.weights.vector
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (PROBES, len(vector)), generator=generator).to(vector) * 2 - 1
        return float((signs * self.product(signs)).double().sum(1).mean()) / len(vector)

    def _blocks(self) -> Iterator[tuple[Callable[[Tensor], Tensor], ...]]:
        """J, c ∂²ℓ and Jᵀ of one block of pairs after the other."""
        clean, vector = self.data.data.data.detach(), self.data.weights.vector
        for pairs, shares in zip(self.pairs.split(self.data.block), self.shares.split(self.data.block), strict=True):
            x0, sigma, noise = self.data.rows(clean, pairs)
            self.data.evaluations += len(pairs)

            # Arguments are bound as defaults: closures would all see the last block's.

            def network(w: Tensor, x0: Tensor = x0, sigma: Tensor = sigma, noise: Tensor = noise) -> Tensor:
                return _output(self.data, w, x0, sigma, noise)

            def of_output(
                s: Tensor, x0: Tensor = x0, sigma: Tensor = sigma, noise: Tensor = noise, c: Tensor = shares
            ) -> Tensor:
                return (c * checked(self.data.loss(lambda _x, _s: s, x0, sigma, noise), len(c))).sum()

            products = self._products(x0, sigma)
            with products._context():
                reverse: Any = vjp(network, vector)
                output, back = reverse
                hessian: Any = vjp(grad(of_output), output)[1]  # a Hessian is its own transpose
                forward = _pushing(network, vector) if products.method == "forward" else _doubled(back, output)
                yield forward, _first(hessian), _first(back)

    def _products(self, x0: Tensor, sigma: Tensor) -> Products:
        """How this network's derivatives are taken, by the trial that its states get too."""
        if self._decided is None:
            chosen = choose(Products(self.data.weights.score), x0, sigma)
            kept = chosen if chosen.exact else Products(self.data.weights.score, "double-vjp", cures=("math",))
            self._decided = kept
        return self._decided


def _pushing(network: Callable[[Tensor], Tensor], vector: Tensor) -> Callable[[Tensor], Tensor]:
    """J v by forward mode."""
    return lambda v: jvp(network, (vector,), (v,))[1]


def _doubled(back: Callable[[Tensor], tuple[Tensor, ...]], output: Tensor) -> Callable[[Tensor], Tensor]:
    """J v as the derivative of Jᵀ u in u, where a layer has no forward mode."""
    return _first(vjp(_first(back), torch.zeros_like(output))[1])


def _first(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """A pullback of one argument without its tuple."""
    return lambda u: function(u)[0]


def _output(data: DataLoss, vector: Tensor, x0: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """What the score answers when the loss calls it."""
    seen: list[Tensor] = []
    score = data.weights.score_at(vector)

    def kept(x: Tensor, level: Tensor) -> Tensor:
        seen.append(score(x, level))
        return seen[-1]

    data.loss(kept, x0, sigma, noise)
    if len(seen) != 1:
        raise ValueError(
            f"loss calls the score {len(seen)} times; its Gauss-Newton matrix is known for one call, write it so."
        )
    return seen[0]


class Curvature(ABC):
    """(H + λ)⁻¹; `damping` is λ."""

    damping: float
    residual: float = 0.0
    """Largest relative residual |(H + λ)v − b|/|b| of the last solution; 0 where it is solved directly."""

    @abstractmethod
    def solve(self, vectors: Tensor) -> Tensor:
        """(H + λ)⁻¹ b for rows b, (Q, P)."""


class Exact(Curvature):
    """H written out and factorised, in double precision."""

    def __init__(self, matrix: GaussNewton, damping: float | None):
        count = len(matrix)
        if count > LARGEST:
            raise ValueError(
                f"curvature='exact' writes out a matrix of {count} by {count}; with more than {LARGEST} parameters use "
                "'ggn', or name fewer in parameters=."
            )
        vector = matrix.data.weights.vector
        dense = matrix.product(torch.eye(count, dtype=vector.dtype, device=vector.device)).double()
        # Columns come from products that round each for itself.
        dense = (dense + dense.T) / 2
        self.damping = SHARE * float(dense.diagonal().mean()) if damping is None else damping
        dense.diagonal().add_(self.damping)
        factor, failed = torch.linalg.cholesky_ex(dense)
        if bool(failed):
            raise ValueError(
                f"damping={damping!r} leaves the curvature singular; give a larger one, or None for the rule."
            )
        self._factor = factor

    def solve(self, vectors: Tensor) -> Tensor:
        """By Cholesky factors."""
        return torch.cholesky_solve(vectors.double().T, self._factor).T.to(vectors.dtype)


class Conjugate(Curvature):
    """Conjugate gradients, all right sides at once, until `tolerance` or for `steps`.

    A solution that has not reached the tolerance is a damped one: its residual is kept, and said in the log. Only
    converged solutions are linear in b, so forward and adjoint readings agree to the tolerance.
    """

    def __init__(self, matrix: GaussNewton, damping: float | None, steps: int, tolerance: float):
        self._matrix, self._steps, self._tolerance = matrix, steps, tolerance
        self.damping = SHARE * matrix.mean_eigenvalue() if damping is None else damping

    def solve(self, vectors: Tensor) -> Tensor:
        """The solutions, with `residual` their worst."""
        # Inner products are summed in double: in single precision their rounding would cost directions their conjugacy.
        solution, rest = torch.zeros_like(vectors), vectors.clone()
        direction, size = rest.clone(), _squares(rest)
        aim = self._tolerance**2 * size
        for _ in range(self._steps):
            if bool((size <= aim).all()):
                break
            image = self._matrix.product(direction) + self.damping * direction
            step = _ratio(size, (direction.double() * image.double()).sum(1))
            solution = solution + step.to(rest) * direction
            rest = rest - step.to(rest) * image
            before, size = size, _squares(rest)
            direction = rest + _ratio(size, before).to(rest) * direction
        self._report(size, _squares(vectors))
        return solution

    def _report(self, size: Tensor, start: Tensor) -> None:
        self.residual = float(torch.where(start > 0, size / start, 0.0).max().sqrt())
        if self.residual > self._tolerance:
            _log.warning(
                f"conjugate gradients left a relative residual of {self.residual:.1e} after {self._steps} steps "
                f"(tolerance {self._tolerance:.0e}): give more steps or a larger damping."
            )


def _squares(rows: Tensor) -> Tensor:
    return rows.double().square().sum(1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a/b as a column, 0 where nothing is left."""
    return torch.where(b > 0, a / b, 0.0)[:, None]
