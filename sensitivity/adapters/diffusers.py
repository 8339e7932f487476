"""Networks of the diffusers package with their scheduler: UNet2DModel, UNet2DConditionModel, transformers.

The scheduler says what the network predicts and which process it belongs to: a table ``ᾱ_t`` (DDPM, DDIM, Euler, and
all schedulers that carry one) with ε, x₀ or v, or flow matching (``z = (1 − σ′) x₀ + σ′ ε``, time ``1000 σ′``, velocity
``ε − x₀``). The pipeline's own choices that are no part of the law (clipping, thresholding, step spacing) are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import refuse_training_mode
from sensitivity._checks import check_positive_number
from sensitivity.adapters._calling import Conditioned, in_dtype_of, require
from sensitivity.scores.schedule import Schedule
from sensitivity.scores.schedules import DiscreteDDPM, RectifiedFlow
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["ScaledTime", "from_diffusers"]

PREDICTIONS = {"epsilon": "noise", "sample": "denoiser", "v_prediction": "v"}


def from_diffusers(
    model: Any, scheduler: Any, *, integer_times: bool = False, time_scale: float | None = None, **conditions: Any
) -> NetworkScore:
    """The score of a diffusers network.

    Args:
        model: a network of diffusers that takes a state and a time and returns one of the shape of the state, or of
            twice its channels (the second half, a learned variance, is dropped).
        scheduler: the scheduler it was trained with.
        integer_times: round times to whole numbers; else times between those of the table are fractional.
        time_scale: flow matching only: the network's time for σ′ = 1, by default ``num_train_timesteps``. Flux takes 1.
        conditions: one condition for all samples, under the network's own names (``encoder_hidden_states``,
            ``class_labels``, …): tensors with a leading axis of size 1, a whole number for a label.

    Returns:
        A score whose ``schedule`` starts at the scheduler's noisiest level that is finite.

    Raises:
        ImportError: without diffusers, naming the extra.
        TypeError, ValueError: for a scheduler of another kind, or a prediction or time it cannot stand for.

    Example (diffusers loads slowly, so this one is run by the tests)::

        pipeline = diffusers.DDPMPipeline.from_pretrained(…)
        score = from_diffusers(pipeline.unet.eval(), pipeline.scheduler)
        latents = score.schedule.to_latents(torch.randn(4, 3, 32, 32))
        grid = score.schedule.grid(50)
    """
    package = require("diffusers", "from_diffusers")
    if not isinstance(scheduler, package.SchedulerMixin):
        raise TypeError(f"scheduler is a {type(scheduler).__name__}: pass a scheduler of diffusers.")
    refuse_training_mode(model)
    parametrization, schedule = _process(package, scheduler, integer_times, time_scale)
    return as_score(in_dtype_of(model, _caller(model, Conditioned(conditions))), parametrization, schedule)


def _process(package: Any, scheduler: Any, integer_times: bool, time_scale: float | None) -> tuple[str, Schedule]:
    config = scheduler.config
    if isinstance(scheduler, package.FlowMatchEulerDiscreteScheduler | package.FlowMatchHeunDiscreteScheduler):
        if config.get("invert_sigmas", False):
            raise ValueError("scheduler has invert_sigmas=True, which turns time round: pass one without it.")
        scale = config.num_train_timesteps if time_scale is None else time_scale
        return "velocity", ScaledTime(check_positive_number(scale, "time_scale"))
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"scheduler is a {type(scheduler).__name__} without alphas_cumprod: pass DDPM, DDIM, Euler or a "
            "flow-match scheduler."
        )
    if config.get("timestep_type", "discrete") != "discrete":
        raise ValueError("scheduler has continuous timesteps: wrap the preconditioned network with from_edm.")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"scheduler predicts {prediction!r}: supported are {', '.join(PREDICTIONS)} and flow matching."
        )
    return PREDICTIONS[prediction], DiscreteDDPM(scheduler.alphas_cumprod, integer_times=integer_times)


def _caller(model: Any, extra: Conditioned) -> Callable[[Tensor, Tensor], Tensor]:
    names = inspect.signature(getattr(model, "forward", model)).parameters
    state = next(iter(names))
    if "timestep" not in names:
        raise TypeError(f"model is a {type(model).__name__} whose forward takes no timestep: pass a denoising network.")

    def call(z: Tensor, t: Tensor) -> Tensor:
        output = model(**{state: z, "timestep": t}, return_dict=False, **extra.for_batch(z))[0]
        learned_variance = output.ndim == z.ndim and output.shape[1] == 2 * z.shape[1]
        return output[:, : z.shape[1]] if learned_variance else output

    return call


class ScaledTime(RectifiedFlow):
    """Rectified flow whose time runs to ``scale`` instead of 1.

    Args:
        scale: the time at which only noise is left.
        last: the first and the last fraction of it at which a state is taken.
    """

    def __init__(self, scale: float, last: tuple[float, float] = (0.99, 1e-3)):
        super().__init__(*last)
        self.scale = scale
        self.start, self.stop = scale * self.start, scale * self.stop

    def time(self, sigma: Tensor) -> Tensor:
        """``scale · σ/(1 + σ)``."""
        return self.scale * super().time(sigma)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(1 − t/scale, t/scale)``."""
        return super().coefficients(t / self.scale)

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(t, α, σ′)`` at level σ."""
        return self.time(sigma), 1 / (1 + sigma), sigma / (1 + sigma)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``(−1, 1)`` per unit of σ′, the clock in which the velocity is ``ε − x₀``."""
        return -torch.ones_like(t), torch.ones_like(t)
