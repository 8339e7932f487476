"""The tier `exact`: networks whose training is a solve, and mixtures of kernels, on thousands of halves without noise.

    python -m studies.verification.attributions.exact     # makes exact-features.npz and exact-kernels.npz again, 2 min

- `exact-features`: the exactly trained network of `oracles.features` on 64 digits, one ridge regression a noise level;
- `exact-kernels`: the exact denoiser `(b² x + σ² m)/(σ² + b²)` of the mixture of normal laws of variance b² at the
  points, `m = Σ_i w_i y_i`, w the posterior weights: what an optimal learner of that mixture would say.

Both are sampled by Heun's steps at fixed levels, so that `derivative` — of every output toward every point, through the
discrete sampler and the exact solve — is the first-order truth of what retraining on a half does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from oracles.features import FeatureDenoiser, FittedDenoiser, Reweighting
from sensitivity import Grid
from studies.data import load
from studies.training.loop import digest
from studies.verification.attributions.outputs import Denoise, Outputs
from studies.verification.attributions.stored import Stored

__all__ = ["SETTINGS", "ExactSetting", "made"]

SIGMA_MAX, SIGMA_MIN, STEPS = 10.0, 0.1, 18
FUNCTIONALS = ("ink", "contrast", "logit")
POINTS, QUERIES, HALVES = 64, 16, 1024
FEATURES, RIDGE, LENGTHS, BANDWIDTH = 64, 1e-3, (6.0, 80.0), 1.0
CLASSES = (0, 1, 3)
BLOCK = 64  # halves at once


@dataclass(frozen=True)
class ExactSetting(ABC):
    """Digits, latents and halves; a subclass says what is trained on them.

    Attributes:
        name: of the shipped file.
        seed: of latents and halves; 0 is the published one.
    """

    name: str
    seed: int = 0

    @cached_property
    def data(self) -> Tensor:
        """The images (N, 1, 8, 8), float64."""
        images = load("digits")
        kept = np.flatnonzero(np.isin(np.asarray(images.labels), CLASSES))
        return images.images[np.random.default_rng(21).permutation(kept)[:POINTS]].double()

    def halves(self, count: int) -> np.ndarray:
        """Which images each half holds (count, N)."""
        rng = np.random.default_rng([22, self.seed])
        return np.stack([rng.permutation(POINTS) < POINTS // 2 for _ in range(count)])

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max (n, 1, 8, 8)."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        noise = torch.randn(QUERIES, *self.data.shape[1:], generator=generator)
        return self.data.mean(0) + SIGMA_MAX * noise.double()

    @property
    def levels(self) -> Tensor:
        """The sampler's levels."""
        return Grid(SIGMA_MAX, SIGMA_MIN, STEPS).levels.double()

    @cached_property
    def asked(self) -> Outputs:
        """The outputs asked."""
        network = self.network()
        scale = float((self.data - self.data.mean(0)).square().mean().sqrt())
        blank = Outputs(self.latents, self.levels, self.latents, scale, *self._classifier())
        with torch.no_grad():
            reference = blank.samples(network)
        return Outputs(self.latents, self.levels, reference, scale, blank.weights, blank.offsets)

    @abstractmethod
    def network(self) -> nn.Module:
        """The denoiser on all data, at the sampler's levels."""

    @abstractmethod
    def stacked(self, weights: np.ndarray) -> Denoise:
        """Denoisers side by side, trained on weightings (members, N)."""

    @abstractmethod
    def derivative(self, functional: str) -> np.ndarray:
        """d output / dη toward every point, mass from all data to it (n, N)."""

    def values(self, masks: np.ndarray, functionals: tuple[str, ...] = FUNCTIONALS) -> np.ndarray:
        """Outputs of the networks on subsets (functionals, subsets, n)."""
        outputs = []
        for first in range(0, len(masks), BLOCK):
            rows = masks[first : first + BLOCK].astype(float)
            with torch.no_grad():
                x = self.asked.samples(self.stacked(rows / rows.sum(1, keepdims=True)), members=len(rows))
            outputs.append(torch.stack([self.asked.of_samples(name, x) for name in functionals]))
        return torch.cat(outputs, 1).numpy()

    def _classifier(self) -> tuple[Tensor, Tensor]:
        """Differences to the class means: the linear classifier of normal classes of unit covariance."""
        images = load("digits")
        labels = np.asarray(images.labels)
        means = torch.stack([images.images[labels == c].flatten(1).double().mean(0) for c in CLASSES])
        return means, -0.5 * means.square().sum(1)

    def _moved(self, rates: Tensor) -> np.ndarray:
        """From derivatives in each weight (n, N) to those along δ_i − ρ."""
        return (rates - rates.mean(1, keepdim=True)).numpy()


