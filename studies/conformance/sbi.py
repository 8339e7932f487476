"""sbi: its score estimators and its flow-matching estimator, the posteriors that sample from them, and their densities.

The network behind an estimator is exact: it answers with what the estimator's own preconditioning turns into the score
or velocity of a known law, at nontrivial `mean_0` and `std_0`. Time runs from data at 0 to noise at 1, and
`z = mean_t x + std_t ε`. What is observed does not matter, but in `studies.conformance.sbi_observations`.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Measured, exact, flat_of_package, lawful, relative
from studies.conformance.sbi_observations import CHECKS as OF_OBSERVATIONS

__all__ = ["CHECKS"]

PACKAGE = "sbi"
KINDS = ("vp", "subvp", "ve", "fm")
TIMES = (0.1, 0.5, 0.9)
BETAS = MappingProxyType({"beta_min": 0.1, "beta_max": 20.0})  # their default leaves 8 % of the data in the noise
CORRECTORS = MappingProxyType({"gibbs": (0.12, {}), "langevin": (0.2, {"step_size": 5e-3, "num_steps": 400})})
OPTIONS = MappingProxyType({"vp": BETAS, "subvp": BETAS, "ve": {"sigma_max": 80.0}, "fm": {}})


def classes() -> dict[str, Any]:
    from sbi.neural_nets.estimators.flowmatching_estimator import FlowMatchingEstimator
    from sbi.neural_nets.estimators.score_estimator import SubVPScoreEstimator, VEScoreEstimator, VPScoreEstimator

    return {"vp": VPScoreEstimator, "subvp": SubVPScoreEstimator, "ve": VEScoreEstimator, "fm": FlowMatchingEstimator}


def level(estimator: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """`mean_t` and `std_t` of the path, of shape (); flow matching's own `mean_t_fn` stops at .01."""
    matching = not hasattr(estimator, "beta_min")
    alpha = 1 - t.clamp(1e-6, 1 - 1e-6) if matching else estimator.mean_t_fn(t)
    return alpha.double().reshape(()), estimator.std_fn(t).double().reshape(())


def estimator(kind: str, name: str, **options: Any) -> Any:
    """An estimator whose network is exact for the law, in double precision."""
    return _estimators(kind, name, tuple(options.items()))


