"""What adapters share: lazy imports, one condition for all samples, the dtype of a network."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Conditioned", "network_dtype", "require"]


def require(package: str, caller: str) -> Any:
    """Import a package of the ``adapters`` extra.

    Raises:
        ImportError: naming the extra where the package is missing.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{caller} needs the package {package.split('.')[0]}: install score-sensitivity[adapters]."
        ) from error


def network_dtype(network: object) -> torch.dtype | None:
    """The dtype of a module's first floating parameter, or ``None``."""
    if not isinstance(network, nn.Module):
        return None
    return next((p.dtype for p in network.parameters() if p.dtype.is_floating_point), None)


class Conditioned:
    """Keyword arguments of a network, one condition for every sample.

    Tensors have a leading axis of size 1, which is repeated for the batch at hand: samples are computed in chunks and
    with several tangents at once, so that a condition for each sample could not be told apart. Whole numbers become
    labels of shape ``(batch,)``; anything else is handed on.
    """

    def __init__(self, arguments: Mapping[str, Any]):
        self._arguments = {name: _prepared(value, name) for name, value in arguments.items()}

    def for_batch(self, x: Tensor) -> dict[str, Any]:
        """The arguments for the batch of ``x``, on its device."""
        return {name: _expanded(value, x) for name, value in self._arguments.items()}


def _prepared(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _prepared(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.tensor([value])
    if isinstance(value, Tensor) and (value.ndim == 0 or value.shape[0] != 1):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: pass one condition for all samples, leading axis of size 1, "
            "and make one score for each condition."
        )
    return value


def _expanded(value: Any, x: Tensor) -> Any:
    if isinstance(value, Mapping):
        return {key: _expanded(item, x) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.to(x.device).expand(x.shape[0], *value.shape[1:])
    return value


def in_dtype_of(network: object, call: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """``call(z, t)`` with both cast to the network's dtype; the score casts the result back."""
    dtype = network_dtype(network)
    if dtype is None:
        return call
    return lambda z, t: call(z.to(dtype), t.to(dtype))
