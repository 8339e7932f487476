"""The trial that decides how the Jacobian products of a score are taken (see :mod:`sensitivity.jacobians.products`).

Two samples are carried by Euler's steps of the probability flow through ``LEVELS`` levels of the run; at each of these
*stations* central differences of the score's own values tell what the products must be. What is compared is the
network's own part, the denoiser's ``σ² J v + v = ∇D v``: at high noise ``−v/σ²`` is nearly all of ``J v`` and would
hide a network whose derivative is cut. Differences are taken with three pairs of lengths,

- *small*, the best step of central differences in the precision of the network;
- *wide*, a twentieth of σ: a network that rounds its input is flat at small steps only;
- *wider*, half of σ, for networks that round coarsely, in half precision say;

each with twice the length beside it, whose distance, with the rounding error, is the reference's *doubt*. A reference
is *firm* where its doubt is below ``FIRM`` of it. A product must agree with the wide one where that is firm, and with
the small one where that is firm and the wide one does not contradict it. ``Jᵀ u`` is tried by ``u·Jv = v·Jᵀu`` with
u along ``∇D v``, where a cut derivative shows most; ``D²s[v, v]`` by differences of ``J v``.

A station also finds noise and coupling across the batch: the pair's scores must be the same in the batch of the
differences, and one of them alone. The trial costs ``3 + 1`` network calls a level, 16 in all, of at most 26 samples
(one more a level for transposed products beside tangents, for a second derivative, and for every candidate that
fails). It draws its own noise. A trial that had nothing firm to judge by is not remembered.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import ismethod
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from sensitivity._callables import evaluate, let_pass, ready, resolution
from sensitivity._checks import in_autocast
from sensitivity.jacobians.differences import differences, step_length
from sensitivity.jacobians.duals import counted
from sensitivity.jacobians.products import DIFFERENCES, Products
from sensitivity.jacobians.second import along
from sensitivity.noise import Noise

LEVELS = 4
FIRM = 0.3
CLOSE, FAR = 0.02, 0.1  # relative disagreement that is let pass against small and wider differences
INEXACT = 0.5  # the same for products that are differences themselves, whose error is stated
_WIDE, _WIDER = 0.05, 0.5  # in units of σ
_METHODS = ("forward", "double-vjp", "finite")
_TURNS, _TIMED = 3, 16  # how often "fastest" times each method, and on how many states
_CURES: tuple[tuple[str, ...], ...] = ((), ("contiguous",), ("math",), ("contiguous", "math"))
_SAYS = {
    "contiguous": "inputs of group normalisation are made contiguous",
    "math": "attention runs on the composite (math) kernel",
    "serial": "directions are taken one after the other",
}
_KINDS = {"finite": "central", "one-sided": "forward"}
_log = logging.getLogger("sensitivity")


@dataclass(frozen=True)
class Uses:
    """What a run will ask of the products: tangents ``J t``, cotangents ``Jᵀu``, second derivatives ``D²s[t, t]``."""

    tangents: bool = True
    cotangents: bool = False
    second: bool = False


@dataclass(frozen=True)
class Station:
    """Two states at one level, a direction v of length 1 for each, and what differences say of ``∇D v``.

    Attributes:
        x, v, s: states, directions and scores, (2, *shape).
        sigma: the level, 0-d.
        images: ``∇D v`` by the three lengths, (3, 2, *shape).
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
    def best(self) -> Tensor:
        """(2, *shape), the reference of least doubt."""
        rows = torch.arange(self.x.shape[0], device=self.x.device)
        return self.images[self.doubts.argmin(0), rows]

    def agrees(self, found: Tensor, project: Tensor | None = None, least: float = 0.0) -> bool:
        """Whether ``found`` is the references' ``∇D v``, or, with ``project`` = u, their ``u·∇D v``."""
        small, wide, wider = (self._close(found, k, project, least) for k in range(3))
        firm = self.firm
        near = (self.images[0] - self.images[1]).flatten(1).norm(dim=1)
        scale = self.images[1].flatten(1).norm(dim=1)
        consistent = firm[0] & (~firm[1] | (near <= FAR * scale + 3 * self.doubts[1]))
        void = torch.stack([small, wide, wider])[self.doubts.argmin(0), torch.arange(len(small), device=small.device)]
        verdict = torch.where(consistent, small, True) & torch.where(firm[1], wide, True)
        verdict = torch.where(firm[0] | firm[1], verdict, torch.where(firm[2], wider, void))
        return bool(verdict.all())

    def _close(self, found: Tensor, k: int, project: Tensor | None, least: float) -> Tensor:
        image = self.images[k]
        apart = found - image if project is None else (found - (project * image).flatten(1).sum(1))[:, None]
        share = max(CLOSE if k == 0 else FAR, least)
        return apart.flatten(1).norm(dim=1) <= share * image.flatten(1).norm(dim=1) + 3 * self.doubts[k]


