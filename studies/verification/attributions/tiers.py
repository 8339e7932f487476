"""The truths by name and seed, with what an attributor is given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.errors import StudyError
from studies.verification.attributions import exact, images, trained
from studies.verification.attributions.outputs import OF_SAMPLES, Denoise, Outputs
from studies.verification.attributions.stored import Stored
from studies.verification.problem import BlackBox, Meter

__all__ = ["FRESH", "Truth", "given", "shipped", "truth"]

FOLDER = Path(__file__).parent
FRESH = 128  # halves of an exact tier that are made on the fly
Setting = Any


@dataclass(frozen=True)
class Truth:
    """What retraining says of one output.

    Attributes:
        masks: which data each subset holds (subsets, N).
        values: outputs (seeds, subsets, queries).
        derivative: toward every datum (queries, N), where it is known.
    """

    masks: np.ndarray
    values: np.ndarray
    derivative: np.ndarray | None


def setting_of(name: str, seed: int = 0) -> Setting:
    """The setting of that name; those of the exact tier draw latents and halves by the seed."""
    if name in exact.SETTINGS:
        return exact.SETTINGS[name](name, seed)
    return trained.SETTING if name == trained.SETTING.name else images.SETTINGS[name]


@cache
def shipped(name: str) -> Stored:
    """The shipped file of a setting.

    Raises:
        StudyError: it is absent, damaged, or of other data than this machine's.
    """
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        raise StudyError(f"the truth {name!r} was not shipped; see studies.verification.attributions to make it.")
    return Stored.load(path)


def truth(name: str, functional: str, seed: int = 0) -> Truth:
    """The truth of one output: shipped for seed 0; for others made on the fly in the exact tier, shipped elsewhere."""
    if name in exact.SETTINGS and seed:
        return _fresh(name, seed)[functional]
    stored = shipped(name)
    known = _exact_derivative(name, functional) if name in exact.SETTINGS else _shipped_derivative(stored, functional)
    return Truth(stored.masks, stored.of(functional), known)


def _shipped_derivative(stored: Stored, functional: str) -> np.ndarray | None:
    return None if stored.derivative is None else stored.derivative[stored.functionals.index(functional)]


@cache
def _exact_derivative(name: str, functional: str, seed: int = 0) -> np.ndarray:
    return np.asarray(exact_setting(name, seed).derivative(functional))


@cache
def exact_setting(name: str, seed: int) -> exact.ExactSetting:
    """One setting of the exact tier, kept with what it has computed."""
    return exact.SETTINGS[name](name, seed)


@cache
def _fresh(name: str, seed: int) -> dict[str, Truth]:
    setting = exact_setting(name, seed)
    masks = setting.halves(FRESH)
    values = setting.values(masks)
    return {
        functional: Truth(masks, values[k][None], _exact_derivative(name, functional, seed))
        for k, functional in enumerate(exact.FUNCTIONALS)
    }


@cache
def _asked(name: str, seed: int) -> tuple[Setting, Outputs, torch.nn.Module]:
    """The setting, its outputs and its network: some seconds of training, once a process."""
    if name in exact.SETTINGS:
        setting = exact_setting(name, seed)
        return setting, setting.asked, setting.network()
    setting = setting_of(name)
    return setting, shipped(name).outputs(setting), setting.base()


def given(name: str, functional: str, seed: int, meter: Meter) -> dict[str, Any]:
    """The fields of the problem: never the truth, the masks or the subsets' outputs."""
    setting, asked, network = _asked(name, seed)
    counted = copy.deepcopy(network)
    counted.register_forward_pre_hook(_counter(meter))
    sampled = functional in OF_SAMPLES
    return {
        "data": setting.data.clone(),
        "network": counted,
        "latents": setting.latents.clone(),
        "levels": setting.levels.clone(),
        "samples": asked.reference.clone(),
        "output": BlackBox(lambda denoise: asked.of_network(functional, denoise)),
        "functional": BlackBox(lambda x: asked.of_samples(functional, x)) if sampled else None,
        "loss": Losses(setting, asked.scale),
        "recipe": getattr(setting, "recipe", None),
    }


def _counter(meter: Meter) -> Callable[[Any, Any], None]:
    def count(_: Any, arguments: tuple[Tensor, ...]) -> None:
        meter.calls += 1
        meter.rows += int(arguments[0].shape[0])

    return count


class Losses:
    """The training loss: `loss(denoise, clean, sigma, noise)` (n,) of draws, and `loss.draw(count, seed)` of them.

    Args:
        setting: whose networks decide on the law of levels.
        scale: τ.

    Attributes:
        ridge: λ of a penalty λ|θ|² beside the mean over data of the sum over levels of |D − x|²; 0 without one.
        levels: where training knows these levels only, else None.
    """

    def __init__(self, setting: Setting, scale: float) -> None:
        self.scale = scale
        self.exact = isinstance(setting, exact.ExactSetting)
        self.ridge = exact.RIDGE if isinstance(setting, exact.Features) else 0.0
        self.levels = setting.levels if self.exact else None

    def draw(self, count: int, like: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Levels (count,) and noises (count, *shape) as training draws them, stratified; noise with its opposite."""
        u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        if self.levels is not None:
            levels = self.levels.repeat_interleave(max(1, count // len(self.levels)))
        else:
            levels = self.scale * torch.exp(-0.5 + 1.4 * torch.special.ndtri(u))
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(levels), *like.shape[1:], generator=generator, dtype=torch.float64)
        noise[1::2] = -noise[: len(levels) - len(levels) % 2 : 2]
        return levels.to(like), noise.to(like)

    def __call__(self, denoise: Denoise, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
        """The weighted squared error of every row, summed over pixels in the exact tier, else averaged."""
        gap = (denoise(clean + sigma[:, None, None, None] * noise, sigma) - clean).flatten(1).square()
        if self.exact:
            return gap.sum(1)
        return (sigma**2 + self.scale**2) / (sigma * self.scale) ** 2 * gap.mean(1)