@dataclass(frozen=True)
class Features(ExactSetting):
    """The exactly trained network; λ|W|² with λ = `RIDGE` beside the mean squared error at each level."""

    @cached_property
    def fitted(self) -> FittedDenoiser:
        """On all data."""
        rng, d = np.random.default_rng(23), self.data[0].numel()
        # A cosine is damped by exp(−σ²|ω|²/2): every level needs frequencies of its own, and the highest a constant.
        lengths = np.geomspace(*LENGTHS, FEATURES - 1)
        frequencies = np.vstack([np.zeros(d), rng.standard_normal((FEATURES - 1, d)) / lengths[:, None]])
        phases = np.concatenate([np.zeros(1), rng.uniform(0, 2 * np.pi, FEATURES - 1)])
        return FeatureDenoiser(frequencies, phases, RIDGE).fit(self.data.flatten(1).numpy())

    def network(self) -> nn.Module:
        """The readouts of all levels as parameters."""
        from studies.responses.exact import LevelNetwork

        return LevelNetwork(self.fitted, self.levels.tolist()).eval()

    def stacked(self, weights: np.ndarray) -> Denoise:
        """A solve a level and half."""
        retrained = [self.fitted.retrained(self.fitted.points, row) for row in weights]
        readout = torch.from_numpy(np.stack([[f.coefficients(s) for s in self.levels.tolist()] for f in retrained]))
        spectrum, variance = self.fitted.network.spectrum, float(self.fitted.variance)
        frequencies, phases = torch.from_numpy(spectrum.frequencies), torch.from_numpy(spectrum.phases)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            rows, level = x.flatten(-3), sigma.flatten()[0]
            index = int((level.log() - self.levels.log()).abs().argmin())
            features = torch.cos(rows @ frequencies.T + phases)
            answer = features @ readout[:, index].transpose(-1, -2)
            return (variance / (variance + level**2) * rows + answer).reshape(x.shape)

        return denoise

    def derivative(self, functional: str) -> np.ndarray:
        """`Γ·Ẇ_i`: the output's gradient in the readouts, and their derivatives by the oracle."""
        rates = torch.eye(POINTS, dtype=torch.float64) - 1 / POINTS
        moved = torch.from_numpy(np.stack([self._rates(rate.numpy()) for rate in rates]))
        return (self._gradients(functional) @ moved.T).numpy()

    def readout_of(self, network: nn.Module) -> Tensor:
        """The only parameter of the network."""
        (readout,) = network.parameters()
        return readout

    def _rates(self, rate: np.ndarray) -> np.ndarray:
        path = Reweighting(self.fitted, rate)
        return np.stack([path._level(level, 0.0).level.coefficients(1) for level in self.levels.tolist()]).ravel()

    def _gradients(self, functional: str) -> Tensor:
        network = self.network()
        readout, output = self.readout_of(network), self.asked.of_network(functional, network)
        rows = [torch.autograd.grad(value, readout, retain_graph=True)[0].flatten() for value in output]
        return torch.stack(rows)


class KernelNetwork(nn.Module):
    """The exact denoiser of a mixture of kernels at the points; its weights are a buffer, it has no parameters."""

    points: Tensor
    weights: Tensor

    def __init__(self, points: Tensor, weights: Tensor, bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("points", points)
        self.register_buffer("weights", weights)
        self.bandwidth = bandwidth

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ) for x (..., n, 1, h, w), weights (..., N)."""
        rows, data = x.flatten(-3), self.points.flatten(1)
        level = sigma.reshape(*sigma.shape, 1) ** 2
        square, total = self.bandwidth**2, level + self.bandwidth**2
        distances = rows.square().sum(-1, keepdim=True) - 2 * rows @ data.T + data.square().sum(-1)
        logs = self.weights.log().unsqueeze(-2) if self.weights.ndim > 1 else self.weights.log()
        shares = torch.softmax(logs - distances / (2 * total), -1)
        return ((square * rows + level * (shares @ data)) / total).reshape(x.shape)


@dataclass(frozen=True)
class Kernels(ExactSetting):
    """The mixture of kernels of bandwidth `BANDWIDTH`."""

    def network(self) -> nn.Module:
        """With equal weights."""
        return KernelNetwork(self.data, torch.full((POINTS,), 1 / POINTS, dtype=torch.float64), BANDWIDTH)

    def stacked(self, weights: np.ndarray) -> Denoise:
        """With weights of its own each."""
        return KernelNetwork(self.data, torch.from_numpy(weights), BANDWIDTH)

    def derivative(self, functional: str) -> np.ndarray:
        """By automatic differentiation in the weights, which enter homogeneously."""
        weights = torch.full((POINTS,), 1 / POINTS, dtype=torch.float64, requires_grad=True)
        output = self.asked.of_network(functional, KernelNetwork(self.data, weights, BANDWIDTH))
        rows = [torch.autograd.grad(value, weights, retain_graph=True)[0] for value in output]
        return self._moved(torch.stack(rows))


SETTINGS: dict[str, type[ExactSetting]] = {"exact-features": Features, "exact-kernels": Kernels}


def made(setting: ExactSetting, halves: int = HALVES) -> Stored:
    """The truth of one setting."""
    masks, asked = setting.halves(halves), setting.asked
    return Stored(
        name=setting.name,
        digest=digest(setting.data, setting.latents),
        masks=masks,
        functionals=FUNCTIONALS,
        values=setting.values(masks)[:, None],
        reference=asked.reference.numpy(),
        weights=asked.weights.numpy(),
        offsets=asked.offsets.numpy(),
        seeds=(0,),
    )


def main() -> None:
    for name, kind in SETTINGS.items():
        made(kind(name)).save(Path(__file__).with_name(f"{name}.npz"))


if __name__ == "__main__":
    main()
