"""Contamination of the data measure: mass moved toward measures, taken away, or reweighted.

`χ = Σ_j c_j (ν_j − ρ)`, symbols as in `sensitivity.perturbations.perturbation`.
For these the score at finite η is known exactly,
`s^η = s + Σ_j η c_j r_j (s_j − s) / (1 + Σ_j η c_j (r_j − 1))`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_like, check_log_density, check_same_home, per_sample
from sensitivity.measures.measure import Measure, Ratio
from sensitivity.measures.mixture import Mixture
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Masses, Perturbation, Terms

__all__ = ["Contamination", "Remove", "Reweight", "Toward"]


class Contamination(Perturbation):
    """`χ = Σ_j c_j (ν_j − ρ)`: what Toward, Remove and Reweight have in common."""

    def __init__(self, masses: Masses):
        for _, measure in masses:
            _check_measure(measure)
        self._masses = masses

    @property
    def masses(self) -> Masses:
        """`((c_j, ν_j), …)`."""
        return self._masses

    @property
    def needs_density(self) -> bool:
        """True unless every measure is a ratio, which needs none."""
        return any(not isinstance(measure, Ratio) for _, measure in self._masses)

    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """`u = Σ c_j (r_j − 1)` and `ṡ = Σ c_j r_j (s_j − s)`; `p̈ = 0`."""
        check_like(score, x, "score")
        ratio, source = x.new_zeros(x.shape[0]), torch.zeros_like(x)
        for c, measure in self._masses:
            r, direction = _ratio(measure, x, sigma, score, log_density)
            ratio = ratio + c * (r - 1)
            source = source + c * per_sample(r, x) * direction
        return Terms(ratio, source, None)

    def source_product(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        score_product: Tensor,
        log_density: Tensor | None,
        tangent: Tensor,
    ) -> Tensor:
        """`Σ c_j r_j [(s_j − s)((s_j − s)·t) + ∇s_j t − ∇s t]`, like `x`."""
        check_like(score_product, x, "score_product")
        check_like(tangent, x, "tangent")
        total = torch.zeros_like(x)
        for c, measure in self._masses:
            r, direction = _ratio(measure, x, sigma, score, log_density)
            # ∇r_j = r_j (s_j − s).
            along = (direction * tangent).flatten(1).sum(1)
            change = measure.score_product(x, sigma, tangent)
            # The product of a ratio is already that of s_j − s.
            change = change if isinstance(measure, Ratio) else change - score_product
            total = total + c * per_sample(r, x) * (direction * per_sample(along, x) + change)
        return total

    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """`log ν_σ(x) − log p_σ(x)` of the first measure."""
        measure = self._masses[0][1]
        value = measure.log_density(x, sigma)
        return value if isinstance(measure, Ratio) else value - check_log_density(log_density, x)


class Toward(Contamination):
    """Toward a measure: `χ = ν − ρ`, `ṡ = r (s^ν − s)`.

    Args:
        measure: ν, a measure (`Points`, `Mixture`, `NetworkMeasure`) or a ratio (`KernelRatio`,
            `RatioClassifier`).

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092.

    Example:
        >>> import torch
        >>> from sensitivity.measures.points import Points
        >>> new = Toward(Points(torch.tensor([[1.0]])))
        >>> x, score = torch.tensor([[0.0]]), torch.tensor([[0.0]])  # base N(0, 1), σ = 1: p_σ = N(0, 2)
        >>> new.source(x, 1.0, score, torch.tensor([-1.2655]))  # √2 exp(−1/2)
        tensor([[0.8578]])
        >>> new.mass(99)
        0.01
    """

    def __init__(self, measure: Measure):
        super().__init__(((1.0, measure),))
        self.measure = measure

    def mass(self, count: int, moved: int | None = None) -> float:
        """`m/(N + m)`: m points, by default all of the measure, are added to `count` = N."""
        m = _moved(self.measure, moved)
        return m / (whole(count, "count") + m)


class Remove(Contamination):
    """Removal of mass that lies as ν: the direction `χ = ν − ρ` of `Toward`, with a negative `mass`.

    Args:
        measure: ν, usually the `Points` to be removed.

    Example:
        >>> import torch
        >>> from sensitivity.measures.points import Points
        >>> Remove(Points(torch.zeros(1, 2))).mass(101)
        -0.01
    """

    def __init__(self, measure: Measure):
        super().__init__(((1.0, measure),))
        self.measure = measure

    def mass(self, count: int, moved: int | None = None) -> float:
        """`−m/(N − m)`: m points, by default all of the measure, are taken from `count` = N."""
        m, n = _moved(self.measure, moved), whole(count, "count")
        if m >= n:
            raise ValueError(f"count = {n} leaves nothing after {m} points are removed: pass N > {m}.")
        return -m / (n - m)


class Reweight(Contamination):
    """Weights `c_i` become `c_i e^{l_i}`: `χ = ā (ν′ − ρ) − (ν − ρ)`, `ā = Σ c_i e^{l_i}`, ν′ the new law.

    ν is the measure as given, of which every point (component) i gets its mass multiplied by `e^{l_i}`; the base law
    keeps the rest. With `mass(N)` the finite law is exactly the reweighted training set.

    Args:
        measure: `Points` or `Mixture`: the part of the data that is reweighted.
        log_weights: l, shape `(N,)` or `(K,)`; 0 leaves a point as it is, `−inf` removes it.

    Example:
        >>> import torch
        >>> from sensitivity.measures.points import Points
        >>> one = Reweight(Points(torch.zeros(1, 2)), torch.tensor([0.5]).log())  # half the mass of one of 10 points
        >>> round(one.mass(10) * 9.5, 6)
        1.0
    """

    def __init__(self, measure: Points | Mixture, log_weights: Tensor):
        if not isinstance(measure, Points | Mixture):
            raise TypeError(f"measure is a {type(measure).__name__}: Reweight takes Points or a Mixture.")
        multipliers = _multipliers(log_weights, measure.weights)
        self.measure = measure
        self.mean_multiplier = float(multipliers @ measure.weights)
        if not 0 < self.mean_multiplier < math.inf:
            raise ValueError(
                f"log_weights gives a total mass of {self.mean_multiplier}: use smaller ones, or Remove to take all."
            )
        # The reweighted part has another mass, ā for 1: what it gains or loses beyond reweighting, all of ρ gives or
        # takes.
        super().__init__(((self.mean_multiplier, measure.reweighted(multipliers)), (-1.0, measure)))

    def mass(self, count: int, moved: int | None = None) -> float:
        """`M/(N − M + M ā)`: M points, by default all of the measure, of `count` = N."""
        m, n = _moved(self.measure, moved), whole(count, "count")
        if m > n:
            raise ValueError(f"count = {n} is fewer than the {m} points reweighted: pass N ≥ {m}.")
        return m / (n - m + m * self.mean_multiplier)


def _ratio(
    measure: Measure, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`r`, `(batch,)`, and `s_ν − s = ∇ log r`, like `x`."""
    value, gradient = measure.log_density_and_score(x, sigma)
    if isinstance(measure, Ratio):
        return value.exp(), gradient
    return (value - check_log_density(log_density, x)).exp(), gradient - score


