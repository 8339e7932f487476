"""What a reading asks of a response.

A response says how fast a score changes per unit mass moved, ṡ_k(x, σ) toward each of K perturbations, and how. The
readings carry any ṡ to the samples in the same way: δ solves dδ/dσ = −σ (∇s δ + ṡ), an influence is Σ_j μ_j·ṡ_j over
the stages j with their cotangents μ_j.

- The population's answer, ṡ = r (s^ν − s), is that of a network that always attains the optimum. It is built into the
  local maps of a run, needs log p_σ(x) along the path, and has an exact form at finite mass.
- Every other response gives ṡ without a density of the base law: no divergence is taken and no anchor asked for. It
  hands over the pair (s, J δ_k + ṡ_k) at once, since one Jacobian product may give both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.measures.points import Points
from sensitivity.perturbations.perturbation import Perturbation, Terms
from sensitivity.sampler.carried_network import LocalMap
from sensitivity.scores.score import GuidedScore, NetworkScore, Score

Pushed = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stage:
    """A stage of the sampler on the way back.

    Attributes:
        x: its inputs, (batch, *shape).
        sigma: σ, 0-d.
        cotangents: μ for F functionals, (F, batch, *shape); zero for samples that had halted.
    """

    x: Tensor
    sigma: Tensor
    cotangents: Tensor


class Response(ABC):
    """How a score answers a change of its data."""

    @property
    @abstractmethod
    def needs(self) -> str:
        """What it needs beside the score, in words."""


class PopulationResponse(Response):
    """The answer of the optimum: ṡ = r (s^ν − s) with r = ν_σ/p_σ; the default.

    It needs log p_σ(x) along the path, hence an anchor and one divergence at every stage, and no further network call.
    A trained network follows it where it attains the optimum of its loss at the states that the sampler visits.

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092, section 3.

    Example:
        >>> PopulationResponse().needs
        'the log density of the base law: an anchor, and a divergence at every stage'
    """

    @property
    def needs(self) -> str:
        """A density."""
        return "the log density of the base law: an anchor, and a divergence at every stage"

    def __repr__(self) -> str:
        return "PopulationResponse()"


POPULATION = PopulationResponse()


Condensed = Mapping[str, Tensor]
"""What a response keeps of the stages of a chunk of latents, by name."""


class SourceResponse(Response):
    """A response that gives ṡ itself and needs no density of the base law."""

    evaluations: int
    """Network evaluations asked for away from the sampler's path since it was made; a gradient counts as one."""

    rows_per_point: int = 0
    """How many of them `against` asks for with each point."""

    @abstractmethod
    def pushed(self, products: Products, changes: Sequence[Perturbation], grid: Grid) -> Pushed:
        """The map (x, σ, δ) ↦ (s, J δ_k + ṡ_k) toward K changes, δ of shape (K, batch, *shape).

        Args:
            products: the score's Jacobian products, decided.
            changes: χ_k, per unit mass.
            grid: the levels of the run, for what is prepared once.
        """

    @abstractmethod
    def check(self, score: Score, change: Perturbation | None, x: Tensor) -> None:
        """Refuse a score or a change to which the response does not apply, before anything is computed."""

    @property
    @abstractmethod
    def example(self) -> Points:
        """One of its training points: the answer to it tells whether a response is that of a recording."""

    @abstractmethod
    def check_points(self, points: Points) -> None:
        """Refuse points of a shape or a bandwidth that the response does not know."""

    @abstractmethod
    def condensed(self, stages: Sequence[Stage], score: Score, grid: Grid) -> Condensed:
        """All that the answer to any point needs of the stages of some latents: they may then be forgotten."""

    @abstractmethod
    def against(self, kept: Sequence[Condensed], points: Points, first: int = 0) -> Tensor:
        """Σ_j μ_j·ṡ_j[y_i] toward each single point y_i, (F, batch, N), for consecutive chunks of latents.

        Args:
            kept: what `condensed` gave for each chunk.
            points: some of the points; their weights play no part.
            first: the number of the first of them among all, so that values do not depend on how points are cut.
        """

    @abstractmethod
    def finite(
        self, score: Score, changes: Sequence[Perturbation], masses: Sequence[Tensor], grid: Grid
    ) -> Callable[[slice], Score]:
        """The score, for rows of the latents, after masses η_k, (batch,) each, have moved together."""

    def bound(self, maps: Sequence[LocalMap], x: Tensor, grid: Grid, tangents: bool) -> tuple[LocalMap, ...]:
        """The one local map of a run with this response's source in its tangent products."""
        local_map = self._only(maps)
        for change in local_map.changes:
            self.check(local_map.products.score, change, x)
        silent = tuple(Silent() for _ in local_map.changes)
        if not tangents:
            return (LocalMap(local_map.products, local_map.share, silent),)
        pushed = self.pushed(local_map.products, [required_change(c) for c in local_map.changes], grid)
        answered: Any = Answered(local_map.products, pushed)
        return (LocalMap(answered, local_map.share, silent),)

    def _only(self, maps: Sequence[LocalMap]) -> LocalMap:
        name = type(self).__name__
        if len(maps) != 1:
            raise ValueError(
                f"response={name} answers for one network and a guided score has two; give PopulationResponse()."
            )
        if maps[0].products.differentiable:
            raise ValueError(f"differentiable=True keeps no graph through {name}; leave it out.")
        return maps[0]


