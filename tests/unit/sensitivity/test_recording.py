"""Recordings: the composition keeps every bit, files keep every number, shards of any kind give the same values."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case
from support.strategies import image_law
from torch.utils.data import DataLoader, TensorDataset

from sensitivity import (
    Affine,
    Grid,
    Mixture,
    PerBranch,
    Points,
    Recording,
    ShardFailure,
    Toward,
    guided,
    influence,
    record,
    sample_sensitivity,
)
from sensitivity.readings.point_kernels import Block, Stages
from sensitivity.readings.streaming import Lengths
from sensitivity.recordings.answers import Question
from sensitivity.recordings.asking import question_of
from sensitivity.recordings.folder import Folder, answer_of, content_of
from sensitivity.recordings.reach import Reduced, Rows, axes_of
from sensitivity.recordings.shards import Asked, Meeting
from sensitivity.sources import PreparedSource, as_source

GRID = Grid(SIGMA_MAX, SIGMA_MIN, 6)
SOLVERS = ["euler", "heun", "rk4", "exponential", "sde"]
WIDE = 784
NUMBERS = ("values", "indices", "samples", "functional", "log_density", "log_density_error", "grid_error")


def _bright(x):
    return x.flatten(1).mean(1)


def _square(x):
    return x.flatten(1).square().sum(1)


def _images(count, seed=0, dtype=torch.float32):
    """Low rank plus noise, as images have it: `count` points in 784 dimensions, entries of order one."""
    draw = torch.Generator().manual_seed(seed)
    factors = torch.randn(20, WIDE, generator=torch.Generator().manual_seed(99)) * 0.2
    return (torch.randn(count, 20, generator=draw) @ factors + 0.05 * torch.randn(count, WIDE, generator=draw)).to(
        dtype
    )


def _law(dtype=torch.float32):
    data = _images(200).to(dtype)
    return Mixture(None, data[:40], 0.3)


def _recording(dtype=torch.float32, samples=4, **options):
    law = _law(dtype)
    latents = (30.0 * torch.randn(samples, WIDE, generator=torch.Generator().manual_seed(5))).to(dtype)
    options = {"anchor": law, "trace": "hutchinson", "probes": 2, "seed": 3} | options
    return record(law.score, latents, [_bright, _square], Grid(30.0, 0.1, 6), **options)


@pytest.fixture(scope="module")
def wide():
    """A recording at d = 784 in single precision."""
    return _recording()


@pytest.fixture(scope="module")
def double():
    """The same in double precision."""
    return _recording(torch.float64)


@pytest.fixture(scope="module")
def points():
    """500 points at d = 784, near duplicates of what the samples see included."""
    return _images(500)


@pytest.mark.parametrize("chunk", [None, 2], ids=["whole", "chunks"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_influence_is_the_composition_to_the_last_bit(solver, chunk):
    """Assert equal bits of every number, for every solver, with and without chunks and a list of functionals."""
    problem = case("d3_k4_s0", samples=3)
    data = Points(torch.from_numpy(np.asarray(problem.base.sample(9, 3))), bandwidth=0.2, block=4)
    options = {
        "anchor": problem.exact,
        "solver": solver,
        "trace": "hutchinson",
        "probes": 2,
        "seed": 6,
        "chunk_size": chunk,
    }
    for functional in (_bright, [_bright, _square]):
        for top in (None, 2):
            whole = influence(problem.score, problem.latents, functional, data, GRID, top_k=top, **options)
            kept = record(problem.score, problem.latents, functional, GRID, **options).influence(data, top_k=top)
            for name in (
                "values",
                "indices",
                "samples",
                "functional",
                "log_density",
                "log_density_error",
                "grid_error",
                "relative_error",
            ):
                one, other = getattr(whole, name), getattr(kept, name)
                assert (one is None) == (other is None)
                assert one is None or (one.shape == other.shape and bool(((one == other) | (one != one)).all())), name
            assert whole.outcome.sentence == kept.outcome.sentence
            assert whole.cost == kept.cost


def test_shards_agree_with_tangents_forward_at_real_size(wide, points):
    """Assert sharded values at d = 784 against an independent route: forward sensitivities toward single points."""
    law = _law(torch.float64)
    influences = _recording(torch.float64).influence(points[:4].double(), shard_rows=3)
    latents = (30.0 * torch.randn(4, WIDE, generator=torch.Generator().manual_seed(5))).double()
    changes = [Toward(Points(row[None].double())) for row in points[:4]]
    options = {"anchor": law, "trace": "hutchinson", "probes": 2, "seed": 3}
    forward = sample_sensitivity(law.score, latents, changes, Grid(30.0, 0.1, 6), **options)
    wanted = torch.stack([delta.mean(1) for delta in forward.sensitivity], 1)
    assert_close(influences.values[0], wanted, rtol=1e-9, atol=1e-11 * float(wanted.abs().max()))


def _stored(kind, data, folder):
    """The same points in one of many places, with the options that read them back."""
    rows = data.numpy()
    if kind == "array":
        return rows, {}
    if kind == "memmap":
        mapped = np.memmap(folder / "points.raw", np.float32, "w+", shape=rows.shape)
        mapped[:] = rows
        mapped.flush()
        return mapped, {}
    if kind == "view of a memmap":
        np.save(folder / "long.npy", np.concatenate([rows[:7] + 1, rows]))
        return np.load(folder / "long.npy", mmap_mode="r")[7:], {}
    if kind in ("npy", "safetensors", "parquet"):
        paths = []
        for k, part in enumerate(np.array_split(rows, 3)):
            path = folder / f"{k}.{kind}"
            paths.append(path)
            if kind == "npy":
                np.save(path, part)
            elif kind == "safetensors":
                save_file({"pixels": torch.from_numpy(part.copy()), "other": torch.zeros(1)}, path)
            else:
                import pyarrow as pa
                import pyarrow.parquet as pq

                table = pa.table({"pixels": pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])})
                pq.write_table(table, path, row_group_size=70)
        return paths, {} if kind == "npy" else {"column": "pixels"}
    pairs = TensorDataset(data, torch.arange(len(data)))
    return (pairs, {}) if kind == "dataset" else (DataLoader(pairs, batch_size=32), {})


KINDS = ["array", "memmap", "view of a memmap", "npy", "safetensors", "parquet", "dataset", "loader"]


@pytest.mark.parametrize("kind", KINDS)
def test_points_from_anywhere_give_the_same_values(double, points, kind, tmp_path):
    """Assert agreement with the in-memory influence to rounding, in values, indices and bytes read."""
    wanted = double.influence(points.double())
    stored, options = _stored(kind, points, tmp_path)
    options |= {"shard_rows": 150, "transform": Affine(dtype=torch.float64)}
    influences = double.influence(stored, **options)
    scale = wanted.values.abs().amax(-1, keepdim=True)
    assert float(((influences.values - wanted.values) / scale).abs().max()) < 1e-12
    assert influences.provenance["bytes_read"] == points.numel() * 4
    best = double.influence(stored, top_k=3, **options)
    assert torch.equal(best.indices, wanted.values.abs().topk(3).indices)
    assert_close(best.values, wanted.values.gather(-1, best.indices), rtol=1e-11, atol=1e-12 * float(scale.max()))


def test_single_precision_by_shards_keeps_the_accuracy_of_its_way(wide, points):
    """Assert what the expanded way may lose in single precision, 1e4 ε nats, whichever way each shard takes."""
    whole, parts = wide.influence(points).values, wide.influence(points, shard_rows=90).values
    scale = whole.abs().amax(-1, keepdim=True)
    assert float(((parts - whole) / scale).abs().max()) < 1e4 * torch.finfo(torch.float32).eps


class _Table:
    """What the engine asks of a table of Hugging Face `datasets`, which is not installed here."""

    def __init__(self, **columns):
        self._columns, self.column_names, self.features = columns, list(columns), dict(columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, rows):
        return {name: values[rows] for name, values in self._columns.items()}


def test_a_table_with_images_and_a_field_of_groups(wide, points):
    """Assert values and sums by a column of the table, and a sentence for a column that is not there."""
    kinds = [f"class {k % 3}" for k in range(len(points))]
    table = _Table(image=[row.reshape(28, 28).numpy() for row in points], kind=kinds)
    flat = Affine(shape=(WIDE,))
    influences = wide.influence(table, groups="kind", column="image", transform=flat, shard_rows=99)
    wanted = wide.influence(points).values
    sums = torch.stack([wanted[..., k::3].double().sum(-1) for k in range(3)], -1)
    assert influences.group_names == ("class 0", "class 1", "class 2")
    assert_close(influences.groups.double(), sums, rtol=1e-3, atol=1e-4 * float(sums.abs().max()))
    with pytest.raises(ShardFailure, match="groups='artist' is no column of the table"):
        wide.influence(table, groups="artist", column="image", transform=flat)


@pytest.mark.parametrize("stored", [torch.uint8, torch.float16])
def test_small_storage_with_a_stated_transform(wide, stored):
    """Assert bytes and halves against the same numbers in single precision."""
    numbers = torch.randint(0, 255, (60, 28, 28), generator=torch.Generator().manual_seed(1)).to(stored)
    scaled = Affine(2 / 255, -1.0, (WIDE,))
    influences = wide.influence(numbers, transform=scaled, shard_rows=25)
    wanted = wide.influence(numbers.float().mul(2 / 255).add(-1.0).flatten(1))
    assert_close(influences.values, wanted.values, rtol=1e-5, atol=1e-6 * float(wanted.values.abs().max()))
    assert influences.provenance["bytes_read"] == numbers.numel() * numbers.element_size()


def test_an_encoder_by_batches(wide, points):
    """Assert that an encoder sees batches of the given size and that its results are the points."""
    seen = []

    def encode(x):
        seen.append(len(x))
        return x.flatten(1) * 0.5

    pictures = (2 * points[:70]).reshape(-1, 1, 28, 28)
    influences = wide.influence(pictures, encoder=encode, encoder_batch=16, shard_rows=40)
    assert_close(influences.values, wide.influence(points[:70]).values, rtol=1e-4, atol=1e-9)
    assert seen == [16, 16, 8, 16, 14]


def test_a_recording_keeps_everything_in_its_file(wide, points, tmp_path):
    """Assert equal bits after saving and loading, and what it was made from."""
    wide.save(tmp_path / "kept.safetensors")
    again = Recording.load(tmp_path / "kept.safetensors")
    assert again.digest == wide.digest
    assert torch.equal(again.influence(points).values, wide.influence(points).values)
    assert again.outcome.sentence == wide.outcome.sentence
    assert again.cost == wide.cost
    assert again.grid == Grid(30.0, 0.1, 6)
    assert again.made_from["seed"] == 3
    assert again.made_from["functionals"][0].endswith("_bright")
    assert json.loads(json.dumps(dict(again.made_from))) == again.made_from


def test_a_changed_number_in_a_file_is_seen(wide, tmp_path):
    """Assert that one flipped bit is an error, wherever in the numbers it is."""
    path = tmp_path / "kept.safetensors"
    wide.save(path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="changed since it was written"):
        Recording.load(path)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
def test_pruning_stays_within_its_bound_and_says_what_it_left_out(points, tolerance):
    """Assert |pruned − whole| ≤ bound ≤ tolerance in double precision, for values and sums, with much left out."""
    kept = _recording(torch.float64)
    data = points.double()
    whole = kept.influence(data)
    limit = tolerance * float(whole.values.abs().max())
    labels = [k % 2 for k in range(len(data))]
    influences = kept.influence(data, top_k=len(data), prune=limit, groups=labels, shard_rows=128)
    values = torch.empty_like(whole.values).scatter_(-1, influences.indices, influences.values)
    rounding = 1e-11 * float(whole.values.abs().max())
    assert bool(((values - whole.values).abs().amax(-1) <= influences.bound + rounding).all())
    assert float(influences.bound.max()) <= limit
    sums = torch.stack([whole.values[..., k::2].sum(-1) for k in range(2)], -1)
    assert bool(((influences.groups - sums).abs() <= influences.group_bound + 500 * rounding).all())
    left = list(influences.provenance["pruned"].values())
    assert left[0] > 0.9
    assert left[-1] == 0.0


def test_the_bound_holds_for_every_row_and_is_not_idle(points):
    """Assert that no point adds more than the bound of its block, and that the bound is not idle."""
    kept = _recording(torch.float64)
    data = points.double()
    prepared = PreparedSource(as_source(data), kept.samples[:0])
    question = question_of(prepared, kept.samples, None, top_k=1, prune=1e-3)
    meeting = Meeting(kept.parts[0].stages, data, question)
    block, near = Block(data, 0.0, meeting.squares), Reduced.of(data, meeting.squares, axes_of(data))
    tight = 0.0
    for rows in meeting.rows[0]:
        values, bounds = rows.group.rows(block).abs().amax(-1), rows.bounds(near)
        assert bool((values <= bounds * (1 + 1e-9)).all())
        seen = bounds > 1e-200
        tight = max(tight, float((values[seen] / bounds[seen]).max()))
    assert tight > 1e-3


@pytest.mark.parametrize("distances", [[2.5], [0.5, 1.0, 3.0], [1.7, 6.0], [0.2]], ids=str)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_bound_is_reached_where_all_is_in_one_line(distances, count):
    """Assert value ≤ bound with zero score and points along the cotangent, where with enough axes the two are equal.

    A distance bound that is a third too long, or the slope taken at another distance than that of its maximum, fails.
    """
    tau, line = 0.7, torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5, 0.3, 1.5]], dtype=torch.float64))
    x = torch.tensor([[0.3, 0.1, -0.2, 0.4, 0.9]], dtype=torch.float64)
    data = x + tau * torch.tensor(distances, dtype=torch.float64)[:, None] * line
    sigma, logs = torch.tensor([tau], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    stages = Stages(x[None], sigma, torch.zeros_like(x)[None], logs, line[None, None])
    squares = data.square().sum(1)
    stages.choose_ways(0.0, float(squares.max()) ** 0.5)
    axes = torch.eye(5, dtype=torch.float64)[:, :count]
    (group,) = stages.groups
    bound = float(Rows.of(group, axes).bounds(Reduced.of(data, squares, axes)))
    value = float(group.rows(Block(data, 0.0, squares)).abs().max())
    assert value <= bound * (1 + 1e-12)
    if count == 5 and (len(distances) == 1 or 1.0 in distances):
        far = distances[0] >= 1.0 or 1.0 in distances
        assert not far or bound <= 1.05 * value


def test_sums_top_and_values_are_of_one_pass(double, points):
    """Assert that group sums do not depend on shards, and that labels of a tensor are numbers."""
    labels = torch.arange(len(points)) % 4
    one = double.influence(points.double(), groups=labels, top_k=2, shard_rows=77)
    other = double.influence(points.double(), groups=labels.tolist(), top_k=2, shard_rows=500)
    assert one.group_names == (0, 1, 2, 3)
    assert_close(one.groups, other.groups, rtol=1e-11, atol=1e-12 * float(other.groups.abs().max()))
    assert torch.equal(one.indices[..., 0], other.indices[..., 0])


def test_self_influence_is_the_diagonal(points):
    """Assert the values of the matrix at (b, b), without the matrix, in chunks."""
    kept = _recording(torch.float64, chunk_size=3)
    numbers = points[:4].double()
    wanted = kept.influence(numbers).values.diagonal(dim1=-2, dim2=-1)
    assert_close(kept.self_influence(numbers), wanted, rtol=1e-9, atol=1e-12 * float(wanted.abs().max()))


def test_rates_under_guidance_by_shards():
    """Assert guided values with rates of two branches, sharded and whole."""
    law, other = _law(torch.float64), Mixture(None, _images(30, 7, torch.float64), 0.4)
    score = guided(law.score, other.score, 1.5)
    latents = 30.0 * torch.randn(2, WIDE, generator=torch.Generator().manual_seed(2)).double()
    options = {"anchor": PerBranch(other, law), "trace": "hutchinson", "probes": 2, "seed": 1}
    kept = record(score, latents, _bright, Grid(30.0, 0.2, 4), **options)
    data, rates = _images(20, 3, torch.float64), PerBranch(None, torch.linspace(0.5, 2.0, 20))
    whole = influence(score, latents, _bright, data, Grid(30.0, 0.2, 4), rates=rates, **options)
    assert torch.equal(kept.influence(data, rates=rates).values, whole.values)
    influences = kept.influence(data, rates=rates, shard_rows=7)
    assert_close(influences.values, whole.values, rtol=1e-9, atol=1e-12 * float(whole.values.abs().max()))
    assert_close(influences.relative_error, whole.relative_error, rtol=1e-9)
    limit = 1e-4 * float(whole.values.abs().max())
    less = kept.influence(data, rates=rates, shard_rows=7, prune=limit)
    assert bool(((less.values - whole.values).abs().amax(-1) <= less.bound + 1e-3 * limit).all())


def _of_images(dtype, **options):
    """A recording of 20 steps on low rank plus noise .1 at d = 784, and points of that law."""
    law = image_law(WIDE, 1, 10, 0.1, 0.5, 7)
    base = Mixture(*(torch.from_numpy(part).to(dtype) for part in law), covariance_type="diagonal")
    spread, draw = torch.from_numpy(law.variances[0]).to(dtype), torch.Generator().manual_seed(3)
    points = base.means[0] + spread.sqrt() * torch.randn(200, WIDE, generator=draw).to(dtype)
    latents = base.means[0] + (spread + 400).sqrt() * torch.randn(3, WIDE, generator=draw).to(dtype)
    options |= {"anchor": base, "trace": "hutchinson", "probes": 2, "seed": 0}
    return record(base.score, latents, [_bright, _square], Grid(20.0, 0.05, 20), **options), points


@pytest.mark.parametrize("chunk", [None, 2], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_shards_state_the_error_that_points_in_memory_state(dtype, chunk, tmp_path):
    """Assert it to rounding and in the outcome's words, with lists, sums and a folder; e^10 was stated before."""
    kept, points = _of_images(dtype, chunk_size=chunk)
    wanted = kept.influence(points)
    assert bool((wanted.relative_error < 0.02).all())
    assert bool((torch.hypot(wanted.log_density_error, wanted.grid_error) > 2).all())
    folder = {"folder": tmp_path / "answers"}
    for options in ({}, {"top_k": 3, "groups": [k % 3 for k in range(200)]}, folder, folder):
        influences = kept.influence(points, shard_rows=90, **options)
        assert_close(influences.relative_error, wanted.relative_error, rtol=8 * torch.finfo(dtype).eps)
        assert influences.outcome.sentence == wanted.outcome.sentence
    assert influences.provenance["reused"] == 3


