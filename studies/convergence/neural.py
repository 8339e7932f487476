"""Part (c): a score learned by the study (denoising score matching), d = 10, two modes, against three references.

1. The oracle's sensitivity: how the error falls with the size of the training set and with the score's own error.
2. The network's own η-path (`resample`): that the predicted sensitivity is the derivative of what the engine
   computes at finite η with the same network, whatever the network's errors.
3. A network retrained on ρ_η from the same initial parameters, order and noise: that this is what training does. The
   same comparison between pairs of other seeds says how much of a retrained network's change is luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Grid, SampleSensitivity, Score, Toward, as_score, resample, sample_sensitivity
from studies.bridge import ExactLaw, engine_measure
from studies.convergence import truth
from studies.convergence.config import Config
from studies.convergence.engine import relative, spread
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, Problem, problem
from studies.networks import Architecture
from studies.sampling import sample
from studies.study import Cell, Context
from studies.training import Objective, Recipe, Trained, excess_loss, train_many

DIMENSION = 10
GRID = 40
OWN_ETAS = (1e-1, 1e-2, 1e-3)
LEVELS = (0.05, 0.1, 0.3, 1.0, 3.0, 10.0)


def cells(config: Config) -> list[Cell]:
    """One cell for each size of the training set; their data and latents are nested."""
    return [Cell(f"neural-N={n}", {"part": "neural", "size": n}, seed=2) for n in config.sizes]


@dataclass(frozen=True)
class Pair:
    """A network of ρ and one of ρ_η, alike in everything else."""

    base: Trained
    changed: Trained


def run(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one training size."""
    config, size = context.config, cell.parameters["size"]
    case = problem(DIMENSION, config.neural_latents, cell.seed, components=2)
    data = torch.from_numpy(np.asarray(case.base.sample(size, 1))).float()
    pairs = _trained(case, data, context)
    setup = _Setup(case, GaussianAnchor.from_data(data.double()), config.neural_eta)
    predictions = [setup.predict(as_score(pair.base.network.double(), "denoiser")) for pair in pairs]
    rows = [_quality(setup, pair, each, size, k) for k, (pair, each) in enumerate(zip(pairs, predictions, strict=True))]
    rows += _own_path(setup, as_score(pairs[0].base.network, "denoiser"), predictions[0], size)
    return [*rows, _retrained(setup, pairs, predictions, size)]


