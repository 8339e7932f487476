"""Log densities carried along the nodes of a path (weights: `quadrature`, places: `windows`).

dL/dσ along a path is known from the law itself, whatever moves the states: q = σ² div s and the score at the nodes are
enough, for the sampler's own law as for the branches of a guided score, a second network, or the base law along the
path of a changed one (the same transport along a foreign path as in Skreta et al. 2024, arXiv 2412.17762).

Every increment is taken in the variables log σ, σ and σ² and by windows of several sizes, and the three are averaged
with weights (Σ differences between windows)⁻², so that the variable in which the windows agree decides, sample by
sample, and yet L is a smooth function of the path: the second order differentiates it. The stated error of an increment
is the larger of its own difference between windows and of its distance to the next best variable. Where σ changes more
than twofold that is so of the path's own part alone; the part ∫ q d(log σ) is then judged by references, whose errors
are bounded for Gaussian data (`quadrature`): its distance to them and their bounds, averaged with weights (bound)⁻⁴.
Where a q is positive, between components, the distance to the farthest variable counts too.

A step may also leave the flow so far that its state lands between components which no earlier node tells apart: the
rules then agree on a path's own part that is far too small. What shows it is the state's depth. A Gaussian component
has its peak χ²/2 nats above a state, χ² = s·(−∇s)⁻¹s ≥ |s|²/(−div s) = |σs|²/(−q), since no eigenvalue of −∇s exceeds
their sum; on the flow of Gaussian data χ² stays as it is, and |σs|² is −q in the mean over any law. By how much
|σs|²/2|q| has grown over an interval of more than a factor two counts as unsure (`_fallen`). Errors are added up,
with an allowance for what no node shows (`windows.HIDDEN`).

All of this holds for scores of laws. A network's is no gradient, and what it does off its flow, the path's own part,
need not be the change of log p: the unsure share of it joins the error (`jacobians.asymmetry`). It falls with the steps
at the solver's order; for a branch of a guided score, or a second network, it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sensitivity.sampler.quadrature import VARIABLES, Levels
from sensitivity.sampler.windows import Interval, Window

_COUNT = len(VARIABLES)
UNSURE = 0.2
"""Share of the path's own part that may be wrong in a wide interval: there its rules can agree by accident."""
_TINY = 1e-30  # keeps weights finite where windows agree exactly


class Node(NamedTuple):
    """A state with what is known of each local map there.

    Attributes:
        x: (batch, *shape).
        scores: s_b, each (batch, *shape).
        rate: q_b = σ² div s_b, (maps, groups, batch); None where it was not taken.
    """

    x: Tensor
    scores: tuple[Tensor, ...]
    rate: Tensor | None


class Sums(NamedTuple):
    """L_b with its stated errors, at one node.

    Attributes:
        logs: L_b, (maps, groups, batch).
        error: the grid's error in nats, (maps, batch).
        noise: variance of L_b from independent noise in q, seen from differences between windows, (maps, batch).
        away: the part of `error` that scores which are no gradients leave off the flow, (maps, batch).
    """

    logs: Tensor
    error: Tensor
    noise: Tensor
    away: Tensor


class MemoryTangent(NamedTuple):
    """Derivatives, in the mass moved, of nodes, final and newest log density and weights (see `Memory`)."""

    nodes: tuple[Node, ...]
    final: Tensor
    logs: Tensor
    choice: Tensor


@dataclass(frozen=True)
class Memory:
    """What a path remembers of its log densities.

    Attributes:
        nodes: the newest nodes, one fewer than a window has.
        final: log densities at the last node whose intervals are all final.
        now: log densities at the newest node.
        choice: weights of the variables in the newest interval, (variables, maps, batch).
        within: how far log densities at the inner stages of the step before the newest node were off, as that node
            shows, in nats, (maps, batch).
        off_flow: share of a score's work off the flow that is unsure, (maps, 1); see `jacobians.asymmetry`.
        tangents: one for each direction, second order only.
    """

    nodes: tuple[Node, ...]
    final: Sums
    now: Sums
    choice: Tensor
    within: Tensor
    off_flow: Tensor
    tangents: tuple[MemoryTangent, ...] = ()

    @classmethod
    def start(cls, logs: Tensor, off_flow: Tensor, directions: int = 0) -> Memory:
        """Before the first node, from log densities (maps, groups, batch) there; with L̇ = 0 for each direction."""
        logs = logs.contiguous()  # forward mode refuses expanded tensors
        zero = torch.zeros_like(logs[:, 0])
        sums = Sums(logs, zero, zero, zero)
        first = _weights(logs.expand(_COUNT, *logs.shape), None)
        still = MemoryTangent((), torch.zeros_like(logs), torch.zeros_like(logs), torch.zeros_like(first))
        return cls((), sums, sums, first, zero, off_flow, (still,) * directions)

    def kept(self, running: Tensor, other: Memory) -> Memory:
        """This memory for running samples; halted ones keep their log densities."""
        now = Sums(*(torch.where(running, new, old) for new, old in zip(self.now, other.now, strict=True)))
        return replace(self, now=now)

    @property
    def log_tangents(self) -> Tensor:
        """L̇ at the newest node, (directions, maps, groups, batch)."""
        return torch.stack([tangent.logs for tangent in self.tangents])


