"""What the pull of a training point does to an output, for attributors that know only how near a point is."""

from __future__ import annotations

import torch
from torch import Tensor

from studies.attribution.attributors.parameter_gradients import Problem


def pulls(problem: Problem) -> Tensor:
    """`φ(y_i) − φ(x_q)`; of outputs that are not of samples, the sign in which a near point moves them."""
    near = {"loss": -1.0, "density": 1.0}
    name = problem.name.rpartition("-")[2]
    if problem.functional is None:
        return torch.full((len(problem.latents), len(problem.data)), near[name]).to(problem.data)
    size = len(problem.latents)
    values = [problem.functional(point.expand(size, *point.shape)) for point in problem.data]
    return torch.stack(values, 1).detach() - problem.functional(problem.samples.to(problem.data))[:, None]
