"""Log density along the probability flow with one probe, beside the public packages at equal network evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensitivity import log_density
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.traces import Trace
from sensitivity.jacobians.trial import choose
from sensitivity.noise import Noise
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.sampler.path import integrate_density
from studies.cost.benchmarks import Bound, Setup, _public
from studies.cost.benchmarks._problem import SIGMA_MIN, Problem

__all__ = ["EXPECTED", "OWN", "QUESTION", "SIZES", "compared", "prepare"]

QUESTION = "What does a log density with one probe cost beside the fastest public package?"
COMMON = {"depth": 3, "steps": 7}
MLP = {"kind": "mlp", "width": 704, "data": "digits", "side": 8, "training": 300, "batch": 64, **COMMON}
WIDE = {"kind": "mlp", "width": 512, "data": "fashion", "side": 28, "training": 100, "batch": 32, **COMMON}
UNET = {"kind": "unet", "width": 56, "data": "mnist14", "side": 14, "training": 40, "batch": 4, **COMMON}
SMALL = {"data": "digits", "side": 8, "depth": 2, "training": 5, "batch": 4, "steps": 7}
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, **SMALL}],
    "quick": [MLP],
    "full": [MLP, WIDE, UNET],
}
OWN = "log_density"
EXPECTED = (
    Bound(OWN, tuple(_public.LIKELIHOODS), 1.0, "one backward pass a stage, as they take, and no more around it"),
)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """Heun's method with seven intervals: fourteen evaluations, as in two steps of zuko's solver."""
    problem = Problem.of(parameters, device, seed)
    x = problem.samples()
    return compared(problem, x, "hutchinson", {OWN: lambda: _same_probe(problem, x, seed)})


def compared(problem: Problem, x: Tensor, trace: str, errors: Mapping[str, Any]) -> Setup:
    """The packages and the engine, at states x of level σ_min; the fastest package is the baseline."""
    exact = trace == "exact"
    public = {
        name: lambda run=run: run(problem.path, x, exact)  # the default binds the loop's value
        for name, run in _public.LIKELIHOODS.items()
    }

    def own() -> object:
        return log_density(
            problem.score, x, SIGMA_MIN, anchor=problem.anchor, grid=problem.grid, trace=trace, probes=1, seed=0,
            solver="heun",
        )  # fmt: skip

    alternatives = {**public, OWN: own}
    return Setup(alternatives, problem.counter, problem.moved, references=tuple(public), errors=errors)


class _Kept(Noise):
    """The same signs at every stage, as the packages keep them."""

    def rademacher(self, shape: tuple[int, ...], **rest: Any) -> Tensor:
        """The kept signs (1, batch, *shape)."""
        return self.keys.reshape(1, -1, *shape)


def _same_probe(problem: Problem, x: Tensor, seed: int) -> Tensor:
    """Difference from flow_matching with the same signs kept, relative to the log density, (batch,): the error of its
    Heun steps and ours, since the engine sums log densities from the nodes by a rule of fourth order."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(seed)
        theirs = _public.flow_matching_likelihood(problem.path, x, False)
        torch.manual_seed(seed)
        signs = (torch.randn_like(x.flatten(1)) < 0) * 2.0 - 1.0
    products = choose(Products(problem.score, "reverse"), x, torch.tensor(SIGMA_MIN).to(x))
    with torch.no_grad():
        levels = problem.grid.reversed_from(SIGMA_MIN)
        noise = _Kept(signs.reshape(x.shape))
        trace = Trace.resolve("hutchinson", 1, x[0].numel())
        flow = integrate_density([LocalMap(products, 1.0)], x, levels, trace, noise)
        values = problem.anchor.log_density(flow.x, levels[-1].to(x)) - flow.increments[0, 0]
    return ((values - theirs) / theirs).abs()
