"""Study `selective_underfitting_far`: what training and capacity do far outside the shells, where only the pull counts.

Source: Song et al. 2025, arXiv 2510.01378 (errors outside rise with capacity, at states whose radius ratio is about 10
to 90). The study `selective_underfitting` had states at ratios up to 4, where removing noise alone lowers the error to
the empirical score by up to 1/r² of it; two or three seeds; and states of the networks' own paths.

Protocol, fixed before any result
---------------------------------
- Symbols as in `selective_underfitting`: D a network, D⋆ the empirical denoiser, c the clean image of a held-out state
  (known laws: the population's denoiser there). About c the error is exactly `own + gap (1 − 2 pull)`.
- *Radius first.* Levels and data were chosen by computing the median ratio r of the nearest training point's distance
  to σ√d, before any network was trained: at σ = .03, .02, .015 it is 13.4, 20.0, 26.7 (`lowrank256`, N = 128), 11.0,
  16.5, 22.0 (N = 2048), 13.8, 20.7, 27.5 (`mnist14`, N = 64) and 10.4, 15.6, 20.8 (N = 1024).
- Data: `lowrank256`, a mixture of three components of rank 24 in d = 256, each in a plane of its own; MNIST averaged to
  14×14. *Few* points (128, 64) and *many* (2048, 1024).
- Networks: MLPs 3×256 on all four sets, a U-Net (width 16) on the many images; *base*, *short*, *shorter* (a quarter, a
  sixteenth of the steps) and, with many points, *narrow* (a quarter of the width). Eight seeds each. EDM loss.
- States: one external set for all networks, at most 512 held-out points noised to σ; none depends on a network. Inside:
  at most 256 training points noised to σ.
- **Outcome named beforehand: the pull** at the external states, mean over the levels; the unit is the training (a
  seed), Student's interval over eight. The paper's sign is a pull that falls with training and with capacity.
- Claims: per set (1) r ≥ 10 at every level (median); per ladder and axis (training: *shorter* → *base*; capacity:
  *narrow* → *base*) (2) the inside error falls, (3) the pull falls, (4) the outside error rises; per ladder (5) with
  training the inside error falls by more than the outside one, in logs, (6) most of the change of the outside error
  is the pull's: |Δown| over |Δown| + 2 gap |Δpull| < ½, (7) with many points, the base networks are trained: held-out
  loss below that of the moment-matched Gaussian (of fewer points than dimensions it is singular, and no comparison).
  Where (7) does not hold, the page says that the ladder's other claims are about networks that are not trained. Over
  few and many points: (8) the pull rises with training by more for few.
- Twenty-odd pull and error claims at 95 % are expected to yield one false verdict; no other correction is made.
- A first run of `full()` was stopped before any network was trained. The published one ran with these words unchanged.
- Cut rule of `full()` against `paper()`: steps, widths, 14×14 for 28×28; no claim, seed or set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sensitivity import GaussianAnchor
from studies.claim_bounds import above, at_least, below
from studies.figures import colour, described, panels
from studies.retraining.bench import LawDenoiser
from studies.selective_underfitting import measures
from studies.selective_underfitting.config import Ladder, Rung
from studies.selective_underfitting.ladder import DRAWS, OBJECTIVE, Bench, excess, identity
from studies.selective_underfitting.paths import noised
from studies.selective_underfitting.pictures import PANEL
from studies.selective_underfitting.signs import PAPER, few_and_many, pulled
from studies.selective_underfitting.summaries import EMPTY, changes, over_trainings
from studies.statistics import Interval, median_interval
from studies.study import Cell, Claim, Context
from studies.training import excess_loss

NAME = "selective_underfitting_far"
QUESTION = "At radius ratios of ten and more, does training pull a network toward the empirical score or away from it?"
VERSION = 1
LEVELS = (0.03, 0.02, 0.015)
AXES = {"training": "shorter", "capacity": "narrow"}
STATES = 512  # external: at most
Rows = pd.DataFrame


@dataclass(frozen=True)
class Config:
    """The ladders.

    Attributes:
        ladders: see `studies.selective_underfitting.config.Ladder`; their rung *shallow* is left out.
        levels: σ, descending, all of them "low".
    """

    ladders: tuple[Ladder, ...]
    levels: tuple[float, ...] = LEVELS

    @property
    def low(self) -> float:
        """The bound of the levels that count: all do."""
        return max(self.levels)

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        few, many = (
            Ladder("lowrank256", "mlp", 16, 2, 16, size=n, seeds=2, batch=8, capacity=n > 32) for n in (32, 64)
        )
        return cls((few, many), LEVELS[:1])

    @classmethod
    def quick(cls) -> Config:
        """Two minutes on two cores: the known law alone, three seeds."""
        return cls(_mlps("lowrank256", (128, 2048), 128, 1600, 3))

    @classmethod
    def full(cls) -> Config:
        """All of the protocol, some twenty minutes of one core."""
        known, images = _mlps("lowrank256", (128, 2048), 256, 3200), _mlps("mnist14", (64, 1024), 256, 3200)
        return cls((*known, *images, Ladder("mnist14", "unet", 16, 2, 960, size=1024, seeds=8, batch=16)))

    @classmethod
    def paper(cls) -> Config:
        """For a GPU: MNIST at 28×28 too, wider networks and ten times the steps, U-Nets on few images."""
        known, images = _mlps("lowrank256", (128, 2048), 512, 32_000), _mlps("mnist", (64, 1024), 1024, 32_000)
        unets = (Ladder("mnist", "unet", 32, 3, 16_000, size=n, seeds=8, batch=64, capacity=n > 64) for n in (64, 1024))
        return cls((*known, *images, *unets))


def _mlps(problem: str, sizes: tuple[int, ...], width: int, steps: int, seeds: int = 8) -> tuple[Ladder, ...]:
    return tuple(
        Ladder(problem, "mlp", width, 3, steps, size=n, seeds=seeds, batch=32, capacity=n == max(sizes)) for n in sizes
    )


def rungs(ladder: Ladder) -> list[Rung]:
    """Those of the ladder but for *shallow*."""
    return [rung for rung in ladder.rungs() if rung.name != "shallow"]


def cells(config: Config) -> list[Cell]:
    """One a set of data, one a rung of a ladder."""
    listed = []
    for index, ladder in enumerate(config.ladders):
        listed.append(Cell(f"{ladder.name}-radius", {"ladder": index, "rung": ""}))
        listed += [Cell(f"{ladder.name}-{rung.name}", {"ladder": index, "rung": rung.name}) for rung in rungs(ladder)]
    return listed


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one cell."""
    bench = Bench(context.config.ladders[cell.parameters["ladder"]], context)
    name = cell.parameters["rung"]
    if not name:
        return radii(bench)
    (rung,) = [each for each in rungs(bench.ladder) if each.name == name]
    return run_rung(bench, rung)


