"""How much of what a path does off its flow is unsure, because the score is no gradient of a density.

A log density along a computed path takes `∫ s·e`, the score's work along the path's departure e from the flow, for the
change of log p (see `sensitivity.sampler.carried_density`), which holds for the scores of a law and its noised laws. A
network's score is none: its Jacobian is not symmetric, and its levels are not those of one law. On perceptrons and
convolutional networks, well trained and badly, the error was .002 to 1.8 times the work (2.5 of untrained ones), at any
step and for any solver, and the asymmetry of the Jacobian does not tell which: twice the work counts as unsure, as if
the law's own gradient did anything between the same and the opposite. Functions without a network are tried:
`|u·∇D v − v·∇D u|`, for one pair of directions at every station, beside what such a product with a denoiser's
derivative ∇D of this size is in the mean, says how much.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensitivity._callables import modules_of, resolution
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.stations import Station
from sensitivity.noise import Noise

LEARNED = 2.0
"""Error of a network's log density, at most, in units of its score's work off the flow."""

FACTOR = 4.0
"""Share of the work that is unsure, in units of the asymmetric share of ∇D."""
_ROUNDINGS = 20.0


def off_flow(products: Products, route: Sequence[Station]) -> float:
    """The unsure share of the work off the flow: 0 for a score of a law, `LEARNED` for a network's.

    Example:
        >>> from sensitivity.jacobians.stations import stations
        >>> def turned(x, sigma):
        ...     return -x / (1 + sigma**2) + 0.1 * x.flip(1) * x.new_tensor([1.0, -1.0])
        >>> x, sigma = torch.ones(2, 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        >>> off_flow(Products(turned, "forward"), list(stations(turned, x, sigma, None))) > 0.5
        True
    """
    if any(True for module in modules_of(products.score) for _ in module.parameters()):
        return LEARNED
    parts = [_parts(products, station) for station in route if not station.blind]
    size = sum(float(whole) for _, whole in parts)
    return min(LEARNED, FACTOR * sum(float(gap) for gap, _ in parts) / size) if size else 0.0


def _parts(products: Products, station: Station) -> tuple[Tensor, Tensor]:
    """`|u·∇D v − v·∇D u|` beyond rounding, and what `u·∇D v` and `v·∇D u` have in the mean over directions, both summed
    over the samples.
    """
    directions = torch.stack([station.v, _across(station)])
    # Some methods give Jᵀ in place of J, which changes the sign of the difference.
    images = products.quadratic(station.x, station.sigma, directions)[1].detach()
    v, u = directions.flatten(2)
    denoised = (directions + station.sigma**2 * images).flatten(2)
    gap = (u * denoised[0] - v * denoised[1]).sum(1).abs()
    unit = resolution(products.score, station.x) + products.error
    rounding = _ROUNDINGS * unit * (2 + station.sigma**2 * images.flatten(2).norm(dim=2).sum(0))
    return (gap - rounding).clamp(min=0.0).sum(), denoised.norm(dim=2).sum() / v.shape[1] ** 0.5


def _across(station: Station) -> Tensor:
    """Random signs without their part along v, at length 1: the −1/σ² on the diagonal of J then falls out."""
    white = Noise.draw(len(station.v), seed=2, device=station.v.device)
    signs = white.rademacher(tuple(station.v.shape[1:]), step=0, dtype=station.v.dtype)[0].flatten(1)
    v = station.v.flatten(1)
    rest = signs - (signs * v).sum(1, keepdim=True) * v
    length = rest.norm(dim=1, keepdim=True)
    # In one dimension there is no other direction, and no asymmetry.
    return torch.where(length > 1e-3, rest / length.clamp(min=1e-3), 0.0).reshape(station.v.shape)
