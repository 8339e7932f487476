"""Counter-based noise: every number is a pure function of (key, stream, step, stage, probe, element).

A latent owns one 64-bit key `k`. The number with the counters `stream, step, stage, probe, element` is

    h = absorb(absorb(absorb(absorb(k, c), step), probe), element),     c = absorb(absorb(0, stream), stage),
    absorb(h, c) = mix(h + γ (c + 1)),                                   γ = 0x9E3779B97F4A7C15,

with `mix` the finaliser of SplitMix64 (Steele, Lea, Flood, *Fast splittable pseudorandom number generators*,
OOPSLA 2014, figure 17), evaluated in wrapping 64-bit integers. Along the last counter (the element) this is the
SplitMix64 generator itself. Nothing needs to be stored: noise can be recomputed in any order, batch, chunk or dtype and
on any device, and an adjoint pass sees what the forward pass saw. (Signs of some steps are drawn at once and kept until
others are asked for: the work is that of many small operations, not of their elements.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod, sqrt

import torch
from torch import Tensor

from sensitivity._checks import check_seed

_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # the golden-ratio increment, as a signed 64-bit integer
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


# Steps whose signs are drawn at once, the words that they may take (a megabyte of bytes), and how many such blocks are
# kept: one for each stage of a step.
_BLOCK, _WORDS, _KEPT = 16, 1 << 15, 8


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's shift is arithmetic), as a new tensor."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _absorb(state: Tensor, counter: Tensor | int) -> Tensor:
    # Additions and products wrap modulo 2⁶⁴: torch's int64 is two's complement and never traps, on any device. The
    # counter is taken one larger: mix(0) = 0, and a key of 0 would stay 0 through every counter of 0.
    x = state + (_signed((counter + 1) * _GAMMA) if isinstance(counter, int) else (counter + 1) * _GAMMA)
    # In place where it can be: temporaries of every element would cost more than the arithmetic.
    x = _shifted(x, 30).bitwise_xor_(x).mul_(_FIRST)
    x = _shifted(x, 27).bitwise_xor_(x).mul_(_SECOND)
    return _shifted(x, 31).bitwise_xor_(x)


@lru_cache(maxsize=1 << 12)
def _hashed(*counters: int) -> int:
    """The counters that all numbers of a draw share, absorbed by 0 in Python's integers: no work for a device."""
    x = 0
    for counter in counters:
        x = (x + (counter + 1) * _GAMMA) % 2**64
        x = ((x ^ (x >> 30)) * _FIRST) % 2**64
        x = ((x ^ (x >> 27)) * _SECOND) % 2**64
        x = x ^ (x >> 31)
    return x


def _signed(number: int) -> int:
    """`number` modulo 2⁶⁴ as a signed 64-bit integer."""
    return (number + 2**63) % 2**64 - 2**63


