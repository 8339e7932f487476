"""Stations: levels of a run at which differences of a score's own values tell what its Jacobian products must be.

Two samples are carried by Euler's steps of the probability flow through `LEVELS` levels of the run. What is compared
is the network's own part, the denoiser's `σ² J v + v = ∇D v`: at high noise `−v/σ²` is nearly all of `J v` and
would hide a network whose derivative is cut. Differences are taken with three pairs of lengths,

- *small*, the best step of central differences in the precision of the network;
- *wide*, a twentieth of σ: a network that rounds its input is flat at small steps only;
- *wider*, half of σ, for networks that round coarsely, in half precision say;

each with twice the length beside it, whose distance, with the rounding error, is the reference's *doubt*. A reference
is *firm* where its doubt is below `FIRM` of it. A product must agree with the wide one where that is firm, and with
the small one where that is firm and the wide one does not contradict it.

A station also finds noise and coupling across the batch: the pair's scores must be the same in the batch of the
differences, and one of them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity._callables import evaluate, let_pass, resolution
from sensitivity.jacobians.differences import differences, step_length
from sensitivity.noise import Noise

LEVELS = 4
FIRM = 0.3
CLOSE, FAR = 0.02, 0.1  # relative disagreement that is let pass against small and wider differences
_WIDE, _WIDER = 0.05, 0.5  # in units of σ


@dataclass(frozen=True)
class Station:
    """Two states at one level, a direction v of length 1 for each, and what differences say of `∇D v`.

    Attributes:
        x, v, s: states, directions and scores, (2, *shape).
        sigma: the level, 0-d.
        images: `∇D v` by the three lengths, (3, 2, *shape).
        doubts: their absolute errors, (3, 2).
        error: the stated relative error of small differences.
    """

    x: Tensor
    v: Tensor
    s: Tensor
    sigma: Tensor
    images: Tensor
    doubts: Tensor
    error: float

    @property
    def firm(self) -> Tensor:
        """(3, 2) which references can judge."""
        return self.doubts < FIRM * self.images.flatten(2).norm(dim=2)

    @property
    def judges(self) -> bool:
        """Whether anything here can."""
        return bool(self.firm.any())

    @property
    def blind(self) -> bool:
        """Whether there is no reference: the score is not finite here."""
        return bool(torch.isinf(self.doubts).all())

    @property
    def best(self) -> Tensor:
        """(2, *shape), the reference of least doubt."""
        rows = torch.arange(self.x.shape[0], device=self.x.device)
        return self.images[self.doubts.argmin(0), rows]

    def agrees(self, product: Tensor, project: Tensor | None = None, least: float = 0.0) -> bool:
        """Whether `product` is the references' `∇D v`, or, with `project` = u, their `u·∇D v`."""
        small, wide, wider = (self._close(product, k, project, least) for k in range(3))
        firm = self.firm
        near = (self.images[0] - self.images[1]).flatten(1).norm(dim=1)
        scale = self.images[1].flatten(1).norm(dim=1)
        consistent = firm[0] & (~firm[1] | (near <= FAR * scale + 3 * self.doubts[1]))
        # Where nothing is firm the least doubtful length still judges, within three of its doubts.
        void = torch.stack([small, wide, wider])[self.doubts.argmin(0), torch.arange(len(small), device=small.device)]
        verdict = torch.where(consistent, small, True) & torch.where(firm[1], wide, True)
        verdict = torch.where(firm[0] | firm[1], verdict, torch.where(firm[2], wider, void))
        return bool(verdict.all())

    def _close(self, product: Tensor, k: int, project: Tensor | None, least: float) -> Tensor:
        image = self.images[k]
        gap = product - image if project is None else (product - (project * image).flatten(1).sum(1))[:, None]
        share = max(CLOSE if k == 0 else FAR, least)
        return gap.flatten(1).norm(dim=1) <= share * image.flatten(1).norm(dim=1) + 3 * self.doubts[k]


def stations(score: object, x: Tensor, sigma: Tensor, until: float | None) -> Iterator[Station]:
    """Stations from `σ` down (or up) to `until`; those at which the score is not finite are left out."""
    with torch.no_grad():
        x, level = _pair(x.detach(), sigma.detach().reshape(-1)[0])
        route = levels(float(level), until)
        for k, value in enumerate(route):
            here = level if k == 0 else x.new_tensor(value)
            s = evaluate(score, x, here)  # type: ignore[arg-type]
            if bool(torch.isfinite(s).all()):
                yield _station(score, x, here, s, k)
            elif k == 0:
                s = torch.zeros_like(s)
                yield _blind(x, here, s)
            else:
                return
            if k + 1 < len(route):
                x = _moved(x, s, value, route[k + 1], k)


def levels(start: float, until: float | None) -> list[float]:
    # Levels closer than a thousandth are one station to any network, and each station costs passes.
    if until is None or not until > 0 or abs(until / start - 1) < 1e-3:
        return [start]
    return [start * (until / start) ** (k / (LEVELS - 1)) for k in range(LEVELS - 1)] + [until]


