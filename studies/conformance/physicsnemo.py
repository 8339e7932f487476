"""NVIDIA's physicsnemo: the sampler code of EDM (Karras et al., arXiv 2206.00364) as its authors' company releases it.

`deterministic_sampler` is EDM's general sampler with every combination of discretisation, schedule and scaling, and
`stochastic_sampler` its second algorithm; `sample` and its solvers are what follows them, with schedules of their own.
The exact denoiser of a known law is the network. The first two end at σ = 0, one step of Euler's method from σ_min.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Check, Measured, converging, exact, flat_of_package, largest, lawful, relative
from studies.verification.problem import karras

__all__ = ["CHECKS"]

PACKAGE = "nvidia-physicsnemo"
SIGMA_MAX, SIGMA_MIN, NEAR_ZERO = 9.0, 0.05, 0.002
FIRST, LAST = 1.0, 0.02  # times of the variance-preserving schedule
STEPS, CHURN = 150, 40
# What the samplers import for types, patches of images and several devices, by name: none is used here.
UNUSED = {
    "tensordict": "TensorDict",
    "physicsnemo.diffusion.multi_diffusion": "GridPatching2D",
    "physicsnemo.diffusion.preconditioners": "EDMPrecond",
    "physicsnemo.domain_parallel": "ShardTensor",
    "physicsnemo.domain_parallel.shard_tensor": "scatter_tensor",
}


def samplers() -> Any:
    """`physicsnemo.diffusion.samplers` by itself: the package's own import asks for meshes, storage and compilers."""
    if "physicsnemo" not in sys.modules:
        files = importlib.metadata.files(PACKAGE) or []
        root = Path(str(next(file for file in files if file.match("diffusion/base.py")).locate())).parents[1]
        for name in ("physicsnemo", "physicsnemo.core"):
            sys.modules[name] = ModuleType(name)
            sys.modules[name].__path__ = [str(root / Path(*name.split(".")[1:]))]
        for name, unused in UNUSED.items():
            sys.modules[name] = ModuleType(name)
            setattr(sys.modules[name], unused, type(unused, (), {}))
    return importlib.import_module("physicsnemo.diffusion.samplers")


def schedulers() -> Any:
    """`physicsnemo.diffusion.noise_schedulers`."""
    samplers()
    return importlib.import_module("physicsnemo.diffusion.noise_schedulers")


class Network:
    """`D(x, condition, σ, labels)` with the bounds that EDM's samplers ask a network for."""

    sigma_min, sigma_max = 0.0, math.inf

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: Tensor, condition: Any, sigma: Tensor, labels: Any) -> Tensor:
        one = torch.ones((), dtype=torch.float64)
        return exact(self.name).data(x, one, torch.as_tensor(sigma, dtype=torch.float64))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma


def scheduler(kind: str) -> Any:
    """A schedule by its short name."""
    return getattr(schedulers(), {"edm": "EDM", "ve": "VE", "vp": "VP"}[kind] + "NoiseScheduler")()


def times(kind: str, steps: int) -> Tensor:
    """Descending times of a schedule, none of them zero: Karras' levels, or equal steps where it preserves variance."""
    if kind == "vp":
        return torch.linspace(FIRST, LAST, steps + 1, dtype=torch.float64)
    levels = torch.tensor(karras(SIGMA_MAX, SIGMA_MIN, steps))
    return torch.as_tensor(scheduler(kind).sigma_inv(levels))


