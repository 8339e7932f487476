"""Networks of the diffusers package with their scheduler: UNet2DModel, UNet2DConditionModel, transformers.

The scheduler says what the network predicts and which process it belongs to: a table `ᾱ_t` (DDPM, DDIM, Euler, and
all schedulers that carry one) with ε, x₀ or v, or flow matching (`z = (1 − σ′) x₀ + σ′ ε`, time `1000 σ′`, velocity
`ε − x₀`). The pipeline's own choices that are no part of the law (clipping, thresholding, step spacing) are left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity._callables import refuse_training_mode
from sensitivity._checks import check_positive_number
from sensitivity.adapters._calling import NetworkCall, require
from sensitivity.scores.schedule import Schedule
from sensitivity.scores.schedules import DiscreteDDPM, RectifiedFlow
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["ScaledTime", "from_diffusers"]

PREDICTIONS = {"epsilon": "noise", "sample": "denoiser", "v_prediction": "v"}

_DISTILLED = (
    "the network of a consistency model jumps to x₀ in a few steps and is no score; pass the model that it was "
    "distilled from, with that one's scheduler."
)
REFUSED = {
    "LCM": _DISTILLED,
    "TCD": _DISTILLED,
    "CMStochastic": _DISTILLED,
    "FlowMatchLCM": _DISTILLED,
    "SCM": _DISTILLED,
    "EDM": "the network is preconditioned; wrap it as a denoiser model(x, sigma) and use from_edm.",
    "CosineDPM": "the network is preconditioned; wrap it as a denoiser model(x, sigma) and use from_edm.",
    "KarrasVe": "its states are those of the engine; use from_edm with the denoiser model(x, sigma).",
    "ScoreSdeVe": "its network is a score at time σ; use as_score(lambda x, sigma: model(x, sigma).sample, 'score').",
    "ScoreSdeVp": "its network predicts noise in continuous time; use as_score(network, 'noise', VPLinear(...)).",
}


def from_diffusers(
    model: Any, scheduler: Any, *, integer_times: bool = False, time_scale: float | None = None, **conditions: Any
) -> NetworkScore:
    """The score of a diffusers network.

    Args:
        model: a network of diffusers that takes a state and a time and returns one of the shape of the state, or of
            twice its channels (the second half, a learned variance, is dropped); also compiled, in a `DataParallel`,
            or in a wrapper of its own that hands `(state, time, return_dict=False, **conditions)` on.
        scheduler: the scheduler it was trained with.
        integer_times: hand the network whole numbers (int64), the nearest; else times between those of the table are
            fractional.
        time_scale: flow matching only: the network's time for σ′ = 1, by default `num_train_timesteps`. Flux takes 1.
        conditions: one condition for all samples, under the network's own names (`encoder_hidden_states`,
            `class_labels`, …): tensors with a leading axis of size 1, a whole number for a label.

    Returns:
        A score whose `schedule` starts at the scheduler's noisiest level that is finite.

    Raises:
        ImportError: without diffusers, naming the extra.
        TypeError, ValueError: for a scheduler of another kind, or a prediction or time it cannot stand for.

    Example (diffusers loads slowly, so this one is run by the tests)::

        pipeline = diffusers.DDPMPipeline.from_pretrained("google/ddpm-cifar10-32")
        score = from_diffusers(pipeline.unet.eval(), pipeline.scheduler)
        latents = score.schedule.sigma_max * torch.randn(4, 3, 32, 32)
        grid = score.schedule.grid(50)
    """
    package = require("diffusers", "from_diffusers")
    if not isinstance(scheduler, package.SchedulerMixin):
        raise TypeError(f"scheduler is a {type(scheduler).__name__}: pass a scheduler of diffusers.")
    refuse_training_mode(model)
    parametrization, schedule = _process(package, scheduler, integer_times, time_scale)
    call = DiffusersCall(model, conditions, _state_name(model))
    return as_score(call, parametrization, schedule)


def _process(package: Any, scheduler: Any, integer_times: bool, time_scale: float | None) -> tuple[str, Schedule]:
    config = scheduler.config
    _refuse_kind(type(scheduler).__name__)
    matching = isinstance(scheduler, package.FlowMatchEulerDiscreteScheduler | package.FlowMatchHeunDiscreteScheduler)
    if matching or config.get("use_flow_sigmas", False):
        if config.get("invert_sigmas", False):
            raise ValueError("scheduler has invert_sigmas=True, which turns time round: pass one without it.")
        scale = config.num_train_timesteps if time_scale is None else time_scale
        return _flow_prediction(config, matching), ScaledTime(check_positive_number(scale, "time_scale"))
    # Schedulers of diffusers share no class that says which process they have.
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
    table = scheduler.alphas_cumprod.detach().clone()
    if config.get("rescale_betas_zero_snr", False):
        table[-1] = 0.0  # Euler's schedulers put 2⁻²⁴ there, more than the value before it
    return PREDICTIONS[prediction], DiscreteDDPM(table, integer_times=integer_times)


def _flow_prediction(config: Any, matching: bool) -> str:
    """What a network of the straight path predicts: the velocity, or ε or x₀ in the solvers that take those too."""
    prediction = "flow_prediction" if matching else config.get("prediction_type", "flow_prediction")
    known = {"flow_prediction": "velocity", "epsilon": "noise", "sample": "denoiser"}
    if prediction not in known:
        raise ValueError(f"scheduler predicts {prediction!r} on flow sigmas: supported are {', '.join(known)}.")
    return known[prediction]


def _refuse_kind(kind: str) -> None:
    """Schedulers whose networks are read otherwise, or are no scores.

    Raises:
        ValueError: naming the way.
    """
    for start, sentence in REFUSED.items():
        if kind.startswith(start):
            raise ValueError(f"scheduler is a {kind}: {sentence}")


def _unwrapped(model: Any) -> Any:
    """The network inside `torch.compile` and `DataParallel`, for its signature."""
    for name in ("_orig_mod", "module"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            return _unwrapped(inner)
    return model


def _state_name(model: Any) -> str | None:
    """The name of the state's argument, or None where a wrapper takes any arguments and they go by position."""
    network = _unwrapped(model)
    parameters = inspect.signature(getattr(network, "forward", network)).parameters
    if "timestep" in parameters:
        return next(iter(parameters))
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return None
    raise TypeError(f"model is a {type(model).__name__} whose forward takes no timestep: pass a denoising network.")


