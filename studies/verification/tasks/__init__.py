"""The tasks, one module each: definition, inputs, truth, limits and suite.

Lives here: for every quantity that `studies verify` asks for, the laws and inputs of its cases, its truth from the
oracles, how large an error is let pass, and what makes an answer right; `base` says what a task is. May touch: oracles
and the parts of `studies.verification` that pose problems. No task may import the engine, or see what an estimator
answers.
"""

from __future__ import annotations

from studies.errors import StudyError
from studies.study import suggestion
from studies.verification.tasks import (
    attribution,
    denoiser,
    divergence,
    evidence,
    influence,
    jacobian_product,
    log_density,
    log_density_ratio,
    posterior_sample,
    posterior_score,
    sample,
    sample_sensitivity,
    score,
    score_derivative,
)
from studies.verification.tasks.base import SUITES, Case, Task

__all__ = ["RETRAINED", "SUITES", "TASKS", "Case", "Task", "task"]

_MODULES = (
    score,
    denoiser,
    jacobian_product,
    divergence,
    log_density,
    log_density_ratio,
    posterior_sample,
    posterior_score,
    sample,
    score_derivative,
    sample_sensitivity,
    influence,
    evidence,
)
TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in _MODULES}
RETRAINED: dict[str, Task] = {attribution.TASK.name: attribution.TASK}  # judged by retraining, not row by row


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        StudyError: unknown task (near ones are suggested).

    Example:
        >>> task("log-density").question
        'log p_σ(x) in nats, from a black-box score and the exact law at sigma_max'
    """
    known = TASKS | RETRAINED
    if name not in known:
        raise StudyError(f"there is no task {name!r}; {suggestion(name, known)}.")
    return known[name]