def _pair(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The first sample and the last, or a companion that differs from the first where the last does not."""
    companion = torch.where((x[-1:] == x[:1]).all(), 0.5 * x[:1] + sigma, x[-1:])
    return torch.cat([x[:1], companion]).contiguous(), sigma


def _moved(x: Tensor, s: Tensor, start: float, end: float, step: int) -> Tensor:
    """One Euler step down the flow, or noise added on the way up."""
    if end < start:
        return x + (start - end) * start * s
    # Independent noise of variance end² − start² carries p_start to p_end without a score: the way up cannot go astray.
    white = Noise.draw(2, seed=1, device=x.device).gaussian(tuple(x.shape[1:]), step=step, dtype=x.dtype)[0]
    return x + (end**2 - start**2) ** 0.5 * white


def _blind(x: Tensor, sigma: Tensor, s: Tensor) -> Station:
    """A station without references, at which products must only run."""
    v = _direction(x, s, 0)
    infinite = torch.full((3, 2), float("inf"), dtype=x.dtype, device=x.device)
    return Station(x, v, s, sigma, torch.zeros(3, *x.shape, dtype=x.dtype, device=x.device), infinite, float("nan"))


def _direction(x: Tensor, denoised: Tensor, step: int) -> Tensor:
    """Length 1: random signs, and the way from one denoised sample to the other, along which denoisers vary."""
    noise = Noise.draw(2, seed=0, device=x.device)
    signs = noise.rademacher(tuple(x.shape[1:]), step=step, dtype=x.dtype)[0].flatten(1)
    along = (denoised[:1] - denoised[1:]).flatten(1)
    length = along.norm().clamp(min=torch.finfo(x.dtype).tiny)
    # Where both samples denoise to one point there is no such way; signs alone remain.
    along = torch.nan_to_num(along / length)
    # Signs that point the other way are turned round: in one dimension the two would cancel.
    signs = signs * torch.where((signs * along).sum(1, keepdim=True) < 0, -1.0, 1.0)
    mixed = signs / signs.norm(dim=1, keepdim=True) + along
    return (mixed / mixed.norm(dim=1, keepdim=True)).reshape(x.shape)


def _station(score: object, x: Tensor, sigma: Tensor, s: Tensor, k: int) -> Station:
    denoised = x + sigma**2 * s
    v, unit = _direction(x, denoised, k), resolution(score, x)
    small = step_length(x, sigma, unit=unit)
    wide, wider = (torch.full_like(small, share) * sigma for share in (_WIDE, _WIDER))
    lengths = torch.stack([small, 2 * small, wide, 2 * wide, wider, 2 * wider])
    value, slopes = differences(score, x, sigma, v.expand(6, *x.shape), lengths)  # type: ignore[arg-type]
    # D = x + σ² s rounds with the size of its parts, which at high noise nearly cancel.
    noise = unit * (denoised.flatten(1).norm(dim=1) + (sigma**2 * s).flatten(1).norm(dim=1))
    _check_samples(score, x, sigma, s, value, k, let_pass(unit))
    images = v + sigma**2 * slopes
    gaps = (images[::2] - images[1::2]).flatten(2).norm(dim=2)
    gaps = torch.where(torch.isfinite(gaps), gaps, float("inf"))
    # v has length 1: where ∇D v is shorter, J v = (∇D v − v)/σ² is of the size of v/σ², and so is what an error means.
    error = gaps[0] / images[0].flatten(1).norm(dim=1).clamp(min=1.0)
    images = torch.where(torch.isfinite(images[::2]), images[::2], 0.0)
    return Station(x, v, s, sigma, images, gaps + noise / lengths[::2], float(error.max()))


def _check_samples(score: object, x: Tensor, sigma: Tensor, s: Tensor, other: Tensor, k: int, share: float) -> None:
    """The same scores in another batch, and one of the two alone.

    Raises:
        ValueError: for a score that is random or couples the samples of a batch.
    """
    # One and the other in turn: coupling may reach only one of the two.
    row = slice(k % 2, k % 2 + 1)
    alone = evaluate(score, x[row], sigma)  # type: ignore[arg-type]
    if not (_differ(x, s, other, sigma, share) or _differ(x[row], s[row], alone, sigma, share)):
        return
    again = evaluate(score, x, sigma)  # type: ignore[arg-type]
    # The very same call: nothing but chance makes it differ, where another batch may take another kernel.
    if _differ(x, s, again, sigma, share / 10):
        raise ValueError(
            f"score gives different outputs for the same input at σ = {float(sigma):.3g}: a score is deterministic, "
            "call .eval() on its network and fix any noise it draws."
        )
    raise ValueError(
        f"score gives a sample another output in another batch at σ = {float(sigma):.3g}: a score acts on each sample "
        "alone, call .eval() on its network or remove the coupling across the batch."
    )


def _differ(x: Tensor, first: Tensor, second: Tensor, sigma: Tensor, share: float) -> bool:
    """Whether two scores differ by more than rounding; what is compared is the denoiser, which −x/σ² does not hide."""
    gap = (sigma**2 * (first - second)).flatten(1).norm(dim=1)
    denoised = (x + sigma**2 * first).flatten(1).norm(dim=1)
    # A denoiser near zero still carries the rounding of the two parts that it is the sum of; where both are near zero,
    # by symmetry say, the rounding of what cancels inside: states at σ are of length σ√d.
    parts = x.flatten(1).norm(dim=1) + (sigma**2 * first).flatten(1).norm(dim=1)
    whole = torch.maximum(parts, sigma * x[0].numel() ** 0.5)
    return bool((gap > share * (denoised + 0.01 * whole)).any())