def ends(kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """α and σ/α at the first and at the last time."""
    given, t = scheduler(kind), times(kind, 1)
    alpha, sigma = given.alpha(t), given.sigma(t)
    level = sigma / alpha
    return alpha[0], level[0], alpha[1], level[1]


def rate(kind: str, name: str) -> Any:
    """The right-hand side of the schedule's probability flow, from the exact data prediction."""
    given = scheduler(kind)

    def data(x: Tensor, t: Tensor) -> Tensor:
        return exact(name).data(x, given.alpha(t[0]), given.sigma(t[0]))

    return given.get_denoiser(x0_predictor=data)


def classic(size: int, expected: float, **options: Any) -> Measured:
    """`deterministic_sampler` without churn against the exact flow to zero, and its order."""
    x = exact().states(8, SIGMA_MAX, 5)
    given = {"sigma_min": NEAR_ZERO, "sigma_max": SIGMA_MAX, **options}

    def run(steps: int) -> Tensor:
        latents = x / SIGMA_MAX
        return torch.as_tensor(samplers().deterministic_sampler(Network("five"), latents, x, num_steps=steps, **given))

    return converging(run, exact().end(x, SIGMA_MAX, 0.0), [32 * size, 64 * size, 128 * size], 3e-2, expected)


def churned(kind: str, seed: int, size: int, **options: Any) -> Measured:
    """EDM's stochastic sampling: the law of the draws at zero, where one step of Euler's method from σ_min ends."""
    torch.manual_seed(seed)
    x = exact("plane").states(500 * size, SIGMA_MAX, seed)
    given = {"num_steps": STEPS, "sigma_min": NEAR_ZERO, "sigma_max": SIGMA_MAX, "S_churn": CHURN, **options}
    draws = getattr(samplers(), kind)(Network("plane"), x / SIGMA_MAX, x, **given)
    return lawful(draws, "plane", NEAR_ZERO, note=f"{STEPS} steps.")


def walked(kind: str, solver: str, size: int, expected: float, **options: Any) -> Measured:
    """`sample` on given times against the exact flow, and its order."""
    alpha, high, last, low = ends(kind)
    x = exact().states(8, float(high), 5)

    def run(steps: int) -> Tensor:
        walk = {"num_steps": 0, "time_steps": times(kind, steps), "solver": solver, "solver_options": options}
        return torch.as_tensor(samplers().sample(rate(kind, "five"), alpha * x, scheduler(kind), **walk) / last)

    truth = exact().end(x, float(high), float(low))
    return converging(run, truth, [32 * size, 64 * size, 128 * size], 3e-2, expected)


def drawn(kind: str, solver: str, seed: int, size: int, *, maps: bool = False, noise: bool = False) -> Measured:
    """A solver with churn: the law of its draws at the last time.

    `maps` gives the solver the schedule's σ and its inverse, `noise` its g² as well, as its documentation does.
    """
    torch.manual_seed(seed)
    alpha, high, last, low = ends(kind)
    given = scheduler(kind)
    options: dict[str, Any] = {"S_churn": CHURN, "num_steps": STEPS}
    options |= {"sigma_fn": given.sigma, "sigma_inv_fn": given.sigma_inv} if maps else {}
    options |= {"diffusion_fn": given.diffusion} if noise else {}
    # Where variance is preserved, a level that is raised above 1 has no time: those are left as they are.
    options |= {"S_max": 0.7} if kind == "vp" and maps else {}
    x = alpha * exact("plane").states(500 * size, float(high), seed)
    walk = {"num_steps": 0, "time_steps": times(kind, STEPS), "solver": solver, "solver_options": options}
    draws = samplers().sample(rate(kind, "plane"), x, given, **walk) / last
    right = f", and with noise of level σ/α p = {mended(kind, x):.2g}" if maps else ""
    return lawful(draws, "plane", float(low), note=f"{STEPS} steps{right}.")


def mended(kind: str, x: Tensor) -> float:
    """The p-value of the law with churn in `x/α`, whose noise has the level σ/α, and the package's own Heun steps."""
    given, last = scheduler(kind), times(kind, 1)[-1]
    heun = samplers().HeunSolver(rate(kind, "plane"))
    for time, following in pairwise(times(kind, STEPS)):
        alpha = given.alpha(time)
        level = given.sigma(time) / alpha
        raised = level * (1 + min(CHURN / STEPS, math.sqrt(2) - 1))
        above = given.sigma_inv(raised / (1 + raised**2).sqrt() if kind == "vp" else raised)
        x = given.alpha(above) * (x / alpha + (raised**2 - level**2).sqrt() * torch.randn_like(x))
        x = heun.step(x, above.expand(len(x)), following.expand(len(x)))
    return lawful(x / given.alpha(last), "plane", float(given.sigma(last) / given.alpha(last))).error


def beyond() -> Measured:
    """The share of entries that are not finite after one step from t = 1, churn as documented, variance preserved."""
    given = scheduler("vp")
    maps = {"sigma_fn": given.sigma, "sigma_inv_fn": given.sigma_inv, "diffusion_fn": given.diffusion}
    normal = given.get_denoiser(score_predictor=lambda x, t: -x)
    solver = samplers().EDMStochasticHeunSolver(normal, S_churn=CHURN, num_steps=10, **maps)
    x, one = exact("plane").states(8, 1.0, 3), torch.ones(8, dtype=torch.float64)
    share = 1.0 - float(solver.step(x, one, 0.9 * one).isfinite().double().mean())
    return Measured(share, 0.0, note="share of entries that are not finite.")


def levels() -> Measured:
    """EDM's levels by the scheduler."""
    given = schedulers().EDMNoiseScheduler(sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX)
    times = given.timesteps(20, dtype=torch.float64)
    return Measured(relative(times[:-1, None], torch.tensor(karras(SIGMA_MAX, SIGMA_MIN, 19))[:, None]), 1e-12)


def inverse(kind: str) -> Measured:
    """`sigma_inv` of `sigma`, and derivatives against central differences."""
    given, h = scheduler(kind), 1e-5
    t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    errors = [largest(given.sigma_inv(given.sigma(t)), t)]
    for value, slope in ((given.sigma, given.sigma_dot), (given.alpha, given.alpha_dot)):
        errors.append(float((slope(t) - (value(t + h) - value(t - h)) / (2 * h)).abs().max()))
    return Measured(max(errors), 1e-4)  # its inverse adds 1e-8 under the logarithm


def always(answer: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A network of one answer."""
    return lambda x, t: answer


def conversions(kind: str) -> Measured:
    """Data, noise and score into one another, and the flow's right-hand side from each."""
    given, law = scheduler(kind), exact()
    t = torch.full((8,), 0.6, dtype=torch.float64)
    alpha, sigma = given.alpha(t[0]), given.sigma(t[0])
    z = alpha * law.states(8, float(sigma / alpha), 5)
    data, score, noise = law.data(z, alpha, sigma), law.score(z, alpha, sigma), law.noise(z, alpha, sigma)
    velocity = law.velocity(z, alpha, sigma, given.alpha_dot(t[0]), given.sigma_dot(t[0]))
    made = {"x0_predictor": data, "score_predictor": score, "epsilon_predictor": noise}
    pairs = [
        (given.x0_to_score(data, z, t), score),
        (given.score_to_x0(score, z, t), data),
        (given.epsilon_to_x0(noise, z, t), data),
        (given.x0_to_epsilon(data, z, t), noise),
        (given.epsilon_to_score(noise, t), score),
        *[(given.get_denoiser(**{k: always(v)})(z, t), velocity) for k, v in made.items()],
    ]
    return Measured(max(largest(value, truth) for value, truth in pairs), 1e-9)


_check = flat_of_package(PACKAGE)
WAYS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("edm-heun", 2.0, {}),
    ("edm-euler", 1.0, {"solver": "euler"}),
    ("edm-midpoint", 2.0, {"alpha": 0.5}),
    ("ve", 2.0, {"discretization": "ve", "schedule": "ve"}),
    ("vp", 2.0, {"discretization": "vp", "schedule": "vp", "scaling": "vp"}),
    ("vp-unscaled", 2.0, {"discretization": "vp", "schedule": "vp"}),
    ("iddpm", math.nan, {"discretization": "iddpm"}),  # its levels are picked from a table of a thousand
)
SOLVERS: tuple[tuple[str, str, str, float, dict[str, Any]], ...] = (
    *[
        (f"{kind}-{solver}", kind, solver, order, {})
        for kind in ("edm", "ve", "vp")
        for solver, order in (("euler", 1.0), ("heun", 2.0))
    ],
    ("edm-midpoint", "edm", "heun", 2.0, {"alpha": 0.5}),
    ("edm-stochastic_heun-quiet", "edm", "edm_stochastic_heun", 2.0, {}),
)
LAWS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("edm-stochastic_euler", "edm", "edm_stochastic_euler", {}),
    ("edm-stochastic_heun", "edm", "edm_stochastic_heun", {}),
    ("ve-stochastic_heun-maps", "ve", "edm_stochastic_heun", {"maps": True}),
    ("ve-stochastic_heun-documented", "ve", "edm_stochastic_heun", {"maps": True, "noise": True}),
    ("vp-stochastic_heun-maps", "vp", "edm_stochastic_heun", {"maps": True}),
    ("vp-stochastic_heun-documented", "vp", "edm_stochastic_heun", {"maps": True, "noise": True}),
)
CHECKS = (
    Check(PACKAGE, "levels", "schedule", "none", lambda seed, size: levels()),
    Check(PACKAGE, "inverse-ve", "schedule", "none", lambda seed, size: inverse("ve")),
    Check(PACKAGE, "inverse-vp", "schedule", "none", lambda seed, size: inverse("vp")),
    *[_check(f"conversions-{k}", "conversion", lambda seed, size, k=k: conversions(k)) for k in ("edm", "ve", "vp")],
    *[_check(f"classic-{n}", "sampler", lambda seed, size, e=e, o=o: classic(size, e, **o)) for n, e, o in WAYS],
    *[
        _check(f"sample-{n}", "sampler", lambda seed, size, k=k, s=s, e=e, o=o: walked(k, s, size, e, **o))
        for n, k, s, e, o in SOLVERS
    ],
    _check("law-classic-churn", "law", lambda seed, size: churned("deterministic_sampler", seed, size)),
    _check("law-classic-stochastic", "law", lambda seed, size: churned("stochastic_sampler", seed, size)),
    *[_check(f"law-{n}", "law", lambda seed, size, k=k, s=s, o=o: drawn(k, s, seed, size, **o)) for n, k, s, o in LAWS],
    _check("vp-churn-from-the-top", "sampler", lambda seed, size: beyond()),
)
