"""Log densities carried along the nodes of a path (weights: `quadrature`, places: `windows`).

dL/dσ along a path is known from the law itself, whatever moves the states: q = σ² div s and the score at the nodes are
enough, for the sampler's own law as for the branches of a guided score, a second network, or the base law along the
path of a changed one (the same transport along a foreign path as in Skreta et al. 2024, arXiv 2412.17762).

Every increment is taken in the variables log σ, σ and σ² and by windows of several sizes, and the three are averaged
with weights (Σ differences between windows)⁻², so that the variable in which the windows agree decides, sample by
sample, and yet L is a smooth function of the path: the second order differentiates it. The stated error of an increment
is the larger of its own difference between windows and of its distance to the next best variable (to the farthest,
where σ changes more than twofold); errors of increments are added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity.sampler.quadrature import VARIABLES
from sensitivity.sampler.windows import Interval, Window

_COUNT = len(VARIABLES)
_TINY = 1e-30  # keeps weights finite where windows agree exactly


class Node(NamedTuple):
    """A state with what is known of each law there.

    Attributes:
        x: (batch, *shape).
        scores: s_b, each (batch, *shape).
        rate: q_b = σ² div s_b, (laws, groups, batch); None where it was not taken.
    """

    x: Tensor
    scores: tuple[Tensor, ...]
    rate: Tensor | None


class Sums(NamedTuple):
    """L_b with its stated errors, at one node.

    Attributes:
        logs: L_b, (laws, groups, batch).
        error: the grid's error in nats, (laws, batch).
        noise: variance of L_b from independent noise in q, seen from differences between windows, (laws, batch).
    """

    logs: Tensor
    error: Tensor
    noise: Tensor


class Slant(NamedTuple):
    """Derivatives, in the mass moved, of nodes, settled and newest log density and weights (see `Memory`)."""

    nodes: tuple[Node, ...]
    settled: Tensor
    logs: Tensor
    choice: Tensor


@dataclass(frozen=True)
class Memory:
    """What a path remembers of its log densities.

    Attributes:
        nodes: the newest nodes, one fewer than a window has.
        settled: log densities at the last node whose intervals are all final.
        now: log densities at the newest node.
        choice: weights of the variables in the newest interval, (variables, laws, batch).
        within: how far log densities at the inner stages of the step before the newest node were off, as that node
            shows, in nats, (laws, batch).
        slants: one for each direction, second order only.
    """

    nodes: tuple[Node, ...]
    settled: Sums
    now: Sums
    choice: Tensor
    within: Tensor
    slants: tuple[Slant, ...] = ()

    @classmethod
    def start(cls, logs: Tensor, directions: int = 0) -> Memory:
        """Before the first node, from log densities (laws, groups, batch) there; with L̇ = 0 for each direction."""
        logs = logs.contiguous()  # forward mode refuses expanded tensors
        zero = torch.zeros_like(logs[:, 0])
        sums = Sums(logs, zero, zero)
        first = _weights(logs.expand(_COUNT, *logs.shape), None)
        still = Slant((), torch.zeros_like(logs), torch.zeros_like(logs), torch.zeros_like(first))
        return cls((), sums, sums, first, zero, (still,) * directions)

    def kept(self, running: Tensor, other: Memory) -> Memory:
        """This memory for running samples; halted ones keep their log densities."""
        now = Sums(*(torch.where(running, new, old) for new, old in zip(self.now, other.now, strict=True)))
        return replace(self, now=now)

    @property
    def log_tangents(self) -> Tensor:
        """L̇ at the newest node, (directions, laws, groups, batch)."""
        return torch.stack([slant.logs for slant in self.slants])


def arrive(memory: Memory, window: Window, node: Node, moved: Sequence[Node] = ()) -> Memory:
    """The memory once a node is known; `moved` are the derivatives of the node for each direction."""
    nodes = (*memory.nodes, node)[-len(window.levels) :]
    settled, now, choice = _summed(window, nodes, memory.settled, memory.choice)
    slants = tuple(
        _slanted(window, nodes, memory, slant, change) for slant, change in zip(memory.slants, moved, strict=True)
    )
    within = _missed(window, nodes, memory)
    return Memory(nodes[1 - window.size :], settled, now, choice, within, slants)


def inside(memory: Memory, window: Window, entry: Node) -> Tensor:
    """Log densities at an inner stage, (laws, groups, batch)."""
    nodes = (*memory.nodes[-(len(window.levels) - 1) :], entry)
    return memory.now.logs + _stage(window, nodes, memory.choice)


def inside_slants(memory: Memory, window: Window, entry: Node, moved: Sequence[Node]) -> Tensor:
    """Their derivatives, (directions, laws, groups, batch)."""
    count = len(window.levels) - 1
    nodes = (*memory.nodes[-count:], entry)
    found = []

    def along(choice: Tensor, *each: Parts) -> Tensor:
        return _stage(window, _whole(each), choice)

    for slant, change in zip(memory.slants, moved, strict=True):
        tangents = (*slant.nodes[-count:], change)
        turned = torch.func.jvp(along, (memory.choice, *_parts(nodes)), (slant.choice, *_parts(tangents)))[1]
        found.append(slant.logs + turned)
    return torch.stack(found)


def _slanted(window: Window, nodes: tuple[Node, ...], memory: Memory, slant: Slant, change: Node) -> Slant:
    tangents = (*slant.nodes, change)[-len(nodes) :]

    def sums(settled: Tensor, choice: Tensor, *each: Parts) -> tuple[Tensor, Tensor, Tensor]:
        before, now, newest = _summed(window, _whole(each), memory.settled._replace(logs=settled), choice)
        return before.logs, now.logs, newest

    primal = (memory.settled.logs, memory.choice, *_parts(nodes))
    tangent = (slant.settled, slant.choice, *_parts(tangents))
    before, now, newest = torch.func.jvp(sums, primal, tangent)[1]
    return Slant(tangents[1 - window.size :], before, now, newest)


Parts = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


def _parts(nodes: Sequence[Node]) -> tuple[Parts, ...]:
    """Nodes as trees of tensors, without None."""
    return tuple((node.x, node.scores, () if node.rate is None else (node.rate,)) for node in nodes)


def _whole(parts: Sequence[Parts]) -> list[Node]:
    return [Node(x, tuple(scores), rates[0] if rates else None) for x, scores, rates in parts]


def _stage(window: Window, nodes: Sequence[Node], choice: Tensor) -> Tensor:
    return _blended(_increments(window, nodes), choice)


def _summed(window: Window, nodes: Sequence[Node], settled: Sums, choice: Tensor) -> tuple[Sums, Sums, Tensor]:
    """Sums at the last settled node and at the newest, and the newest interval's weights."""
    now = before = settled
    increments = _increments(window, nodes) if window.intervals else settled.logs
    first = 0
    for number, interval in enumerate(window.intervals):
        rows = increments[first : first + _COUNT * (interval.parts + 1)]
        first += len(rows)
        choice = _weights(
            rows[:_COUNT], rows[_COUNT:].unflatten(0, (interval.parts, _COUNT)) if interval.parts else None
        )
        error, noise = _judged(interval, rows.detach(), choice.detach())
        now = Sums(now.logs + _blended(rows[:_COUNT], choice), now.error + error, now.noise + noise)
        before = now if number < window.settled else before
    return before, now, choice


