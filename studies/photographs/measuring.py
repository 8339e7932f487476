"""Every quantity of a model, three times: a base setting, other probes, and a grid of twice the steps.

`differences` and `errors` of a row are by sample: how far two settings lie apart, and what they state. Two settings
with independent errors state `√(e₁² + e₂²)`, e a standard error; stated errors of grids are upper estimates and add.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sensitivity import Estimate, Points, influence, log_density, sample_sensitivity
from sensitivity.sampler.outcome import Outcomes
from studies.photographs.models import SIGMA_MIN, Model
from studies.running.memory import peak_since

Row = dict[str, Any]
NONE = "not judged"  # an `Estimate` states errors, and leaves it to its reader what is too large


class Setting(NamedTuple):
    """What is varied."""

    name: str
    steps: int
    seed: int


class Measured(NamedTuple):
    """One quantity in one setting.

    Attributes:
        value: (batch, *any).
        random: its standard error, (batch,).
        stated: other stated errors of its norm, (batch,).
        result: what the engine returned.
        seconds: that it took.
        megabytes: the most that the process held, in all.
    """

    value: Tensor
    random: Tensor
    stated: Tensor
    result: Any
    seconds: float
    megabytes: float


def settings(steps: int) -> tuple[Setting, Setting, Setting]:
    """Base, other probes, twice the steps (with other probes too: errors of the two grids are then independent)."""
    return Setting("base", steps, 0), Setting("probes", steps, 1), Setting("grid", 2 * steps, 2)


def sensitivities(model: Model, ratio: str, setting: Setting) -> Measured:
    """δ of every latent, by the ratio "flow" or "kernel"."""
    needs = {"anchor": model.anchor} | randomness(model, setting) if ratio == "flow" else {}
    result, *cost = timed(
        lambda: sample_sensitivity(model.score, model.latents, model.change(ratio), model.grid(setting.steps), **needs),
        model.latents.device,
    )
    stated = (
        model.latents.new_zeros(len(model.latents)) if result.sensitivity_error is None else result.sensitivity_error
    )
    return Measured(result.sensitivity, torch.zeros_like(stated), stated, result, *cost)


def influences(model: Model, setting: Setting) -> Measured:
    """dφ/dη toward every training patch, φ the mean brightness; stated by `relative_error` of the vector's length."""
    points = Points(model.data[0], bandwidth=model.bandwidth)
    result, *cost = timed(
        lambda: influence(
            model.score, model.latents, model.functional, points, model.grid(setting.steps),
            anchor=model.anchor, rates=model.rates, **randomness(model, setting),
        ),
        model.latents.device,
    )  # fmt: skip
    stated = result.relative_error * result.values.norm(dim=-1)
    return Measured(result.values, torch.zeros_like(stated), stated, result, *cost)


def densities(model: Model, states: Tensor, setting: Setting, **other: Any) -> Measured:
    """log p at σ_min of fixed states; guided, of the branch with the label."""
    score, anchor = model.branch
    options = randomness(model, setting) | {"control": anchor} | other
    result, *cost = timed(
        lambda: log_density(score, states, SIGMA_MIN, anchor=anchor, grid=model.grid(setting.steps), **options),
        states.device,
    )
    grid = torch.as_tensor(result.grid_error).expand(len(states))
    return Measured(result.value, result.standard_error, grid, result, *cost)


def randomness(model: Model, setting: Setting) -> Row:
    """Probes, their seed, and the Gaussian whose divergence they need not see."""
    return {"trace": "hutchinson", "probes": model.bench.config.probes, "seed": setting.seed, "control": model.plain}


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float, float]:
    """What the work returned, its seconds, and the most memory that was held during it, in megabytes: by the process,
    or on the GPU that did it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    with peak_since() as peak:
        start = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return result, time.perf_counter() - start, torch.cuda.max_memory_allocated(device) / 2**20
        return result, time.perf_counter() - start, peak() / 2**20


def compared(first: Measured, second: Measured) -> tuple[Tensor, Tensor]:
    """How far two settings lie apart, and the error that they state together, both (batch,)."""
    distance = (first.value - second.value).reshape(len(first.value), -1).double().norm(dim=1)
    return distance, torch.hypot(first.random, second.random) + first.stated + second.stated


def run_row(model: Model, quantity: str, setting: Setting, found: Measured) -> Row:
    """Outcomes, sizes, time and memory of one setting."""
    sizes = found.value.reshape(len(found.value), -1).double().norm(dim=1)
    finite = torch.isfinite(found.value.reshape(len(found.value), -1)).all(dim=1)
    told = {NONE: len(sizes)} if isinstance(found.result, Estimate) else counted(found.result.outcome)
    return {
        "kind": "run",
        "model": model.name,
        "quantity": quantity,
        "setting": setting.name,
        "steps": setting.steps,
        "samples": len(sizes),
        "finite": int(finite.sum()),
        "outcomes": "; ".join(f"{name} {count}" for name, count in told.items()),
        "sizes": sizes.tolist(),
        "random": found.random.tolist(),
        "stated": found.stated.tolist(),
        "seconds": found.seconds,
        "megabytes": found.megabytes,
    }


def agreement_row(model: Model, quantity: str, other: str, first: Measured, second: Measured) -> Row:
    """Two settings side by side."""
    distance, stated = compared(first, second)
    return {
        "kind": "agreement",
        "model": model.name,
        "quantity": quantity,
        "setting": other,
        "differences": distance.tolist(),
        "errors": stated.tolist(),
    }


def counted(outcomes: Outcomes) -> dict[str, int]:
    """How many samples had each outcome."""
    return dict(Counter(outcomes[k].name for k in range(len(outcomes))))
