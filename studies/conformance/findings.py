"""What differs, analysed to its cause: whose it is, what happens, and a minimal example that runs on its own.

Every difference that the checks find has an entry; `mended` runs a corrected version where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from studies.conformance.azula import SIGMA_MAX, SIGMA_MIN, denoiser, schedules
from studies.conformance.common import Measured, converging, exact

__all__ = ["BESIDE", "FINDINGS", "Finding", "cause", "mended_reab"]


@dataclass(frozen=True)
class Finding:
    """One cause.

    Attributes:
        package: distribution name.
        version: the version in which it was seen.
        checks: names of the checks that show it.
        whose: `theirs`, `ours` or `convention`.
        cause: what happens and why.
        way_round: what a user can do.
        example: Python that shows it, runnable as it stands.
    """

    package: str
    version: str
    checks: tuple[str, ...]
    whose: str
    cause: str
    way_round: str
    example: str


FINDINGS = (
    Finding(
        "flow_matching",
        "1.0.10",
        ("likelihood-exact-image",),
        "theirs",
        "ODESolver.compute_likelihood(exact_divergence=True) counts the flattened coordinates of the velocity but "
        "indexes its unflattened axis 1 (ut[:, i]), so that any state with more coordinates than channels raises "
        "IndexError; states (n, d, 1, 1) work.  Hutchinson's branch flattens and is right.",
        "Flatten states and wrap the model so that it reshapes inside.",
        """import torch
from flow_matching.solver import ODESolver
model = lambda x, t: -x
ODESolver(model).compute_likelihood(torch.randn(2, 1, 2, 2), lambda x: x.flatten(1).sum(1), step_size=0.5,
                                    exact_divergence=True)  # IndexError""",
    ),
    Finding(
        "flow_matching",
        "1.0.10",
        ("likelihood-hutchinson-float64",),
        "theirs",
        "The random projection is built as (randn_like(x) < 0) * 2.0 - 1.0: a Boolean times a Python number takes the "
        "default dtype, not that of x, and einsum refuses float64 states beside a float32 projection.",
        "Compute in the default dtype, or set torch.set_default_dtype(torch.float64).",
        """import torch
from flow_matching.solver import ODESolver
model = lambda x, t: -x
ODESolver(model).compute_likelihood(torch.randn(2, 3).double(), lambda x: x.sum(1), step_size=0.5,
                                    time_grid=torch.tensor([1.0, 0.0]).double())  # expected scalar type Double""",
    ),
    Finding(
        "flow_matching",
        "1.0.10",
        ("conversions-time-per-row",),
        "theirs",
        "AffineProbPath.sample expands t (n,) along the rows of x, but target_to_velocity and its five sisters do not: "
        "with one time a row the coefficients broadcast along the last axis, which raises where n differs from it and "
        "is silently wrong where n equals it.",
        "Give conversions a scalar t, or t[:, None].",
        """import torch
from flow_matching.path import CondOTProbPath
t, x0, x1 = torch.tensor([0.2, 0.5, 0.8]), torch.randn(3, 3), torch.randn(3, 3)
path = CondOTProbPath()
sample = path.sample(x_0=x0, x_1=x1, t=t)
print((path.target_to_velocity(x1, sample.x_t, t) - sample.dx_t).abs().max())          # not zero
print((path.target_to_velocity(x1, sample.x_t, t[:, None]) - sample.dx_t).abs().max())  # rounding""",
    ),
    Finding(
        "azula",
        "0.11.1",
        ("sample-REAB-2",),
        "theirs",
        "REABSampler scales the integral of a step from t to s by sqrt(alpha_s**2 + sigma_t**2) where its own "
        "documentation, and the exponential integrator, have sqrt(alpha_s**2 + sigma_s**2).  The sampler still "
        "converges, but only to first order whatever `order` says; with sigma_s the observed order is 2.",
        "Use zEABSampler or xEABSampler of the same order, which are right.",
        """import inspect
from azula.sample import REABSampler
print("sigma_t**2) * integral" in inspect.getsource(REABSampler.__call__))  # True""",
    ),
    Finding(
        "torchdiffeq",
        "0.2.5",
        ("explicit_adams-default", "explicit_adams-order-4"),
        "theirs",
        "explicit_adams inherits max_order = 12, and an explicit Adams method of eleven values has so small a region "
        "of stability that it diverges on a smooth flow with 16 to 512 steps.  The history is sized for the implicit "
        "corrector, which adds a value: with max_order − 1 values, the present one included, the explicit method has "
        "order max_order − 1, so that max_order = 4 gives order 3.",
        "Give options={'max_order': 5} for order 4, or use rk4, or implicit_adams, which is stable here.",
        """import torch
from torchdiffeq import odeint
t = torch.linspace(0, 5, 65, dtype=torch.float64)
x = torch.ones(1, dtype=torch.float64)
print(odeint(lambda t, x: -2 * x, x, t, method="explicit_adams")[-1])  # enormous; the solution is 5e-5
print(odeint(lambda t, x: -2 * x, x, t, method="explicit_adams", options={"max_order": 5})[-1])""",
    ),
)

