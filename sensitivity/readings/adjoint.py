"""The transposed sampler: stage inputs kept by the forward pass, stage cotangents made by the backward pass.

For a functional φ of the sample x_0 the cotangent λ starts as ∇φ(x_0) at σ_min and goes back through the transposed
steps of `retreat`. The forward pass stores its stage inputs, and the graphs of the network there as far as they fit
(see `kept`): elsewhere the backward pass evaluates the network anew. Both are exact transposes of each other, to
rounding. A sample that halted took no further step, forward or backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from sensitivity.jacobians.kept import Graph, Graphs
from sensitivity.readings.prepare import Prepared
from sensitivity.sampler.local_maps import LocalMaps
from sensitivity.sampler.outcome import Watch
from sensitivity.sampler.path import Logs, logs_of, mark_log_error, observed, take
from sensitivity.sampler.step import Rate, Slope, State, retreat
from sensitivity.sampler.tableau import Step


@dataclass(frozen=True)
class Record:
    """A stage input.

    Attributes:
        x, sigma: where it is.
        logs: the log densities there, (maps, batch).
        running: which samples took the step, (batch,).
        error: stated error of each log density in nats, (maps, batch); None where it is not known, at inner stages.
        graphs: graphs that were kept.
    """

    x: Tensor
    sigma: Tensor
    logs: Tensor | None
    running: Tensor
    error: Tensor | None = None
    graphs: tuple[Graph, ...] = ()


@dataclass(frozen=True)
class Pairing:
    """A stage's cotangents μ, (F, batch, *shape), with the scores at its input."""

    record: Record
    scores: tuple[Tensor, ...]
    cotangents: Tensor


def record_path(prepared: Prepared, watch: Watch, graphs: Graphs) -> tuple[Tensor, list[list[Record]], Logs]:
    """Sample and keep the stage inputs of every step; also the log densities at σ_min."""
    state, records, maps = prepared.start(), [], prepared.maps.keeping(graphs)
    for step in prepared.told([*prepared.path, *prepared.final]):
        entries: list[Entry] = []
        after = take(step, state, _recording(maps, entries, watch, graphs), watch, prepared.advance)
        records.append([_record(prepared.maps, step, j, e, state, watch.running) for j, e in enumerate(entries)])
        state = after
    seen = state if prepared.denoise else observed(prepared.maps, state, prepared.last, watch)
    return state.x, records, logs_of(prepared.maps, seen)


def errors_of(pairings: Sequence[Pairing], end: Tensor) -> Tensor:
    """Stated errors of the log densities in nats at the stages of a backward pass, (maps, stages, batch).

    An inner stage extrapolates the divergence: it is taken to be as uncertain as the node after it, whose error counts
    how far off inner stages were. `end` is the error at σ_min, (maps, batch).
    """
    errors = []
    for pairing in pairings:
        end = end if pairing.record.error is None else pairing.record.error
        errors.append(end)
    return torch.stack(errors, 1)


Entry = tuple[State, Tensor | None, Tensor | None, tuple[Graph, ...]]


def _recording(maps: LocalMaps, entries: list[Entry], watch: Watch, graphs: Graphs) -> Slope:
    def slope(step: Step, stage: int, state: State) -> Rate:
        local, kept = graphs.during(len(state.x), lambda: maps.values(state.x, None, step, stage))
        carried = maps.carried(step, stage, state, local)
        error = mark_log_error(watch, maps, carried, step.table.levels[stage])
        entries.append((state, carried.logs, error, kept))
        return maps.rate(local, local.drift, None, carried)

    return slope


def _record(maps: LocalMaps, step: Step, stage: int, entry: Entry, start: State, running: Tensor) -> Record:
    state, logs, error, graphs = entry
    return Record(state.where(running, start).x, step.sigmas[stage], maps.means(logs), running, error, graphs)


def pull_back(prepared: Prepared, records: Sequence[Sequence[Record]], cotangents: Tensor) -> Iterator[Pairing]:
    """Stage cotangents from the last step to the first, for F cotangents ∇φ of the samples, (F, batch, *shape)."""
    maps, later = prepared.maps, None
    back = prepared.told([*prepared.path, *prepared.final][::-1])
    for step, entries in zip(back, reversed(records), strict=True):
        taken = per_sample(entries[0].running, cotangents[0])
        pairings: list[Pairing] = []

        def transpose(
            step: Step,
            stage: int,
            mu: Tensor,
            entries: Sequence[Record] = entries,  # bound now: a closure would see the next step's
            pairings: list[Pairing] = pairings,
            taken: Tensor = taken,
        ) -> Tensor:
            record = entries[stage]
            scores, moved = maps.cotangents(record.x, record.sigma, mu, record.graphs)
            # A halted sample's score may be NaN, which no zero cotangent undoes.
            scores = tuple(score.masked_fill(~taken, 0.0) for score in scores)
            pairings.append(Pairing(record, scores, mu))
            return moved.masked_fill(~taken, 0.0)

        passed, later = retreat(step, cotangents.masked_fill(~taken, 0.0), transpose, later)
        cotangents = torch.where(taken, passed, cotangents)
        yield from pairings
