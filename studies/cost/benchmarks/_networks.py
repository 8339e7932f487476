"""Networks of at least a million parameters, trained for a while on real images, for benchmarks of the engine.

Times of a network hardly depend on its parameters, errors of inexact Jacobian products do: a network as initialised
has a constant Jacobian and would flatter them. Training takes seconds and is not meant to give good samples.

Two kinds are as users have them rather than as this package trains them: "conv", residual convolutions with GroupNorm
and SiLU at half the resolution, and "diffusers", a small `UNet2DModel` with attention. Their bodies are not trained
(`training` is 0 for them): nothing in them starts at zero, so that their Jacobians vary with the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies import data
from studies.networks import Architecture, Denoiser
from studies.networks.precondition import FEATURES
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
    pictures = data.load(name).images
    if pictures.shape[-1] != side:
        pictures = functional.adaptive_avg_pool2d(pictures, side)
    if len(pictures) < count:
        pictures = pictures.repeat(-(-count // len(pictures)), 1, 1, 1)[:count]
        pictures = pictures + 0.02 * torch.randn(pictures.shape, generator=generator)
    return pictures[:count].contiguous()


def parameters(network: torch.nn.Module) -> int:
    """How many numbers a network has."""
    return sum(each.numel() for each in network.parameters())


def trained(size: Mapping[str, Any], device: str) -> Denoiser:
    """The network of a benchmark's size: `kind`, `width`, `depth`, `data`, `side`, and `training` steps."""
    keys = ("kind", "width", "depth", "data", "side", "training")
    make = _untrained if size["kind"] in _BODIES else _trained
    return make(*(size[key] for key in keys)).to(device)


class Residual(nn.Module):
    """`depth` residual blocks of two convolutions, GroupNorm and SiLU, at half the resolution; σ shifts channels."""

    def __init__(self, width: int, depth: int, side: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, 2, 1)
        self.embed = nn.Linear(FEATURES, width)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2 * depth))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2 * depth))
        self.last = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """F(y, e), like y (batch, 1, side, side) for an even side."""
        h = self.first(y) + self.embed(features)[..., None, None]
        for k in range(0, len(self.norms), 2):
            inner = self.convolutions[k](functional.silu(self.norms[k](h)))
            h = h + self.convolutions[k + 1](functional.silu(self.norms[k + 1](inner)))
        return functional.pixel_shuffle(self.last(h), 2)


class Diffusers(nn.Module):
    """A `UNet2DModel` of two levels with `depth` blocks each, `width` channels and twice as many, attention below."""

    def __init__(self, width: int, depth: int, side: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        model: Any = UNet2DModel  # the package's own wrapper hides its type
        self.unet = model(
            sample_size=side, in_channels=1, out_channels=1, layers_per_block=depth, norm_num_groups=8,
            block_out_channels=(width, 2 * width), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """F(y, e), like y; the first feature, a multiple of log σ, is the time."""
        return self.unet(y, 1000 * features[..., 0].expand(len(y))).sample


_BODIES = {"conv": Residual, "diffusers": Diffusers}


@lru_cache(maxsize=4)
def _untrained(kind: str, width: int, depth: int, name: str, side: int, steps: int) -> Denoiser:
    if steps:
        raise ValueError(f"training={steps} of a network of kind {kind!r}: give 0, it is not trained here.")
    data = images(name, side, 1024)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = _BODIES[kind](width, depth, side)
    return Denoiser(body, (1, side, side), data.mean(0), float(data.std())).eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _trained(kind: Any, width: int, depth: int, name: str, side: int, steps: int) -> Denoiser:
    recipe = Recipe(
        Architecture(kind, width, depth), Objective(spread=1.5), steps=steps, batch=16, warmup=20, rate=1e-3
    )
    return train(recipe, images(name, side, 1024)).network
