"""Cells: one for each geometry and objective; all its networks are trained side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity import Points, Toward, score_derivative
from studies.low_noise import measures
from studies.low_noise.bench import KINDS, Bench
from studies.low_noise.config import Config
from studies.low_noise.fixed import attractors, jacobians
from studies.low_noise.references import Memory, optimum
from studies.networks import Denoiser
from studies.study import Cell, Context

Row = dict[str, Any]


def cells(config: Config) -> list[Cell]:
    """The study's independent pieces."""
    found = []
    for pair in config.grid:
        geometry, objective = pair.split("/")
        found.append(Cell(f"{geometry}-{objective}", {"geometry": geometry, "objective": objective}))
    return found


def run_cell(cell: Cell, context: Context) -> list[Row]:
    """Rows of one cell."""
    bench = Bench(cell.parameters["geometry"], cell.parameters["objective"], context)
    rows: list[Row] = []
    for (count, replicate), networks in bench.networks.items():
        shared = {"N": count, "replicate": replicate}
        found = run_networks(bench, networks, count, replicate)
        rows += [dict(cell.parameters) | shared | row for row in found]
    return rows


def run_networks(bench: Bench, networks: Denoiser, count: int, replicate: int) -> list[Row]:
    """Everything about the four networks of one N and replicate."""
    paths = bench.trajectories(networks, replicate)
    rows = [_ends(bench, paths[-1])]
    for index, level in enumerate(bench.config.levels):
        states = bench.states(count, replicate, paths, index)
        for kind in KINDS:
            row = compare(bench, networks, count, replicate, states[kind], level, kind)
            rows.append({"kind": "level", "states": kind, "level": level} | row)
    return rows + jacobians(bench, networks, replicate) + attractors(bench, networks, count, replicate)


def _ends(bench: Bench, ends: Tensor) -> Row:
    """Distances of end points from common latents, in units of τ√d."""
    unit = bench.scale * ends.shape[-1] ** 0.5
    cross, within, twin = (f(ends) / unit for f in (_cross, _within, _twin))
    return {"kind": "ends", "cross": cross, "within": within, "twin": twin}


def compare(bench: Bench, networks: Denoiser, count: int, replicate: int, x: Tensor, level: float, kind: str) -> Row:
    """The four networks and their references at common states."""
    sigma = level * bench.scale
    f = bench.values(networks, x, sigma)
    a, b = (bench.memory(replicate, name, count) for name in "AB")
    e_a, e_b = (optimum(m, bench.noise, bench.scale)(x, sigma) for m in (a, b))
    unit = sigma * x.shape[-1] ** 0.5
    within = measures.rms(f[0] - f[1]) if kind in ("train", "path") else _within(f)
    size = measures.rms(f - x)
    row = {
        "cross": _cross(f) / size,
        "within": within / size,
        "twin": _twin(f) / size,
        "size": size / unit,
        "cosine": measures.cosine(f[0] - x, f[3] - x),
        "cosine_within": measures.cosine(f[0] - x, f[1] - x),
        "data_part": measures.data_part(_cross(f), within, size),
        "to_empirical": measures.rms(f[0] - e_a) / unit,
        "empirical": measures.rms(e_a - e_b) / max(measures.rms(e_a - x), 1e-300),
        "finite": float(torch.isfinite(f).all() and torch.isfinite(e_a).all() and torch.isfinite(e_b).all()),
    }
    row |= _placed(bench, f[0], e_a, x, sigma)
    if kind == "on" and bench.objective != "blind":
        other = bench.memory((replicate + 1) % bench.config.replicates, "B", count)
        row |= _predicted(bench, networks, f, x, sigma, a, b, "")
        row |= _predicted(bench, networks, f, x, sigma, a, other, "_wrong")
    return row


def _placed(bench: Bench, f: Tensor, empirical: Tensor, x: Tensor, sigma: float) -> Row:
    """Errors to the population's denoiser and score, and the place between it and the empirical one."""
    if bench.population is None:
        return {}
    exact = bench.population(x, sigma)
    unit = sigma * x.shape[-1] ** 0.5
    error = measures.rms(f - exact)
    return {
        "to_population": error / unit,
        "score_error": error * bench.scale / sigma**2 / x.shape[-1] ** 0.5,
        "place": measures.place(f, exact, empirical),
        "exact_size": measures.rms(exact - x) / unit,
        "exact_finite": float(torch.isfinite(exact).all()),
    }


def _predicted(
    bench: Bench, networks: Denoiser, f: Tensor, x: Tensor, sigma: float, a: Memory, b: Memory, suffix: str
) -> Row:
    """The change of A′ toward B's data against `f_B − f_A`."""
    observed = f[2] - f[0]
    log_ratio = b.log_density(x, sigma) - a.log_density(x, sigma)
    finite = measures.halfway(f[1], b.denoiser(x, sigma), log_ratio)
    found = {
        "finite_cosine": measures.pooled_cosine(finite, observed),
        "finite_explained": measures.explained(observed, finite),
    }
    first = _first_order(bench, networks, x, sigma, a.points, b.points)
    usable = torch.isfinite(first).all(-1) & (first != 0).any(-1)
    found["first_usable"] = float(usable.double().mean())
    found["first_cosine"] = measures.cosine(first[usable], observed[usable]) if bool(usable.any()) else float("nan")
    return {name + suffix: value for name, value in found.items()}


def _first_order(bench: Bench, networks: Denoiser, x: Tensor, sigma: float, a: Points, b: Points) -> Tensor:
    """`ṡ` of A′ toward B."""

    def score(y: Tensor, level: Tensor) -> Tensor:
        level = level.mean()  # the engine gives equal levels here
        return (bench.values(networks, y, float(level))[1] - y) / level**2

    return score_derivative(score, x, sigma, Toward(b), log_density=a)


def _cross(f: Tensor) -> float:
    """Other data and other seed: A with B′, A′ with B."""
    return float((0.5 * (measures.rms(f[0] - f[3]) ** 2 + measures.rms(f[1] - f[2]) ** 2)) ** 0.5)


def _within(f: Tensor) -> float:
    """Same data, other seed: A with A′, B with B′."""
    return float((0.5 * (measures.rms(f[0] - f[1]) ** 2 + measures.rms(f[2] - f[3]) ** 2)) ** 0.5)


def _twin(f: Tensor) -> float:
    """Other data, same seed: A with B, A′ with B′."""
    return float((0.5 * (measures.rms(f[0] - f[2]) ** 2 + measures.rms(f[1] - f[3]) ** 2)) ** 0.5)
