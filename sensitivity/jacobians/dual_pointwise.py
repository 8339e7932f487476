"""Rules of dual numbers for functions of each entry: `f(v)` has the tangents `f′(v) t_k`.

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis, see
`sensitivity.jacobians.duals`. Slopes are written in v and y = f(v), whichever is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sensitivity.jacobians.duals import Dual, rule, unrecorded

_aten = torch.ops.aten


def _pointwise(name: str, slope: Callable[[Tensor, Tensor], Tensor]) -> None:
    function = getattr(torch, name)

    @rule(name)
    def _(dual: Dual, *args: Any, **kwargs: Any) -> Any:
        if args or any(kwargs.values()):
            return NotImplemented
        value = function(dual.value)
        return Dual.sloped(value, slope(dual.value, value), dual.tangents)


_pointwise("exp", lambda v, y: y)
_pointwise("log", lambda v, y: 1 / v)
_pointwise("log1p", lambda v, y: 1 / (1 + v))
_pointwise("sqrt", lambda v, y: 0.5 / y)
_pointwise("rsqrt", lambda v, y: -0.5 * y / v)
_pointwise("reciprocal", lambda v, y: -y * y)
_pointwise("square", lambda v, y: 2 * v)
_pointwise("sin", lambda v, y: torch.cos(v))
_pointwise("cos", lambda v, y: -torch.sin(v))
_pointwise("tanh", lambda v, y: 1 - y * y)
_pointwise("sigmoid", lambda v, y: y * (1 - y))
_pointwise("relu", lambda v, y: (v > 0).to(v.dtype))


@rule("pow", "__pow__")
def _pow(dual: Any, exponent: Any) -> Any:
    # The power 0 would have the slope 0 · v⁻¹, which is no number at v = 0.
    if not isinstance(dual, Dual) or isinstance(exponent, Tensor) or exponent in (0, 1):
        return NotImplemented
    value = dual.value
    return Dual.sloped(value**exponent, exponent * value ** (exponent - 1), dual.tangents)


@rule("silu")
def _silu(input: Dual, inplace: bool = False) -> Any:
    if inplace:
        return NotImplemented
    value = input.value
    if unrecorded():
        out = torch.empty_like(input.joint)
        _aten.silu.out(value, out=out[0])
        _aten.silu_backward.grad_input(input.tangents, value.expand_as(input.tangents), grad_input=out[1:])
        return Dual(out)
    share = torch.sigmoid(value)
    return Dual.of(functional.silu(value), share * (1 + value * (1 - share)) * input.tangents)


@rule("gelu")
def _gelu(input: Dual, *, approximate: str = "none") -> Dual:
    value = input.value
    if unrecorded():
        out = torch.empty_like(input.joint)
        _aten.gelu.out(value, approximate=approximate, out=out[0])
        repeated = value.expand_as(input.tangents)
        _aten.gelu_backward.grad_input(input.tangents, repeated, approximate=approximate, grad_input=out[1:])
        return Dual(out)
    slope = _gelu_slope(value) if approximate == "none" else _gelu_tanh_slope(value)
    return Dual.of(functional.gelu(value, approximate=approximate), slope * input.tangents)


def _gelu_slope(v: Tensor) -> Tensor:
    """Φ(v) + v φ(v)."""
    return 0.5 * (1 + torch.erf(v / math.sqrt(2))) + v * torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(v: Tensor) -> Tensor:
    """Of ½ v (1 + tanh √(2/π)(v + .044715 v³))."""
    root = math.sqrt(2 / math.pi)
    tanh = torch.tanh(root * (v + 0.044715 * v**3))
    return 0.5 * (1 + tanh) + 0.5 * v * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * v * v)
