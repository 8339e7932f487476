"""One rung of a ladder: train, then measure where it fits the empirical score."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sensitivity import as_score
from studies.networks import Architecture
from studies.selective_underfitting import measures
from studies.selective_underfitting.config import Config, Ladder, Rung
from studies.selective_underfitting.memorisation import calibrated_distance, memorised_share
from studies.selective_underfitting.paths import Paths, noised, sampled
from studies.selective_underfitting.problem import Problem, problem
from studies.selective_underfitting.shells import Shells
from studies.selective_underfitting.targets import Empirical
from studies.study import Context
from studies.training import Objective, Recipe, Trained, excess_loss, train_many

Row = dict[str, Any]
OBJECTIVE = Objective()
SHOWN = 8
DRAWS = 256  # training states: at most, for errors; at least, for the excess loss


def recipe(ladder: Ladder, rung: Rung, objective: Objective = OBJECTIVE) -> Recipe:
    """How a rung is trained; the average of the parameters spans a twentieth of the steps."""
    architecture = Architecture(ladder.kind, width=rung.width, depth=rung.depth)  # type: ignore[arg-type]  # JSON text
    steps = rung.steps
    return Recipe(architecture, objective, steps, ladder.batch, warmup=min(100, steps // 4), halflife=steps / 20)


class Bench:
    """One ladder's problem, shells, memoriser and trained networks."""

    def __init__(self, ladder: Ladder, context: Context) -> None:
        self.ladder, self.context = ladder, context
        self.config: Config = context.config

    @cached_property
    def problem(self) -> Problem:
        """Its data."""
        return problem(self.ladder.problem, self.ladder.size)

    @cached_property
    def memoriser(self) -> Empirical:
        """The exact empirical score."""
        return Empirical(self.problem.train)

    @cached_property
    def shells(self) -> Shells:
        """The 99 % shells of the training points."""
        return Shells(self.problem.train)

    def trained(self, rung: Rung, seeds: int | None = None) -> list[Trained]:
        """The networks of a rung, from the cache where they are there."""
        count = self.ladder.seeds if seeds is None else seeds
        return train_many(
            recipe(self.ladder, rung),
            self.problem.train,
            weights=[None] * count,
            seeds=list(range(count)),
            cache=self.context.cache,
            device=self.context.device,
        )

    def paths(self, denoiser: Any) -> Paths:
        """Sampling paths of a denoiser from the common latents."""
        c = self.config
        return sampled(denoiser, score_of(denoiser), self.problem.train, c.levels, c.latents, c.substeps)

    @cached_property
    def reference(self) -> Paths:
        """Paths of the base network of seed 0."""
        return self.paths(self.trained(self.ladder.rungs()[0])[0].network)


def identity(ladder: Ladder) -> Row:
    """What names a ladder in every row."""
    return {"ladder": ladder.name, "problem": ladder.problem, "data": ladder.data, "size": ladder.size}


def score_of(denoiser: Any) -> Any:
    """The score of a network or of a memoriser."""
    return denoiser.score if isinstance(denoiser, Empirical) else as_score(denoiser, "denoiser")


def run_rung(bench: Bench, rung: Rung) -> list[Row]:
    """Rows of all seeds: one of the network and one of each level."""
    rows: list[Row] = []
    for seed, trained in enumerate(bench.trained(rung)):
        shared: Row = identity(bench.ladder) | {"network": bench.ladder.kind}
        shared |= {"rung": rung.name, "width": rung.width, "depth": rung.depth, "steps": rung.steps, "seed": seed}
        paths = bench.paths(trained.network)
        row = shared | {"kind": "network"} | quality(bench, paths.samples) | excess(bench, trained)
        rows.append(row | shown(paths.samples if rung.name == "base" and seed == 0 else None))
        rows += [shared | each for each in by_level(bench, trained.network, paths)]
    return rows


def run_memoriser(bench: Bench) -> list[Row]:
    """The control: the exact empirical score in place of a network, and the held-out points in place of samples."""
    shared = identity(bench.ladder) | {"network": "memoriser", "rung": "memoriser"}
    paths = bench.paths(bench.memoriser)
    real: Row = shared | {"kind": "network", "network": "held-out", "rung": "held-out"}
    rows = [shared | {"kind": "network"} | quality(bench, paths.samples) | shown(paths.samples)]
    held_out = bench.problem.held_out
    halves = {"energy": measures.energy_distance(held_out[::2], held_out[1::2])}
    rows.append(real | quality(bench, held_out) | halves | shown(held_out))
    rows += [shared | each for each in by_level(bench, bench.memoriser, paths)]
    return rows + deviations(bench, paths)


