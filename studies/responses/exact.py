"""The exactly trained network: its own derivative, and what each response says of it.

The engine sees `LevelNetwork`, which holds the solved readouts of all levels of the sampler as parameters; its training
loss is that of the levels, with a few noises in the place of the expectation. With L levels and the engine's mean over
d pixels, the ridge λ|W|² of one level is the damping 2λ/(L d).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oracles.features import FeatureDenoiser, FittedDenoiser, Reweighting
from sensitivity import (
    DenoisingLoss,
    GaussianAnchor,
    Grid,
    KernelRatio,
    LocalResponse,
    ParameterResponse,
    Points,
    SampleSensitivity,
    Toward,
    UnrolledResponse,
    as_score,
    sample_sensitivity,
)
from studies import data
from studies.bandwidths import likeliest
from studies.errors import StudyError
from studies.responses.answers import Answer, WithResidual, cost
from studies.responses.bench import flat
from studies.responses.config import Config

SIGMA_MAX, SIGMA_MIN = 10.0, 0.1
LENGTHS = (6.0, 80.0)  # of the features' kernels: |ω| from 1.3 to .1
CLASS = 3


class LevelNetwork(nn.Module):
    """D(x, σ) = c_σ x + W_σ cos(Ωx + b) on images (n, 1, 8, 8) at the levels σ that it was trained at."""

    levels: Tensor
    skips: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(self, fitted: FittedDenoiser, levels: list[float]) -> None:
        super().__init__()
        spectrum, variance = fitted.network.spectrum, float(fitted.variance)
        coefficients = np.stack([fitted.coefficients(level) for level in levels])
        self.readout = nn.Parameter(torch.from_numpy(coefficients))
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float64))
        self.register_buffer("skips", variance / (variance + self.levels**2))
        self.register_buffer("frequencies", torch.from_numpy(np.array(spectrum.frequencies)))
        self.register_buffer("phases", torch.from_numpy(np.array(spectrum.phases)))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ)."""
        rows = x.flatten(1)
        # The nearest level in log σ: Heun's stages lie at the levels, up to rounding.
        index = (sigma.log().expand(len(x))[:, None] - self.levels.log()).abs().argmin(1)
        features = torch.cos(rows @ self.frequencies.T + self.phases)
        answer = torch.einsum("ndm,nm->nd", self.readout[index], features)
        return (self.skips[index][:, None] * rows + answer).reshape(x.shape)


class Solved:
    """The record of a training that is a solve a level."""

    passes = 0

    def __init__(self, bench: ExactBench, module: LevelNetwork) -> None:
        self.bench, self.module, self.points = bench, module, Points(bench.images)

    def parameter_change(self, rates: Tensor, moves: Tensor | None = None) -> Tensor:
        """Ẇ of every level, (K, P), by the oracle."""
        if moves is not None:
            raise ValueError("moves are not None; this record knows changes of weights only.")
        return torch.stack([self._of(rate.numpy()) for rate in rates])

    def _of(self, rate: np.ndarray) -> Tensor:
        path = Reweighting(self.bench.fitted, rate)
        levels = self.bench.grid.levels.tolist()
        return torch.from_numpy(np.stack([path._level(level, 0.0).level.coefficients(1) for level in levels])).flatten()

    def pull(self, cotangents: Tensor) -> Tensor:
        """Γ·Ẇ toward each point, (K, N)."""
        size = len(self.points)
        return cotangents @ self.parameter_change(torch.eye(size, dtype=torch.float64) - 1 / size).T


