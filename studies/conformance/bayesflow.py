"""bayesflow: densities of flow matching and of diffusion models, exact and by Hutchinson's probes, on torch.

The subnet is the exact prediction of a known law and the projection behind it the identity.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, exact, flat_of_package, lawful, relative

__all__ = ["CHECKS"]

PACKAGE = "bayesflow"
STEPS = 100


def library() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.config.set_floatx("float64")
    import bayesflow

    return bayesflow


def seeded(seed: int) -> None:
    """Seed what the package's generators, made when a network is, take their seeds from."""
    library()
    import keras

    keras.utils.set_random_seed(seed)


def identity(network: Any, dimension: int) -> Any:
    """Built, with the projection behind the subnet set to the identity."""
    network.build((None, dimension))
    network.output_projector.set_weights([torch.eye(dimension).numpy(), torch.zeros(dimension).numpy()])
    return network


@cache
def subnets() -> Any:
    """A subnet that answers `function(z, time)` of the time or normalised log SNR that it is given."""
    library()
    import keras

    class Known(keras.Layer):
        def __init__(self, function: Any, **options: Any) -> None:
            super().__init__(**options)
            self.function = function

        def call(self, inputs: Any, training: Any = None, **options: Any) -> Any:
            return self.function(inputs[0], inputs[1])

        def compute_output_shape(self, shapes: Any) -> Any:
            return shapes[0]

    return Known


def matching(name: str) -> Any:
    """Flow matching, `z_t = (1 − t) ε + t x`, with the exact velocity."""

    def velocity(z: Tensor, time: Tensor) -> Tensor:
        t = time.reshape(-1)[0].double().clamp(1e-6, 1 - 1e-6)
        one = torch.ones_like(t)
        return exact(name).velocity(z, t, 1 - t, one, -one)

    solver = {"method": "rk45", "steps": STEPS}
    made = library().networks.FlowMatching(subnet=subnets()(velocity), integrate_kwargs=solver)
    return identity(made, exact(name).dimension)


def density(seed: int) -> Measured:
    """`log_prob` with the exact trace, in nats."""
    states = exact("five").states(8, 0.0, 3)
    with torch.no_grad():
        values = torch.as_tensor(matching("five").log_prob(states))
    return Measured(float((values - exact("five").log_density(states)).abs().max()), 1e-2, "nats")


def probed(probes: int, seed: int, size: int) -> Measured:
    """`log_prob` with Hutchinson's probes, averaged over repeats, in standard errors."""
    seeded(seed)
    states, repeats = exact("five").states(4, 0.0, 3), 32 * size
    with torch.no_grad():
        rows = states.repeat_interleave(repeats, 0)
        values = torch.as_tensor(matching("five").log_prob(rows, max_steps=probes)).reshape(4, repeats)
    gap = (values.mean(1) - exact("five").log_density(states)).abs()
    # The solver's own error is no noise: 1e-3 nat of it is let pass beside the probes' standard error.
    return Measured(float((gap / (values.std(1) / repeats**0.5 + 1e-3)).max()), 5.0, "standard errors")


def drawing(seed: int, size: int) -> Measured:
    """`sample`: the law of its draws."""
    seeded(seed)
    with torch.no_grad():
        draws = torch.as_tensor(matching("plane").sample((500 * size,)))
    return lawful(draws, "plane", 1e-3)


def scored(prediction: str, schedule: str) -> Measured:
    """`DiffusionModel.score` from each prediction, at three levels."""
    network = exact("five")
    holder: dict[str, Any] = {}

    def answer(z: Tensor, time: Tensor) -> Tensor:
        alpha, sigma = holder["level"]
        data, noise = network.data(z, alpha, sigma), network.noise(z, alpha, sigma)
        if prediction == "F":
            snr = (alpha / sigma) ** 2
            skip = alpha / (1 / snr + 1)
            return (data - skip * z) / ((1 / snr).sqrt() / (1 / snr + 1).sqrt())
        kinds = {"noise": noise, "x": data, "velocity": alpha * noise - sigma * data}
        return kinds.get(prediction, -noise / sigma)

    made = library().networks.DiffusionModel(
        subnet=subnets()(answer), noise_schedule=schedule, prediction_type=prediction
    )
    made = identity(made, 5)
    worst = 0.0
    for time in (0.2, 0.5, 0.8):
        log_snr = made.noise_schedule.get_log_snr(t=time, training=False)
        log_snr = torch.as_tensor(log_snr).double().reshape(1, 1)
        pair = made.noise_schedule.get_alpha_sigma(log_snr)
        alpha, sigma = (torch.as_tensor(each).double().reshape(()) for each in pair)
        holder["level"] = (alpha, sigma)
        z = alpha * network.states(8, float(sigma / alpha), 3)
        with torch.no_grad():
            scores = torch.as_tensor(made.score(z, log_snr_t=log_snr.expand(8, 1), time=time))
        worst = max(worst, relative(scores, network.score(z, alpha, sigma)))
    return Measured(worst, 1e-4)  # levels are float32, and (α D − z)/σ² cancels at the lowest


_check = flat_of_package(PACKAGE)
CHECKS = (
    *[
        _check(f"score-{p}-{s}", "conversion", lambda seed, size, p=p, s=s: scored(p, s))
        for s in ("cosine", "edm")
        for p in ("velocity", "noise", "x", "score", "F")
    ],
    _check("likelihood-exact", "density", lambda seed, size: density(seed)),
    *[_check(f"likelihood-hutchinson-{k}", "density", lambda seed, size, k=k: probed(k, seed, size)) for k in (1, 3)],
    _check("law-flow-matching", "law", drawing),
)
