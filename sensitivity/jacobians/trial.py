"""The one-time trial that decides how the Jacobian products of a score are taken (see :mod:`sensitivity.jacobians.products`).

On the first sample each candidate (method, cures) computes two tangent products in one call. It is kept if it
runs and agrees with central differences of the score's own values to within ``DISAGREEMENT``, a bound that tells a
cut derivative from a rounding error and nothing finer. "fastest" then times the exact methods that were kept.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sensitivity.jacobians.products import DIFFERENCES, Products, differences, norms, step_length
from sensitivity.noise import Noise

DISAGREEMENT = 0.5
_WIDE = 0.05  # the coarser difference step, in units of σ: it stands above the noise of reduced-precision kernels
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


def decide(products: Products, x: Tensor, sigma: Tensor, tangents: bool = True) -> Products:
    """The first candidate, cheapest and most exact first, that passes the trial on ``x[:1]``; or the fastest one."""
    if products.method == "fastest":
        return _fastest(products, x, sigma, tangents)
    return _first(products, x, sigma, _methods(products.method, tangents))


def _methods(method: str, tangents: bool) -> tuple[str, ...]:
    if method != "auto":
        return (method,)
    # v·Jv and Jᵀu need reverse mode only, which is cheaper than forward mode and more often available.
    return _METHODS if tangents else ("reverse", *_METHODS)


def _first(products: Products, x: Tensor, sigma: Tensor, methods: tuple[str, ...]) -> Products:
    # The sample is doubled: with a batch of one, operations may take strides that they refuse in a longer batch.
    x, sigma = x[:1].detach().repeat_interleave(2, 0), (sigma if sigma.dim() == 0 else sigma[:1].repeat(2)).detach()
    tangents = Noise.draw(2, seed=0, device=x.device).rademacher(tuple(x.shape[1:]), step=0, probes=2, dtype=x.dtype)
    failures: list[str] = []
    for candidate in _candidates(products, methods):
        reason = _failure(candidate, x, sigma, tangents)
        if reason is None:
            return _announced(candidate, x, sigma, tangents, failures)
        if not failures:
            products.value(x, sigma)  # a score that cannot be evaluated raises its own error here
        failures.append(f"{candidate.method}: {reason}")
    raise ValueError(
        f'products method {products.method!r} does not work for this score ({failures[-1]}): try "auto" or "finite".'
    )


def _fastest(products: Products, x: Tensor, sigma: Tensor, tangents: bool) -> Products:
    """The quickest exact method that passes the trial, by the median of a few alternated turns."""
    working: list[Products] = []
    for method in ("forward", "double-vjp") if tangents else ("reverse", "forward", "double-vjp"):
        try:
            working.append(_first(replace(products, method=method), x, sigma, (method,)))
        except ValueError:
            continue
    if not working:
        return _first(products, x, sigma, ("finite",))
    x, sigma = x[:_TIMED].detach(), (sigma if sigma.dim() == 0 else sigma[:_TIMED]).detach()
    directions = Noise.draw(len(x), seed=0, device=x.device).rademacher(tuple(x.shape[1:]), step=0, dtype=x.dtype)

    def seconds(candidate: Products) -> float:
        start = time.perf_counter()
        if tangents:
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


def _candidates(products: Products, methods: tuple[str, ...]) -> Iterator[Products]:
    for method in methods:
        for serial in ((), ("serial",)):
            for cures in _CURES if method not in DIFFERENCES else ((),):
                yield replace(products, method=method, cures=cures + serial)


def _failure(candidate: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> str | None:
    """Why the candidate cannot be used, or None."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop.*")  # torch: no batching rule
            _, product = candidate.quadratic(x, sigma, tangents)
    except Exception as error:  # what torch raises for a missing rule has no common class
        return str(error).strip().split("\n")[0][:160] or type(error).__name__
    if not candidate.exact or not torch.isfinite(product).all():
        return None
    return _disagreement(candidate, x, sigma, tangents, product)


def _disagreement(candidate: Products, x: Tensor, sigma: Tensor, tangents: Tensor, product: Tensor) -> str | None:
    # v·Jv rather than Jv, because the reverse method has Jᵀv.
    found = (tangents * product.detach()).flatten(2).sum(2)
    smallest = float("inf")
    for length in (step_length(x, sigma), _WIDE * sigma):
        expected = _differences(candidate, x, sigma, tangents, length)
        size = (tangents * expected).abs().flatten(2).sum(2)
        error = float((found - (tangents * expected).flatten(2).sum(2)).abs().sum() / size.sum())
        if error <= DISAGREEMENT or error != error:
            return None
        smallest = min(smallest, error)
    return f"disagrees with differences of the score's own values by {smallest:.0%}: is a derivative cut (detach)?"


def _differences(candidate: Products, x: Tensor, sigma: Tensor, tangents: Tensor, length: Tensor) -> Tensor:
    with candidate._context():
        return differences(candidate.score, x, sigma, tangents, length / norms(tangents))[1].detach()


def _announced(candidate: Products, x: Tensor, sigma: Tensor, tangents: Tensor, failures: list[str]) -> Products:
    said = [_SAYS[cure] for cure in candidate.cures]
    if not candidate.exact:
        error = _stated_error(candidate, x, sigma, tangents)
        candidate = replace(candidate, error=error)
        said.insert(0, f"products are {_KINDS[candidate.method]} differences with relative error about {error:.0e}")
    elif candidate.method == "double-vjp" and failures:
        said.insert(0, "products are derivatives of the reverse mode (double-VJP)")
    if not said:
        return candidate
    message = "; ".join(said) + (f" (first failure: {failures[0]})" if failures else "") + "."
    _log.log(logging.INFO if candidate.exact else logging.WARNING, message)
    return replace(candidate, message=message)


def _stated_error(candidate: Products, x: Tensor, sigma: Tensor, tangents: Tensor) -> float:
    """Relative change of central differences when their step doubles; distance of forward ones from central ones."""
    if candidate.method == "one-sided":
        exact = _differences(candidate, x, sigma, tangents, step_length(x, sigma))
        return float((candidate.jvp(x, sigma, tangents)[1].detach() - exact).norm() / exact.norm())
    length = step_length(x, sigma)
    short, long = (_differences(candidate, x, sigma, tangents, factor * length) for factor in (1.0, 2.0))
    return float((short - long).norm() / short.norm())