def external(bench: Bench, sigma: float) -> Tensor:
    """Held-out points noised to σ, the same for every network."""
    return noised(bench.problem.held_out, sigma)[:STATES]


def radii(bench: Bench) -> list[dict[str, Any]]:
    """How far the external states lie from the training points, and the Gaussian's loss on held-out points."""
    train, rows = bench.problem.train, list[dict[str, Any]]()
    if len(train) > train[0].numel():
        scale = float((train - train.mean(0)).square().mean().sqrt())
        law = LawDenoiser(GaussianAnchor.from_data(train), scale)
        loss = excess_loss(law, OBJECTIVE, bench.problem.held_out, bench.memoriser, seed=3).loss
        rows.append(identity(bench.ladder) | {"kind": "gaussian", "loss": loss})
    for sigma in bench.config.levels:
        nearest = bench.shells.nearest(external(bench, sigma), sigma)
        rows.append(identity(bench.ladder) | {"kind": "radius", "sigma": sigma, "nearest": nearest.tolist()})
    return rows


class States(NamedTuple):
    """States at one level that all networks of a ladder share.

    Attributes:
        inside: noised training points.
        outside: the external states that lie in no 99 % shell.
        centre: c of the latter.
    """

    inside: Tensor
    outside: Tensor
    centre: Tensor

    @classmethod
    def of(cls, bench: Bench, sigma: float) -> States:
        """Those of a ladder."""
        data, x = bench.problem, external(bench, sigma)
        clean = data.held_out[:STATES]
        centre = clean if data.population is None else data.population.denoiser(x, torch.tensor(sigma))
        kept = ~bench.shells.contains(x, sigma)
        return cls(noised(data.train[:DRAWS], sigma), x[kept], centre[kept].to(x.dtype))


