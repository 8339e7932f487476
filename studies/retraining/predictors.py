"""What can be said of a retrained network's samples without it: predicted changes (n, pixels) at the change's own η."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Grid, KernelRatio, Outcome, Points, Toward, log_density, resample, sample_sensitivity
from sensitivity.measures.classifier_training import RatioNetwork, train_ratio_classifier
from sensitivity.measures.measure import Ratio
from studies.retraining import synthetic
from studies.retraining.bench import SIGMA_MAX, Bench
from studies.retraining.changes import Change
from studies.training import Trained
from studies.training.loop import digest

EXACT_UP_TO = 64  # pixels; above, the trace is random
REGULARISATION = 0.05  # of entropic transport, in units of the median squared distance


def linear(bench: Bench, trained: Trained, changes: list[Change], *, exact: bool) -> np.ndarray:
    """η δ of every change from one network, (changes, n, pixels); all changes share the network's evaluations."""
    key = {
        "linear": 1,
        "network": digest(*trained.network.state_dict().values()),
        "images": digest(bench.train.images),
        "latents": digest(bench.latents),
        "changes": [change.name for change in changes],
        "bandwidth": bench.bandwidth,
        "trace": "exact" if exact else bench.context.config.probes,
        "grid": bench.context.config.grid,
    }

    def build() -> dict[str, Tensor]:
        options = {"trace": "exact"} if exact else random_trace(bench)
        with torch.no_grad():
            parts = [change.perturbation for change in changes]
            result = sample_sensitivity(
                bench.score(trained), bench.latents, parts, bench.grid, anchor=bench.anchor, **options
            )
        return {"delta": result.sensitivity.flatten(2), "finished": result.outcome.finished.float()}

    delta = bench.context.cache.tensors("linear", key, build)["delta"].double().cpu().numpy()
    return np.asarray([change.eta for change in changes])[:, None, None] * delta


def random_trace(bench: Bench) -> dict[str, Any]:
    """Options of the random trace."""
    return {"trace": "hutchinson", "probes": bench.context.config.probes, "seed": 0}


def use_exact(bench: Bench) -> bool:
    """Whether the exact trace is affordable; the design's many small networks do without."""
    return bench.latents[0].numel() <= EXACT_UP_TO and not bench.regime.factor


def finite(bench: Bench, trained: Trained, change: Change, base: np.ndarray) -> np.ndarray | None:
    """Samples under the finite mass minus the base samples; None where no gate exists (moved points); 0 where a sample
    halted, the network's density contradicting a removal. How sure the engine is of the others plays no part."""
    if change.perturbation.masses is None:
        return None
    options = random_trace(bench)
    with torch.no_grad():
        result = resample(
            bench.score(trained),
            bench.latents,
            change.perturbation,
            change.eta,
            bench.grid,
            anchor=bench.anchor,
            **options,
        )
    moved = result.samples.flatten(1).double().cpu().numpy() - base
    halted = np.isin(result.outcome.codes.cpu().numpy(), [outcome.value for outcome in Outcome if outcome.halts])
    return np.where(~halted[:, None] & np.isfinite(moved), moved, 0.0)


def kernel(bench: Bench, change: Change) -> Ratio:
    """The log-ratio of two kernel densities."""
    return KernelRatio(change.added, bench.train.images, bench.bandwidth)


def classifier(bench: Bench, change: Change) -> Ratio:
    """The log-ratio of a noise-conditional classifier of new against base data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = RatioNetwork(tuple(bench.train.images.shape[1:]), scale=float(bench.train.images.std()), width=256)
    steps = bench.context.config.classifier_steps
    ratio = train_ratio_classifier(
        network.to(bench.context.device),
        bench.train.images,
        change.added,
        sigma_min=bench.regime.sigma_min,
        sigma_max=SIGMA_MAX,
        steps=steps,
    )
    return ratio.classifier


class FormulaRatio(Ratio):
    """log r = log ν_σ − log p_σ with the network's density by the density formula.

    Attributes:
        errors: median standard error of log p_σ in nats, (σ, error) for every evaluation so far.
    """

    def __init__(self, bench: Bench, trained: Trained, change: Change) -> None:
        self.new, self.score_of, self.bench = (
            Points(change.added, bandwidth=bench.bandwidth),
            bench.score(trained),
            bench,
        )
        self.errors: list[tuple[float, float]] = []

    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """log r (batch,) and ∇ log r, like x."""
        estimate = log_density(
            self.score_of,
            x,
            sigma,
            anchor=self.bench.anchor,
            method="formula",
            grid=Grid(SIGMA_MAX * 1.001, 0.01, 1),
            seed=0,
            evaluations=self.bench.context.config.formula,
        )
        level = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))
        self.errors.append((float(level[0]), float(estimate.standard_error.median())))
        log_new, new = self.new.log_density_and_score(x, sigma)
        return log_new - estimate.value, new - self.score_of(x, level)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """log ν_σ − log p_σ, (batch,)."""
        return self.log_density_and_score(x, sigma)[0]


def by_ratio(bench: Bench, trained: Trained, change: Change, ratio: Ratio) -> np.ndarray:
    """η δ where the ratio is known and no density is needed."""
    result = sample_sensitivity(bench.score(trained), bench.latents, Toward(ratio), bench.grid)
    return change.eta * result.sensitivity.flatten(1).detach().double().cpu().numpy()


def empirical(bench: Bench, change: Change) -> np.ndarray:
    """η δ of the empirical score itself: a model that memorises, in closed form."""
    law = Points(bench.train.images, bandwidth=bench.bandwidth)
    with torch.no_grad():
        result = sample_sensitivity(
            law.score, bench.latents, change.perturbation, bench.grid, anchor=law, **random_trace(bench)
        )
    return change.eta * result.sensitivity.flatten(1).double().cpu().numpy()


def population(bench: Bench, change: Change) -> np.ndarray | None:
    """η δ of the law that the data were drawn from; None where it is not known, or the change is not a class's mass."""
    kind, _, rest = change.name.partition(":")
    if bench.regime.images != synthetic.NAME or kind != "class":
        return None
    device, label = bench.context.device, int(rest.partition("@")[0])
    law, toward = synthetic.law().to(device), Toward(synthetic.law((label,)).to(device))
    with torch.no_grad():
        result = sample_sensitivity(law.score, bench.latents, toward, bench.grid, anchor=law, trace="exact")
    return change.eta * result.sensitivity.flatten(1).double().cpu().numpy()


def nearest(samples: np.ndarray, change: Change) -> np.ndarray:
    """Toward (removal: away from) the nearest image of the mass that moves."""
    members = change.added.flatten(1).double().cpu().numpy()
    distances = ((samples[:, None] - members[None]) ** 2).sum(-1)
    return np.sign(change.eta) * (members[distances.argmin(1)] - samples)


def optimal_transport() -> Any:
    """The package POT, which this baseline alone needs.

    Raises:
        ImportError: where it is not installed.
    """
    try:
        import ot
    except ImportError as error:
        raise ImportError(
            "the baseline 'transport' of retraining needs the package POT: pip install 'score-sensitivity[images]'."
        ) from error
    return ot


def transport(samples: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Barycentric projection of the base samples onto the changed networks' samples, entropic optimal transport."""
    ot = optimal_transport()
    cost = ot.dist(samples, changed)
    plan = ot.sinkhorn(
        [], [], cost / np.median(cost), REGULARISATION, method="sinkhorn_log", numItermax=20_000, stopThr=1e-6
    )
    return len(samples) * plan @ changed - samples