def _multipliers(log_weights: Tensor, weights: Tensor) -> Tensor:
    if not isinstance(log_weights, Tensor):
        raise TypeError(
            f"log_weights is a {type(log_weights).__name__}, not a tensor: pass shape {tuple(weights.shape)}."
        )
    if log_weights.shape != weights.shape:
        raise ValueError(
            f"log_weights has shape {tuple(log_weights.shape)}: pass one for each point, {tuple(weights.shape)}."
        )
    check_same_home(log_weights, weights, "log_weights", "the measure")
    multipliers = log_weights.exp()
    check_finite(multipliers, "exp(log_weights)")
    return multipliers


def _check_measure(measure: object) -> None:
    if isinstance(measure, Tensor):
        raise TypeError("measure is a tensor: wrap data points as Points(measure).")
    needed = ("log_density", "log_density_and_score", "score_product")
    missing = [method for method in needed if not callable(getattr(measure, method, None))]
    if missing or isinstance(measure, type):
        raise TypeError(
            f"measure is a {type(measure).__name__} without {', '.join(missing) or 'values'}: "
            "pass Points, a Mixture or another measure."
        )


def _moved(measure: Measure, moved: int | None) -> int:
    if moved is not None:
        return whole(moved, "moved")
    if not isinstance(measure, Points):
        raise ValueError(f"a {type(measure).__name__} has no number of points: pass moved=.")
    return len(measure)
