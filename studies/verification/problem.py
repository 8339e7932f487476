"""What an estimator is given: the problem, its black boxes and the meter that counts their use.

A `Problem` carries what its task needs and never the answer. All states are in variance-exploding coordinates
(`x = z/α`, noise level `σ`), arrays are float64 of the chosen library, and rows are independent: row i of the value
belongs to row i of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

__all__ = ["Anchor", "BlackBox", "BudgetError", "Functional", "Levels", "Measure", "Meter", "Perturbation", "Problem"]

FIELDS = {
    "score": "black box `score(x, sigma)`: `s_σ(x)` like x (n, d); sigma a scalar or (n,); counted",
    "denoiser": "black box `denoiser(x, sigma)`: `E[X | X_σ = x]`; counted",
    "log_density": "black box `log_density(x, sigma)`: `log p_σ(x)` (n,), nats",
    "anchor": "`anchor.log_density(x, sigma)`: exact `log p_σ`, known at sigma_max and above only",
    "law": "parameters of the data law: `weights, means, covariances` (and `form, variances, factors`)",
    "x": "states (n, d)",
    "sigma": "the noise level, a number",
    "alpha": "the signal factor α of z = αx + σε, a number (1 except where the task says so)",
    "vectors": "directions (n, d)",
    "latents": "states at sigma_max (n, d), already scaled",
    "grid": "`sigma_max, sigma_min, steps, levels`: a proposal; any other discretisation is as good",
    "perturbation": "`kind` (`'toward'`) and `measure`: ν in full, with `log_density(x, sigma)` and `score(x, sigma)`",
    "data": "points (N, d)",
    "functional": "`functional(x)`: samples (n, d) -> (n,); also `functional.gradient(x)` (n, d); None where an output "
    "is not one of samples",
    "operator": "`A` (p, d) of the linear observation y = A X + n",
    "noise": "the variance of n in every direction, a number: R = noise I",
    "observation": "one observation y (p,)",
    "observations": "observations y, one a row (n, p)",
    "network": "the trained denoiser `network(x, sigma)`, a PyTorch module for images (n, 1, h, w); calls are counted",
    "levels": "the sampler's noise levels, descending; Heun's method",
    "samples": "what the network makes of the latents (n, 1, h, w)",
    "output": "`output(denoise)`: the outputs (n,) asked of a denoiser, differentiable; the n queries",
    "loss": "`loss(denoise, clean, sigma, noise)` (rows,), the training loss; `loss.draw(count, like, seed)`",
    "recipe": "how the network was trained (`studies.training.Recipe`), or None where training is exact",
    "count": "how many draws are asked for",
    "probes": "how many random probes to use, if any are",
    "seed": "the only source of randomness; another repeat has another seed",
}


class Problem:
    """One problem as the estimator sees it; fields that the task does not give raise, naming those it does.

    Args:
        name: the problem's name in its suite.
        task: the task's name.
        fields: see `FIELDS` for the meaning of each.

    Raises:
        AttributeError: a field that this task does not give.

    Example:
        >>> problem = Problem("plane", "score", {"sigma": 0.5})
        >>> problem.sigma
        0.5
        >>> problem.latents
        Traceback (most recent call last):
        AttributeError: a 'score' problem has no 'latents'; it has sigma.
    """

    def __init__(self, name: str, task: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.task = task
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._fields:
            raise AttributeError(f"a {self.task!r} problem has no {name!r}; it has {', '.join(self._fields)}.")
        return self._fields[name]

    def __dir__(self) -> list[str]:
        return ["name", "task", *self._fields]

    def __repr__(self) -> str:
        lines = [f"    {name}: {FIELDS[name]}" for name in self._fields]
        return "\n".join([f"Problem {self.name!r} of task {self.task!r} with", *lines])


class BudgetError(RuntimeError):
    """The estimator used up the score calls that the task allows."""


class Meter:
    """Counts calls of the black boxes, and the rows evaluated in them.

    A call inside `vmap` counts once with the rows of one example, and one inside `jax.jit` once, when it is traced.

    Args:
        budget: the number of calls after which `BudgetError` is raised.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.calls = 0
        self.rows = 0

    def watch(self, function: Callable[[Any, Any], Any]) -> BlackBox:
        """The same function, counted."""

        def counted(x: Any, sigma: Any) -> Any:
            self.calls += 1
            self.rows += int(np.prod(tuple(x.shape[:-1])))
            if self.calls > self.budget:
                raise BudgetError(f"more than {self.budget} score calls; batch the rows, or use fewer steps.")
            return function(x, sigma)

        return BlackBox(counted)


