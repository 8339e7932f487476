"""Two experiments without training: nested random features, and the perception-aligned toy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from oracles import geometries
from studies.selective_underfitting.config import Config
from studies.selective_underfitting.features import Array, RandomFeatures, fit, quadrature
from studies.selective_underfitting.targets import Empirical

Row = dict[str, Any]
SIGMA, POINTS = 0.3, 12
TOY = np.array([[-1.0, 0.0], [-0.2, 0.0], [0.2, 0.0], [1.0, 0.0]])
TOY_LEVELS = np.geomspace(2.0, 0.05, 25)
COSINES = 6


def denoised(points: Array, x: Array, sigma: float) -> Array:
    """D⋆ of points at states x."""
    return Empirical(torch.as_tensor(points))(torch.as_tensor(x), sigma).numpy()


def run_features(config: Config, seed: int) -> list[Row]:
    """Inside and outside errors to D⋆, `|f − D⋆|²/(σ² d)`, for nested random features."""
    law = geometries.anisotropic(2, 3, seed=0)
    points, fresh = np.asarray(law.sample(POINTS, seed=seed)), np.asarray(law.sample(400, seed=100 + seed))
    states, weights, origin = quadrature(points, SIGMA)
    fresh = fresh + SIGMA * np.random.default_rng(seed).standard_normal(fresh.shape)
    rows = []
    for size in config.features:
        f = fit(RandomFeatures(2, size, seed=seed), states, weights, origin)
        inside = np.square(f(states) - denoised(points, states, SIGMA)).mean(1) / SIGMA**2
        outside = np.square(f(fresh) - denoised(points, fresh, SIGMA)).mean(1) / SIGMA**2
        row: Row = {"kind": "features", "seed": seed, "size": size, "inside": float(weights @ inside)}
        rows.append(row | {"outside": float(np.median(outside)), "outside_mean": float(outside.mean())})
    return rows


def angle(x: Array) -> Array:
    """The unit vector of x, (n, 2): what the aligned features see."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def run_perception(seed: int, count: int = 400) -> list[Row]:
    """Samples of denoisers fitted on plain and on aligned features, and of the empirical denoiser itself."""
    rng = np.random.default_rng(seed)
    latents = TOY_LEVELS[0] * rng.standard_normal((count, 2))
    rows = []
    for name in ("plain", "aligned", "empirical"):
        end = sample_toy(name, latents, seed)
        between, within = np.abs(end[:, 0]) < 0.15, (np.abs(end[:, 0]) > 0.3) & (np.abs(end[:, 0]) < 0.9)
        row: Row = {"kind": "perception", "seed": seed, "features": name, "samples": count}
        rows.append(
            row | {"between": int(between.sum()), "within": int(within.sum()), "ends": end[:150].ravel().tolist()}
        )
    return rows


def sample_toy(name: str, latents: Array, seed: int) -> Array:
    """Euler steps of the probability flow, one fit a level; the last state is denoised."""
    x = latents
    for high, low in zip(TOY_LEVELS, [*TOY_LEVELS[1:], 0.0], strict=True):
        x = x + (low - high) / high * (x - toy_denoiser(name, high, seed)(x))
    return x


def toy_denoiser(name: str, sigma: float, seed: int) -> Any:
    """The least-squares denoiser at a level; cosines vary over σ in the plane, over a radian on the circle."""
    if name == "empirical":
        return lambda x: denoised(TOY, x, sigma)
    states, weights, origin = quadrature(TOY, sigma, order=16)
    view, scale = (angle, 1.0) if name == "aligned" else (None, max(sigma, 0.4))
    return fit(RandomFeatures(2, COSINES, scale=scale, seed=seed, view=view), states, weights, origin)
