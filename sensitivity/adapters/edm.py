"""Denoisers that are called as ``model(x, sigma) → E[x₀ | x]``: EDM's networks and k-diffusion's protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sensitivity._callables import refuse_training_mode
from sensitivity.adapters._calling import Conditioned, in_dtype_of
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["from_edm"]


def from_edm(model: Callable[..., Tensor], **conditions: Any) -> NetworkScore:
    """The score of a denoiser ``model(x, sigma, **conditions) → denoised``, sigma of shape ``(batch,)``.

    Networks of EDM (``net(x, sigma, class_labels=…)``) and every model wrapped for k-diffusion follow this protocol.

    Args:
        model: the preconditioned denoiser.
        conditions: one condition for all samples: tensors with a leading axis of size 1, a whole number for a label.

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
    extra = Conditioned(conditions)
    return as_score(in_dtype_of(model, lambda x, sigma: model(x, sigma, **extra.for_batch(x))), "denoiser")