_INSIDE: WeakKeyDictionary[BlackBox, Callable[[Any, Any], Any]] = WeakKeyDictionary()


class BlackBox:
    """A function that does not carry what it computes with: no attribute and no closure leads there."""

    __slots__ = ("__weakref__",)

    def __init__(self, function: Callable[..., Any]) -> None:
        _INSIDE[self] = function

    def __call__(self, *arguments: Any) -> Any:
        return _INSIDE[self](*arguments)

    def __copy__(self) -> BlackBox:
        return self

    def __deepcopy__(self, memo: Any) -> BlackBox:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a problem's black box cannot be pickled: it belongs to this process.")


@dataclass(frozen=True)
class Levels:
    """Noise levels from `sigma_max` down to `sigma_min`: `levels` (steps + 1,), see `karras`."""

    sigma_max: float
    sigma_min: float
    steps: int
    levels: Any


def karras(sigma_max: float, sigma_min: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """`σ_i = (σ_max^(1/ρ) + (i/n)(σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ` (arXiv 2206.00364, eq. 5), i = 0…n, descending."""
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps + 1) ** rho
    ramp[0], ramp[-1] = sigma_max, sigma_min
    return ramp


class Anchor:
    """The exact log density at and above `sigma_max`; below it that would be the answer, and is refused.

    Args:
        function: `log p_σ(x)`.
        sigma_max: the lowest level at which it may be asked.
        mean: mean of the data law (d,).
        covariance: covariance of the data law (d, d).
    """

    def __init__(self, function: Callable[[Any, Any], Any], sigma_max: float, mean: Any, covariance: Any) -> None:
        def log_density(x: Any, sigma: Any) -> Any:
            lowest = float(sigma if np.ndim(sigma) == 0 else sigma.min())
            # An answer may hand back σ_max from its own float64 grid, one rounding lower.
            if lowest < sigma_max * (1 - 1e-12):
                raise ValueError(f"the anchor is known at sigma >= {sigma_max:g}, got {lowest:g}; ask it at sigma_max.")
            return function(x, sigma)

        self.log_density = BlackBox(log_density)
        self.sigma_max = sigma_max
        self.mean = mean
        self.covariance = covariance


@dataclass(frozen=True)
class Measure:
    """A known law ν: its parameters, its noised log density `log ν_σ(x)` (n,) and score (n, d).

    Attributes:
        weights: (K,).
        means: (K, d).
        form: `full`, `isotropic`, `low-rank` or `points`.
        full: covariances (K, d, d) of the form `full`, else None.
        variances: (K,), of `isotropic` and `low-rank`.
        factors: (K, d, r), of `low-rank`.
        dense: makes the covariances in any form.
        log_density: `log ν_σ(x)` of (x, σ).
        score: its gradient.
    """

    weights: Any
    means: Any
    form: str
    full: Any
    variances: Any
    factors: Any
    dense: Callable[[], Any]
    log_density: Callable[[Any, Any], Any]
    score: Callable[[Any, Any], Any]

    @property
    def covariances(self) -> Any:
        """Dense covariances (K, d, d) in any form, made when asked for: 75 MB a component at d = 3072."""
        return self.dense()


@dataclass(frozen=True)
class Perturbation:
    """`ρ_η = (1 − η) ρ + η ν`: mass moves from the data law, known by its score, toward `measure` = ν, known in full.

    Attributes:
        kind: `"toward"`.
        measure: ν.
    """

    kind: str
    measure: Measure


@dataclass(frozen=True)
class Functional:
    """`φ(x) = a·x + ½ xᵀ B x` with symmetric B: `functional(x)` (n,) and its gradient (n, d).

    Attributes:
        linear: `a` (d,).
        quadratic: `B` (d, d).
    """

    linear: Any
    quadratic: Any

    def __call__(self, x: Any) -> Any:
        return x @ self.linear + 0.5 * ((x @ self.quadratic) * x).sum(-1)

    def gradient(self, x: Any) -> Any:
        """`∇φ(x) = a + B x`."""
        return self.linear + x @ self.quadratic
