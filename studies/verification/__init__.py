"""Verification: any estimator held against the truth on named problems.

An estimator is a function of one problem, `f(problem) -> value` or `(value, standard_error)`. `verify` poses every
problem of a task, compares with the exact answer, and reports errors, bias and noise apart, whether standard errors are
honest, observed orders and cost. From the command line:

    studies verify MODULE:CALLABLE --task TASK [--suite quick|full] [--backend torch|numpy|jax] [--out DIR]

exits with 0 if the estimator holds, 1 if it falls short, 2 if it could not run; `studies verify --engine` does so for
this package's own estimators. `studies.verification.walkthrough` shows one failing and mended;
`studies.verification.faults` holds wrong estimators that must be, and are, rejected for their own reasons, and
`studies.verification.power` says how small a fault is seen. In your own tests: the fixture `verify` of
`studies.pytest_plugin`.

How verdicts come about: a row's *limit* is `atol + rtol |truth|` of its task. A deterministic estimate holds if the
stated share of rows keeps within the limit. An estimate that changes with `problem.seed` is run 16 times (64 times if
cheap; more often until its error bars are told right or wrong) and judged by three checks that do not mix: bias (what
noise cannot explain at one in a million), noise, and reported over observed standard deviation. Draws of posteriors
are judged together, by ranks and by energy distance.

Example:
    >>> import torch
    >>> def score(problem):  # a mixture's score, by automatic differentiation of its log density
    ...     law, x = problem.law, problem.x.requires_grad_()
    ...     eye = torch.eye(x.shape[1], dtype=x.dtype)
    ...     spread = problem.alpha**2 * law.covariances + problem.sigma**2 * eye
    ...     normal = torch.distributions.MultivariateNormal(problem.alpha * law.means, spread)
    ...     log_density = (law.weights.log() + normal.log_prob(x[:, None])).logsumexp(1)
    ...     return torch.autograd.grad(log_density.sum(), x)[0]
    >>> verify(score, "score", problems=["plane-s0.5-alpha", "five-s0.2"]).holds
    True
"""

from studies.verification.describe import describe
from studies.verification.problem import Problem
from studies.verification.report import Report
from studies.verification.session import reproduce, verify
from studies.verification.tasks import TASKS, Case, Task, task

__all__ = ["TASKS", "Case", "Problem", "Report", "Task", "describe", "reproduce", "task", "verify"]