def choose(
    products: Products,
    x: Tensor,
    sigma: Tensor,
    *,
    tangents: bool = True,
    uses: Uses | None = None,
    until: float | None = None,
) -> Products:
    """``products`` with the method and cures of a trial on two of the samples at four levels; about 16 network calls.

    Args:
        products: their score, the method asked for and what is recorded.
        x: states at ``σ``, (batch, *shape).
        sigma: their level.
        tangents: whether ``J t`` will be asked for; without, only ``v·Jv``, and reverse mode is a candidate too.
        uses: the same and more, in place of ``tangents``.
        until: the other end of the run's levels; without, the trial is at ``σ`` alone.

    The decision is remembered with the score, for states of this shape, dtype and device and for levels within the
    range that was tried, unless the trial found nothing to judge by.

    Raises:
        ValueError: where no method agrees with differences of the score's own values; where ``Jᵀu`` is needed and
            there is no graph; for a score that is random or couples the samples of a batch.

    Example:
        >>> x, sigma = torch.ones(2, 3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        >>> choose(Products(lambda y, sigma: -y / (1 + sigma**2)), x, sigma).method
        'forward'
    """
    ready(products.score)
    uses, known = uses or Uses(tangents), _memory(products.score)
    if x.shape[0] == 0:
        return replace(products, method="forward" if uses.tangents else "reverse") if products.undecided else products
    ends = _ends(sigma, until)
    key = (products.method, products.differentiable, uses, x.shape[1:], x.dtype, x.device, in_autocast(x))
    if key in known and known[key][0] <= ends[0] * (1 + 1e-6) and ends[1] <= known[key][1] * (1 + 1e-6):
        return replace(products, **known[key][2])
    found, judged = decide(products, x, sigma, uses, until)
    if judged:
        known[key] = (*ends, {name: getattr(found, name) for name in ("method", "cures", "error", "message")})
    return found


# Decisions for scores that cannot keep them themselves, by object; a bound method is made anew at every access.
_KNOWN: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _memory(score: Any) -> dict[Any, Any]:
    """Where the trials of a score are remembered; a new dictionary for one that can neither keep nor key them."""
    own = getattr(score, "trials", None)
    if own is not None:
        return own
    holder, name = (score.__self__, score.__func__) if ismethod(score) else (score, None)
    try:
        return _KNOWN.setdefault(holder, {}).setdefault(name, {})
    except TypeError:
        return {}


def _ends(sigma: Tensor, until: float | None) -> tuple[float, float]:
    """The lowest and the highest level of a trial."""
    start = float(sigma.detach().reshape(-1)[0])
    return (start, start) if until is None else (min(start, until), max(start, until))


def decide(products: Products, x: Tensor, sigma: Tensor, uses: Uses, until: float | None) -> tuple[Products, bool]:
    """The first candidate, cheapest and most exact first, that passes the trial (or the fastest one), and whether the
    trial could judge at all.
    """
    route = list(stations(products.score, x, sigma, until))
    if products.method == "fastest":
        chosen = _fastest(products, x, sigma, uses, route)
    else:
        chosen = _first(products, route, uses, _methods(products.method, uses))
    tried = len(route) == len(_levels(1.0, None if until is None else until / float(sigma.detach().reshape(-1)[0])))
    return chosen, tried and any(station.judges for station in route) and not any(map(_is_blind, route))


