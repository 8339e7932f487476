"""One sampler step, three readings.

A reading is a slope: a map from a stage input (x, δ, ζ) to its rate (s^w, ∂_w s^w, ∂²_w s^w); the step itself is the
tableau and knows nothing of what is carried:

- sampling and finite mass w: slope s^w;
- tangent at w = 0:            slope (s, Jδ + ṡ): the exact derivative of the discrete step, since at w = 0 the source
                               carries the factor w and the tangent of L drops out;
- cotangent:                   the transpose, from the same weights (`retreat`): with μ_j = B_j λ⁺ + Σ_{i>j} A_ij ν_i
                               and ν_j = J_jᵀ μ_j it is λ = λ⁺ + Σ_j ν_j; the source of stage j is paired with μ_j.

A two-step method carries the denoiser D = x + σ² s of the node before, with its tangents, and x⁺ has h (D − D_before)
beside. Its transpose carries the cotangent κ⁺ of D from the step after: with ρ = h λ⁺ + κ⁺ the first stage has
μ_0 + σ² ρ, λ has ρ beside, and κ = −h λ⁺ goes on to the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from sensitivity.sampler.carried_density import Memory
from sensitivity.sampler.tableau import Step


@dataclass(frozen=True)
class State:
    """What a path carries, and equally the rate of what it carries.

    Attributes:
        x: (batch, *shape).
        logs: L_b per local map and independent probe group, (maps, groups, batch), along a stochastic path; else None.
        tangent: δ_k, (K, batch, *shape), or None.
        curvature: ζ_k, (K, batch, *shape), or None.
        log_tangent: L̇_k = dL/dη, (K, maps, groups, batch), or None; second order along a stochastic path only.
        memory: log densities along the nodes of a path without noise, or None where none is carried.
        before: D, ∂D and ∂²D at the node before as `x`, `tangent` and `curvature`, for a two-step method; else None.
    """

    x: Tensor
    logs: Tensor | None = None
    tangent: Tensor | None = None
    curvature: Tensor | None = None
    log_tangent: Tensor | None = None
    memory: Memory | None = None
    before: State | None = None

    def plus(self, weights: Sequence[float], slopes: Sequence[State]) -> State:
        """x + Σ_j w_j ẋ_j, likewise δ and ζ; log densities are not moved by weights (see `carried_density`, `sde`)."""
        return replace(
            self,
            x=combine(self.x, weights, [slope.x for slope in slopes]),
            tangent=combine_optional(self.tangent, weights, [slope.tangent for slope in slopes]),
            curvature=combine_optional(self.curvature, weights, [slope.curvature for slope in slopes]),
        )

    def finite(self) -> Tensor:
        """(batch,) whether everything carried beside x is finite."""
        good = torch.ones(self.x.shape[0], dtype=torch.bool, device=self.x.device)
        for carried, leading in ((self.logs, 2), (self.tangent, 1), (self.curvature, 1), (self.log_tangent, 3)):
            if carried is not None:
                good = good & finite(carried, leading)
        return good if self.memory is None else good & finite(self.memory.now.logs, 2)

    def where(self, running: Tensor, other: State) -> State:
        """This state for running samples, `other` for halted ones."""
        column = per_sample(running, self.x)

        def pick(mask: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
            return None if new is None or old is None else torch.where(mask, new, old)

        return State(
            torch.where(column, self.x, other.x),
            pick(running, self.logs, other.logs),
            pick(column, self.tangent, other.tangent),
            pick(column, self.curvature, other.curvature),
            pick(running, self.log_tangent, other.log_tangent),
            self.memory if self.memory is None or other.memory is None else self.memory.kept(running, other.memory),
            self.before,  # a halted sample takes no step and needs none
        )


@dataclass(frozen=True)
class Rate(State):
    """A rate, with the local values that a stochastic step's log density needs (see `sde`).

    Attributes:
        scores: s_b, each (batch, *shape).
        divergences: div s_b, (maps, groups, batch), or None.
        moved: J_b δ_k for each local map, (K, batch, *shape), where L̇ is carried.
        answers: Jδ_k and ṡ_k, whose sum is the rate of the tangent, (K, batch, *shape) each, where it is carried.
    """

    scores: tuple[Tensor, ...] = ()
    divergences: Tensor | None = None
    moved: tuple[Tensor, ...] = ()
    answers: tuple[Tensor, Tensor] | None = None


Slope = Callable[[Step, int, State], Rate]
Advance = Callable[[Step, State, Slope], State]
Transpose = Callable[[Step, int, Tensor], Tensor]


def advance(step: Step, state: State, slope: Slope) -> State:
    """One step of the tableau: every stage's slope from its input, then the final combination."""
    slopes: list[Rate] = []
    table = step.table
    for stage in range(len(table.levels)):
        entry = state.plus(table.stages[stage], slopes) if stage else state
        slopes.append(slope(step, stage, entry))
        if slopes[-1].memory is not None:
            state = replace(state, memory=slopes[-1].memory)
    after = state.plus(table.final, slopes)
    return _remembering(step, state, slopes[0], after) if table.remembers else after