def by_level(bench: Bench, denoiser: Any, paths: Paths) -> list[Row]:
    """Errors at every level, to the empirical denoiser and, where it is known, the population's; share returned."""
    config, data = bench.config, bench.problem
    truths: dict[str, measures.Denoiser] = {"empirical": bench.memoriser}
    if data.population is not None:
        truths["population"] = data.population.denoiser
    rows = []
    for sigma in config.levels:
        sets = states(bench, sigma) | {"own": paths.at[sigma]}
        row: Row = {"kind": "level", "sigma": sigma}
        row["returned"] = measures.returned(denoiser, score_of(denoiser), data.train, sigma, config.substeps)
        for name, x in sets.items():
            shells = None if name == "inside" else bench.shells
            row |= {
                f"{name}_{t}": measures.mean_error(denoiser, truth, x, sigma, shells) for t, truth in truths.items()
            }
        rows.append(row | outside_parts(bench, denoiser, sets["heldout"], sigma))
    return rows


def outside_parts(bench: Bench, denoiser: Any, x: Tensor, sigma: float) -> Row:
    """The held-out error taken apart about the population's denoiser, or about the clean images where none is known."""
    data = bench.problem
    kept = ~bench.shells.contains(x, sigma)
    centre = data.held_out if data.population is None else data.population.denoiser(x, torch.tensor(sigma))
    pulls = measures.parts(denoiser, bench.memoriser, centre[kept].to(x.dtype), x[kept], sigma)
    return dict(zip(("heldout_own", "heldout_gap", "heldout_pull"), pulls, strict=True))


def states(bench: Bench, sigma: float) -> dict[str, Tensor]:
    """The states that all networks of the ladder share at a level."""
    data = bench.problem
    return {
        "inside": noised(data.train[:DRAWS], sigma),
        "heldout": noised(data.held_out, sigma),
        "trajectory": bench.reference.at[sigma],
    }


def quality(bench: Bench, x: Tensor) -> Row:
    """Of samples or held-out points: distance to the held-out points, memorised shares, classifier confidence."""
    held_out, train = bench.problem.held_out, bench.problem.train
    distance = calibrated_distance(x, train)[0]
    return {
        "energy": measures.energy_distance(x, held_out),
        "confidence": measures.confidence(bench.problem, x),
        "memorised": memorised_share(x, train),
        "calibrated": torch.quantile(distance.double(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)).tolist(),
    }


def shown(samples: Tensor | None) -> Row:
    """The first images for pictures, to two decimals; None without images."""
    if samples is None or samples.ndim != 4:
        return {"shown": None}
    return {"shown": [round(float(v), 2) for v in samples[:SHOWN].flatten()]}


def excess(bench: Bench, trained: Trained) -> Row:
    """The denoising loss on the training set, its least possible value, and the difference; the held-out loss."""
    data = bench.problem
    many = data.train.repeat(-(-DRAWS // len(data.train)), *[1] * (data.train.ndim - 1))
    excess = excess_loss(trained.network, OBJECTIVE, many, bench.memoriser, seed=3)
    other = excess_loss(trained.network, OBJECTIVE, data.held_out, bench.memoriser, seed=3)
    return {"loss": excess.loss, "optimum": excess.optimum, "excess": excess.excess, "held_out_loss": other.loss}


def deviations(bench: Bench, memorised: Paths) -> list[Row]:
    """r⋆ and the nearest ratio, quantiles, and the share in the shells, for every kind of state and level."""
    rows = []
    for sigma in bench.config.levels:
        sets = states(bench, sigma) | {"memoriser": memorised.at[sigma]}
        for name, x in sets.items():
            deviation, nearest = bench.shells.deviation(x, sigma), bench.shells.nearest(x, sigma)
            row: Row = identity(bench.ladder) | {"kind": "deviation"}
            row |= {
                "states": name,
                "sigma": sigma,
                "inside_share": float(bench.shells.contains(x, sigma).double().mean()),
            }
            row |= {"overlap": bench.shells.overlap(sigma), "deviation": deviation[:128].tolist()}
            rows.append(row | {"nearest": float(nearest.median())})
    return rows
