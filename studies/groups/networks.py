"""Study `groups_networks`: what if a group were gone, asked of networks that denoise better than simple laws do?

Sources are those of `groups`; for values of groups Shapley 1953 and Ghorbani & Zou 2019, arXiv 1904.02868. The networks
of `groups` are perceptrons that denoise held-out images worse than a Gaussian of the same moments, and such a network
proves nothing about networks.

Protocol, fixed before any result
---------------------------------
- As `groups`, whose groups, retrainings, outcomes, predictors, rivals, planted groups, statistics, claims and
  expectations these are. The network that is trained by a solve is asked for values (below); its intervals are there.
- Networks: U-Nets of two resolutions, 12 channels at the finest, 19 513 parameters, 500 steps of 32 images, on 1 000
  images of digits, Unifont glyphs and Fashion-MNIST averaged to 14×14; on the planted groups too. The size was chosen
  by one training on digits alone (800 steps: held-out loss .589, Gaussian .677, kernel density .718). Whether 500 steps
  train it on the others was not known.
- *Trained*: a regime whose base network denoises held-out images no better than a Gaussian of the data's moments, or
  than a kernel density of best bandwidth, is shown, fails the claim that it is trained, and carries no other. A kind of
  planted groups is a regime, its loss the mean over draws on clean images.
- U-Nets are trained one by one, as `train_many` does, each kept in the cache when it ends: 24 side by side (under
  `vmap`, gradients alone) took .8 of the processor time a step and network at 8×8, 1.6 at 14×14.
- Costs: retraining, and fine-tuning, is the processor time of one network, trained again without the cache, times the
  number of groups.
- Values: what the ten classes of digits are worth to the ink of samples, by `group_values` on the exactly trained
  network of `groups`, without retraining: Shapley's (eight random orders; classes outside a coalition at half of their
  weight, since ten classes are all of the data), by leaving out, and additive. Against solves: all 1 024 coalitions for
  Shapley's, leaving out for both others, the additive being what first order says of it. Ranks are Spearman's over
  classes, mean over latents; the slope is of actual on predicted values through the origin; what Shapley's values sum
  to is held against what all classes are worth by solves, in standard errors over orders, the latent that errs most: of
  all ten nothing, half of everything being the same data, so that the sum tests the program.
- Expectations for values: rank correlations of at least .9, slopes within .7 to 1.4, sums within three standard errors.
  They are not blind: such code gave correlations of .993, .996 and .961 and slopes of .98, 1.11 and 1.34 in a trial.

Amendment of 2026-11-28, after the full run: widths of intervals count how far each is widened beyond its radius of
trust, as the intervals themselves do. They were taken without (.48, .46 and .49 on digits, glyphs and Fashion-MNIST, so
that all held; 1.25, 10.4 and 1.8 with it). `width_table` was added then, for the page, and carries no claim.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from sensitivity import GaussianAnchor, Points
from studies import data
from studies.bandwidths import likeliest
from studies.groups import config as parent
from studies.groups import predictors, verdicts
from studies.groups.bench import FLOOR, FRESH, RANDOM, SECOND, GroupBench, held_out_loss
from studies.groups.cells import (
    floor_row,
    group_rows,
    method_row,
    model_row,
    picture_rows,
    planted_rows,
    planted_run,
)
from studies.groups.config import PLANTS, Regime
from studies.groups.drawing import figures
from studies.groups.outcomes import Shares
from studies.groups.predictors import Predicted, of_samples
from studies.groups.reading import trained_regimes
from studies.groups.values import KINDS, run_values
from studies.networks import Denoiser
from studies.responses.config import Exact
from studies.retraining.bench import LawDenoiser
from studies.study import Cell, Claim, Context
from studies.training import train

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "groups_networks"
QUESTION = "What would samples of a trained network be without a group of its data, and what are groups worth?"
VERSION = 1
DIGITS = Regime("digits", "digits", width=12, depth=2, steps=500, batch=32, kind="unet")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Config(parent.Config):
    """As of `groups`, and sizes of the values.

    Attributes:
        players: classes that are given a value.
        permutations: random orders of the predicted Shapley values.
    """

    planted: Regime = field(default_factory=lambda: replace(DIGITS, name="planted"))
    players: int = 10
    permutations: int = 8

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; nothing is learned."""
        small = replace(DIGITS, parts=1, count=100, width=4, steps=2, batch=8)
        return cls(
            (small,), Exact(points=60, features=12, levels=4), latents=4, grid=2, divisions=60, draws=1, solve=1,
            products=16, plants=1, planted=replace(small, name="planted"), players=4, permutations=2,
        )  # fmt: skip

    @classmethod
    def quick(cls) -> Config:
        """Three minutes on two cores: digits alone, small networks, one draw of planted groups, values of six."""
        small = replace(DIGITS, count=400, width=8, steps=120)
        exact = Exact(points=200, features=48, levels=12)
        planted = replace(small, name="planted")
        return cls((small,), exact, latents=24, grid=12, plants=1, planted=planted, players=6, permutations=4)

    @classmethod
    def full(cls) -> Config:
        """The protocol."""
        glyphs = replace(DIGITS, name="unifont8", images="unifont8", parts=1)
        fashion = replace(DIGITS, name="fashion14", images="fashion14")
        return cls((DIGITS, glyphs, fashion), Exact(points=400, features=64, levels=16))

    @classmethod
    def paper(cls) -> Config:
        """For a cluster: data and lengths of `groups`, wide U-Nets."""
        known = parent.Config.paper()
        nets = [replace(each, kind="unet", width=48, depth=2, batch=64) for each in (*known.regimes, known.planted)]
        return cls(
            tuple(nets[:-1]), known.exact, latents=256, grid=40, divisions=2000, draws=16, solve=60, products=8192,
            plants=20, planted=nets[-1], permutations=64,
        )  # fmt: skip


