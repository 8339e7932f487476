"""That the engine computes on the GPU what it computes on the CPU and what the oracles say, without waiting.

Every row that is to be small or zero carries its limit, and `within` says whether it is kept.
"""

from __future__ import annotations

import collections
import copy
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accelerator_parts import networks
from accelerator_parts.plan import Job, Setting
from accelerator_parts.ratio import TwoLaws
from accelerator_parts.store import Row, row
from oracles import AdditivePerturbation, GaussianMixture
from sensitivity import (
    GaussianAnchor,
    Grid,
    Mixture,
    Points,
    Toward,
    as_score,
    influence,
    sample_sensitivity,
    score_derivative,
)
from sensitivity.noise import Noise
from sensitivity.readings.first_order import _start, tangent_slope
from sensitivity.readings.prepare import Options, prepare
from sensitivity.sampler.outcome import Watch
from sensitivity.sampler.path import follow
from studies.cost.timing import peak_memory

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (torch.float64, torch.float32)
RANK, NOISE, BANDWIDTH = 8, 0.05, 0.3
LOCAL = {torch.float64: 1e-9, torch.float32: 2e-3}
# By dimension: steps of the path, and the error that they leave in double precision (the log density's grows with d).
PATHS = {2: (48, 1e-4), 8: (96, 1e-3), 64: (96, 1e-3), 784: (64, 2e-2), 3072: (48, 1e-3)}
CARRIED_UP_TO = 784  # above, the exact trace is too dear: the ratio of the two laws is given instead


def judged(case: str, quantity: str, value: float, limit: float, unit: str = "", **rest: Any) -> Row:
    """A row with its limit; shown where it is exceeded."""
    within = bool(value <= limit)
    note = f"{'within' if within else 'EXCEEDS'} {limit:.1e}"
    return row(case, quantity, value, unit, note=note, **{"shown": not within} | rest)


def oracle_agreement(setting: Setting) -> Iterator[Row]:
    """Scores, their derivatives, sensitivities and influences beside oracles, on image-like laws."""
    for d in (2, 8) if setting.tiny else (2, 64, 784, 3072):
        if setting.left < 5:
            yield row(f"d={d}", "left out: no time", 1, shown=True)
            continue
        problem = Problem(d, setting)
        for dtype in DTYPES:
            yield from _agreement(problem, dtype)