def test_what_pruning_leaves_out_counts_as_the_most_it_might_be():
    """Assert for strict and loose limits that no less is stated than without pruning, by at most a hundredth more."""
    kept, points = _of_images(torch.float64)
    whole = kept.influence(points)
    # The limit is one for both functionals; those of the first are thousands of times smaller, and a tenth of the
    # second's may be all of them.
    least = float(whole.values.abs().amax((1, 2)).min())
    for tolerance in (1e-1, 1e-6):
        influences = kept.influence(points, prune=tolerance * least, shard_rows=90)
        assert max(influences.provenance["pruned"].values()) == 1.0
        excess = influences.relative_error / whole.relative_error - 1
        assert bool(((excess > -1e-6) & (excess < 0.01)).all())


def test_the_error_by_shards_is_known_without_what_grows_with_the_points():
    """Assert that a shard's answer keeps two numbers a functional, stage and sample, whatever the number of points."""
    kept, points = _of_images(torch.float32)
    data = PreparedSource(as_source(points), kept.samples[:0])
    stages = kept.parts[0].stages
    answer = Asked([stages], data, (2, 3)).answer(0, Question(top_k=2))
    assert answer.lengths.whole.shape == (2, 3)
    assert answer.lengths.stages.shape == (1, *stages.cotangents.shape[:3])


