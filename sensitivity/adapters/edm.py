"""Denoisers that are called as `model(x, sigma) → E[x₀ | x]`: EDM's networks and k-diffusion's protocol."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import refuse_training_mode
from sensitivity.adapters._calling import NetworkCall
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["from_edm"]


def from_edm(model: Callable[..., Tensor], **conditions: Any) -> NetworkScore:
    """The score of a denoiser `model(x, sigma, **conditions) → denoised`, sigma of shape `(batch,)`.

    Networks of EDM (`net(x, sigma, class_labels=…)`) and every model wrapped for k-diffusion follow this protocol.

    Args:
        model: the preconditioned denoiser.
        conditions: one condition for all samples: tensors with a leading axis of size 1, a whole number for a label;
            networks of EDM (with a `label_dim`) get it as the one-hot row that they expect.

    Returns:
        A score with no schedule: its states are already those of the engine.

    Source: Karras et al. 2022, arXiv 2206.00364, eq. 3 and table 1.

    Example:
        >>> import torch
        >>> score = from_edm(lambda x, sigma: x / (1 + sigma.reshape(-1, 1) ** 2))
        >>> score(torch.ones(1, 2), torch.tensor(2.0))
        tensor([[-0.2000, -0.2000]])
    """
    refuse_training_mode(model)
    size = getattr(model, "label_dim", 0)
    if size and "class_labels" in conditions:
        conditions["class_labels"] = _one_hot(conditions["class_labels"], size)
    return as_score(NetworkCall(model, conditions), "denoiser")


def _one_hot(label: Any, size: int) -> Any:
    """A whole number as the row `(1, size)` of EDM's networks, which read anything else in that shape."""
    whole = isinstance(label, Integral) and not isinstance(label, bool)
    if isinstance(label, Tensor) and label.numel() == 1 and not label.dtype.is_floating_point and size > 1:
        whole, label = True, int(label)
    if not whole:
        return label
    if not 0 <= label < size:
        raise ValueError(
            f"class_labels = {label} is no class of a network with label_dim = {size}: pass 0 … {size - 1}."
        )
    return torch.nn.functional.one_hot(torch.tensor([int(label)]), size).float()
