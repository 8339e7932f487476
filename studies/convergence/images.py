"""Part (d): a score learned from real images (8×8 digits); one class gets more mass, nothing is retrained to predict.

Truth: a network trained on the reweighted data from the same initial parameters, order and noise, sampled from the same
latents. Agreement: per latent, Pearson's correlation over pixels between the predicted and the actual change of the
sample.
Controls: the prediction of another latent (does it matter which image?), and the change between pairs of other seeds
(how much of an actual change is luck?).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, Points, Toward, as_score, resample, sample_sensitivity
from studies import data
from studies.convergence.config import Config
from studies.convergence.neural import between, cosines
from studies.data import Images
from studies.networks import Architecture, Denoiser
from studies.sampling import sample
from studies.study import Cell, Context
from studies.training import Batches, Objective, Recipe, Trained, train_many
from studies.training.batches import Draw

SIGMA_MAX, SIGMA_MIN = 20.0, 0.05
BANDWIDTH = 0.2
PROBES = 8
SHOWN = 8
OBJECTIVE = Objective(mean=-0.5, spread=1.5)


def cells(config: Config) -> list[Cell]:
    """All of it is one cell: its networks are trained side by side."""
    return [Cell("images", {"part": "images"}, seed=3)]


@dataclass(frozen=True)
class _Setup:
    """What all pairs share."""

    images: Tensor
    new: Tensor
    latents: Tensor
    grid: Grid
    eta: float

    @property
    def anchor(self) -> GaussianAnchor:
        return GaussianAnchor.from_data(self.images)

    @property
    def toward(self) -> Toward:
        return Toward(Points(self.new, bandwidth=BANDWIDTH))


@dataclass(frozen=True)
class _Change:
    """One pair's samples and changes, (n, pixels) each."""

    samples: np.ndarray
    sensitivity: np.ndarray
    gated: np.ndarray
    actual: np.ndarray
    finished: float


def run(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows: one for each pair, one for their mean, one for each image shown, one for the model."""
    config = context.config
    train, held_out = data.load("digits").split(0.1, seed=0)
    trained = _trained(train, context)
    noise = torch.randn(
        config.image_latents, *train.images.shape[1:], generator=torch.Generator().manual_seed(cell.seed)
    )
    latents = train.images.mean(0) + SIGMA_MAX * noise
    new = train.images[train.of_class(config.image_class)]
    setup = _Setup(train.images, new, latents, Grid(SIGMA_MAX, SIGMA_MIN, config.image_grid), config.image_eta)
    both = zip(trained[::2], trained[1::2], strict=True)
    changes = [_change(setup, base, changed, cell.seed) for base, changed in both]
    rows = [_row(f"pair {k}", setup, [change]) for k, change in enumerate(changes)]
    rows.append(_row("mean", setup, changes))
    rows.append(_model(trained[0], train, held_out))
    return rows + _shown(setup, changes)


def _trained(train: Images, context: Context) -> list[Trained]:
    """Base and reweighted networks, pair after pair."""
    config, count = context.config, len(train)
    chosen = train.of_class(config.image_class).double()
    weights = (1 - config.image_eta) / count + config.image_eta * chosen / chosen.sum()
    recipe = Recipe(
        Architecture(width=config.image_width, depth=3),
        OBJECTIVE,
        steps=config.image_steps,
        halflife=config.image_steps / 20,
    )
    seeds = [seed for seed in range(config.image_pairs) for _ in range(2)]
    both: list[Tensor | None] = [None, weights]
    return train_many(
        recipe,
        train.images,
        weights=both * config.image_pairs,
        seeds=seeds,
        cache=context.cache,
        device=context.device,
    )


def _change(setup: _Setup, base: Trained, changed: Trained, seed: int) -> _Change:
    """What is predicted from the base network alone, and what the other network does."""
    score, other = (as_score(each.network, "denoiser") for each in (base, changed))
    options: dict[str, Any] = {"anchor": setup.anchor, "trace": "hutchinson", "probes": PROBES, "seed": seed}
    with torch.no_grad():
        result = sample_sensitivity(score, setup.latents, setup.toward, setup.grid, **options)
        gated = resample(score, setup.latents, setup.toward, setup.eta, setup.grid, **options)
    actual = sample(other, setup.latents, setup.grid) - result.samples
    finished = float(result.outcome.finished.double().mean())
    moved = gated.samples - result.samples
    return _Change(_flat(result.samples), _flat(result.sensitivity), _flat(moved), _flat(actual), finished)


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation over pixels of each row, (n,)."""
    return cosines(a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True))


def _row(name: str, setup: _Setup, changes: list[_Change]) -> dict[str, Any]:
    """Agreement of the averages over some pairs."""
    linear = np.mean([c.sensitivity for c in changes], axis=0)
    gated, actual = (np.mean([getattr(c, part) for c in changes], axis=0) for part in ("gated", "actual"))
    return {
        "part": "images",
        "which": name,
        "pairs": len(changes),
        "linear": pearson(linear, actual),
        "gated": pearson(gated, actual),
        "shuffled": pearson(np.roll(linear, 1, axis=0), actual),
        "between": between(np.stack([c.actual for c in changes]), pearson),
        "predicted_size": np.linalg.norm(setup.eta * linear, axis=1),
        "actual_size": np.linalg.norm(actual, axis=1),
        "finished": float(np.mean([c.finished for c in changes])),
    }


def _model(base: Trained, train: Images, held_out: Images) -> dict[str, Any]:
    """Quality of the base network: its loss on training and on held-out images, the same noise levels for both."""
    return {
        "part": "image-model",
        "train_loss": _loss(base.network, train.images[: len(held_out) * 4]),
        "held_out_loss": _loss(base.network, held_out.images.repeat(4, 1, 1, 1)),
    }


def _loss(network: Denoiser, images: Tensor) -> float:
    draw = Batches(images, [None], [5], len(images)).draw(0)
    return float(OBJECTIVE.losses(network, Draw(*(part[0] for part in draw))).mean())


def _shown(setup: _Setup, changes: list[_Change]) -> list[dict[str, Any]]:
    """Pixels of the first images: sample, sensitivity, predicted (the finite change, not the linear one), retrained."""
    base = np.mean([c.samples for c in changes], axis=0)
    parts = {name: np.mean([getattr(c, name) for c in changes], axis=0) for name in ("sensitivity", "gated", "actual")}
    side = setup.images.shape[-1]
    return [
        {
            "part": "shown",
            "latent": k,
            "side": side,
            "sample_pixels": base[k],
            "sensitivity_pixels": parts["sensitivity"][k],
            "predicted_pixels": base[k] + parts["gated"][k],
            "retrained_pixels": base[k] + parts["actual"][k],
        }
        for k in range(min(SHOWN, len(base)))
    ]