@dataclass(frozen=True)
class Noise:
    """Noise of a batch of latents, one 64-bit key each.

    All draws have shape `(probes, batch, *shape)`. Draws with different `step`, `stage`, `stream` or probe
    number are independent; draws with the same counters are equal, whatever the batch around them.

    Example:
        >>> noise = Noise.draw(3, seed=0)
        >>> whole = noise.gaussian((2,), step=5, probes=4)
        >>> whole.shape
        torch.Size([4, 3, 2])
        >>> bool((noise[1:2].gaussian((2,), step=5, probes=4) == whole[:, 1:2]).all())
        True
    """

    keys: Tensor
    _signs: dict[torch.dtype, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _drawn: dict[object, tuple[int, Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def draw(
        cls,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> Noise:
        """Draw one key per latent.

        `generator` (or torch's global generator, when neither is given) is advanced by one 64-bit number, whatever
        the batch; key `i` is the hash of that number and `i`, so that a longer batch keeps the keys of a shorter.

        Raises:
            ValueError: if both `generator` and `seed` are given.
        """
        root = _root(generator, seed).to(device or "cpu")
        return cls(_absorb(root, torch.arange(batch, device=root.device)))

    @property
    def batch(self) -> int:
        return self.keys.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Noise:
        return Noise(self.keys[rows])

    def to(self, device: torch.device | str) -> Noise:
        return Noise(self.keys.to(device))

    def bits(
        self, shape: tuple[int, ...], *, step: int, stage: int = 0, probes: int = 1, stream: int = 0, first: int = 0
    ) -> Tensor:
        """64 random bits as int64, for probes `first, ..., first + probes − 1`."""
        steps, numbers = range(step, step + 1), range(first, first + probes)
        return self._words(prod(shape), steps, stage, numbers, stream).reshape(probes, -1, *shape)

    def _words(self, count: int, steps: range, stage: int, probes: range, stream: int) -> Tensor:
        """64 bits for each element, (steps, probes, batch, count)."""
        # From the counter that varies least to the one that varies most: only the last line works on every element.
        state = _absorb(self.keys, _hashed(stream, stage))
        state = _absorb(state, self._counters(steps)[:, None, None])
        state = _absorb(state, self._counters(probes)[:, None])
        return _absorb(state[..., None], self._counters(range(count)))

    def _counters(self, numbers: range) -> Tensor:
        return torch.arange(numbers.start, numbers.stop, device=self.keys.device)

    def rademacher(
        self,
        shape: tuple[int, ...],
        *,
        step: int,
        stage: int = 0,
        probes: int = 1,
        dtype: torch.dtype = torch.float64,
        stream: int = 0,
        first: int = 0,
    ) -> Tensor:
        """Signs ±1 with probability ½ each: element e takes bit e mod 64 of the bits of element ⌊e/64⌋."""
        count = prod(shape)
        if not self.batch:
            return torch.empty(probes, 0, *shape, dtype=dtype, device=self.keys.device)
        octets = self._octets(-(-count // 8), step, stage, range(first, first + probes), stream)
        signs = self._signs_of_octets(dtype).index_select(0, octets).reshape(probes, self.batch, -1)
        return (signs if signs.shape[-1] == count else signs[..., :count]).reshape(probes, -1, *shape)

    def _octets(self, count: int, step: int, stage: int, probes: range, stream: int) -> Tensor:
        """So many bytes for each probe and latent, in one row, from a block of steps that is drawn at once."""
        words = -(-count // 8)
        block = max(1, min(_BLOCK, _WORDS // max(1, len(probes) * self.batch * words)))
        use, first = (count, stage, probes, stream), step - step % block
        known = self._drawn.get(use)
        if known is None or known[0] != first:
            drawn = self._words(words, range(first, first + block), stage, probes, stream).view(torch.uint8)
            if len(self._drawn) >= _KEPT:
                self._drawn.pop(next(iter(self._drawn)))
            known = self._drawn[use] = (first, drawn[..., :count].int().flatten(1))
        return known[1][step - first]

    def _signs_of_octets(self, dtype: torch.dtype) -> Tensor:
        """The eight signs of every octet, (256, 8): looked up, since single bits cost more than whole rows."""
        if dtype not in self._signs:
            device = self.keys.device
            bits = torch.arange(256, device=device)[:, None] >> torch.arange(8, device=device)
            self._signs[dtype] = (2 * bits.bitwise_and_(1) - 1).to(dtype)
        return self._signs[dtype]

    def uniform(
        self,
        shape: tuple[int, ...],
        *,
        step: int,
        stage: int = 0,
        probes: int = 1,
        dtype: torch.dtype = torch.float64,
        stream: int = 0,
        first: int = 0,
    ) -> Tensor:
        """Uniform on the open interval (0, 1), on the grid `(j + ½) 2⁻⁵²`."""
        bits = self.bits(shape, step=step, stage=stage, probes=probes, stream=stream, first=first)
        return ((_shifted(bits, 12).to(torch.float64) + 0.5) * 2.0**-52).to(dtype)

    def gaussian(
        self,
        shape: tuple[int, ...],
        *,
        step: int,
        stage: int = 0,
        probes: int = 1,
        dtype: torch.dtype = torch.float64,
        stream: int = 0,
        first: int = 0,
    ) -> Tensor:
        """Standard normal by inversion, `√2 erf⁻¹(v)` with `v` uniform on (−1, 1); |value| < 8.3.

        Computed in float64 and rounded once, so that every dtype sees the same draw.
        """
        bits = self.bits(shape, step=step, stage=stage, probes=probes, stream=stream, first=first)
        # 53 signed bits and a half: symmetric about 0, never ±1, where erf⁻¹ is infinite.
        symmetric = ((bits >> 11).to(torch.float64) + 0.5) * 2.0**-52
        return (sqrt(2.0) * torch.erfinv(symmetric)).to(dtype)


def _root(generator: torch.Generator | None, seed: int | None) -> Tensor:
    check_seed(generator, seed)
    if seed is not None:
        return torch.tensor(_signed(int(seed)), dtype=torch.int64)
    device = "cpu" if generator is None else generator.device
    return torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=device, dtype=torch.int64)
