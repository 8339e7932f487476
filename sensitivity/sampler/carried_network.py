"""A second network as the new law, its log density carried along the first one's path.

ν is known by a score network s^ν and an anchor. Its log density obeys, along the path of any drift s^w, the same
dL^ν/dσ = σ (div s^ν + s^ν·(s^ν − s^w)) as the base law's, so that a run carries one more local map, of share 0 in
the drift, in place of one more solve at every stage (cf. Skreta et al. 2024, arXiv 2412.17762).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sensitivity.jacobians.products import Products
from sensitivity.measures.measure import Measure
from sensitivity.perturbations.contamination import Contamination
from sensitivity.perturbations.perturbation import Perturbation


@dataclass(frozen=True)
class LocalMap:
    """One network of the run: its score s_b with products, its part in the drift, what changes its law.

    Attributes:
        products: its score with Jacobian products.
        share: its share c of the drift; a branch of guidance may have none (weights 0 and 1) and is a branch still.
        changes: its change of mass for each of the K directions.
        drives: whether it belongs to the drift; a network carried beside for its density does not.
        growth: T_k, the growth of its law's total mass per unit mass of direction k, zero where not given: under
            guidance a class that gains mass has the unnormalised density p + η (T p + χ_σ), see `per_branch`.
    """

    products: Products
    share: float
    changes: tuple[Perturbation | None, ...] = ()
    drives: bool = True
    growth: tuple[float, ...] = ()


@dataclass(frozen=True)
class AtStage:
    """A second network as a measure at one stage input: log ν, s^ν and, where a tangent is at hand, ∇s^ν δ."""

    log: Tensor
    value: Tensor
    moved: Tensor | None = None

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """log ν_σ(x), as carried."""
        return self.log

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """s^ν(x)."""
        return self.value

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both."""
        return self.log, self.value

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """∇s^ν δ for the tangent of this stage."""
        if self.moved is None:
            raise ValueError("no Jacobian product of the carried network is at hand at this stage.")
        return self.moved


@dataclass(frozen=True)
class CarriedNetwork:
    """Stands among the measures for the local map of this number; known at a stage only, as `AtStage`."""

    index: int

    def at(self, scores: Sequence[Tensor], logs: Tensor, moved: Sequence[Tensor] | None = None) -> AtStage:
        """The measure at a stage, from all local maps' scores, log densities (maps, batch) and products."""
        return AtStage(logs[self.index], scores[self.index], None if moved is None else moved[self.index])

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Refused: known at a stage only."""
        raise ValueError(
            "a carried network has values at a stage of the path only; give an anchor for its log density."
        )

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Refused likewise."""
        return self.log_density(x, sigma)

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Refused likewise."""
        return self.log_density(x, sigma), self.score(x, sigma)

    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """Refused likewise."""
        return self.log_density(x, sigma)


class CarriedContamination(Contamination):
    """A contamination some of whose measures are carried networks."""

    def at(self, scores: Sequence[Tensor], logs: Tensor, moved: Sequence[Tensor] | None = None) -> CarriedContamination:
        """The same at a stage, where every measure is known."""
        return CarriedContamination(tuple((c, at_stage(measure, scores, logs, moved)) for c, measure in self.masses))

    def mass(self, count: int, moved: int | None = None) -> float:
        """Refused: use that of the perturbation itself."""
        raise ValueError("take .mass(N) of the perturbation that was given.")


def at_stage(
    measure: Measure, scores: Sequence[Tensor], logs: Tensor | None, moved: Sequence[Tensor] | None = None
) -> Measure:
    """The measure itself, or what a carried network is at this stage."""
    if isinstance(measure, CarriedNetwork) and logs is not None:
        return measure.at(scores, logs, moved)
    return measure
