"""Counter-based noise: a pure function of key, counters and element, with the right law."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.close import assert_close

from sensitivity.noise import Noise

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    """SplitMix64's finaliser in Python integers (Steele, Lea and Flood 2014, figure 17)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def absorb(state: int, counter: int) -> int:
    return mix((state + (counter + 1) * GAMMA) & MASK)


def test_splitmix_matches_published_stream() -> None:
    """Assert that the finaliser used as reference gives the published first outputs of SplitMix64 from seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [mix((1234567 + (i + 1) * GAMMA) & MASK) for i in range(4)] == published


@given(seed=st.integers(-(2**63), 2**63 - 1), counters=st.tuples(*[st.integers(0, 10**6)] * 3))
def test_bits_match_python_integers(seed: int, counters: tuple[int, int, int]) -> None:
    """Assert that the tensor arithmetic is SplitMix64 in wrapping 64-bit integers."""
    stream, step, stage = counters
    bits = Noise.draw(2, seed=seed).bits((3,), step=step, stage=stage, stream=stream, probes=2)
    for probe, sample, element in [(0, 0, 0), (1, 1, 2)]:
        shared = absorb(absorb(0, stream), stage)
        expected = absorb(seed & MASK, sample)
        for counter in (shared, step, probe, element):
            expected = absorb(expected, counter)
        assert int(bits[probe, sample, element]) & MASK == expected


@pytest.mark.parametrize("count", [1, 8, 50, 64, 200])
def test_signs_are_the_bits_of_words(count: int) -> None:
    """Assert that 64 signs share a word of random bits, lowest bit first, and that a longer draw extends a shorter."""
    noise = Noise.draw(4, seed=3)
    signs = noise.rademacher((count,), step=2, stage=1, probes=3)
    words = noise.bits((-(-count // 64),), step=2, stage=1, probes=3)
    bits = (words[..., None] >> torch.arange(64)).bitwise_and(1).flatten(2)[..., :count]
    assert_close(signs, 2.0 * bits.double() - 1)
    assert torch.equal(noise.rademacher((200,), step=2, stage=1, probes=3)[..., :count], signs)


def test_signs_do_not_depend_on_the_order_of_the_steps() -> None:
    """Assert that steps and stages asked for forwards, backwards or alone have the same signs, each its own."""
    noise = Noise.draw(3, seed=12)
    asked = [(step, stage) for step in range(40) for stage in range(2)]
    forwards = {each: noise.rademacher((70,), step=each[0], stage=each[1]) for each in asked}
    for each in reversed(asked):
        assert torch.equal(noise.rademacher((70,), step=each[0], stage=each[1]), forwards[each])
        assert torch.equal(Noise(noise.keys).rademacher((70,), step=each[0], stage=each[1]), forwards[each])
    assert len({tuple(signs.flatten().tolist()) for signs in forwards.values()}) == len(asked)


def test_few_blocks_of_signs_are_kept() -> None:
    """Assert that asking for ever other probes, as Monte Carlo does, keeps no more than a block for each stage."""
    noise = Noise.draw(3, seed=13)
    for first in range(100):
        noise.rademacher((70,), step=0, first=first)
    assert len(noise._drawn) <= 8


def test_signs_of_one_word_are_independent_of_each_other() -> None:
    """Assert that no pair of the 64 signs of a word is correlated over many words."""
    signs = Noise.draw(20000, seed=11).rademacher((64,), step=0)[0]
    covariance = signs.T @ signs / len(signs)
    assert float((covariance - torch.eye(64, dtype=signs.dtype)).abs().max()) < 5 / math.sqrt(len(signs))


def test_noise_is_the_same_for_any_batch_probe_block_and_shape_split() -> None:
    """Assert that slicing keys or probes slices the noise."""
    noise = Noise.draw(7, seed=3)
    whole = noise.gaussian((4, 5), step=2, stage=1, probes=6)
    assert torch.equal(noise[2:5].gaussian((4, 5), step=2, stage=1, probes=6), whole[:, 2:5])
    assert torch.equal(noise.gaussian((4, 5), step=2, stage=1, probes=2, first=3), whole[3:5])
    assert torch.equal(Noise.draw(9, seed=3)[:7].gaussian((4, 5), step=2, stage=1, probes=6), whole)
    assert torch.equal(noise.gaussian((20,), step=2, stage=1, probes=6).reshape(whole.shape), whole)


def test_noise_is_the_same_in_every_dtype() -> None:
    """Assert that lower precision sees the rounding of the float64 draw."""
    noise = Noise.draw(5, seed=4)
    for draw in (noise.gaussian, noise.rademacher, noise.uniform):
        exact = draw((64,), step=0, dtype=torch.float64)
        assert torch.equal(draw((64,), step=0, dtype=torch.float32), exact.float())


@pytest.mark.parametrize("change", ["step", "stage", "stream", "first"])
def test_every_counter_changes_the_noise(change: str) -> None:
    """Assert that draws with another step, stage, stream or probe are uncorrelated with the first."""
    noise = Noise.draw(50, seed=5)
    first = noise.gaussian((400,), step=0)
    other = noise.gaussian((400,), **({"step": 0} | {change: 1}))
    assert abs(float((first * other).mean())) < 4 / math.sqrt(first.numel())


@pytest.mark.parametrize("kind", ["rademacher", "uniform", "gaussian"])
def test_law_of_the_noise(kind: str) -> None:
    """Assert the law over elements, over keys and over steps (Kolmogorov–Smirnov at level 1e-4, or sign counts)."""
    noise = Noise.draw(3000, seed=6)
    draws = {
        "elements": getattr(noise[:1], kind)((30000,), step=0),
        "keys": getattr(noise, kind)((10,), step=0),
        "steps": torch.stack([getattr(noise[:100], kind)((10,), step=k) for k in range(30)]),
    }
    for sample in (draw.flatten().numpy() for draw in draws.values()):
        if kind == "rademacher":
            assert set(sample) == {-1.0, 1.0}
            assert abs(sample.mean()) < 4 / math.sqrt(sample.size)
        else:
            law = stats.uniform if kind == "uniform" else stats.norm
            assert stats.kstest(sample, law.cdf).pvalue > 1e-4


def test_pairs_of_neighbouring_elements_keys_and_steps_are_uncorrelated() -> None:
    """Assert that no neighbouring pair of counters is correlated, first and second moments."""
    noise = Noise.draw(200, seed=7)
    z = torch.stack([noise.gaussian((30,), step=k, probes=1)[0] for k in range(30)])
    for axis in range(3):
        a, b = z.narrow(axis, 0, z.shape[axis] - 1), z.narrow(axis, 1, z.shape[axis] - 1)
        limit = 4 / math.sqrt(a.numel())
        assert abs(float((a * b).mean())) < limit
        assert abs(float(((a**2 - 1) * (b**2 - 1)).mean())) < 2 * limit


def test_generator_is_advanced_by_one_number_whatever_the_batch() -> None:
    """Assert that keys come from the generator, reproducibly, and that a longer batch extends a shorter one."""
    one, two = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    short, long = Noise.draw(3, generator=one), Noise.draw(8, generator=two)
    assert torch.equal(short.keys, long.keys[:3])
    assert torch.equal(Noise.draw(3, generator=one).keys, Noise.draw(3, generator=two).keys)
    assert not torch.equal(Noise.draw(3, generator=one).keys, short.keys)


def test_global_generator_is_used_when_nothing_is_given() -> None:
    """Assert that torch.manual_seed fixes the noise when neither generator nor seed is given."""
    torch.manual_seed(8)
    first = Noise.draw(2).keys
    torch.manual_seed(8)
    assert torch.equal(Noise.draw(2).keys, first)


def test_gaussian_tail_is_finite_and_symmetric() -> None:
    """Assert that inversion at the extreme bit patterns gives finite values of equal size."""
    low, high = torch.tensor([-(2**63)]) >> 11, torch.tensor([2**63 - 1]) >> 11
    values = [math.sqrt(2) * torch.erfinv((b.to(torch.float64) + 0.5) * 2.0**-52) for b in (low, high)]
    assert_close(values[0], -values[1], rtol=1e-12)
    assert 8.0 < float(values[1]) < 8.3


def test_generator_and_seed_together_are_refused() -> None:
    """Assert that two sources of randomness raise a sentence naming both."""
    with pytest.raises(ValueError, match="generator and seed"):
        Noise.draw(1, generator=torch.Generator(), seed=0)
