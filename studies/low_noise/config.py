"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass

from studies.networks import Architecture
from studies.training import Objective, Recipe

GEOMETRIES = ("uniform", "sharp1", "sharp3", "spiral", "thin", "product")
IMAGES = ("digits", "mnist", "faces", "fashion")
OBJECTIVES = ("edm", "denoising", "blind", "sliced")
LEVELS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
LOW = (0.03, 0.01, 0.003)
LARGEST = {"digits": 800, "mnist": 2000, "faces": 40, "fashion": 20_000}


@dataclass(frozen=True)
class Config:
    """What is trained and how it is looked at.

    Attributes:
        grid: pairs "geometry/objective", one cell each. counts: N, ascending (images: those that their set allows).
        replicates: R, data sets of their own. width, depth, steps, batch: of every network.
        states: number of states of each kind. levels: σ/τ, descending. iterations: of the denoiser for attractors.
    """

    grid: tuple[str, ...]
    counts: tuple[int, ...] = (1, 10, 100, 1000, 10_000)
    replicates: int = 4
    width: int = 64
    depth: int = 3
    steps: int = 1500
    batch: int = 64
    states: int = 64
    levels: tuple[float, ...] = LEVELS
    iterations: int = 200

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        return cls(("spiral/edm", "spiral/blind"), (1, 100), 2, 16, 1, 20, 16, 8, iterations=5)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: one plane law, two objectives."""
        return cls(("spiral/edm", "spiral/blind"), (1, 10, 100, 1000), 3, steps=800)

    @classmethod
    def full(cls) -> Config:
        """The cross of the grid, every geometry with `edm` and every objective on the spiral; N up to 1000."""
        edm = tuple(f"{g}/edm" for g in ("spiral", "thin", "digits", "uniform", "sharp3", "sharp1", "product"))
        return cls((*edm, *(f"spiral/{o}" for o in OBJECTIVES[1:])), (1, 10, 100, 1000), steps=1000)

    @classmethod
    def paper(cls) -> Config:
        """The whole grid, for a cluster."""
        grid = tuple(f"{g}/{o}" for g in (*GEOMETRIES, *IMAGES) for o in OBJECTIVES)
        return cls(grid, (1, 10, 100, 1000, 10_000, 100_000), 8, 256, 3, 50_000, 256, 512)

    def counts_of(self, geometry: str) -> tuple[int, ...]:
        """The N that a geometry allows; an image set ends with the largest that it has."""
        most = LARGEST.get(geometry)
        if most is None:
            return self.counts
        return (*(n for n in self.counts if n < most), *((most,) if self.counts[-1] >= most else ()))

    def recipe(self, objective: str, scale: float) -> Recipe:
        """How every network is trained; `scale` is τ."""
        network = Architecture(width=self.width, depth=self.depth, conditioned=objective != "blind")
        if objective == "edm":
            noise = Objective("edm", mean=-2.0, spread=2.0)
        elif objective in OBJECTIVES:
            noise = Objective(objective, "levels", low=0.003 * scale, high=3 * scale, count=12)  # type: ignore[arg-type]
        else:
            raise ValueError(f"objective={objective!r} is not known: choose one of {', '.join(OBJECTIVES)}.")
        return Recipe(network, noise, self.steps, self.batch)