def _trained(case: Problem, data: Tensor, context: Context) -> list[Pair]:
    """Pairs of networks; ρ_η's network sees the same data but for the share η that comes from ν."""
    config, eta = context.config, context.config.neural_eta
    new = torch.from_numpy(np.asarray(case.toward.sample(max(8, len(data) // 4), 2))).float()
    old = torch.cat([torch.ones(len(data)) / len(data), torch.zeros(len(new))]).double()
    added = torch.cat([torch.zeros(len(data)), torch.ones(len(new)) / len(new)]).double()
    recipe = Recipe(
        Architecture(width=config.width, depth=3),
        Objective(mean=-0.3, spread=1.6),
        steps=config.neural_steps,
        rate=3e-3,
        halflife=config.neural_steps / 20,
    )
    seeds = [seed for seed in range(config.neural_seeds) for _ in range(2)]
    weights = [old, (1 - eta) * old + eta * added] * config.neural_seeds
    pool = torch.cat([data, new])
    trained = train_many(recipe, pool, weights=weights, seeds=seeds, cache=context.cache, device=context.device)
    return [Pair(*trained[k : k + 2]) for k in range(0, len(trained), 2)]


@dataclass(frozen=True)
class _Setup:
    """What all networks of a cell share."""

    case: Problem
    anchor: GaussianAnchor
    eta: float

    @property
    def latents(self) -> Tensor:
        return torch.from_numpy(self.case.latents)

    @property
    def grid(self) -> Grid:
        return Grid(SIGMA_MAX, SIGMA_MIN, GRID)

    @property
    def toward(self) -> Toward:
        return Toward(engine_measure(self.case.toward))

    def predict(self, score: Score) -> SampleSensitivity:
        with torch.no_grad():
            return sample_sensitivity(score, self.latents, self.toward, self.grid, anchor=self.anchor)

    def finite(self, score: Score, eta: float) -> Tensor:
        with torch.no_grad():
            return resample(score, self.latents, self.toward, eta, self.grid, anchor=self.anchor).samples


def _quality(setup: _Setup, pair: Pair, prediction: SampleSensitivity, size: int, index: int) -> dict[str, Any]:
    """One network: its loss against the optimum, its score, log density and sensitivity against the oracle."""
    network, exact = pair.base.network, ExactLaw(setup.case.base)
    fresh = torch.from_numpy(np.asarray(setup.case.base.sample(4000, 77)))
    loss = excess_loss(network, Objective(mean=-0.3, spread=1.6), fresh, exact.denoiser)
    errors = relative(prediction.sensitivity, truth.sensitivity(setup.case))
    row = {"part": "neural", "size": size, "pair": index, "errors": errors, **spread(errors)}
    row |= {"loss": loss.loss, "optimum": loss.optimum, "excess": loss.excess}
    row |= {"levels": list(LEVELS), "score_errors": [_score_error(network, setup.case, level) for level in LEVELS]}
    if prediction.log_density is not None:
        gap = prediction.log_density - exact.log_density(prediction.samples, SIGMA_MIN)
        row["log_density_error"] = float(gap.abs().median())
    return row


def _score_error(network: Any, case: Problem, level: float) -> float:
    """Root mean square error of the score over p_σ, relative to the score."""
    x = torch.from_numpy(np.asarray(case.base.noised(level).sample(1000, 3)))
    exact = ExactLaw(case.base).score(x, level)
    return float(((network.score(x, level) - exact).square().sum() / exact.square().sum()).sqrt())


def _own_path(setup: _Setup, score: Score, prediction: SampleSensitivity, size: int) -> list[dict[str, Any]]:
    """The sensitivity against the quotients of the same network's finite changes."""
    rows = []
    for eta in OWN_ETAS:
        errors = relative(prediction.sensitivity, (setup.finite(score, eta) - prediction.samples) / eta)
        rows.append({"part": "own", "size": size, "eta": eta, "errors": errors, **spread(errors)})
    return rows


def _retrained(setup: _Setup, pairs: list[Pair], predictions: list[SampleSensitivity], size: int) -> dict[str, Any]:
    """Directions: prediction against the change of retrained networks, both averaged over pairs, latent by latent."""
    networks = [[as_score(t.network.double(), "denoiser") for t in (pair.base, pair.changed)] for pair in pairs]
    samples = [[sample(s, setup.latents, setup.grid).numpy() for s in pair] for pair in networks]
    changes = np.stack([changed - base for base, changed in samples])
    predicted = np.mean([each.sensitivity.numpy() for each in predictions], axis=0)
    gated = np.mean(
        [setup.finite(pair[0], setup.eta).numpy() - s[0] for pair, s in zip(networks, samples, strict=True)], axis=0
    )
    exact = truth.samples(setup.case, setup.eta) - truth.samples(setup.case, 0.0)
    change = changes.mean(axis=0)
    row = {"part": "retrained", "size": size, "pairs": len(pairs), "eta": setup.eta}
    row |= {"linear": cosines(predicted, change), "gated": cosines(gated, change), "exact": cosines(exact, change)}
    row["shuffled"] = cosines(np.roll(predicted, 1, axis=0), change)
    row["between"] = between(changes, cosines)
    return row


def between(changes: np.ndarray, agreement: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Agreement of two pairs' actual changes, averaged over all choices of two, (n,); None for a single pair."""
    chosen = list(combinations(range(len(changes)), 2))
    return np.mean([agreement(changes[i], changes[j]) for i, j in chosen], axis=0) if chosen else None


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of the angle between rows, (n,)."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
