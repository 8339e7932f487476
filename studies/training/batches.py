"""Draws for training: a pure function of (seed, step), with weighted data coupled to unweighted data.

The pool's N data are visited in random order, each once an epoch. A law w on the pool keeps a visited datum i with
probability `min(1, N w_i)` and otherwise takes one from the excess `max(0, w_j − 1/N)`, normalised: every datum then
has its weight w_j, and two laws that differ little draw almost the same data in the same order (a maximal coupling
with the uniform law), with the same noise. That makes paired retrainings differ by what the change of data does and
not by luck.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MASK = (1 << 64) - 1


def mixed(*words: int) -> int:
    """One 32-bit seed from several integers (SplitMix64, Steele et al. 2014)."""
    state = 0
    for word in words:
        state = (state ^ (word & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state >> 32


class Draw(NamedTuple):
    """One step's randomness.

    Attributes:
        clean: data (members, batch, *shape).
        level: uniforms for the noise level (members, batch).
        noise: standard normal, like clean.
        probe: ±1, like clean.
    """

    clean: Tensor
    level: Tensor
    noise: Tensor
    probe: Tensor


class Law:
    """A weighted law on the pool, ready to be coupled.

    Args:
        weights: (N,), non-negative, or None for equal weights.
        size: N.
    """

    def __init__(self, weights: Tensor | None, size: int) -> None:
        w = torch.full((size,), 1 / size, dtype=torch.float64) if weights is None else weights.detach().cpu().double()
        if w.shape != (size,) or not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or not float(w.sum()) > 0:
            raise ValueError(f"weights must be {size} non-negative finite numbers with a positive sum, one a datum.")
        w = w / w.sum()
        self.kept = (size * w).clamp(max=1.0)
        excess = torch.cumsum((w - 1 / size).clamp(min=0.0), dim=0)
        # Of equal weights the excess is rounding, which normalised would be a law of its own.
        self.excess = excess / excess[-1] if float(excess[-1]) > 1e-15 else None

    def take(self, visited: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The drawn indices, given the visited ones and two uniforms."""
        if self.excess is None:
            return visited
        # Right, so that v = 0 passes data without excess; the clamp is for v that rounds to the sum.
        other = torch.searchsorted(self.excess, v, right=True).clamp(max=len(self.excess) - 1)
        return torch.where(u < self.kept[visited], visited, other)


class Batches:
    """Batches for several networks side by side.

    Args:
        pool: the data (N, *shape).
        weights: one (N,) or None for each network.
        seeds: one for each network; networks
        with equal seeds see the same order and noise.
        batch: data a step.
    """

    def __init__(self, pool: Tensor, weights: Sequence[Tensor | None], seeds: Sequence[int], batch: int) -> None:
        if len(weights) != len(seeds):
            raise ValueError(f"{len(weights)} weightings but {len(seeds)} seeds: give one of each for every network.")
        if batch < 1 or pool.ndim < 2 or len(pool) < 1:
            raise ValueError(
                f"batch={batch} and a pool of shape {tuple(pool.shape)}: need batch ≥ 1 and data (N, *shape)."
            )
        self.pool, self.batch, self.seeds = pool, batch, tuple(seeds)
        known = {id(w): Law(w, len(pool)) for w in {id(w): w for w in weights}.values()}
        self.laws = [known[id(w)] for w in weights]  # networks on the same data share their law
        self.generator = torch.Generator()
        self.orders: dict[tuple[int, int], Tensor] = {}

    def draw(self, step: int) -> Draw:
        """The randomness of step number `step` (0, 1, …), on the pool's device and in its precision."""
        common = {seed: self._common(seed, step) for seed in dict.fromkeys(self.seeds)}
        clean = self.pool[self.rows(step)]
        level, noise, probe = (torch.stack([common[s][k] for s in self.seeds]).to(clean) for k in range(3))
        return Draw(clean, level, noise, probe)

    def rows(self, step: int) -> Tensor:
        """Which data step number `step` draws, (members, batch), on the pool's device."""
        choice = {seed: self._choice(seed, step) for seed in dict.fromkeys(self.seeds)}
        rows = [law.take(*choice[seed]) for law, seed in zip(self.laws, self.seeds, strict=True)]
        return torch.stack(rows).to(self.pool.device)

    def _choice(self, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The visited data, and two uniforms to choose by."""
        u, v, _ = self._uniforms(seed, step)
        return self._visited(seed, step), u, v

    def _uniforms(self, seed: int, step: int) -> Tensor:
        """u, v and the noise level's uniform, (3, batch); the generator is left where the noise begins."""
        generator = self.generator.manual_seed(mixed(seed, step, 1))
        return torch.rand(3, self.batch, generator=generator, dtype=torch.float64)

    def _common(self, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(level, noise, probe): the same for all networks of a seed."""
        level = self._uniforms(seed, step)[2]
        noise = torch.randn(self.batch, *self.pool.shape[1:], generator=self.generator)
        probe = torch.randint(0, 2, noise.shape, generator=self.generator, dtype=torch.int8) * 2 - 1
        # At 0 and 1, the latter of which single precision reaches by rounding, a noise level would be 0 or infinite.
        return level.clamp(1e-7, 1 - 1e-7), noise, probe

    def _visited(self, seed: int, step: int) -> Tensor:
        size = len(self.pool)
        places = torch.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = places // size, places % size
        parts = [self._order(seed, e)[places[epochs == e]] for e in range(int(epochs[0]), int(epochs[-1]) + 1)]
        return torch.cat(parts)

    def _order(self, seed: int, epoch: int) -> Tensor:
        if (seed, epoch) not in self.orders:
            # A batch may reach across an epoch's end: the one before is still needed.
            for old in [key for key in self.orders if key[0] == seed and key[1] < epoch - 1]:
                del self.orders[old]
            generator = torch.Generator().manual_seed(mixed(seed, epoch, 2))
            self.orders[seed, epoch] = torch.randperm(len(self.pool), generator=generator)
        return self.orders[seed, epoch]