def stations(score: object, x: Tensor, sigma: Tensor, until: float | None) -> Iterator[Station]:
    """Stations from ``σ`` down (or up) to ``until``; those at which the score is not finite are left out."""
    with torch.no_grad():
        x, level = _pair(x.detach(), sigma.detach().reshape(-1)[0])
        levels = _levels(float(level), until)
        for k, value in enumerate(levels):
            here = level if k == 0 else x.new_tensor(value)
            s = evaluate(score, x, here)  # type: ignore[arg-type]
            if bool(torch.isfinite(s).all()):
                yield _station(score, x, here, s, k)
            elif k == 0:
                s = torch.zeros_like(s)
                yield _blind(x, here, s)
            else:
                return
            if k + 1 < len(levels):
                x = _moved(x, s, value, levels[k + 1], k)


def _levels(start: float, until: float | None) -> list[float]:
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
    white = Noise.draw(2, seed=1, device=x.device).gaussian(tuple(x.shape[1:]), step=step, dtype=x.dtype)[0]
    return x + (end**2 - start**2) ** 0.5 * white


def _blind(x: Tensor, sigma: Tensor, s: Tensor) -> Station:
    """A station without references, at which products must only run."""
    v = _direction(x, s, 0)
    infinite = torch.full((3, 2), float("inf"), dtype=x.dtype, device=x.device)
    return Station(x, v, s, sigma, torch.zeros(3, *x.shape, dtype=x.dtype, device=x.device), infinite, float("nan"))


def _is_blind(station: Station) -> bool:
    return bool(torch.isinf(station.doubts).all())


def _direction(x: Tensor, denoised: Tensor, step: int) -> Tensor:
    """Length 1: random signs, and the way from one denoised sample to the other, along which denoisers vary."""
    noise = Noise.draw(2, seed=0, device=x.device)
    signs = noise.rademacher(tuple(x.shape[1:]), step=step, dtype=x.dtype)[0].flatten(1)
    along = (denoised[:1] - denoised[1:]).flatten(1)
    length = along.norm().clamp(min=torch.finfo(x.dtype).tiny)
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
    noise = unit * (denoised.flatten(1).norm(dim=1) + (sigma**2 * s).flatten(1).norm(dim=1))
    _check_samples(score, x, sigma, s, value, k, let_pass(unit))
    images = v + sigma**2 * slopes
    gaps = (images[::2] - images[1::2]).flatten(2).norm(dim=2)
    gaps = torch.where(torch.isfinite(gaps), gaps, float("inf"))
    error = gaps[0] / images[0].flatten(1).norm(dim=1).clamp(min=1.0)
    images = torch.where(torch.isfinite(images[::2]), images[::2], 0.0)
    return Station(x, v, s, sigma, images, gaps + noise / lengths[::2], float(error.max()))


def _check_samples(score: object, x: Tensor, sigma: Tensor, s: Tensor, other: Tensor, k: int, share: float) -> None:
    """The same scores in another batch, and one of the two alone.

    Raises:
        ValueError: for a score that is random or couples the samples of a batch.
    """
    row = slice(k % 2, k % 2 + 1)
    alone = evaluate(score, x[row], sigma)  # type: ignore[arg-type]
    if not (_differ(x, s, other, sigma, share) or _differ(x[row], s[row], alone, sigma, share)):
        return
    again = evaluate(score, x, sigma)  # type: ignore[arg-type]
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
    apart = (sigma**2 * (first - second)).flatten(1).norm(dim=1)
    own = (x + sigma**2 * first).flatten(1).norm(dim=1)
    whole = x.flatten(1).norm(dim=1) + (sigma**2 * first).flatten(1).norm(dim=1)
    return bool((apart > share * (own + 0.01 * whole)).any())


def _methods(method: str, uses: Uses) -> tuple[str, ...]:
    if method != "auto":
        return (method,)
    # v·Jv and Jᵀu need reverse mode only, which is cheaper than forward mode and more often available.
    if uses.tangents:
        return _METHODS
    return ("reverse",) if uses.cotangents else ("reverse", *_METHODS)