class Problem:
    """A mixture of two low-rank Gaussians plus noise in d dimensions, and the exact values, in NumPy.

    Attributes:
        parts: weights, means, factors and variances of the base law; `new`: the point that gains mass.
    """

    def __init__(self, d: int, setting: Setting) -> None:
        rng = np.random.default_rng(d)
        rank = min(RANK, d)
        sizes = 1.5 / (1 + np.arange(rank))
        factors = rng.standard_normal((2, d, rank)) * sizes / np.sqrt(d)
        self.d, self.device = d, setting.device
        self.parts = (np.array([0.7, 0.3]), rng.standard_normal((2, d)) / np.sqrt(d), factors, np.full(2, NOISE**2))
        law = GaussianMixture.low_rank(*self.parts)
        self.new = np.asarray(law.sample(1, d + 1))
        self.grid = Grid(20.0, 0.3, PATHS[d][0])
        self.latents = 20.0 * rng.standard_normal((2, d))
        self.exact = AdditivePerturbation(law, GaussianMixture.isotropic([1.0], self.new, BANDWIDTH**2))
        self.x = np.asarray(law.sample(8, 5)) + 0.5 * rng.standard_normal((8, d))
        self.flow = self.exact.sample_sensitivity(self.latents, 20.0, 0.3)

    def law(self, dtype: torch.dtype) -> Mixture:
        """The engine's own law on the device."""
        weights, means, factors, variances = (torch.from_numpy(p) for p in self.parts)
        covariances = factors @ factors.mT + variances[:, None, None] * torch.eye(self.d, dtype=torch.float64)
        moved = (part.to(self.device) for part in (weights, means, covariances))
        return Mixture(*moved).to(dtype)

    def tensor(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        """On the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, dtype)


def _agreement(problem: Problem, dtype: torch.dtype) -> Iterator[Row]:
    law, x = problem.law(dtype), problem.tensor(problem.x, dtype)
    case = f"d={problem.d} {str(dtype).split('.')[1]}"
    new = Points(problem.tensor(problem.new, dtype), bandwidth=BANDWIDTH)
    derivative = score_derivative(law.score, x, 0.5, Toward(new), log_density=law)
    local = {"score": law.score(x, 0.5), "score_derivative": derivative}
    truth = {
        "score": problem.exact.score(problem.x, 0.5),
        "score_derivative": problem.exact.score_derivative(problem.x, 0.5),
    }
    for name, value in local.items():
        yield judged(case, f"{name}: error", relative(value, truth[name]), LOCAL[dtype])
    limit = max(PATHS[problem.d][1], 0.0 if dtype == torch.float64 else 2e-2)
    for name, (value, wanted) in _paths(problem, law, new, dtype).items():
        yield judged(case, f"{name}: error", relative(value, wanted), limit)


def _paths(problem: Problem, law: Mixture, new: Points, dtype: torch.dtype) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Samples, sensitivities and influences with their exact values."""
    latents, grid = problem.tensor(problem.latents, dtype), problem.grid
    if problem.d > CARRIED_UP_TO:
        known = sample_sensitivity(law.score, latents, Toward(TwoLaws(new, law)), grid, solver="rk4")
        return {"sample": (known.samples, problem.flow[0]), "sample_sensitivity": (known.sensitivity, problem.flow[1])}
    options: dict[str, Any] = {"anchor": law, "trace": "exact", "solver": "rk4"}
    weights = torch.linspace(-1, 1, problem.d, dtype=dtype, device=problem.device)
    ahead = sample_sensitivity(law.score, latents, Toward(new), grid, **options)
    back = influence(law.score, latents, lambda y: y @ weights, new, grid, **options)
    return {
        "sample": (ahead.samples, problem.flow[0]),
        "sample_sensitivity": (ahead.sensitivity, problem.flow[1]),
        "influence": (back.values[:, 0], problem.flow[1] @ weights.double().cpu().numpy()),
    }


def relative(value: Tensor, truth: np.ndarray) -> float:
    """‖value − truth‖/‖truth‖ in double precision."""
    values = value.detach().double().cpu().numpy()
    return float(np.linalg.norm(values - np.asarray(truth)) / np.linalg.norm(truth))


def marked_tests(setting: Setting) -> Iterator[Row]:
    """The tests marked `cuda`, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "--device", setting.device]
    done = subprocess.run(
        [*command, "tests/unit/sensitivity/test_devices.py"],
        cwd=ROOT, capture_output=True, text=True, timeout=max(setting.budget, 20), check=False,
    )  # fmt: skip
    (setting.folder / "log.txt").open("a").write(done.stdout[-4000:] + done.stderr[-2000:])
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    for word in ("passed", "failed", "error", "skipped"):
        yield row("pytest -m cuda", word, counts.get(word, 0), "tests", shown=word != "error" or "error" in counts)
    yield judged("pytest -m cuda", "exit status", done.returncode, 0)


def same_noise(setting: Setting) -> Iterator[Row]:
    """Keys, bits, signs and normals on the CPU and on the device."""
    shape = (2, 3) if setting.tiny else (1, 64, 64)
    here, there = Noise.draw(64, seed=3), Noise.draw(64, seed=3, device=setting.device)
    options: dict[str, Any] = {"step": 5, "stage": 1, "probes": 2}
    yield judged("noise", "bits that differ", _different(here.bits(shape, **options), there.bits(shape, **options)), 0)
    signs = here.rademacher(shape, **options), there.rademacher(shape, **options)
    yield judged("noise", "signs that differ", _different(*signs), 0)
    normals = here.gaussian(shape, **options), there.gaussian(shape, **options).cpu()
    yield judged("noise", "normals: largest difference", float((normals[0] - normals[1]).abs().max()), 1e-13)


def _different(here: Tensor, there: Tensor) -> int:
    return int((here != there.cpu()).sum())


class Sides:
    """A trained network with GroupNorm, its score, latents, a point and an anchor, on the device."""

    def __init__(self, side: int, batch: int, setting: Setting, dtype: torch.dtype = torch.float32) -> None:
        self.network = networks.trained(side, setting).to(dtype)
        self.score = as_score(self.network, "denoiser")
        self.images = networks.images(side, 16 if setting.tiny else 2048, setting).to(dtype)
        generator = torch.Generator(setting.device).manual_seed(setting.seed + 1)
        noise = torch.randn(self.images[:batch].shape, generator=generator, device=setting.device)
        self.latents = self.images[-batch:] + 2.0 * noise.to(dtype)
        self.anchor = anchor_of(self.images[:512], 8 if setting.tiny else 32)
        self.grid = Grid(2.0, 0.3, 2)
        self.new = Points(self.images[:1], bandwidth=1.5)
        self.options: dict[str, Any] = {"anchor": self.anchor, "trace": "hutchinson", "probes": 1, "seed": 0}


def anchor_of(images: Tensor, rank: int | None = None) -> GaussianAnchor:
    """The moment-matched Gaussian on the images' device; decomposed on the processor, where tall matrices take less."""
    anchor = GaussianAnchor.from_data(images.cpu(), rank)
    parts = (anchor.mean, anchor.eigenvalues, anchor.eigenvectors, anchor.tail)
    return GaussianAnchor.from_factors(*(part.to(images) for part in parts))


def adjoint(setting: Setting) -> Iterator[Row]:
    """The influence of a point is the inner product of the functional's gradient with the sensitivity toward it."""
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        sides = Sides(8 if setting.tiny else 28, 4, setting, dtype)
        weights = torch.linspace(-1, 1, sides.latents[0].numel(), dtype=dtype, device=setting.device)
        ahead = sample_sensitivity(sides.score, sides.latents, Toward(sides.new), sides.grid, **sides.options)
        back = influence(
            sides.score, sides.latents, lambda x, w=weights: x.flatten(1) @ w, sides.new, sides.grid, **sides.options
        )
        wanted = (ahead.sensitivity.flatten(1) @ weights).double()
        gap = (back.values[:, 0].double() - wanted).norm() / wanted.norm()
        yield judged(f"U-Net {str(dtype).split('.')[1]}", "forward − adjoint", float(gap), limit, shown=True)


def waiting(setting: Setting) -> Iterator[Row]:
    """Host synchronisations and kernels of the steps themselves, and peak memory of a whole call."""
    sides = Sides(8 if setting.tiny else 28, 4 if setting.tiny else 32, setting)
    for method in ("auto", "one-sided"):
        steps = prepared_steps(sides, method)
        steps()  # verified, tried, allocated
        case = f"sensitivity, {method}"
        result = synchronisations(steps, setting.device)
        note = "; ".join(f"{place} ×{count}" for place, count in result.most_common(3))
        counted = judged(case, "host synchronisations in all steps", sum(result.values()), 0, shown=True)
        yield {**counted, "note": f"{counted['note']} {note}".strip()}
        stages = 2 * sides.grid.steps
        yield row(case, "kernels a step", kernels(steps, setting.device) / sides.grid.steps, shown=True)
        yield row(case, "stages in all steps", stages)
    call = partial(sample_sensitivity, sides.score, sides.latents, Toward(sides.new), sides.grid, **sides.options)
    yield row("sensitivity, auto, batch 32", "peak memory", peak_memory(call, setting.device) / 2**20, "MiB")


def prepared_steps(sides: Sides, method: str) -> Callable[[], object]:
    """All steps of a sensitivity, prepared: what `sample_sensitivity` does between its checks and its result."""
    known = {key: value for key, value in sides.options.items() if key != "grid"}
    prepared = prepare(sides.score, sides.latents, Toward(sides.new), sides.grid, Options(**known, products=method))
    start = _start(prepared, 1, 1)

    def steps() -> object:
        watch = Watch(len(sides.latents), sides.latents.device)
        return follow(start, prepared.path, tangent_slope(prepared.maps, 1, watch), watch, advance=prepared.advance)

    return steps


def synchronisations(steps: Callable[[], object], device: str) -> collections.Counter[str]:
    """Where the host waits for the GPU during a call, by place in the code; none on a CPU."""
    result: collections.Counter[str] = collections.Counter()
    if not device.startswith("cuda"):
        steps()
        return result  # there is nothing to wait for
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            steps()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "called a synchronizing" in str(warning.message):
            result[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
    return result


def kernels(steps: Callable[[], object], device: str) -> int:
    """Kernels that a call launches; operators on a CPU."""
    from torch.profiler import ProfilerActivity, profile

    gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
        steps()
        if gpu:
            torch.cuda.synchronize()
    kind = torch.autograd.DeviceType.CUDA if gpu else torch.autograd.DeviceType.CPU
    events = [event for event in seen.events() if event.device_type == kind]
    return len([event for event in events if not event.name.startswith(("Memcpy", "Memset"))])


def precision(setting: Setting) -> Iterator[Row]:
    """Errors against double precision of products in float32 with TF32 off and on, and of matrix products alone."""
    side = 8 if setting.tiny else 28
    for allowed in (False, True):
        with tf32(allowed):
            a = torch.randn(512, 512, device=setting.device)
            exact = a.double() @ a.double()
            case = f"TF32 {'on' if allowed else 'off'}"
            yield row(case, "matrix product: error", float(((a @ a).double() - exact).norm() / exact.norm()))
            sides = Sides(side, 4, setting)
            result = sample_sensitivity(sides.score, sides.latents, Toward(sides.new), sides.grid, **sides.options)
        with tf32(False):
            truth = in_double(sides)
        error = (result.sensitivity.double() - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
        yield row(case, "sample_sensitivity: error", float(error.median()), shown=True)


class tf32:
    """Products of single precision on tensor cores, with 10 bits of mantissa, allowed or not while inside."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.allowed

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.before


def in_double(sides: Sides, rows: int = 16) -> Tensor:
    """The first sensitivities in double precision with exact products; their noise does not depend on the batch."""
    network = copy.deepcopy(sides.network).double()
    known = (sides.anchor.mean, sides.anchor.eigenvalues, sides.anchor.eigenvectors, sides.anchor.tail)
    anchor = GaussianAnchor.from_factors(*(part.double() for part in known))
    score, latents = as_score(network, "denoiser"), sides.latents[:rows].double()
    options = sides.options | {"anchor": anchor}
    return sample_sensitivity(score, latents, Toward(sides.new.to(torch.float64)), sides.grid, **options).sensitivity


JOBS = [
    Job("noise", "checks", same_noise, 3, 15),
    Job("adjoint", "checks", adjoint, 6, 40),
    Job("waiting", "checks", waiting, 6, 40),
    Job("oracles", "checks", oracle_agreement, 10, 60),
    Job("cuda tests", "checks", marked_tests, 15, 40),
    Job("precision", "checks", precision, 6, 20),
]
