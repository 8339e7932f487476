"""diffusers' UNet2DModel with attention and a label for each group, the process it is trained on, and its denoiser.

The process is DDPM's with the squared-cosine table of a thousand steps (Nichol & Dhariwal 2021, arXiv 2102.09672) and
the network predicts `v = α ε − σ′ x₀` (Salimans & Ho 2022, arXiv 2202.00512), so that with `z = α x`, x = x₀ + σ ε,

    D(x, σ) = α z − σ′ v(z, t(σ), label).

Times between those of the table are fractional, in training as in use. The last label stands for "any group".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import sensitivity
from sensitivity.scores.score import NetworkScore


@dataclass(frozen=True)
class Shape:
    """A network; JSON-able.

    Attributes:
        channels: of the resolutions, fine to coarse; attention is at the two coarsest, but never at the finest.
        size: pixels of a side.
        inputs: channels of a state.
        labels: groups; 0 makes a network without labels.
    """

    channels: tuple[int, ...] = (8, 16, 48, 96)
    size: int = 32
    inputs: int = 3
    labels: int = 9


def build(shape: Shape, seed: int) -> nn.Module:
    """A freshly initialised UNet2DModel in eval mode (it has nothing that differs in training)."""
    from diffusers import UNet2DModel

    plain = max(1, len(shape.channels) - 2)
    attending = len(shape.channels) - plain
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = UNet2DModel(
            sample_size=shape.size,
            in_channels=shape.inputs,
            out_channels=shape.inputs,
            layers_per_block=1,
            block_out_channels=shape.channels,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attending,
            up_block_types=("AttnUpBlock2D",) * attending + ("UpBlock2D",) * plain,
            norm_num_groups=2,  # with few channels a group the output's norm would take a picture's brightness away
            attention_head_dim=16,
            num_class_embeds=shape.labels + 1 if shape.labels else None,
        )
    made: nn.Module = network.eval()
    return made


def scheduler() -> Any:
    """The process of training."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


def score(network: nn.Module, label: int | None = None) -> NetworkScore:
    """The network's score under one label, through the adapter that any user of diffusers takes."""
    conditions: dict[str, Any] = {} if label is None else {"class_labels": label}
    return sensitivity.from_diffusers(network, scheduler(), **conditions)


class Denoiser:
    """D(x, σ) of a network under given labels, with gradients in its parameters: what an objective trains.

    Args:
        network: a UNet2DModel.
        scale: τ of the objective.
        labels: (N,), or None for a network without labels.
    """

    def __init__(self, network: nn.Module, scale: float, labels: Tensor | None) -> None:
        self.network, self.scale, self.labels = network, scale, labels
        self.schedule = sensitivity.DiscreteDDPM(scheduler().alphas_cumprod)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x, σ), σ (N,)."""
        time = self.schedule.time(sigma)
        alpha = torch.rsqrt(1 + sigma**2).reshape(-1, 1, 1, 1)
        state = alpha * x
        noise = self.network(state, time.to(x.dtype), class_labels=self.labels, return_dict=False)[0]
        return alpha * state - sigma.reshape(-1, 1, 1, 1) * alpha * noise

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`(D(x, σ) − x)/σ²`."""
        return (self(x, sigma) - x) / sigma.reshape(-1, 1, 1, 1) ** 2
