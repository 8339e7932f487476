"""Cells: the networks with their losses, then every quantity of every model."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensitivity import GaussianAnchor, Points, sample
from studies.photographs import measuring, patches
from studies.photographs.config import Config
from studies.photographs.measuring import Row, Setting, settings
from studies.photographs.models import MODELS, SIGMA_MIN, Bench, Model
from studies.photographs.networks import Denoiser
from studies.photographs.training import objective, scale
from studies.retraining.bench import LawDenoiser
from studies.retraining.cells import spread
from studies.study import Cell, Context
from studies.training import Batches
from studies.training.batches import Draw
from studies.training.objectives import Predictor

QUANTITIES = ("kernel", "influence", "flow", "density")
SHOWN = 4  # samples in a picture
NEAREST = 4  # patches shown for each
MORE = 8  # times as many probes
RARE = 2  # states that get them


def cells(config: Config) -> list[Cell]:
    """One for each model and quantity, one for the networks; what several need is kept in the cache."""
    listed = [Cell(f"{m}-{q}", {"part": q, "model": m}) for m in MODELS for q in QUANTITIES]
    return [*listed, Cell("networks", {"part": "networks"})]


def run_cell(cell: Cell, context: Context) -> list[Row]:
    """Rows of one cell; one that says so where the photographs are not installed."""
    try:
        patches.load(1, 1)
    except ImportError as error:
        return [{"kind": "skipped", "reason": str(error)}]
    bench = Bench(context)
    if cell.parameters["part"] == "networks":
        return [network_row(bench, "pixels"), network_row(bench, "codes"), _coder(bench)]
    return quantity_rows(bench.model(cell.parameters["model"]), cell.parameters["part"])


def quantity_rows(model: Model, quantity: str) -> list[Row]:
    """Rows of one of QUANTITIES, or of "more": log densities with more probes or the exact trace alone."""
    if quantity == "density":
        return _densities(model)
    if quantity == "more":
        base = settings(model.bench.config.steps)[0]
        return _with_more(model, _states(model, base), base)
    if quantity == "influence":
        return _influences(model)
    return _sensitivities(model, quantity)


def network_row(bench: Bench, name: str) -> Row:
    """A network's size and, on the same draws, its loss, a Gaussian's and the kernel density's."""
    start = time.perf_counter()
    network = bench.network if name == "pixels" else bench.code_network
    model, config = bench.model(name), bench.config
    train, held = model.data
    spreading, count = scale(train), config.loss_patches
    null = None if name == "codes" else torch.full((2 * count,), config.shape.labels, device=train.device)
    own = Denoiser(network, spreading, null)
    laws: dict[str, GaussianAnchor | Points] = {
        "gaussian": model.plain,
        "kernel": Points(train, bandwidth=model.bandwidth),
    }
    shown, other = spread(train, count), spread(held, count)
    losses = {f"{law}_loss": loss(LawDenoiser(value, spreading), other) for law, value in laws.items()}
    return {
        "kind": "network",
        "model": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "patches": len(train),
        "steps": (config.plan if name == "pixels" else config.latent_plan).steps,
        "batch": (config.plan if name == "pixels" else config.latent_plan).batch,
        "dimension": train[0].numel(),
        "scale": spreading,
        "bandwidth": model.bandwidth,
        "train_loss": loss(own, shown),
        "held_out_loss": loss(own, other),
        **losses,
        "seconds": time.perf_counter() - start,
    }


def loss(denoiser: Predictor, data: Tensor) -> float:
    """The denoising loss, two noise draws a datum."""
    many = data.repeat(2, 1, 1, 1)
    draw = Batches(many, [None], [5], len(many)).draw(0)
    one = Draw(*(part[0] for part in draw))
    with torch.no_grad():
        return float(objective().losses(denoiser, one).mean())


def _coder(bench: Bench) -> Row:
    """The autoencoder: the share of the held-out patches' variance that it loses."""
    held = bench.split[1].images
    error = (bench.coder.decode(bench.coder.encode(held)) - held).square().mean()
    variance = (held - bench.split[0].images.mean(dim=0)).square().mean()
    return {
        "kind": "autoencoder",
        "parameters": sum(p.numel() for p in bench.coder.parameters()),
        "lost": float(error / variance),
    }


def _densities(model: Model) -> list[Row]:
    """Log densities of samples and of noised held-out patches, and some with many probes."""
    base, *others = settings(model.bench.config.steps)
    states = _states(model, base)
    first = measuring.densities(model, states, base)
    rows = [measuring.run_row(model, "log density", base, first) | {"values": first.value.tolist()}]
    for setting in others:
        second = measuring.densities(model, states, setting)
        rows += [
            measuring.run_row(model, "log density", setting, second) | {"values": second.value.tolist()},
            measuring.agreement_row(model, "log density", setting.name, first, second),
        ]
    return rows + _with_more(model, states, base)


