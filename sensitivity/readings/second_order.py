"""Second derivatives of samples in the mass.

With δ = dx/dη and ζ = d²x/dη²,

    dζ/dσ = −σ (∇s ζ + D²s[δ, δ] + 2 ∇ṡ δ + s̈),   ζ(σ_max) = 0.

∇ṡ δ is the derivative along the path; ṡ depends on x and, through the carried log density, on L: with L̇ = dL/dη it is
∇ṡ·δ at L = log p_σ(x) minus (L̇ − s·δ) ṡ, since ṡ is proportional to e^{−L}. L̇ is the derivative of the rule by which
L is summed from the nodes, so that ζ is the exact second derivative of the discrete `resample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from sensitivity.jacobians.second import along
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.sampler.carried_density import arrive, inside, inside_tangents
from sensitivity.sampler.carried_network import CarriedContamination, CarriedNetwork
from sensitivity.sampler.local_maps import Carriage, Local, LocalMaps, density_part, dot, node
from sensitivity.sampler.outcome import Watch
from sensitivity.sampler.path import mark_log_error
from sensitivity.sampler.step import Rate, Slope, State, required
from sensitivity.sampler.tableau import Step


def curvature_slope(maps: LocalMaps, watch: Watch) -> Slope:
    """Slope (s, Jδ + ṡ, Jζ + D²s[δ,δ] + 2∇ṡδ + s̈) with the tangent of the log densities' rates."""

    def slope(step: Step, stage: int, state: State) -> Rate:
        probes = maps.probes(state.x, step, stage)
        derivatives = [
            _derivatives(maps, step.sigmas[stage], state, k, probes) for k in range(len(required(state.tangent)))
        ]
        local = _local(maps, step.sigmas[stage], derivatives[0], probes)
        carried, log_tangents = _carried(maps, step, stage, state, local, derivatives, probes)
        mark_log_error(watch, maps, carried, step.table.levels[stage])
        mean = maps.means(carried.logs)
        lines = [
            _line(maps, step.sigmas[stage], state, mean, k, each, None if log_tangents is None else log_tangents[k])
            for k, each in enumerate(derivatives)
        ]
        return _rate(maps, local, lines, probes, carried)

    return slope


_Derivatives = list[tuple[Tensor, Tensor, Tensor]]
"""s, J v and D²s[v, δ] of each local map for the directions v = δ, ζ and the probes."""


def _derivatives(maps: LocalMaps, sigma: Tensor, state: State, k: int, probes: Tensor) -> _Derivatives:
    tangent, curvature = required(state.tangent)[k], required(state.curvature)[k]
    directions = torch.cat([torch.stack([tangent, curvature]), probes])
    maps.cost.evaluations += 2 * len(maps.each)
    maps.cost.products += 2 * len(maps.each) * len(directions)
    return [along(local_map.products, state.x, sigma, directions, tangent) for local_map in maps.each]


def _local(maps: LocalMaps, sigma: Tensor, derivatives: _Derivatives, probes: Tensor) -> Local:
    scores = [score for score, _, _ in derivatives]
    divergences = maps.divergences(probes, [products[2:] for _, products, _ in derivatives], sigma)
    return Local(tuple(scores), divergences, maps.shared(scores), None)


def _carried(
    maps: LocalMaps,
    step: Step,
    stage: int,
    state: State,
    local: Local,
    derivatives: Sequence[_Derivatives],
    probes: Tensor,
) -> tuple[Carriage, Tensor | None]:
    """Log densities and their derivatives (K, maps, groups, batch) at a stage input."""
    if state.memory is None:
        return Carriage(state.logs), state.log_tangent
    here = node(step, stage, state.x, local.scores, local.divergences)
    moved = [
        node(step, stage, tangent, [b[1][0] for b in each], maps.divergence_slopes(probes, [b[2][2:] for b in each]))
        for tangent, each in zip(required(state.tangent), derivatives, strict=True)
    ]
    window = step.windows[stage]
    if stage:
        logs = inside(state.memory, window, here)
        return Carriage(logs, state.memory), inside_tangents(state.memory, window, here, moved)
    memory = arrive(state.memory, window, here, moved)
    return Carriage(memory.now.logs, memory, True), memory.log_tangents


@dataclass(frozen=True)
class _Branch:
    """One local map along one tangent δ: s, Jδ, Jδ + ṡ, the rate of ζ, and D²s[v, δ] for the probes v."""

    score: Tensor
    moved: Tensor
    tangent: Tensor
    curvature: Tensor
    seconds: Tensor


