"""Nodes in time and noise for the density formula (see `sensitivity.densities.formula`).

Time is `τ = √(σ² − σ_0²) ∈ (0, τ_max)`. The placement with scales `a < b` has the density

    p(τ) ∝ 1 / ((τ + a)(τ + b)),        τ(u) = (ρ b − a)/(1 − ρ),   log ρ linear in u,

level below the finest scale `a` of the law, uniform in log τ between the scales, and falling as τ⁻² above the
coarsest `b`, where a moment-matched reference leaves nothing. Uniform points `u` come from a Kronecker lattice
with the generalised golden ratio (shifted at random by each sample's own key), from strata, or independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from sensitivity.noise import Noise

TIMES = ("lattice", "stratified", "independent")
_SHIFT, _JITTER, _FRAME, _SIGN = 10, 11, 12, 13  # noise streams


@dataclass(frozen=True)
class Placement:
    """Times between 0 and `top`; `fine` and `coarse` are `a` and `b`, all of shape `(batch,)` in float64.

    `logarithmic` is uniform in log τ above `a/1000` instead (uniform in log SNR when σ_0 = 0); it leaves out the
    times below.
    """

    fine: Tensor
    coarse: Tensor
    top: Tensor
    logarithmic: bool = False

    def __getitem__(self, rows: Tensor) -> Placement:
        return Placement(self.fine[rows], self.coarse[rows], self.top[rows], self.logarithmic)

    def times(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """`τ(u)` and `dτ/du` for `u` of shape `(..., batch)` in (0, 1)."""
        if self.logarithmic:
            least = self.fine / 1000
            span = (self.top / least).log()
            return least * (span * u).exp(), least * span * (span * u).exp()
        start = (self.fine / self.coarse).log()
        span = ((self.top + self.fine) / (self.top + self.coarse)).log() - start
        # Uniform in log((τ + a)/(τ + b)): like log τ between the two scales, like τ below the finer, like 1/τ above the
        # coarser.
        ratio = (start + span * u).exp()
        tau = (ratio * self.coarse - self.fine) / (1 - ratio)
        return tau, span * (tau + self.fine) * (tau + self.coarse) / (self.coarse - self.fine)


def uniforms(noise: Noise, kind: str, count: int, dimensions: int, replicate: int) -> Tensor:
    """Points `(count, batch, dimensions)` in (0, 1), each marginally uniform; the first coordinate is time."""
    if kind == "lattice":
        shift = noise.uniform((dimensions,), step=replicate, stream=_SHIFT)
        # 0 and 1 have no node: τ would be 0, where 2Z/τ has no value, or a radius infinite.
        index = torch.arange(count, dtype=torch.float64, device=shift.device)[:, None, None]
        return ((index * _golden(dimensions, count).to(shift.device) + shift).remainder(1.0)).clamp(1e-12, 1 - 1e-12)
    points = noise.uniform((dimensions,), step=replicate, stream=_JITTER, probes=count)
    if kind == "stratified":
        index = torch.arange(count, dtype=torch.float64, device=points.device)[:, None]
        points = torch.cat([((index + points[..., 0]) / count)[..., None], points[..., 1:]], dim=-1)
    return points


def _golden(dimensions: int, count: int) -> Tensor:
    """Generator of the lattice: `1/count` for time, the others from the root `φ` of `φ^{m+1} = φ + 1`."""
    root = 1.5
    for _ in range(60):  # a contraction, which sixty rounds bring to rounding from any start
        root = (1 + root) ** (1 / dimensions)
    steps = [1 / count, *(root**-power for power in range(1, dimensions))]
    return torch.tensor(steps, dtype=torch.float64)


def coordinates(dimension: int) -> int:
    """Lattice coordinates that a node uses: time, radius and, in the plane, an angle."""
    return 3 if dimension == 2 else 2


def vectors(size: int, orthogonal: bool) -> int:
    """Normal vectors in a frame of `size` directions."""
    return 2 * size if orthogonal else size


def frames(
    noise: Noise, points: Tensor, dimension: int, size: int, replicate: int, orthogonal: bool, first: int = 0
) -> Tensor:
    """Normal vectors `(vectors, count, batch, d)` for the nodes `points` `(count, batch, coordinates)`.

    Orthogonal frames are `size` Haar directions with two antithetic radii each, one stratum of `χ_d` for each
    direction: a vector picked from the frame is normal, so that the mean over a frame is unbiased, and a quadratic
    form is averaged over its trace and over `|Z|²`. `first` is the number of the first node.
    """
    count = points.shape[0]
    if not orthogonal:
        draw = noise.gaussian((size, dimension), step=replicate, stream=_FRAME, probes=count, first=first)
        return draw.permute(2, 0, 1, 3)
    index = torch.arange(size, dtype=torch.float64, device=points.device)[:, None, None]
    # At 0 and 1 the quantile is 0 and ∞; the antithetic radius takes 1 − u, so both ends need room.
    strata = ((index + points[..., 1]) / size).clamp(1e-12, 1 - 1e-12)
    signs = noise.rademacher((size,), step=replicate, stream=_SIGN, probes=count, first=first).permute(2, 0, 1)
    directions = signs[..., None] * _directions(noise, points, dimension, size, replicate, first)
    radii = _chi_quantile(torch.stack([strata, 1 - strata]), dimension)
    return (radii[..., None] * directions).flatten(0, 1)


def _directions(noise: Noise, points: Tensor, dimension: int, size: int, replicate: int, first: int) -> Tensor:
    """Orthonormal directions `(size, count, batch, d)`."""
    count, batch = points.shape[:2]
    if dimension == 1:
        return torch.ones(1, count, batch, 1, dtype=torch.float64, device=points.device)
    if dimension == 2:
        angle = 2 * pi * points[..., 2]
        axis = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return torch.stack([axis, torch.stack([-angle.sin(), angle.cos()], dim=-1)])[:size]
    draw = noise.gaussian((dimension, size), step=replicate, stream=_FRAME, probes=count, first=first)
    # Columns are uniform on the sphere but for their signs, which the factorisation chooses and `frames` draws.
    return torch.linalg.qr(draw).Q.permute(3, 0, 1, 2)


def _chi_quantile(u: Tensor, dimension: int) -> Tensor:
    """Quantile of `χ_d`: Wilson and Hilferty's start, then Newton's method on the incomplete gamma function."""
    if dimension == 1:
        return 2**0.5 * torch.erfinv(u)
    if dimension == 2:
        return (-2 * torch.log1p(-u)).sqrt()
    half = torch.full_like(u, dimension / 2)
    normal = 2**0.5 * torch.erfinv(2 * u - 1)
    spread = 2 / (9 * dimension)
    least = ((u.log() + torch.lgamma(half + 1)) / half).exp()  # P(h, x) ≤ x^h / Γ(h + 1)
    x = torch.maximum(half * (1 - spread + normal * spread**0.5).clamp(min=0.0) ** 3, least)
    for _ in range(8):  # in the logarithm of the smaller tail, which is nearly linear
        density = ((half - 1) * x.log() - x - torch.lgamma(half)).exp()
        below, above = torch.special.gammainc(half, x), torch.special.gammaincc(half, x)
        step = torch.where(u < 0.5, (below / u).log() * below, -(above / (1 - u)).log() * above) / density
        # No step beyond a factor of two: from a poor start in a tail Newton's would leave the positive numbers.
        x = torch.maximum(torch.minimum(x - step, 2 * x), x / 2)
    return (2 * x).sqrt()
