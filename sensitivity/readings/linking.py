"""Networks among the new measures, made laws of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from sensitivity.densities.network_measure import NetworkMeasure
from sensitivity.jacobians.products import Products
from sensitivity.measures.measure import Measure
from sensitivity.perturbations.perturbation import Masses, Perturbation
from sensitivity.sampler.carried_network import Law, Linked, Slot
from sensitivity.scores.score import Score


def link(
    laws: Sequence[Law], anchors: Sequence[Any], choose: Callable[[Score], Products]
) -> tuple[tuple[Law, ...], tuple[Any, ...]]:
    """The laws with one more, of share 0, for every network among the new measures, and the anchors of all."""
    networks: list[NetworkMeasure] = []
    given = list(laws)

    def slot(measure: Measure) -> Measure:
        if not isinstance(measure, NetworkMeasure):
            return measure
        if not any(measure is known for known in networks):
            networks.append(measure)
        place = next(k for k, known in enumerate(networks) if known is measure)
        nothing = torch.empty(0)
        return Slot(nothing, nothing, index=len(given) + place)

    changed = [replace(law, changes=tuple(_linked(change, slot) for change in law.changes)) for law in given]
    count = len(given[0].changes)
    extra = [Law(choose(network.network), 0.0, (None,) * count, drives=False) for network in networks]
    return (*changed, *extra), (*anchors, *(network.anchor for network in networks))


def _linked(change: Perturbation | None, slot: Callable[[Measure], Measure]) -> Perturbation | None:
    masses: Masses = () if change is None or change.masses is None else change.masses
    if not any(isinstance(measure, NetworkMeasure) for _, measure in masses):
        return change
    return Linked(tuple((c, slot(measure)) for c, measure in masses))
