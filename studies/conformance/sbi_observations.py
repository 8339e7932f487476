"""sbi: several observations at once, guidance, and what a prior becomes under noise.

Observations are `x = θ + √S2 ε` with a Gaussian prior of θ, so that the posterior of any number of them is Gaussian and
known, and so is its score under the noise of the path. The methods that assume Gaussians must be exact there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, Uniform

from oracles import GaussianMixture
from studies.conformance.common import SMALLEST_P, Measured, flat_of_package, relative
from studies.verification.draws import smallest_p
from studies.verification.laws import law, oracle

__all__ = ["CHECKS"]

PACKAGE = "sbi"
S2, D = 0.5, 2
TIMES = (0.05, 0.3, 0.6)


def prior() -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double())


def observed(shift: float) -> Tensor:
    """Three observations near `shift`."""
    return shift + torch.tensor([[0.1, -0.2], [0.3, 0.2], [-0.3, 0.1]], dtype=torch.float64)


def gaussian(x: Tensor) -> tuple[Tensor, float]:
    """Mean and variance of the posterior of all rows of `x`."""
    variance = 1 / (1 + len(x) / S2)
    return variance * x.sum(0) / S2, variance


class Answer(torch.nn.Module):
    """What gives the exact score or velocity of one observation each, preconditioned at `mean_0 = 0`, `std_0 = 1`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.unused = kind, torch.nn.Parameter(torch.zeros(1))

    def forward(self, scaled: Tensor, x: Tensor, t: Tensor) -> Tensor:
        t, variance = t.reshape(-1, 1), S2 / (1 + S2)
        if self.kind == "fm":
            alpha, sigma = 1 - t, t + 1e-3
            std = (alpha**2 + t**2 + 1e-6).sqrt()
        else:  # their network is given std_t in place of the time
            alpha, sigma = (1 - t**2).sqrt(), t
            std = torch.ones_like(t)
        z = scaled * std
        gap = (z - alpha * x / (1 + S2)) / (alpha**2 * variance + sigma**2)
        if self.kind == "fm":
            return (sigma * gap - x / (1 + S2) - alpha * variance * gap) / 2**0.5
        return (gap - z) * sigma / alpha


@cache
def estimator(kind: str) -> Any:
    from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
    from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator

    shape, made = torch.Size([D]), {"vp": VPScoreEstimator, "fm": FlowMatchingEstimator}[kind]
    options = {"beta_max": 20.0} if kind == "vp" else {}
    return made(Answer(kind), shape, shape, **options).double().eval()


def level(kind: str, time: float) -> tuple[Tensor, float, float]:
    t = torch.tensor([time], dtype=torch.float64)
    return t, float(estimator(kind).mean_t_fn(t)), float(estimator(kind).std_fn(t))