def arrive(memory: Memory, window: Window, node: Node, moved: Sequence[Node] = ()) -> Memory:
    """The memory once a node is known; `moved` are the derivatives of the node for each direction."""
    nodes = (*memory.nodes, node)[-len(window.levels) :]
    final, now, choice = _summed(window, nodes, memory)
    tangents = tuple(
        _tangent_after(window, nodes, memory, tangent, change)
        for tangent, change in zip(memory.tangents, moved, strict=True)
    )
    within = _missed(window, nodes, memory)
    return Memory(nodes[1 - window.size :], final, now, choice, within, memory.off_flow, tangents)


def inside(memory: Memory, window: Window, entry: Node) -> Tensor:
    """Log densities at an inner stage, (maps, groups, batch)."""
    nodes = (*memory.nodes[-(len(window.levels) - 1) :], entry)
    return memory.now.logs + _stage(window, nodes, memory.choice)


def inside_tangents(memory: Memory, window: Window, entry: Node, moved: Sequence[Node]) -> Tensor:
    """Their derivatives, (directions, maps, groups, batch)."""
    count = len(window.levels) - 1
    nodes = (*memory.nodes[-count:], entry)
    log_tangents = []

    def along(traced: Window, choice: Tensor, *each: Parts) -> Tensor:
        return _stage(traced, _whole(each), choice)

    for tangent, change in zip(memory.tangents, moved, strict=True):
        moved_nodes = (*tangent.nodes[-count:], change)
        primal, direction = (memory.choice, *_parts(nodes)), (tangent.choice, *_parts(moved_nodes))
        log_tangents.append(tangent.logs + _turned(window, along, primal, direction))
    return torch.stack(log_tangents)


def _turned(window: Window, function: Callable[..., Any], primal: tuple[Any, ...], direction: tuple[Any, ...]) -> Any:
    """Derivative of `function(window, *primal)` along a direction of the primal."""

    def along(rates: Tensor, path: Tensor, *each: Any) -> Any:
        return function(replace(window, rates=rates, path=path), *each)

    # The coefficients are constants, with tangents of zeros all the same: torch's forward mode takes a factor without
    # a tangent through a symbolic zero, at a hundred times the price of the product.
    constants = window.rates, window.path
    zeros = tuple(torch.zeros_like(each) for each in constants)
    return torch.func.jvp(along, (*constants, *primal), (*zeros, *direction))[1]


def _tangent_after(
    window: Window, nodes: tuple[Node, ...], memory: Memory, tangent: MemoryTangent, change: Node
) -> MemoryTangent:
    moved = (*tangent.nodes, change)[-len(nodes) :]

    def sums(traced: Window, final: Tensor, choice: Tensor, *each: Parts) -> tuple[Tensor, Tensor, Tensor]:
        turned = replace(memory, final=memory.final._replace(logs=final), choice=choice)
        before, now, newest = _summed(traced, _whole(each), turned)
        return before.logs, now.logs, newest

    # All that L depends on: final sums, weights of the newest interval, and the nodes of the window. Stated errors are
    # not differentiated, and so neither `error` nor `noise` of a sum is among the inputs.
    primal = (memory.final.logs, memory.choice, *_parts(nodes))
    direction = (tangent.final, tangent.choice, *_parts(moved))
    before, now, newest = _turned(window, sums, primal, direction)
    return MemoryTangent(moved[1 - window.size :], before, now, newest)


Parts = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


