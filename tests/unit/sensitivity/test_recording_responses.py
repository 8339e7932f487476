"""Recordings of responses: the composition keeps every bit, shards too, files tell one response from another."""

from __future__ import annotations

import pickle

import cloudpickle
import numpy as np
import pytest
import torch
from support.close import assert_close
from support.trained import trained
from torch import nn

from sensitivity import (
    Affine,
    Grid,
    LocalResponse,
    Mixture,
    ParameterResponse,
    Points,
    Recording,
    ShardFailure,
    UnrolledResponse,
    as_score,
    guided,
    influence,
    record,
)
from sensitivity.recordings.answers import Question
from sensitivity.recordings.shards import Asked
from sensitivity.responses.gradients import DataLoss
from sensitivity.sources import PreparedSource, as_source

GRID = Grid(4.0, 0.3, 6)
TRUTH = trained(3, 20)
COUNT = len(TRUTH.data)
P = np.random.default_rng(5).uniform(0.5, 1.5, COUNT)
P = P / P.sum()
DATA = torch.from_numpy(TRUTH.data)
LATENTS = 4.0 * torch.from_numpy(np.random.default_rng(1).standard_normal((3, 3)))
SCORE = as_score(TRUTH.network(P), "denoiser")
MANY = torch.cat([DATA + 0.02 * k for k in range(12)])
NUMBERS = ("values", "indices", "samples", "functional", "relative_error")


def _curved(x):
    return x.flatten(1).square().sum(1) + x.flatten(1)[:, 0]


def _wavy(x):
    return torch.sin(x.flatten(1)).sum(1)


class Solved:
    """The record of a training that is a solve."""

    passes = COUNT

    def __init__(self):
        self.module, self.points = SCORE.network, Points(DATA, torch.from_numpy(P))

    def parameter_change(self, rates, moves=None):
        return torch.stack([torch.from_numpy(TRUTH.derivative(P, rate.numpy())).flatten() for rate in rates])

    def pull(self, cotangents):
        every = torch.eye(COUNT, dtype=torch.float64) - torch.from_numpy(P)
        return cotangents @ self.parameter_change(every).T


def _parameters(score=SCORE, curvature="exact", **options):
    options = {"damping": TRUTH.ridge, **options}
    return ParameterResponse(
        score, options.pop("loss", TRUTH.loss), Points(DATA, torch.from_numpy(P)), curvature, **options
    )


def _smooth(x, sigma):
    level = sigma if sigma.ndim == 0 else sigma.reshape(-1, 1, 1, 1)
    return (torch.sin(x) - 0.5 * x.roll(1, -1)) / (1 + level**2)


IMAGES = torch.from_numpy(np.random.default_rng(3).standard_normal((12, 1, 4, 5)))
PIXELS = 4.0 * torch.from_numpy(np.random.default_rng(4).standard_normal((3, 1, 4, 5)))
KINDS = {
    "exact": lambda: (SCORE, LATENTS, MANY, _parameters()),
    "ggn": lambda: (SCORE, LATENTS, MANY, _parameters(curvature="ggn")),
    "unrolled": lambda: (SCORE, LATENTS, DATA[[3, 0, 7, 3]], UnrolledResponse(Solved())),
    "local": lambda: (_smooth, PIXELS, IMAGES[:5] + 0.1, LocalResponse(IMAGES, 3)),
}


@pytest.mark.parametrize("chunk", [None, 2], ids=["whole", "chunks"])
@pytest.mark.parametrize("kind", KINDS)
def test_influence_is_the_composition_to_the_last_bit(kind, chunk):
    """Assert equal bits of every number, for every response, with and without chunks, a list and the largest."""
    for functional, top in ((_curved, None), ([_curved, _wavy], 2)):
        score, latents, points, response = KINDS[kind]()
        options = {"chunk_size": chunk, "seed": 6}
        whole = influence(score, latents, functional, points, GRID, top_k=top, response=response, **options)
        response = KINDS[kind]()[-1]
        kept = record(score, latents, functional, GRID, response=response, **options)
        influences = kept.influence(points, top_k=top)
        for name in NUMBERS:
            one, other = getattr(whole, name), getattr(influences, name)
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other), name
        assert whole.outcome.sentence == influences.outcome.sentence
        assert whole.cost == influences.cost
        assert influences.log_density is None
        assert kept.made_from["response"] == type(response).__name__