def score(z: Tensor, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """Of the posterior of all rows of `x` under the noise of the path."""
    mean, variance = gaussian(x)
    return -(z - alpha * mean) / (alpha**2 * variance + sigma**2)


def states() -> Tensor:
    return torch.randn(16, 1, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def combined(
    kind: str, method: str, shift: float, *, allowed: float = 1e-2, times: tuple[float, ...] = TIMES, **options: Any
) -> Measured:
    """The score of three observations from that of one each."""
    from sbi.inference.potentials.vector_field_adaptor import get_iid_method

    torch.manual_seed(0)
    made, x, worst = get_iid_method(method)(estimator(kind), prior(), **options), observed(shift), 0.0
    for time in times:
        t, alpha, sigma = level(kind, time)
        answer = made(states(), x, t)
        worst = max(worst, relative(answer, score(states(), x, alpha, sigma)))
    return Measured(worst, allowed)


def several(kind: str) -> Measured:
    """`log_prob` of three observations, in nats, up to the constant that it leaves out."""
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

    x = observed(1.0)
    mean, variance = gaussian(x)
    theta = mean + variance**0.5 * states()[:, 0]
    values = VectorFieldPosterior(estimator(kind), prior()).log_prob(theta, x=x)
    gap = values + (theta - mean).square().sum(1) / (2 * variance)
    note = "up to the normalising constant, which is left out"
    return Measured(float((gap - gap.mean()).abs().max()), 5e-2, "nats", note=note)


def drawn(method: str, seed: int, size: int) -> Measured:
    """`sample` given three observations, by a combining method: the law of its draws, and where their mean is."""
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

    torch.manual_seed(seed)
    x, (alpha, sigma) = observed(3.0), level("vp", estimator("vp").t_min)[1:]
    made = VectorFieldPosterior(estimator("vp"), prior())
    options = {"steps": 200, "show_progress_bars": False, "reject_outside_prior": False}
    draws = made.sample((400 * size,), x=x, iid_method=method, **options).double() / alpha
    mean, variance = gaussian(x)
    exact = GaussianMixture(np.ones(1), mean.numpy()[None], variance * np.eye(D)[None])
    off = float((draws.mean(0) - mean).abs().max()) / variance**0.5
    value, _ = smallest_p(exact, draws.numpy(), sigma / alpha)
    return Measured(value, SMALLEST_P, "p", note=f"mean off by {off:.2f} standard deviations")


def guided(kind: str, method: str) -> Measured:
    """Classifier-free guidance of the likelihood's factor 2, and universal guidance that asks for nothing."""
    from sbi.inference.potentials.vector_field_adaptor import get_guidance_method

    chosen, config = get_guidance_method(method)
    settings = {"likelihood_scale": 2.0} if method != "universal" else {"guidance_fn": lambda z, x, m, s: 0 * z}
    made, x, worst = chosen(estimator(kind), prior(), config=config(**settings)), observed(1.0)[:1], 0.0
    for time in TIMES:
        t, alpha, sigma = level(kind, time)
        truth = score(states(), x, alpha, sigma)
        if method != "universal":
            truth = 2 * truth + states() / (alpha**2 + sigma**2)
        worst = max(worst, relative(made.score(states(), x, t), truth))
    return Measured(worst, 1e-2)  # flow matching's scores err by a thousandth of their own


def mixture() -> MixtureSameFamily:
    given = law("plane").map(torch.tensor)
    components = MultivariateNormal(given.means, covariance_matrix=given.covariances)
    return MixtureSameFamily(Categorical(probs=given.weights), components)


ONES = torch.ones(2, dtype=torch.float64)
PRIORS: dict[str, Callable[[], Any]] = {
    "normal": lambda: Independent(Normal(0.5 * ONES, 2 * ONES), 1),
    "multivariate": lambda: MultivariateNormal(0.5 * ONES, torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)),
    "uniform": lambda: Independent(Uniform(-1 * ONES, 2 * ONES), 1),
    "mixture": mixture,
}


def truth(name: str) -> GaussianMixture:
    """The prior as an exact law; the uniform one as equal small Gaussians on a fine grid."""
    if name == "mixture":
        return oracle(law("plane").map(torch.tensor))
    if name == "uniform":
        line = -1 + 3 * (torch.arange(300, dtype=torch.float64) + 0.5) / 300
        points = torch.cartesian_prod(line, line)
        return GaussianMixture.empirical(points)
    made = PRIORS[name]()
    covariance = made.covariance_matrix if name == "multivariate" else torch.diag(made.variance)
    return GaussianMixture(torch.ones(1, dtype=torch.float64), made.mean[None], covariance[None])


def noised(name: str, what: str) -> Measured:
    """`marginalize`: the log density under noise; `denoise`: mean and variance of the state behind a noised one."""
    from sbi.utils import vector_field_utils as theirs

    alpha, sigma = (torch.tensor([[value]], dtype=torch.float64) for value in (0.6, 0.5))
    z, law_of = states()[:, 0], truth(name)
    if what == "marginalize":
        gap = theirs.marginalize(PRIORS[name](), alpha, sigma).log_prob(states()).reshape(-1)
        gap = gap - law_of.noised(0.5, 0.6).log_density(z)
        return Measured(float(gap.abs().max()), 1e-3, "nats")
    made = theirs.denoise(PRIORS[name](), alpha, sigma, states())
    made = made.base_dist if isinstance(made, Independent) else made
    mean, covariance = law_of.posterior(z / 0.6, 0.5 / 0.6)
    spread = covariance.diagonal(dim1=-2, dim2=-1)
    return Measured(max(relative(made.mean.reshape(-1, 2), mean), relative(made.variance.reshape(-1, 2), spread)), 1e-3)


_check = flat_of_package(PACKAGE)
EXACTLY = {"posterior_precision": torch.full((D,), (1 + S2) / S2, dtype=torch.float64)}
KINDS = ("vp", "fm")
GAUSSIAN: dict[str, dict[str, Any]] = {"gauss": EXACTLY, "jac_gauss": {"ensure_lam_psd": False}}
AUTOMATIC = {"centred": (0.0, False), "shifted": (3.0, False), "shifted-diagonal": (3.0, True)}
CHECKS = (
    *[
        _check(f"iid-{m}-{k}", "conversion", lambda seed, size, k=k, m=m: combined(k, m, 3.0, **GAUSSIAN[m]))
        for m in GAUSSIAN
        for k in KINDS
    ],
    *[
        _check(
            f"iid-auto_gauss-{name}",
            "conversion",
            lambda seed, size, shift=shift, diagonal=diagonal: combined(
                "vp", "auto_gauss", shift, allowed=5e-2, precision_est_only_diag=diagonal
            ),
        )
        for name, (shift, diagonal) in AUTOMATIC.items()
    ],
    _check("iid-fnpe", "conversion", lambda seed, size: combined("vp", "fnpe", 3.0, times=(1e-3,)), "at t_min"),
    _check(
        "iid-fnpe-weight",
        "conversion",
        lambda seed, size: combined("vp", "fnpe", 3.0, times=(1e-3,), prior_score_weight=lambda t: 1 - t),
    ),
    *[_check(f"law-iid-{m}", "law", lambda seed, size, m=m: drawn(m, seed, size)) for m in ("auto_gauss", "jac_gauss")],
    *[_check(f"likelihood-iid-{k}", "density", lambda seed, size, k=k: several(k)) for k in KINDS],
    *[
        _check(f"guidance-{m}-{k}", "conversion", lambda seed, size, k=k, m=m: guided(k, m))
        for m in ("affine_classifier_free", "universal")
        for k in KINDS
    ],
    *[
        _check(f"{what}-{name}", "conversion", lambda seed, size, name=name, what=what: noised(name, what))
        for what in ("marginalize", "denoise")
        for name in PRIORS
    ],
)
