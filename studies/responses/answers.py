"""The responses, each as predicted changes η δ of the samples of one network, with what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensitivity import (
    DenoisingLoss,
    KernelRatio,
    LocalResponse,
    ParameterResponse,
    SampleSensitivity,
    Toward,
    UnrolledResponse,
    as_score,
    sample_sensitivity,
)
from studies.responses.bench import RecordedBench, flat
from studies.retraining.bench import OBJECTIVE
from studies.retraining.changes import Change
from studies.retraining.predictors import random_trace, use_exact
from studies.training.record import TrainingRecord

WithResidual = tuple[SampleSensitivity, float]  # of the solution that the answer took


@dataclass(frozen=True)
class Answer:
    """What a response says.

    Attributes:
        change: predicted changes (n, pixels).
        evaluations: of the network for each latent, gradients and runs included.
        seconds: of all latents.
        residual: relative residual of the solution that it took, NaN where it took none.
    """

    change: np.ndarray
    evaluations: float
    seconds: float
    residual: float = math.nan


def answers(bench: RecordedBench, made: TrainingRecord, change: Change) -> dict[str, Answer]:
    """What each response says that applies to the change, for the samples of one recorded network."""
    calls: dict[str, Callable[[], WithResidual | None]] = {
        "population": lambda: _population(bench, made, change),
        "kernel": lambda: _kernel(bench, made, change),
        "local": lambda: _local(bench, made, change),
        "parameters": lambda: _parameters(bench, made, change),
        "unrolled": lambda: _unrolled(bench, made, change),
    }
    answered = {}
    for name, call in calls.items():
        start = time.perf_counter()
        result = call()
        if result is not None:
            seconds, values = time.perf_counter() - start, change.eta * flat(result[0].sensitivity).numpy()
            answered[name] = Answer(values, cost(result[0]), seconds, result[1])
    return answered


def cost(result: SampleSensitivity) -> float:
    """Evaluations on the path, and those away from it shared among the latents."""
    return float(result.cost.evaluations + result.cost.products + result.cost.away / len(result.samples))


def _asked(bench: RecordedBench, made: TrainingRecord, perturbation: Any, **options: Any) -> WithResidual:
    score = options.pop("score", None) or as_score(made.module, "denoiser")
    result: SampleSensitivity = sample_sensitivity(score, bench.latents, perturbation, bench.grid, **options)
    return result, float(getattr(options.get("response"), "residual", math.nan))


def _population(bench: RecordedBench, made: TrainingRecord, change: Change) -> WithResidual:
    options: dict[str, Any] = {"trace": "exact"} if use_exact(bench) else random_trace(bench)
    return _asked(bench, made, change.perturbation, anchor=bench.anchor, **options)


def _kernel(bench: RecordedBench, made: TrainingRecord, change: Change) -> WithResidual | None:
    if change.edited is not None:
        return None
    return _asked(bench, made, Toward(KernelRatio(change.added, bench.train.images, bench.bandwidth)))


def _local(bench: RecordedBench, made: TrainingRecord, change: Change) -> WithResidual | None:
    if change.edited is not None:
        return None
    config = bench.context.config
    response = LocalResponse(bench.train.images, levels=config.levels, states=config.states)
    return _asked(bench, made, bench.sharp(change.name).perturbation, response=response)


def _parameters(bench: RecordedBench, made: TrainingRecord, change: Change) -> WithResidual:
    config, scale = bench.context.config, made.module.scale
    loss = DenoisingLoss(scale=scale, quantile=lambda u: OBJECTIVE.quantile(u, scale), draws=config.draws)
    score = as_score(made.module, "denoiser")
    response = ParameterResponse(
        score, loss, bench.train.images, "ggn", pairs=config.products, steps=config.solve, tolerance=1e-3
    )
    return _asked(bench, made, bench.sharp(change.name).perturbation, score=score, response=response)


def _unrolled(bench: RecordedBench, made: TrainingRecord, change: Change) -> WithResidual:
    return _asked(bench, made, bench.sharp(change.name).perturbation, response=UnrolledResponse(made))


def baselines(unrolled: np.ndarray) -> dict[str, np.ndarray]:
    """What is predicted without the latent, or with another's.

    Example:
        >>> sorted(baselines(np.eye(2)))
        ['another latent', 'mean over latents', 'zero']
    """
    mean = np.broadcast_to(unrolled.mean(0), unrolled.shape)
    return {"zero": np.zeros_like(unrolled), "another latent": np.roll(unrolled, 1, axis=0), "mean over latents": mean}


def mean_of(each_run: list[dict[str, Answer]]) -> dict[str, Answer]:
    """The mean answer of several networks; costs are means too."""
    return {
        name: Answer(*(np.mean([getattr(each[name], part) for each in each_run], axis=0) for part in PARTS))
        for name in each_run[0]
    }


PARTS = ("change", "evaluations", "seconds", "residual")


def clean(values: np.ndarray) -> np.ndarray:
    """Changes that are not finite count as none; how many is reported beside them."""
    finite = np.isfinite(values).all(axis=-1, keepdims=True)
    return np.where(finite, np.nan_to_num(values), 0.0)


def unfinished(values: np.ndarray) -> int:
    """How many latents have no finite prediction."""
    return int((~np.isfinite(values).all(axis=-1)).sum())
