"""Bad shards, bad questions, killed runs: one sentence each, and nothing that was done is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.unsteady import Unsteady
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from sensitivity import Affine, Grid, Mixture, Recording, ShardFailure, gallery, record
from sensitivity.sources import as_source
from sensitivity.sources.files import needed

LAW = Mixture(None, torch.zeros(1, 4), 1.0)
LATENTS = torch.tensor([[9.0, 1.0, 2.0, 3.0], [1.0, -8.0, 0.0, 2.0]])
KEPT = record(LAW.score, LATENTS, lambda x: x[:, 0], Grid(10.0, 0.5, 4), anchor=LAW)
DATA = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def _shards(folder, count=4, rows=3):
    paths = [folder / f"{k}.npy" for k in range(count)]
    for k, path in enumerate(paths):
        np.save(path, DATA[rows * k : rows * (k + 1)].numpy())
    return paths


def _bad_second(kind):
    """Shards of which the second is bad in some way."""

    def make(folder):
        paths = _shards(folder)
        good, bad = np.load(paths[1]), paths[1]
        if kind == "missing":
            bad.unlink()
        elif kind == "truncated":
            bad.write_bytes(bad.read_bytes()[:-8])
        elif kind == "no header":
            bad.write_bytes(b"nothing")
        elif kind == "other suffix":
            paths[1] = bad.rename(bad.with_suffix(".safetensors"))
        else:
            changed = {
                "shape": good[:, :3],
                "dtype": good.astype(np.float64),
                "complex": good.astype(np.complex64),
                "objects": good.astype(object),
                "flat": good[:, 0],
                "empty": good[:0],
                "nan": np.where(np.arange(4) == 2, np.nan, good).astype(np.float32),
            }[kind]
            np.save(bad, changed, allow_pickle=True)
        return {"points": paths}

    return make


class _Stream(IterableDataset):
    def __iter__(self):
        return iter(DATA)


class _Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, item):
        if item == 7:
            raise OSError("the disk is gone")
        return DATA[item]


def _raises(x):
    raise RuntimeError("out of paint")


PAIRS = TensorDataset(DATA, torch.arange(12))
CASES = {
    "a missing shard": (_bad_second("missing"), "1.npy cannot be read"),
    "a truncated shard": (_bad_second("truncated"), "1.npy cannot be read"),
    "a shard without header": (_bad_second("no header"), "1.npy cannot be read"),
    "a shard of another kind": (_bad_second("other suffix"), "no .npy file as the first one"),
    "a shard of another shape": (_bad_second("shape"), r"shape \(3,\)"),
    "a shard of another dtype": (_bad_second("dtype"), "float64"),
    "a complex shard": (_bad_second("complex"), "complex64"),
    "a shard of objects": (_bad_second("objects"), "1.npy cannot be read"),
    "a flat shard": (_bad_second("flat"), r"shape \(3,\)"),
    "an empty shard": (_bad_second("empty"), "has no rows"),
    "NaN in a shard": (_bad_second("nan"), "1.npy .* is not finite, first in its row 0"),
    "no shards": (lambda _: {"points": []}, "points is a list"),
    "an unknown suffix": (lambda f: {"points": f / "data.csv"}, "no .npy, .safetensors or .parquet"),
    "a number": (lambda _: {"points": 3}, "points is a int"),
    "a stream": (lambda _: {"points": _Stream()}, "without a length"),
    "a shuffled loader": (lambda _: {"points": DataLoader(PAIRS, shuffle=True)}, "shuffle=False"),
    "an item that fails": (lambda _: {"points": _Broken(), "shard_rows": 3}, "items 6 to 9 .* the disk is gone"),
    "a column that is not there": (lambda _: {"points": PAIRS, "column": 5}, "column=5"),
    "bytes without transform": (lambda _: {"points": DATA.to(torch.uint8), "shard_rows": 5}, "transform=Affine"),
    "points of another shape": (lambda _: {"points": DATA[:, :3], "shard_rows": 5}, r"shape \(3,\)"),
    "points of another dtype": (lambda _: {"points": DATA.double(), "shard_rows": 5}, "float64"),
    "no points": (lambda _: {"points": DATA[:0], "shard_rows": 5}, "no rows"),
    "an encoder that returns half": (lambda _: {"points": DATA, "encoder": torch.Tensor.half}, "float16"),
    "an encoder that drops points": (lambda _: {"points": DATA, "encoder": lambda x: x[:-1]}, "its encoder gives 11"),
    "an encoder that fails": (lambda _: {"points": DATA, "encoder": _raises}, "the encoder failed .* out of paint"),
    "an encoder of NumPy": (lambda _: {"points": DATA, "encoder": lambda x: x.numpy()}, "gave a ndarray"),
    "a transform that is none": (lambda _: {"points": DATA, "transform": 2.0}, "transform is a float"),
    "too few labels": (lambda _: {"points": DATA, "groups": [1, 2]}, "groups has 2 labels"),
    "labels of numbers with a point": (lambda _: {"points": DATA, "groups": [0.5] * 12}, "labels of type float"),
    "a field of a tensor": (lambda _: {"points": DATA, "groups": "artist"}, "groups='artist' names a field"),
    "no top": (lambda _: {"points": DATA, "top_k": 0}, "top_k=0"),
    "no tolerance": (lambda _: {"points": DATA, "prune": 0.0}, "prune = 0.0"),
    "no client": (lambda _: {"points": DATA, "client": "tcp://here"}, "client is a str"),
    "no progress": (lambda _: {"points": DATA, "progress": "yes"}, "progress='yes'"),
    "no shard rows": (lambda _: {"points": DATA, "shard_rows": 0}, "shard_rows=0"),
    "rates of another length": (lambda _: {"points": DATA, "rates": [1.0], "groups": [1] * 12}, "rates has shape"),
    "a folder that is a file": (lambda f: {"points": DATA, "folder": _shards(f)[0]}, "cannot be used"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_bad_input_is_one_sentence(name, tmp_path):
    """Assert an error of ours that names what is wrong in one sentence with a remedy."""
    make, words = CASES[name]
    with pytest.raises((ValueError, TypeError, ShardFailure), match=words) as caught:
        KEPT.influence(**make(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 600


def test_a_failed_shard_is_named_and_the_others_go_on(tmp_path):
    """Assert that a bad shard leaves the values of the others, with indices that count it, and a note that says so."""
    made = _bad_second("nan")(tmp_path)["points"]
    with pytest.raises(ShardFailure, match=r"1 of 4 shards failed .*1\.npy") as caught:
        KEPT.influence(made, top_k=12, folder=tmp_path / "kept")
    assert list(caught.value.failures) == [1]
    assert sorted(p.name for p in (tmp_path / "kept").glob("*.answer")) == [f"shard-00000{k}.answer" for k in (0, 2, 3)]
    influences = KEPT.influence(made, top_k=12, folder=tmp_path / "kept", incomplete=True)
    assert influences.provenance["reused"] == 3
    assert "1.npy" in influences.outcome.note
    assert sorted(influences.indices[0].tolist()) == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    whole = KEPT.influence(DATA).values
    torch.testing.assert_close(influences.values, whole.gather(-1, influences.indices), rtol=1e-5, atol=1e-7)


def test_a_shard_that_changed_between_runs_is_named(tmp_path):
    """Assert that a stored answer of other data is not used in silence, and that its file is named."""
    paths = _shards(tmp_path)
    KEPT.influence(paths, top_k=2, folder=tmp_path / "kept")
    np.save(paths[2], DATA[:3].numpy() + 1)
    os.utime(paths[2], ns=(1, 1))
    with pytest.raises(ShardFailure, match=r"2.npy .* has changed since its answer was kept"):
        KEPT.influence(paths, top_k=2, folder=tmp_path / "kept")
    (tmp_path / "kept" / "shard-000002.answer").unlink()
    assert KEPT.influence(paths, top_k=2, folder=tmp_path / "kept").provenance["reused"] == 3


def test_a_shard_that_changes_while_it_is_used_is_named(tmp_path):
    """Assert that the file read is the file opened."""
    paths = _shards(tmp_path)
    source = as_source(paths)
    os.utime(paths[2], ns=(1, 1))
    with pytest.raises(ShardFailure, match=r"2\.npy has changed since it was opened"):
        KEPT.influence(source, top_k=2)


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_a_damaged_answer_is_made_again(harm, tmp_path):
    """Assert the same result after a kept answer was cut, changed or emptied."""
    paths = _shards(tmp_path)
    first = KEPT.influence(paths, groups=list(range(12)), top_k=2, folder=tmp_path / "kept")
    file = tmp_path / "kept" / "shard-000001.answer"
    content = bytearray(file.read_bytes())
    content[-9] ^= 255
    file.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[harm])
    again = KEPT.influence(paths, groups=list(range(12)), top_k=2, folder=tmp_path / "kept")
    assert again.provenance["reused"] == 3
    for name in ("values", "indices", "groups"):
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_a_folder_belongs_to_one_question(tmp_path):
    """Assert that another question, or another recording, is refused before anything is read."""
    KEPT.influence(DATA, top_k=2, folder=tmp_path / "kept")
    with pytest.raises(ValueError, match="another question"):
        KEPT.influence(DATA, top_k=3, folder=tmp_path / "kept")
    other = record(LAW.score, DATA[:2], lambda x: x[:, 1], Grid(10.0, 0.5, 4), anchor=LAW)
    with pytest.raises(ValueError, match="another recording"):
        other.influence(DATA, top_k=2, folder=tmp_path / "kept")


def test_recordings_that_are_none(tmp_path):
    """Assert a sentence for a file that is missing, damaged, or a safetensors file of something else."""
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="is no file"):
        Recording.load(tmp_path / "no.safetensors")
    KEPT.save(tmp_path / "kept.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "kept.safetensors").read_bytes()[:-30])
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        Recording.load(tmp_path / "cut.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no recording"):
        Recording.load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="cannot be written"):
        KEPT.save(tmp_path / "nowhere" / "kept.safetensors")


def test_an_optional_package_that_is_not_installed(monkeypatch, tmp_path):
    """Assert the sentence that says what to install; hiding the package stands for its absence."""
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="saved recordings need safetensors: pip install safetensors"):
        KEPT.save(tmp_path / "kept.safetensors")
    with pytest.raises(ImportError, match="trees need nothing_of_the_kind"):
        needed("nothing_of_the_kind", "trees")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: gallery(3, DATA, f / "a.html"), "influence is a int"),
        (lambda f: gallery(KEPT.influence(DATA), DATA, f / "no" / "a.html"), "cannot be written"),
        (lambda f: gallery(KEPT.influence(DATA), DATA, f / "a.html", image=lambda x: x), "image gave"),
        (lambda f: KEPT.self_influence(DATA), "give one point for each sample"),
        (lambda f: Affine("two"), "scale='two'"),
        (lambda f: record(LAW.score, DATA[:0], lambda x: x[:, 0], Grid(10.0, 0.5, 4), anchor=LAW), "latents is empty"),
    ],
)
def test_bad_calls_beside_influence(call, words, tmp_path):
    """Assert one sentence for each."""
    with pytest.raises((ValueError, TypeError), match=words):
        call(tmp_path)


@pytest.mark.slow
def test_dask_workers_give_the_same_bits_and_survive_a_kill(tmp_path):
    """Assert equal bits with one process and two workers, one of which dies once; and a lost shard by its name."""
    from distributed import Client, LocalCluster

    source = Unsteady(DATA, str(tmp_path / "mark"))
    whole = KEPT.influence(DATA, groups=[0, 1] * 6, top_k=3, shard_rows=3)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        influences = KEPT.influence(source, 3, [0, 1] * 6, client, folder=tmp_path / "kept")
        for name in ("values", "indices", "groups"):
            assert torch.equal(getattr(influences, name), getattr(whole, name))
        with pytest.raises(ShardFailure, match=r"1\.npy .* is not finite"):
            KEPT.influence(_bad_second("nan")(tmp_path)["points"], client=client)


PROGRAM = """
import sys, time, torch
from pathlib import Path
from sensitivity import Recording, Affine
def slow(x):
    time.sleep(0.03)
    return x
