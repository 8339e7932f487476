"""The table of true and stated errors over dimensions, solvers, grids and laws that "how to choose" rests on.

`pytest -m slow -s tests/convergence/test_error_table.py` prints it. Where a law has several components and d > 16,
random signs are not exact and an exact trace costs d products a node: there the law's own divergence is given in the
trace's place (`own_divergence`), so that only grid and solver err.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from support.sensitivity_errors import GRIDS, Case, case, exact
from support.strategies import Images, image_law
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import sample_sensitivity
from sensitivity.sampler.local_maps import LocalMaps

SOLVERS = ("euler", "heun", "exponential", "2m", "rk4")
TABLE = ("karras 20", "karras 50", "ddpm 50", "flow matching 50")
LAWS = {"isotropic": (1, 0, 0.5, 0.0), "low rank": (4, 10, 0.05, 0.5)}
"""Components, rank, noise and scale of `image_law`."""


class Row(NamedTuple):
    """Errors of one run: largest over latents, those of δ relative to |δ|."""

    law: str
    d: int
    grid: str
    solver: str
    calls: int
    log_true: float
    log_stated: float
    slope_true: float
    slope_stated: float
    finished: float
    covered: bool


@contextmanager
def own_divergence(law: Images) -> Iterator[None]:
    """Runs take div s = Σ r_k (div s_k + |s_k|²) − |s|² of a diagonal mixture in place of a trace."""
    means, variances = (torch.from_numpy(part) for part in (law.means, law.variances))
    weights, plain = torch.from_numpy(law.weights), LocalMaps._of_map

    def divergence(x: Tensor, sigma: Tensor) -> Tensor:
        spread = variances + sigma**2
        scores = (means - x[:, None]) / spread
        logs = weights.log() - 0.5 * (spread.log().sum(1) + (scores.square() * spread).sum(2))
        shares = torch.softmax(logs, 1)
        each = scores.square().sum(2) - (1 / spread).sum(1)
        return (shares * each).sum(1) - (shares[..., None] * scores).sum(1).square().sum(1)

    def of_map(self, local_map, x, sigma, tangents, trace, step, stage):
        score, _, moved = plain(self, local_map, x, sigma, tangents, None, step, stage)
        return score, None if trace is None else divergence(x, sigma)[None], moved

    with mock.patch.object(LocalMaps, "_of_map", of_map):
        yield


def _row(name: str, law: Images, problem: Case, grid_name: str, solver: str, truth: Tensor) -> Row:
    grid, x = GRIDS[grid_name], problem.latents(GRIDS[grid_name].sigma_max)
    with own_divergence(law):
        result = sample_sensitivity(
            problem.law.score, x, problem.change, grid, anchor=problem.law, trace="exact", solver=solver
        )
    density = GaussianMixture.diagonal(*law).noised(grid.sigma_min).log_density(result.samples.numpy())
    logs = (result.log_density - torch.from_numpy(np.asarray(density))).abs()
    slope, size = (result.sensitivity - truth).norm(dim=1), truth.norm(dim=1)
    good = result.outcome.finished
    covered = ~good | ((logs <= 3 * result.grid_error + 1e-9) & (slope <= 3 * result.sensitivity_error + 1e-9))
    return Row(
        name, x.shape[1], grid_name, solver, result.cost.evaluations, float(logs.max()), float(result.grid_error.max()),
        float((slope / size).max()), float((result.sensitivity_error / size).max()), float(good.double().mean()),
        bool(covered.all()),
    )  # fmt: skip


def _table(dimensions: tuple[int, ...], grids: tuple[str, ...] = TABLE) -> Iterator[Row]:
    for (name, parts), d, grid in itertools.product(LAWS.items(), dimensions, grids):
        law = image_law(d, *parts, 3)
        problem = case(law, 5)
        truth = exact(problem.law, problem.change, problem.latents(GRIDS[grid].sigma_max), GRIDS[grid])[1]
        for solver in SOLVERS:
            yield _row(name, law, problem, grid, solver, truth)


def test_no_finished_sample_of_a_short_table_errs_by_more_than_stated():
    """Assert it for log p and |δ| at d = 16 on the coarsest grid, and that some samples are finished."""
    rows = list(_table((16,), ("karras 20",)))
    assert all(row.covered for row in rows)
    assert sum(row.finished for row in rows) >= 6


@pytest.mark.slow
def test_table(capsys):
    """Print the whole table; assert the same of it."""
    rows = []
    with capsys.disabled():
        print(
            "\n| law | d | grid | solver | calls | log p: true | stated | δ: true | stated | finished |\n|"
            + "---|" * 10
        )
        for row in _table((1, 16, 64, 784, 3072)):
            rows.append(row)
            errors = " | ".join(f"{value:.1e}" for value in row[5:9])
            line = f"| {row.law} | {row.d} | {row.grid} | {row.solver} | {row.calls} | {errors} | {row.finished:.0%} |"
            print(line + ("" if row.covered else " NOT COVERED"), flush=True)
    assert all(row.covered for row in rows)