# Of packages that `studies.conformance.beside` looks at.
BESIDE = (
    Finding(
        "torchdyn",
        "1.0.6",
        ("rk4",),
        "theirs",
        "construct_rk4 lists the times of all four stages, c = (0, 1/2, 1/2, 1), where its sister tables leave the "
        "first out, and RungeKutta4.step takes c[0], c[1], c[2] for its second, third and fourth stage: fields are "
        "asked at t, t + h/2 and t + h/2 instead of t + h/2, t + h/2 and t + h. A field that depends on time, such as "
        "every probability flow, is integrated to first order; one that does not is right.",
        "Use midpoint, dopri5 or tsit5, or make time a part of the state.",
        """import torch
from torchdyn.numerics import odeint
x, f = torch.zeros(1, dtype=torch.float64), lambda t, x: t**3 + 0 * x
for steps in (10, 20):
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    print(steps, float(odeint(f, x, t, "rk4")[1][-1]), "0.25 is right, to rounding")""",
    ),
    Finding(
        "bayesflow",
        "2.0.12",
        ("likelihood-hutchinson-3",),
        "theirs",
        "jacobian_trace(max_steps=n) below the dimension adds up n of Hutchinson's probes and never divides by n, so "
        "that the estimated divergence is n times too large, and log densities of flow matching and diffusion models "
        "are off by (n - 1) times the integral of the divergence (their issue 772). One probe is right.",
        "Give max_steps=1, or max_steps of at least the dimension, which is exact.",
        """import os
os.environ["KERAS_BACKEND"] = "torch"
import keras
from bayesflow.utils import jacobian_trace
x = keras.ops.ones((2000, 5))
for steps in (1, 2, 4, 5):
    print(steps, float(keras.ops.mean(jacobian_trace(lambda y: 2.0 * y, x, max_steps=steps))))  # 10 is right""",
    ),
)


def cause(package: str, check: str) -> Finding | None:
    """The finding that explains a check of a package, or None."""
    return next((f for f in (*FINDINGS, *BESIDE) if f.package == package and check in f.checks), None)


def mended_reab(size: int = 2) -> Measured:
    """azula's REAB sampler with `sigma_s` in the last factor and its own coefficients: observed order two."""
    from azula.sample import REABSampler

    network, schedule = exact(), schedules()["VE"]
    made = denoiser(network, schedule)
    x = network.states(8, SIGMA_MAX, 5)

    def run(steps: int) -> Tensor:
        times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        alpha, sigma = schedule(times)
        u, z = (sigma / alpha).log(), x
        past: list[Tensor] = []
        for i, t in enumerate(times[:-1]):
            share = sigma[i] ** 2 / (alpha[i] ** 2 + sigma[i] ** 2)
            past = [*past[-1:], ((1 - share) / alpha[i] * z - made(z, t).mean) / share.sqrt()]
            weights = REABSampler._exponential_adams_bashforth(u, i=i, n=2)
            root = [(alpha[j] ** 2 + sigma[j] ** 2).sqrt() for j in (i, i + 1)]
            z = root[1] / root[0] * z + root[1] * sum(w * f for w, f in zip(weights, past, strict=True))
        return z

    truth = network.end(x, SIGMA_MAX, SIGMA_MIN)
    return converging(run, truth, [16 * size, 32 * size, 64 * size], 2e-2, 2.0)
