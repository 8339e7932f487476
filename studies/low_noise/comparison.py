"""The four networks A, A′, B, B′ of one N and replicate against each other and their references at common states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.low_noise import measures
from studies.low_noise.bench import MANY, Bench
from studies.low_noise.references import Memory

Row = dict[str, Any]


def compare(bench: Bench, f: Tensor, x: Tensor, sigma: float, kind: str, memories: tuple[Memory, Memory]) -> Row:
    """Distances, relative to the residual of A where not said otherwise.

    Args:
        f: the four networks at the states (4, n, d).
        x: states (n, d). own: the empirical laws of A and B.
    """
    size = measures.rms(f[0] - x)
    row = shares(f, size, whole=kind in ("on", "off")) | {
        "size": size / (sigma * x.shape[-1] ** 0.5),
        "cosine": measures.cosine(f[0] - x, f[3] - x),
        "cosine_within": measures.cosine(f[0] - x, f[1] - x),
    }
    finite, empirical = torch.isfinite(f).all(), None
    if kind == "on" or len(memories[0].points) <= MANY:
        empirical = remembered(bench, memories[0], x, sigma)
        finite &= torch.isfinite(empirical).all()
        row["to_empirical"] = measures.rms(f[0] - empirical) / (sigma * x.shape[-1] ** 0.5)
    if kind == "on" and empirical is not None:
        other = remembered(bench, memories[1], x, sigma)
        finite &= torch.isfinite(other).all()
        row["empirical"] = measures.rms(empirical - other) / max(measures.rms(empirical - x), 1e-300)
    return row | {"finite": float(finite)} | _placed(bench, f[0], empirical, x, sigma)


def remembered(bench: Bench, law: Memory, x: Tensor, sigma: float) -> Tensor:
    """What a network that memorised would compute."""
    if bench.objective == "blind":
        return law.untold(x, bench.noise, bench.scale)
    return law.denoiser(x, sigma)


def shares(f: Tensor, size: float, *, whole: bool = True) -> Row:
    """What data and what seeds do, relative to `size`; `whole` False: the control is A with A′ alone.

    `cross`: other data, other seed. `within`: same data, other seed. `twin`: other data, same seed. `data_square`: the
    shared part of the last, signed; `data_part`: its root (0 where negative). `reproduced`: their cosine over seeds.
    """
    within = measures.rms(f[0] - f[1]) if not whole else _pooled(f[0] - f[1], f[2] - f[3])
    square = measures.shared(f[0] - f[2], f[1] - f[3]) / size**2
    return {
        "cross": _pooled(f[0] - f[3], f[1] - f[2]) / size,
        "within": within / size,
        "twin": _pooled(f[0] - f[2], f[1] - f[3]) / size,
        "data_square": square,
        "data_part": max(0.0, square) ** 0.5,
        "reproduced": measures.pooled_cosine(f[0] - f[2], f[1] - f[3]),
    }


def _pooled(first: Tensor, second: Tensor) -> float:
    return measures.rms(torch.cat([first, second]))


def _placed(bench: Bench, f: Tensor, empirical: Tensor | None, x: Tensor, sigma: float) -> Row:
    """Errors to the population's denoiser and score, and the place between it and the empirical one."""
    if bench.population is None:
        return {}
    exact = bench.population(x, sigma)
    unit = sigma * x.shape[-1] ** 0.5
    error = measures.rms(f - exact)
    placed = {
        "to_population": error / unit,
        "score_error": error * bench.scale / sigma**2 / x.shape[-1] ** 0.5,
        "relative_error": error / max(measures.rms(exact - x), 1e-300),
        "exact_finite": float(torch.isfinite(exact).all()),
    }
    return placed if empirical is None else placed | {"place": measures.place(f, exact, empirical)}
