"""diffusers: schedulers on their own time steps, with the exact prediction of a known law as the network.

A scheduler runs as in its pipelines: `scale_model_input`, network, `step`. The discrete process is `z_t = √ᾱ_t x +
√(1 − ᾱ_t) ε`; between its 1000 times log σ is interpolated. Deterministic samplers are compared with the exact
flow from their first level to their last; those that end with a jump to σ = 0 with the flow's end at zero noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.conformance.common import Measured, converging, exact, largest, lawful, of_package, relative

__all__ = ["CHECKS"]

PACKAGE = "diffusers"
_check = of_package(PACKAGE)
IMAGE = ("image", (1, 4, 4))
TRAINED = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def made(kind: str, **options: Any) -> Any:
    """A scheduler of that class."""
    import diffusers

    return getattr(diffusers, kind)(**options)


def betas(kind: str, **options: Any) -> Measured:
    """`alphas_cumprod` against the product written out in float64."""
    scheduler = made(kind, **(TRAINED | options))
    linear = np.linspace(1e-4, 0.02, 1000)
    scaled = np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2
    truth = np.cumprod(1 - (scaled if options.get("beta_schedule") == "scaled_linear" else linear))
    return Measured(largest(scheduler.alphas_cumprod, torch.tensor(truth)), 1e-4)


def noising() -> Measured:
    """`add_noise` and `get_velocity` of DDPM against `z = αx + σε`, `v = αε − σx`."""
    scheduler, network = made("DDPMScheduler", **TRAINED), exact()
    x, noise = network.states(8, 0.0, 1), network.states(8, 1.0, 2)
    t = torch.tensor([0, 1, 50, 200, 400, 600, 800, 999])
    alpha = scheduler.alphas_cumprod.double()[t].sqrt()[:, None]
    sigma = (1 - alpha**2).sqrt()
    # alphas_cumprod is float32: 1 − ᾱ near t = 0 keeps four digits of it
    worst = relative(scheduler.add_noise(x, noise, t), alpha * x + sigma * noise)
    return Measured(max(worst, relative(scheduler.get_velocity(x, noise, t), alpha * noise - sigma * x)), 1e-4)


def levels(scheduler: Any) -> Tensor:
    """`log σ/α` of the 1000 trained times."""
    kept = scheduler.alphas_cumprod.double()
    return ((1 - kept) / kept).sqrt().log()


def network_at(scheduler: Any, z: Tensor, t: Any, kind: str, shape: Any) -> Tensor:
    """The exact prediction at a (possibly fractional) time, `z` in the coordinates of the process."""
    network = exact(*shape) if shape else exact()
    grid = levels(scheduler).numpy()
    tau = torch.tensor(np.exp(np.interp(float(t), np.arange(len(grid)), grid)))
    alpha = (1 + tau**2).rsqrt()
    sigma = tau * alpha
    noise, data = network.noise(z, alpha, sigma), network.data(z, alpha, sigma)
    return {"epsilon": noise, "sample": data, "v_prediction": alpha * noise - sigma * data}[kind]


def one_step(kind: str, prediction: str) -> Measured:
    """`pred_original_sample` of one step against `E[x | z]`, for each prediction type."""
    scheduler = made(kind, **TRAINED, prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(50)
    worst = 0.0
    for t in scheduler.timesteps[[5, 25, 45]]:
        alpha = scheduler.alphas_cumprod.double()[t].sqrt()
        sigma = (1 - alpha**2).sqrt()
        z = alpha * exact().states(8, float(sigma / alpha), 3)
        out = scheduler.step(network_at(scheduler, z, t, prediction, None), t, z)
        worst = max(worst, relative(out.pred_original_sample, exact().data(z, alpha, sigma)))
    return Measured(worst, 1e-4)


def sampling(kind: str, size: int, allowed: float, stated: float, shape: Any = None, **options: Any) -> Measured:
    """A deterministic scheduler from its first level down to zero noise, against the exact flow."""
    network = exact(*shape) if shape else exact()
    prediction = options.pop("prediction_type", "epsilon")

    def run(steps: int) -> Tensor:
        scheduler = made(kind, **TRAINED, prediction_type=prediction, **options)
        scheduler.set_timesteps(steps)
        top = _first(scheduler)
        x = network.states(8, SIGMA_TOP, 5) * 1.0
        # Leading and trailing spacings start at other levels: the exact flow brings the same states to each, so that
        # only the scheduler's own steps are judged.
        x = network.end(x, SIGMA_TOP, top) if top < SIGMA_TOP * (1 - 1e-9) else x
        z = x if _exploding(scheduler) else x / (1 + top**2) ** 0.5
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(z, t)
            z = scheduler.step(network_at(scheduler, scaled, t, prediction, shape), t, z).prev_sample
        return z

    truth = network.end(network.states(8, SIGMA_TOP, 5), SIGMA_TOP, 0.0)
    return converging(run, truth, [25 * size, 50 * size, 100 * size], allowed, stated)


SIGMA_TOP = 157.5  # above the level of the last trained time


def _exploding(scheduler: Any) -> bool:
    """Whether states are in variance-exploding coordinates (k-diffusion style schedulers scale the network's input)."""
    if not _levelled(scheduler):
        return False
    probe = torch.ones(1, dtype=torch.float64)
    scaled = float(scheduler.scale_model_input(probe, scheduler.timesteps[0]))
    scheduler._step_index = None
    if hasattr(scheduler, "is_scale_input_called"):  # kept by some schedulers only
        scheduler.is_scale_input_called = False
    return abs(scaled - 1.0) > 1e-6


def _levelled(scheduler: Any) -> bool:
    """Whether a scheduler keeps its levels; the package's schedulers share no class that says so."""
    return hasattr(scheduler, "sigmas")


def _first(scheduler: Any) -> float:
    """The first level, σ/α."""
    if _levelled(scheduler):
        return float(scheduler.sigmas[0])
    return float(levels(scheduler)[int(scheduler.timesteps[0])].exp())


def drawing(kind: str, size: int, seed: int, **options: Any) -> Measured:
    """A stochastic scheduler: the law of its samples at its end, which stands for zero noise."""
    network = exact("plane")
    torch.manual_seed(seed)
    scheduler = made(kind, **TRAINED, **options)
    scheduler.set_timesteps(250)
    top = _first(scheduler)
    z = network.states(500 * size, top, seed)
    z = z if _exploding(scheduler) else z / (1 + top**2) ** 0.5
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(z, t)
        alpha_tau = levels(scheduler).numpy()
        tau = torch.tensor(np.exp(np.interp(float(t), np.arange(1000), alpha_tau)))
        alpha = (1 + tau**2).rsqrt()
        z = scheduler.step(network.noise(scaled, alpha, tau * alpha), t, z).prev_sample
    return lawful(z, "plane", 1e-3, note="250 steps.")


def flow_match(kind: str, size: int, stated: float) -> Measured:
    """A flow-matching scheduler from σ = 1 (z = noise) with the exact velocity, against the exact flow."""
    network = exact()
    start = network.states(8, 1.0, 7) * 0 + torch.randn(
        8, network.dimension, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )

    def velocity(z: Tensor, sigma: float) -> Tensor:
        s = torch.tensor(min(max(sigma, 1e-6), 1 - 1e-6), dtype=torch.float64)
        one = torch.ones_like(s)
        return network.velocity(z, 1 - s, s, -one, one)

    def run(steps: int) -> Tensor:
        scheduler = made(kind, num_train_timesteps=1000)
        scheduler.set_timesteps(steps)
        z = start.clone()
        for t in scheduler.timesteps:
            z = scheduler.step(velocity(z, float(t) / 1000), t, z).prev_sample.double()
        return z

    # At σ = 1 − 1e-6 the state is z = αx + σε; in variance-exploding coordinates that is z/α at level σ/α.
    alpha = 1e-6
    truth = network.end(start / alpha, (1 - alpha) / alpha, 0.0)
    return converging(run, truth, [25 * size, 50 * size, 100 * size], 5e-2, stated)


def adapter() -> Measured:
    """Our `from_diffusers` around a model that answers exactly: the score in variance-exploding coordinates."""
    from sensitivity.adapters.diffusers import from_diffusers

    scheduler = made("DDPMScheduler", **TRAINED)

    class Model(torch.nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, **extra: Any) -> Any:
            # Each sample at its own time, as a network has it: one time for all would couple the batch.
            times = timestep.reshape(-1).expand(len(sample))
            parts = [network_at(scheduler, x, t, "epsilon", None) for x, t in zip(sample.split(1), times, strict=True)]
            value = torch.cat(parts)
            return (value,) if extra.get("return_dict") is False else type("Out", (), {"sample": value})()

    score = from_diffusers(Model(), scheduler)
    worst = 0.0
    for level in (0.3, 2.0, 10.0):
        x, sigma = exact().states(8, level, 3), torch.tensor(level, dtype=torch.float64)
        worst = max(worst, relative(score(x, sigma), exact().score(x, torch.ones_like(sigma), sigma)))
    return Measured(worst, 1e-3)


NAN = float("nan")
PLAIN = {"timestep_spacing": "linspace"}
SAMPLERS: tuple[tuple[str, str, float, float, dict[str, Any]], ...] = (
    ("DDIM", "DDIMScheduler", 5e-2, 1.0, {"clip_sample": False, **PLAIN}),
    ("DDIM-trailing", "DDIMScheduler", 5e-2, 1.0, {"clip_sample": False, "timestep_spacing": "trailing"}),
    ("Euler", "EulerDiscreteScheduler", 5e-2, 1.0, PLAIN),
    ("Euler-karras", "EulerDiscreteScheduler", 5e-2, 1.0, {**PLAIN, "use_karras_sigmas": True}),
    ("Heun", "HeunDiscreteScheduler", 5e-2, NAN, PLAIN),
    ("DPM2", "KDPM2DiscreteScheduler", 5e-2, NAN, PLAIN),
    ("LMS", "LMSDiscreteScheduler", 5e-2, NAN, PLAIN),
    ("PNDM", "PNDMScheduler", 5e-2, NAN, {"timestep_spacing": "leading"}),
    ("DPM++2M", "DPMSolverMultistepScheduler", 5e-2, NAN, PLAIN),
    ("DPM++2M-karras", "DPMSolverMultistepScheduler", 5e-2, NAN, {**PLAIN, "use_karras_sigmas": True}),
    ("DEIS", "DEISMultistepScheduler", 5e-2, NAN, PLAIN),
    ("UniPC", "UniPCMultistepScheduler", 5e-2, NAN, PLAIN),
)
CHECKS = (
    _check("betas-linear", "schedule", "none", lambda seed, size: betas("DDPMScheduler")),
    _check(
        "betas-scaled", "schedule", "none", lambda seed, size: betas("DDPMScheduler", beta_schedule="scaled_linear")
    ),
    _check("noising", "conversion", "flat", lambda seed, size: noising()),
    *[
        _check(f"x0-{kind}-{p}", "conversion", "flat", lambda seed, size, k=kind, p=p: one_step(k, p))
        for kind in ("DDPMScheduler", "DDIMScheduler")
        for p in ("epsilon", "sample", "v_prediction")
    ],
    _check("adapter-score", "conversion", "flat", lambda seed, size: adapter()),
    *[
        _check(f"sample-{n}", "sampler", "flat", lambda seed, size, k=k, a=a, p=p, o=o: sampling(k, size, a, p, **o))
        for n, k, a, p, o in SAMPLERS
    ],
    _check(
        "sample-Euler-image",
        "sampler",
        "image",
        lambda seed, size: sampling("EulerDiscreteScheduler", size, 5e-2, 1.0, IMAGE, **PLAIN),
    ),
    _check(
        "sample-FlowMatchEuler",
        "sampler",
        "flat",
        lambda seed, size: flow_match("FlowMatchEulerDiscreteScheduler", size, 1.0),
    ),
    _check("law-DDPM", "law", "flat", lambda seed, size: drawing("DDPMScheduler", size, seed, clip_sample=False)),
    _check(
        "law-EulerAncestral",
        "law",
        "flat",
        lambda seed, size: drawing("EulerAncestralDiscreteScheduler", size, seed, **PLAIN),
    ),
    _check("likelihood", "density", "none", None, "no likelihoods in this package"),
)