def _remembering(step: Step, state: State, slope: Rate, after: State) -> State:
    """The state after a step of a two-step method: moved by h (D − D_before), with D kept for the next one."""
    plain = State(state.x, tangent=state.tangent, curvature=state.curvature)
    here = plain.plus((step.start**2,), (slope,))
    if state.before is not None:
        weight = step.table.history
        after = after.plus((weight, -weight), (here, state.before))
    return replace(after, before=here)


def retreat(
    step: Step, cotangent: Tensor, transpose: Transpose, later: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """λ and κ before the step from λ⁺ and κ⁺ (`later`) after it, κ of two-step methods only.

    `transpose(step, j, μ_j)` returns J_jᵀ μ_j and may pair μ_j with sources.
    """
    table = step.table
    count = len(table.levels)
    # D of this node counts twice: with h in x⁺ and with −h of the next step there, which κ⁺ brings back.
    recalled = combine_optional(later, [table.history], [cotangent])  # ρ
    if recalled is None and table.history:
        recalled = table.history * cotangent
    # An explicit tableau is lower triangular, so that its transpose is solved from the last stage to the first.
    pulled: list[Tensor] = []  # ν_i for i = count−1 down to j+1
    for j in reversed(range(count)):
        weights = [table.stages[i][j] for i in range(count - 1, j, -1)]
        mu = combine(table.final[j] * cotangent, weights, pulled)
        if recalled is not None and j == 0:
            mu = torch.add(mu, recalled, alpha=step.start**2)
        pulled.append(transpose(step, j, mu))
    total = combine(cotangent, [1.0] * count, pulled)
    total = total if recalled is None else total + recalled
    return total, -table.history * cotangent if table.history else None


def combine(base: Tensor, weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """base + Σ_j w_j t_j; terms of weight zero are not touched."""
    for weight, term in zip(weights, terms, strict=False):
        if weight != 0.0:
            base = torch.add(base, term, alpha=weight)
    return base


def combine_optional(base: Tensor | None, weights: Sequence[float], terms: Sequence[Tensor | None]) -> Tensor | None:
    """`combine` where a quantity is carried, None where it is not."""
    if base is None:
        return None
    return combine(base, weights, [term for term in terms if term is not None])


def finite(values: Tensor, leading: int = 0) -> Tensor:
    """(batch,) whether all entries of (*leading, batch, …) are finite: NaN and infinity reach the extremes."""
    low, high = torch.aminmax(values.detach().unsqueeze(-1).flatten(leading + 1), dim=-1)
    good = torch.isfinite(low) & torch.isfinite(high)
    return good.flatten(0, leading - 1).all(0) if leading else good


def required(value: Tensor | None) -> Tensor:
    """A carried quantity, where this reading is known to carry it."""
    if value is None:
        raise ValueError("a quantity that this reading needs was not carried along the path.")
    return value
