"""A network that is trained exactly, in NumPy: cosine features, linear in its parameters, ridge least squares.

D_W(x, σ) = W φ(x, σ), φ = cos(Ω x/√(1 + σ²) + b). With fixed draws (σ_k, ε_k) and weights w(σ) the training loss of
data weights p is quadratic in W,

    L(W; p) = Σ_i p_i (1/K) Σ_k w(σ_k) |W φ_ik − x_i|²/d + (λ/2)|W|²,

so that retraining is a solve of W (2/d · G + λ) = 2/d · B with G = Σ p_i w_k φφᵀ/K and B = Σ p_i w_k x_i φᵀ/K. What the
engine says of this network is compared with solves, their derivatives in p, and Heun's method written out anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sensitivity import DenoisingLoss


class CosineNetwork(nn.Module):
    """The same network for the engine; W is its one parameter."""

    def __init__(self, frequencies: np.ndarray, phases: np.ndarray, weights: np.ndarray):
        super().__init__()
        self.register_buffer("frequencies", torch.from_numpy(frequencies))
        self.register_buffer("phases", torch.from_numpy(phases))
        self.readout = nn.Parameter(torch.from_numpy(weights.copy()))

    def forward(self, x, sigma):
        """D(x, σ)."""
        angles = x @ self.frequencies.T / (1 + sigma[:, None] ** 2).sqrt() + self.phases
        return torch.cos(angles) @ self.readout.T


@dataclass(frozen=True)
class Trained:
    """Data, features and draws; every method takes data weights p, (N,)."""

    data: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    levels: np.ndarray
    noise: np.ndarray
    scale: float
    ridge: float

    def features(self, x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """φ for rows x with levels sigma."""
        return np.cos(x @ self.frequencies.T / np.sqrt(1 + sigma**2)[:, None] + self.phases)

    def moments(self, p: np.ndarray, data: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """2/d · G and 2/d · B."""
        data = self.data if data is None else data
        count, d = len(self.levels), data.shape[1]
        gram = np.zeros((len(self.phases),) * 2)
        cross = np.zeros((d, len(self.phases)))
        for sigma, noise in zip(self.levels, self.noise, strict=True):
            phi = self.features(data + sigma * noise, np.full(len(data), sigma))
            weight = p * (sigma**2 + self.scale**2) / (sigma * self.scale) ** 2 / count
            gram += 2 / d * (phi * weight[:, None]).T @ phi
            cross += 2 / d * (data * weight[:, None]).T @ phi
        return gram, cross

    def retrained(self, p: np.ndarray, data: np.ndarray | None = None) -> np.ndarray:
        """W by a solve."""
        gram, cross = self.moments(p, data)
        return np.linalg.solve(gram + self.ridge * np.eye(len(gram)), cross.T).T

    def derivative(self, p: np.ndarray, change: np.ndarray) -> np.ndarray:
        """dW/dη for p + η·change: Ẇ = (Ḃ − W Ġ)(G + λ)⁻¹."""
        gram, _ = self.moments(p)
        gram_rate, cross_rate = self.moments(change)
        rest = cross_rate - self.retrained(p) @ gram_rate
        return np.linalg.solve(gram + self.ridge * np.eye(len(gram)), rest.T).T

    def sampled(self, weights: np.ndarray, rate: np.ndarray, latents: np.ndarray, levels: np.ndarray):
        """Heun's method from the latents with its tangent dx/dη along dW/dη = rate: samples and sensitivities."""
        x, tangent = latents.copy(), np.zeros_like(latents)
        for start, end in pairwise(levels):
            first = self._slope(weights, rate, x, tangent, start)
            middle = [value + (end - start) * slope for value, slope in zip((x, tangent), first, strict=True)]
            second = self._slope(weights, rate, *middle, end)
            x = x + (end - start) * (first[0] + second[0]) / 2
            tangent = tangent + (end - start) * (first[1] + second[1]) / 2
        return x, tangent

    def _slope(self, weights: np.ndarray, rate: np.ndarray, x: np.ndarray, tangent: np.ndarray, sigma: float):
        """dx/dσ = (x − Wφ)/σ and its derivative along (tangent, rate)."""
        root = np.sqrt(1 + sigma**2)
        angles = x @ self.frequencies.T / root + self.phases
        moved = -np.sin(angles) * (tangent @ self.frequencies.T / root)
        slope = (x - np.cos(angles) @ weights.T) / sigma
        return slope, (tangent - moved @ weights.T - np.cos(angles) @ rate.T) / sigma

    @property
    def loss(self) -> DenoisingLoss:
        """The engine's loss with these draws."""
        return GivenDraws(torch.from_numpy(self.levels), torch.from_numpy(self.noise), self.scale)

    def network(self, p: np.ndarray) -> CosineNetwork:
        """The trained network."""
        return CosineNetwork(self.frequencies, self.phases, self.retrained(p)).eval()


class GivenDraws(DenoisingLoss):
    """The denoising loss on draws that the reference shares."""

    def __init__(self, levels: torch.Tensor, noise: torch.Tensor, scale: float):
        super().__init__(scale=scale, draws=len(levels))
        object.__setattr__(self, "given", (levels, noise))

    def draw(self, example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The given draws."""
        return tuple(part.to(example) for part in self.given)


def trained(d: int = 3, features: int = 20, count: int = 12, draws: int = 6, seed: int = 0) -> Trained:
    """Asymmetric, anisotropic data of two unequal groups, low rank plus noise where d is large."""
    rng = np.random.default_rng([seed, d, features])
    rank = min(d, 5)
    factors = rng.standard_normal((rank, d)) * np.linspace(1.5, 0.4, rank)[:, None] / np.sqrt(rank)
    data = rng.standard_normal((count, rank)) @ factors + 0.1 * rng.standard_normal((count, d)) + 0.3
    data[: count // 3] += 0.8 * factors[0]
    return Trained(
        data,
        rng.standard_normal((features, d)) / np.sqrt(rank),
        rng.uniform(0, 2 * np.pi, features),
        np.geomspace(0.3, 4.0, draws),
        rng.standard_normal((draws, d)),
        0.8,
        0.05,
    )
