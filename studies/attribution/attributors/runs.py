"""Attributors that go through a training run again: products along it, and its derivative."""

from __future__ import annotations

from functools import partial
from typing import Any

from studies.attribution.attributors.parameter_gradients import Gradients, Problem, kept

INNER = 1e-6  # under the square root of the recorded run's Adam


def tracin(problem: Problem) -> Any:
    """TracIn (arXiv 2002.08484): products at six checkpoints, weighted by the learning rates there."""
    if problem.recipe is None:
        return NotImplemented
    from studies.training.loop import TrainingRun

    recipe = problem.recipe
    marks = [recipe.steps * (2 * part + 1) // 12 for part in range(6)]

    def way() -> list[Any]:
        return list(TrainingRun(recipe, problem.data, (None,), (0,), None, "cpu").on_the_way(marks))

    states = kept("way", Gradients(problem, outputs=False), way)
    total: Any = 0.0
    for step, state in zip(marks, states, strict=True):
        problem.network.load_state_dict(state)
        of = Gradients(problem)
        g = kept(f"points at {step}", of, partial(of.points, problem.loss), states[-1])
        total = total - recipe.rate_at(step) * of.gradients @ g.T
    return total


def unrolled(problem: Problem) -> Any:
    """The derivative of the training run (arXiv 2504.16430): the run made again, the outputs pulled back through it.

    Of perceptrons: 32 outputs back through a thousand steps take three to four minutes of one core. Adam's square root
    keeps off zero, where it has no derivative, so that this run ends a little elsewhere than the problem's.
    """
    if problem.recipe is None or problem.recipe.architecture.kind != "mlp":
        return NotImplemented
    from studies.training.descent import Adam
    from studies.training.record import record

    def made() -> Any:
        return record(problem.recipe, problem.data, seed=0, rule=Adam(inner=INNER))

    run = kept("recorded", Gradients(problem, outputs=False), made)
    problem.network.load_state_dict(run.module.state_dict())
    return run.pull(Gradients(problem).gradients)