def run_rung(bench: Bench, rung: Rung) -> list[dict[str, Any]]:
    """Rows of all seeds: one of the network and one of each level."""
    rows, states = list[dict[str, Any]](), {sigma: States.of(bench, sigma) for sigma in bench.config.levels}
    for seed, trained in enumerate(bench.trained(rung)):
        shared = identity(bench.ladder) | {"network": bench.ladder.kind, "rung": rung.name, "steps": rung.steps}
        shared |= {"width": rung.width, "seed": seed}
        rows.append(shared | {"kind": "network"} | excess(bench, trained))
        for sigma, tested in states.items():
            parts = measures.parts(trained.network, bench.memoriser, tested.centre, tested.outside, sigma)
            row = dict(zip(("heldout_own", "heldout_gap", "heldout_pull"), parts, strict=True))
            for name, x in (("inside", tested.inside), ("heldout", tested.outside)):
                row[f"{name}_empirical"] = measures.mean_error(trained.network, bench.memoriser, x, sigma, None)
            rows.append(shared | {"kind": "level", "sigma": sigma} | row)
    return rows


def claims(rows: Rows, config: Config) -> list[Claim]:
    """Every claim of the protocol."""
    judged = [_radius(rows, ladder) for ladder in {each.data: each for each in config.ladders}.values()]
    for ladder in config.ladders:
        of_ladder = rows[rows.ladder == ladder.name]
        for axis in axes(ladder):
            judged += [_inside(of_ladder, ladder, config, axis), _pull(of_ladder, ladder, config, axis)]
            judged.append(_outside(of_ladder, ladder, config, axis))
        judged += [
            _selective(of_ladder, ladder, config),
            _unconfounded(of_ladder, ladder, config),
            *_trained(of_ladder, ladder),
        ]
    return judged + [pulled(rows, few, many, config) for few, many in few_and_many(config)]


def axes(ladder: Ladder) -> list[str]:
    """Training, and capacity where it is asked."""
    return [axis for axis in AXES if ladder.capacity or axis != "capacity"]


def change(rows: Rows, config: Config, axis: str, column: str) -> pd.Series:
    """*base* less the smaller rung, by seed and level: logarithms of errors, pulls as they are."""
    scale = np.positive if column.endswith("pull") else np.log
    return changes(rows, config, (AXES[axis],), column, scale)


def _radius(rows: Rows, ladder: Ladder) -> Claim:
    radii = rows[(rows.ladder == ladder.name) & (rows.kind == "radius")]
    each = [median_interval(np.asarray(values, dtype=float)) for values in radii.nearest]
    least = min(each, key=lambda interval: interval.estimate)
    statement = f"{ladder.data}: external states lie at radius ratios of ten and more (median, least over the levels)"
    return Claim.of(statement, least, at_least(10, interval=True), f"{PAPER}: r⋆ about 10 at t = .1, 90 at .01")


def _inside(rows: Rows, ladder: Ladder, config: Config, axis: str) -> Claim:
    mean = over_trainings(change(rows, config, axis, "inside_empirical"))
    statement = (
        f"{ladder.name}: with more {axis} the inside error falls (mean change of its logarithm, unit: a training)"
    )
    return Claim.of(statement, mean, below(0, interval=True), f"{PAPER}: SiT S to XL .1884→.1834")


def _pull(rows: Rows, ladder: Ladder, config: Config, axis: str) -> Claim:
    mean = over_trainings(change(rows, config, axis, "heldout_pull"))
    statement = (
        f"{ladder.name}: with more {axis} external states are pulled less toward the empirical score (mean change of "
        "the pull, unit: a training; the outcome named beforehand)"
    )
    return Claim.of(statement, mean, below(0, interval=True), f"{PAPER}: outside errors rise")


def _outside(rows: Rows, ladder: Ladder, config: Config, axis: str) -> Claim:
    mean = over_trainings(change(rows, config, axis, "heldout_empirical"))
    statement = (
        f"{ladder.name}: with more {axis} the error at external states rises (mean change of its logarithm, unit: a "
        "training)"
    )
    return Claim.of(statement, mean, above(0, interval=True), f"{PAPER}: SiT S to XL .5334→.5359")


def _selective(rows: Rows, ladder: Ladder, config: Config) -> Claim:
    inside, outside = (change(rows, config, "training", f"{c}_empirical") for c in ("inside", "heldout"))
    statement = (
        f"{ladder.name}: with more training the inside error falls by more than that at external states (mean "
        "difference of the changes of the logarithms, unit: a training)"
    )
    return Claim.of(statement, over_trainings(inside - outside), below(0, interval=True), "weak sense, ours")


