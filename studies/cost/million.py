"""Influence of a million images on disk: memory, bytes, time beside the bytes and products alone, pruning, workers.

`python -m studies.cost.million` writes 1 000 000 images of 28×28 pixels as bytes (shifted, mirrored copies
of Fashion-MNIST where the Debian package is installed, else of MNIST's digits) to a temporary folder, records 32
samples of a Gaussian mixture over 20 steps, and asks the recording. Numbers are printed as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sensitivity import Affine, GaussianAnchor, Grid, Mixture, Recording, record
from sensitivity.measures.points import BLOCK
from sensitivity.readings.streaming import Recorded
from studies.data import Images, load

SHARD = 16384
BYTES = Affine(2 / 255, -1.0, (784,))


def images() -> Images:
    """Fashion-MNIST where it is installed, else MNIST's digits, 28×28."""
    try:
        return load("fashion")
    except FileNotFoundError:
        return load("mnist")


def augmented(base: Images, count: int, path: Path, seed: int = 0) -> None:
    """Write `count` copies shifted by up to two pixels, every other one mirrored, as bytes, (count, 28, 28)."""
    stored = base.images[:, 0].add(1).mul(127.5).round().to(torch.uint8)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 28, 28))
    draw = torch.Generator().manual_seed(seed)
    for first in range(0, count, SHARD):
        rows = min(SHARD, count - first)
        chosen = stored[torch.randint(len(stored), (rows,), generator=draw)]
        shifts = torch.randint(-2, 3, (rows, 2), generator=draw)
        for a, b in {tuple(shift) for shift in shifts.tolist()}:
            same = (shifts == torch.tensor([a, b])).all(1)
            chosen[same] = chosen[same].roll((a, b), (1, 2))
        chosen[1::2] = chosen[1::2].flip(2)
        out[first : first + rows] = chosen.numpy()
    out.flush()


def recorded(base: Images, samples: int = 32, steps: int = 20, sigma_min: float = 0.05) -> Recording:
    """Samples of a mixture of Gaussians, one a class, and the brightness of their middle."""
    flat = base.images.flatten(1)[:20000]
    classes = [flat[base.of_class(k)[: len(flat)]] for k in range(10)]
    covariances = torch.stack([torch.cov(c.T) + 0.02 * torch.eye(784) for c in classes])
    law = Mixture(torch.full((10,), 0.1), torch.stack([c.mean(0) for c in classes]), covariances)
    latents = 80.0 * torch.randn(samples, 784, generator=torch.Generator().manual_seed(1))
    control = GaussianAnchor.from_data(flat)
    grid = Grid(80.0, sigma_min, steps)
    return record(law.score, latents, middle, grid, anchor=law, trace="hutchinson", probes=4, seed=1, control=control)


def middle(x: Tensor) -> Tensor:
    """Mean of the middle 14×14 pixels, (batch,)."""
    return x.reshape(-1, 28, 28)[:, 7:21, 7:21].mean((1, 2))


def alone(recording: Recording, path: Path, count: int) -> dict[str, float]:
    """CPU seconds for the bytes (read, and made into states) and for the products, each by itself, over all points.

    A stage that takes the expanded way needs two products with a block, a selected one at least one.
    """
    stages = cast(Recorded, recording.parts[0].stages).stages()[0]  # no response was asked
    data = np.load(path, mmap_mode="r")
    start = time.process_time()
    farthest = 0.0
    for first in range(0, count, SHARD):
        states = BYTES(torch.from_numpy(np.array(data[first : first + SHARD])))
        farthest = max(farthest, float(states[:64].norm(dim=1).max()))
    reading = time.process_time() - start
    stages.choose_ways(0.0, farthest)
    block = states[:BLOCK]
    blocks = max(1, min(50, count // BLOCK))
    start = time.process_time()
    for _ in range(blocks):
        for group in stages.groups:
            for _product in range(2 if group.expanded else 1):
                group.x @ block.T
    products = (time.process_time() - start) * count / (blocks * len(block))
    return {"bytes_alone_cpu_s": reading, "products_alone_cpu_s": products}


def memory(reset: bool = False) -> float:
    """Peak of the resident memory in MB since it was last reset (Linux; no number elsewhere)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (line,) = (row for row in status.read_text(encoding="utf-8").splitlines() if row.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def asked(recording: Recording, path: Path, count: int, **options: Any) -> dict[str, Any]:
    """One question, with its time, bytes and growth of the peak of memory."""
    before = memory(reset=True)
    begun = time.process_time()
    groups = (np.arange(count) % 2).tolist()
    result = recording.influence(path, top_k=10, groups=groups, transform=BYTES, shard_rows=SHARD, **options)
    about = result.provenance or {}
    numbers: dict[str, Any] = {name: about[name] for name in ("seconds", "bytes_read", "points")}
    numbers["cpu_s"] = time.process_time() - begun
    numbers["peak_growth_MB"] = memory() - before
    if result.bound is not None:
        numbers |= {"bound": float(result.bound.max()), "pruned": about["pruned"]}
    return numbers | {"largest": float(result.values.abs().max()), "outcome": result.outcome.sentence}


def on_workers(recording: Recording, path: Path, count: int) -> dict[str, float]:
    """Seconds with one and with two Dask workers of one thread each."""
    from distributed import Client, LocalCluster

    seconds = {}
    for workers in (1, 2):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            client.run(_warm)
            seconds[f"workers_{workers}_s"] = asked(recording, path, count, client=client)["seconds"]
    return seconds


def _warm() -> int:
    torch.set_num_threads(1)
    return torch.get_num_threads()


def main() -> None:
    """The measurement, printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--workers", action="store_true", help="also with one and two Dask workers")
    parser.add_argument("--sigma-min", type=float, default=0.05, help="lowest noise level of the path")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = images()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        augmented(base, options.points, path)
        start = time.perf_counter()
        recording = recorded(base, sigma_min=options.sigma_min)
        numbers: dict[str, Any] = {"data": base.name, "points": options.points, "record_s": time.perf_counter() - start}
        numbers["outcome"] = recording.outcome.sentence
        if options.workers:
            numbers |= on_workers(recording, path, options.points)
        else:
            numbers["all"] = asked(recording, path, options.points)
            numbers |= alone(recording, path, options.points)
            limit = 1e-3 * numbers["all"]["largest"]
            numbers["pruning"] = asked(recording, path, options.points, prune=limit)
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
