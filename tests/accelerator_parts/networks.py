"""Networks of at least a million parameters as users have them: residual U-Nets with GroupNorm."""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from accelerator_parts.plan import Setting
from accelerator_parts.training import Feed, Trainer
from studies import data
from studies.networks.precondition import FEATURES, Denoiser
from studies.retraining.bench import OBJECTIVE


class Block(nn.Module):
    """`y + conv(a(n(conv(a(n(y)))) (1 + scale) + shift))`, n = GroupNorm, a = SiLU; scale and shift from the noise."""

    def __init__(self, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.before, self.between = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.modulation = nn.Linear(features, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, y: Tensor, code: Tensor) -> Tensor:
        """(batch, outputs, height, width)."""
        scale, shift = self.modulation(code)[..., None, None].chunk(2, dim=-3)
        h = self.first(functional.silu(self.before(y)))
        return self.skip(y) + self.second(functional.silu(self.between(h) * (1 + scale) + shift))


class GroupNormUNet(nn.Module):
    """The body of a denoiser: `depth` resolutions, `width` channels at the finest and twice as many below."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width] + [2 * width] * (depth - 1)
        self.embed = nn.Sequential(nn.Linear(FEATURES, 2 * width), nn.SiLU())
        self.input = nn.Conv2d(channels, width, 3, padding=1)
        ins = [width, *widths[:-1]]
        self.down = nn.ModuleList(Block(a, b, 2 * width) for a, b in zip(ins, widths, strict=True))
        self.up = nn.ModuleList(Block(b + below, b, 2 * width) for b, below in pairwise(widths))
        self.last = nn.GroupNorm(8, width)
        self.output = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def forward(self, y: Tensor, features: Tensor | None) -> Tensor:
        """F(y, e), like y (batch, channels, height, width)."""
        code, h, skips = self.embed(features), self.input(y), []
        for index, block in enumerate(self.down):
            h = block(functional.avg_pool2d(h, 2, ceil_mode=True) if index else h, code)
            skips.append(h)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = functional.interpolate(h, size=skip.shape[-2:], mode="nearest")
            h = block(torch.cat([h, skip], dim=1), code)
        return self.output(functional.silu(self.last(h)))


def images(side: int, count: int, setting: Setting) -> Tensor:
    """Images (count, 1, side, side) on the device: MNIST, padded to larger sides and repeated with a little noise."""
    name = "mnist" if data.available("mnist") and side >= 28 else "digits"
    values = data.load(name).images
    gap = side - values.shape[-1]
    values = functional.pad(values, (gap // 2, gap - gap // 2, gap // 2, gap - gap // 2), value=-1.0)
    generator = torch.Generator(setting.device).manual_seed(setting.seed)
    rows = torch.randint(len(values), (count,), generator=generator, device=setting.device)
    chosen = values.to(setting.device)[rows]
    return chosen + 0.02 * torch.randn(chosen.shape, generator=generator, device=setting.device)


def trained(side: int, setting: Setting) -> Denoiser:
    """A network of this side, trained for some hundred steps: as initialised, its Jacobian would be a multiple of I."""
    return copy.deepcopy(_trained(side, setting.device, setting.tiny, setting.seed))


@lru_cache(maxsize=4)
def _trained(side: int, device: str, tiny: bool, seed: int) -> Denoiser:
    setting = Setting(device, tiny, None, seed)
    pool = images(side, 64 if tiny else 4096, setting)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = GroupNormUNet(1, 8, 2) if tiny else GroupNormUNet(1, 56, 3)
    network = Denoiser(body, tuple(pool.shape[1:]), pool.mean(0), float(pool.std())).to(device)
    feed = Feed(pool, [None], 4 if tiny else 32, seed=seed)
    trainer = Trainer(network, feed, 0, OBJECTIVE)
    trainer.capture()
    for step in range(2 if tiny else 200):
        feed.draw(step, rate=1e-3 * min(1.0, (step + 1) / 50), kept=0.0)
        trainer.step()
    return trainer.averaged()
