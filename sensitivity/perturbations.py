"""Perturbations of the data measure: ``ρ_η = ρ + η χ`` with χ signed and of total mass zero.

Symbols: ``p`` and ``s`` are the noised density and score of the base law at level σ; ``ν_j`` measures with scores
``s_j`` and ratios ``r_j = ν_j/p`` (noised); ``u = χ_σ/p``. Everything is per unit mass moved:

- contamination ``χ = Σ_j c_j (ν_j − ρ)``: ``u = Σ c_j (r_j − 1)``, ``ṡ = ∇u = Σ c_j r_j (s_j − s)``, ``s̈ = −2 u ṡ``;
- in general ``s̈ = ∇[p̈/p] − 2 u ṡ`` with ``p̈`` the second derivative of the noised density, zero for contamination.

Perturbations add, and multiply by numbers (the number multiplies the mass moved). ``.mass(N)`` is the η that turns unit
mass into an edit of N equally weighted training points; it is negative for a removal, which is the same direction
``ν − ρ`` walked backwards.

Source: Scarvelis & Solomon 2025, arXiv 2509.23092; Hampel 1974 (influence curve) for the form of χ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_like, check_log_density, check_same_home, per_sample
from sensitivity.measures import Measure, Mixture, Ratio
from sensitivity.points import Points

__all__ = ["Contamination", "Masses", "Perturbation", "Remove", "Reweight", "Sum", "Toward"]

Masses = tuple[tuple[float, Measure], ...]


class Terms(NamedTuple):
    """``u``, ``(batch,)``; ``ṡ = ∇u``, like x; ``∇[p̈/p]``, like x, or ``None`` where it vanishes."""

    ratio: Tensor
    source: Tensor
    bend: Tensor | None


class Perturbation(ABC):
    """A direction χ in the space of measures; see the module for symbols."""

    @property
    @abstractmethod
    def needs_density(self) -> bool:
        """Whether ṡ needs ``log p_σ(x)`` of the base law."""

    @property
    @abstractmethod
    def masses(self) -> Masses | None:
        """``((c_j, ν_j), …)`` with ``χ = Σ_j c_j (ν_j − ρ)``; ``None`` where the finite-η score does not apply."""

    @abstractmethod
    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """u, ṡ and ``∇[p̈/p]`` in one pass over each measure."""

    @abstractmethod
    def source_product(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        score_product: Tensor,
        log_density: Tensor | None,
        tangent: Tensor,
    ) -> Tensor:
        """``∇ṡ · t``, like ``x``, given ``score_product = ∇s · t``."""

    @abstractmethod
    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """``log r`` of the first measure, shape ``(batch,)``; for reports."""

    @abstractmethod
    def mass(self, count: int, moved: int | None = None) -> float:
        """η for this edit of ``count`` equally weighted training points, ``moved`` of which take part."""

    def source(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None = None) -> Tensor:
        """``ṡ(x)`` per unit mass, like ``x``.

        Args:
            x: states, ``(batch, *shape)``.
            sigma: the level, a number, 0-d or ``(batch,)``.
            score: s(x) of the base law, like ``x``.
            log_density: ``log p_σ(x)`` in nats, ``(batch,)``; may be ``None`` unless ``needs_density``.
        """
        return self.terms(x, sigma, score, log_density).source

    def second_source(
        self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None = None
    ) -> Tensor:
        """``s̈(x) = d²s/dη²`` at η = 0, like ``x``; arguments as ``source``."""
        terms = self.terms(x, sigma, score, log_density)
        second = -2 * per_sample(terms.ratio, x) * terms.source
        return second if terms.bend is None else second + terms.bend

    def __add__(self, other: Perturbation) -> Sum:
        if not isinstance(other, Perturbation):
            return NotImplemented
        return Sum((*_parts(self), *_parts(other)))

    def __mul__(self, factor: float) -> Sum:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        if not math.isfinite(factor):
            raise ValueError(f"factor = {factor} is not finite: multiply a perturbation by a finite mass.")
        return Sum(tuple((factor * own, part) for own, part in _parts(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Sum:
        return self * -1.0

    def __sub__(self, other: Perturbation) -> Sum:
        if not isinstance(other, Perturbation):
            return NotImplemented
        return self + (-other)


class Contamination(Perturbation):
    """``χ = Σ_j c_j (ν_j − ρ)``: what Toward, Remove and Reweight have in common."""

    def __init__(self, masses: Masses):
        for _, measure in masses:
            _check_measure(measure)
        self._masses = masses

    @property
    def masses(self) -> Masses:
        """``((c_j, ν_j), …)``."""
        return self._masses

    @property
    def needs_density(self) -> bool:
        """True unless every measure is a ratio, which needs none."""
        return any(not isinstance(measure, Ratio) for _, measure in self._masses)

    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """``u = Σ c_j (r_j − 1)`` and ``ṡ = Σ c_j r_j (s_j − s)``; ``p̈ = 0``."""
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
        """``Σ c_j r_j [(s_j − s)((s_j − s)·t) + ∇s_j t − ∇s t]``, like ``x``."""
        check_like(score_product, x, "score_product")
        check_like(tangent, x, "tangent")
        total = torch.zeros_like(x)
        for c, measure in self._masses:
            r, direction = _ratio(measure, x, sigma, score, log_density)
            along = (direction * tangent).flatten(1).sum(1)
            change = measure.score_product(x, sigma, tangent)
            # The product of a ratio is already that of s_j − s.
            change = change if isinstance(measure, Ratio) else change - score_product
            total = total + c * per_sample(r, x) * (direction * per_sample(along, x) + change)
        return total

    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """``log ν_σ(x) − log p_σ(x)`` of the first measure."""
        measure = self._masses[0][1]
        value = measure.log_density(x, sigma)
        return value if isinstance(measure, Ratio) else value - check_log_density(log_density, x)


class Toward(Contamination):
    """Toward a measure: ``χ = ν − ρ``, ``ṡ = r (s^ν − s)``.

    Args:
        measure: ν, a measure (``Points``, ``Mixture``, ``NetworkMeasure``) or a ``RatioClassifier``.

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092.

    Example:
        >>> import torch
        >>> from sensitivity.points import Points
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
        """``m/(N + m)``: m points, by default all of the measure, are added to ``count`` = N."""
        m = _moved(self.measure, moved)
        return m / (_whole(count, "count") + m)


