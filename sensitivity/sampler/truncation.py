"""Stated error of a sensitivity, from the nodes of its own path and without a network call.

The tangent obeys δ′ = (δ − G)/σ with G = δ + σ² (Jδ + ṡ), the derivative of the denoiser, so that between two nodes

    δ_b = (σ_b/σ_a) δ_a + σ_b ∫ G dω,   ω = 1/σ.

The *defect* of a step is the distance of the computed δ_b from this, ∫ G dω taken with the cubic through four
neighbouring nodes in the variable (log σ, σ or σ²) in which it is smallest: to leading order the solver's own local
error, whatever the solver (cf. the defects of spectral deferred correction, Dutt, Greengard & Rokhlin 2000). With
q = 1 − σ_b/σ_a and E the stated error of the log densities at b, which multiplies the source by e^{±E}, the error of
|δ| is carried along as

    T_b = γ T_a + |defect| + (e^E − 1) q max(|σ² ṡ|_a, |σ² ṡ|_b),   γ = max(1, |δ + qσ²Jδ|/|δ|):

errors grow as the tangent itself does and never shrink. What T leaves out, to be measured (see the book): how the
displacement of the *states* changes Jδ + ṡ; that the sum of norms is an upper bound makes up for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity.sampler.quadrature import Array, Levels, inverse_weights

_SIZE = 4  # nodes of a cubic


class TangentNode(NamedTuple):
    """A node of the tangent's path.

    Attributes:
        level: σ.
        tangent: δ_k, (K, batch, *shape).
        answer: G_k, like it.
        moved: Jδ_k, like it.
        source: |σ² ṡ_k|, (K, batch).
        error: E, the stated error of the log densities in nats, (K, batch); 0 where ṡ_k needs none.
    """

    level: float
    tangent: Tensor
    answer: Tensor
    moved: Tensor
    source: Tensor
    error: Tensor


@dataclass
class Truncation:
    """The stated error of |δ| along a path, (K, batch), brought up to date node by node.

    Attributes:
        total: T at the node up to which intervals are summed; None before the first node.
        nodes: the newest nodes, at most four.
        done: how many of the intervals between `nodes` are summed already.
    """

    total: Tensor | None = None
    nodes: list[TangentNode] = field(default_factory=list)
    done: int = 0

    def arrive(self, node: TangentNode) -> None:
        """Sum every interval that has two nodes on either side once this node is known, or lies at the start."""
        if self.total is None:
            self.total = torch.zeros_like(node.source)
        if len(self.nodes) == _SIZE:
            self.nodes, self.done = self.nodes[1:], self.done - 1
        self.nodes = [*self.nodes, node]
        if len(self.nodes) == _SIZE:
            self._sum(_SIZE - 2)

    def end(self, level: float, tangent: Tensor, error: Tensor | None = None) -> Tensor:
        """T at the path's end (K, batch), where δ but not G need be known; `error` is E there."""
        nodes = self.nodes
        if not nodes:
            return tangent.new_zeros(tangent.shape[:2])
        # A path without a last denoising step ends at a state whose score nobody asked for.
        if nodes[-1].level != level:  # the slope at the end is extrapolated
            last = nodes[-1]
            self._sum(len(nodes) - 1)
            self._add(last, level, tangent, last.source, last.error if error is None else error)
        else:
            self._sum(len(nodes) - 1)
        return required_total(self)

    def denoised(self, error: Tensor | None = None) -> Tensor:
        """T after the exact step to σ = 0, whose result is G at the last node."""
        last, total = self.nodes[-1], required_total(self)
        # A step to σ = 0 has q = 1: δ becomes G, and an error of ṡ counts in full.
        growth = _growth(last, 1.0)
        return growth * total + _growing(last.error if error is None else error) * last.source

    def _sum(self, until: int) -> None:
        for interval in range(self.done, until):
            here, there = self.nodes[interval], self.nodes[interval + 1]
            self._add(here, there.level, there.tangent, torch.maximum(here.source, there.source), there.error)
        self.done = until

    def _add(self, here: TangentNode, level: float, tangent: Tensor, source: Tensor, error: Tensor) -> None:
        share = 1 - level / here.level
        grown = _growth(here, share) * required_total(self)
        self.total = grown + self._defect(here, level, tangent) + _growing(error) * source * share

    def _defect(self, here: TangentNode, level: float, tangent: Tensor) -> Tensor:
        levels = tuple(node.level for node in self.nodes)
        base = torch.add(tangent, here.tangent, alpha=-level / here.level)
        sizes = []
        for row in _weights(levels, here.level, level):
            rest = base
            for weight, node in zip(row, self.nodes, strict=True):
                rest = torch.add(rest, node.answer, alpha=-float(weight))
            sizes.append(_norms(rest))
        # The tangent is smooth in one of the variables: a large defect in the others is theirs, not the step's.
        return torch.stack(sizes).amin(0)


@lru_cache(maxsize=4096)
def _weights(levels: Levels, start: float, end: float) -> Array:
    """σ_b ∫ ℓ_i dω for each variable, (variables, nodes)."""
    return end * inverse_weights(levels, start, end)


def _growth(node: TangentNode, share: float) -> Tensor:
    """γ of the step that starts at a node, (K, batch)."""
    size = _norms(node.tangent)
    moved = _norms(torch.add(node.tangent, node.moved, alpha=share * node.level**2))
    return torch.where(size > 0, moved / torch.where(size > 0, size, 1.0), 1.0).clamp(min=1.0)


def _growing(error: Tensor) -> Tensor:
    """e^E − 1, finite: E beyond 50 nats says no more than 50 do, and 0 · ∞ would be NaN."""
    return torch.expm1(error.clamp(max=50.0))


def _norms(values: Tensor) -> Tensor:
    """(K, batch, *shape) to (K, batch)."""
    return values.flatten(2).norm(dim=2)


def tangent_node(level: float, tangent: Tensor, moved: Tensor, source: Tensor, error: Tensor) -> TangentNode:
    """A node from δ, Jδ and ṡ at a level, without their graphs."""
    tangent, moved, source = tangent.detach(), moved.detach(), source.detach()
    answer = torch.add(tangent, moved + source, alpha=level**2)
    return TangentNode(level, tangent, answer, moved, level**2 * _norms(source), error.detach())


def required_total(state: Truncation) -> Tensor:
    """T, where a node is known."""
    if state.total is None:
        raise ValueError("no node of the path is known yet; call arrive first.")
    return state.total
