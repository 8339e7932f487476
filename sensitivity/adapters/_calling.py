"""What adapters share: lazy imports, one condition for all samples, how a network of a package is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Conditioned", "NetworkCall", "require"]


def require(package: str, caller: str) -> Any:
    """Import a package of the `adapters` extra.

    Raises:
        ImportError: naming the extra where the package is missing.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{caller} needs the package {package.split('.')[0]}: install score-sensitivity[adapters]."
        ) from error


class NetworkCall(nn.Module):
    """`call(z, t)` of a package's network.

    A module, so that the network's dtype and training mode are seen, and a class, so that scores can be pickled.

    Args:
        model: the network.
        conditions: its other arguments.
    """

    def __init__(self, model: Any, conditions: Mapping[str, Any]):
        super().__init__()
        self.model, self.conditions = model, Conditioned(conditions)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """The network's prediction, like `z`."""
        return self.predicted(z, t, self.conditions.for_batch(z))

    def predicted(self, z: Tensor, t: Tensor, arguments: dict[str, Any]) -> Tensor:
        """The call itself; here `model(z, t, **arguments)`."""
        output: Tensor = self.model(z, t, **arguments)
        return output


class Conditioned:
    """Keyword arguments of a network, one condition for every sample.

    Tensors and arrays have a leading axis of size 1, which is repeated for the batch at hand: samples are computed in
    chunks and with several tangents at once, so that a condition for each sample could not be told apart. Whole numbers
    become labels of shape `(batch,)`; anything else is handed on.
    """

    def __init__(self, arguments: Mapping[str, Any]):
        self._arguments = {name: _prepared(value, name) for name, value in arguments.items()}

    def for_batch(self, x: Tensor) -> dict[str, Any]:
        """The arguments for the batch of `x`, on its device."""
        return {name: _expanded(value, x) for name, value in self._arguments.items()}


def _prepared(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _prepared(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Integral) and not isinstance(value, bool):
        return torch.tensor([int(value)])
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(np.asarray(value))
    if isinstance(value, Tensor) and value.ndim == 0 and not value.dtype.is_floating_point:
        return value.reshape(1)
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
