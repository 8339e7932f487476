"""What answers of parameters cost: `python -m studies.responses.pricing` prints a table, about two minutes of a core.

Forward: the sensitivity of samples along a known θ̇ over plain sampling by the same network at the same levels. Back:
the influence of N training images on one functional of a batch of samples, in epochs of plain training at batch 32, by
Kronecker factors and one backward pass an image over its draws.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from sensitivity import (
    DenoisingLoss,
    Grid,
    ParameterResponse,
    Points,
    Score,
    Toward,
    as_score,
    influence,
    sample,
    sample_sensitivity,
)
from studies import data
from studies.cost.timing import alternate, ratio
from studies.networks import Architecture, Denoiser, build
from studies.statistics._checks import Floats

BATCH, DRAWS = 32, 4
NETWORKS = {
    "MLP 3×256, 8×8": (Architecture("mlp", 256, 3), 8),
    "U-Net, 8×8": (Architecture("unet", 28, 2), 8),
    "U-Net, 14×14": (Architecture("unet", 28, 2), 14),
}


def network_of(name: str) -> Denoiser:
    """A network whose every layer matters; training changes no price."""
    architecture, side = NETWORKS[name]
    network, generator = build(architecture, (1, side, side), scale=0.5), torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.requires_grad_(False).eval()


def forward(name: str, rounds: int = 9, steps: int = 10) -> dict[str, str]:
    """Sensitivity over plain sampling, each with exact and with one-sided products."""
    network, grid = network_of(name), Grid(20.0, 0.05, steps)
    score, side = as_score(network, "denoiser"), NETWORKS[name][1]
    images = torch.randn(20, 1, side, side, generator=torch.Generator().manual_seed(1))
    latents = 20 * torch.randn(BATCH, 1, side, side, generator=torch.Generator().manual_seed(2))
    response = ParameterResponse(score, DenoisingLoss(draws=1), images, "ggn", 1.0, pairs=8, steps=1)
    change = Toward(Points(images[:2]))

    def moved(products: str, solver: str) -> Callable[[], object]:
        return lambda: sample_sensitivity(
            score, latents, change, grid, response=response, products=products, solver=solver
        )

    ways = {"exact": "auto", "one-sided": "one-sided"}
    calls: dict[str, Callable[[], object]] = {"plain": lambda: sample(score, latents, grid)}
    calls |= {f"{way}, {solver}": moved(p, solver) for way, p in ways.items() for solver in ("heun", "2m")}
    times = alternate(calls, rounds=rounds)
    return {way: _written(times[way], times["plain"]) for way in calls if way != "plain"}


def _written(times: Floats, plain: Floats) -> str:
    estimate = ratio(times, plain)
    return f"{estimate.estimate:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def back(count: int = 4500, steps: int = 20) -> dict[str, float]:
    """Influence of images of MNIST at 14×14 on the ink of 32 samples, parts in epochs of training at batch 32."""
    network = network_of("U-Net, 14×14")
    images, score = data.load("mnist14").images[:count], as_score(network, "denoiser")
    loss = DenoisingLoss(draws=DRAWS)
    latents = 20 * torch.randn(BATCH, 1, 14, 14, generator=torch.Generator().manual_seed(2))
    response = ParameterResponse(score, loss, images, "ekfac", pairs=1024)
    epoch = _epoch(score, network, images, loss)
    start = time.process_time()
    damping = response.damping
    factors = time.process_time() - start
    influence(
        score, latents, lambda x: x.flatten(1).mean(1), Points(images), Grid(20.0, 0.05, steps), response=response
    )
    whole = time.process_time() - start
    return {"factors": factors / epoch, "whole": whole / epoch, "epoch, seconds": epoch, "damping": damping}


def _epoch(score: Score, network: Denoiser, images: Tensor, loss: DenoisingLoss, steps: int = 20) -> float:
    """Seconds of one pass over the images by Adam at batch 32, one draw an image, from some of its steps."""
    network.requires_grad_(True)
    rule = torch.optim.Adam(network.parameters(), lr=1e-4)
    levels, noise = DenoisingLoss(draws=BATCH).draw(images[0])
    start = time.process_time()
    for step in range(steps):
        rule.zero_grad()
        loss(score, images[BATCH * step : BATCH * (step + 1)], levels, noise).mean().backward()
        rule.step()
    seconds = time.process_time() - start
    network.requires_grad_(False)
    return seconds * len(images) / (BATCH * steps)


def main() -> None:
    """Print the prices."""
    torch.set_num_threads(1)
    for name in NETWORKS:
        print(f"{name}: sensitivity over plain sampling by Heun: {forward(name)}", flush=True)
    print(f"influence of 4 500 images, in epochs: {back()}", flush=True)


if __name__ == "__main__":
    main()
