"""Where along a path log densities are taken, and with which weights.

A node is the state at the start of a step (the last one is the state at the path's end); its divergence is taken there,
once. A log density at node j sums the increments of all intervals before it. Those that have two nodes on either side
(or lie at the start) are final; the newest one rests on nodes behind it and is taken anew when the next node is known.
Inner stages of a step take no divergence: q is extrapolated from the nodes, the stage's own score is used. Where few
nodes are known, in the first two steps (four of solvers of high order), their divergence is taken too.

Each increment is taken in three variables and by windows of four and of three nodes, which states its error; where σ
changes more than twofold, references with a bound state it (see `quadrature`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sensitivity.sampler.quadrature import Array, Form, Levels, form, log_weights, references


def size_of(order: int, random: bool) -> int:
    """Nodes of a window: 4 (fourth order), and 6 and 8 for solvers of order 4 and 5.

    Random probes keep to 4: extrapolation to inner stages from more nodes would multiply their noise.
    """
    return 4 if random else {4: 6, 5: 8}.get(order, 4)


WIDE = 2.0
"""Ratio of an interval's levels above which references judge its error: a scale of the data may lie within such an
interval and show at neither end, where differences between rules tell nothing of their error."""

HIDDEN = 0.15
"""Nats for every e-fold of an interval by which ∫ q d(log σ) may be off for what no node shows: where components of a
law part within the interval, div s swells and sinks again between two nodes. Below one e-fold it falls with the sixth
power of the interval in log σ, faster than the rule's own error. It does not grow with the dimension: the parting of
components is an event in few directions.
"""


class Interval(NamedTuple):
    """One interval of a window.

    Attributes:
        parts: number of smaller windows its error is judged by.
        references: number of references that judge its error, 0 where σ changes by less than the factor `WIDE`.
        noise: Σ W²/Σ (W − W′)² over windows of four (W) and of three (W′): independent noise in q makes an increment's
            variance this multiple of the squared difference between the two; 0 where there is one window only.
        hidden: what its error may be beyond what nodes can show, in nats (`HIDDEN`).
    """

    parts: int
    references: int
    noise: float
    hidden: float = 0.0


@dataclass(frozen=True)
class Window:
    """Weights at one stage input; rows are, interval by interval, the variables for each of its windows.

    Attributes:
        levels: σ of the nodes in the window and, last, of the stage input.
        size: number of nodes of a full window.
        takes_divergence: whether the stage input takes a divergence of its own.
        final: how many of the intervals are final once this node is known.
        intervals: those that are summed here, in order.
        rates: coefficients of q_i, (rows, nodes).
        path: coefficients of s_i·(σ_l c_l) and s_i·(D_{m+1} − D_m), for one i after the other, (rows, …).
        references: coefficients of q_i, for each interval that is judged by references all rules and then all bounds,
            (rows, nodes).
        checks: at a node, coefficients of q_i in what this node would have changed at the inner stages before it,
            (inner stages × variables, nodes).
    """

    levels: Levels
    size: int
    takes_divergence: bool
    final: int
    intervals: tuple[Interval, ...]
    rates: Tensor
    path: Tensor
    references: Tensor
    checks: Tensor


def windows(
    nodes: Sequence[float], stages: Sequence[Sequence[float]], like: Tensor, size: int = 4
) -> list[tuple[Window, ...]]:
    """The windows of every step's stages; `nodes` are the levels of the path, `stages` those of each step."""
    return [
        tuple(
            _inside(nodes, k, level, like, size)
            if j
            else _at_node(nodes, k, stages[k - 1][1:] if k else (), like, size)
            for j, level in enumerate(levels)
        )
        for k, levels in enumerate(stages)
    ]


