"""Sizes of the study."""

from __future__ import annotations

from dataclasses import dataclass

from studies.networks import Architecture
from studies.training import Objective, Recipe

GEOMETRIES = ("uniform", "sharp1", "sharp3", "spiral", "thin", "product")
IMAGES = ("digits", "mnist14", "faces12", "fashion14")
OBJECTIVES = ("edm", "denoising", "blind", "sliced")
LEVELS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
LOW = (0.03, 0.01, 0.003)
LARGEST = {"digits": 800, "mnist14": 2000, "faces12": 40, "fashion14": 10_000}
TOP = {"blind": 3.0}  # the highest training level, in τ, of an objective whose loss is not weighted
HIGHEST = 30.0  # of the others
COARSE, FINE, MOST = "10,100,1000,10000", "1,10,100,1000,10000", "1,10,100,1000,10000,100000"


@dataclass(frozen=True)
class Config:
    """What is trained and how it is looked at.

    Attributes:
        grid: cells "geometry/objective/N,N,…", or "…/length" for networks trained that many times `steps`.
        replicates: R, data sets of their own.
        width, depth, steps, batch, rate: of every network.
        states: number of states of each kind.
        levels: σ/τ, descending.
        iterations: of the denoiser for attractors.
    """

    grid: tuple[str, ...]
    replicates: int = 4
    width: int = 64
    depth: int = 3
    steps: int = 1000
    batch: int = 64
    rate: float = 5e-3
    states: int = 64
    levels: tuple[float, ...] = LEVELS
    iterations: int = 100

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        grid = ("spiral/edm/1,100", "spiral/blind/100")
        return cls(grid, replicates=2, width=16, depth=1, steps=20, batch=16, states=8, iterations=5)

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: one plane law, two objectives."""
        return cls(("spiral/edm/1,10,100,1000", "spiral/blind/10,100,1000"), replicates=3)

    @classmethod
    def full(cls) -> Config:
        """The cross of the grid and a coarser set of N elsewhere, see the cut rule of the protocol."""
        grid = [f"{g}/edm/{MOST if g == 'spiral' else FINE}" for g in GEOMETRIES]
        grid += ["digits/edm/10,100,800", "mnist14/edm/100,2000", "faces12/edm/10,40", "fashion14/edm/100,10000"]
        for objective in ("denoising", "blind"):
            grid += [f"{g}/{objective}/{COARSE if g == 'spiral' else '100,1000'}" for g in GEOMETRIES]
            grid.append(f"digits/{objective}/100,800")
        grid += [f"{g}/sliced/{'10,100,1000' if g == 'spiral' else '100'}" for g in (*GEOMETRIES, "digits")]
        return cls((*grid, "spiral/edm/1000/4"), replicates=3)

    @classmethod
    def paper(cls) -> Config:
        """The whole grid, for a cluster."""
        pairs = [(g, o) for o in OBJECTIVES for g in (*GEOMETRIES, *IMAGES)]
        grid = [f"{g}/{o}/{_ends(g, MOST)}" for g, o in pairs]
        size = {"replicates": 8, "width": 256, "steps": 50_000, "batch": 256, "states": 512, "iterations": 200}
        return cls((*grid, f"spiral/edm/{MOST}/4"), rate=2e-3, **size)  # type: ignore[arg-type]  # sizes are integers

    def levels_of(self, objective: str) -> tuple[float, ...]:
        """σ/τ at which an objective's networks are looked at: none above those of their training."""
        return tuple(level for level in self.levels if level <= TOP.get(objective, HIGHEST))

    def recipe(self, objective: str, scale: float, length: int = 1) -> Recipe:
        """How every network is trained; `scale` is τ, `length` a multiple of the steps."""
        network = Architecture(width=self.width, depth=self.depth, conditioned=objective != "blind")
        if objective == "edm":
            noise = Objective("edm", mean=-1.0, spread=2.2)
        elif objective in OBJECTIVES:
            top = TOP.get(objective, HIGHEST)
            count = {3.0: 13, 30.0: 17}[top]  # four a decade
            noise = Objective(objective, "levels", low=0.003 * scale, high=top * scale, count=count)  # type: ignore[arg-type]
        else:
            raise ValueError(f"objective={objective!r} is not known: choose one of {', '.join(OBJECTIVES)}.")
        return Recipe(network, noise, length * self.steps, self.batch, rate=self.rate)


@dataclass(frozen=True)
class Part:
    """One entry of the grid.

    Example:
        >>> Part.of("spiral/edm/10,100/4")
        Part(geometry='spiral', objective='edm', counts=(10, 100), length=4)
    """

    geometry: str
    objective: str
    counts: tuple[int, ...]
    length: int = 1

    @classmethod
    def of(cls, text: str) -> Part:
        """From its text."""
        geometry, objective, counts, *length = text.split("/")
        return cls(geometry, objective, tuple(int(n) for n in counts.split(",")), *(int(each) for each in length))

    @property
    def name(self) -> str:
        """As a file name."""
        return f"{self.geometry}-{self.objective}" + (f"-x{self.length}" if self.length > 1 else "")


def _ends(geometry: str, counts: str) -> str:
    """The N that a geometry allows; an image set ends with the largest that it has."""
    most = LARGEST.get(geometry)
    if most is None:
        return counts
    return ",".join([n for n in counts.split(",") if int(n) < most] + [str(most)])
