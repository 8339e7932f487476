"""torchebm: interpolants `x_t = α(t) x₁ + σ(t) x₀` (data at t = 1), conversions, and its flow sampler.

The model is the exact velocity, score or noise prediction of a known law; the sampler starts at `sample_eps`, where the
exact flow's state is, and ends as far before 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, converging, exact, flat_of_package, lawful, relative

__all__ = ["CHECKS"]

PACKAGE = "torchebm"
EPS = 0.02
INTERPOLANTS = ("linear", "cosine", "vp")
ORDERS = {"euler": 1.0, "midpoint": 2.0, "heun": 2.0, "rk4": 4.0}


def interpolant(name: str) -> Any:
    from torchebm.interpolants import CosineInterpolant, LinearInterpolant, VariancePreservingInterpolant

    return {"linear": LinearInterpolant, "cosine": CosineInterpolant, "vp": VariancePreservingInterpolant}[name]()


class Known(torch.nn.Module):
    """The exact prediction of a law along an interpolant."""

    def __init__(self, law: str, path: str, kind: str) -> None:
        super().__init__()
        self.law, self.path, self.kind = law, interpolant(path), kind

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        (alpha, d_alpha), (sigma, d_sigma) = self.path.compute_alpha_t(t[:1]), self.path.compute_sigma_t(t[:1])
        network, a, s = exact(self.law), alpha[0], sigma[0]
        if self.kind == "velocity":
            return network.velocity(x, a, s, d_alpha[0], d_sigma[0])
        return network.score(x, a, s) if self.kind == "score" else network.noise(x, a, s)


def ends(path: str) -> list[tuple[Tensor, Tensor]]:
    """`(α, σ)` at `EPS` and at `1 − EPS`."""
    times = torch.tensor([EPS, 1 - EPS], dtype=torch.float64)
    made = interpolant(path)
    return list(zip(made.compute_alpha_t(times)[0], made.compute_sigma_t(times)[0], strict=True))


def schedule(path: str) -> Measured:
    """Derivatives of α and σ against differences."""
    made, t, h = interpolant(path), torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1e-6
    worst = 0.0
    for function in (made.compute_alpha_t, made.compute_sigma_t):
        quotient = (function(t + h)[0] - function(t - h)[0]) / (2 * h)
        worst = max(worst, relative(function(t)[1][:, None], quotient[:, None]))
    return Measured(worst, 1e-6)


def conversion(path: str, target: str) -> Measured:
    """Score and noise from the velocity, and the velocity from the score."""
    made, worst = interpolant(path), 0.0
    for time in (0.1, 0.5, 0.9):
        t = torch.full((8,), time, dtype=torch.float64)
        alpha, sigma = made.compute_alpha_t(t)[0][0], made.compute_sigma_t(t)[0][0]
        x = alpha * exact().states(8, float(sigma / alpha), 3)
        source = "score" if target == "velocity" else "velocity"
        converted = getattr(made, f"{source}_to_{target}")(Known("five", path, source)(x, t), x, t)
        worst = max(worst, relative(converted, Known("five", path, target)(x, t)))
    return Measured(worst, 1e-6)


def sampling(path: str, prediction: str, integrator: str, size: int) -> Measured:
    """The probability flow against the exact one, and the integrator's order."""
    from torchebm.samplers import FlowSampler

    (a0, s0), (a1, s1) = ends(path)
    start = exact().states(8, float(s0 / a0), 5)
    eps = EPS
    options = {"dtype": torch.float64, "sample_eps": eps, "integrator": integrator}

    def run(steps: int) -> Tensor:
        made = FlowSampler(Known("five", path, prediction), interpolant=path, prediction=prediction, **options)
        made._check_interval = lambda: (EPS, 1 - EPS)  # a velocity would start at t = 0, where the exact state is not
        return made.sample(x=a0 * start, n_steps=steps)

    truth = a1 * exact().end(start, float(s0 / a0), float(s1 / a1))
    return converging(run, truth, [25 * size, 50 * size, 100 * size], 5e-2, ORDERS[integrator])


def drawing(path: str, form: str, seed: int, size: int) -> Measured:
    """The reverse SDE: the law of its draws at `1 − EPS`, whatever the form of the diffusion."""
    from torchebm.samplers import FlowSampler

    (a0, s0), (a1, s1) = ends(path)
    torch.manual_seed(seed)
    made = FlowSampler(
        Known("plane", path, "score"),
        mode="sde",
        interpolant=path,
        prediction="score",
        sample_eps=EPS,
        diffusion_form=form,
        last_step=None,
        dtype=torch.float64,
    )
    made._check_interval = lambda: (EPS, 1 - EPS)
    draws = made.sample(x=a0 * exact("plane").states(400 * size, float(s0 / a0), seed), n_steps=400)
    return lawful(draws / a1, "plane", float(s1 / a1), note="400 steps.")


_check = flat_of_package(PACKAGE)
CHECKS = (
    *[_check(f"derivatives-{p}", "schedule", lambda seed, size, p=p: schedule(p)) for p in INTERPOLANTS],
    *[
        _check(
            f"conversion-to-{t}-{p}",
            "conversion",
            lambda seed, size, p=p, t=t: conversion(p, t),
        )
        for p in INTERPOLANTS
        for t in ("score", "noise", "velocity")
    ],
    *[
        _check(f"sample-{p}-{k}", "sampler", lambda seed, size, p=p, k=k: sampling(p, k, "heun", size))
        for p in INTERPOLANTS
        for k in ("velocity", "score", "noise")
    ],
    *[
        _check(f"sample-cosine-{i}", "sampler", lambda seed, size, i=i: sampling("cosine", "velocity", i, size))
        for i in ("euler", "midpoint", "rk4")
    ],
    *[
        _check(f"law-{p}-{f}", "law", lambda seed, size, p=p, f=f: drawing(p, f, seed, size))
        for p, f in (("linear", "sigma"), ("linear", "SBDM"), ("cosine", "SBDM"), ("vp", "SBDM"), ("vp", "linear"))
    ],
)
