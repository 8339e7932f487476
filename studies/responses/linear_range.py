"""How far a run's derivative reaches: `python -m studies.responses.linear_range REGIME` takes minutes of a core.

The derivative of a recorded run in the mass of class 3, dθ/dη, is held against (θ_η − θ_0)/η of the same run, seed and
all, at smaller and smaller η. Where a run is chaotic in its data the two agree at masses far below those of interest.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from studies.responses.bench import RecordedBench
from studies.responses.config import MAIN, Config
from studies.study import Context, suggestion

MASSES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def table(bench: RecordedBench, masses: tuple[float, ...] = MASSES) -> list[tuple[float, float, float, float]]:
    """Rows (η, |θ_η − θ_0|/η, cosine with dθ/dη, slope on it) of the first network; |dθ/dη| stands at η = 0."""
    made, change = bench.runs[0], bench.change(MAIN)
    if change.weights is None:
        raise ValueError(f"the change {MAIN!r} moves no weights of the data; give one that does.")
    start, end = made.points.weights.double().cpu(), change.weights.double().cpu()
    rate = (end / end.sum() - start) / change.eta
    derivative = made.parameter_change(rate[None])[0].double()
    size = float(derivative.norm())
    rows = [(0.0, size, 1.0, 1.0)]
    for eta in masses:
        moved = (made.retrained(start + eta * rate).double() - made.theta.double()) / eta
        length, product = float(moved.norm()), float(moved @ derivative)
        rows.append((eta, length, product / (size * length), product / size**2))
    return rows


def main(name: str) -> None:
    """Print the table of one regime of the full run."""
    torch.set_num_threads(1)
    config = Config.full()
    regimes = {regime.name: regime for regime in config.regimes}
    if name not in regimes:
        raise SystemExit(f"there is no regime {name!r}; {suggestion(name, regimes)}.")
    with tempfile.TemporaryDirectory() as folder:
        context = Context(config, folder=Path(folder) / "run")
        for eta, size, cosine, slope in table(RecordedBench(replace(regimes[name], pairs=1), context)):
            print(f"η = {eta:<7g} size {size:8.3g}   cosine {cosine:6.3f}   slope {slope:7.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mnist14-unet")