def check_streamed(kept, points, **options):
    """Fail unless values of shards have the bits of those in memory, and the derivative that retraining has."""
    value, whole = kept.influence(points, **options).values, kept.influence(MANY).values
    assert torch.equal(value, whole)
    levels, weights = GRID.levels.numpy(), TRUTH.retrained(P)
    for i in (0, 5):
        rate = TRUTH.derivative(P, np.eye(COUNT)[i] - P)
        samples, tangent = TRUTH.sampled(weights, rate, LATENTS.numpy(), levels)
        wanted = (2 * samples * tangent).sum(1) + tangent[:, 0], (np.cos(samples) * tangent).sum(1)
        wanted = torch.from_numpy(np.stack(wanted))
        assert_close(value[..., i], wanted, rtol=0, atol=1e-8 * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def parameters():
    """A recording of what parameters answer, of two functionals and two chunks."""
    return record(SCORE, LATENTS, [_curved, _wavy], GRID, chunk_size=2, response=_parameters())


@pytest.mark.parametrize("rows", [7, 64, 100])
def test_gradients_of_shards_have_the_bits_of_those_in_memory(parameters, rows, tmp_path):
    """Assert equal bits however points are cut, on disk too, and the tangent of retraining written out."""
    assert len(MANY) > 128
    check_streamed(parameters, MANY, shard_rows=rows)
    paths = [tmp_path / f"{k}.npy" for k in range(3)]
    for path, part in zip(paths, MANY.split([50, 61, len(MANY) - 111]), strict=True):
        np.save(path, part.numpy())
    check_streamed(parameters, paths, shard_rows=rows, folder=tmp_path / "kept")
    again = parameters.influence(paths, shard_rows=rows, folder=tmp_path / "kept")
    assert again.provenance["reused"] == again.provenance["shards"]


@pytest.mark.parametrize("fault", ["order", "sign", "shard"])
def test_a_planted_fault_of_the_stream_is_caught(parameters, fault, monkeypatch):
    """Assert that gradients of another point, a wrong sign, or the first shard in place of each fail the check."""
    right = DataLoss.of_each
    if fault == "order":
        monkeypatch.setattr(DataLoss, "of_each", lambda self, clean: right(self, clean.roll(1, 0)))
    elif fault == "sign":
        base = ParameterResponse.against
        monkeypatch.setattr(ParameterResponse, "against", lambda *args: -base(*args))
    else:
        base = Asked.answer
        monkeypatch.setattr(Asked, "answer", lambda self, shard, question: base(self, 0 * shard, question))
    with pytest.raises(AssertionError):
        check_streamed(parameters, MANY, shard_rows=12)


def test_patches_by_shards_and_the_largest_with_sums():
    """Assert streamed values of patches, leading points, sums and rates against the whole matrix."""
    score, latents, points, response = KINDS["local"]()
    kept = record(score, latents, _curved, GRID, response=response, chunk_size=2)
    whole = influence(score, latents, _curved, points, GRID, response=response).values
    rates = [0.5, 1.0, 2.0, 0.0, 1.5]
    influences = kept.influence(points, 2, ["a", "b", "a", "b", "b"], rates=rates, shard_rows=2)
    rated = whole * torch.tensor(rates)
    assert torch.equal(influences.indices, rated.abs().topk(2).indices)
    assert_close(influences.values, rated.gather(-1, influences.indices), rtol=1e-11, atol=1e-13)
    sums = torch.stack([rated[:, [0, 2]].sum(1), rated[:, [1, 3, 4]].sum(1)], 1)
    assert_close(influences.groups, sums, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_self_influence_is_the_diagonal(kind):
    """Assert the values of the matrix at (b, b)."""
    score, latents, points, response = KINDS[kind]()
    kept = record(score, latents, [_curved, _wavy], GRID, chunk_size=2, response=response)
    value = points[: len(latents)]
    assert_close(
        kept.self_influence(value), kept.influence(value).values.diagonal(dim1=1, dim2=2), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_and_a_response_made_anew_give_the_same_bits(kind, tmp_path):
    """Assert equal bits after saving and loading, and that the file asks for its response."""
    score, latents, points, response = KINDS[kind]()
    kept = record(score, latents, [_curved, _wavy], GRID, chunk_size=2, response=response)
    path = tmp_path / "kept.safetensors"
    kept.save(path)
    with pytest.raises(ValueError, match=f"of a {type(response).__name__}, and no response was given: pass response="):
        Recording.load(path)
    again = Recording.load(path, response=KINDS[kind]()[-1])
    assert again.digest == kept.digest
    assert torch.equal(again.influence(points).values, kept.influence(points).values)
    assert again.cost == kept.cost


def _other_network(factor):
    network = TRUTH.network(P)
    with torch.no_grad():
        network.readout *= factor
    return as_score(network, "denoiser")


OTHERS = {
    "another network": lambda: _parameters(_other_network(1.01)),
    "another loss": lambda: _parameters(loss=lambda *parts: 2 * TRUTH.loss(*parts)),
    "a network of another size": lambda: _parameters(as_score(trained(3, 7).network(P), "denoiser")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_response_than_the_recorded_one_is_told(parameters, other, tmp_path):
    """Assert a sentence for a network that went on training, another loss, another size, another kind."""
    path = tmp_path / "kept.safetensors"
    parameters.save(path)
    with pytest.raises(ValueError, match="answers otherwise than the recorded one"):
        Recording.load(path, response=OTHERS[other]())
    with pytest.raises(ValueError, match="of a ParameterResponse, and a LocalResponse was given"):
        Recording.load(path, response=LocalResponse(IMAGES, 3))


def test_a_response_goes_to_other_processes(parameters):
    """Assert the same bits after the way that a Dask worker gets what it is asked with."""
    data = PreparedSource(as_source(MANY, shard_rows=70), MANY[:0], Affine(dtype=torch.float64))
    kept = [part.stages.kept for part in parameters.parts]
    asked = Asked(kept, data, (2, 3), parameters.response)
    sent = pickle.loads(cloudpickle.dumps(asked))
    assert torch.equal(sent.answer(1, Question()).values, parameters.influence(MANY).values[..., 70:140])


def test_what_a_response_does_not_know_is_one_sentence(parameters):
    """Assert refusals: pruning, a bandwidth, points that no training saw, two networks, no response."""
    with pytest.raises(ValueError, match="a ParameterResponse has none: leave prune out"):
        parameters.influence(MANY, prune=0.1)
    with pytest.raises(ValueError, match=r"bandwidth=0\.2 smooths the points"):
        parameters.influence(MANY, bandwidth=0.2, top_k=3, shard_rows=50)
    with pytest.raises(ValueError, match=r"bandwidth=0\.2 smooths the points"):
        parameters.influence(Points(MANY, bandwidth=0.2))
    run = record(SCORE, LATENTS, _curved, GRID, response=UnrolledResponse(Solved()))
    with pytest.raises(ShardFailure, match=r"rows 12 to 24 of a tensor .* 12 of 12 points are no training examples"):
        run.influence(MANY[:24], top_k=2, shard_rows=12)
    law = Mixture(None, DATA, 1.0)
    with pytest.raises(ValueError, match="guided score has two"):
        record(guided(SCORE, law.score, 2.0), LATENTS, _curved, GRID, response=_parameters())
    with pytest.raises(TypeError, match="response is a str"):
        record(SCORE, LATENTS, _curved, GRID, response="parameters")


@pytest.mark.slow
def test_dask_workers_ask_a_network_and_give_the_same_bits():
    """Assert equal bits of the largest with a cluster of two processes, a network in single precision."""
    from distributed import Client, LocalCluster

    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
    score = as_score(lambda x, sigma: network(x), "denoiser")
    response = ParameterResponse(score, TRUTH.loss, DATA.float(), "exact", module=network)
    kept = record(score, LATENTS.float(), _wavy, GRID, response=response)
    whole = kept.influence(MANY.float(), top_k=3, shard_rows=40)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        influences = kept.influence(MANY.float(), 3, client=client, shard_rows=40)
    assert torch.equal(influences.values, whole.values)
    assert torch.equal(influences.indices, whole.indices)
