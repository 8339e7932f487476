"""Study `groups_copies`: are copied samples, and members, told from the rest, and how often is a false alarm given?

Sources: Carlini et al. 2023, arXiv 2301.13188 (copies by relative distance); Yeom et al. 2018, arXiv 1709.01604, and
Matsumoto et al. 2023, arXiv 2302.03262 (membership by the loss).

Protocol
--------
Fixed before any result; amendments, if any, are listed below.

- Data: N digits, evenly from the classes, and as many held-out ones; four draws of both.
- Networks that memorise to a known degree: perceptrons trained on N = 60 images for a ladder of lengths; and controls,
  on N = 700 images for the shortest. Two laws that need no training: the empirical law of the images (every sample a
  copy) and one that is smoothed by the bandwidth of highest held-out likelihood.
- Copies: `NearestRatio` (20 neighbours) of 128 samples, flagged at 5 % by `Detector`, with two references: held-out
  images, and each training image against the others. False alarms: the share of other held-out images that are flagged.
- Members: `denoising_loss` of the training images and of as many held-out ones; the area under the curve (members below
  non-members), and the share of members found at 5 % by a `Detector` of the other held-out images.
- The unit of intervals is a draw of the data with its networks.
- Expectations, stated before any result: all samples of the empirical law are flagged, and of the smoothed law at most
  a tenth; false alarms are at most .08; the share of copies and the area rise along the ladder, the area to at least
  .9; the area of the control lies below .65.

Amendments
----------
Of 2026-11-27, after a smoke run of two draws (networks of ten steps: nothing learned; the laws flagged as expected;
false alarms .05 with held-out images for reference and .10 with the data themselves, whose 60 values give a coarse
threshold): the ladder is shortened to 200, 1 000 and 3 000 steps, the machine being shared; the expectations stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sensitivity import Grid, Points, Score, as_score
from sensitivity.membership import Detector, NearestRatio, denoising_loss
from studies import data
from studies.bandwidths import likeliest
from studies.claim_bounds import above, at_least, at_most, below
from studies.figures import MARKERS, colour, described, figure
from studies.networks import Architecture
from studies.retraining.bench import OBJECTIVE
from studies.sampling import sample
from studies.statistics import Interval, mean_of_units, roc
from studies.study import Cell, Claim, Context
from studies.training import Recipe, train

NAME = "groups_copies"
VERSION = 1
QUESTION = "Are copied samples and members told from the rest, with as few false alarms as were asked for?"
LEVEL = 0.05
LEVELS = (0.1, 0.3)
NEIGHBOURS = 20
EMPIRICAL, SMOOTH = "empirical law", "smoothed law"


@dataclass(frozen=True)
class Config:
    """Sizes of the study.

    Attributes:
        few, many: N of the networks that memorise, and of the control.
        lengths: steps of the ladder.
        width, depth, batch: of the perceptrons.
        samples: their number.
        draws: of the data.
        grid: steps of the sampler.
        noises: of the denoising loss at each level.
    """

    few: int = 60
    many: int = 700
    lengths: tuple[int, ...] = (200, 1000, 3000)
    width: int = 128
    depth: int = 3
    batch: int = 60
    samples: int = 128
    draws: int = 4
    grid: int = 24
    noises: int = 8

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs."""
        return cls(many=100, lengths=(5, 10), width=8, depth=1, batch=16, samples=16, draws=2, grid=4, noises=2)

    @classmethod
    def quick(cls) -> Config:
        """Under two minutes: a short ladder, two draws."""
        return cls(lengths=(100, 500), width=64, samples=64, draws=2)

    @classmethod
    def full(cls) -> Config:
        """A few minutes."""
        return cls()

    @classmethod
    def paper(cls) -> Config:
        """For a cluster."""
        return cls(lengths=(200, 1000, 3000, 24_000), width=512, samples=1024, draws=16, grid=60)


def cells(config: Config) -> list[Cell]:
    """One for each draw of the data."""
    return [Cell(f"draw-{k}", {"draw": k}, seed=k) for k in range(config.draws)]


@dataclass(frozen=True)
class Drawn:
    """Training images, held-out ones for the reference, and others for false alarms; all double (n, 1, 8, 8)."""

    train: Tensor
    reference: Tensor
    others: Tensor


