"""Training small denoisers: objectives, weighted data, averages, resumption, and the loss against its optimum.

Example:
    >>> import torch
    >>> from studies.networks import Architecture
    >>> data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> recipe = Recipe(Architecture(width=16, depth=1), steps=20, batch=16)
    >>> trained = train(recipe, data, seed=3)
    >>> trained.network(data[:5], 0.5).shape
    torch.Size([5, 2])
"""

from studies.training.batches import Batches
from studies.training.excess import Excess, blind_optimum, excess_loss
from studies.training.loop import Recipe, Trained, train, train_many
from studies.training.objectives import Objective

__all__ = ["Batches", "Excess", "Objective", "Recipe", "Trained", "blind_optimum", "excess_loss", "train", "train_many"]
