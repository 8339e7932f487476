"""A small transformer on image patches (Peebles & Xie 2022, arXiv 2212.09748, in miniature).

Attention is written out (`softmax(QKᵀ/√d) V`) rather than fused: fused kernels have no forward mode, and at tens of
tokens they save nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from studies.networks.precondition import FEATURES


class Block(nn.Module):
    """Attention and a two-layer perceptron, each with shift, scale and gate from the noise; starts as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, code: Tensor) -> Tensor:
        """h (batch, tokens, width) → same shape."""
        parts = self.modulation(functional.silu(code)).unsqueeze(-2).chunk(6, dim=-1)
        h = h + parts[2] * self.attention(functional.layer_norm(h, h.shape[-1:]) * (1 + parts[0]) + parts[1])
        inner = functional.layer_norm(h, h.shape[-1:]) * (1 + parts[3]) + parts[4]
        return h + parts[5] * self.narrow(functional.gelu(self.wide(inner)))

    def attention(self, h: Tensor) -> Tensor:
        """Multi-head self-attention."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in self.qkv(h).chunk(3, dim=-1))
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
        return self.project((weights @ v).transpose(-2, -3).flatten(-2))


class Transformer(nn.Module):
    """The body F for images whose sides are multiples of `patch`."""

    def __init__(
        self, shape: tuple[int, int, int], width: int, depth: int, *, heads: int, patch: int, conditioned: bool
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % patch or breadth % patch:
            raise ValueError(
                f"patch={patch} does not divide images of {height}×{breadth}: choose a divisor of both sides."
            )
        if width % heads:
            raise ValueError(f"heads={heads} does not divide width={width}: choose a divisor.")
        tokens = (height // patch) * (breadth // patch)
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.noise = nn.Linear(FEATURES, width) if conditioned else None
        self.blind = None if conditioned else nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.output = nn.Linear(width, channels * patch * patch)
        nn.init.zeros_(self.output.weight)

    def forward(self, y: Tensor, features: Tensor | None) -> Tensor:
        """F(y, e), like y (batch, channels, height, width)."""
        code = self.blind if self.noise is None else self.noise(features)
        h = self.embed(patches(y, self.patch)) + self.position
        for block in self.blocks:
            h = block(h, code)
        return images(self.output(functional.layer_norm(h, h.shape[-1:])), self.patch, y)


def patches(y: Tensor, size: int) -> Tensor:
    """(batch, channels, height, width) → (batch, tokens, channels·size²)."""
    grid = y.unflatten(-2, (-1, size)).unflatten(-1, (-1, size))
    return grid.movedim((-4, -2), (-5, -4)).flatten(-3).flatten(-3, -2)


def images(tokens: Tensor, size: int, like: Tensor) -> Tensor:
    """The inverse of `patches`, to the shape of `like`."""
    channels, height, width = like.shape[-3:]
    grid = tokens.unflatten(-2, (height // size, width // size)).unflatten(-1, (channels, size, size))
    return grid.movedim((-5, -4), (-4, -2)).flatten(-2).flatten(-3, -2)
