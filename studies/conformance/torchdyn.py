"""torchdyn: its solvers on the probability flow of a known law, and the traces of its continuous normalising flow.

The flow's module is loaded by itself: the import of the package around it asks for a trainer.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, converging, exact, flat_of_package, relative
from studies.conformance.torchdiffeq import SIGMA_MAX, SIGMA_MIN, ends, field

__all__ = ["CHECKS"]

PACKAGE = "torchdyn"
FIXED = {"euler": 1.0, "midpoint": 2.0, "rk4": 4.0}
ADAPTIVE = ("dopri5", "tsit5")


def odeint(x: Tensor, times: Tensor, method: str, **options: float) -> Tensor:
    """The end of the flow's path; adaptive solvers ask at times of shape (1,)."""
    from torchdyn.numerics import odeint as theirs

    return torch.as_tensor(theirs(lambda t, y: field(t.reshape(()), y), x, times, method, **options)[1][-1])


def flows() -> Any:
    """`torchdyn.models.cnf` alone."""
    if "torchdyn.models" not in sys.modules:
        files = importlib.metadata.files(PACKAGE) or []
        place = next(file for file in files if file.name == "cnf.py")
        package = ModuleType("torchdyn.models")
        package.__path__ = [str(Path(str(place.locate())).parent)]
        sys.modules["torchdyn.models"] = package
    return importlib.import_module("torchdyn.models.cnf")


def fixed(method: str, size: int, stated: float) -> Measured:
    """A fixed-step solver and its order; time runs down."""
    x = exact().states(8, SIGMA_MAX, 5)

    def run(steps: int) -> Tensor:
        times = torch.linspace(float(ends()[0]), float(ends()[1]), steps + 1, dtype=torch.float64)
        return odeint(x, times, method)

    return converging(run, exact().end(x, SIGMA_MAX, SIGMA_MIN), [16 * size, 32 * size, 64 * size], 0.1, stated)


def adaptive(method: str) -> Measured:
    """An adaptive solver at rtol 1e-7."""
    x = exact().states(8, SIGMA_MAX, 5)
    end = odeint(x, ends(), method, atol=1e-8, rtol=1e-7)
    return Measured(relative(end, exact().end(x, SIGMA_MAX, SIGMA_MIN)), 1e-5)


def trace(kind: str, seed: int, size: int) -> Measured:
    """The divergence that the flow carries, exact, or of probes averaged over repeats in standard errors."""
    cnf = flows()
    sigma, repeats = torch.tensor(0.4, dtype=torch.float64), 2000 * size
    x = exact().states(4, 0.4, 3)
    true = exact().torch.noised(sigma).score_divergence(x)
    one = torch.ones_like(sigma)
    flow = cnf.CNF(lambda y: exact().score(y, one, sigma), getattr(cnf, kind), noise_dist=object())
    rows = x if kind == "autograd_trace" else x.repeat_interleave(repeats, 0)
    flow.noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    divergences = -flow(torch.cat([torch.zeros_like(rows[:, :1]), rows], 1))[:, 0].detach()
    if kind == "autograd_trace":
        return Measured(relative(divergences[:, None], true[:, None]), 1e-9)
    divergences = divergences.reshape(4, repeats)
    gap = (divergences.mean(1) - true).abs() / (divergences.std(1) / repeats**0.5)
    return Measured(float(gap.max()), 5.0, "standard errors")


_check = flat_of_package(PACKAGE)
CHECKS = (
    *[_check(m, "solver", lambda seed, size, m=m, o=o: fixed(m, size, o)) for m, o in FIXED.items()],
    *[_check(m, "solver", lambda seed, size, m=m: adaptive(m)) for m in ADAPTIVE],
    _check("divergence-exact", "density", lambda seed, size: trace("autograd_trace", seed, size)),
    _check("divergence-hutchinson", "density", lambda seed, size: trace("hutch_trace", seed, size)),
)
