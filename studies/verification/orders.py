"""Observed orders: how the error falls with the steps of the grid, the noise with the probes, the quotient with η.

Each is the slope of a fit of log error in log size over the sizes tried, its sign reversed for steps and probes.
Expected are p in the number of steps for a solver of order p, 1/2 in the number of probes, and 1 in η for a right
derivative (0 for a wrong one).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from oracles import AdditivePerturbation, flow
from studies.verification import metrics
from studies.verification.backends import Backend
from studies.verification.judge import Verdict
from studies.verification.laws import oracle
from studies.verification.replies import Estimator, call
from studies.verification.tasks.base import Arrays, Case, Task
from studies.verification.truths import prepared

__all__ = ["observed", "slope"]

STEPS = (16, 32, 64, 128)
PROBES, PROBE_REPEATS = (4, 16), 12
ETAS = (3e-2, 1e-2, 3e-3)
FLOOR = 1e-10


def slope(sizes: tuple[float, ...], errors: list[float]) -> float:
    """Least-squares slope of log error in log size; NaN where an error lies at rounding (below 1e-10).

    Example:
        >>> round(slope((1.0, 2.0, 4.0), [1.0, 0.25, 0.0625]), 6)
        -2.0
    """
    # Rounding has order 0: one such error would tilt the whole line.
    if min(errors) < FLOOR or not np.all(np.isfinite(errors)):
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def observed(
    estimator: Estimator, task: Task, library: Backend, seed: int, verdicts: list[Verdict]
) -> list[dict[str, Any]]:
    """Orders on the first cheap case that was answered: steps and η of deterministic estimates, probes of others."""
    noisy = next((v for v in verdicts if len(v.replies) > 2 and _usable(v)), None)
    orders = []
    if noisy is not None and "probes" in task.inputs:
        orders.append(_in_probes(estimator, task, noisy.case, library, seed))
    verdict = next((v for v in verdicts if len(v.replies) == 1 and _usable(v)), None)
    if verdict is None:
        return [entry for entry in orders if entry]
    if verdict.case.steps and "grid" in task.inputs and task.name != "score-derivative":
        orders.append(_in_steps(estimator, task, verdict.case, library, seed))
    if task.name in ("score-derivative", "sample-sensitivity"):
        orders.append(_in_eta(task, verdict, seed))
    return [entry for entry in orders if entry]


def _usable(verdict: Verdict) -> bool:
    case = verdict.case
    if case.judge != "rows" or case.base.dimension != 2 or not verdict.applicable:
        return False
    return all(reply.value is not None for reply in verdict.replies)


def _in_steps(estimator: Estimator, task: Task, case: Case, library: Backend, seed: int) -> dict[str, Any]:
    inputs, truth = prepared(task, case, seed)
    errors = []
    for steps in STEPS:
        reply = call(estimator, task, replace(case, steps=steps), inputs, truth.shape, library, seed)
        if reply.value is None:
            return {}
        errors.append(float(np.median(metrics.errors(reply.value[None], truth))))
    if len(set(errors)) == 1:  # the estimator has a discretisation of its own
        return {}
    return {"in": "steps", "problem": case.name, "sizes": list(STEPS), "errors": errors, "order": -slope(STEPS, errors)}


def _in_probes(estimator: Estimator, task: Task, case: Case, library: Backend, seed: int) -> dict[str, Any]:
    """How the standard deviation over seeds falls with the number of probes; empty if the estimator ignores it."""
    inputs, truth = prepared(task, case, seed)
    noises = []
    for probes in PROBES:
        asked = replace(case, probes=probes)
        replies = [call(estimator, task, asked, inputs, truth.shape, library, seed + r) for r in range(PROBE_REPEATS)]
        if any(reply.value is None for reply in replies):
            return {}
        noises.append(
            float(np.median(metrics.deviation(np.stack([reply.value for reply in replies if reply.value is not None]))))
        )
    # Four times the probes halve the noise; an estimator that keeps seven tenths of it does not heed their number.
    if noises[-1] > 0.7 * noises[0]:
        return {}
    return {
        "in": "probes",
        "problem": case.name,
        "sizes": list(PROBES),
        "errors": noises,
        "order": -slope(tuple(map(float, PROBES)), noises),
    }


def _in_eta(task: Task, verdict: Verdict, seed: int) -> dict[str, Any]:
    inputs, _ = prepared(task, verdict.case, seed)
    value = verdict.replies[0].value
    errors = [_quotient_error(task, verdict.case, inputs, value, eta) for eta in ETAS]
    return {
        "in": "eta",
        "problem": verdict.case.name,
        "sizes": list(ETAS),
        "errors": errors,
        "order": slope(ETAS, errors),
    }


def _quotient_error(task: Task, case: Case, inputs: Arrays, value: Any, eta: float) -> float:
    """Median over rows of |(exact at η − exact at 0)/η − value| / |value|."""
    perturbation = AdditivePerturbation(oracle(case.base), oracle(case.other))
    ends = []
    for law in (perturbation.at(eta), perturbation.base):
        if task.name == "score-derivative":
            ends.append(law.noised(case.sigma).score(inputs["x"]))
        else:
            ends.append(flow.sample(law, inputs["latents"], case.sigma_max, case.sigma))
    gap = np.linalg.norm((ends[0] - ends[1]) / eta - value, axis=1)
    return float(np.median(gap / np.maximum(np.linalg.norm(value, axis=1), np.finfo(float).tiny)))
