"""Draws from mixtures, made by NumPy in float64 so that a seed gives the same points in every array library."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from oracles import _arrays
from oracles._arrays import Array
from oracles._mixture.local import Group


def sample(groups: Sequence[Group], n: int, seed: int | np.random.Generator | None) -> Array:
    """n draws (n, d): the counts of the components are multinomial, so a permutation makes the draws independent."""
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"n = {n!r} must be a whole number of draws, zero or more")
    rng = np.random.default_rng(seed)
    weights = np.concatenate([_values(group.weights) for group in groups])
    counts = rng.multinomial(n, weights / weights.sum())
    ends = list(itertools.accumulate(group.covariances.size for group in groups))
    starts = [0, *ends[:-1]]
    draws = [_draw(g, counts[a:b], rng) for g, a, b in zip(groups, starts, ends, strict=True)]
    return _arrays.from_numpy(rng.permutation(np.concatenate(draws)), groups[0].means)


def _draw(group: Group, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """counts[k] draws of component k, in the order of the components."""
    means = _values(group.means)
    noise = rng.standard_normal((int(counts.sum()), means.shape[1]))
    return np.repeat(means, counts, axis=0) + group.covariances.coloured(noise, counts)


def _values(array: Array) -> np.ndarray:
    return _arrays.concrete(array, "sampling").astype(np.float64)
