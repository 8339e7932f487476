"""Whether a law has the masses that are moved, looked at where the measures that lose mass have their peaks.

With masses w_j moved from ρ to ν_j a law is left where (1−Σw) ρ + Σ w_j ν_j ≥ 0. Noising keeps that inequality, so that
one negative density, at any place and level, is certain proof that no law is left. Paths do not find it: along the flow
of the changed density that density obeys d log p^w/dσ = σ div s^w and stays positive, however negative it is elsewhere,
since the score drives the states away from where it vanishes. It is looked for at the points (the components' means) of
the measures that lose mass, at σ_min, where they are densest. ρ's own density there is known if the score belongs to an
exact law; a `KernelRatio` brings it along. The density of a network is an estimate and proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.measures.kernel_ratio import KernelRatio
from sensitivity.measures.measure import Ratio
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points
from sensitivity.perturbations.finite_score import Mass, log_sum

__all__ = ["no_law"]

PEAKS = 256  # of a measure: a few are proof enough, and cost no more than a step does
# By how many nats what is lost must exceed what there is: log densities are known to 1e-2 in single precision.
SURE = {torch.float64: 1e-6}
SURE_SINGLE = 0.05

Known = KernelRatio | Points | Mixture
LogDensity = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def no_law(score: Any, masses: Sequence[Mass], sigma: Tensor) -> Tensor | None:
    """Of which masses it is certain that they leave no law, (batch,); None where nothing can be said.

    Args:
        score: s of ρ, as it was given.
        masses: (w_j, ν_j), each w_j of shape (batch,).
        sigma: σ_min, 0-d.
    """
    if not masses or not masses[0][0].numel():
        return None
    moved = torch.stack([w.detach() for w, _ in masses])
    if not bool((moved < 0).any()):
        return None
    base = _density_of(score)
    known = (KernelRatio,) if base is None else (KernelRatio, Points, Mixture)
    measures: list[Known] = [measure for _, measure in masses if isinstance(measure, known)]
    if len(measures) < len(masses):
        return None
    places = [_peaks(nu) for w, nu in zip(moved, measures, strict=True) if bool((w < 0).any())]
    return _lost(moved, measures, base, torch.cat(places), sigma)


def _lost(moved: Tensor, measures: Sequence[Known], base: LogDensity | None, x: Tensor, sigma: Tensor) -> Tensor:
    """Whether the density of each mass is negative at one of the x, (batch,); `moved` (masses, batch)."""
    log_p = torch.zeros_like(x.flatten(1)[:, 0]) if base is None else base(x, sigma)
    logs = [torch.zeros_like(log_p)]
    for measure in measures:
        value = measure.log_density(x, sigma)
        logs.append(value if isinstance(measure, Ratio) else value - log_p)
    weights = torch.cat([1 - moved.sum(0, keepdim=True), moved])[..., None]
    ratios = torch.stack(logs)[:, None]
    excess = log_sum(-weights, ratios) - log_sum(weights, ratios)
    return (excess > SURE.get(x.dtype, SURE_SINGLE)).any(1)


def _density_of(score: Any) -> LogDensity | None:
    """log p_σ of the exact law whose method the score is."""
    law = score.__self__ if isinstance(score, MethodType) else None
    return law.log_density if isinstance(law, Mixture | Points | GaussianAnchor) else None


def _peaks(measure: Known) -> Tensor:
    """Some of the places where a measure of points or components is densest, (peaks, *shape)."""
    law = measure.new if isinstance(measure, KernelRatio) else measure
    every = law.means if isinstance(law, Mixture) else law.data
    return every.detach()[:: -(-len(every) // PEAKS)]
