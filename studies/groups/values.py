"""What classes are worth to the ink of samples of a network that is trained by a solve: predicted, and by solves alone.

Ink is the mean over pixels of each sample. A class is worth its additive value, to first order; what leaving it out
takes away; and Shapley's value, with classes outside a coalition kept at half of their weight. Leaving out by solves
judges both the first two. By solves Shapley's value is the sum over every coalition, without random orders,

    ψ_g = Σ_{S ∌ g} |S|! (G − |S| − 1)!/G! · [v(S ∪ g) − v(S)].
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
from torch import Tensor

from sensitivity import Groups, UnrolledResponse, as_score, group_values
from sensitivity.groups import GroupValues
from studies import data
from studies.responses.config import Config as ResponsesConfig
from studies.responses.config import Exact
from studies.responses.exact import ExactBench, LevelNetwork, Solved
from studies.retraining.measures import significant
from studies.sampling import sample

Array = np.ndarray
DIGITS = 6  # of values in rows
KINDS = ("shapley", "leave-out", "additive")
# Ten classes are all of the digits, and without them there would be nothing to train on.
KEPT = {"shapley": 0.5, "leave-out": 0.0, "additive": 0.0}


def run_values(kind: str, exact: Exact, latents: int, players: int, permutations: int) -> list[dict[str, Any]]:
    """One row: the values of the first classes as predicted and by solves, (players, latents) each, and what they cost.

    Args:
        kind: one of `KINDS`.
        exact: the network.
        latents: their number.
        players: how many classes; the others are in no group.
        permutations: random orders of the predicted Shapley values.
    """
    bench, start = ExactBench(ResponsesConfig((), exact, latents=latents)), time.process_time()
    members = classes(exact.points, players)
    predicted = asked(bench, members, kind, KEPT[kind], permutations)
    seconds, start = time.process_time() - start, time.process_time()
    actual, total = by_solves(bench, members, kind, KEPT[kind])
    return [
        {
            "kind": "value",
            "worth": kind,
            "groups": players,
            "runs": predicted.runs,
            "unfinished": predicted.unfinished,
            "predicted": significant(predicted.values.numpy(), DIGITS),
            "standard_error": significant(predicted.standard_error.numpy(), DIGITS),
            "actual": significant(actual, DIGITS),
            "total": significant(total, DIGITS),
            "seconds": seconds,
            "solve_seconds": time.process_time() - start,
        }
    ]


def classes(points: int, players: int) -> dict[str, Array]:
    """Indices of the first digits of each of the first classes."""
    labels = np.asarray(data.load("digits").labels)[:points]
    return {f"class {c}": np.flatnonzero(labels == c) for c in range(players)}


def asked(
    bench: ExactBench, members: dict[str, Array], kind: str, keep: float, permutations: int | None
) -> GroupValues:
    """Without retraining: by the derivative of the solve."""
    network = LevelNetwork(bench.fitted, bench.grid.levels.tolist()).eval()
    groups = Groups(bench.images, {name: rows.tolist() for name, rows in members.items()})
    return group_values(
        as_score(network, "denoiser"), bench.latents, groups, bench.grid, ink, kind=kind, keep=keep,
        permutations=permutations, response=UnrolledResponse(Solved(bench, network)),
    )  # fmt: skip


def by_solves(bench: ExactBench, members: dict[str, Array], kind: str, keep: float) -> tuple[Array, Array]:
    """Values (G, latents) by training again without each coalition's outsiders, and what all classes are worth."""
    count = len(members)

    def value(present: tuple[bool, ...]) -> Array:
        weights = np.ones(len(bench.images))
        for inside, rows in zip(present, members.values(), strict=True):
            weights[rows] *= 1.0 if inside else keep
        return ink(solved(bench, weights)).numpy()

    everyone = (True,) * count
    if kind == "shapley":
        known = {each: value(each) for each in itertools.product((False, True), repeat=count)}
        return shapley(known), known[everyone] - known[(False,) * count]
    whole = value(everyone)
    left = [value((*everyone[:g], False, *everyone[g + 1 :])) for g in range(count)]
    return np.stack([whole - each for each in left]), np.full_like(whole, np.nan)


def shapley(known: dict[tuple[bool, ...], Array]) -> Array:
    """Shapley's values (G, *out) from v of every coalition.

    Example:
        >>> shapley({(False, False): 0.0, (True, False): 1.0, (False, True): 0.0, (True, True): 4.0})
        array([2.5, 1.5])
    """
    count = len(next(iter(known)))
    values = []
    for g in range(count):
        value = 0.0
        for coalition in [each for each in known if each[g]]:
            others = (*coalition[:g], False, *coalition[g + 1 :])
            size = sum(others)
            share = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            value = value + share * (known[coalition] - known[others])
        values.append(value)
    return np.stack(values)


def ink(samples: Tensor) -> Tensor:
    """The mean over pixels of each sample, (batch,)."""
    return samples.flatten(1).mean(1)


def solved(bench: ExactBench, weights: Array) -> Tensor:
    """Samples of the network trained on weights (N,) of the data, which need not sum to one."""
    fitted = bench.fitted.retrained(bench.fitted.points, weights / weights.sum())
    network = LevelNetwork(fitted, bench.grid.levels.tolist()).eval()
    return sample(as_score(network, "denoiser"), bench.latents, bench.grid)