def drawn(count: int, seed: int) -> Drawn:
    """Of all digits, evenly from the classes."""
    whole, rng = data.load("digits"), np.random.default_rng([41, seed])
    order = rng.permutation(len(whole))
    labels = np.asarray(whole.labels)[order]
    place = np.empty(len(order), dtype=int)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        place[rows] = np.arange(len(rows))
    images = whole.images[order[np.argsort(place, kind="stable")]].double()
    rest = images[count:]
    return Drawn(images[:count], rest[0::2][:400], rest[1::2][:400])


def run_cell(cell: Cell, context: Context) -> list[dict[str, Any]]:
    """Rows of one draw: the laws, the ladder, the control."""
    config, draw = context.config, cell.parameters["draw"]
    few, many = drawn(config.few, draw), drawn(config.many, draw)
    smooth = Points(few.train, bandwidth=likeliest(few.train, few.reference))
    laws = {EMPIRICAL: Points(few.train), SMOOTH: smooth}
    rows = [_row(config, draw, name, 0, few, law.score, 0.002) for name, law in laws.items()]
    for steps in config.lengths:
        rows.append(_row(config, draw, "network", steps, few, _trained(context, few, steps, draw), 0.02))
    shortest = config.lengths[0]
    return [*rows, _row(config, draw, "control", shortest, many, _trained(context, many, shortest, draw), 0.02)]


