"""k-diffusion: the samplers of Karras et al. (arXiv 2206.00364), their multistep and stochastic kin, its likelihood.

The exact denoiser of a known law is the model. Samplers run on Karras' levels without the last one, zero, so that
their order shows; with `eta=0` the stochastic ones are deterministic and have an order too.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Check, Measured, converging, exact, flat_of_package, lawful, relative
from studies.verification.problem import karras

__all__ = ["CHECKS"]

PACKAGE = "k-diffusion"
SIGMA_MAX, SIGMA_MIN = 9.0, 0.05
FAR = 300.0  # where N(0, σ²) stands for the law itself


def samplers() -> Any:
    """`k_diffusion.sampling` by itself: the package's own import asks for image models, their metrics and a logger."""
    if "k_diffusion" not in sys.modules:
        package = ModuleType("k_diffusion")
        files = importlib.metadata.files(PACKAGE) or []
        place = next(file for file in files if file.name == "sampling.py")
        package.__path__ = [str(Path(str(place.locate())).parent)]
        sys.modules["k_diffusion"] = package
        _without_images()
    return importlib.import_module("k_diffusion.sampling")


def _without_images() -> None:
    """An empty `torchvision.transforms.functional` where there is none: only conversions of pictures would use it."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = ModuleType(name)
        vars(sys.modules["torchvision.transforms"])["functional"] = sys.modules["torchvision.transforms.functional"]


def model(name: str = "five") -> Any:
    """`D(x, σ)` with one level a row."""
    one = torch.ones((), dtype=torch.float64)
    return lambda x, sigma: exact(name).data(x, one, sigma[0])


def levels(steps: int) -> Tensor:
    """Karras' levels from σ_max to σ_min."""
    return torch.tensor(karras(SIGMA_MAX, SIGMA_MIN, steps))


def schedule() -> Measured:
    """`get_sigmas_karras` without its zero (float32)."""
    sigmas = samplers().get_sigmas_karras(20, SIGMA_MIN, SIGMA_MAX)
    return Measured(relative(sigmas[:-1, None], levels(19)[:, None]), 1e-5)


def walked(kind: str, size: int, stated: float, **options: Any) -> Measured:
    """A sampler on given levels against the exact flow, and its order."""
    x = exact().states(8, SIGMA_MAX, 5)

    quiet = {"noise_sampler": lambda *ends: torch.zeros_like(x)} if "eta" in options else {}

    def run(steps: int) -> Tensor:
        samples = getattr(samplers(), kind)(model(), x, levels(steps), disable=True, **options, **quiet)
        return torch.as_tensor(samples)

    return converging(run, exact().end(x, SIGMA_MAX, SIGMA_MIN), [24 * size, 48 * size, 96 * size], 2e-2, stated)


def fast(size: int) -> Measured:
    """`sample_dpm_fast`, which chooses its levels."""
    x = exact().states(8, SIGMA_MAX, 5)

    def run(steps: int) -> Tensor:
        return torch.as_tensor(samplers().sample_dpm_fast(model(), x, SIGMA_MIN, SIGMA_MAX, steps, disable=True))

    return converging(run, exact().end(x, SIGMA_MAX, SIGMA_MIN), [24 * size, 48 * size, 96 * size], 2e-2)


def adaptive() -> Measured:
    """`sample_dpm_adaptive` at rtol 1e-4."""
    x = exact().states(8, SIGMA_MAX, 5)
    samples = samplers().sample_dpm_adaptive(model(), x, SIGMA_MIN, SIGMA_MAX, rtol=1e-4, atol=1e-5, disable=True)
    return Measured(relative(samples, exact().end(x, SIGMA_MAX, SIGMA_MIN)), 1e-2)


def drawing(kind: str, seed: int, size: int, **options: Any) -> Measured:
    """A stochastic sampler: the law of its draws at σ_min."""
    torch.manual_seed(seed)
    x = exact("plane").states(500 * size, SIGMA_MAX, seed)
    # White noise in place of torchsde's Brownian tree, whose end differs from the last level by rounding.
    white = {} if "s_churn" in options else {"noise_sampler": lambda *ends: torch.randn_like(x)}
    draws = getattr(samplers(), kind)(model("plane"), x, levels(150), disable=True, **options, **white)
    return lawful(draws, "plane", SIGMA_MIN, note="150 steps.")


def likelihood(seed: int, size: int) -> Measured:
    """`log_likelihood` with one probe, averaged over repeats, in standard errors; from σ where the prior is right."""
    torch.manual_seed(seed)
    states, repeats = exact("plane").states(4, SIGMA_MIN, 3), 32 * size
    rows = states.repeat_interleave(repeats, 0)
    values, _ = samplers().log_likelihood(model("plane"), rows, SIGMA_MIN, FAR, atol=1e-6, rtol=1e-6)
    values = values.reshape(4, repeats)
    truth = exact("plane").torch.noised(SIGMA_MIN).log_density(states)
    gap = (values.mean(1) - truth).abs() / (values.std(1) / repeats**0.5 + 1e-3)
    return Measured(float(gap.max()), 5.0, "standard errors")


_check = flat_of_package(PACKAGE)
NAN = float("nan")
WALKS: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
    ("euler", "sample_euler", 1.0, {}),
    ("heun", "sample_heun", 2.0, {}),
    ("dpm_2", "sample_dpm_2", 2.0, {}),
    ("lms", "sample_lms", NAN, {}),
    ("dpmpp_2m", "sample_dpmpp_2m", 2.0, {}),
    ("euler_ancestral-eta-0", "sample_euler_ancestral", 1.0, {"eta": 0.0}),
    ("dpm_2_ancestral-eta-0", "sample_dpm_2_ancestral", 2.0, {"eta": 0.0}),
    ("dpmpp_2s_ancestral-eta-0", "sample_dpmpp_2s_ancestral", 2.0, {"eta": 0.0}),
    ("dpmpp_sde-eta-0", "sample_dpmpp_sde", 2.0, {"eta": 0.0}),
    ("dpmpp_2m_sde-eta-0", "sample_dpmpp_2m_sde", 2.0, {"eta": 0.0}),
    ("dpmpp_3m_sde-eta-0", "sample_dpmpp_3m_sde", 2.0, {"eta": 0.0}),  # one step of first order begins it
)
DRAWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("heun-churn", "sample_heun", {"s_churn": 40.0}),
    ("euler_ancestral", "sample_euler_ancestral", {}),
    ("dpmpp_2m_sde", "sample_dpmpp_2m_sde", {}),
    ("dpmpp_3m_sde", "sample_dpmpp_3m_sde", {}),
)
CHECKS = (
    Check(PACKAGE, "levels", "schedule", "none", lambda seed, size: schedule()),
    *[
        _check(f"sample-{n}", "sampler", lambda seed, size, k=k, s=s, o=o: walked(k, size, s, **o))
        for n, k, s, o in WALKS
    ],
    _check("sample-dpm_fast", "sampler", lambda seed, size: fast(size)),
    _check("sample-dpm_adaptive", "sampler", lambda seed, size: adaptive()),
    *[_check(f"law-{n}", "law", lambda seed, size, k=k, o=o: drawing(k, seed, size, **o)) for n, k, o in DRAWS],
    _check("likelihood-hutchinson", "density", likelihood),
)