def _first(products: Products, route: Sequence[Station], uses: Uses, methods: Sequence[str]) -> Products:
    failures: list[str] = []
    for candidate in _candidates(products, methods):
        reason = _failure(candidate, route, uses)
        if reason is None:
            return _announced(candidate, route, failures)
        failures.append(f"{candidate.method}: {reason}")
    if uses.cotangents or products.differentiable:
        raise ValueError(
            f"products method {products.method!r} has no Jᵀu for this score ({failures[-1]}): there is no graph from "
            "its states to its values; compute it with torch, outside no_grad, without detach, NumPy or rounding "
            "(sample_sensitivity without differentiable=True can take differences)."
        )
    raise ValueError(
        f'products method {products.method!r} does not work for this score ({failures[-1]}): try "auto" or "finite", '
        "or a network that is differentiable at the scale of the noise."
    )


def _fastest(products: Products, x: Tensor, sigma: Tensor, uses: Uses, route: Sequence[Station]) -> Products:
    """The quickest exact method that passes the trial, by the median of a few alternated turns."""
    working: list[Products] = []
    for method in ("forward", "double-vjp") if uses.tangents else ("reverse", "forward", "double-vjp"):
        try:
            working.append(_first(replace(products, method=method), route, uses, (method,)))
        except ValueError:
            continue
    if not working:
        return _first(products, route, uses, _methods("auto", uses)[-1:])
    x, sigma = x[:_TIMED].detach(), (sigma if sigma.dim() == 0 else sigma[:_TIMED]).detach()
    directions = Noise.draw(len(x), seed=0, device=x.device).rademacher(tuple(x.shape[1:]), step=0, dtype=x.dtype)

    def seconds(candidate: Products) -> float:
        start = time.perf_counter()
        if uses.tangents:
            images = candidate.forms_and_tangents(x, sigma, directions, directions)[2]
        else:
            images = candidate.quadratic(x, sigma, directions)[1]
        images.sum().item()  # waits for a device
        return time.perf_counter() - start

    turns = [[seconds(candidate) for candidate in working] for _ in range(_TURNS + 1)][1:]
    medians = [sorted(column)[_TURNS // 2] for column in zip(*turns, strict=True)]
    chosen = working[medians.index(min(medians))]
    others = ", ".join(f"{c.method} {1e3 * m:.2g} ms" for c, m in zip(working, medians, strict=True))
    message = f"products by the method {chosen.method!r}, the fastest of: {others}."
    _log.info(message)
    return replace(chosen, message=f"{chosen.message} {message}".strip())


def _candidates(products: Products, methods: Sequence[str]) -> Iterator[Products]:
    for method in methods:
        for serial in ((), ("serial",)):
            rules = (("rules",),) if method == "forward" and not serial else ()
            for cures in (*rules, *_CURES) if method not in DIFFERENCES else ((),):
                yield replace(products, method=method, cures=cures + serial)


def _failure(candidate: Products, route: Sequence[Station], uses: Uses) -> str | None:
    """Why the candidate cannot be used, or None."""
    with counted() as tally:
        reason = _fault(candidate, route, uses)
    if reason is None and tally.pushed > tally.ruled:
        return "most of its operations have no rule of our own, and torch's are as quick"
    return reason


def _fault(candidate: Products, route: Sequence[Station], uses: Uses) -> str | None:
    for station in route:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*performance drop.*")  # torch: no batching rule
                reason = _judged(candidate, station, uses)
        except Exception as error:  # what torch raises for a missing rule has no common class
            return str(error).strip().split("\n")[0][:160] or type(error).__name__
        if reason is not None:
            return reason
    return None


def _judged(candidate: Products, station: Station, uses: Uses) -> str | None:
    """Every product that the run will use, on one station: two directions at once, as a run has them."""
    x, v, sigma = station.x, station.v, station.sigma
    pair = torch.stack([v, -0.5 * v])
    transposed = candidate.method == "reverse"
    if uses.tangents and not transposed:
        _, forms, images = candidate.forms_and_tangents(x, sigma, pair[:1], pair)
        reason = _tangent_reason(candidate, station, images)
        if candidate.method == "one-sided" and reason is None:
            reason = _cotangent_reason(station, v, forms[0])
    elif transposed:
        reason = None
    else:
        reason = _tangent_reason(candidate, station, candidate.quadratic(x, sigma, pair)[1])
    if reason is None and (transposed or uses.cotangents or candidate.differentiable):
        u = _along(station)
        images = candidate.vjp(x, sigma, torch.stack([u, -0.5 * u]))[1]
        reason = _cotangent_reason(station, u, images[0]) or _cotangent_reason(station, u, -2 * images[1])
    if reason is None and uses.second and candidate.exact:
        reason = _second_reason(candidate, station)
    return reason


def _along(station: Station) -> Tensor:
    """``∇D v`` at length 1, where its reference is firm; else v."""
    image = station.best
    length = image.flatten(1).norm(dim=1).reshape(-1, *[1] * (image.dim() - 1))
    known = station.firm.any(0).reshape(length.shape)
    return torch.where(known, image / torch.where(known, length, 1.0), station.v)


def _tangent_reason(candidate: Products, station: Station, images: Tensor) -> str | None:
    if _is_blind(station):
        return None
    for image, factor in ((images[0], 1.0), (images[1], -2.0)):
        own = station.v + station.sigma**2 * factor * image.detach()
        if not station.agrees(own, least=0.0 if candidate.exact else INEXACT):
            return _says("J t", own, station)
    return None


def _cotangent_reason(station: Station, u: Tensor, image: Tensor) -> str | None:
    if _is_blind(station):
        return None
    flat = (station.v * (u + station.sigma**2 * image.detach())).flatten(1).sum(1)
    return None if station.agrees(flat, project=u) else _says("Jᵀu", flat, station, u)


def _says(product: str, found: Tensor, station: Station, u: Tensor | None = None) -> str:
    expected = station.best if u is None else (u * station.best).flatten(1).sum(1)
    error = float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(found.dtype).tiny))
    return (
        f"at σ = {float(station.sigma):.3g} the denoiser's part of {product} disagrees with differences of the score's "
        f"own values by {error:.0%}: is a derivative cut (detach, no_grad, rounding)?"
    )


