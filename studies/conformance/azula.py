"""azula: schedules, denoisers and samplers with the exact denoiser of a known law.

Its time runs from data (t = 0) to noise (t = 1): `x_t = α_t x + σ_t z`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Exact, Measured, converging, exact, lawful, of_package, relative

__all__ = ["CHECKS"]

PACKAGE = "azula"
_check = of_package(PACKAGE)
IMAGE = ("image", (1, 4, 4))
SIGMA_MIN, SIGMA_MAX = 0.05, 9.0


def schedules() -> dict[str, Any]:
    from azula import noise

    return {
        "VE": noise.VESchedule(SIGMA_MIN, SIGMA_MAX),
        "VP": noise.VPSchedule(0.1, SIGMA_MIN),
        "Cosine": noise.CosineSchedule(0.1, SIGMA_MIN),
        "Rectified": noise.RectifiedSchedule(0.1, SIGMA_MIN),
        "Decay": noise.DecaySchedule(0.1, SIGMA_MIN),
    }


def formulas(name: str) -> Measured:
    """α and σ against the formulas of the documentation, written out here."""
    import math

    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    tau = (1 - 0.1**t) / (1 - 0.1)
    linear = {"Rectified": t, "Decay": tau}.get(name, t)
    alphas = {
        "VE": torch.ones_like(t),
        "VP": torch.exp(t**2 * math.log(0.1)),
        "Cosine": torch.cos(t * math.acos(0.1)),
        "Rectified": 1 - 0.9 * linear,
        "Decay": 1 - 0.9 * linear,
    }
    kept = (1 - alphas[name] ** 2 + SIGMA_MIN**2).sqrt()
    sigmas = {
        "VE": SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t,
        "VP": kept,
        "Cosine": kept,
        "Rectified": SIGMA_MIN + linear * (1 - SIGMA_MIN),
        "Decay": SIGMA_MIN + linear * (1 - SIGMA_MIN),
    }
    alpha, sigma = schedules()[name](t)
    return Measured(float(torch.maximum((alpha - alphas[name]).abs(), (sigma - sigmas[name]).abs()).max()), 1e-12)


def denoiser(network: Exact, schedule: Any) -> Any:
    """An azula denoiser that answers exactly."""
    from azula.denoise import Denoiser, DiracPosterior

    class Answer(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> Any:
            times = t.double().expand(len(x_t)) if t.ndim == 0 else t.double().reshape(-1)
            if bool((times == times[0]).all()):
                return DiracPosterior(network.data(x_t, *schedule(times[0])))
            rows = [network.data(x[None], *schedule(time)) for x, time in zip(x_t, times, strict=True)]
            return DiracPosterior(torch.cat(rows))

    return Answer()


class Backbone(torch.nn.Module):
    """A network in preconditioned coordinates: sees `x_t/√(α² + σ²)` and `log σ/α`, and undoes the preconditioning."""

    def __init__(self, network: Exact, karras: bool) -> None:
        super().__init__()
        self.network, self.karras = network, karras
        self.anchor = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))  # tells azula the dtype

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        tau = log_sigma.exp().reshape(-1)[0]
        root = (1 + tau**2).sqrt()
        data = self.network.data(x * root, torch.ones_like(tau), tau)
        return (data - x / root) * root / tau if self.karras else data


def preconditioned(kind: str, shape: tuple[str, tuple[int, ...]] | None) -> Measured:
    """`SimpleDenoiser` and `KarrasDenoiser` around the exact backbone."""
    from azula import denoise

    network = exact(*shape) if shape else exact()
    worst = 0.0
    for name, schedule in schedules().items():
        made = getattr(denoise, kind)(Backbone(network, kind == "KarrasDenoiser"), schedule)
        for time in (0.1, 0.5, 0.9):
            t = torch.tensor(time, dtype=torch.float64)
            alpha, sigma = schedule(t)
            z = alpha * network.states(8, float(sigma / alpha), 3)
            worst = max(worst, relative(made(z, t).mean.detach(), network.data(z, alpha, sigma)))
        del name
    return Measured(worst, 1e-9)


def gaussian() -> Measured:
    """`GaussianDenoiser` with a full covariance against conditioning of a Gaussian."""
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import FullCovariance

    network = exact("gaussian")
    values, vectors = torch.linalg.eigh(network.torch.covariance)
    worst = 0.0
    for schedule in schedules().values():
        made = GaussianDenoiser(network.torch.mean, FullCovariance(vectors, values), schedule)
        t = torch.tensor(0.4, dtype=torch.float64)
        alpha, sigma = schedule(t)
        z = alpha * network.states(8, float(sigma / alpha), 3)
        truth = network.torch.posterior(z / alpha, sigma / alpha)[0]
        worst = max(worst, relative(made(z, t).mean, truth))
    return Measured(worst, 1e-9)


def adapter(shape: tuple[str, tuple[int, ...]] | None) -> Measured:
    """Our `from_azula` around azula's own denoiser: the score in variance-exploding coordinates."""
    from sensitivity.adapters.azula import from_azula

    network = exact(*shape) if shape else exact()
    worst = 0.0
    for schedule in schedules().values():
        score = from_azula(denoiser(network, schedule))
        for level in (0.3, 2.0):
            x, sigma = network.states(8, level, 3), torch.tensor(level, dtype=torch.float64)
            worst = max(worst, relative(score(x, sigma), network.score(x, torch.ones_like(sigma), sigma)))
    return Measured(worst, 1e-6)


