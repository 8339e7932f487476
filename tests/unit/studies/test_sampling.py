"""Plain sampling is the engine's primal."""

import torch
from support.close import assert_close

from sensitivity import Grid, Toward, sample_sensitivity
from studies.bridge import engine_measure, exact_anchor, exact_score
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, problem
from studies.sampling import sample


def test_samples_are_those_of_sample_sensitivity():
    """Assert that leaving out the sensitivity changes no sample, for each solver."""
    case = problem(2, 5)
    grid, latents = Grid(SIGMA_MAX, SIGMA_MIN, 10), torch.from_numpy(case.latents)
    for solver in ("euler", "heun", "exponential"):
        result = sample_sensitivity(
            exact_score(case.base),
            latents,
            Toward(engine_measure(case.toward)),
            grid,
            anchor=exact_anchor(case.base),
            solver=solver,
        )
        assert_close(sample(exact_score(case.base), latents, grid, solver=solver), result.samples, rtol=1e-12)