def required_change(change: Perturbation | None) -> Perturbation:
    """A change, where a run is known to have one."""
    if change is None:
        raise ValueError("perturbation is missing; give what changes, such as Toward(Points(new)).")
    return change


def chosen(response: Any) -> Response:
    """The response that was given.

    Raises:
        TypeError: for what is not a response.
    """
    if not isinstance(response, Response):
        raise TypeError(
            f"response is a {response if isinstance(response, type) else type(response).__name__}; give an instance, "
            "PopulationResponse(), ParameterResponse(...), LocalResponse(...) or UnrolledResponse(...)."
        )
    return response


@dataclass(frozen=True)
class Answered:
    """Products of a score whose tangents carry an answer: `jvp` gives J δ_k + ṡ_k, everything else is the score's."""

    products: Products
    pushed: Pushed

    @property
    def score(self) -> Any:
        """The score."""
        return self.products.score

    @property
    def error(self) -> float:
        """Stated relative error of the products, 0 for exact ones."""
        return self.products.error

    @property
    def name(self) -> str:
        """The method of the products with its cures."""
        return self.products.name

    def value(self, x: Tensor, sigma: Tensor) -> Tensor:
        """s(x, σ)."""
        return self.products.value(x, sigma)

    def vjp(self, x: Tensor, sigma: Tensor, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """(s, Jᵀ u_k)."""
        return self.products.vjp(x, sigma, cotangents)

    def jvp(self, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """(s, J δ_k + ṡ_k) for tangents δ of the answer's K changes."""
        return self.pushed(x, sigma, tangents)


class Silent(Perturbation):
    """Stands in a local map for a change whose source its products already carry."""

    @property
    def needs_density(self) -> bool:
        """Never."""
        return False

    @property
    def masses(self) -> None:
        """None: the response has its own finite form."""
        return None

    def terms(self, x: Tensor, sigma: Tensor | float, score: Tensor, log_density: Tensor | None) -> Terms:
        """No ratio is known, and nothing is added to the products."""
        return Terms(self.log_ratio(x, sigma, log_density), torch.zeros_like(x), None)

    def source_product(
        self,
        x: Tensor,
        sigma: Tensor | float,
        score: Tensor,
        score_product: Tensor,
        log_density: Tensor | None,
        tangent: Tensor,
    ) -> Tensor:
        """Refused: responses other than the population's are of first order."""
        raise ValueError("order=2 is known for PopulationResponse() only; use order=1.")

    def log_ratio(self, x: Tensor, sigma: Tensor | float, log_density: Tensor | None) -> Tensor:
        """NaN: no density is carried."""
        return x.new_full(x.shape[:1], float("nan"))

    def mass(self, count: int, moved: int | None = None) -> float:
        """Refused: use that of the perturbation itself."""
        raise ValueError("take .mass(N) of the perturbation that was given.")


def module_of(score: Any) -> nn.Module | None:
    """The network that a score is known to be made of: the score itself, or the module given to `as_score`."""
    inner = score.network if isinstance(score, NetworkScore) else score
    return inner if isinstance(inner, nn.Module) else None


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _convolutional(score: Any) -> bool:
    branches = [score.unconditional, score.conditional] if isinstance(score, GuidedScore) else [score]
    modules = [module for module in map(module_of, branches) if module is not None]
    return any(isinstance(part, _CONVOLUTIONS) for module in modules for part in module.modules())


def recommendation(score: Any) -> str:
    """Which response suits a score, in one sentence, from the layers of its network.

    The outcome of a run with the population's response ends with it where the network is convolutional.

    Example:
        >>> from sensitivity import as_score
        >>> recommendation(as_score(nn.Conv2d(1, 1, 3, padding=1)))[:34]
        'The network is convolutional: such'
        >>> recommendation(lambda x, sigma: -x)
        'PopulationResponse() is the answer of the optimum; ParameterResponse(...) is that of trained parameters.'
    """
    if _convolutional(score):
        return (
            "The network is convolutional: such networks answer less, and more locally, than their optimum; compare "
            "ParameterResponse(...) and LocalResponse(...)."
        )
    return "PopulationResponse() is the answer of the optimum; ParameterResponse(...) is that of trained parameters."


def note(score: Any) -> str:
    """The recommendation where it differs from the default, else nothing."""
    return recommendation(score) if _convolutional(score) else ""
