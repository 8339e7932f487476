"""Does the change that B's data would make explain how B differs from A? The engine's sensitivities say what it is.

Every prediction starts from A′ and is held against networks of the other seed, or the seed noise of A would stand on
both sides. `finite`: `g (E_B − f_A′)`, g = p_B/(p_A + p_B), the exact gate at η = ½, predicts the direction of `f_B −
f_A` (half of the mass goes half of the way); the same from B′ toward A's data predicts `f_A − f_B`; both are pooled.
`finitefull`: all of the mass, η = 1, where g = 1: predicts size, too. `smooth`, `smoothfull`: the same with both laws
smoothed by a bandwidth b, see `bandwidth`. `first`: the engine's `score_derivative` of A′ toward B's data; its ratio
r > 0 does not enter the cosine. `path`: the engine's `resample` of A′ at η = ½ predicts how end points of
trajectories move.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensitivity import Grid, Points, Toward, resample, score_derivative
from studies.low_noise import measures
from studies.low_noise.bench import Bench
from studies.low_noise.references import Memory
from studies.networks import Denoiser, split
from studies.sampling import sample

Row = dict[str, Any]
Laws = tuple[Memory, Memory]
PATH = (30.0, 0.03, 24)  # σ_max/τ, σ_min/τ and steps of the predicted trajectories
PATHS = 32
PATH_COUNTS = (100, 1000)
EXACT = 8  # dimensions up to which the divergence is exact


def at_level(bench: Bench, networks: Denoiser, f: Tensor, x: Tensor, sigma: float, laws: dict[str, Laws]) -> Row:
    """Predictions at common states.

    Args:
        f: the four networks at x (4, n, d).
        laws: name ("", "_wrong", "smooth", "smooth_wrong") → laws of A and B.
    """
    row: Row = {}
    for name, pair in laws.items():
        (log_a, a), (log_b, b) = (law.both(x, sigma) for law in pair)
        half = measures.halfway(f[1], b, log_b - log_a), measures.halfway(f[3], a, log_a - log_b)
        kind, _, wrong = name.partition("_")
        for stem, (forth, back) in ((kind, half), (f"{kind}full", (b - f[1], a - f[3]))):
            observed, predicted = f[2] - f[0], forth
            if not wrong:
                observed, predicted = torch.cat([observed, -observed]), torch.cat([forth, back])
            row |= _judged(observed, predicted, f"{stem}_", "_wrong" if wrong else "")
    for suffix in ("", "_wrong"):
        first = _first_order(bench, networks, x, sigma, *(law.points for law in laws[f"finite{suffix}"]))
        usable = torch.isfinite(first).all(-1) & (first != 0).any(-1)
        row[f"first_usable{suffix}"] = float(usable.double().mean())
        right = measures.cosine(first[usable], (f[2] - f[0])[usable]) if bool(usable.any()) else float("nan")
        row[f"first_cosine{suffix}"] = right
    return row


def _judged(observed: Tensor, predicted: Tensor, prefix: str, suffix: str) -> Row:
    return {
        f"{prefix}cosine{suffix}": measures.pooled_cosine(predicted, observed),
        f"{prefix}explained{suffix}": measures.explained(observed, predicted),
        f"{prefix}scale{suffix}": measures.scale(observed, predicted),
    }


def _first_order(bench: Bench, networks: Denoiser, x: Tensor, sigma: float, a: Points, b: Points) -> Tensor:
    """`ṡ` of A′ toward B."""

    def score(y: Tensor, level: Tensor) -> Tensor:
        level = level.mean()  # the engine gives equal levels here
        return (bench.values(networks, y, float(level))[1] - y) / level**2

    return score_derivative(score, x, sigma, Toward(b), log_density=a)


def along_path(bench: Bench, networks: Denoiser, count: int, replicate: int, laws: dict[str, Laws]) -> list[Row]:
    """How trajectories of A′ end when half of the mass becomes B's data, against how those of B and A end."""
    if bench.objective != "edm" or count not in PATH_COUNTS or bench.part.length > 1:
        return []
    clean = bench.problem.fresh(replicate, PATHS)
    high, low, steps = PATH
    latents = clean + high * bench.scale * bench.gaussian(replicate, 98, clean)
    grid = Grid(high * bench.scale, low * bench.scale, steps, "log")
    ends = sample(networks.score, latents.expand(4, *latents.shape), grid)
    twin = split(networks)[1]
    row: Row = {}
    for name, (a, b) in laws.items():
        if name == "smooth_wrong":
            continue
        moved = resample(twin.score, latents, Toward(b.points), 0.5, grid, anchor=a.points, seed=0, **_trace(latents))
        kind, _, wrong = name.partition("_")
        suffix = "_wrong" if wrong else ""
        row |= _judged(ends[2] - ends[0], moved.samples - ends[1], f"{kind}_", suffix)
        row[f"{kind}_ended{suffix}"] = float(moved.outcome.finished.double().mean())
    return [{"kind": "path"} | row]


def _trace(x: Tensor) -> dict[str, Any]:
    """Exact in few dimensions, else probes."""
    return {"trace": "exact"} if x.shape[-1] <= EXACT else {"trace": "hutchinson", "probes": 4}