def _at_node(nodes: Sequence[float], j: int, inner: Sequence[float], like: Tensor, size: int) -> Window:
    first, half = max(0, j - size + 1), size // 2
    levels = tuple(nodes[first : j + 1])
    start = j - half if j >= size else 0
    final = j - half + 1 - start if j >= size - 1 else 0
    rows: list[Form] = []
    judges: list[Array] = []
    intervals = []
    for interval in range(start - first, j - first):
        judging = _judges_of(levels, interval)
        known, forms = _windows_of(levels, interval, len(judging) // 2)
        intervals.append(known)
        rows += forms
        judges.append(judging)
    checks = [_checks(levels, level) for level in inner] if len(levels) == size else []
    return _window(levels, size, True, final, tuple(intervals), rows, judges, checks, like)


def _windows_of(levels: Levels, interval: int, judged: int) -> tuple[Interval, list[Form]]:
    count = len(levels)
    spans = [(0, count - 1)]
    if count > 2:
        # The window without its last and without its first node, as far as the interval still lies inside.
        spans += [(a, a + count - 2) for a in (0, 1) if a <= interval and interval + 1 <= a + count - 2]
    rows = [form(levels, interval, a, b, b + 1) for a, b in spans]
    noise = 0.0
    if len(spans) > 1:
        # The difference W − W′ of two windows sees the same q's as the increment: independent noise of variance v in
        # them gives it v Σ (W − W′)² and the increment v Σ W², so that what is seen of the one measures the other.
        whole, part = rows[0].rates[0], rows[1].rates[0]
        noise = float(np.square(whole).sum() / np.square(whole - part).sum())
    width = abs(float(np.log(levels[interval] / levels[interval + 1])))
    hidden = HIDDEN * width * min(1.0, width**5)
    return Interval(len(spans) - 1, judged, noise, hidden), rows


def _judges_of(levels: Levels, interval: int) -> Array:
    """All references' rules and then all their bounds, (2 × references, n); none where the interval is not wide."""
    high, low = max(levels[interval : interval + 2]), min(levels[interval : interval + 2])
    if high <= WIDE * low:
        return np.zeros((0, len(levels)))
    rules = references(levels, levels[interval], levels[interval + 1])
    return np.stack([reference.rates for reference in rules] + [reference.bound for reference in rules])


def _inside(nodes: Sequence[float], k: int, level: float, like: Tensor, size: int) -> Window:
    # Few nodes cannot extrapolate q to an inner stage: the first steps pay one divergence a stage in its place.
    first, takes_divergence = max(0, k - size + 2), k < size - 2
    levels = (*nodes[first : k + 1], level)
    last = len(levels) - 1
    rows = [form(levels, last - 1, 0, last, last + takes_divergence)]
    return _window(levels, size, takes_divergence, 0, (Interval(0, 0, 0.0),), rows, [], [], like)


def _window(
    levels: Levels,
    size: int,
    takes_divergence: bool,
    final: int,
    intervals: tuple[Interval, ...],
    rows: Sequence[Form],
    judges: Sequence[Array],
    checks: Sequence[Array],
    like: Tensor,
) -> Window:
    def table(parts: Sequence[Array]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(like) if parts else like.new_zeros(0, 0)

    rates = table([row.rates for row in rows])
    path = table([_along(row, np.array(levels)) for row in rows])
    return Window(levels, size, takes_divergence, final, intervals, rates, path, table(judges), table(checks))


def _along(row: Form, levels: Array) -> Array:
    """The form's coefficients of s_i·(σ_l c_l) and s_i·(D_{m+1} − D_m), with g_i = σ_i s_i, (V, …)."""
    joined = levels[:, None] * np.concatenate([row.defects / levels[:-1], row.denoiser_steps], 2)
    return joined.reshape(len(joined), -1)


def _checks(levels: Levels, level: float) -> Array:
    """For each variable, ∫ q from the last node but one to a level, with the last node less without it, (V, n)."""
    whole, before = log_weights(levels, levels[-2], level), log_weights(levels[:-1], levels[-2], level)
    return np.concatenate([whole[:, :-1] - before, whole[:, -1:]], 1)