class Mirrored(DenoisingLoss):
    """Σ over levels and draws of |D(x₀ + σε, σ) − x₀|²/d, every noise beside its opposite.

    At small σ the gradient of a draw is mostly ε φ(x₀), which opposites cancel.
    """

    def __init__(self, levels: Tensor, draws: int) -> None:
        super().__init__(weighting=torch.ones_like, draws=2 * max(1, draws // 2) * len(levels))
        object.__setattr__(self, "grid", levels)

    def draw(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """σ (K,), ε (K, *shape)."""
        grid: Tensor = self.grid  # type: ignore[attr-defined]  # set beside the frozen fields
        half = self.draws // (2 * len(grid))
        noise = torch.randn(len(grid), half, *example.shape, generator=torch.Generator().manual_seed(self.seed))
        both = torch.cat([noise, -noise], 1).flatten(0, 1)
        return grid.repeat_interleave(2 * half).to(example), both.to(example)


class ExactBench:
    """Digits, an exactly trained network, and latents."""

    def __init__(self, config: Config) -> None:
        self.config, self.size = config, config.exact

    @cached_property
    def images(self) -> Tensor:
        """N digits, float64."""
        return data.load("digits").images[: self.size.points].double()

    @cached_property
    def mask(self) -> Tensor:
        """Those of class 3."""
        labels = data.load("digits").labels
        if labels is None:
            raise StudyError("the digits came without labels, and the change is one of a class.")
        return labels[: self.size.points] == CLASS

    @cached_property
    def fitted(self) -> FittedDenoiser:
        """The network."""
        size, rng = self.size, np.random.default_rng(0)
        # A cosine is damped by exp(−σ²|ω|²/2): every level needs frequencies of its own, and the highest a constant.
        lengths = np.geomspace(*LENGTHS, size.features - 1)
        frequencies = np.vstack([np.zeros(64), rng.standard_normal((size.features - 1, 64)) / lengths[:, None]])
        phases = np.concatenate([np.zeros(1), rng.uniform(0, 2 * np.pi, size.features - 1)])
        return FeatureDenoiser(frequencies, phases, size.ridge).fit(self.images.flatten(1).numpy())

    @cached_property
    def grid(self) -> Grid:
        """The sampler's levels."""
        return Grid(SIGMA_MAX, SIGMA_MIN, self.size.levels - 1)

    @cached_property
    def latents(self) -> Tensor:
        """States at σ_max."""
        noise = torch.randn(self.config.latents, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return self.images.mean(0) + SIGMA_MAX * noise.double()

    @cached_property
    def bandwidth(self) -> float:
        """The kernel bandwidth of highest likelihood on digits that follow."""
        others = data.load("digits").images[self.size.points : 2 * self.size.points].double()
        return likeliest(self.images, others)

    def truth(self) -> np.ndarray:
        """The derivative of the samples toward class 3, by the oracle, (n, pixels)."""
        toward = self.images[self.mask].flatten(1).numpy()
        _, delta = self.fitted.sample_sensitivity(
            self.latents.flatten(1).numpy(), toward, SIGMA_MAX, SIGMA_MIN, rtol=1e-6
        )
        return np.asarray(delta)

    def answers(self) -> dict[str, Answer]:
        """What each response says; training is a solve here, and `unrolled` its derivative."""
        network = LevelNetwork(self.fitted, self.grid.levels.tolist()).eval()
        score, added = as_score(network, "denoiser"), self.images[self.mask]
        smooth, sharp = (Toward(Points(added, bandwidth=b)) for b in (self.bandwidth, 0.0))
        ratio = Toward(KernelRatio(added, self.images, self.bandwidth))
        anchor, config = GaussianAnchor.from_data(self.images), self.config
        local = LocalResponse(self.images, levels=config.levels, states=config.states)
        calls: dict[str, Callable[[], WithResidual]] = {
            "population": lambda: self._asked(score, smooth, anchor=anchor, trace="exact"),
            "kernel": lambda: self._asked(score, ratio),
            "local": lambda: self._asked(score, sharp, response=local),
            "parameters": lambda: self._asked(score, sharp, response=self._parameters(score)),
            "unrolled": lambda: self._asked(score, sharp, response=UnrolledResponse(Solved(self, network))),
        }
        return {name: _timed(call) for name, call in calls.items()}

    def _parameters(self, score: Any) -> ParameterResponse:
        size, levels = self.size, self.grid.levels.double()
        count = len(levels)
        loss = Mirrored(levels, size.draws)
        damping = 2 * size.ridge / (count * 64)
        return ParameterResponse(
            score, loss, self.images, "ggn", damping, parameters=["readout"], pairs=None, steps=size.steps,
            tolerance=1e-8, block=512,
        )  # fmt: skip

    def _asked(self, score: Any, perturbation: Toward, **options: Any) -> WithResidual:
        result: SampleSensitivity = sample_sensitivity(score, self.latents, perturbation, self.grid, **options)
        return result, float(getattr(options.get("response"), "residual", math.nan))


def _timed(call: Callable[[], WithResidual]) -> Answer:
    start = time.perf_counter()
    change = call()
    return Answer(flat(change[0].sensitivity).numpy(), cost(change[0]), time.perf_counter() - start, change[1])
