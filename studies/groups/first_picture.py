"""The picture at the top of README: samples, the training images that made them, and the samples without a class.

    python -m studies.groups.first_picture book/_assets/one-sample.png

trains a perceptron on 1 000 digits and records the run. The derivative of the run says, without another training, which
training images bring each sample about (one pass back) and what the samples would be without the class of the largest
change (one pass forward); then the network is trained again without it. About a minute of one core. The text of the
picture is printed and kept in the file as its description.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sensitivity import Grid, Groups, UnrolledResponse, as_score, counterfactual, influence
from studies import data
from studies.figures import described, picture
from studies.groups.bench import shuffled
from studies.networks import Architecture
from studies.responses.bench import RULE
from studies.retraining.bench import OBJECTIVE
from studies.sampling import sample
from studies.training import Recipe
from studies.training.record import record

WINNERS = 4  # training images beside each sample
GAP = 0.25  # between groups of panels, in panels


@dataclass(frozen=True)
class Setting:
    """What is trained and shown.

    Attributes:
        images: of `studies.data`.
        each: images of a class.
        dropped: the class that is removed.
        width, depth, steps: of the perceptron and its training.
        latents: samples.
        grid: steps of the sampler.
        shown: rows of the picture: the samples whose predicted change is largest, retraining unseen.
    """

    images: str = "digits"
    each: int = 100
    dropped: int = 0
    width: int = 64
    depth: int = 3
    steps: int = 800
    latents: int = 48
    grid: int = 20
    shown: int = 4


@dataclass(frozen=True)
class Shown:
    """What a setting gives.

    Attributes:
        setting: what was trained.
        samples: of the network, (n, 1, h, w).
        predicted, retrained: from the same latents without the class, as predicted and as retrained from the same seed.
        reseeded: from the same latents by a network of another seed, nothing removed.
        order: of the samples, by predicted change, largest first, (n,).
        winners: training images, (shown, WINNERS, 1, h, w).
    """

    setting: Setting
    samples: Tensor
    predicted: Tensor
    retrained: Tensor
    reseeded: Tensor
    order: Tensor
    winners: Tensor

    @cached_property
    def caption(self) -> str:
        """The picture in words, its numbers included."""
        predicted, was, luck = ((x - self.samples).flatten(1) for x in (self.predicted, self.retrained, self.reseeded))
        alike = torch.nn.functional.cosine_similarity(predicted, was).median()
        seed = (luck.norm(dim=1) / was.norm(dim=1)).median()
        setting, count = self.setting, len(self.samples)
        return (
            f"Left: samples of a small network trained on {10 * setting.each} digits, each beside the {WINNERS} "
            "training images that would strengthen it most if they had more weight. Right: the same samples had "
            f"there been no {setting.dropped} in the data, as predicted without training and as really retrained "
            "from the same seed, and what changed (red: brighter, blue: darker). "
            f"These are the {setting.shown} of {count} samples with the largest predicted change; over all {count} "
            f"the median cosine between predicted and retrained change is {alike:.2f}. Another seed alone moves the "
            f"samples {seed:.1f} times as far (median)."
        )


def shown(setting: Setting) -> Shown:
    """Train, predict, and only then train again."""
    images, labels = _images(setting)
    recipe = Recipe(
        Architecture("mlp", width=setting.width, depth=setting.depth), OBJECTIVE, steps=setting.steps, batch=64,
        rate=2e-3, warmup=min(100, setting.steps // 4), halflife=setting.steps / 20,
    )  # fmt: skip
    run = record(recipe, images, seed=0, rule=RULE)
    grid, score, response = Grid(20.0, 0.05, setting.grid), as_score(run.module, "denoiser"), UnrolledResponse(run)
    noise = torch.randn(setting.latents, *images.shape[1:], generator=torch.Generator().manual_seed(5))
    latents = images.mean(0) + grid.sigma_max * noise
    rows = np.flatnonzero(labels == setting.dropped)
    prediction = counterfactual(score, latents, Groups(images, {"class": rows.tolist()}), grid, response=response)
    order = prediction.change[0].flatten(1).norm(dim=1).argsort(descending=True)
    some = order[: setting.shown]
    itself = prediction.base[some] - images.mean(0)
    gains = influence(
        score, latents[some], lambda x: (x * itself).flatten(1).sum(1), run.points, grid, response=response
    )  # how far the sample is itself
    left = torch.ones(len(images), dtype=torch.float64)
    left[rows.tolist()] = 0.0
    again = run.network_at(run.retrained(left / left.sum()))
    other = record(recipe, images, seed=1, rule=RULE)
    made = (_samples(again, latents, grid), _samples(other.module, latents, grid))
    return Shown(
        setting, prediction.base, prediction.samples[0], *made, order, images[gains.values.topk(WINNERS).indices]
    )


def _images(setting: Setting) -> tuple[Tensor, np.ndarray]:
    whole = data.load(setting.images)
    labels = np.asarray(whole.labels)
    rows = np.sort(np.concatenate([own[: setting.each] for own in shuffled(labels)]))
    return whole.images[rows.tolist()], labels[rows]


def _samples(network: torch.nn.Module, latents: Tensor, grid: Grid) -> Tensor:
    return sample(as_score(network, "denoiser"), latents, grid)


def drawing(what: Shown) -> Any:
    """One row a sample: itself, its training images, itself without the class, and the changes."""
    some = what.order[: what.setting.shown].tolist()
    changes = [(each - what.samples)[some] for each in (what.predicted, what.retrained)]
    limit = float(torch.stack(changes).abs().amax())
    columns = {
        "a sample": [("", what.samples[some])],
        "training images that made it": [(f"no. {k + 1}", what.winners[:, k]) for k in range(WINNERS)],
        f"without any {what.setting.dropped}": list(
            zip(("predicted", "retrained"), (what.predicted[some], what.retrained[some]), strict=True)
        ),
        "what changed": list(zip(("predicted", "retrained"), changes, strict=True)),
    }
    # A narrow empty column parts the groups; all panels share one grid, so that rows stand level.
    widths = [width for sets in columns.values() for width in (*[1.0] * len(sets), GAP)][:-1]
    figure = Figure(figsize=(sum(widths), len(some) + 0.5))
    axes = figure.subplots(len(some), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.55 / (len(some) + 0.5), wspace=0.08, hspace=0.08
    )
    for each in axes.ravel():
        each.axis("off")
    place = 0
    for head, sets in columns.items():
        middle = (axes[0, place].get_position().x0 + axes[0, place + len(sets) - 1].get_position().x1) / 2
        figure.text(middle, 0.995, head, ha="center", va="top", fontsize=10)
        for name, images in sets:
            for each, image in zip(axes[:, place], images, strict=True):
                each.axis("on")
                picture(each, image[0].numpy(), signed=head == "what changed", limit=limit)
            axes[0, place].set_title(name, fontsize=9)
            place += 1
        place += 1
    return described(figure, what.caption)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw into the file that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    drawn = drawing(shown(Setting()))
    drawn.savefig(out, dpi=110, metadata={"Description": drawn.alt, "Software": None})
    print(drawn.alt)


if __name__ == "__main__":
    main()