def sampling(kind: str, stated: float, size: int, options: dict[str, Any], shape: Any = None) -> Measured:
    """A deterministic sampler on the variance-exploding and the rectified schedule against the exact flow."""
    from azula import sample

    network = exact(*shape) if shape else exact()
    schedule = schedules()["VE"]
    x = network.states(8, SIGMA_MAX, 5)
    truth = network.end(x, SIGMA_MAX, SIGMA_MIN)

    def run(steps: int) -> Tensor:
        made = getattr(sample, kind)(
            denoiser(network, schedule), steps=steps, silent=True, dtype=torch.float64, **options
        )
        return made(x)

    return converging(run, truth, [16 * size, 32 * size, 64 * size], 2e-2, stated)


def drawing(kind: str, size: int, seed: int) -> Measured:
    """A stochastic sampler: the law of its samples."""
    from azula import sample

    network = exact("plane")
    torch.manual_seed(seed)
    x = network.states(1000 * size, SIGMA_MAX, seed)
    made = getattr(sample, kind)(denoiser(network, schedules()["VE"]), steps=256, silent=True, dtype=torch.float64)
    return lawful(made(x), "plane", SIGMA_MIN, note="256 steps.")


NAMES = ("VE", "VP", "Cosine", "Rectified", "Decay")
SAMPLERS: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
    ("DDIM", "DDIMSampler", 1.0, {}),
    ("Euler", "EulerSampler", 1.0, {}),
    ("Heun", "HeunSampler", 2.0, {}),
    ("zAB-2", "zABSampler", 2.0, {"order": 2}),
    ("zAB-3", "zABSampler", 3.0, {"order": 3}),
    ("vAB-2", "vABSampler", 2.0, {"order": 2}),
    ("zEAB-2", "zEABSampler", 2.0, {"order": 2}),
    ("xEAB-2", "xEABSampler", 2.0, {"order": 2}),
    ("REAB-2", "REABSampler", 2.0, {"order": 2}),
)


CHECKS = (
    *[_check(f"schedule-{n}", "schedule", "none", lambda seed, size, n=n: formulas(n)) for n in NAMES],
    _check("denoiser-gaussian", "conversion", "flat", lambda seed, size: gaussian()),
    *[
        _check(f"denoiser-{kind}-{where}", "conversion", where, lambda seed, size, k=kind, s=s: preconditioned(k, s))
        for kind in ("SimpleDenoiser", "KarrasDenoiser")
        for where, s in (("flat", None), ("image", IMAGE))
    ],
    _check("adapter-score", "conversion", "flat", lambda seed, size: adapter(None)),
    _check("adapter-score-image", "conversion", "image", lambda seed, size: adapter(IMAGE)),
    *[
        _check(f"sample-{n}", "sampler", "flat", lambda seed, size, k=k, p=p, o=o: sampling(k, p, size, o))
        for n, k, p, o in SAMPLERS
    ],
    _check("sample-Heun-image", "sampler", "image", lambda seed, size: sampling("HeunSampler", 2.0, size, {}, IMAGE)),
    *[
        _check(f"law-{k}", "law", "flat", lambda seed, size, k=k: drawing(k, size, seed))
        for k in ("DDPMSampler", "ItoSampler", "PCSampler")
    ],
    _check("likelihood", "density", "none", None, "no likelihoods in this package"),
)
