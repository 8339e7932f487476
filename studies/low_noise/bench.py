"""The trained networks of one cell, four for each replicate and N: A, A′ (other seed), B, B′."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from sensitivity import Grid
from studies.bridge import ExactLaw
from studies.low_noise.config import Config, Part
from studies.low_noise.problem import Problem
from studies.low_noise.references import Function, Memory, optimum
from studies.networks import Denoiser, stack
from studies.sampling import sample
from studies.study import Context
from studies.training import Objective, Recipe, train_many

WHO = (("A", 0), ("A", 1), ("B", 0), ("B", 1))
KINDS = ("on", "off", "train", "path")
PART = 4  # sampler steps between neighbouring levels
MANY = 1000  # above this N the data are only compared with on the states `on`, and nothing is predicted


@dataclass(frozen=True)
class Bench:
    """One geometry and objective.

    Attributes:
        part: geometry, objective, N and training length.
        context: of the cell.
    """

    part: Part
    context: Context

    @property
    def geometry(self) -> str:
        """Its name."""
        return self.part.geometry

    @property
    def objective(self) -> str:
        """Its name."""
        return self.part.objective

    @property
    def counts(self) -> tuple[int, ...]:
        """N, ascending."""
        return self.part.counts

    @cached_property
    def config(self) -> Config:
        """The study's configuration."""
        return self.context.config

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """σ/τ, descending."""
        return self.config.levels_of(self.objective)

    @cached_property
    def problem(self) -> Problem:
        """The data."""
        return Problem.of(self.geometry, self.counts[-1], self.config.replicates)

    @cached_property
    def scale(self) -> float:
        """τ."""
        return self.problem.scale

    @cached_property
    def networks(self) -> dict[tuple[int, int], Denoiser]:
        """(N, replicate) → the four networks as one stack, float64."""
        places = [(n, r) for n in self.counts for r in range(self.config.replicates)]
        members = [(n, r, name, seed) for n, r in places for name, seed in WHO]
        weights = {(n, r, name): self.problem.weights(r, name, n) for n, r, name, _ in members}
        trained = train_many(
            self.recipe,
            self.problem.pool.float(),
            weights=[weights[n, r, name] for n, r, name, _ in members],
            seeds=[2 * r + seed for _, r, _, seed in members],
            cache=self.context.cache,
            device=self.context.device,
        )
        fours = [trained[i : i + len(WHO)] for i in range(0, len(trained), len(WHO))]
        return {p: stack([t.network.double() for t in four]) for p, four in zip(places, fours, strict=True)}

    @cached_property
    def recipe(self) -> Recipe:
        """How the networks are trained."""
        return self.config.recipe(self.objective, self.scale, self.part.length)

    @property
    def noise(self) -> Objective:
        """The objective with its noise law."""
        return self.recipe.objective

    @cached_property
    def population(self) -> Function | None:
        """The best denoiser of the law, None for images."""
        law = self.problem.law
        return None if law is None else optimum(ExactLaw(law), self.noise, self.scale)

    def memory(self, replicate: int, name: str, count: int) -> Memory:
        """The empirical law of set A or B."""
        return Memory(self.problem.set_of(replicate, name, count))

    def values(self, networks: Denoiser, x: Tensor, sigma: float) -> Tensor:
        """The four networks at common states x (n, d): (4, n, d)."""
        with torch.no_grad():
            return networks(x.expand(len(WHO), *x.shape), torch.tensor(sigma, dtype=x.dtype))

    def states(self, count: int, replicate: int, paths: list[Tensor], index: int) -> dict[str, Tensor]:
        """States of every kind at a level, by kind; `paths` of the four networks, see `trajectories`."""
        sigma, size = self.levels[index] * self.scale, self.config.states
        clean = self.problem.fresh(replicate, size)
        noise = self.gaussian(replicate, index, clean)
        on = clean + sigma * noise
        points = self.problem.set_of(replicate, "A", count)
        train = points[torch.arange(size) % len(points)] + sigma * noise
        return {
            "on": on,
            "off": on + 0.5 * self.scale * self.problem.normal(clean),
            "train": train,
            "path": paths[index][0],
        }

    def gaussian(self, replicate: int, index: int, like: Tensor) -> Tensor:
        """Standard normal noise, the same for every N and network."""
        generator = torch.Generator().manual_seed(100 * replicate + index)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    def trajectories(self, networks: Denoiser, replicate: int) -> list[Tensor]:
        """States (4, n, d) of the four networks at every level, from common latents at the first."""
        levels = [level * self.scale for level in self.levels]
        clean = self.problem.fresh(replicate, self.config.states)
        x = (clean + levels[0] * self.gaussian(replicate, 99, clean)).expand(len(WHO), *clean.shape)
        states = [x]
        for high, low in pairwise(levels):
            states.append(sample(networks.score, states[-1], Grid(high, low, PART, "log")))
        return states
