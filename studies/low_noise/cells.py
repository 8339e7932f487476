"""Cells: one for each geometry and objective; all its networks are trained side by side."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from studies.bandwidths import likeliest
from studies.low_noise.bench import KINDS, MANY, Bench
from studies.low_noise.comparison import compare, shares
from studies.low_noise.config import Config, Part
from studies.low_noise.fixed import attractors, jacobians
from studies.low_noise.prediction import Laws, along_path, at_level
from studies.low_noise.references import Memory, optimum
from studies.networks import Denoiser, split
from studies.study import Cell, Context
from studies.training import excess_loss

Row = dict[str, Any]
DRAWS = 256  # of the excess loss
BANDWIDTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # in τ
FEW_LEVELS = (1.0, 0.1, 0.01)  # of states other than `on`
LOOKED = 2  # replicates whose attractors and Jacobians are computed


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces."""
    parts = [Part.of(text) for text in config.grid]
    return [Cell(part.name, {**dataclasses.asdict(part), "counts": list(part.counts)}) for part in parts]


def run_cell(cell: Cell, context: Context) -> list[Row]:
    """Rows of one cell; a single row that says why where its optional images are not on this machine."""
    part = Part(**{**cell.parameters, "counts": tuple(cell.parameters["counts"])})
    bench = Bench(part, context)
    given = {"geometry": part.geometry, "objective": part.objective, "length": part.length}
    try:
        bench.problem  # noqa: B018  # loads the data
    except (FileNotFoundError, ImportError) as error:
        return [given | {"kind": "skipped", "why": str(error)}]
    rows: list[Row] = []
    for (count, replicate), networks in bench.networks.items():
        measured = run_networks(bench, networks, count, replicate)
        rows += [given | {"N": count, "replicate": replicate} | row for row in measured]
    return rows


def run_networks(bench: Bench, networks: Denoiser, count: int, replicate: int) -> list[Row]:
    """Everything about the four networks of one N and replicate."""
    paths = bench.trajectories(networks, replicate)
    memories = bench.memory(replicate, "A", count), bench.memory(replicate, "B", count)
    laws = _laws(bench, count, replicate, memories)
    rows = [_ends(bench, paths[-1]), *losses(bench, networks, count, replicate, memories[0])]
    for index, level in enumerate(bench.levels):
        states, sigma = bench.states(count, replicate, paths, index), level * bench.scale
        for kind in KINDS if level in FEW_LEVELS else KINDS[:1]:
            x = states[kind]
            f = bench.values(networks, x, sigma)
            row = {"kind": "level", "states": kind, "level": level} | compare(bench, f, x, sigma, kind, memories)
            rows.append(row | (at_level(bench, networks, f, x, sigma, laws) if kind == "on" and laws else {}))
    if laws:
        rows += along_path(bench, networks, count, replicate, laws)
    if replicate < LOOKED:
        rows += jacobians(bench, networks, replicate) + attractors(bench, networks, count, replicate)
    return rows


def _laws(bench: Bench, count: int, replicate: int, pair: Laws) -> dict[str, Laws]:
    """The laws of A's and B's data for predictions, and of the wrong B; none for blind networks and the largest N."""
    if bench.objective == "blind" or count > MANY:
        return {}
    wrong = bench.memory((replicate + 1) % bench.config.replicates, "B", count)
    b = likeliest(pair[0].points.data, bench.problem.fresh(replicate, DRAWS), BANDWIDTHS, unit=bench.scale)
    soft, soft_b, soft_wrong = (Memory(law.points.data, b) for law in (*pair, wrong))
    return {
        "finite": pair,
        "finite_wrong": (pair[0], wrong),
        "smooth": (soft, soft_b),
        "smooth_wrong": (soft, soft_wrong),
    }


def _ends(bench: Bench, ends: Tensor) -> Row:
    """Distances of end points from common latents, in units of τ√d."""
    return {"kind": "ends"} | shares(ends, bench.scale * ends.shape[-1] ** 0.5)


def losses(bench: Bench, networks: Denoiser, count: int, replicate: int, memory: Memory) -> list[Row]:
    """Network A's loss above the least possible: of the law on fresh data, and of its own data on those."""
    network, rows = split(networks)[0], []
    if bench.population is not None:
        clean = bench.problem.fresh(replicate, DRAWS)
        rows.append({"kind": "loss", "of": "law"} | _excess(bench, network, clean, bench.population))
    if count <= MANY:
        data = bench.problem.set_of(replicate, "A", count)
        data = data[torch.arange(DRAWS) % len(data)]
        best = optimum(memory, bench.noise, bench.scale)
        rows.append({"kind": "loss", "of": "data"} | _excess(bench, network, data, best))
    return rows


def _excess(bench: Bench, network: Denoiser, clean: Tensor, best: Any) -> Row:
    excess = excess_loss(network, bench.noise, clean, best)
    return {"loss": excess.loss, "optimum": excess.optimum, "excess": excess.excess, "error": excess.excess_error}
