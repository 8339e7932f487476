"""Part 4: real images, where no truth is known: agreement, bits/dim and ranking of held-out images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from sensitivity import Estimate, Grid, as_score, log_density
from studies import data
from studies.data import Images
from studies.density_formula.config import Config
from studies.density_formula.estimators import IMAGE_NAMES
from studies.density_formula.exact import gathered, quality
from studies.density_formula.learned import recipe
from studies.density_formula.problems import SIGMA, SIGMA_MAX, Setup
from studies.study import Cell, Context
from studies.training import train

Rows = list[dict[str, Any]]
BINS = {"digits": 2 / 16, "mnist": 2 / 255, "fashion": 2 / 255}
DIMENSIONS = {"digits": 64, "mnist": 784, "fashion": 784}
EXACT_UP_TO = 100  # dimension
COPIES = 4  # dequantised copies of each small image


def cells(config: Config) -> list[Cell]:
    """One for each set of images."""
    return [Cell(f"images-{name}", {"part": "images", "images": name}, seed=4) for name in config.images]


def dequantised(images: Tensor, width: float, seed: int) -> Tensor:
    """Images plus uniform noise of one bin, so that a density bounds the discrete code length."""
    generator = torch.Generator().manual_seed(seed)
    return images + width * (torch.rand(images.shape, generator=generator) - 0.5)


def run(cell: Cell, context: Context) -> Rows:
    """Rows: one for each estimator and budget, after that of the reference, the flow with the exact trace."""
    name, config = cell.parameters["images"], context.config
    train_set, held_out = data.load(name).split(0.1, seed=0)
    small = train_set.images[0].numel() <= EXACT_UP_TO
    setup = _setup(name, train_set, context)
    count = config.image_states if small else config.large_states
    upright = dequantised(held_out.images[:count], BINS[name], 31)
    x = torch.cat([upright, upright.flip(-2)]).double()
    x = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(32), dtype=x.dtype)
    steps = config.image_steps_of_flow if small else config.large_steps_of_flow
    reference, coarse = (exact_flow(setup, x, n) for n in (steps, steps // 2))
    shared = {"part": "images", "images": name, "states": count}
    first = {"estimator": "flow, reference", "budget": 0, "coarse": float((coarse.value - reference.value).abs().max())}
    rows = [shared | first | _row([reference], reference, name)]
    budgets, repeats = config.image_budgets, config.image_repeats
    for row, estimates in gathered(setup, x, budgets, repeats, IMAGE_NAMES):
        rows.append(shared | row | _row(estimates, reference, name))
    return rows


def exact_flow(setup: Setup, x: Tensor, steps: int) -> Estimate:
    """The flow with the exact trace on a grid of so many steps."""
    grid = Grid(SIGMA_MAX, SIGMA, steps, spacing="log")
    return log_density(
        setup.score, x, SIGMA, anchor=setup.anchor, grid=grid, trace="exact", products="reverse", chunk_size=8
    )


def _setup(name: str, train_set: Images, context: Context) -> Setup:
    """A network trained on dequantised images; large images have twice the width and four times the steps."""
    small = train_set.images[0].numel() <= EXACT_UP_TO
    copies, config = COPIES if small else 1, context.config
    pool = torch.cat([dequantised(train_set.images, BINS[name], 50 + k) for k in range(copies)])
    width, steps = config.image_width * (1 if small else 2), config.image_steps * (1 if small else 4)
    trained = train(recipe(width, steps), pool, cache=context.cache, device=context.device)
    return Setup(as_score(trained.network.cpu().double(), "denoiser"), pool.double())


def _row(estimates: list[Estimate], reference: Estimate, name: str) -> dict[str, Any]:
    """Numbers of one estimator; the first half of the states is upright, the second upside down."""
    first, dimension = estimates[0], DIMENSIONS[name]
    half = len(first.value) // 2
    ranks = [spearmanr(each.value.numpy(), reference.value.numpy())[0] for each in estimates]
    return quality(estimates, reference.value) | {
        "log_density": float(first.value[:half].mean()),
        "bits": float(first.bits_per_dimension(dimension, BINS[name]).value[:half].mean()),
        "rank": float(np.mean(ranks)),
        "upright": float((first.value[:half] > first.value[half:]).double().mean()),
    }