class DiffusersCall(NetworkCall):
    """A network of diffusers, called by the name of its state, or by position in a wrapper (`state` is None)."""

    def __init__(self, model: Any, conditions: Mapping[str, Any], state: str | None):
        super().__init__(model, conditions)
        self.state = state

    def predicted(self, z: Tensor, t: Tensor, arguments: dict[str, Any]) -> Tensor:
        """The prediction, without a learned variance."""
        if self.state is None:
            output = self.model(z, t, return_dict=False, **arguments)
        else:
            output = self.model(**{self.state: z, "timestep": t}, return_dict=False, **arguments)
        output = output if isinstance(output, Tensor) else output[0]
        learned_variance = output.ndim == z.ndim and output.shape[1] == 2 * z.shape[1]
        return output[:, : z.shape[1]] if learned_variance else output


class ScaledTime(RectifiedFlow):
    """Rectified flow whose time runs to `scale` instead of 1.

    Args:
        scale: the time at which only noise is left.
        last: the first and the last fraction of it at which a state is taken.
    """

    def __init__(self, scale: float, last: tuple[float, float] = (0.99, 1e-3)):
        super().__init__(*last)
        self.scale = scale
        self.start, self.stop = scale * self.start, scale * self.stop

    def time(self, sigma: Tensor) -> Tensor:
        """`scale · σ/(1 + σ)`."""
        return self.scale * super().time(sigma)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(1 − t/scale, t/scale)`."""
        return super().coefficients(t / self.scale)

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, α, σ′)` at level σ."""
        return self.time(sigma), 1 / (1 + sigma), sigma / (1 + sigma)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(−1, 1)` per unit of σ′, the clock in which the velocity is `ε − x₀`."""
        return -torch.ones_like(t), torch.ones_like(t)