def _parts(nodes: Sequence[Node]) -> tuple[Parts, ...]:
    """Nodes as trees of tensors, without None."""
    return tuple((node.x, node.scores, () if node.rate is None else (node.rate,)) for node in nodes)


def _whole(parts: Sequence[Parts]) -> list[Node]:
    return [Node(x, tuple(scores), rates[0] if rates else None) for x, scores, rates in parts]


def _stage(window: Window, nodes: Sequence[Node], choice: Tensor) -> Tensor:
    rates, path = _increments(window, nodes)
    return _blended(rates + path, choice)


def _summed(window: Window, nodes: Sequence[Node], memory: Memory) -> tuple[Sums, Sums, Tensor]:
    """Sums at the last final node and at the newest, and the newest interval's weights."""
    now = before = memory.final
    choice = memory.choice
    if not window.intervals:
        return before, now, choice
    rates, path = _increments(window, nodes)
    increments = rates + path
    judges = rates[:0]
    if len(window.references):
        judges = _contracted(window.references, [rate.detach() for rate in _rates(nodes)])
    first = judged = 0
    for number, interval in enumerate(window.intervals):
        span = slice(first, first + _COUNT * (interval.parts + 1))
        rows = increments[span]
        first = span.stop
        choice = _weights(
            rows[:_COUNT], rows[_COUNT:].unflatten(0, (interval.parts, _COUNT)) if interval.parts else None
        )
        shown, noise = _judged(interval, rows.detach(), choice.detach())
        if interval.references:
            references = judges[judged : judged + 2 * interval.references]
            judged += len(references)
            bounded = _bounded(interval, rates[span].detach(), path[span].detach(), choice.detach(), references)
            shown = torch.where(_like_gaussian(nodes), bounded, torch.maximum(bounded, shown))
            shown = shown + _fallen(window.levels, nodes, number - len(window.intervals))
        away = memory.off_flow * _blended(path[span][:_COUNT].detach(), choice.detach())[:, 0].abs()
        now = Sums(
            now.logs + _blended(rows[:_COUNT], choice),
            now.error + shown + interval.hidden + away,
            now.noise + noise,
            now.away + away,
        )
        # Later intervals are summed anew once the next node is known, from where the final ones end.
        before = now if number < window.final else before
    return before, now, choice


def _missed(window: Window, nodes: Sequence[Node], memory: Memory) -> Tensor:
    """Largest difference that the newest divergence would have made at the inner stages before it, (maps, batch)."""
    if not len(window.checks):
        return torch.zeros_like(memory.within)
    misses = _contracted(window.checks, [rate.detach() for rate in _rates(nodes)]).unflatten(0, (-1, _COUNT))
    return torch.stack([_size(_blended(stage, memory.choice)) for stage in misses]).amax(0)


def _blended(variables: Tensor, weights: Tensor) -> Tensor:
    """Σ_v w_v I_v for increments (variables, maps, groups, batch) and weights (variables, maps, batch)."""
    return (variables * weights[:, :, None]).sum(0)


def _weights(main: Tensor, parts: Tensor | None) -> Tensor:
    """Weights of the variables, (variables, maps, batch); log σ alone where there is one window only."""
    if parts is None:
        first = torch.zeros_like(main[:, :, 0])
        first[0] = 1.0
        return first
    return _preferring((main - parts).mean(-2).square().sum(0))


def _preferring(gaps: Tensor) -> Tensor:
    """Weights that fall with the square of squared errors (ways, …)."""
    # gaps⁻² normalised, as a softmax: a quotient would overflow where the windows agree to rounding.
    return torch.softmax(-2 * torch.log(gaps + _TINY), 0)