def cells(config: Config) -> list[Cell]:
    """Parts of every regime, kinds of planted groups and of values; what networks several need is in the cache."""
    regimes = [
        Cell(f"{regime.name}-{part}", {"part": part, "regime": k})
        for k, regime in enumerate(config.regimes)
        for part in PARTS
    ]
    plants = [Cell(f"planted-{kind}", {"part": "planted", "kind": kind}) for kind in PLANTS if config.plants]
    return [*regimes, *plants, *(Cell(f"values-{kind}", {"part": "values", "kind": kind}) for kind in KINDS)]


def run_cell(cell: Cell, context: Context) -> Rows:
    """Rows of one cell; of data that are optional and not on this machine, one row that says so."""
    part, config = cell.parameters["part"], context.config
    if part == "values":
        return run_values(cell.parameters["kind"], config.exact, config.latents, config.players, config.permutations)
    if part == "planted":
        return _planted(cell.parameters["kind"], context)
    regime = config.regimes[cell.parameters["regime"]]
    if not data.available(regime.images):
        return [{"kind": "skipped", "regime": regime.name, "reason": f"the images {regime.images!r} are not here"}]
    return PARTS[part](GroupBench(regime, context))


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Whether networks are trained, what `groups` claims of those that are, and values."""
    kept = rows[rows.regime.isin(trained_regimes(rows))]
    return [*verdicts.trained(rows), *verdicts.claims(kept, config), *verdicts.values(rows)]


def _fresh(bench: GroupBench) -> Rows:
    """The first truth, and the base network beside two laws."""
    bench.retrained([*bench.without(bench.members)], FRESH)
    losses = _losses(bench.base.module, bench.images, bench.split[1].images)
    return [model_row(bench, _price(bench)) | losses]


def _second(bench: GroupBench) -> Rows:
    truths = _truths(bench)
    return _methods(bench, {"retraining, other seed": (truths["second"], _price(bench))}, truths)


def _same_seed(bench: GroupBench) -> Rows:
    return _methods(bench, {"retraining, same seed": (bench.same_seed(bench.members), _price(bench))})


def _tuned(bench: GroupBench) -> Rows:
    samples = predictors.tuned(bench, bench.members)
    return _methods(bench, {"fine-tuning": (samples, _price(bench, tuned=True))})


def _random(bench: GroupBench) -> Rows:
    """Random groups, and networks with nothing changed but the seed."""
    base, shares = bench.samples(bench.base.module), Shares(bench.images, bench.labels)
    retrained = bench.retrained([*bench.without(bench.random_groups)], RANDOM)
    floor = bench.retrained([None] * bench.config.floor, FLOOR)
    predicted, _ = predictors.unrolled(bench, bench.random_groups)
    name = bench.regime.name
    rows = group_rows(name, "random", predicted, retrained, shares, bench.random_groups)
    return [*rows, floor_row(name, base, floor, shares)]


def _unrolled(bench: GroupBench) -> Rows:
    """The derivative of the base's run, which is recorded before its time is taken."""
    name, members, shares, _ = bench.regime.name, bench.members, Shares(bench.images, bench.labels), bench.base
    predicted, seconds = predictors.unrolled(bench, members)
    truths = _truths(bench)
    first = predicted.base + predicted.first
    asked = {"unrolled": (predicted.samples, seconds), "unrolled, first order": (first, seconds)}
    rows = group_rows(name, "real", predicted, truths["fresh"], shares, members)
    return [*rows, *_methods(bench, asked, truths), *picture_rows(name, predicted, truths["fresh"])]


