"""Flow-matching velocities: the flow_matching package's protocol and torchcfm's.

Here time runs the other way, `z_t = α_t x₀ + σ′_t ε` with noise at t = 0 and data at t = 1, and the network predicts
`dz/dt`. With torchcfm's path noise ς, `z_t = t x₀ + (1 − t) ε + ς ε̃`: the same with `σ′² = (1 − t)² + ς²`.

The velocity is a score only where source and data were paired independently and the source is `N(0, I)`: with
minibatch optimal-transport pairs the states at time t are not noised data, and no formula gives their score.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import refuse_training_mode
from sensitivity._checks import check_choice, check_positive_number
from sensitivity.adapters._calling import NetworkCall, require
from sensitivity.scores.schedule import Schedule, check_interval
from sensitivity.scores.score import NetworkScore, as_score

__all__ = ["DataLast", "SchedulerTime", "from_flow_matching"]

PROTOCOLS = ("flow_matching", "torchcfm")


def from_flow_matching(
    velocity: Callable[..., Tensor],
    scheduler: Any = None,
    *,
    protocol: str = "flow_matching",
    path_noise: float = 0.0,
    **conditions: Any,
) -> NetworkScore:
    """The score of a flow-matching velocity, trained with independent pairs and a standard normal source.

    Args:
        velocity: `velocity(z, t)`, or `velocity(t, z)` when `protocol="torchcfm"`; t of shape `(batch,)`. A
            network of one argument, such as torchcfm's `MLP`, gets `[z, t]`, the time as the last coordinate, and
            so does the network inside torchcfm's `torch_wrapper`, which takes one time for all samples.
        scheduler: a scheduler of the flow_matching package; the straight path `z = t x₀ + (1 − t) ε` when `None`.
        protocol: `"flow_matching"` or `"torchcfm"`.
        path_noise: ς, torchcfm's `sigma`, for the straight path; samples then end at level ς, not at 0.
        conditions: one condition for all samples: tensors with a leading axis of size 1, a whole number for a label.

    Returns:
        A score whose `schedule` starts at t = 0.01, `σ_max` = 99 for the straight path.

    Source: Lipman et al. 2023, arXiv 2210.02747; Tong et al. 2023, arXiv 2302.00482, eq. 13.

    Example:
        >>> import torch
        >>> gaussian = lambda z, t: z * ((2 * t - 1) / (t**2 + (1 - t) ** 2)).reshape(-1, 1)  # X ~ N(0, I)
        >>> score = from_flow_matching(gaussian)
        >>> score(torch.ones(1, 2), torch.tensor(2.0))
        tensor([[-0.2000, -0.2000]])
    """
    check_choice(protocol, PROTOCOLS, "protocol")
    noise = check_positive_number(path_noise, "path_noise", zero=True)
    refuse_training_mode(velocity)
    call = VelocityCall(_unwrapped(velocity), conditions, protocol)
    return as_score(call, "velocity", _schedule(scheduler, noise))


class VelocityCall(NetworkCall):
    """A velocity in the order of arguments of its protocol."""

    def __init__(self, model: Any, conditions: Mapping[str, Any], protocol: str):
        super().__init__(model, conditions)
        self.protocol, self.joint = protocol, _one_argument(model)

    def predicted(self, z: Tensor, t: Tensor, arguments: dict[str, Any]) -> Tensor:
        """`dz/dt`, like `z`."""
        if self.joint:
            column = t.to(z.dtype)[:, None]
            output: Tensor = self.model(torch.cat([z, column], -1), **arguments)
        elif self.protocol == "torchcfm":
            output = self.model(t, z, **arguments)
        else:
            output = self.model(z, t, **arguments)
        return output


def _unwrapped(velocity: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The network inside torchcfm's `torch_wrapper`, which repeats one time and so has none for each sample."""
    inner = getattr(velocity, "model", None)
    return inner if type(velocity).__name__ == "torch_wrapper" and callable(inner) else velocity


def _one_argument(network: Any) -> bool:
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters.values()
    except (TypeError, ValueError):  # a builtin has none
        return False
    kinds = [p.kind for p in parameters]
    return len(kinds) == 1 and kinds[0] in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _schedule(scheduler: Any, noise: float) -> Schedule:
    if scheduler is None:
        return DataLast(noise)
    package = require("flow_matching.path.scheduler", "from_flow_matching with a scheduler")
    if not isinstance(scheduler, package.Scheduler):
        raise TypeError(f"scheduler is a {type(scheduler).__name__}: pass a scheduler of flow_matching.path.scheduler.")
    if noise:
        raise ValueError(f"path_noise = {noise} belongs to the straight path: pass scheduler=None with it.")
    return SchedulerTime(scheduler)


class DataLast(Schedule):
    """`α = t`, `σ′ = ((1 − t)² + ς²)^{1/2}`: the straight path with data at t = 1.

    Args:
        path_noise: ς ≥ 0.
        start: the time > 0 at which sampling starts, `σ_max ≈ 1/start`.
        stop: the time < 1 at which it stops.
    """

    def __init__(self, path_noise: float = 0.0, start: float = 0.01, stop: float = 0.999):
        check_interval(start, stop, "start, stop", (1e-12, 1 - 1e-12))
        self.path_noise, self.start, self.stop = path_noise, start, stop

    def time(self, sigma: Tensor) -> Tensor:
        """The root of `σ² t² = (1 − t)² + ς²` in (0, 1]: `t = (1 + ς²)/(1 + (σ²(1 + ς²) − ς²)^{1/2})`."""
        whole = 1 + self.path_noise**2
        # Levels below ς have no root: callers refuse them by `domain`, and the clamp keeps a NaN out of what is masked.
        return whole / (1 + (sigma**2 * whole - self.path_noise**2).clamp(min=0).sqrt())

    @property
    def domain(self) -> tuple[float, float]:
        """Levels from ς, that of t = 1, upward."""
        return self.path_noise, math.inf

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` at time t."""
        return t, ((1 - t) ** 2 + self.path_noise**2).sqrt()

    def process(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(t, α, σ′)` at level σ, without the cancellation in 1 − t."""
        t = self.time(sigma)
        return t, t, sigma * t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(1, −(1 − t)/σ′)`."""
        if not self.path_noise:
            return torch.ones_like(t), -torch.ones_like(t)
        return torch.ones_like(t), -(1 - t) / self.coefficients(t)[1]


class SchedulerTime(Schedule):
    """A scheduler of the flow_matching package, with data at t = 1.

    Args:
        scheduler: its scheduler.
        start, stop: the first and the last time, within (0, 1), where α > 0 and σ′ > 0.
    """

    def __init__(self, scheduler: Any, start: float = 0.01, stop: float = 0.999):
        check_interval(start, stop, "start, stop", (1e-12, 1 - 1e-12))
        self.scheduler, self.start, self.stop = scheduler, start, stop

    def time(self, sigma: Tensor) -> Tensor:
        """The scheduler's inverse of its signal-to-noise ratio `1/σ`."""
        return self.scheduler.snr_inverse(1 / sigma)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α, σ′)` of the scheduler."""
        output = self.scheduler(t)
        return output.alpha_t, output.sigma_t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(α̇, σ̇′)` of the scheduler."""
        output = self.scheduler(t)
        return output.d_alpha_t, output.d_sigma_t
