"""What a wrong attribution looks like: the wrong answers that are known, and the one it ranks points most alike."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy import stats

from oracles.features import Reweighting
from studies.verification.attributions import exact
from studies.verification.attributions.tiers import exact_setting, truth
from studies.verification.tasks.attribution import RetrainedCase

__all__ = ["known_wrong", "words"]

NEAR = 0.9  # rank correlation from which on an answer is called by its name
DAMPINGS = (10.0, 100.0, 1000.0, 1e4)


def words(case: RetrainedCase, values: np.ndarray) -> str:
    """What the values look like, in words."""
    derivative = truth(case.setting, case.functional, case.seed).derivative
    if derivative is None:
        return "better than chance is not shown"
    right = _rank(values, derivative)
    if right < -0.5:
        return "the sign is reversed"
    if abs(right) < 0.3 and _shuffled(values, derivative):
        return "the numbers are the derivative's, in another order"
    named = {
        name: _rank(values, wrong) for name, wrong in known_wrong(case.setting, case.functional, case.seed).items()
    }
    best = max(named, key=lambda name: named[name], default="")
    if best and named[best] >= NEAR and named[best] > right:
        return f"points are ranked as by {best} (rank correlation {named[best]:.2f}, with the derivative {right:.2f})"
    return f"rank correlation with the derivative {right:.2f}"


@cache
def known_wrong(name: str, functional: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Wrong answers (queries, N) of the exactly trained network by name; none of other settings."""
    setting = exact_setting(name, seed) if name in exact.SETTINGS else None
    if not isinstance(setting, exact.Features):
        return {}
    moved, levels = _readout_rates(setting, 1.0), len(setting.levels)
    gradients = setting._gradients(functional).numpy()
    by_level = np.einsum("qlk,ilk->lqi", *(each.reshape(len(each), levels, -1) for each in (gradients, moved)))
    answers = {f"noise level {level:.2g} alone": part for level, part in zip(setting.levels, by_level, strict=True)}
    for factor in DAMPINGS:
        damped = _readout_rates(setting, factor)
        answers[f"damping {factor:g} times the ridge"] = gradients.reshape(len(gradients), -1) @ damped.T
    at_sample = _loss_gradients(setting, setting.asked.reference)
    answers["the training loss at the sample as the output"] = at_sample @ moved.T
    of_points = (_loss_gradients(setting, setting.data) * moved).sum(1)
    answers["points' influence on their of_points loss"] = np.tile(of_points, (len(gradients), 1))
    return answers


def _readout_rates(setting: exact.Features, factor: float) -> np.ndarray:
    """Ẇ toward every point (N, L d m), with `factor` times the ridge in the inverse."""
    rows = []
    for rate in np.eye(exact.POINTS) - 1 / exact.POINTS:
        path = Reweighting(setting.fitted, rate)
        solved = []
        for sigma in setting.levels.tolist():
            level = path._level(sigma, 0.0).level
            right = level.coefficients(1) @ level.matrix
            extra = (factor - 1.0) * exact.RIDGE * np.eye(len(level.matrix))
            solved.append(np.linalg.solve(level.matrix + extra, right.T).T)
        rows.append(np.stack(solved).ravel())
    return np.stack(rows)


def _loss_gradients(setting: exact.Features, images: torch.Tensor) -> np.ndarray:
    """Gradients in the readouts of the loss at images, over all levels and four noises (n, L d m)."""
    network = setting.network()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, *images.shape[1:], generator=generator).double()
    rows = []
    for image in images:
        total = torch.zeros(())
        for level in setting.levels:
            clean = image.expand(4, *image.shape)
            state = clean + level * torch.cat([noise, -noise])
            total = total + (network(state, level.expand(4)) - clean).square().sum() / 4
        rows.append(torch.autograd.grad(total, setting.readout_of(network))[0].flatten().numpy())
    return np.stack(rows)


def _shuffled(values: np.ndarray, derivative: np.ndarray) -> bool:
    """Whether each query's sorted numbers are the derivative's, up to a factor."""
    ordered = [np.sort(each, axis=1) for each in (values, derivative)]
    return bool(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*ordered, strict=True)]) > 0.995)


def _rank(values: np.ndarray, other: np.ndarray) -> float:
    ranks = [stats.spearmanr(a, b).statistic if a.std() > 0 else 0.0 for a, b in zip(values, other, strict=True)]
    return float(np.mean(ranks))
