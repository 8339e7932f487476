"""Points that lie anywhere: density and score of shards are those in memory, and of a mixture written out."""

from __future__ import annotations

import pickle

import cloudpickle
import numpy as np
import pytest
import torch
from support.close import assert_close
from torch.utils.data import TensorDataset

from sensitivity import Affine, Mixture, Points, ShardedPoints, ShardFailure
from sensitivity.recordings import sharded_points
from sensitivity.recordings.sharded_points import Moments, States, Weights

DRAW = torch.Generator().manual_seed(4)
DATA = torch.randn(300, 5, generator=DRAW, dtype=torch.float64)
WEIGHTS = torch.rand(300, generator=DRAW, dtype=torch.float64)
X = 1.5 * torch.randn(40, 5, generator=DRAW, dtype=torch.float64)
LEVELS = torch.logspace(-2, 1, 40, dtype=torch.float64)


def check(law, weights=None, bandwidth=0.0):
    """Fail unless a law of shards has the values of `Points` at levels of three decades, and of a mixture."""
    for sigma in (0.05, 3.0, LEVELS):
        known = Points(DATA, weights, bandwidth)
        logs, score = law.log_density_and_score(X, sigma)
        assert_close(logs, known.log_density(X, sigma), rtol=1e-12, atol=1e-11)
        assert_close(score, known.score(X, sigma), rtol=1e-10, atol=1e-10)
        assert_close(law.log_density(X, sigma), logs, rtol=1e-13, atol=1e-13)
    if bandwidth:
        mixture = Mixture(weights, DATA, bandwidth**2)
        assert_close(law.log_density(X, 0.4), mixture.log_density(X, 0.4), rtol=1e-11, atol=1e-11)
        assert_close(law.score(X, 0.4), mixture.score(X, 0.4), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 37, 300, 1000])
@pytest.mark.parametrize("weights", [None, WEIGHTS, WEIGHTS.tolist()], ids=["equal", "weights", "list"])
def test_shards_have_the_density_and_the_score_of_points(rows, weights):
    """Assert values to rounding for shards of any size, levels one for all and one for each state, and a bandwidth."""
    known = None if weights is None else WEIGHTS
    law = ShardedPoints(DATA, weights, shard_rows=rows)
    assert len(law) == 300
    check(law, known)
    check(ShardedPoints(DATA, weights, 0.3, shard_rows=rows), known, 0.3)


def test_shards_without_weight_say_nothing():
    """Assert values where whole shards have weight zero, the first and the last among them."""
    weights = WEIGHTS.clone()
    weights[:60] = weights[240:] = 0
    check(ShardedPoints(DATA, weights, shard_rows=30), weights)


@pytest.mark.parametrize("fault", ["mass", "single", "mean"])
def test_a_planted_fault_of_the_sums_is_caught(fault, monkeypatch):
    """Assert that shards without their mass, sums in single precision, or unweighted means fail the check."""
    right = sharded_points.together
    wrong = {
        "mass": lambda a, b: right(Moments(a.log_sum, a.mean), Moments(b.log_sum + 0.1, b.mean)),
        "single": lambda a, b: right(Moments(a.log_sum.float().double(), a.mean), b),
        "mean": lambda a, b: Moments(right(a, b).log_sum, (a.mean + b.mean) / 2),
    }
    monkeypatch.setattr(sharded_points, "together", wrong[fault])
    with pytest.raises(AssertionError):
        check(ShardedPoints(DATA, shard_rows=70))


def test_single_precision_at_low_noise_keeps_the_ratio_of_shards():
    """Assert a score whose shards would weigh e^{.1} otherwise if their densities were single, near −10⁶ nats."""
    draw = torch.Generator().manual_seed(1)
    data = torch.randn(200, 784, generator=draw) * 0.5
    x = data[:6] + 0.002 * torch.randn(6, 784, generator=draw)
    x[3:] = (data[3:6] + data[103:106]) / 2
    law, exact = ShardedPoints(data, shard_rows=50), Points(data.double())
    logs, score = law.log_density_and_score(x, 0.002)
    assert float(exact.log_density(x.double(), 0.002).abs().max()) > 1e6
    assert_close(logs.double(), exact.log_density(x.double(), 0.002), rtol=1e-6, atol=1e-2)
    known = Points(data).score(x, 0.002)
    assert_close(score, known, rtol=1e-4, atol=1e-4 * float(known.abs().max()))


