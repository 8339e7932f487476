"""Preconditioned denoisers.

`D(x, σ) = μ + c_skip (x − μ) + c_out F(c_in (x − μ), c(σ))` with, for data of mean μ and standard deviation τ,
`c_skip = τ²/(σ² + τ²)`, `c_out = στ/√(σ² + τ²)`, `c_in = 1/√(σ² + τ²)` (Karras et al. 2022, arXiv 2206.00364, table
1): F sees and predicts unit-variance arrays at every noise level. A blind denoiser does not know σ:
`D(x) = x + τ F((x − μ)/τ)`.
"""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = tuple(0.25 * 2 ** (k / 2) for k in range(9))
FEATURES = 1 + 2 * len(FREQUENCIES)
_PLACED: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def noise_features(sigma: Tensor, scale: float) -> Tensor:
    """Features of `u = log(σ/τ)`, (..., 19): u/4 and cos, sin of nine frequencies from 1/4 to 4 radians per e-fold."""
    u = torch.log(sigma / scale).unsqueeze(-1)
    angles = u * _frequencies(u)
    return torch.cat([u / 4, torch.cos(angles), torch.sin(angles)], dim=-1)


def _frequencies(like: Tensor) -> Tensor:
    """The frequencies beside u. Kept, because a copy from the host would stop a GPU at every call of a network, and
    cannot be part of a CUDA graph."""
    place = (like.dtype, like.device)
    if place not in _PLACED:
        with torch.inference_mode(False):  # kept tensors must serve recorded calls too
            _PLACED[place] = torch.tensor(FREQUENCIES, dtype=like.dtype, device=like.device)
    return _PLACED[place]


class Denoiser(nn.Module):
    """`D(x, σ)` from a body `F(y, features)`; x (..., *shape), σ 0-d or of x's leading shape.

    Args:
        body: F, called with the scaled state and the noise features (None for a blind denoiser).
        shape: the shape of one sample.
        centre: μ, of that shape.
        scale: τ > 0, the data's standard deviation about μ.
        conditioned: False makes the blind denoiser.
    """

    centre: Tensor

    def __init__(
        self,
        body: nn.Module,
        shape: tuple[int, ...],
        centre: Tensor,
        scale: float,
        *,
        conditioned: bool = True,
    ) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(
                f"scale={scale} must be a positive finite number: it is the standard deviation of the data."
            )
        self.body, self.shape, self.scale = body, tuple(shape), float(scale)
        self.conditioned = conditioned
        self.register_buffer("centre", centre.detach().clone())

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The denoised state, like x."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        centred = x - self.centre
        if not self.conditioned:
            return x + self.scale * self.body(centred / self.scale, None)
        features = noise_features(level, self.scale)
        level = self._spread(level)
        total = level**2 + self.scale**2
        inner = self.body(centred * torch.rsqrt(total), features)
        return self.centre + (self.scale**2 / total) * centred + (level * self.scale * torch.rsqrt(total)) * inner

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s(x, σ) = (D(x, σ) − x)/σ²`, like x (Tweedie)."""
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        return (self(x, level) - x) / self._spread(level) ** 2

    def _spread(self, level: Tensor) -> Tensor:
        """A level per sample, shaped to multiply states."""
        return level.reshape(level.shape + (1,) * len(self.shape)) if level.ndim else level
