r"""Probability flow of any exact law in float64, with its first and second derivatives in the mass moved.

Symbols: x(σ) ∈ R^d the state, s = ∇ log p_σ the score of ρ noised to σ, ∇s its Jacobian, ν the law that mass moves
toward, r = ν_σ/p_σ, ṡ = r (s^ν − s). In u = log σ, downward from `sigma_max` to `sigma_min` with x(σ_max) fixed,

    dx/du = −σ² s,
    dδ/du = −σ² (∇s δ + ṡ),                                   δ = dx/dη,    δ(σ_max) = 0,
    dζ/du = −σ² (∇s ζ + D²s[δ, δ] + 2 ∇ṡ δ + s̈),              ζ = d²x/dη²,  ζ(σ_max) = 0,

with ∇ṡ = r [(s^ν−s)(s^ν−s)ᵀ + ∇s^ν − ∇s] and s̈ = −2 (r − 1) ṡ (Song et al., arXiv 2011.13456, eq. 13, for the flow;
Scarvelis & Solomon, arXiv 2509.23092, for ṡ and δ). A finite η needs nothing of this: integrate the law ρ_η itself.

The integrator is DOP853 with the error held in every latent (module `oracles._dop853`). Blocks of `chunk_size` latents
share their steps. An error bar is the difference between two tolerances, a factor ten apart.

Everything is computed in NumPy float64; results come back in the library, dtype and device of the latents, as constants
for automatic differentiation. A law that is not a Gaussian mixture needs, on NumPy arrays, `noised(sigma)` with
`log_density`, `score`, `score_jacobian_product` and, for second order, `third_order`.

Example:
    >>> import numpy as np
    >>> from oracles.lines import NormalMixture
    >>> from oracles.transport import ProductLaw
    >>> law = ProductLaw([NormalMixture([1.0], [0.0], [3.0])])
    >>> x = sample(law, np.array([[8.0]]), sigma_max=8.0, sigma_min=1.0)
    >>> bool(abs(x[0, 0] - 8.0 * np.sqrt(4.0 / 67.0)) < 1e-11)  # one Gaussian: x scales with its standard deviation
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from oracles._dop853 import SMALLEST_RTOL, Stack, solve
from oracles._numeric import check_levels, numpy_law, numpy_states, restored
from oracles._pointwise import local
from oracles._protocols import Contamination, Differentiable, Law, TwiceDifferentiable

Field = Callable[[float, Stack], Stack]


@dataclass(frozen=True)
class Truth:
    """Samples x, derivatives δ and ζ in η (None above the order asked for) and their error bars, one per latent.

    `errors[k]` (n,) is the largest absolute difference over coordinates of the k-th derivative between the two
    tolerances; it bounds the truncation error of the values from above in practice (they are the finer ones).
    """

    samples: np.ndarray
    sensitivity: np.ndarray | None
    second: np.ndarray | None
    errors: np.ndarray
    rtol: float


def sample(
    law: Any,
    latents: Any,
    sigma_max: float,
    sigma_min: float,
    rtol: float = 1e-12,
    *,
    scale: float = 1.0,
    chunk_size: int = 256,
) -> Any:
    """Samples x(σ_min), shape of `latents` (..., d), of the law's flow from x(σ_max) = `latents`.

    `scale` is the size of the data in its own units: the absolute tolerance is `rtol * scale`.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max, the latents are finite and rtol is above rounding.
        FloatingPointError: if the law's score is not finite or not smooth somewhere on the way.
    """
    check_levels(sigma_max, sigma_min)
    return _run(_primal(law), latents, sigma_max, sigma_min, 0, rtol, scale, chunk_size)[0]


def latents_of(
    law: Any,
    samples: Any,
    sigma_max: float,
    sigma_min: float,
    rtol: float = 1e-12,
    *,
    scale: float = 1.0,
    chunk_size: int = 256,
) -> Any:
    """Latents x(σ_max) of `samples` x(σ_min): the same flow integrated upward."""
    check_levels(sigma_max, sigma_min)
    return _run(_primal(law), samples, sigma_min, sigma_max, 0, rtol, scale, chunk_size)[0]


def trajectory(
    law: Any, latents: np.ndarray, levels: Sequence[float], rtol: float = 1e-12, *, scale: float = 1.0
) -> np.ndarray:
    """States (len(levels), ..., d) at descending noise `levels`, the first of which is the latents' own."""
    states = [numpy_states(latents)]
    for high, low in pairwise(levels):
        states.append(sample(law, states[-1], high, low, rtol, scale=scale))
    return np.stack(states)


