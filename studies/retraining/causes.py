"""Why prediction fails: what each latent's correlation goes with, and what one prediction shares with one network.

The P pairs are halved. The *response* of a latent is the correlation of the prediction and the mean change of the
second half; *seed noise* is taken from the first half, so that no noise is common to both. In terms of the base path
x(σ_k) of a latent, k = 0 … n the sampler's levels, and of the first networks:

- `noise`: 1 − the mean correlation of the changes of two pairs of the first half;
- `size`: log of the norm of the prediction, whose law has a heavy right tail;
- `boundary`: mean over k of the entropy of the classes' posterior, kernel densities, at (x(σ_k), σ_k);
- `log-ratio`: mean over k of `|g − g'|`, g = ηr/(1 − η + ηr) the share of the new mass at the state, with log r from
  the network's exact density (g) and from kernel densities (g');
- `population`: mean over k of `|D − D'|/(σ_k √d)`, D the network's denoiser and D' the kernel density's;
- `curvature`: norm of (finite path − first order) over the norm of the first order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import Points, sample_sensitivity
from sensitivity.readings.results import Trajectory
from studies.retraining import predictors
from studies.retraining.bench import Bench
from studies.retraining.changes import Change
from studies.retraining.config import MAIN
from studies.retraining.measures import between_pairs, pearson, short
from studies.training import Trained

Rows = list[dict[str, Any]]
Array = np.ndarray
CAUSES = ("noise", "size", "boundary", "log-ratio", "population", "curvature")
FOLLOWED = 3  # networks whose paths are looked at
SECOND = 100  # first seed of the second order of fine-tuning


def run_causes(bench: Bench) -> Rows:
    """Rows: per-latent causes and responses, agreement of single networks, and repeated fine-tuning."""
    change = bench.change(MAIN)
    base = bench.samples(bench.base)
    predicted = np.stack([_linear(bench, t, change) for t in bench.base])
    control = bench.samples(bench.tuned(None))
    truths = {
        "scratch": bench.samples(bench.scratch(change)) - base,
        "finetune": bench.samples(bench.tuned(change)) - control,
    }
    features = _features(bench, change, base, predicted)
    rows: Rows = []
    for truth, changes in truths.items():
        shared = {"regime": bench.regime.name, "change": MAIN, "truth": truth}
        rows.append(shared | {"kind": "causes"} | _causes(features, predicted, changes))
        rows.append(shared | {"kind": "matched"} | _matched(predicted, changes))
    return [*rows, _repeated(bench, change, predicted, truths["finetune"])]


def _linear(bench: Bench, trained: Trained, change: Change) -> Array:
    changes = [bench.change(name) for name in bench.regime.changes]
    index = [each.name for each in changes].index(change.name)
    return np.asarray(predictors.linear(bench, trained, changes, exact=predictors.use_exact(bench))[index])


def _causes(features: dict[str, Array], predicted: Array, changes: Array) -> dict[str, Any]:
    half = len(changes) // 2
    # One pair has no partner: then the noise of all pairs stands in, and is not independent of the response.
    noise = 1 - between_pairs(changes[:half] if half > 1 else changes)
    response = pearson(predicted[half:].mean(0), changes[half:].mean(0))
    return {"response": short(response)} | {
        name: short(values) for name, values in (features | {"noise": noise}).items()
    }


def _matched(predicted: Array, changes: Array) -> dict[str, Any]:
    """Per latent: correlation of one network's prediction with its own change and with that of another network."""
    count = len(changes)
    table = np.stack([[pearson(predicted[i], changes[j]) for j in range(count)] for i in range(count)])
    matching = np.mean([table[i, i] for i in range(count)], axis=0)
    other = np.mean([table[i, j] for i in range(count) for j in range(count) if i != j], axis=0)
    return {"own": short(matching), "other": short(other), "pairs": count}


def _repeated(bench: Bench, change: Change, predicted: Array, first: Array) -> dict[str, Any]:
    """Fine-tuning again from the same base networks in another order: what no prediction from them can know."""
    again = bench.samples(bench.tuned(change, SECOND)) - bench.samples(bench.tuned(None, SECOND))
    same = np.mean([pearson(a, b) for a, b in zip(first, again, strict=True)], axis=0)
    return {
        "kind": "repeated",
        "regime": bench.regime.name,
        "change": MAIN,
        "truth": "finetune",
        "pairs": len(first),
        "same_base": short(same),
        "means": short(pearson(first.mean(0), again.mean(0))),
        "predicted": short(pearson(predicted.mean(0), (first + again).mean(0))),
    }


