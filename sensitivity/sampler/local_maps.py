"""Local maps of one sampler stage, for every network whose log density is carried.

The drift is s = Σ_b c_b s_b over local maps b (one with c = 1; two under classifier-free guidance). At a stage input
(x, σ, L) with L_b = log p_b,σ(x):

- values:            s_b, div s_b and the Jacobian products J t = Σ_b c_b J_b t of any tangents t, in one call each;
- source(w):         ṡ_k = Σ_b c_b ṡ_b,k, the change of the drift per unit mass of perturbation k;
- cotangents:        Jᵀμ = Σ_b c_b J_bᵀ μ;
- gate(w):           s^w, the drift at finite mass.

The transposed source is `Points.pairing`. Everything the three readings of a step need is here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity.jacobians.kept import Graph, Graphs
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.measures.measure import Ratio
from sensitivity.noise import Noise
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.sampler.carried_density import Memory, Node, arrive, inside
from sensitivity.sampler.carried_network import CarriedContamination, LocalMap
from sensitivity.sampler.step import Rate, State
from sensitivity.sampler.tableau import Step


@dataclass(frozen=True)
class Local:
    """Values at one stage input.

    Attributes:
        scores: s_b, each (batch, *shape).
        divergences: (maps, groups, batch) estimates of div s_b, one group per independent probe; None if not carried.
        drift: Σ_b c_b s_b.
        moved: J t for the K tangents, (K, batch, *shape); None without tangents.
    """

    scores: tuple[Tensor, ...]
    divergences: Tensor | None
    drift: Tensor
    moved: Tensor | None


class Carriage(NamedTuple):
    """Log densities at one stage input.

    Attributes:
        logs: L_b, (maps, groups, batch), or None where none is carried.
        memory: what the path remembers, the stage input included where it is a node; None along a stochastic path.
        node: whether the stage input is a node.
    """

    logs: Tensor | None
    memory: Memory | None = None
    node: bool = False


@dataclass
class Cost:
    """What a run asked of the networks and measures, per sample.

    Attributes:
        evaluations: stage inputs at which a network was evaluated, alone or with products.
        products: Jacobian products, with probes and with tangents or cotangents.
        sources: evaluations of a perturbation's source.
        away: network evaluations away from the path that a response asked for since it was made, in all and not per
            sample: rows of training data (a gradient counts as one) or of states it was calibrated at.
    """

    evaluations: int = 0
    products: int = 0
    sources: int = 0
    away: int = 0


@dataclass(frozen=True)
class LocalMaps:
    """The local maps of one run with what is common to them.

    Attributes:
        each: see `LocalMap`.
        trace: how divergences are estimated; None where no log density is carried.
        noise: noise of the probes; None for an exact trace.
        cost: counted as the run goes; a chunk counts anew.
        noisy: work of the scores along the noise of a whole stochastic path, in nats; 0 along a flow.
    """

    each: tuple[LocalMap, ...]
    trace: Trace | None = None
    noise: Noise | None = None
    cost: Cost = field(default_factory=Cost)
    noisy: float = 0.0

    def rows(self, rows: slice) -> LocalMaps:
        """The same for a chunk of the latents."""
        noise = None if self.noise is None else self.noise[rows]
        return replace(self, noise=noise, cost=Cost(away=self.cost.away))

    def off_flow(self, logs: Tensor) -> Tensor:
        """Unsure share of each score's work off the flow, (maps, 1)."""
        # Filled on the device: a list would be copied there, and waited for.
        return torch.stack([logs.new_full((1,), each.products.off_flow) for each in self.each])

    def along_noise(self, logs: Tensor) -> Tensor:
        """What is unsure of log densities (maps, groups, batch) along a stochastic path, (maps, batch)."""
        return self.noisy * self.off_flow(logs).expand(-1, logs.shape[-1])

    def values(self, x: Tensor, tangents: Tensor | None, step: Step, stage: int) -> Local:
        """Scores, Jacobian products and, where the step takes them, divergences at one stage input."""
        trace = self.trace if step.takes_divergence(stage) else None
        sigma = step.sigmas[stage]
        parts = [self._of_map(local_map, x, sigma, tangents, trace, step.index, stage) for local_map in self.each]
        scores = tuple(part[0] for part in parts)
        estimates = [part[1] for part in parts if part[1] is not None]
        products = [part[2] for part in parts if part[2] is not None]
        divergences = None if not estimates else estimates[0][None] if len(estimates) == 1 else torch.stack(estimates)
        moved = self.shared(products) if products else None
        return Local(scores, divergences, self.shared(scores), moved)

    def _of_map(
        self,
        local_map: LocalMap,
        x: Tensor,
        sigma: Tensor,
        tangents: Tensor | None,
        trace: Trace | None,
        step: int,
        stage: int,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        products = local_map.products
        self.cost.evaluations += 1
        self.cost.products += (0 if tangents is None else len(tangents)) + (0 if trace is None else trace.probes)
        if trace is None:
            return _with_tangents(products, x, sigma, tangents)
        # Hutch++ asks for its products twice, and a chunk bounds the directions held at once: tangents then go alone.
        if tangents is None or trace.name == "hutch++" or trace.chunk_size is not None:
            score, divergence = trace.divergence(products, x, sigma, self.noise, step=step, stage=stage)
            return score, divergence, None if tangents is None else products.jvp(x, sigma, tangents)[1]
        directions = trace.directions(x, self.noise, step=step, stage=stage)
        score, along, moved = products.forms_and_tangents(x, sigma, directions, tangents)
        return score, trace.combine(directions, along, sigma), moved

    def means(self, logs: Tensor | None) -> Tensor | None:
        """Mean over groups, (maps, batch)."""
        return None if logs is None else logs[:, 0] if logs.shape[1] == 1 else logs.mean(1)

    def summary(self, logs: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Mean over groups and its standard error, (maps, batch): 0 without random probes, NaN for one."""
        mean = self.means(logs)
        if logs is None or mean is None:
            return None, None
        count = logs.shape[1]
        if count == 1 or not mean.shape[-1]:
            known = self.trace is None or self.trace.exact
            return mean, torch.where(torch.isnan(mean) | (not known), float("nan"), 0.0).to(mean)
        return mean, logs.std(1) / count**0.5

    def shared(self, terms: Sequence[Tensor]) -> Tensor:
        """Σ_b c_b t_b."""
        total = terms[0] if self.each[0].share == 1.0 else self.each[0].share * terms[0]
        for local_map, term in zip(self.each[1:], terms[1:], strict=True):
            total = torch.add(total, term, alpha=local_map.share)
        return total

    def carried(self, step: Step, stage: int, state: State, local: Local) -> Carriage:
        """Log densities at a stage input from the local values there."""
        if state.memory is None:
            return Carriage(state.logs)
        window, here = step.windows[stage], node(step, stage, state.x, local.scores, local.divergences)
        if stage:
            return Carriage(inside(state.memory, window, here), state.memory)
        memory = arrive(state.memory, window, here)
        return Carriage(memory.now.logs, memory, True)

    @property
    def product_error(self) -> float:
        """Largest stated relative error of the maps' Jacobian products; 0 for exact ones."""
        return max(local_map.products.error for local_map in self.each)

    @property
    def product_names(self) -> str:
        """How the maps' Jacobian products are taken."""
        return "; ".join(dict.fromkeys(local_map.products.name for local_map in self.each))

    @property
    def samplers(self) -> int:
        """Number of maps that the drift is made of, whatever their shares; carried networks come after them."""
        return sum(local_map.drives for local_map in self.each)

    def probes(self, x: Tensor, step: Step, stage: int) -> Tensor:
        """Directions of the trace, (probes, batch, *shape); none where no divergence is taken."""
        if self.trace is None or not step.takes_divergence(stage):
            return x.new_empty(0, *x.shape)
        return self.trace.directions(x, self.noise, step=step.index, stage=stage)

    def divergences(self, probes: Tensor, products: Sequence[Tensor], sigma: Tensor) -> Tensor | None:
        """div s_b from products J_b v with the probes, (maps, groups, batch)."""
        if self.trace is None or not len(probes):
            return None
        return torch.stack([self.trace.combine(probes, product, sigma) for product in products])

    def divergence_slopes(self, probes: Tensor, seconds: Sequence[Tensor]) -> Tensor | None:
        """∇div s_b·δ from D²s_b[v, δ]; a Gaussian control has a constant divergence and falls out."""
        if self.trace is None or not len(probes):
            return None
        plain = replace(self.trace, control=None)
        return torch.stack([plain.combine(probes, second) for second in seconds])

    def rates(self, local: Local, drift: Tensor) -> Tensor | None:
        """div s_b + s_b·(s_b − s), (maps, groups, batch): what Itô's formula needs of a divergence."""
        if local.divergences is None:
            return None
        if len(self.each) == 1 and drift is local.drift:
            return local.divergences
        excess = torch.stack([dot(score, score - drift) for score in local.scores])
        return local.divergences + excess[:, None]

    def rate(self, local: Local, drift: Tensor, tangent: Tensor | None, carried: Carriage) -> Rate:
        """The rate (s^w, ∂_w s^w) with the local values and the memory of the log densities."""
        logs = None if carried.memory is not None else self.rates(local, drift)
        return Rate(drift, logs, tangent, memory=carried.memory, scores=local.scores, divergences=local.divergences)

    def source(self, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
        """ṡ_k for the K directions at log densities (maps, batch): (K, batch, *shape)."""
        return self.sources(x, sigma, local, None if logs is None else logs[None])[:, 0]

    def sources(self, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
        """ṡ_k at V versions of the log densities, (V, maps, batch): (K, V, batch, *shape)."""
        count = len(self.each[0].changes)
        return torch.stack([self._sources_of(k, x, sigma, local, logs) for k in range(count)])

    def _sources_of(self, k: int, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
        versions = 1 if logs is None else len(logs)
        total = x.new_zeros(versions, *x.shape)
        for b, local_map in enumerate(self.each):
            change = local_map.changes[k]
            if change is not None:
                self.cost.sources += 1
                total = torch.add(total, _versions(change, b, x, sigma, local, logs), alpha=local_map.share)
        return total

    def cotangents(
        self, x: Tensor, sigma: Tensor, cotangents: Tensor, graphs: Sequence[Graph] = ()
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Scores s_b and Jᵀμ for cotangents (F, batch, *shape), from graphs of this stage where they were kept."""
        self.cost.products += len(self.each) * len(cotangents)
        parts = []
        for local_map in self.each:
            products = local_map.products
            kept = [graph for graph in graphs if graph.score is products.score]
            if len(kept) == 1:
                images = kept[0].pull(cotangents, serial="serial" in products.cures)
                parts.append((kept[0].value.detach(), images))
            else:
                parts.append(products.vjp(x, sigma, cotangents))
                self.cost.evaluations += 1
        return tuple(score for score, _ in parts), self.shared([moved for _, moved in parts])

    def keeping(self, graphs: Graphs) -> LocalMaps:
        """The maps whose graphs are kept in `graphs`."""
        each = tuple(replace(one, products=replace(one.products, graphs=graphs)) for one in self.each)
        return replace(self, each=each)


def node(step: Step, stage: int, x: Tensor, scores: Sequence[Tensor], divergences: Tensor | None) -> Node:
    """The stage input as a node; q = σ² div s."""
    rate = None if divergences is None else divergences * step.table.levels[stage] ** 2
    return Node(x, tuple(scores), rate)


def _with_tangents(
    products: Products, x: Tensor, sigma: Tensor, tangents: Tensor | None
) -> tuple[Tensor, None, Tensor | None]:
    if tangents is None:
        return products.value(x, sigma), None, None
    score, moved = products.jvp(x, sigma, tangents)
    return score, None, moved


def _versions(change: Perturbation, b: int, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
    """The source in local map b at each of V log densities (V, maps, batch), from one pass over the measures."""
    score = local.scores[b]
    if logs is None or not change.needs_density:
        return change.source(x, sigma, score, None)[None]
    if isinstance(change, CarriedContamination):
        return torch.stack([change.at(local.scores, log).source(x, sigma, score, log[b]) for log in logs])
    # ṡ = A + B e^{−L}, with A = 0 but for measures known as ratios: one pass over the measures at the first L gives all
    # versions, which differ from it by B (e^{L_0 − L_v} − 1).
    versions = logs[:, b]
    first = change.source(x, sigma, score, versions[0])
    if len(versions) == 1:
        return first[None]
    growth = torch.expm1(versions[0] - versions).reshape(*versions.shape, *[1] * (x.ndim - 1))
    return first + growth * density_part(change, x, sigma, score, versions[0], first)


def density_part(
    change: Perturbation, x: Tensor, sigma: Tensor, score: Tensor, log_density: Tensor, source: Tensor
) -> Tensor:
    """The part of the source that is proportional to e^{−L}: all of ṡ = ∇(χ_σ/p), but for measures known as ratios."""
    if not any(isinstance(measure, Ratio) for _, measure in change.masses or ()):
        return source
    # Two values of A + B e^{−L}, one nat apart, give B e^{−L} whatever A is.
    shifted = change.source(x, sigma, score, log_density + 1)
    return (source - shifted) / -math.expm1(-1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Per-sample inner product of states: (…, batch, *shape) with (batch, *shape) gives (…, batch)."""
    lead = a.ndim - b.ndim
    return (a * b).flatten(lead + 1).sum(-1)