def sensitivity(
    perturbation: Any,
    latents: Any,
    sigma_max: float,
    sigma_min: float,
    order: int = 1,
    rtol: float = 1e-12,
    *,
    eta: float = 0.0,
    scale: float = 1.0,
    chunk_size: int = 256,
) -> tuple[Any, Any]:
    """Samples and their derivative of `order` 1 or 2 in η at `eta`, both of the shape of `latents` (..., d).

    `perturbation` has `base` and `toward` (contamination; `at(eta)` too when `eta` is not 0); any other with
    `base` and `score_derivative(x, sigma, order)`, such as moved points, is taken to first order, and to second
    where it has `score_derivative_product(x, sigma, v)` too, both at `eta` 0. Raises as `sample`, and TypeError where
    the perturbation offers less than the order asked for needs.
    """
    if order not in (1, 2):
        raise ValueError(f"order = {order!r} must be 1 or 2: the flow has variational equations of these orders")
    check_levels(sigma_max, sigma_min)
    field, factor = _variational(perturbation, order, eta)
    stack = _run(field, latents, sigma_max, sigma_min, order, rtol, scale, chunk_size)
    return stack[0], factor**order * stack[order]


def truth(
    perturbation: Any,
    latents: Any,
    sigma_max: float,
    sigma_min: float,
    order: int = 1,
    rtol: float = 1e-12,
    *,
    eta: float = 0.0,
    scale: float = 1.0,
    chunk_size: int = 256,
) -> Truth:
    """Samples and derivatives up to `order` (0, 1 or 2) with error bars from the tolerances `rtol`, `10 rtol`.

    With `order=0` the first argument may be a law. Results are NumPy.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order = {order!r} must be 0, 1 or 2")
    check_levels(sigma_max, sigma_min)
    field, factor = _variational(perturbation, order, eta)
    states = numpy_states(latents)
    # A derivative of order k in the mass moved from ρ_η, times (dm/dη)^k.
    powers = factor ** np.arange(order + 1.0).reshape(-1, *[1] * states.ndim)
    fine, coarse = (
        powers * _run(field, states, sigma_max, sigma_min, order, tolerance, scale, chunk_size)
        for tolerance in (rtol, 10 * rtol)
    )
    parts = [*fine, None, None]
    return Truth(fine[0], parts[1], parts[2], np.abs(fine - coarse).max(axis=-1), rtol)


def error_bar(
    perturbation: Any,
    latents: Any,
    sigma_max: float,
    sigma_min: float,
    order: int = 1,
    rtol: float = 1e-12,
    **options: Any,
) -> np.ndarray:
    """Error bars (order + 1, n) of the samples and derivatives, one per latent: `truth(...).errors`."""
    return truth(perturbation, latents, sigma_max, sigma_min, order, rtol, **options).errors


def _primal(law: Any) -> Field:
    at = local(law)

    def field(u: float, stack: Stack) -> Stack:
        # In u = log σ, dx/du = σ dx/dσ = −σ² s: the flow's natural time, in which four decades of noise are even work.
        return -np.exp(2 * u) * at(np.exp(u), stack[0]).score[None]

    return field


def _variational(perturbation: Any, order: int, eta: float) -> tuple[Field, float]:
    """Field of (x, δ, ζ), and d(mass)/dη: at η, χ = ν − ρ = (ν − ρ_η)/(1 − η)."""
    if order == 0:
        return _primal(perturbation if isinstance(perturbation, Law) else perturbation.at(eta)), 1.0
    if isinstance(perturbation, Contamination):
        base = perturbation.base if eta == 0.0 else perturbation.at(eta)  # type: ignore[attr-defined]  # asked only here
        return _contamination(base, perturbation.toward, order), 1.0 / (1.0 - eta)
    if eta == 0.0 and isinstance(perturbation, Differentiable if order == 1 else TwiceDifferentiable):
        return _general(perturbation, order), 1.0
    raise TypeError(
        f"perturbation of type {type(perturbation).__name__} has no attribute 'toward': order {order} at eta = {eta} "
        "needs a contamination, such as AdditivePerturbation(base, toward)"
    )


def _general(perturbation: Any, order: int) -> Field:
    perturbation = numpy_law(perturbation)
    at = local(perturbation.base)

    def field(u: float, stack: Stack) -> Stack:
        sigma, (x, delta) = np.exp(u), stack[:2]
        here = at(sigma, x)
        rows = [here.score, here.product(delta) + perturbation.score_derivative(x, sigma)]
        if order == 2:
            slope = perturbation.score_derivative_product(x, sigma, delta)
            curvature = here.product(stack[2]) + here.third_order(delta, delta)
            rows.append(curvature + 2 * slope + perturbation.score_derivative(x, sigma, 2))
        return -(sigma**2) * np.stack(rows)

    return field


def _contamination(base: Any, toward: Any, order: int) -> Field:
    of_base, of_toward = local(base), local(toward)

    def field(u: float, stack: Stack) -> Stack:
        sigma, (x, delta) = np.exp(u), stack[:2]
        here, there = of_base(sigma, x), of_toward(sigma, x)
        ratio, gap = np.exp(there.log_density - here.log_density)[..., None], there.score - here.score
        pushed = here.product(delta)
        rows = [here.score, pushed + ratio * gap]
        if order == 2:
            along = np.sum(gap * delta, axis=-1, keepdims=True)
            # ∇r = r (s_ν − s), so that ṡ = r (s_ν − s) has the derivative r [gap (gap·δ) + ∇s_ν δ − ∇s δ] along δ; and
            # s^η = s + g (s_ν − s) with g = η r/(1 + η (r − 1)) has the second derivative −2 (r − 1) r (s_ν − s) at η =
            # 0.
            slope = ratio * (gap * along + there.product(delta) - pushed)
            curvature = here.product(stack[2]) + here.third_order(delta, delta)
            rows.append(curvature + 2 * slope - 2 * (ratio - 1) * ratio * gap)
        return -(sigma**2) * np.stack(rows)

    return field


def _run(
    field: Field, latents: Any, begin: float, end: float, order: int, rtol: float, scale: float, chunk_size: int
) -> Any:
    """The stack (order + 1, ..., d) at `end`, in the array library of the latents."""
    start = numpy_states(latents)
    if start.ndim == 0:
        raise ValueError("latents must have shape (..., d), not (); write [[x]] for one latent in one dimension")
    _check_numbers(rtol, scale, chunk_size)
    flat = start.reshape(-1, start.shape[-1])
    stack = np.concatenate([flat[None], np.zeros((order, *flat.shape))])
    u, v = float(np.log(begin)), float(np.log(end))
    chunks = [stack[:, i : i + chunk_size] for i in range(0, len(flat), chunk_size)]
    pieces = [solve(field, chunk, u, v, rtol, scale)[0] for chunk in chunks]
    result = np.concatenate(pieces, axis=1) if pieces else stack
    return restored(result.reshape(order + 1, *start.shape), latents)


def _check_numbers(rtol: float, scale: float, chunk_size: int) -> None:
    if not rtol >= SMALLEST_RTOL:
        raise ValueError(f"rtol = {rtol!r} must be at least {SMALLEST_RTOL:.2g}: float64 holds no more")
    if not (scale > 0 and np.isfinite(scale)):
        raise ValueError(f"scale = {scale!r} must be positive: it is the size of the data in its own units")
    if chunk_size < 1:
        raise ValueError(f"chunk_size = {chunk_size!r} must be at least 1")
