"""Networks among the new measures, made local maps of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sensitivity.densities.network_measure import NetworkMeasure
from sensitivity.jacobians.products import Products
from sensitivity.measures.measure import Measure
from sensitivity.perturbations.perturbation import Masses, Perturbation
from sensitivity.sampler.carried_network import CarriedContamination, CarriedNetwork, LocalMap
from sensitivity.scores.score import Score


def link(
    maps: Sequence[LocalMap], anchors: Sequence[Any], choose: Callable[[Score], Products]
) -> tuple[tuple[LocalMap, ...], tuple[Any, ...]]:
    """The local maps with one more, of share 0, for every network among the new measures, and the anchors of all."""
    networks: list[NetworkMeasure] = []
    given = list(maps)

    def carried(measure: Measure) -> Measure:
        if not isinstance(measure, NetworkMeasure):
            return measure
        if not any(measure is known for known in networks):
            networks.append(measure)
        place = next(k for k, known in enumerate(networks) if known is measure)
        return CarriedNetwork(len(given) + place)

    changed = [
        replace(local_map, changes=tuple(_with_carried(change, carried) for change in local_map.changes))
        for local_map in given
    ]
    count = len(given[0].changes)
    extra = [LocalMap(choose(network.network), 0.0, (None,) * count, drives=False) for network in networks]
    return (*changed, *extra), (*anchors, *(network.anchor for network in networks))


def _with_carried(change: Perturbation | None, carried: Callable[[Measure], Measure]) -> Perturbation | None:
    masses: Masses = () if change is None or change.masses is None else change.masses
    if not any(isinstance(measure, NetworkMeasure) for _, measure in masses):
        return change
    return CarriedContamination(tuple((c, carried(measure)) for c, measure in masses))