def test_points_of_bytes_on_disk_and_of_a_data_set(tmp_path):
    """Assert values of stored bytes with their transform, and of items of a data set."""
    stored = torch.randint(0, 255, (50, 2, 3), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    pixels = Affine(2 / 255, -1.0, (6,), torch.float64)
    paths = [tmp_path / f"{k}.npy" for k in range(2)]
    for path, part in zip(paths, stored.split(30), strict=True):
        np.save(path, part.numpy())
    x = torch.rand(4, 6, generator=DRAW, dtype=torch.float64)
    known = Points(pixels(stored)).log_density_and_score(x, 0.7)
    for points in (paths, TensorDataset(stored)):
        result = ShardedPoints(points, transform=pixels, shard_rows=20).log_density_and_score(x, 0.7)
        for one, other in zip(result, known, strict=True):
            assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_a_call_goes_on_where_another_was_stopped(tmp_path):
    """Assert the same bits from kept answers, with a shard that was damaged, and a folder of other states refused."""
    law = ShardedPoints(DATA, WEIGHTS, shard_rows=60)
    first = law.log_density_and_score(X, 0.5, folder=tmp_path)
    files = sorted(tmp_path.glob("*.answer"))
    assert len(files) == 5
    files[1].unlink()
    files[2].write_bytes(b"nothing")
    kept = files[3].stat().st_mtime_ns
    again = law.log_density_and_score(X, 0.5, folder=tmp_path)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert files[3].stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="holds answers made from another question"):
        law.log_density_and_score(X, 0.6, folder=tmp_path)


def _bad(kind, folder):
    paths = [folder / f"{k}.npy" for k in range(3)]
    for path, part in zip(paths, DATA.split(100), strict=True):
        np.save(path, part.numpy())
    changed = {
        "nan": DATA[:100].masked_fill(DATA[:100] > 2.5, torch.nan),
        "shape": DATA[:100, :4],
        "dtype": DATA[:100].float(),
    }
    if kind in changed:
        np.save(paths[1], changed[kind].numpy())
    elif kind == "missing":
        paths[1].unlink()
    else:
        paths[1].write_bytes(paths[1].read_bytes()[:-8])
    return paths


@pytest.mark.parametrize("kind", ["nan", "shape", "dtype", "missing", "truncated"])
def test_a_bad_shard_is_one_sentence(kind, tmp_path):
    """Assert that the shard is named in one sentence, when the file is opened or when it is read."""
    with pytest.raises((ShardFailure, ValueError), match=r"1\.npy") as caught:
        ShardedPoints(_bad(kind, tmp_path)).log_density(X, 1.0)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ShardedPoints(DATA, WEIGHTS[:3]), r"weights has shape \(3,\)"),
        (lambda: ShardedPoints(DATA, -WEIGHTS), "negative entries"),
        (lambda: ShardedPoints(DATA, bandwidth=-1.0), "bandwidth"),
        (lambda: ShardedPoints(DATA, client=3).log_density(X, 1.0), "client is a int"),
        (lambda: ShardedPoints(DATA).log_density(X, 0.0), "not a noise level"),
        (lambda: ShardedPoints(DATA).log_density(X[:, :4], 1.0), r"shape \(5,\), but states have shape \(4,\)"),
        (lambda: ShardedPoints(DATA).score(X.float(), 1.0), "float64, but states are torch.float32"),
        (lambda: ShardedPoints(DATA, progress=1).score(X, 1.0), "progress=1"),
    ],
)
def test_bad_calls(call, words):
    """Assert one sentence for each."""
    with pytest.raises((ValueError, TypeError, ShardFailure), match=words):
        call()


def test_shards_go_to_other_processes():
    """Assert the same moments after the way that a Dask worker gets what it is asked with."""
    law = ShardedPoints(DATA, shard_rows=70, transform=Affine(dtype=torch.float64))
    asked = States(X, LEVELS, law._prepared(X[:0]), 0.1, True)
    sent = pickle.loads(cloudpickle.dumps(asked))
    here, there = asked.answer(2, Weights(None, 300)), sent.answer(2, Weights(None, 300))
    assert torch.equal(here.log_sum, there.log_sum)
    assert torch.equal(here.mean, there.mean)


@pytest.mark.slow
def test_dask_workers_give_the_same_bits():
    """Assert equal bits with a cluster of two processes."""
    from distributed import Client, LocalCluster

    wanted = ShardedPoints(DATA, WEIGHTS, shard_rows=50).log_density_and_score(X, LEVELS)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        result = ShardedPoints(DATA, WEIGHTS, shard_rows=50, client=client).log_density_and_score(X, LEVELS)
    assert torch.equal(result[0], wanted[0])
    assert torch.equal(result[1], wanted[1])