def _rivals(bench: GroupBench) -> Rows:
    """Those that train no network."""
    members, shares, truths = bench.members, Shares(bench.images, bench.labels), _truths(bench)
    base = shares(bench.samples(bench.base.module)).double().cpu().numpy()
    asked = {name: _timed(partial(predictors.SAMPLERS[name], bench, members)) for name in SAMPLED}
    sums, seconds = _timed(partial(predictors.projected, bench, members, shares, base))
    counted = predictors.counting(bench, members, base)
    both = {"projected gradients": Predicted(sums, None, seconds), "counting": Predicted(counted, None, 0.0)}
    rows = [method_row(bench.regime.name, name, each, shares, truths) for name, each in both.items()]
    return [*_methods(bench, asked, truths), *rows]


SAMPLED = ("parameters", "population, kernel ratio", "negative guidance")
PARTS: dict[str, Callable[[GroupBench], Rows]] = {
    "fresh": _fresh,
    "second": _second,
    "random": _random,
    "same-seed": _same_seed,
    "fine-tuning": _tuned,
    "unrolled": _unrolled,
    "rivals": _rivals,
}


def _truths(bench: GroupBench) -> dict[str, Tensor]:
    """Samples of networks retrained without each group with two fresh seeds."""
    weights: list[Tensor | None] = [*bench.without(bench.members)]
    return {"second": bench.retrained(weights, SECOND), "fresh": bench.retrained(weights, FRESH)}


def _methods(
    bench: GroupBench, asked: dict[str, tuple[Tensor, float]], truths: dict[str, Tensor] | None = None
) -> Rows:
    """Rows of predicted samples and their seconds beside the truths."""
    shares, truths = Shares(bench.images, bench.labels), truths or _truths(bench)
    return [
        method_row(bench.regime.name, name, of_samples(shares, samples, seconds), shares, truths)
        for name, (samples, seconds) in asked.items()
    ]


def _price(bench: GroupBench, tuned: bool = False) -> float:
    """Processor seconds of all retrainings: one network to its samples, not from the cache, times the groups."""
    start = bench.base.module if tuned else None
    weights = bench.without(bench.members)[0]

    def once() -> Tensor:
        made = train(
            bench.recipe(tuned), bench.images, weights=weights, seed=FRESH, start=start, device=bench.context.device
        )
        return bench.samples(made.network)

    return len(bench.members) * _timed(once)[1]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return call(), time.process_time() - start


def _losses(network: Denoiser, images: Tensor, held_out: Tensor) -> dict[str, float]:
    """Held-out denoising losses of a network and of two laws of its data (N, 1, h, w)."""
    width = likeliest(images, held_out)
    laws: dict[str, GaussianAnchor | Points] = {
        "gaussian": GaussianAnchor.from_data(images),
        "kernel": Points(images, bandwidth=width),
    }
    losses = {name: held_out_loss(LawDenoiser(law, network.scale), held_out) for name, law in laws.items()}
    return losses | {"loss": held_out_loss(network, held_out), "bandwidth": width}


def _planted(kind: str, context: Context) -> Rows:
    """As of `groups`, and whether the networks are trained."""
    rows: Rows = []
    regime, losses = f"planted, {kind}", []
    for draw in range(context.config.plants):
        plant, made = planted_run(kind, draw, context)
        rows += planted_rows(kind, draw, plant, made)
        losses.append(_losses(made.module, plant.images, plant.clean))
    means = {name: float(np.mean([each[name] for each in losses])) for name in losses[0]}
    model = {"kind": "model", "regime": regime, "images": len(plant.images), "parameters": len(made.theta)}
    return [*(row | {"regime": regime} for row in rows), model | means]