def _with_more(model: Model, states: Tensor, base: Setting) -> list[Row]:
    """The first states with K and with 16 K probes; exactly where the dimension is small."""
    few = states[: max(RARE, model.bench.config.exact)]
    probes = model.bench.config.probes
    exact = model.name == "codes" or model.bench.config.exact > 0
    many: Row = {"trace": "exact", "probes": None} if exact else {"probes": MORE * probes}
    if model.bench.config.exact > 0:
        # All directions of one state at once are enough; a backward pass would take them one after the other.
        many |= {"chunk_size": 1, "products": "forward"}
    name = "exact trace" if exact else f"{MORE * probes} probes"
    first = measuring.densities(model, few, base)
    second = measuring.densities(model, few, base._replace(seed=3), **many)
    setting = base._replace(name=name)
    return [
        measuring.run_row(model, "log density", setting, second) | {"values": second.value.tolist()},
        measuring.agreement_row(model, "log density", name, first, second),
    ]


def _states(model: Model, setting: Setting) -> Tensor:
    """Samples, then as many held-out data of the right label noised to σ_min."""
    samples = sample(model.score, model.latents, model.grid(setting.steps)).samples
    held = model.data[1]
    if model.name == "guided":
        held = held[model.bench.split[1].groups == model.groups[model.in_class][0]]
    clean = spread(held, len(samples))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    return torch.cat([samples, clean + SIGMA_MIN * noise.to(clean)])


def _sensitivities(model: Model, ratio: str) -> list[Row]:
    """δ toward the removed photograph, and pictures of what its removal would do."""
    quantity = f"sensitivity, {ratio}"
    base, *others = settings(model.bench.config.steps)
    first = measuring.sensitivities(model, ratio, base)
    rows = [measuring.run_row(model, quantity, base, first), _change(model, ratio, first.result)]
    for setting in others if ratio == "flow" else others[1:]:
        second = measuring.sensitivities(model, ratio, setting)
        rows += [
            measuring.run_row(model, quantity, setting, second),
            measuring.agreement_row(model, quantity, setting.name, first, second),
        ]
        if setting.name == "grid":
            rows.append(_moved(model, ratio, first.result.samples, second.result.samples))
    return rows


def _moved(model: Model, ratio: str, first: Tensor, second: Tensor) -> Row:
    """How far the samples themselves move with the grid, in root mean squares of a sample."""
    distance = (first - second).flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1)
    return {"kind": "samples", "model": model.name, "quantity": ratio, "differences": distance.tolist()}


def _change(model: Model, ratio: str, found: Any) -> Row:
    """Pictures of samples, the predicted ones after removal, and the finite ones."""
    after = found.samples + model.mass * found.sensitivity
    delta = (model.mass * found.sensitivity).flatten(1).norm(dim=1) / found.samples.flatten(1).norm(dim=1)
    return {
        "kind": "picture",
        "model": model.name,
        "quantity": ratio,
        "shown": min(SHOWN, len(found.samples)),
        "moved": delta.tolist(),
        "before": packed(model.pictures(found.samples[:SHOWN])),
        "after": packed(model.pictures(after[:SHOWN])),
        "ratios": found.log_ratio.tolist(),
    }


def _influences(model: Model) -> list[Row]:
    """Influences of every training patch on the brightness, and pictures of the largest."""
    base, *others = settings(model.bench.config.steps)
    first = measuring.influences(model, base)
    rows = [measuring.run_row(model, "influence", base, first), _largest(model, first.value, first.result.samples)]
    for setting in others:
        second = measuring.influences(model, setting)
        rows += [
            measuring.run_row(model, "influence", setting, second),
            measuring.agreement_row(model, "influence", setting.name, first, second),
        ]
    return rows


def _largest(model: Model, values: Tensor, samples: Tensor) -> Row:
    """The patches of largest |influence| on the first samples, and the share of the photographs among them."""
    order = values.abs().argsort(dim=1, descending=True)[:SHOWN, :NEAREST]
    train = model.bench.split[0].images
    signs = torch.gather(values[:SHOWN], 1, order).sign()
    return {
        "kind": "largest",
        "model": model.name,
        "shown": len(order),
        "before": packed(model.pictures(samples[:SHOWN])),
        "nearest": packed(train[order.flatten()]),
        "signs": signs.flatten().tolist(),
        "photographs": [patches.PHOTOGRAPHS[int(g)] for g in model.groups[order.flatten()]],
        "points": values.shape[1],
        "effective": _effective(values).tolist(),
    }


def _effective(values: Tensor) -> Tensor:
    """How many patches share an influence, (Σ|v|)²/Σv², (batch,); 0 where there is none."""
    return values.abs().sum(dim=1).square() / values.square().sum(dim=1).clamp(min=1e-300)


def packed(pictures: Tensor) -> str:
    """Pictures (n, 3, 32, 32) in [−1, 1] as text, a byte a value."""
    # NaN has no byte, and clamp keeps it: a halted sample is drawn grey.
    pixels = ((pictures.detach().clamp(-1, 1).nan_to_num() + 1) * 127.5).round().to(torch.uint8)
    return base64.b64encode(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """Pictures (n, 32, 32, 3) in [0, 255]."""
    size = patches.SIDE
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, size, size, 3)