kept = Recording.load(sys.argv[1])
found = kept.influence(sys.argv[2:-1], top_k=5, groups=[k % 3 for k in range(600)], transform=slow, shard_rows=5,
                       folder=sys.argv[-1])
torch.save([found.values, found.indices, found.groups, found.provenance["reused"]], Path(sys.argv[-1]) / "result.pt")
"""


@pytest.mark.slow
def test_twenty_kills_lose_only_the_running_shard(tmp_path):
    """Assert that every whole answer outlives SIGKILL at a random moment, and the bits of an undisturbed run."""
    data = torch.randn(600, 4, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "data.npy", data.numpy())
    KEPT.save(tmp_path / "kept.safetensors")
    folder, draw = tmp_path / "answers", random.Random(0)
    files = [str(tmp_path / name) for name in ("kept.safetensors", "data.npy")]
    command = [sys.executable, "-c", PROGRAM, *files, str(folder)]
    before: set[Path] = set()
    for _ in range(20):
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while len(set(folder.glob("*.answer"))) <= len(before) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.1))
        process.kill()
        process.wait()
        after = set(folder.glob("*.answer"))
        assert before < after
        before = after
    subprocess.run(command, check=True)
    *value, reused = torch.load(folder / "result.pt")
    assert reused == len(before)
    whole = KEPT.influence(data, top_k=5, groups=[k % 3 for k in range(600)], shard_rows=5)
    for one, other in zip(value, (whole.values, whole.indices, whole.groups), strict=True):
        assert torch.equal(one, other)