def _line(
    maps: LocalMaps,
    sigma: Tensor,
    state: State,
    mean: Tensor | None,
    k: int,
    local: _Derivatives,
    log_tangent: Tensor | None,
) -> list[_Branch]:
    x, tangent = state.x, required(state.tangent)[k]
    scores, moved = [part[0] for part in local], [part[1][0] for part in local]
    log_change = None
    if log_tangent is not None:
        log_change = log_tangent.mean(1) - torch.stack([dot(tangent, score) for score in scores])
    stage = _Stage(x, sigma, tangent, scores, moved, mean, log_change)
    branches = []
    for b, (local_map, (score, products, seconds)) in enumerate(zip(maps.each, local, strict=True)):
        source, second = stage.sources(local_map.changes[k], b)
        if local_map.growth:
            second = second - 2 * local_map.growth[k] * source  # η_c″ ṡ_c: the class does not grow as fast as the whole
        curvature = products[1] + seconds[0] + second
        branches.append(_Branch(score, products[0], products[0] + source, curvature, seconds[2:]))
    return branches


@dataclass(frozen=True)
class _Stage:
    """What the sources of one stage depend on; `log_change` = L̇_b − s_b·δ, ∂L_b/∂η at a fixed state, (maps, batch)."""

    x: Tensor
    sigma: Tensor
    tangent: Tensor
    scores: list[Tensor]
    moved: list[Tensor]
    mean: Tensor | None
    log_change: Tensor | None

    def sources(self, change: Perturbation | None, b: int) -> tuple[Tensor, Tensor]:
        """ṡ and 2∇ṡδ + s̈ of local map b."""
        x = self.x
        if change is None:
            return torch.zeros_like(x), torch.zeros_like(x)
        known = self.mean[b] if self.mean is not None and change.needs_density else None
        here = change
        if isinstance(change, CarriedContamination) and self.mean is not None:
            here = change.at(self.scores, self.mean, self.moved)
        # Along the path ṡ changes with x at L = log p_σ(x), which `source_product` takes, and once more because the
        # carried L is not that function of x: its derivative in η at a fixed state is `log_change`.
        source = here.source(x, self.sigma, self.scores[b], known)
        turned = here.source_product(x, self.sigma, self.scores[b], self.moved[b], known, self.tangent)
        if known is not None and self.log_change is not None:
            turned = turned + self._drifted(change, here, b, known, self.log_change, source)
        return source, 2 * turned + here.second_source(x, self.sigma, self.scores[b], known)

    def _drifted(
        self, change: Perturbation, here: Perturbation, b: int, known: Tensor, log_change: Tensor, source: Tensor
    ) -> Tensor:
        """∂_L ṡ (L̇ − s·δ), summed over the log densities that ṡ depends on: −ṡ for p, +ṡ_j for a carried ν_j."""
        total = -per_sample(log_change[b], self.x) * density_part(
            here, self.x, self.sigma, self.scores[b], known, source
        )
        if isinstance(change, CarriedContamination):
            for given, (c, measure) in zip(change.masses, here.masses or (), strict=True):
                if isinstance(given[1], CarriedNetwork):
                    part = CarriedContamination(((c, measure),)).source(self.x, self.sigma, self.scores[b], known)
                    total = total + per_sample(log_change[given[1].index], self.x) * part
        return total


def _rate(maps: LocalMaps, local: Local, lines: list[list[_Branch]], probes: Tensor, carried: Carriage) -> Rate:
    tangents = [maps.shared([branch.tangent for branch in line]) for line in lines]
    moved = tuple(torch.stack([line[b].moved for line in lines]) for b in range(len(maps.each)))
    shared = maps.shared(moved)
    known: list[Tensor] = []
    if carried.memory is None:
        rates = [_log_tangent_rate(maps, line, local.drift, t, probes) for line, t in zip(lines, tangents, strict=True)]
        known = [rate for rate in rates if rate is not None]
    return replace(
        maps.rate(local, local.drift, torch.stack(tangents), carried),
        curvature=torch.stack([maps.shared([branch.curvature for branch in line]) for line in lines]),
        log_tangent=torch.stack(known) if known else None,
        moved=moved,
        answers=(shared, torch.stack(tangents) - shared),
    )


def _log_tangent_rate(
    maps: LocalMaps, line: list[_Branch], drift: Tensor, tangent: Tensor, probes: Tensor
) -> Tensor | None:
    """q̇_b = ∇div s_b·δ + J_bδ·(s_b − s) + s_b·(J_bδ − (Jδ + ṡ)), (maps, groups, batch)."""
    slopes = maps.divergence_slopes(probes, [branch.seconds for branch in line])
    if slopes is None:
        return None
    along_path = [dot(b.moved, b.score - drift) + dot(b.score, b.moved - tangent) for b in line]
    return slopes + torch.stack(along_path)[:, None]