def _missed(window: Window, nodes: Sequence[Node], memory: Memory) -> Tensor:
    """Largest difference that the newest divergence would have made at the inner stages before it, (laws, batch)."""
    if not len(window.checks):
        return torch.zeros_like(memory.within)
    rates = [node.rate.detach() for node in nodes if node.rate is not None]
    found = _contracted(window.checks, rates).unflatten(0, (-1, _COUNT))
    return torch.stack([_size(_blended(stage, memory.choice)) for stage in found]).amax(0)


def _blended(variables: Tensor, weights: Tensor) -> Tensor:
    """Σ_v w_v I_v for increments (variables, laws, groups, batch) and weights (variables, laws, batch)."""
    return (variables * weights[:, :, None]).sum(0)


def _weights(main: Tensor, parts: Tensor | None) -> Tensor:
    """Weights of the variables, (variables, laws, batch); log σ alone where there is one window only."""
    if parts is None:
        first = torch.zeros_like(main[:, :, 0])
        first[0] = 1.0
        return first
    apart = (main - parts).mean(-2).square().sum(0)
    return torch.softmax(-2 * torch.log(apart + _TINY), 0)


def _judged(interval: Interval, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The increment's stated error and its variance from independent noise in q, (laws, batch)."""
    main, parts = rows[:_COUNT], rows[_COUNT:].unflatten(0, (interval.parts, _COUNT))
    apart = _size(main - parts).amax(0) if interval.parts else torch.zeros_like(main[:, :, 0])
    own, second = (weights * apart).sum(0), torch.sort(apart, dim=0, stable=True)[1][1:2]
    far = _size(main - _blended(main, weights))
    other = far.amax(0) if interval.wide else far.gather(0, second)[0]
    return torch.maximum(own, other), interval.noise * own.square()


def _size(differences: Tensor) -> Tensor:
    """Size of a difference (…, groups, batch) without the noise that its groups show, (…, batch)."""
    if differences.shape[-2] == 1 or not differences.shape[-1]:  # nothing to take a variance of
        return differences[..., 0, :].abs()
    noise = differences.var(-2) / differences.shape[-2]
    return (differences.mean(-2).square() - noise).clamp(min=0.0).sqrt()


def _increments(window: Window, nodes: Sequence[Node]) -> Tensor:
    """Every row's increment, (rows, laws, groups, batch)."""
    known = [node.rate for node in nodes if node.rate is not None]
    total = _contracted(window.rates, known)
    path = torch.stack([_path(window, nodes, b) for b in range(len(nodes[0].scores))], 1)
    return total + path[:, :, None]


def _path(window: Window, nodes: Sequence[Node], b: int) -> Tensor:
    """Σ N_il g_i·e_l of one law, (rows, batch)."""
    levels, scores = window.levels, [node.scores[b] for node in nodes]
    defects, bends = [], []
    for m in range(len(nodes) - 1):
        here, there = levels[m], levels[m + 1]
        step = nodes[m + 1].x - nodes[m].x
        defects.append(torch.add(step, scores[m + 1], alpha=there * (there - here)) / here)
        bends.append(torch.add(torch.add(step, scores[m + 1], alpha=there**2), scores[m], alpha=-(here**2)))
    terms = torch.stack(defects + bends)  # all products with a score at once: operations are dear on small states
    along = torch.cat([(score * terms).flatten(2).sum(2) * level for score, level in zip(scores, levels, strict=True)])
    return _contracted(window.path, along)


def _contracted(coefficients: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Σ_f coefficients[:, f] features_f, (rows, *features.shape), term by term, so that no bit depends on the batch."""
    ones = [1] * features[0].ndim
    columns = coefficients.reshape(*coefficients.shape, *ones).unbind(1)
    total = columns[0] * features[0]
    for column, feature in zip(columns[1:], features[1:], strict=False):
        total = torch.addcmul(total, column, feature)
    return total
