"""From a JSON-able description to a network."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from studies.networks.mlp import MLP
from studies.networks.precondition import Denoiser
from studies.networks.transformer import Transformer
from studies.networks.unet import UNet


@dataclass(frozen=True)
class Architecture:
    """What a network is, apart from its parameters.

    Attributes:
        kind: "mlp" (any shape), "unet" or "transformer" (images of shape (channels, height, width)).
        width: units of a hidden layer, channels at the finest resolution, or size of a token.
        depth: hidden layers, resolutions, or blocks.
        conditioned: False for a blind denoiser, which is not told σ.
        heads, patch: of the transformer.
    """

    kind: Literal["mlp", "unet", "transformer"] = "mlp"
    width: int = 256
    depth: int = 3
    conditioned: bool = True
    heads: int = 4
    patch: int = 2

    def __post_init__(self) -> None:
        if self.kind not in ("mlp", "unet", "transformer"):
            raise ValueError(f"kind={self.kind!r} is not a network here: choose 'mlp', 'unet' or 'transformer'.")
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"width={self.width} and depth={self.depth} must be at least 1.")


def build(
    architecture: Architecture,
    shape: tuple[int, ...],
    *,
    centre: Tensor | None = None,
    scale: float = 1.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """A freshly initialised denoiser; equal seeds give equal parameters and leave the global generator alone.

    Args:
        architecture: what to build.
        shape: of one sample.
        centre, scale: mean (of that shape) and standard deviation of the data.
        seed: of the parameters.

    Example:
        >>> network = build(Architecture("mlp", width=16, depth=2), (3,), scale=0.5)
        >>> network(torch.zeros(4, 3), 0.1).shape
        torch.Size([4, 3])
    """
    middle = torch.zeros(shape, dtype=dtype) if centre is None else centre.to(dtype).reshape(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = _body(architecture, tuple(shape))
    return Denoiser(body, shape, middle, scale, conditioned=architecture.conditioned).to(dtype)


def _body(a: Architecture, shape: tuple[int, ...]) -> nn.Module:
    if a.kind == "mlp":
        size = int(torch.Size(shape).numel())
        generator = torch.Generator().manual_seed(torch.initial_seed())
        return MLP(size, a.width, a.depth, conditioned=a.conditioned, dimensions=len(shape), generator=generator)
    if len(shape) != 3:
        raise ValueError(
            f"shape={shape} is not (channels, height, width), which kind={a.kind!r} needs: use 'mlp' or reshape."
        )
    if a.kind == "unet":
        return UNet(shape[0], a.width, a.depth, conditioned=a.conditioned)
    channels, height, width = shape
    size3 = (channels, height, width)
    return Transformer(size3, a.width, a.depth, heads=a.heads, patch=a.patch, conditioned=a.conditioned)
