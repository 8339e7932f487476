"""Study `attribution`: which training points matter for a sample, judged where the true influence is known.

Protocol, fixed before results were seen. Training points are draws from a known mixture; a small network is trained on
them; queries are latents, the output is `φ(x_0) = a·x_0` of the flow's sample. Every method gives one number per query
and point. Two judges:

1. *Truth*: Spearman's correlation over points with the analytic influence in the data law, per query.
2. *Retraining* (LDS, Park et al. 2023, arXiv 2303.14186): Spearman's correlation over random halves of the data between
   the sum of a method's numbers over a half and φ of a network retrained on it, per query; a second seed of each half
   says what could be attained.

Gradient methods run in dattri: TracIn over six checkpoints weighted by their learning rates, products and cosines of
gradients at the final network, TRAK, TRAK with D-TRAK's feature, influence functions. (Amended after first results:
TracIn had used the final network alone, and products of gradients a random projection: both could favour ours.)

Medians over the queries of a draw, then means over draws with Student's intervals: a draw with its networks is the unit
(until the claims of version 2 were judged anew, the queries of all draws were pooled as if independent). Dampings of
gradient methods are fixed shares of the largest eigenvalue of a training-data matrix; bandwidths follow Scott's rule;
nothing is tuned on queries, and every method's rows are kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studies.study import Cell, Claim, Context

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from studies.attribution.problem import Setup
    from studies.attribution.retraining import Halves
    from studies.networks import Denoiser

NAME = "attribution"
VERSION = 2
QUESTION = "Which training points matter for a sample: influence through scores, or gradients in the parameters?"

OURS, EXACT, EMPIRICAL = "influence, network", "influence, exact score", "empirical score"
RETRAINED = "second seed of the halves"


@dataclass(frozen=True)
class Config:
    """Sizes.

    Attributes:
        laws: names of mixtures of the verification suite.
        points: N training points.
        queries: latents per data draw.
        draws: independent draws of training data.
        halves: retrained halves per draw.
        seeds: retrainings of each half (two give the attainable correlation).
        width, steps: of the networks.
        influence_functions: whether to run conjugate gradients on the Hessian, the most expensive method.
    """

    laws: tuple[str, ...] = ("plane",)
    points: int = 100
    queries: int = 32
    draws: int = 2
    halves: int = 16
    seeds: int = 1
    width: int = 64
    steps: int = 1500
    influence_functions: bool = True

    @classmethod
    def smoke(cls) -> Config:
        return cls(points=24, queries=4, draws=1, halves=4, width=16, steps=60, influence_functions=False)

    @classmethod
    def quick(cls) -> Config:
        return cls()

    @classmethod
    def full(cls) -> Config:
        return cls(laws=("plane", "ten"), points=200, draws=3, halves=48, seeds=2, steps=3000)

    @classmethod
    def paper(cls) -> Config:
        return cls(laws=("plane", "ten", "fifty"), points=1000, queries=128, draws=5, halves=128, seeds=2, width=128)


def cells(config: Config) -> list[Cell]:
    """One cell per law and draw of training data."""
    return [
        Cell(f"{name}-draw={draw}", {"law": name, "draw": draw}, seed=100 + draw)
        for name in config.laws
        for draw in range(config.draws)
    ]


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one draw: per method and query, both correlations."""
    from studies.attribution.problem import Setup, true_influence
    from studies.attribution.retraining import halves

    config = context.config
    setup = Setup(cell.parameters["law"], config.points, config.queries, cell.seed)
    truth = true_influence(setup)
    trained = halves(setup, config.halves, config.seeds, config.width, config.steps, context.cache)
    scores = {"analytic influence": (truth, 0.0), **_predictions(setup, trained.base, config)}
    rows = [
        {"law": setup.name, "draw": cell.parameters["draw"], "method": method, "seconds": seconds, **row}
        for method, (values, seconds) in scores.items()
        for row in _judged(values, truth, trained)
    ]
    return rows + _attainable(setup, cell.parameters["draw"], trained)


def _predictions(setup: Setup, network: Denoiser, config: Config) -> dict[str, tuple[np.ndarray, float]]:
    """Every method's values (n, N) and its seconds."""
    import copy

    from studies.attribution.gradients import GRADIENTS, Task
    from studies.attribution.methods import METHODS
    from studies.attribution.retraining import checkpoints, recipe

    way = checkpoints(setup, config.width, config.steps)
    task = Task(setup, copy.deepcopy(network), recipe(config.width, config.steps).objective, way)
    calls = {name: lambda f=f: f(setup, copy.deepcopy(network)) for name, f in METHODS.items()}
    calls |= {
        name: lambda f=f: f(task)
        for name, f in GRADIENTS.items()
        if config.influence_functions or not name.startswith("influence function")
    }
    out = {}
    for name, call in calls.items():
        start = time.perf_counter()
        out[name] = (call(), time.perf_counter() - start)
    return out


def _judged(values: np.ndarray, truth: np.ndarray, trained: Halves) -> list[dict[str, Any]]:
    predicted = trained.members @ values.T
    actual = trained.outputs.mean(axis=0)
    return [
        {"query": q, "truth": _spearman(values[q], truth[q]), "lds": _spearman(predicted[:, q], actual[:, q])}
        for q in range(len(truth))
    ]


def _attainable(setup: Setup, draw: int, trained: Halves) -> list[dict[str, Any]]:
    """Agreement of two seeds of the same halves, per query."""
    if len(trained.outputs) < 2:
        return []
    first, second = trained.outputs[:2]
    head = {"law": setup.name, "draw": draw, "method": RETRAINED, "seconds": float("nan"), "truth": float("nan")}
    return [{**head, "query": q, "lds": _spearman(first[:, q], second[:, q])} for q in range(first.shape[1])]


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    from scipy import stats

    # A constant has no ranks: such a method says nothing about this query, which counts as no correlation.
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(stats.spearmanr(first, second).statistic)


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """The control, and ours against the others by both judges."""
    from studies.attribution.verdicts import verdicts

    return verdicts(rows)


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """Both correlations of every method, medians with intervals."""
    from studies.attribution.drawing import draw

    return draw(rows)
