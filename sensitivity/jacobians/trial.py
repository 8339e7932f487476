"""The trial that decides how the Jacobian products of a score are taken (see `sensitivity.jacobians.products`).

Candidates, the cheapest and most exact first, are held against the stations of a run, levels at which differences of
the score's own values are known (see `sensitivity.jacobians.stations`). `J v` must agree with them; `Jᵀ u` is
tried by `u·Jv = v·Jᵀu` with u along `∇D v`, where a cut derivative shows most; `D²s[v, v]` by differences of
`J v`.

The trial costs `3 + 1` network calls a level, 16 in all, of at most 26 samples (one more a level for transposed
products beside tangents, for a second derivative, for every candidate that fails, and for the asymmetry of a function
without a network, see `sensitivity.jacobians.asymmetry`). It draws its own noise. A trial that had nothing firm to
judge by is not remembered.
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

from sensitivity._callables import ready, resolution
from sensitivity._checks import in_autocast, per_sample
from sensitivity.jacobians.asymmetry import off_flow
from sensitivity.jacobians.differences import step_length
from sensitivity.jacobians.duals import counted
from sensitivity.jacobians.products import DIFFERENCES, Products
from sensitivity.jacobians.second import along
from sensitivity.jacobians.stations import FAR, Station, levels, stations
from sensitivity.noise import Noise

INEXACT = 0.5  # the same for products that are differences themselves, whose error is stated
_METHODS = ("forward", "double-vjp", "finite")
_TURNS, _TIMED = 3, 16  # how often "fastest" times each method, and on how many states
_CURES: tuple[tuple[str, ...], ...] = ((), ("contiguous",), ("math",), ("contiguous", "math"))
_CURE_WORDS = {
    "contiguous": "inputs of group normalisation are made contiguous",
    "math": "attention runs on the composite (math) kernel",
    "serial": "directions are taken one after the other",
}
_DECIDED = ("method", "cures", "error", "message", "off_flow")
_KINDS = {"finite": "central", "one-sided": "forward"}
_log = logging.getLogger("sensitivity")


@dataclass(frozen=True)
class Uses:
    """What a run will ask of the products: tangents `J t`, cotangents `Jᵀu`, second derivatives `D²s[t, t]`."""

    tangents: bool = True
    cotangents: bool = False
    second: bool = False


TANGENTS = Uses()
"""Tangents alone."""

VALUES = Uses(tangents=False)
"""No product but those of a divergence."""

COTANGENTS = Uses(tangents=False, cotangents=True)
"""What a run asks that goes back."""


def choose(
    products: Products,
    x: Tensor,
    sigma: Tensor,
    *,
    uses: Uses = TANGENTS,
    until: float | None = None,
) -> Products:
    """`products` with the method and cures of a trial on two of the samples at four levels; about 16 network calls.

    Args:
        products: their score, the method asked for and what is recorded.
        x: states at `σ`, (batch, *shape).
        sigma: their level.
        uses: what will be asked for; with `VALUES` only `v·Jv`, and reverse mode is a candidate too.
        until: the other end of the run's levels; without, the trial is at `σ` alone.

    The decision is remembered with the score, for states of this shape, dtype and device and for levels within the
    range that was tried, unless the trial found nothing to judge by.

    Raises:
        ValueError: where no method agrees with differences of the score's own values; where `Jᵀu` is needed and
            there is no graph; for a score that is random or couples the samples of a batch.

    Example:
        >>> x, sigma = torch.ones(2, 3, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        >>> choose(Products(lambda y, sigma: -y / (1 + sigma**2)), x, sigma).method
        'forward'
    """
    ready(products.score)
    known = _memory(products.score)
    if x.shape[0] == 0:
        return replace(products, method="forward" if uses.tangents else "reverse") if products.undecided else products
    ends = _ends(sigma, until)
    key = (products.method, products.differentiable, uses, x.shape[1:], x.dtype, x.device, in_autocast(x))
    # A level that has passed through a float32 grid comes back a few 1e-8 off and is not a new one.
    if key in known and known[key][0] <= ends[0] * (1 + 1e-6) and ends[1] <= known[key][1] * (1 + 1e-6):
        return replace(products, **known[key][2])
    chosen, judged = decide(products, x, sigma, uses, until)
    if judged:
        known[key] = (*ends, {name: getattr(chosen, name) for name in _DECIDED})
    return chosen


# Decisions for scores that cannot keep them themselves, by object; a bound method is made anew at every access.
_KNOWN: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _memory(score: Any) -> dict[Any, Any]:
    """Where the trials of a score are remembered; a new dictionary for one that can neither keep nor key them."""
    kept = getattr(score, "trials", None)
    if kept is not None:
        return kept
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
    chosen = replace(chosen, off_flow=off_flow(chosen, route))
    # A route that ends early met a score that is not finite: of the levels beyond nothing is known.
    tried = len(route) == len(levels(1.0, None if until is None else until / float(sigma.detach().reshape(-1)[0])))
    return chosen, tried and any(station.judges for station in route) and not any(station.blind for station in route)


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

    # In turns, so that whatever else the machine does meets all alike; the first, which allocates, does not count.
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
    # Of one direction and of −½ of it, a product that is wrong in a batch, or not linear, shows in one of the two.
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
    """`∇D v` at length 1, where its reference is firm; else v."""
    image = station.best
    length = per_sample(image.flatten(1).norm(dim=1), image)
    known = station.firm.any(0).reshape(length.shape)
    return torch.where(known, image / torch.where(known, length, 1.0), station.v)


def _tangent_reason(candidate: Products, station: Station, images: Tensor) -> str | None:
    if station.blind:
        return None
    for image, factor in ((images[0], 1.0), (images[1], -2.0)):
        denoised = station.v + station.sigma**2 * factor * image.detach()
        if not station.agrees(denoised, least=0.0 if candidate.exact else INEXACT):
            return _disagreement("J t", denoised, station)
    return None


def _cotangent_reason(station: Station, u: Tensor, image: Tensor) -> str | None:
    if station.blind:
        return None
    flat = (station.v * (u + station.sigma**2 * image.detach())).flatten(1).sum(1)
    return None if station.agrees(flat, project=u) else _disagreement("Jᵀu", flat, station, u)


def _disagreement(product: str, value: Tensor, station: Station, u: Tensor | None = None) -> str:
    expected = station.best if u is None else (u * station.best).flatten(1).sum(1)
    # Where the reference vanishes, a candidate that does not is infinitely far from it, and one that does is no 0/0.
    error = float((value - expected).norm() / expected.norm().clamp(min=torch.finfo(value.dtype).tiny))
    return (
        f"at σ = {float(station.sigma):.3g} the denoiser's part of {product} disagrees with differences of the score's "
        f"own values by {error:.0%}: is a derivative cut (detach, no_grad, rounding)?"
    )


def _second_reason(candidate: Products, station: Station) -> str | None:
    x, v, sigma = station.x, station.v, station.sigma
    length = per_sample(step_length(x, sigma, unit=resolution(candidate.score, x)), x)
    ways = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.dim())
    states, tangents = (x + ways * length * v).flatten(0, 1), v.repeat(4, *[1] * (x.dim() - 1))
    slopes = candidate.jvp(states, sigma, tangents[None])[1][0].detach().reshape(4, *x.shape)
    differences_of = [(slopes[k] - slopes[k + 1]) / (2 * way * length) for k, way in ((0, 1), (2, 2))]
    second = along(candidate, x, sigma, v[None], v)[2][0].detach()
    gap, size, miss = (
        part.flatten(1).norm(dim=1)
        for part in (differences_of[0] - differences_of[1], differences_of[0], second - differences_of[0])
    )
    # What the difference of two slopes loses, over the step between them.
    rounding = torch.finfo(x.dtype).eps * slopes[0].flatten(1).norm(dim=1) / length.flatten()
    good = miss <= FAR * size + 3 * gap + 10 * rounding
    if bool((good | ~torch.isfinite(gap)).all()):
        return None
    return f"at σ = {float(sigma):.3g} the second derivative disagrees with differences of J t: is a derivative cut?"


def _announced(candidate: Products, route: Sequence[Station], failures: list[str]) -> Products:
    remarks = [_CURE_WORDS[cure] for cure in candidate.cures if cure in _CURE_WORDS]  # rules of our own lose nothing
    if not candidate.exact:
        error = max(_stated_error(candidate, station) for station in route)
        candidate = replace(candidate, error=error)
        remarks.insert(0, f"products are {_KINDS[candidate.method]} differences with relative error about {error:.0e}")
    elif candidate.method == "double-vjp" and failures:
        remarks.insert(0, "products are derivatives of the reverse mode (double-VJP)")
    if not remarks:
        return candidate
    message = "; ".join(remarks) + (f" (first failure: {failures[0]})" if failures else "") + "."
    _log.log(logging.INFO if candidate.exact else logging.WARNING, message)
    return replace(candidate, message=message)


def _stated_error(candidate: Products, station: Station) -> float:
    """Change of central differences when their step doubles, in units of the larger of `∇D v` and v; of forward
    ones, their distance from central ones.
    """
    if candidate.method != "one-sided":
        return station.error
    denoised = station.v + station.sigma**2 * candidate.jvp(station.x, station.sigma, station.v[None])[1][0].detach()
    gap, size = ((denoised - station.best).flatten(1).norm(dim=1), station.best.flatten(1).norm(dim=1))
    return max(station.error, float((gap / size.clamp(min=1.0)).max()))