def test_answers_without_lengths_leave_the_error_at_the_paths_end(tmp_path):
    """Assert that answers which another version kept in a folder are used, and the least that is known is stated."""
    kept, points = _of_images(torch.float64)
    whole = kept.influence(points, shard_rows=90, folder=tmp_path)
    folder = Folder(tmp_path, json.loads((tmp_path / "question.json").read_text()), content_of, answer_of)
    source = as_source(points, shard_rows=90)
    answer = folder.read(1, source.fingerprint(1))
    folder.write(1, replace(answer, lengths=None), {"name": source.name(1), "data": source.fingerprint(1)})
    influences = kept.influence(points, shard_rows=90, folder=tmp_path)
    assert torch.equal(influences.values, whole.values)
    assert_close(influences.relative_error, torch.expm1(torch.hypot(whole.log_density_error, whole.grid_error)))


def test_shards_whose_lengths_are_not_added_up_are_seen(monkeypatch):
    """Assert that a total which forgets the shards before states another error."""
    kept, points = _of_images(torch.float64)
    wanted = kept.influence(points).relative_error
    monkeypatch.setattr(Lengths, "__add__", lambda self, other: other)
    value = kept.influence(points, shard_rows=90).relative_error
    assert not bool(torch.isclose(value, wanted, rtol=1e-3).any())


