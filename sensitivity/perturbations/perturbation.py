"""Perturbations of the data measure: `ρ_η = ρ + η χ` with χ signed and of total mass zero.

Symbols: `p` and `s` are the noised density and score of the base law at level σ; `ν_j` measures with scores
`s_j` and ratios `r_j = ν_j/p` (noised); `u = χ_σ/p`. Everything is per unit mass moved:

- contamination `χ = Σ_j c_j (ν_j − ρ)`: `u = Σ c_j (r_j − 1)`, `ṡ = ∇u = Σ c_j r_j (s_j − s)`, `s̈ = −2 u ṡ`;
- in general `s̈ = ∇[p̈/p] − 2 u ṡ` with `p̈` the second derivative of the noised density, zero for contamination.

Perturbations add, and multiply by numbers (the number multiplies the mass moved). `.mass(N)` is the η that turns unit
mass into an edit of N equally weighted training points; it is negative for a removal, which is the same direction
`ν − ρ` walked backwards.

Source: Scarvelis & Solomon 2025, arXiv 2509.23092; Hampel 1974 (influence curve) for the form of χ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from sensitivity.measures.measure import Measure

__all__ = ["Masses", "Perturbation", "Sum", "Terms"]

Masses = tuple[tuple[float, Measure], ...]


class Terms(NamedTuple):
    """`u`, `(batch,)`; `ṡ = ∇u`, like x; `∇[p̈/p]`, like x, or `None` where it vanishes."""

    ratio: Tensor
    source: Tensor
    curvature: Tensor | None


class Perturbation(ABC):
    """A direction χ in the space of measures; see the module for symbols.

    Example (sums and multiples are directions too):
        >>> from sensitivity import Points, Remove, Toward
        >>> one, other = (Points(torch.full((1, 2), value)) for value in (0.0, 1.0))
        >>> (Toward(one) + 2 * Remove(other)).needs_density
        True
    """

    @property
    @abstractmethod
    def needs_density(self) -> bool:
        """Whether ṡ needs `log p_σ(x)` of the base law."""

    @property
    @abstractmethod
    def masses(self) -> Masses | None:
        """`((c_j, ν_j), …)` with `χ = Σ_j c_j (ν_j − ρ)`; `None` where the finite-η score does not apply."""

    @property
    def taken(self) -> float:
        """C, the mass that leaves the base law per unit, `Σ c_j`; 0 where points only move."""
        return sum((c for c, _ in self.masses or ()), 0.0)

    @abstractmethod
    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """u, ṡ and `∇[p̈/p]` in one pass over each measure."""

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
        """`∇ṡ · t`, like `x`, given `score_product = ∇s · t`."""

    @abstractmethod
    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """`log r` of the first measure, shape `(batch,)`; for reports."""

    @abstractmethod
    def mass(self, count: int, moved: int | None = None) -> float:
        """η for this edit of `count` equally weighted training points, `moved` of which take part."""

    def source(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None = None) -> Tensor:
        """`ṡ(x)` per unit mass, like `x`.

        Args:
            x: states, `(batch, *shape)`.
            sigma: the level, a number, 0-d or `(batch,)`.
            score: s(x) of the base law, like `x`.
            log_density: `log p_σ(x)` in nats, `(batch,)`; may be `None` unless `needs_density`.
        """
        return self.terms(x, sigma, score, log_density).source

    def second_source(
        self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None = None
    ) -> Tensor:
        """`s̈(x) = d²s/dη²` at η = 0, like `x`; arguments as `source`."""
        terms = self.terms(x, sigma, score, log_density)
        # s^η = s + η ∇u/(1 + η u) has the derivative ∇u/(1 + η u)² in η, and that, at 0, −2 u ∇u.
        second = -2 * per_sample(terms.ratio, x) * terms.source
        return second if terms.curvature is None else second + terms.curvature

    def __add__(self, other: Perturbation) -> Sum:
        if not isinstance(other, Perturbation):
            return NotImplemented
        return Sum((*_parts(self), *_parts(other)))

    def __mul__(self, factor: float) -> Sum:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        if not math.isfinite(factor):
            raise ValueError(f"factor = {factor} is not finite: multiply a perturbation by a finite mass.")
        return Sum(tuple((factor * weight, part) for weight, part in _parts(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Sum:
        return self * -1.0

    def __sub__(self, other: Perturbation) -> Sum:
        if not isinstance(other, Perturbation):
            return NotImplemented
        return self + (-other)


class Sum(Perturbation):
    """`Σ_j f_j χ_j`, made by `+`, `-` and multiplication with numbers."""

    def __init__(self, parts: tuple[tuple[float, Perturbation], ...]):
        self.parts = parts

    @property
    def needs_density(self) -> bool:
        """True where a part needs it."""
        return any(part.needs_density for _, part in self.parts)

    @property
    def masses(self) -> Masses | None:
        """The masses of all parts, or `None` where a part has none."""
        collected: list[tuple[float, Measure]] = []
        for factor, part in self.parts:
            if part.masses is None:
                return None
            collected += [(factor * c, measure) for c, measure in part.masses]
        return tuple(collected)

    @property
    def taken(self) -> float:
        """`Σ f_j C_j`."""
        return sum(factor * part.taken for factor, part in self.parts)

    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """Each term is linear in χ (`p̈` in the mass moved)."""
        each = [(factor, part.terms(x, sigma, score, log_density)) for factor, part in self.parts]
        curvatures = [factor * terms.curvature for factor, terms in each if terms.curvature is not None]
        return Terms(
            torch.stack([factor * terms.ratio for factor, terms in each]).sum(0),
            torch.stack([factor * terms.source for factor, terms in each]).sum(0),
            torch.stack(curvatures).sum(0) if curvatures else None,
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
        """`Σ f_j ∇ṡ_j t`, like `x`."""
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
