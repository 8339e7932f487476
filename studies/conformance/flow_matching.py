"""flow_matching: schedules, conversions, samples and likelihoods with the exact velocity of a known law.

Its time runs from noise (t = 0) to data (t = 1): `z_t = α_t x + σ_t ε`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Exact, Measured, converging, exact, largest, of_package, relative

__all__ = ["CHECKS"]

PACKAGE = "flow_matching"
_check = of_package(PACKAGE)
IMAGE = ("image", (1, 4, 4))
SINGLE = torch.float32
CHANNELS = ("image", (16, 1, 1))


def schedulers() -> dict[str, Any]:
    from flow_matching.path import scheduler

    return {
        "CondOT": scheduler.CondOTScheduler(),
        "Polynomial": scheduler.PolynomialConvexScheduler(2),
        "VP": scheduler.VPScheduler(),
        "LinearVP": scheduler.LinearVPScheduler(),
        "Cosine": scheduler.CosineScheduler(),
    }


def derivatives(name: str) -> Measured:
    """`d_alpha_t`, `d_sigma_t` against automatic differentiation of `alpha_t`, `sigma_t`."""
    made = schedulers()[name]
    t = torch.linspace(0.05, 0.95, 31, dtype=torch.float64)
    out = made(t)
    slopes = [torch.func.vmap(torch.func.grad(lambda s, f=f: getattr(made(s), f)))(t) for f in ("alpha_t", "sigma_t")]
    return Measured(max(largest(out.d_alpha_t, slopes[0]), largest(out.d_sigma_t, slopes[1])), 1e-10)


def inverse(name: str) -> Measured:
    """`snr_inverse(α/σ)` returns t."""
    made = schedulers()[name]
    t = torch.linspace(0.05, 0.95, 31, dtype=torch.float64)
    out = made(t)
    return Measured(float((made.snr_inverse(out.alpha_t / out.sigma_t) - t).abs().max()), 1e-9)


def conversions(name: str, shape: tuple[str, tuple[int, ...]] | None) -> Measured:
    """Velocity, data and noise predictions of `AffineProbPath` into each other."""
    from flow_matching.path import AffineProbPath

    made, network = schedulers()[name], exact(*shape) if shape else exact()
    path, worst = AffineProbPath(made), 0.0
    for time in (0.1, 0.5, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        a = made(t)
        z = a.alpha_t * network.states(8, float(a.sigma_t / a.alpha_t), 3)
        v = network.velocity(z, a.alpha_t, a.sigma_t, a.d_alpha_t, a.d_sigma_t)
        x, e = network.data(z, a.alpha_t, a.sigma_t), network.noise(z, a.alpha_t, a.sigma_t)
        pairs = [
            (path.target_to_velocity(x, z, t), v),
            (path.epsilon_to_velocity(e, z, t), v),
            (path.velocity_to_target(v, z, t), x),
            (path.velocity_to_epsilon(v, z, t), e),
            (path.epsilon_to_target(e, z, t), x),
            (path.target_to_epsilon(x, z, t), e),
        ]
        worst = max(worst, *(relative(got, wanted) for got, wanted in pairs))
    return Measured(worst, 1e-9)


def times_per_row() -> Measured:
    """The same with one time a row, as `AffineProbPath.sample` takes them; as many rows as coordinates."""
    from flow_matching.path import CondOTProbPath

    network = exact()
    t = torch.linspace(0.2, 0.8, network.dimension, dtype=torch.float64)
    x1, x0 = network.states(len(t), 0.0, 3), network.states(len(t), 1.0, 4)
    path = CondOTProbPath().sample(x_0=x0, x_1=x1, t=t)
    return Measured(relative(CondOTProbPath().target_to_velocity(x1, path.x_t, t), path.dx_t), 1e-9)


class Velocity(torch.nn.Module):
    """The exact velocity of the straight path as a model `model(x, t)`."""

    def __init__(self, network: Exact) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **extras: Any) -> Tensor:
        time = t.double().clamp(1e-6, 1 - 1e-6).reshape(-1)[0]
        one = torch.ones_like(time)
        return self.network.velocity(x.double(), time, 1 - time, one, -one).to(x.dtype)


def sampling(method: str, size: int, shape: tuple[str, tuple[int, ...]] | None) -> Measured:
    """`ODESolver.sample` from t = .1 to .95 against the exact flow."""
    from flow_matching.solver import ODESolver

    network = exact(*shape) if shape else exact()
    x = network.states(8, 9.0, 5)  # (1 − t)/t = 9 at t = .1
    truth = 0.95 * network.end(x, 9.0, 0.05 / 0.95)
    solver = ODESolver(Velocity(network))

    def run(steps: int) -> Tensor:
        # The grid is even in log σ: an even one in t spends its steps where nothing happens.
        sigmas = torch.logspace(torch.log10(torch.tensor(9.0)), torch.log10(torch.tensor(0.05 / 0.95)), steps + 1)
        times = 1 / (1 + sigmas.double())
        return solver.sample(x_init=0.1 * x, step_size=None, method=method, time_grid=times)

    if method == "dopri5":
        times = torch.tensor([0.1, 0.95], dtype=torch.float64)
        end = solver.sample(x_init=0.1 * x, step_size=None, method=method, time_grid=times, atol=1e-9, rtol=1e-9)
        return Measured(relative(end, truth), 1e-5)
    stated = {"euler": 1.0, "midpoint": 2.0, "heun3": 3.0}[method]
    return converging(run, truth, [8 * size, 16 * size, 32 * size], 5e-2, stated)


def likelihood(
    exactly: bool, shape: tuple[str, tuple[int, ...]] | None, size: int, seed: int, dtype: torch.dtype = torch.float64
) -> Measured:
    """`ODESolver.compute_likelihood` from t = 1 to 0 against the exact log density."""
    from flow_matching.solver import ODESolver

    network = exact(*shape) if shape else exact()
    count = 8
    x = network.states(count, 0.0, 11)
    truth = network.log_density(x)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    solver = ODESolver(Velocity(network))

    def run(states: Tensor) -> Tensor:
        return solver.compute_likelihood(
            x_1=states.to(dtype, copy=True),
            log_p0=lambda z: normal.log_prob(z).flatten(1).sum(1),
            step_size=None,
            method="dopri5",
            atol=1e-6,
            rtol=1e-6,
            time_grid=torch.tensor([1.0, 0.0], dtype=dtype),
            exact_divergence=exactly,
        )[1].double()

    if exactly:
        return Measured(float((run(x) - truth).abs().max()), 1e-3, "nats")
    torch.manual_seed(seed)
    times = 16 * size  # every row has a projection of its own
    values = run(x.repeat(times, *[1] * (x.ndim - 1))).reshape(times, count)
    error = (values.mean(0) - truth).abs() / (values.std(0) / len(values) ** 0.5)
    note = f"one projection kept for the whole path: standard deviation {float(values.std(0).median()):.2g} nats."
    return Measured(float(error.median()), 2.0, "standard errors", note=note)


NAMES = ("CondOT", "Polynomial", "VP", "LinearVP", "Cosine")
CHECKS = (
    *[_check(f"derivatives-{n}", "schedule", "none", lambda seed, size, n=n: derivatives(n)) for n in NAMES],
    *[_check(f"inverse-{n}", "schedule", "none", lambda seed, size, n=n: inverse(n)) for n in NAMES],
    *[_check(f"conversions-{n}", "conversion", "flat", lambda seed, size, n=n: conversions(n, None)) for n in NAMES],
    _check("conversions-image", "conversion", "image", lambda seed, size: conversions("CondOT", IMAGE)),
    _check("conversions-time-per-row", "conversion", "flat", lambda seed, size: times_per_row()),
    *[
        _check(f"sample-{m}", "sampler", "flat", lambda seed, size, m=m: sampling(m, size, None))
        for m in ("euler", "midpoint", "heun3", "dopri5")
    ],
    _check("sample-midpoint-image", "sampler", "image", lambda seed, size: sampling("midpoint", size, IMAGE)),
    _check("likelihood-exact", "density", "flat", lambda seed, size: likelihood(True, None, size, seed)),
    _check("likelihood-exact-image", "density", "image", lambda seed, size: likelihood(True, IMAGE, size, seed)),
    _check("likelihood-exact-channels", "density", "image", lambda seed, size: likelihood(True, CHANNELS, size, seed)),
    _check("likelihood-hutchinson", "density", "flat", lambda seed, size: likelihood(False, None, size, seed, SINGLE)),
    _check(
        "likelihood-hutchinson-image",
        "density",
        "image",
        lambda seed, size: likelihood(False, IMAGE, size, seed, SINGLE),
    ),
    _check("likelihood-hutchinson-float64", "density", "flat", lambda seed, size: likelihood(False, None, 1, seed)),
)
