"""Laws of the study, and what an estimator may know of one: a score, an anchor and draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import GaussianAnchor, Grid, Mixture, Score
from studies.bridge import engine_measure
from studies.convergence.problems import problem as near_problem

SIGMA, SIGMA_MAX = 0.05, 20.0
DRAWS = 4000


def far(dimension: int) -> GaussianMixture:
    """Three components whose distance grows as √d, full covariances, unequal weights."""
    rng = np.random.default_rng([11, dimension])
    raw = rng.uniform(0.5, 2.0, 3)
    means = 1.5 * rng.standard_normal((3, dimension)) + 0.3
    factors = rng.standard_normal((3, dimension, dimension)) / np.sqrt(dimension)
    covariances = 0.3 * (factors @ factors.swapaxes(1, 2) + 0.05 * np.eye(dimension))
    return GaussianMixture(raw / raw.sum(), means, covariances)


def near(dimension: int) -> GaussianMixture:
    """Overlapping components: the base law of the study `convergence`."""
    return near_problem(dimension, 1).base


LAWS: dict[str, Callable[[int], GaussianMixture]] = {"far": far, "near": near}


@dataclass(frozen=True)
class Setup:
    """What an estimator is given.

    Attributes:
        score: s(x, σ).
        data: draws (N, *shape) of the law, float64.
        law: log density at SIGMA_MAX by an exact law, as a control; None takes the moment-matched Gaussian.
    """

    score: Score
    data: Tensor
    law: Any = None

    @property
    def end(self) -> Any:
        """What gives the log density at SIGMA_MAX."""
        return self.anchor if self.law is None else self.law

    @cached_property
    def anchor(self) -> GaussianAnchor:
        """The moment-matched Gaussian."""
        return GaussianAnchor.from_data(self.data)

    @cached_property
    def low_rank(self) -> GaussianAnchor:
        """The moment-matched Gaussian with an eighth of the directions, the others sharing their mean variance."""
        return GaussianAnchor.from_data(self.data, rank=max(1, self.data[0].numel() // 8))

    @cached_property
    def fitted(self) -> Mixture:
        """A mixture of three components fitted to the draws by expectation maximisation (scikit-learn)."""
        from sklearn.mixture import GaussianMixture as Fit

        fit = Fit(3, reg_covar=1e-4, random_state=0, max_iter=50).fit(self.data.flatten(1).numpy())
        parts = (fit.weights_, fit.means_, fit.covariances_)
        return Mixture(*(torch.from_numpy(np.asarray(part)) for part in parts))

    @property
    def grid(self) -> Grid:
        """The formula's range of levels."""
        return Grid(SIGMA_MAX, SIGMA, 1)


def exact_setup(law: GaussianMixture, seed: int = 5, *, exact_anchor: bool = False) -> Setup:
    """The engine's own mixture as score (it shares no code with the oracle that gives the truth)."""
    measure = engine_measure(law)
    draws = torch.from_numpy(np.asarray(law.sample(DRAWS, seed)))
    return Setup(measure.score, draws, measure if exact_anchor else None)


def noisy_states(law: GaussianMixture, count: int, seed: int) -> Tensor:
    """Draws of the law at level SIGMA, (count, d)."""
    return torch.from_numpy(np.asarray(law.noised(SIGMA).sample(count, seed)))


def truth(law: GaussianMixture, x: Tensor, sigma: float = SIGMA) -> Tensor:
    """`log p_σ(x)` by the oracle, (count,)."""
    return torch.from_numpy(np.asarray(law.noised(sigma).log_density(x.numpy())))