@cache
def _estimators(kind: str, name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    base, network = classes()[kind], exact(name)

    class Known(torch.nn.Module):
        """What the preconditioning turns into the exact answer; the time is that of the estimator's call."""

        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, scaled: Tensor, x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = level(made, made.time)
            if kind == "fm":
                mean, std = made._get_time_dependent_stats(made.time)
                z, one = scaled * std + mean, torch.ones_like(alpha)
                centre, scale = made._get_velocity_normalization()
                gauss = made._compute_velocity_baseline(z, made.time) if made.gaussian_baseline else centre
                return (network.velocity(z, alpha, sigma, -one, one) - gauss) / scale
            mean, std = made.approx_marginal_mean(made.time), made.approx_marginal_std(made.time)
            z = scaled * std + mean
            factor = made.mean_t_fn(made.time) / made.std_fn(made.time)
            return -(network.score(z, alpha, sigma) + (z - mean) / std**2) / factor

    class Timed(base):  # type: ignore[misc, valid-type]  # theirs, unchanged, but for a note of the time
        def forward(self, input: Tensor, condition: Tensor, time: Tensor) -> Tensor:
            object.__setattr__(self, "time", time.reshape(-1)[:1])
            answer: Tensor = super().forward(input, condition, time)
            return answer

    mean, std = network.numpy.mean, network.numpy.covariance.diagonal() ** 0.5
    start = {"mean_0": torch.tensor(mean), "std_0": torch.tensor(std)}
    shape = torch.Size([network.dimension])
    made = Timed(Known(), shape, torch.Size([1]), **start, **OPTIONS[kind], **dict(options)).double().eval()
    return made


def posterior(kind: str, name: str, **options: Any) -> Any:
    """The posterior of one observation, with a prior so wide that nothing is rejected."""
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

    d = exact(name).dimension
    prior = torch.distributions.MultivariateNormal(torch.zeros(d).double(), 1e4 * torch.eye(d).double())
    made = VectorFieldPosterior(estimator(kind, name), prior, **options)
    return made.set_default_x(torch.zeros(1, 1, dtype=torch.float64))


def schedule(kind: str) -> Measured:
    """Drift and diffusion against the path: `f = d log mean_t`, `g² = d std_t² − 2 f std_t²`."""
    made, t, h = estimator(kind, "five"), torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1e-6
    one = torch.ones(9, 1, dtype=torch.float64)
    alpha, std = made.mean_t_fn, made.std_fn
    drift = (alpha(t + h).log() - alpha(t - h).log()) / (2 * h)
    diffusion = (std(t + h) ** 2 - std(t - h) ** 2) / (2 * h) - 2 * drift * std(t) ** 2
    worst = relative(made.diffusion_fn(one, t[:, None]).expand(9, 1) ** 2, diffusion)
    if kind != "ve":
        worst = max(worst, relative(made.drift_fn(one, t[:, None]), drift))
    return Measured(worst, 1e-6)


def scored(kind: str, **options: Any) -> Measured:
    """`score` at three times."""
    made, network, worst = estimator(kind, "five", **options), exact("five"), 0.0
    for time in TIMES:
        t = torch.tensor([time], dtype=torch.float64)
        alpha, sigma = level(made, t)
        z = alpha * network.states(8, float(sigma / alpha), 3)
        answer = made.score(z[:, None], torch.zeros(1, 1).double(), t)[:, 0]
        worst = max(worst, relative(answer, network.score(z, alpha, sigma)))
    return Measured(worst, 1e-6)


def flow(kind: str, **options: Any) -> Measured:
    """`ode_fn`, the velocity of the probability flow, against `mean_t' E[x | z] + std_t' E[ε | z]`."""
    made, network, worst, h = estimator(kind, "five", **options), exact("five"), 0.0, 1e-6
    for time in TIMES:
        t = torch.tensor([time], dtype=torch.float64)
        alpha, sigma = level(made, t)
        (a1, s1), (a0, s0) = level(made, t + h), level(made, t - h)
        z = alpha * network.states(8, float(sigma / alpha), 3)
        answer = made.ode_fn(z[:, None], torch.zeros(1, 1).double(), t)[:, 0]
        truth = network.velocity(z, alpha, sigma, (a1 - a0) / (2 * h), (s1 - s0) / (2 * h))
        worst = max(worst, relative(answer, truth))
    return Measured(worst, 1e-6)


def ends(kind: str, name: str) -> tuple[Tensor, Tensor]:
    made = estimator(kind, name)
    return level(made, torch.tensor([made.t_min], dtype=torch.float64))


def density(kind: str) -> Measured:
    """`log_prob` of the law at `t_min`, exact divergence, in nats."""
    (alpha, sigma), network = ends(kind, "five"), exact("five")
    states = alpha * network.states(8, float(sigma / alpha), 3)
    values = posterior(kind, "five").log_prob(states)
    return Measured(float((values - network.torch.noised(sigma, alpha).log_density(states)).abs().max()), 1e-2, "nats")


def probed(kind: str, seed: int, size: int) -> Measured:
    """`log_prob` with Hutchinson's probe, averaged over repeats, in standard errors."""
    (alpha, sigma), network, repeats = ends(kind, "five"), exact("five"), 64 * size
    states = alpha * network.states(4, float(sigma / alpha), 3)
    torch.manual_seed(seed)
    rows = states.repeat_interleave(repeats, 0)
    values = posterior(kind, "five").log_prob(rows, ode_kwargs={"exact": False}).reshape(4, repeats)
    gap = (values.mean(1) - network.torch.noised(sigma, alpha).log_density(states)).abs()
    return Measured(float((gap / (values.std(1) / repeats**0.5 + 1e-3)).max()), 5.0, "standard errors")


def drawing(kind: str, way: str, seed: int, size: int) -> Measured:
    """`sample`: the law of its draws at `t_min`."""
    torch.manual_seed(seed)
    alpha, sigma = ends(kind, "plane")
    made = posterior(kind, "plane", sample_with=way)
    draws = made.sample((400 * size,), show_progress_bars=False, reject_outside_prior=False)
    return lawful(draws / alpha, "plane", float(sigma / alpha))


def corrected(corrector: str, seed: int, size: int) -> Measured:
    """A corrector alone, after a step from the time before to .1: it must leave the law at .1 as it is."""
    from sbi.samplers.score.correctors import get_corrector
    from sbi.samplers.score.predictors import get_predictor

    before, options = CORRECTORS[corrector]
    torch.manual_seed(seed)
    potential = posterior("vp", "plane").potential_fn
    potential.set_x(torch.zeros(1, 1).double())
    t0, t1 = torch.tensor([0.1, before], dtype=torch.float64)
    alpha, sigma = level(estimator("vp", "plane"), t0[None])
    draws = alpha * exact("plane").states(2000 * size, float(sigma / alpha), seed)[:, None]
    with torch.no_grad():
        made = get_corrector(corrector, get_predictor("euler_maruyama", potential), **options)
        draws = made(draws, t0[None], t1[None])
    return lawful(draws[:, 0] / alpha, "plane", float(sigma / alpha))


class Silent(torch.nn.Module):
    """A network that answers zero."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z)


def weighted(weight: str) -> Measured:
    """`loss` with a weight over `loss` without, for the same noise: the weight of each row's time."""
    t = torch.linspace(0.1, 0.9, 8)
    losses = []
    for name in ("identity", weight):
        made = classes()["vp"](Silent(), torch.Size([2]), torch.Size([1]), weight_fn=name)
        torch.manual_seed(0)
        losses.append(made.loss(torch.randn(8, 2), torch.zeros(8, 1), times=t, control_variate=False))
    if losses[1].shape != losses[0].shape:
        return Measured(float("nan"), 1e-5, note=f"eight rows have a loss of shape {tuple(losses[1].shape)}")
    truth = made.std_fn(t)[:, 0] ** 2 if weight == "variance" else made.noise_schedule(t)
    return Measured(relative((losses[1] / losses[0])[:, None], truth[:, None]), 1e-5)


_check = flat_of_package(PACKAGE)
CHECKS = (
    *[_check(f"path-{k}", "schedule", lambda seed, size, k=k: schedule(k)) for k in KINDS],
    *[_check(f"loss-{w}", "schedule", lambda seed, size, w=w: weighted(w)) for w in ("max_likelihood", "variance")],
    *[_check(f"score-{k}", "conversion", lambda seed, size, k=k: scored(k)) for k in KINDS],
    *[_check(f"flow-{k}", "conversion", lambda seed, size, k=k: flow(k)) for k in KINDS],
    _check("flow-fm-baseline", "conversion", lambda seed, size: flow("fm", gaussian_baseline=True)),
    *[_check(f"likelihood-exact-{k}", "density", lambda seed, size, k=k: density(k)) for k in KINDS],
    *[
        _check(f"likelihood-hutchinson-{k}", "density", lambda seed, size, k=k: probed(k, seed, size))
        for k in ("vp", "fm")
    ],
    *[
        _check(f"law-{w}-{k}", "law", lambda seed, size, k=k, w=w: drawing(k, w, seed, size))
        for k in KINDS
        for w in ("ode", "sde")
    ],
    *[_check(f"law-{c}", "law", lambda seed, size, c=c: corrected(c, seed, size)) for c in CORRECTORS],
    *OF_OBSERVATIONS,
)
