"""A small autoencoder, 3×32×32 to 4×8×8 codes and back, for the model that diffuses codes.

Trained on `mean |x − dec(enc(x) + 0.1 ε)|² + 10⁻³ mean enc(x)²`, ε standard normal: the noise keeps codes apart that
stand for different patches, the second term keeps them from growing to evade it. Codes are then scaled, channel by
channel, to mean 0 and standard deviation 1 over the training patches.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from studies.cache import Cache
from studies.photographs.training import Plan, descend
from studies.training import Batches
from studies.training.checkpoint import Checkpoint
from studies.training.loop import digest

NOISE, SHRINKAGE = 0.1, 1e-3
CODES = (4, 8, 8)


class Autoencoder(nn.Module):
    """`encode` and `decode`, in scaled codes."""

    offset: Tensor
    spread: Tensor

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, CODES[0], 3, 1, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(CODES[0], 2 * width, 3, 1, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1),
        )
        self.register_buffer("offset", torch.zeros(1, CODES[0], 1, 1))
        self.register_buffer("spread", torch.ones(1, CODES[0], 1, 1))

    def encode(self, patches: Tensor) -> Tensor:
        """Codes (N, 4, 8, 8) of patches (N, 3, 32, 32)."""
        codes: Tensor = (self.encoder(patches) - self.offset) / self.spread
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Patches of codes."""
        patches: Tensor = self.decoder(codes * self.spread + self.offset)
        return patches

    @torch.no_grad()
    def fit_scale(self, patches: Tensor) -> Autoencoder:
        """Set the scale of codes from the training patches."""
        codes = self.encoder(patches)
        self.offset.copy_(codes.mean(dim=(0, 2, 3), keepdim=True))
        self.spread.copy_(codes.std(dim=(0, 2, 3), keepdim=True))
        return self


@dataclasses.dataclass(frozen=True)
class Coder:
    """How the autoencoder is trained, and on what.

    Attributes:
        plan: of the training.
        data: patches.
        cache: where it is kept.
        seed: of everything random.
    """

    plan: Plan
    data: Tensor
    cache: Cache
    seed: int

    @cached_property
    def trained(self) -> Autoencoder:
        """The trained autoencoder, frozen, its codes scaled."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = Autoencoder()
        partial = Checkpoint(self.cache.path("partial", self._key))
        tensors = self.cache.tensors("autoencoder", self._key, lambda: self._descend(network, partial))
        partial.remove()
        tensors.pop("history")
        network.load_state_dict(tensors, strict=False)  # the scale follows from the data
        return network.eval().requires_grad_(False).fit_scale(self.data)

    @property
    def _key(self) -> dict[str, Any]:
        losses = {"noise": NOISE, "shrinkage": SHRINKAGE}
        return {"plan": dataclasses.asdict(self.plan), "data": digest(self.data), "seed": self.seed, **losses}

    def _descend(self, network: Autoencoder, partial: Checkpoint) -> dict[str, Tensor]:
        batches = Batches(self.data, [None], [self.seed], self.plan.batch)

        def loss(step: int) -> Tensor:
            draw = batches.draw(step)
            clean = draw.clean[0]
            codes = network.encoder(clean)
            noise = draw.noise[0].flatten(1)[:, : codes[0].numel()].reshape(codes.shape)
            error = (network.decoder(codes + NOISE * noise) - clean).square().mean()
            return (error + SHRINKAGE * codes.square().mean()).reshape(1)

        return descend(network, self.plan, loss, partial)