def _second_reason(candidate: Products, station: Station) -> str | None:
    x, v, sigma = station.x, station.v, station.sigma
    length = step_length(x, sigma, unit=resolution(candidate.score, x)).reshape(-1, *[1] * (x.dim() - 1))
    ways = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.dim())
    states, tangents = (x + ways * length * v).flatten(0, 1), v.repeat(4, *[1] * (x.dim() - 1))
    slopes = candidate.jvp(states, sigma, tangents[None])[1][0].detach().reshape(4, *x.shape)
    bends = [(slopes[k] - slopes[k + 1]) / (2 * way * length) for k, way in ((0, 1), (2, 2))]
    found = along(candidate, x, sigma, v[None], v)[2][0].detach()
    gap, size, apart = (part.flatten(1).norm(dim=1) for part in (bends[0] - bends[1], bends[0], found - bends[0]))
    rounding = torch.finfo(x.dtype).eps * slopes[0].flatten(1).norm(dim=1) / length.flatten()
    good = apart <= FAR * size + 3 * gap + 10 * rounding
    if bool((good | ~torch.isfinite(gap)).all()):
        return None
    return f"at σ = {float(sigma):.3g} the second derivative disagrees with differences of J t: is a derivative cut?"


def _announced(candidate: Products, route: Sequence[Station], failures: list[str]) -> Products:
    said = [_SAYS[cure] for cure in candidate.cures if cure in _SAYS]  # rules of our own lose nothing
    if not candidate.exact:
        error = max(_stated_error(candidate, station) for station in route)
        candidate = replace(candidate, error=error)
        said.insert(0, f"products are {_KINDS[candidate.method]} differences with relative error about {error:.0e}")
    elif candidate.method == "double-vjp" and failures:
        said.insert(0, "products are derivatives of the reverse mode (double-VJP)")
    if not said:
        return candidate
    message = "; ".join(said) + (f" (first failure: {failures[0]})" if failures else "") + "."
    _log.log(logging.INFO if candidate.exact else logging.WARNING, message)
    return replace(candidate, message=message)


def _stated_error(candidate: Products, station: Station) -> float:
    """Change of central differences when their step doubles, in units of the larger of ``∇D v`` and v; of forward
    ones, their distance from central ones.
    """
    if candidate.method != "one-sided":
        return station.error
    own = station.v + station.sigma**2 * candidate.jvp(station.x, station.sigma, station.v[None])[1][0].detach()
    apart, size = ((own - station.best).flatten(1).norm(dim=1), station.best.flatten(1).norm(dim=1))
    return max(station.error, float((apart / size.clamp(min=1.0)).max()))