class Remove(Contamination):
    """Removal of mass that lies as ν: the direction ``χ = ν − ρ`` of ``Toward``, with a negative ``mass``.

    Args:
        measure: ν, usually the ``Points`` to be removed.

    Example:
        >>> import torch
        >>> from sensitivity.points import Points
        >>> Remove(Points(torch.zeros(1, 2))).mass(101)
        -0.01
    """

    def __init__(self, measure: Measure):
        super().__init__(((1.0, measure),))
        self.measure = measure

    def mass(self, count: int, moved: int | None = None) -> float:
        """``−m/(N − m)``: m points, by default all of the measure, are taken from ``count`` = N."""
        m, n = _moved(self.measure, moved), _whole(count, "count")
        if m >= n:
            raise ValueError(f"count = {n} leaves nothing after {m} points are removed: pass N > {m}.")
        return -m / (n - m)


class Reweight(Contamination):
    """Weights ``c_i`` become ``c_i e^{l_i}``: ``χ = ā (ν′ − ρ) − (ν − ρ)``, ``ā = Σ c_i e^{l_i}``, ν′ the new law.

    ν is the measure as given, of which every point (component) i gets its mass multiplied by ``e^{l_i}``; the base law
    keeps the rest. With ``mass(N)`` the finite law is exactly the reweighted training set.

    Args:
        measure: ``Points`` or ``Mixture``: the part of the data that is reweighted.
        log_weights: l, shape ``(N,)`` or ``(K,)``; 0 leaves a point as it is, ``−inf`` removes it.

    Example:
        >>> import torch
        >>> from sensitivity.points import Points
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
        super().__init__(((self.mean_multiplier, measure.reweighted(multipliers)), (-1.0, measure)))

    def mass(self, count: int, moved: int | None = None) -> float:
        """``M/(N − M + M ā)``: M points, by default all of the measure, of ``count`` = N."""
        m, n = _moved(self.measure, moved), _whole(count, "count")
        if m > n:
            raise ValueError(f"count = {n} is fewer than the {m} points reweighted: pass N ≥ {m}.")
        return m / (n - m + m * self.mean_multiplier)


class Sum(Perturbation):
    """``Σ_j f_j χ_j``, made by ``+``, ``-`` and multiplication with numbers."""

    def __init__(self, parts: tuple[tuple[float, Perturbation], ...]):
        self.parts = parts

    @property
    def needs_density(self) -> bool:
        """True where a part needs it."""
        return any(part.needs_density for _, part in self.parts)

    @property
    def masses(self) -> Masses | None:
        """The masses of all parts, or ``None`` where a part has none."""
        collected: list[tuple[float, Measure]] = []
        for factor, part in self.parts:
            if part.masses is None:
                return None
            collected += [(factor * c, measure) for c, measure in part.masses]
        return tuple(collected)

    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """Each term is linear in χ (``p̈`` in the mass moved)."""
        each = [(factor, part.terms(x, sigma, score, log_density)) for factor, part in self.parts]
        bends = [factor * terms.bend for factor, terms in each if terms.bend is not None]
        return Terms(
            torch.stack([factor * terms.ratio for factor, terms in each]).sum(0),
            torch.stack([factor * terms.source for factor, terms in each]).sum(0),
            torch.stack(bends).sum(0) if bends else None,
        )

    def source_product(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        score_product: Tensor,
        log_density: Tensor | None,
        tangent: Tensor,
    ) -> Tensor:
        """``Σ f_j ∇ṡ_j t``, like ``x``."""
        arguments = (x, sigma, score, score_product, log_density, tangent)
        return torch.stack([factor * part.source_product(*arguments) for factor, part in self.parts]).sum(0)

    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """That of the first part."""
        return self.parts[0][1].log_ratio(x, sigma, log_density)

    def mass(self, count: int, moved: int | None = None) -> float:
        """Refused: each part of a sum has its own mass.

        Raises:
            ValueError: always.
        """
        raise ValueError("a sum or multiple has no single mass: scale each part, part.mass(N) * part, before adding.")


def _parts(perturbation: Perturbation) -> tuple[tuple[float, Perturbation], ...]:
    return perturbation.parts if isinstance(perturbation, Sum) else ((1.0, perturbation),)


def _ratio(
    measure: Measure, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``r``, ``(batch,)``, and ``s_ν − s = ∇ log r``, like ``x``."""
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


def _whole(count: int, name: str) -> int:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} is a {type(count).__name__}: pass a whole number of points.")
    if count < 1:
        raise ValueError(f"{name} = {count}: pass a number of points ≥ 1.")
    return count


def _moved(measure: Measure, moved: int | None) -> int:
    if moved is not None:
        return _whole(moved, "moved")
    if not isinstance(measure, Points):
        raise ValueError(f"a {type(measure).__name__} has no number of points: pass moved=.")
    return len(measure)