def own_share(rows: Rows, config: Config) -> Interval:
    """|Δown| / (|Δown| + 2 gap |Δpull|) with training, sums over levels, mean over trainings."""
    moved = changes(rows, config, (AXES["training"],), "heldout_own", np.positive)
    pull = changes(rows, config, (AXES["training"],), "heldout_pull", np.positive)
    level = rows[(rows.kind == "level") & (rows.rung == "base")].set_index(["seed", "sigma"])["heldout_gap"]
    gap = pd.concat({AXES["training"]: level.astype(float)}).reindex(moved.index)
    both = pd.DataFrame({"own": moved.abs(), "pull": (2 * gap * pull).abs()}).groupby(level="seed").sum()
    return over_trainings(both.own / (both.own + both.pull)) if len(both) else EMPTY


def _unconfounded(rows: Rows, ladder: Ladder, config: Config) -> Claim:
    statement = (
        f"{ladder.name}: with more training less than half of the change at external states is the own error's "
        "(|Δown| over |Δown| + 2 gap |Δpull|, unit: a training)"
    )
    return Claim.of(statement, own_share(rows, config), below(0.5, interval=True), "control of the design")


def _trained(rows: Rows, ladder: Ladder) -> list[Claim]:
    if not (rows.kind == "gaussian").any():
        return []
    base = rows[(rows.kind == "network") & (rows.rung == "base")].set_index("seed")["held_out_loss"]
    gaussian = float(rows[rows.kind == "gaussian"].iloc[0].loss)
    statement = (
        f"{ladder.name}: the base networks are trained, their held-out loss is below that of the moment-matched "
        f"Gaussian (difference of logarithms, unit: a training; the Gaussian's is {gaussian:.3f})"
    )
    mean = over_trainings((base.astype(float) / gaussian).apply(np.log))
    return [Claim.of(statement, mean, below(0, interval=True), "control: underfitting is no lack of training")]


COLUMNS = {"inside_empirical": "inside error, log", "heldout_empirical": "external error, log", "heldout_pull": "pull"}


def table(rows: Rows, config: Config) -> pd.DataFrame:
    """Mean changes with intervals over trainings: a line a ladder and axis."""
    lines = []
    for ladder in config.ladders:
        of_ladder = rows[rows.ladder == ladder.name]
        base = of_ladder[(of_ladder.kind == "level") & (of_ladder.rung == "base")]
        for axis in axes(ladder):
            each = {c: over_trainings(change(of_ladder, config, axis, c)) for c in COLUMNS}
            texts = {COLUMNS[c]: f"{v.estimate:+.4f} [{v.low:+.4f}, {v.high:+.4f}]" for c, v in each.items()}
            line = {"ladder": ladder.name, "more": axis} | texts
            lines.append(line | {"pull of base": f"{base.heldout_pull.mean():.4f}"})
    return pd.DataFrame(lines)


def figures(rows: Rows, config: Config) -> dict[str, Figure]:
    """The pull against the steps, a line a training."""
    drawing, places, _ = panels(len(config.ladders), panel=PANEL)
    for axis, ladder in zip(places, config.ladders, strict=False):
        of_ladder = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.rung != "narrow")]
        means = of_ladder.groupby(["seed", "steps"])["heldout_pull"].mean().unstack()
        for seed in means.index:
            axis.plot(means.columns, means.loc[seed], color=colour(0), marker=".", linewidth=0.8)
        narrow = rows[(rows.ladder == ladder.name) & (rows.kind == "level") & (rows.rung == "narrow")]
        if len(narrow):
            each = narrow.groupby("seed")["heldout_pull"].mean()
            axis.plot([narrow.steps.iloc[0]] * len(each), each, "x", color=colour(1), label="narrow")
            axis.legend(fontsize=6)
        axis.set_xscale("log")
        axis.set_xticks(means.columns, [f"{int(steps)}" for steps in means.columns])
        axis.set_xticks([], minor=True)
        axis.axhline(0, color="0.6", linewidth=0.6)
        axis.set(xlabel="steps")
        axis.set_title(ladder.name, fontsize=9)
    places[0].set_ylabel("pull")
    text = (
        "Pull toward the empirical denoiser at external states with radius ratios of ten and more against training "
        "steps, a line a training, one panel a ladder; crosses: narrow networks."
    )
    return {"pull": described(drawing, text)}
