"""Local maps of one sampler stage, for every law whose log density is carried.

The drift is s = Σ_b c_b s_b over laws b (one law with c = 1; two under classifier-free guidance). At a stage input
(x, σ, L) with L_b = log p_b,σ(x):

- values:            s_b, div s_b and the Jacobian products J t = Σ_b c_b J_b t of any tangents t, in one call per law;
- source(w):         ṡ_k = Σ_b c_b ṡ_b,k, the change of the drift per unit mass of perturbation k;
- cotangents:        Jᵀμ = Σ_b c_b J_bᵀ μ;
- gate(w):           s^w, the drift at finite mass.

The transposed source is `Points.pairing`. Everything the three readings of a step need is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import Noise
from .perturbations import Perturbation
from .products import Products
from .traces import Trace


@dataclass(frozen=True)
class Law:
    """One law: its score, its share c of the drift and its change of mass for each of the K directions."""

    products: Products
    share: float
    changes: tuple[Perturbation | None, ...] = ()


@dataclass(frozen=True)
class Local:
    """Values at one stage input.

    Attributes:
        scores: s_b, each (batch, *shape).
        divergences: (laws, groups, batch) estimates of div s_b, one group per independent probe; None if not carried.
        drift: Σ_b c_b s_b.
        moved: J t for the K tangents, (K, batch, *shape); None without tangents.
    """

    scores: tuple[Tensor, ...]
    divergences: Tensor | None
    drift: Tensor
    moved: Tensor | None


@dataclass(frozen=True)
class Laws:
    """The laws of one run with what is common to them.

    Attributes:
        laws: see `Law`.
        trace: how divergences are estimated; None where no log density is carried.
        noise: noise of the probes; None for an exact trace.
    """

    laws: tuple[Law, ...]
    trace: Trace | None
    noise: Noise | None

    def rows(self, rows: slice) -> Laws:
        """The laws for a chunk of the latents."""
        return Laws(self.laws, self.trace, None if self.noise is None else self.noise[rows])

    def values(self, x: Tensor, sigma: Tensor, tangents: Tensor | None, *, step: int, stage: int) -> Local:
        """Scores, divergences and Jacobian products at one stage input."""
        parts = [self._of_law(law, x, sigma, tangents, step, stage) for law in self.laws]
        scores = tuple(part[0] for part in parts)
        estimates = [part[1] for part in parts if part[1] is not None]
        products = [part[2] for part in parts if part[2] is not None]
        divergences = torch.stack(estimates) if estimates else None
        moved = self._shared(products) if products else None
        return Local(scores, divergences, self._shared(scores), moved)

    def _of_law(
        self, law: Law, x: Tensor, sigma: Tensor, tangents: Tensor | None, step: int, stage: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        products, trace = law.products, self.trace
        if trace is None and tangents is None:
            return products.value(x, sigma), None, None
        if trace is None:
            score, moved = products.jvp(x, sigma, tangents)
            return score, None, moved
        if tangents is None or trace.name == "hutch++" or trace.chunk_size is not None:
            score, divergence = trace.divergence(products, x, sigma, self.noise, step=step, stage=stage)
            moved = None if tangents is None else products.jvp(x, sigma, tangents)[1]
            return score, divergence, moved
        directions = trace.directions(x, self.noise, step=step, stage=stage)
        score, along = products.jvp(x, sigma, torch.cat([directions, tangents]))
        probes = len(directions)
        return score, trace.combine(directions, along[:probes]), along[probes:]

    def _shared(self, terms: Sequence[Tensor]) -> Tensor:
        total = terms[0] if self.laws[0].share == 1.0 else self.laws[0].share * terms[0]
        for law, term in zip(self.laws[1:], terms[1:], strict=True):
            total = torch.add(total, term, alpha=law.share)
        return total

    def rates(self, local: Local, drift: Tensor) -> Tensor | None:
        """q_b = div s_b + s_b·(s_b − s^w), (laws, groups, batch): the log density's rate along the path of `drift`."""
        if local.divergences is None:
            return None
        if len(self.laws) == 1 and drift is local.drift:
            return local.divergences
        excess = torch.stack([dot(score, score - drift) for score in local.scores])
        return local.divergences + excess[:, None]

    def source(self, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
        """ṡ_k for the K directions, (K, batch, *shape), at log densities (laws, batch)."""
        count = len(self.laws[0].changes)
        return torch.stack([self._source_of(k, x, sigma, local, logs) for k in range(count)])

    def _source_of(self, k: int, x: Tensor, sigma: Tensor, local: Local, logs: Tensor | None) -> Tensor:
        total = torch.zeros_like(x)
        for b, law in enumerate(self.laws):
            change = law.changes[k]
            if change is not None:
                log_density = None if logs is None else logs[b]
                source = change.source(x, sigma, local.scores[b], log_density)
                total = torch.add(total, source, alpha=law.share)
        return total

    def cotangents(self, x: Tensor, sigma: Tensor, cotangents: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Scores s_b and Jᵀμ for cotangents (F, batch, *shape)."""
        parts = [law.products.vjp(x, sigma, cotangents) for law in self.laws]
        return tuple(score for score, _ in parts), self._shared([moved for _, moved in parts])


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Per-sample inner product of states: (…, batch, *shape) with (batch, *shape) gives (…, batch)."""
    lead = a.ndim - b.ndim
    return (a * b).flatten(lead + 1).sum(-1)
