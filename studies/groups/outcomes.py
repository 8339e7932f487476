"""What is asked of samples: ink and contrast of each, and the shares of the classes among all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def looks(samples: Tensor) -> Tensor:
    """Mean and standard deviation over the pixels of each sample, (batch, 2).

    Example:
        >>> looks(torch.tensor([[[[1.0, 3.0]]]]))
        tensor([[2., 1.]])
    """
    flat = samples.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, correction=0)], 1)


class Shares:
    """The share of every class among samples: posterior weights of normal classes of one variance.

    Args:
        images, labels: the training data.

    Example:
        >>> images = torch.tensor([-1.0, -1.2, 1.0, 1.2]).reshape(4, 1, 1, 1)
        >>> shares = Shares(images, np.array([0, 0, 1, 1]))
        >>> shares(torch.tensor([-1.1, -0.9, 1.3, -1.0]).reshape(4, 1, 1, 1)).round(decimals=3)
        tensor([0.7500, 0.2500])
    """

    def __init__(self, images: Tensor, labels: np.ndarray):
        flat, which = images.flatten(1), torch.from_numpy(np.asarray(labels)).to(images.device)
        self.means = torch.stack([flat[which == c].mean(0) for c in which.unique()])
        self.variance = float((flat - self.means[which]).square().mean())

    def __call__(self, samples: Tensor) -> Tensor:
        """(classes,)."""
        distance = (samples.flatten(1)[:, None] - self.means.to(samples)).square().sum(2)
        # Pixels of an image are dependent: distances count as one pixel in four, so that borders are soft.
        return torch.softmax(-distance / (8 * self.variance), 1).mean(0)
