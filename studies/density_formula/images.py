"""Part 4: real images, where no truth is known: agreement, bits/dim and ranking of held-out images."""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from sensitivity import Estimate, as_score
from studies import data
from studies.data import Images
from studies.density_formula.config import Config
from studies.density_formula.estimators import IMAGE_NAMES, STAGES, estimate, flow
from studies.density_formula.learned import recipe
from studies.density_formula.problems import SIGMA, Setup
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
    """Rows: one for each estimator."""
    name, config = cell.parameters["images"], context.config
    train_set, held_out = data.load(name).split(0.1, seed=0)
    setup = _setup(name, train_set, context)
    small = train_set.images[0].numel() <= EXACT_UP_TO
    count, budget = (config.image_states, config.image_budget)
    if not small:
        count, budget = max(count // 2, 4), max(budget // 4, 128)
    upright = dequantised(held_out.images[:count], BINS[name], 31)
    x = torch.cat([upright, upright.flip(-2)]).double()
    x = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(32), dtype=x.dtype)
    reference = _reference(setup, x, small)
    shared = {"part": "images", "images": name, "budget": budget, "states": count}
    rows = [shared | {"estimator": "flow" if small else "hutchinson, 16 probes"} | _row(reference, reference, name)]
    for estimator in IMAGE_NAMES:
        found = estimate(estimator, setup, x, budget, 41)
        if found is not None:
            rows.append(shared | {"estimator": estimator} | _row(found, reference, name))
    return rows


def _setup(name: str, train_set: Images, context: Context) -> Setup:
    """A network trained on dequantised images."""
    copies = COPIES if train_set.images[0].numel() <= EXACT_UP_TO else 1
    pool = torch.cat([dequantised(train_set.images, BINS[name], 50 + k) for k in range(copies)])
    config = context.config
    trained = train(recipe(config.image_width, config.image_steps), pool, cache=context.cache, device=context.device)
    return Setup(as_score(trained.network.cpu().double(), "denoiser"), pool.double())


def _reference(setup: Setup, x: Tensor, small: bool) -> Estimate:
    """Exact trace where the dimension allows, else sixteen probes."""
    budget = 16 * STAGES * (1 + x[0].numel()) if small else 32 * STAGES * 17
    found = flow(setup, x, budget, 0) if small else estimate("hutchinson", setup, x, budget, 77)
    if found is None:
        raise RuntimeError("the reference flow has no steps: give it a larger budget.")
    return found


def _row(found: Estimate, reference: Estimate, name: str) -> dict[str, Any]:
    """Numbers of one estimator; the first half of the states is upright, the second upside down."""
    half, dimension = len(found.value) // 2, DIMENSIONS[name]
    gap = found.value - reference.value
    cost = found.evaluations
    return {
        "evaluations": int(cost if isinstance(cost, int) else cost.max()),
        "log_density": float(found.value[:half].mean()),
        "bits": float(found.bits_per_dimension(dimension, BINS[name]).value[:half].mean()),
        "reported": float(found.standard_error.square().mean().sqrt()),
        "rms": float(gap.square().mean().sqrt()),
        "bias": float(gap.mean()),
        "rank": float(spearmanr(found.value.numpy(), reference.value.numpy())[0]),
        "upright": float((found.value[:half] > found.value[half:]).double().mean()),
    }