def _features(bench: Bench, change: Change, base: Array, predicted: Array) -> dict[str, Array]:
    """Everything but the noise, per latent, means over the followed networks."""
    rows = []
    for k, trained in enumerate(bench.base[:FOLLOWED]):
        path = _path(bench, trained, change)
        # The finite removal against the linear one, over the size of the linear: how curved the response is in the
        # mass.
        gated = predictors.finite(bench, trained, change, base[k])
        gap = np.linalg.norm(gated - predicted[k], axis=1) if gated is not None else np.zeros(len(base[k]))
        rows.append(
            {
                "boundary": _entropy(bench, path),
                "log-ratio": _share_gap(bench, change, path),
                "population": _denoiser_gap(bench, trained, path),
                "curvature": gap / np.maximum(np.linalg.norm(predicted[k], axis=1), 1e-12),
            }
        )
    means = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    return {"size": np.log(np.maximum(np.linalg.norm(predicted.mean(0), axis=1), 1e-12))} | means


def _path(bench: Bench, trained: Trained, change: Change) -> Trajectory:
    options: dict[str, Any] = {"trace": "exact"} if predictors.use_exact(bench) else predictors.random_trace(bench)
    with torch.no_grad():
        result = sample_sensitivity(
            bench.score(trained), bench.latents, change.perturbation, bench.grid, anchor=bench.anchor, trajectory=True,
            **options,
        )  # fmt: skip
    if result.trajectory is None:
        raise RuntimeError("sample_sensitivity returned no trajectory although it was asked for one.")
    return result.trajectory


def _levels(path: Trajectory) -> list[tuple[float, Tensor]]:
    return [(float(sigma), state) for sigma, state in zip(path.levels, path.states, strict=True)]


def _entropy(bench: Bench, path: Trajectory) -> Array:
    """Entropy in nats of the posterior over classes, mean over the levels."""
    images = bench.train
    if images.labels is None:
        return np.zeros(path.states.shape[1])
    labels = images.labels.unique().tolist()
    laws = [(float((images.labels == c).double().mean()), images.images[images.of_class(c)]) for c in labels]
    parts = [(np.log(share), Points(members, bandwidth=bench.bandwidth)) for share, members in laws]
    values = []
    for sigma, state in _levels(path):
        logs = torch.stack([log_share + law.log_density(state, sigma) for log_share, law in parts])
        posterior = torch.softmax(logs.double(), dim=0)
        values.append(-(posterior * posterior.clamp(min=1e-300).log()).sum(0))
    return np.asarray(torch.stack(values).mean(0).cpu())


def _share_gap(bench: Bench, change: Change, path: Trajectory) -> Array:
    """Distance of the new mass's share by the network's density from that by kernel densities."""
    ratio = predictors.kernel(bench, change)
    offset = float(np.log(change.eta / (1 - change.eta)))
    gaps = []
    for (sigma, state), log_ratio in zip(_levels(path), path.log_ratio, strict=True):
        shares = torch.sigmoid(offset + log_ratio), torch.sigmoid(offset + ratio.log_density(state, sigma))
        gaps.append((shares[0] - shares[1]).abs().double())
    return np.asarray(torch.stack(gaps).nan_to_num(1.0).mean(0).cpu())


def _denoiser_gap(bench: Bench, trained: Trained, path: Trajectory) -> Array:
    """Root mean square distance of the network's denoiser from the kernel density's, over σ."""
    law, network = Points(bench.train.images, bandwidth=bench.bandwidth), bench.score(trained)
    gaps = []
    for sigma, state in _levels(path):
        level = torch.full((len(state),), sigma, dtype=state.dtype, device=state.device)
        gap = sigma * (network(state, level) - law.score(state, sigma))  # (D − D')/σ = σ (s − s')
        gaps.append(gap.flatten(1).square().mean(1).sqrt().double())
    return np.asarray(torch.stack(gaps).mean(0).cpu())