def test_progress_says_rate_and_remaining_time(wide, points, capsys):
    """Assert silence by default, a function's numbers, and one line on standard error."""
    told = []
    wide.influence(points, shard_rows=200, progress=lambda *numbers: told.append(numbers))
    assert [t[:2] for t in told] == [(200, 500), (400, 500), (500, 500)]
    assert told[0][2] > 0
    assert told[-1][3] == 0.0
    assert capsys.readouterr().err == ""
    wide.influence(points, shard_rows=200, progress=True)
    assert "500 of 500 points" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_points(wide, points, tmp_path):
    """Assert that what is kept beside the result is a shard: no larger tensor is alive between shards."""
    np.save(tmp_path / "many.npy", np.tile(points.numpy(), (6, 1)))
    seen, before = [], {id(t) for t in gc.get_objects() if type(t) is torch.Tensor}

    def watch(*_):
        alive = [t for t in gc.get_objects() if type(t) is torch.Tensor and id(t) not in before]
        seen.append(max((t.numel() for t in alive), default=0))

    wide.influence(tmp_path / "many.npy", top_k=4, shard_rows=100, progress=watch)
    stage = max(t.numel() for t in wide.tensors().values())
    assert max(seen) <= 2 * max(stage, 100 * WIDE)


def test_winners_by_index(points, tmp_path):
    """Assert rows of scattered indices, in the order asked for, reading only their shards."""
    np.save(tmp_path / "points.npy", points.numpy())
    data = PreparedSource(as_source(tmp_path / "points.npy", shard_rows=64), points[:0])
    assert torch.equal(data.at([400, 3, 3, 64]), points[[400, 3, 3, 64]])
    with pytest.raises(IndexError, match="not all among the 500 points"):
        data.at([500])
