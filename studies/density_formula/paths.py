"""How errors of log p along a whole path reach the sensitivity of the sample.

Along the flow `dx/du = −σ² s`, `u = log σ`, the sensitivity obeys `dδ/du = −σ²(∇s δ + ṡ)`, `ṡ = r (s^ν − s)`,
`r = ν_σ/p_σ`. Discretised on nodes k it is linear in the source, `δ = Σ_k c_k`, so that an estimate `log p̂` with error
e_k at node k gives exactly

    δ̂ = Σ_k e^{−e_k} c_k.

An error common to all nodes multiplies δ by e^{−e}; errors that are independent from node to node average out. States,
scores, Jacobians and the true densities come from `oracles`; only log p̂ is estimated, at equal evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.integrate import cumulative_simpson
from torch import Tensor

from studies.convergence.problems import Problem
from studies.convergence.problems import problem as near_problem
from studies.density_formula.config import Config
from studies.density_formula.estimators import estimate
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup, exact_setup
from studies.study import Cell

Rows = list[dict[str, Any]]
PLANTED = 0.3  # nats
BLOCK = 32  # probes held at once


def cells(config: Config) -> list[Cell]:
    """One for each dimension."""
    return [Cell(f"path-d={d}", {"part": "path", "dimension": d}, seed=15) for d in config.path_dimensions]


@dataclass(frozen=True)
class Track:
    """A path with everything exact.

    Attributes:
        levels: descending, (M,).
        x: states (M, n, d).
        log_p: log p_σ (M, n).
        jacobians: ∇s (M, n, d, d).
        parts: contributions c_k (M, n, d) of the nodes to δ at the end.
    """

    levels: np.ndarray
    x: np.ndarray
    log_p: np.ndarray
    jacobians: np.ndarray
    parts: np.ndarray

    @property
    def sensitivity(self) -> np.ndarray:
        """δ at the last level, (n, d)."""
        total: np.ndarray = self.parts.sum(0)
        return total


def follow(problem: Problem, steps: int) -> Track:
    """The path of the problem's latents over 2 `steps` intervals, RK4, and the nodes' contributions to δ."""
    levels = np.geomspace(SIGMA_MAX, SIGMA, 2 * steps + 1)
    states = [problem.latents]
    for high, low in pairwise(levels):
        states.append(_advance(problem, states[-1], high, low))
    laws = [problem.base.noised(level) for level in levels]
    pairs = list(zip(laws, states, strict=True))
    jacobians = np.stack([np.asarray(law.score_jacobian(x)) for law, x in pairs])
    sources = [problem.perturbation.score_derivative(x, s) for x, s in zip(states, levels, strict=True)]
    squares = levels[:, None, None] ** 2
    parts = contributions(np.log(levels), -squares[..., None] * jacobians, -squares * np.stack(sources))
    return Track(levels, np.stack(states), np.stack([np.asarray(p.log_density(x)) for p, x in pairs]), jacobians, parts)


def _advance(problem: Problem, x: np.ndarray, high: float, low: float) -> np.ndarray:
    """One RK4 step of the flow in log σ."""
    width, middle = np.log(low / high), np.sqrt(high * low)

    def field(y: np.ndarray, level: float) -> np.ndarray:
        return np.asarray(-(level**2) * problem.base.noised(level).score(y))

    a = field(x, high)
    b = field(x + width / 2 * a, middle)
    c = field(x + width / 2 * b, middle)
    d = field(x + width * c, low)
    return x + width / 6 * (a + 2 * b + 2 * c + d)


def contributions(u: np.ndarray, matrices: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """What the source at each node adds to the end of `dδ/du = A δ + b`, by RK4 over pairs of intervals.

    Args:
        u: (M,), M odd.
        matrices: A (M, n, d, d).
        sources: b (M, n, d).
    """
    total = np.zeros_like(sources)
    for k in range(0, len(u) - 1, 2):
        width = u[k + 2] - u[k]
        first, middle, last = (_impulse(sources, k + j) for j in range(3))
        a = _apply(matrices[k], total) + first
        b = _apply(matrices[k + 1], total + width / 2 * a) + middle
        c = _apply(matrices[k + 1], total + width / 2 * b) + middle
        d = _apply(matrices[k + 2], total + width * c) + last
        total = total + width / 6 * (a + 2 * b + 2 * c + d)
    return total


def _impulse(sources: np.ndarray, node: int) -> np.ndarray:
    """The source at one node, as the part of that node only, (M, n, d)."""
    responses = np.zeros_like(sources)
    responses[node] = sources[node]
    return responses


def _apply(matrix: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """A δ for every part: matrix (n, d, d), parts (M, n, d)."""
    return np.matmul(matrix, parts.transpose(1, 2, 0)).transpose(2, 0, 1)


def run(cell: Cell, config: Config) -> Rows:
    """Rows: one for each estimator and number of evaluations a node, and errors that are planted."""
    problem = near_problem(cell.parameters["dimension"], config.path_states, cell.seed)
    track, setup = follow(problem, config.path_steps), exact_setup(problem.base)
    shared = {"part": "path", "dimension": problem.dimension, "nodes": len(track.levels)}
    rows = []
    for name, errors in _planted(track, config.path_repeats).items():
        rows.append(shared | {"estimator": name, "budget": 0} | propagated(track, errors))
    for budget in config.path_budgets:
        for name, series in SERIES.items():
            count = 1 if name in ("flow", "kernel") else config.path_repeats
            errors = np.stack([series(track, setup, budget, 1500 + k) for k in range(count)]) - track.log_p
            rows.append(shared | {"estimator": name, "budget": budget} | propagated(track, errors))
    _, exact = problem.perturbation.sample_sensitivity(problem.latents, SIGMA_MAX, SIGMA)
    sizes = np.linalg.norm(track.sensitivity - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return [{"discretisation": float(np.median(sizes))} | row for row in rows]


def propagated(track: Track, errors: np.ndarray) -> dict[str, Any]:
    """What errors (repeats, M, n) of log p along the path do to δ.

    `relative` is the median of |δ̂ − δ|/|δ| with its 90 % quantile, `log_rms` the rms error over the nodes weighted by
    the length of their contributions, `share` the median of |δ̂ − δ| over Σ_k |e^{−e_k} − 1||c_k|, what it would be if
    nothing averaged out.
    """
    # An estimator that breaks down may err by thousands of nats: its row says inf, which the table shows as it is.
    with np.errstate(over="ignore", invalid="ignore"):
        factors = np.expm1(-errors)
        moved = np.linalg.norm(np.einsum("rmn,mnd->rnd", factors, track.parts), axis=2)
        lengths = np.linalg.norm(track.parts, axis=2)
        worst = (np.abs(factors) * lengths).sum(1)
        weights = lengths / lengths.sum(0)
        relative = moved / np.linalg.norm(track.sensitivity, axis=1)
        shares = moved / worst
    profile = np.sqrt((errors**2).mean((0, 2)))
    return {
        "relative": float(np.median(relative)),
        "relative_high": float(np.quantile(relative, 0.9, method="inverted_cdf")),
        "state_errors": np.median(relative, axis=0).tolist(),
        "share": float(np.median(shares)),
        "state_shares": np.median(shares, axis=0).tolist(),
        "log_rms": float(np.sqrt((errors**2 * weights).sum(1).mean())),
        "profile": profile[:: max(1, len(profile) // 16)].tolist(),
        "levels": track.levels[:: max(1, len(profile) // 16)].tolist(),
    }


def _planted(track: Track, repeats: int) -> dict[str, np.ndarray]:
    """The same error at all nodes, and one that is drawn anew at each."""
    rng = np.random.default_rng(16)
    shape = (repeats, *track.log_p.shape)
    return {
        "planted, common": np.full(shape, PLANTED),
        "planted, independent": PLANTED * rng.standard_normal(shape),
    }


Series = Callable[[Track, Setup, int, int], np.ndarray]


def _at_nodes(name: str) -> Series:
    """An estimate at every node by itself, with noise of its own."""

    def series(track: Track, setup: Setup, budget: int, seed: int) -> np.ndarray:
        states = torch.from_numpy(track.x).flatten(0, 1)
        levels = torch.from_numpy(track.levels).repeat_interleave(track.x.shape[1])
        return _value(name, setup, states, budget, seed, levels).reshape(track.log_p.shape)

    return series


def _node_by_node(name: str, *, common: bool) -> Series:
    """The same, one call for each node: with one noise for all, or for estimators that know one level only."""

    def series(track: Track, setup: Setup, budget: int, seed: int) -> np.ndarray:
        nodes = enumerate(zip(track.levels, track.x, strict=True))
        seeds = [seed if common else 1000 * seed + k for k in range(len(track.levels))]
        return np.stack([_value(name, setup, torch.from_numpy(x), budget, seeds[k], float(s)) for k, (s, x) in nodes])

    return series


def _value(name: str, setup: Setup, x: Tensor, budget: int, seed: int, sigma: Tensor | float) -> np.ndarray:
    result = estimate(name, setup, x, budget, seed, sigma)
    if result is None:
        raise RuntimeError(f"{name} has no estimate at {budget} evaluations: give more.")
    return np.asarray(result.value.numpy())


def _carried(track: Track, setup: Setup, traces: np.ndarray) -> np.ndarray:
    """`log p̂` along the path from its divergence (M, n), beginning at the anchor: `d log p/du = σ² div s`."""
    start = setup.anchor.log_density(torch.from_numpy(track.x[0]), SIGMA_MAX).numpy()
    rate = -(track.levels[:, None] ** 2) * traces  # in −log σ, which rises along the path
    return np.asarray(start + cumulative_simpson(rate, x=-np.log(track.levels), axis=0, initial=0))


def _exact_trace(track: Track, setup: Setup, budget: int, seed: int) -> np.ndarray:
    del budget, seed
    return _carried(track, setup, np.trace(track.jacobians, axis1=2, axis2=3))


def _probed(*, control: bool) -> Series:
    """Random signs, fresh at every node; with `control` a Gaussian's known trace carries the common part."""

    def series(track: Track, setup: Setup, budget: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng([17, seed])
        jacobians, known = track.jacobians, np.zeros(len(track.levels))
        if control:
            variances = setup.anchor.eigenvalues.numpy(), setup.anchor.eigenvectors.numpy()
            inverse = [-(variances[1] / (variances[0] + s**2)) @ variances[1].T for s in track.levels]
            jacobians = jacobians - np.stack(inverse)[:, None]
            known = np.trace(np.stack(inverse), axis1=1, axis2=2)
        left, forms = max(1, budget - 1), np.zeros(track.log_p.shape)
        for first in range(0, left, BLOCK):
            signs = rng.choice([-1.0, 1.0], size=(*track.x.shape, min(BLOCK, left - first)))
            forms += np.einsum("mndk,mndk->mn", signs, np.matmul(jacobians, signs)) / left
        return _carried(track, setup, forms + known[:, None])

    return series


def _kernel(track: Track, setup: Setup, budget: int, seed: int) -> np.ndarray:
    return _node_by_node("kernel", common=True)(track, setup, max(budget, len(setup.data)), seed)


SERIES: dict[str, Series] = {
    "flow": _exact_trace,
    "hutchinson": _probed(control=False),
    "hutchinson, control": _probed(control=True),
    "formula": _at_nodes("formula"),
    "formula, one noise": _node_by_node("formula", common=True),
    "control": _at_nodes("control"),
    "ito": _node_by_node("ito", common=False),
    "kernel": _kernel,
}