def _judged(interval: Interval, rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The increment's stated error and its variance from independent noise in q, (maps, batch)."""
    main, parts = rows[:_COUNT], rows[_COUNT:].unflatten(0, (interval.parts, _COUNT))
    gaps = _size(main - parts).amax(0) if interval.parts else torch.zeros_like(main[:, :, 0])
    # Windows of one variable may agree by accident: the blend is held against the second-best variable too.
    gap, second = (weights * gaps).sum(0), torch.sort(gaps, dim=0, stable=True)[1][1:2]
    far = _size(main - _blended(main, weights))
    other = far.amax(0) if interval.references else far.gather(0, second)[0]
    return torch.maximum(gap, other), interval.noise * gap.square()


def _bounded(interval: Interval, rates: Tensor, path: Tensor, weights: Tensor, references: Tensor) -> Tensor:
    """The stated error of an increment of which a part ∫ q d(log σ) is judged by references, (maps, batch)."""
    rules, bounds = references.chunk(2)
    trust = _preferring(bounds.mean(-2).square())
    distance = _size(rules - _blended(rates[:_COUNT], weights)) + _size(bounds)
    departure = _judged(interval._replace(references=0), path, weights)[0]
    whole = _blended(path[:_COUNT], weights)[:, 0].abs()
    return (trust * distance).sum(0) + torch.maximum(departure, UNSURE * whole)


def _like_gaussian(nodes: Sequence[Node]) -> Tensor:
    """Whether no q of the nodes is positive, which for Gaussian data, whatever their scales, none is, (maps, batch)."""
    return torch.stack(_rates(nodes)).detach().mean(-2).amax(0) <= 0


def _fallen(levels: Levels, nodes: Sequence[Node], later: int) -> Tensor:
    """How much deeper below its component's peak node `later` lies than the node before, at least, (maps, batch)."""
    rates = [rate.detach().mean(-2) for rate in _rates(nodes)]
    now, before = (_depth(levels[j], nodes[j], rates[j]) for j in (later, later - 1))
    # No Gaussian has a positive q: where the node before has one, nothing is known of its depth or taken off.
    return (now - before.masked_fill(rates[later - 1] > 0, 0.0)).clamp(min=0.0)


def _depth(level: float, node: Node, rate: Tensor) -> Tensor:
    """|σs|²/2|q|, (maps, batch): a Gaussian of this score and divergence has its peak at least so many nats above."""
    lengths = torch.stack([score.detach().flatten(1).square().sum(1) for score in node.scores])
    return 0.5 * level**2 * lengths / (rate.abs() + _TINY)


def _size(differences: Tensor) -> Tensor:
    """Size of a difference (…, groups, batch) without the noise that its groups show, (…, batch)."""
    if differences.shape[-2] == 1 or not differences.shape[-1]:  # nothing to take a variance of
        return differences[..., 0, :].abs()
    # E (mean)² = (E mean)² + variance of the mean: less that, what is left is the rules' own difference, not the
    # probes'.
    noise = differences.var(-2) / differences.shape[-2]
    return (differences.mean(-2).square() - noise).clamp(min=0.0).sqrt()


def _increments(window: Window, nodes: Sequence[Node]) -> tuple[Tensor, Tensor]:
    """Every row's ∫ q d(log σ), (rows, maps, groups, batch), and the path's own part, (rows, maps, 1, batch)."""
    rates = _contracted(window.rates, _rates(nodes))
    path = torch.stack([_path(window, nodes, b) for b in range(len(nodes[0].scores))], 1)
    return rates, path[:, :, None]


def _rates(nodes: Sequence[Node]) -> list[Tensor]:
    return [node.rate for node in nodes if node.rate is not None]


def _path(window: Window, nodes: Sequence[Node], b: int) -> Tensor:
    """Σ N_il g_i·e_l of one local map, (rows, batch)."""
    levels, scores = window.levels, [node.scores[b] for node in nodes]
    defects, denoiser_steps = [], []
    for m in range(len(nodes) - 1):
        here, there = levels[m], levels[m + 1]
        step = nodes[m + 1].x - nodes[m].x
        # σ_l c_l and D_{m+1} − D_m of `quadrature`, from the step x_{m+1} − x_m and not from places or denoisers, whose
        # differences are small beside them.
        defects.append(torch.add(step, scores[m + 1], alpha=there * (there - here)))
        denoiser_steps.append(torch.add(torch.add(step, scores[m + 1], alpha=there**2), scores[m], alpha=-(here**2)))
    terms = torch.stack(defects + denoiser_steps)  # with one score at once: operations are dear on small states
    along = torch.cat([(score * terms).flatten(2).sum(2) for score in scores])
    return _contracted(window.path, along.unbind())


def _contracted(coefficients: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Σ_f coefficients[:, f] features_f, (rows, *features.shape), term by term, so that no bit depends on the batch."""
    ones = [1] * features[0].ndim
    columns = coefficients.reshape(*coefficients.shape, *ones).unbind(1)
    total = columns[0] * features[0]
    for column, feature in zip(columns[1:], features[1:], strict=False):
        total = torch.addcmul(total, column, feature)
    return total
