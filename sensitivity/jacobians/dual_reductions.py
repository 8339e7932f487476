"""Rules of dual numbers for what runs along axes: sums, means, extremes, softmax.

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis, see
`sensitivity.jacobians.duals`. Sums and means act on the whole joint; `p = softmax(v)` has the tangents
`p (t_k − Σ p t_k)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity.jacobians.duals import Dual, rule, unrecorded


def _reduced(input: Dual, dim: Any) -> list[int]:
    """Axes of the joint; no axes are all axes."""
    dims = [dim] if isinstance(dim, int) else list(dim or range(input.ndim))
    return [each % input.ndim + 1 for each in dims]


def _reduction(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, **kwargs: Any) -> Any:
        keepdim, dim = kwargs.pop("keepdims", keepdim), kwargs.pop("axis", dim)  # NumPy's names, which torch takes too
        if kwargs or dtype is not None or not input.ndim:
            return NotImplemented
        return Dual(method(input.joint, _reduced(input, dim), keepdim=keepdim))


for _name in ("sum", "mean"):
    _reduction(_name)


def _extreme(name: str) -> None:
    method = getattr(Tensor, name)

    @rule(name)
    def _(input: Dual, dim: Any = (), keepdim: bool = False, **kwargs: Any) -> Any:
        """Where several entries are the largest, the mean of their tangents."""
        keepdim, dim = kwargs.pop("keepdims", keepdim), kwargs.pop("axis", dim)
        if kwargs or not input.ndim:
            return NotImplemented
        dims, tangents = _reduced(input, dim), input.tangents
        value = method(input.value, [each - 1 for each in dims], keepdim=True)
        chosen = (input.value == value).to(value.dtype)
        shares = chosen / chosen.sum([each - 1 for each in dims], keepdim=True)
        # Not a product: zero times an infinite tangent is no number.
        moved = torch.where(shares > 0, shares * tangents, 0.0).sum(dims, keepdim=True)
        joint = torch.cat([value.unsqueeze(0), moved])
        return Dual(joint if keepdim else joint.squeeze(tuple(dims)))


for _name in ("amax", "amin"):
    _extreme(_name)


@rule("softmax")
def _softmax(input: Dual, dim: int | None = None, *rest: Any, dtype: Any = None, **kwargs: Any) -> Any:
    if dim is None or rest or dtype is not None:
        return NotImplemented
    value = torch.softmax(input.value, dim)
    along = dim % input.ndim - input.ndim  # counted from the end, where the joint has no axis more
    weighted = Dual.sloped(value, value, input.tangents)
    sums = weighted.tangents.sum(along, keepdim=True)
    if not unrecorded():
        return Dual.of(value, weighted.tangents - value * sums)
    weighted.tangents.addcmul_(value, sums, value=-1)
    return weighted
