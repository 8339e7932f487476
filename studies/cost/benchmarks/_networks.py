"""Networks of at least a million parameters, trained for a while on real images, for benchmarks of the engine.

Times of a network hardly depend on its parameters, errors of inexact Jacobian products do: a network as initialised
has a constant Jacobian and would flatter them. Training takes seconds and is not meant to give good samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from studies import data
from studies.networks import Architecture, Denoiser
from studies.training import Objective, Recipe, train

__all__ = ["images", "parameters", "trained"]


@lru_cache(maxsize=4)
def images(name: str, side: int, count: int) -> Tensor:
    """The first `count` images of a set, averaged or cut to `side`² pixels; random ones where the set is missing.

    A set that has fewer images is repeated with noise of a hundredth of its range, so that all are different.
    """
    generator = torch.Generator().manual_seed(0)
    if not data.available(name):
        return 2 * torch.rand(count, 1, side, side, generator=generator) - 1
    found = data.load(name).images
    if found.shape[-1] != side:
        found = functional.adaptive_avg_pool2d(found, side)
    if len(found) < count:
        found = found.repeat(-(-count // len(found)), 1, 1, 1)[:count]
        found = found + 0.02 * torch.randn(found.shape, generator=generator)
    return found[:count].contiguous()


def parameters(network: torch.nn.Module) -> int:
    """How many numbers a network has."""
    return sum(each.numel() for each in network.parameters())


def trained(size: Mapping[str, Any], device: str) -> Denoiser:
    """The network of a benchmark's size: `kind`, `width`, `depth`, `data`, `side`, and `training` steps."""
    keys = ("kind", "width", "depth", "data", "side", "training")
    return _trained(*(size[key] for key in keys)).to(device)


@lru_cache(maxsize=4)
def _trained(kind: Any, width: int, depth: int, name: str, side: int, steps: int) -> Denoiser:
    recipe = Recipe(
        Architecture(kind, width, depth), Objective(spread=1.5), steps=steps, batch=16, warmup=20, rate=1e-3
    )
    return train(recipe, images(name, side, 1024)).network
