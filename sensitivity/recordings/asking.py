"""From what a caller asks of a recording to the question that every shard gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sensitivity._checks import check_positive_number
from sensitivity.measures.points import Points
from sensitivity.readings.influences import rates_of
from sensitivity.recordings.answers import Question
from sensitivity.recordings.reach import axes_of
from sensitivity.responses import SourceResponse
from sensitivity.sources import PreparedSource


def question_of(
    data: PreparedSource,
    samples: Tensor,
    response: SourceResponse | None,
    *,
    guided: bool = False,
    top_k: int | None = None,
    groups: Any = None,
    rates: Any = None,
    bandwidth: float = 0.0,
    prune: float | None = None,
) -> Question:
    """The checked question; see `Recording.influence` for the arguments by keyword.

    Raises:
        ValueError, TypeError: for what does not fit the points or the response.
    """
    check_positive_number(bandwidth, "bandwidth", zero=True)
    if response is not None:
        response.check_points(Points(samples[:1], bandwidth=bandwidth))
    if prune is not None:
        check_positive_number(prune, "prune")
        if response is not None:
            raise ValueError(
                f"prune={prune} leaves out what a ratio of densities bounds, and a {type(response).__name__} "
                "has none: leave prune out."
            )
    count = len(data.source)
    labels = groups if groups is None or isinstance(groups, str) else _labels(groups, count)
    speeds = tuple(rates_of(rates, guided, count, samples))
    # With sums asked for and no list, one leading point stands for the matrix.
    keep = 1 if groups is not None and top_k is None else top_k
    axes = None if prune is None else axes_of(data.read(0)[0])
    return Question(keep, bandwidth, prune, axes, speeds, labels)


def _labels(groups: Any, count: int) -> list[Any]:
    # Labels come as arrays, tensors or columns of any package, which share this method and no class.
    values = groups.tolist() if hasattr(groups, "tolist") else groups
    if not isinstance(values, Sequence) or any(isinstance(v, list | dict | set) for v in values[:1]):
        raise TypeError(f"groups is a {type(groups).__name__}: give one label a point, or the name of a field.")
    if len(values) != count:
        raise ValueError(f"groups has {len(values)} labels, but there are {count} points: give one label a point.")
    if kinds := {type(v).__name__ for v in values} - {"int", "str"}:
        raise TypeError(f"groups has labels of type {sorted(kinds)[0]}: give integers or strings.")
    return list(values)