def _trained(context: Context, images: Drawn, steps: int, seed: int) -> Score:
    config = context.config
    recipe = Recipe(
        Architecture("mlp", width=config.width, depth=config.depth), OBJECTIVE, steps=steps, batch=config.batch,
        warmup=min(100, steps // 4), halflife=steps / 20, precision="float64",
    )  # fmt: skip
    made = train(recipe, images.train, seed=seed, cache=context.cache, device=context.device)
    return as_score(made.network, "denoiser")


def _row(
    config: Config, draw: int, model: str, steps: int, images: Drawn, score: Score, sigma_min: float
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(100 + draw)
    noise = torch.randn(config.samples, 1, 8, 8, generator=generator, dtype=torch.float64)
    grid = Grid(20.0, sigma_min, config.grid)
    samples = sample(score, images.train.mean(0) + 20.0 * noise, grid)
    ratio = NearestRatio(images.train, NEIGHBOURS)
    values = ratio(samples)
    detectors = {"held-out": Detector(ratio(images.reference), LEVEL), "data": Detector(ratio.of_data(), LEVEL)}
    sets = (images.train, images.reference, images.others)
    inside, reference, outside = (denoising_loss(score, x, LEVELS, draws=config.noises) for x in sets)
    curve = roc(inside.numpy(), outside.numpy())
    shares = {f"copies, {name}": _share(each, values) for name, each in detectors.items()}
    alarms = {f"alarms, {name}": _share(each, ratio(images.others)) for name, each in detectors.items()}
    members = Detector(reference, LEVEL)
    return {
        "kind": "model",
        "draw": draw,
        "model": model,
        "steps": steps,
        "images": len(images.train),
        **shares,
        **alarms,
        "area": curve.area.estimate,
        "members": _share(members, inside),
        "member alarms": _share(members, outside),
        "false": curve.false[:: max(1, len(curve.false) // 50)].tolist(),
        "true": curve.true[:: max(1, len(curve.true) // 50)].tolist(),
    }


def _share(detector: Detector, values: Tensor) -> float:
    return float(detector.flagged(values).double().mean())


def over_draws(rows: pd.DataFrame, model: str, column: str, steps: int | None = None) -> Interval:
    """Mean of a column over the draws."""
    part = rows[rows.model == model]
    part = part if steps is None else part[part.steps == steps]
    return mean_of_units(part.sort_values("draw")[column].to_numpy(dtype=float))


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Laws, false alarms, the ladder, the control."""
    exact, trained = "laws that need no training", "networks that memorise to a known degree"
    longest, shortest = config.lengths[-1], config.lengths[0]
    listed = []
    for name in ("held-out", "data"):
        words = f"samples of the empirical law are flagged as copies (reference: {name})"
        listed.append(Claim.of(words, over_draws(rows, EMPIRICAL, f"copies, {name}"), at_least(1.0), exact))
        words = f"samples of the smoothed law are not (reference: {name})"
        listed.append(Claim.of(words, over_draws(rows, SMOOTH, f"copies, {name}"), at_most(0.1), exact))
        words = f"held-out images are flagged as copies no more often than asked for (reference: {name})"
        listed.append(Claim.of(words, over_draws(rows, "network", f"alarms, {name}", longest), at_most(0.08), exact))
        gap = _rise(rows, f"copies, {name}", longest, shortest)
        words = f"the share of copies rises along the ladder (reference: {name})"
        listed.append(Claim.of(words, gap, above(0, interval=True), trained))
    listed += [
        Claim.of("members are told after the longest training (area under the curve)",
                 over_draws(rows, "network", "area", longest), at_least(0.9, interval=True), trained),
        Claim.of("they are told better than after the shortest (difference of areas)",
                 _rise(rows, "area", longest, shortest), above(0, interval=True), trained),
        Claim.of("members among many images are hardly told (area of the control)",
                 over_draws(rows, "control", "area"), below(0.65, interval=True), trained),
        Claim.of("others are called members no more often than asked for",
                 over_draws(rows, "network", "member alarms", longest), at_most(0.08), trained),
    ]  # fmt: skip
    return listed


def _rise(rows: pd.DataFrame, column: str, longest: int, shortest: int) -> Interval:
    networks = rows[rows.model == "network"].sort_values("draw")
    ends = [networks[networks.steps == steps][column].to_numpy(dtype=float) for steps in (longest, shortest)]
    return mean_of_units(ends[0] - ends[1])


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over draws, one line a model."""
    shares = [f"{what}, {name}" for what in ("copies", "alarms") for name in ("held-out", "data")]
    columns = [*shares, "area", "members", "member alarms"]
    means = rows.groupby(["model", "images", "steps"], sort=False)[columns].mean().round(3)
    return means.reset_index()


def figures(rows: pd.DataFrame, config: Config) -> dict[str, Figure]:
    """`copies`: shares of copies along the ladder, and curves of membership."""
    drawing, axes = figure(1, 2)
    for k, name in enumerate(("held-out", "data")):
        shares = [over_draws(rows, "network", f"copies, {name}", steps) for steps in config.lengths]
        look = {"color": colour(k), "marker": MARKERS[k], "label": f"reference: {name}"}
        axes[0].plot(config.lengths, [f.estimate for f in shares], **look)
    axes[0].axhline(LEVEL, color="0.45", linestyle=":", linewidth=0.8, label="false alarms allowed")
    axes[0].set(xscale="log", ylim=(-0.03, 1.03), xlabel="steps of training", ylabel="share of samples flagged")
    axes[0].set_xticks(config.lengths, [str(steps) for steps in config.lengths])
    axes[0].minorticks_off()
    axes[0].legend(frameon=False, fontsize=7)
    areas = _membership(axes[1], rows, config)
    axes[1].plot([0, 1], [0, 1], color="0.45", linestyle=":", linewidth=0.8, label="chance")
    axes[1].set(xlabel="non-members called members", ylabel="members called so")
    axes[1].legend(frameon=False, fontsize=6.5, loc="lower right")
    words = (
        f"Left: share of samples flagged as copies against training, on {config.few} images, mean over draws. Right: "
        f"members found against false alarms, first draw; mean areas under the curves over draws: {areas}. Curves with "
        "an area of 1 lie on each other; the longest training is drawn on top, dashed."
    )
    return {"copies": described(drawing, words)}


def _membership(axis: Axes, rows: pd.DataFrame, config: Config) -> str:
    """Curves of members found against false alarms, and their areas in words."""
    shown = [("network", steps) for steps in config.lengths] + [("control", config.lengths[0])]
    areas = []
    for k, (model, steps) in enumerate(shown):
        row = rows[(rows.model == model) & (rows.steps == steps)].iloc[0]
        label = f"{row.images} images, {steps} steps"
        longest = (model, steps) == ("network", config.lengths[-1])
        look: dict[str, Any] = {
            "color": colour(k),
            "marker": MARKERS[k],
            "markersize": 3,
            "linestyle": "--" if longest else "-",
        }
        curve = [np.asarray(row[name], dtype=float) for name in ("false", "true")]
        axis.plot(*curve, markevery=(3 * k, 12), linewidth=1.4 if longest else 2.4, label=label, **look)
        areas.append(f"{label} {over_draws(rows, model, 'area', steps).estimate:.2f}")
    return ", ".join(areas)
