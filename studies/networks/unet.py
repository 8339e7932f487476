"""A small convolutional U-Net for images (channels, height, width) of any size, odd ones included.

Each level has one residual block on the way down and one on the way up; width doubles once below the finest level. The
normalisation is a root mean square over channels at each pixel: unlike GroupNorm it is cheap in forward mode.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.networks.precondition import FEATURES


def normalise(y: Tensor) -> Tensor:
    """y over the root mean square of its channels, pixel by pixel."""
    # Where all channels of a pixel vanish the derivative is 1/√1e-4 = 100; the usual 1e-8 would make it 10⁴, in
    # networks whose Jacobian products are taken.
    return y * torch.rsqrt(y.square().mean(dim=1, keepdim=True) + 1e-4)


class Block(nn.Module):
    """Residual block `y + conv(a(n(conv(a(n(y)))) (1 + scale) + shift))`, n = normalise; scale, shift from noise."""

    def __init__(self, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(features, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """The block's output, (batch, outputs, height, width)."""
        scale, shift = self.modulation(features)[..., None, None].chunk(2, dim=-3)
        h = self.first(functional.silu(normalise(y)))
        h = functional.silu(normalise(h) * (1 + scale) + shift)
        return self.skip(y) + self.second(h)


class UNet(nn.Module):
    """The body F for images; `depth` = number of resolutions, `width` = channels at the finest."""

    def __init__(self, channels: int, width: int, depth: int, *, conditioned: bool) -> None:
        super().__init__()
        widths = [width] + [2 * width] * (depth - 1)
        self.embed = nn.Sequential(nn.Linear(FEATURES, 2 * width), nn.SiLU()) if conditioned else None
        self.blind = None if conditioned else nn.Parameter(torch.zeros(2 * width))
        self.input = nn.Conv2d(channels, width, 3, padding=1)
        ins = [width, *widths[:-1]]
        self.down = nn.ModuleList(Block(a, b, 2 * width) for a, b in zip(ins, widths, strict=True))
        self.up = nn.ModuleList(Block(b + below, b, 2 * width) for b, below in pairwise(widths))
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def forward(self, y: Tensor, features: Tensor | None) -> Tensor:
        """F(y, e), like y (batch, channels, height, width)."""
        code = self.blind if self.embed is None else self.embed(features)
        h, skips = self.input(y), []
        for index, block in enumerate(self.down):
            h = block(functional.avg_pool2d(h, 2, ceil_mode=True) if index else h, code)
            skips.append(h)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = functional.interpolate(h, size=skip.shape[-2:], mode="nearest")
            h = block(torch.cat([h, skip], dim=1), code)
        return self.output(functional.silu(normalise(h)))
