"""What the engine's answers cost on the GPU, beside a hand-written single pass and the machine's own ceilings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from accelerator_parts.checks import Sides, in_double, prepared_steps, tf32
from accelerator_parts.clock import LEAST, compared, seconds, times
from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import Row, row
from sensitivity import Points, Toward, influence, sample_sensitivity
from studies.cost.timing import peak_memory

ROUNDS = 9
PASS, EXACT, ONE_SIDED = "fused pass", "sensitivity", "sensitivity, one-sided"
SHOWN = (32, 64)  # batches whose ratios are printed
# Side, batch and precision.
CASES = (
    (28, 32, "TF32"), (28, 32, "bfloat16"), (28, 32, "float32"),
    (64, 64, "float32"), (64, 64, "TF32"), (64, 64, "bfloat16"), (64, 8, "float32"),
    (28, 256, "float32"), (28, 256, "TF32"), (28, 256, "bfloat16"), (28, 8, "float32"), (28, 128, "float32"),
)  # fmt: skip


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """Products in single precision, on tensor cores with 10 bits, or in bfloat16 by autocast."""
    kind = torch.device(device).type
    with tf32(name == "TF32"), torch.autocast(kind, torch.bfloat16, enabled=name == "bfloat16"):
        yield


def fused(sides: Sides) -> Tensor:
    """Heun's method with log p along the path, one probe a stage, reverse mode: what a user writes in twenty lines."""
    x, levels = sides.latents, sides.grid.levels.tolist()
    log = sides.anchor.log_density(x, torch.full((), levels[0], device=x.device, dtype=x.dtype))
    for start, end in pairwise(levels):
        score, divergence = _with_divergence(sides, x, start)
        ahead, ahead_divergence = _with_divergence(sides, x + (start - end) * start * score, end)
        x = x + 0.5 * (start - end) * (start * score + end * ahead)
        log = log - 0.5 * (start - end) * (start * divergence + end * ahead_divergence)
    return log


def _with_divergence(sides: Sides, x: Tensor, level: float) -> tuple[Tensor, Tensor]:
    probe = torch.randint_like(x, 2) * 2 - 1
    with torch.enable_grad():
        state = x.detach().requires_grad_()
        denoised = sides.network(state, torch.full(x.shape[:1], level, device=x.device, dtype=x.dtype)).to(x.dtype)
        score = (denoised - state) / level**2
        (image,) = torch.autograd.grad(score, state, probe)
    return score.detach(), (image * probe).flatten(1).sum(1)


def ceilings(setting: Setting) -> Iterator[Row]:
    """What the machine does at best: bytes copied, from the host too, and operations of matrix products."""
    size = 2**20 if setting.tiny else 2**31
    source = torch.empty(size // 4, device=setting.device).normal_()
    goal = torch.empty_like(source)
    taken = times({"copy": lambda: goal.copy_(source)}, setting.device, rounds=LEAST)["copy"].min()
    yield row("device copy, read and written", "bandwidth", 2 * size / taken / 1e9, "GB/s", shown=True)
    host = torch.empty(size // 32, pin_memory=setting.device.startswith("cuda")).normal_()
    place = goal[: len(host)]
    taken = times({"host": lambda: place.copy_(host, non_blocking=True)}, setting.device, rounds=LEAST)["host"].min()
    yield row("pinned host to device", "bandwidth", 4 * len(host) / taken / 1e9, "GB/s", shown=True)
    n = 64 if setting.tiny else 8192
    for name, dtype, allowed in (
        ("float64", torch.float64, False), ("float32", torch.float32, False), ("TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):  # fmt: skip
        a, b = (torch.randn(n, n, device=setting.device).to(dtype) for _ in range(2))
        with tf32(allowed):
            taken = times({"product": lambda a=a, b=b: a @ b}, setting.device, rounds=LEAST)["product"].min()
        yield row(f"matrix product {name}", "rate", 2 * n**3 / taken / 1e12, "TFLOP/s", shown=True)


def sensitivities(setting: Setting) -> Iterator[Row]:
    """Sensitivities beside the fused pass, by side, batch and precision, with errors against double precision."""
    cases = ((8, 2, "float32"), (8, 2, "bfloat16")) if setting.tiny else CASES
    known: dict[tuple[int, int], tuple[Sides, Tensor]] = {}
    for side, batch, name in cases:
        if setting.left < 5:
            yield row(f"{side}² batch {batch} {name}", "left out: no time", 1)
            continue
        if (side, batch) not in known:
            sides = Sides(side, batch, setting)
            with tf32(False):
                known = {(side, batch): (sides, in_double(sides))}
        yield from _case(*known[side, batch], f"{side}² batch {batch} {name}", name, setting)


def _case(sides: Sides, exact: Tensor, case: str, name: str, setting: Setting) -> Iterator[Row]:
    def own(products: str) -> Tensor:
        return sample_sensitivity(
            sides.score, sides.latents, Toward(sides.new), sides.grid, products=products, **sides.options
        ).sensitivity

    runs: dict[str, Callable[[], Tensor]] = {
        PASS: lambda: fused(sides),
        EXACT: lambda: own("auto"),
        ONE_SIDED: lambda: own("one-sided"),
    }
    with precision(name, setting.device):
        for method in (EXACT, ONE_SIDED):
            try:
                runs[method]()
            except ValueError as error:  # refused in this precision, which must not cost the others
                del runs[method]
                yield row(case, f"{method}: refused", 1, shown=True, note=str(error)[:90])
        values = times(runs, setting.device, rounds=2 if setting.tiny else ROUNDS)
        known = [method for method in (EXACT, ONE_SIDED) if method in runs]
        yield from compared(case, values, PASS, shown=known if len(sides.latents) in SHOWN else ())
        for method in known:
            values = runs[method]()[: len(exact)].double()
            gap = (values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
            yield row(case, f"{method}: error", float(gap.median()), high=float(gap.max()))
        yield row(case, "peak memory", peak_memory(runs[known[0] if known else PASS], setting.device) / 2**20, "MiB")


def influences(setting: Setting) -> Iterator[Row]:
    """Influence of 60 000 points on the device, and of a million that stay in host memory, with shares of the roof."""
    side, batch = (8, 2) if setting.tiny else (28, 32)
    sides = Sides(side, batch, setting)
    few, many = (300, 1000) if setting.tiny else (60_000, 1_000_000)
    rounds = 2 if setting.tiny else LEAST
    for name in ("float32", "TF32"):
        points = Points(_images(few, sides, setting), bandwidth=0.5, block=2048 if setting.tiny else 16_384)
        with precision(name, setting.device):
            runs = {PASS: lambda: fused(sides), "influence": _influence(sides, points)}
            spent = times(runs, setting.device, rounds=rounds, warmup=1)
        case = f"{few} points of {side * side}, batch {batch}, {name}"
        yield from compared(case, spent, PASS, shown=("influence",))
        yield from _share(case, spent["influence"].min() - spent[PASS].min(), sides, few)
    if setting.left < 30 and not setting.tiny:
        yield row("a million points", "left out: no time", 1, shown=True)
        return
    yield from _streamed(sides, many, setting)


def _influence(sides: Sides, points: Points, top_k: int | None = None) -> Callable[[], Any]:
    return lambda: influence(
        sides.score, sides.latents, lambda x: x.flatten(1).mean(1), points, sides.grid, top_k=top_k, **sides.options
    )


def _images(count: int, sides: Sides, setting: Setting) -> Tensor:
    """Many different images on the device: known ones with a little noise."""
    generator = torch.Generator(setting.device).manual_seed(setting.seed)
    rows = torch.randint(len(sides.images), (count,), generator=generator, device=setting.device)
    noise = torch.randn(count, *sides.images.shape[1:], generator=generator, device=setting.device)
    return sides.images[rows] + 0.05 * noise


def _streamed(sides: Sides, count: int, setting: Setting) -> Iterator[Row]:
    block = count // 16
    gpu = setting.device.startswith("cuda")
    host = torch.empty(count, *sides.images.shape[1:], pin_memory=gpu)
    for part in host.split(block):
        part.copy_(_images(len(part), sides, setting))
    points = Points(host, bandwidth=0.5, block=min(block, 16_384))
    run = _influence(sides, points, top_k=100)
    run()
    taken = [seconds(run, setting.device) for _ in range(1 if setting.tiny else 3)]
    case = f"{count} points of {host[0].numel()} in host memory, batch {len(sides.latents)}"
    yield row(
        case, "influence, 100 largest", 1e3 * min(taken), "ms", low=1e3 * min(taken), high=1e3 * max(taken), shown=True
    )
    moved = host.numel() * host.element_size()
    yield row(case, "points moved", moved / min(taken) / 1e9, "GB/s", shown=True)
    yield row(case, "peak memory", peak_memory(run, setting.device) / 2**20, "MiB")
    near = Points(host[: 100 if setting.tiny else 2000].to(setting.device), bandwidth=0.5)
    here, there = _influence(sides, near)().values, _influence(sides, Points(near.data.cpu(), bandwidth=0.5))().values
    yield row(case, "host − device", float((here - there).norm() / here.norm()), shown=True)


def _share(case: str, taken: float, sides: Sides, count: int) -> Iterator[Row]:
    """Operations of the two products of all points with all stages, over the time beyond one pass."""
    operations = 2 * 2 * count * sides.latents[0].numel() * len(sides.latents) * 2 * sides.grid.steps
    yield row(case, "rate of the points' products", operations / max(taken, 1e-9) / 1e12, "TFLOP/s", shown=True)


def graphs(setting: Setting) -> Iterator[Row]:
    """The network's call and a step of the sensitivity as recorded graphs, where they can be recorded."""
    for batch in (2,) if setting.tiny else (8, 128):
        sides = Sides(8 if setting.tiny else 28, batch, setting)
        level = torch.full((batch,), 1.0, device=setting.device)
        yield from _recorded(
            "network call", f"batch {batch}", lambda s=sides, v=level: s.network(s.latents, v), setting
        )
        for method in ("auto", "double-vjp", "one-sided"):
            steps = prepared_steps(sides, method)
            yield from _recorded(f"all steps, {method}", f"batch {batch}", steps, setting)


def _recorded(what: str, case: str, run: Callable[[], Any], setting: Setting) -> Iterator[Row]:
    """Times of a call and of the replay of its recording; or why it cannot be recorded."""
    if not setting.device.startswith("cuda"):
        run()
        yield row(case, f"{what}: recorded", 0, note="no GPU")
        return
    try:
        with torch.no_grad():
            graph, value = record(run)
    except RuntimeError as error:
        torch.cuda.synchronize()
        reason = str(error).strip().splitlines()[0]
        yield row(case, f"{what}: recorded", 0, shown=True, note=reason[:60])
        return
    with torch.no_grad():
        spent = times({"called": run, "replayed": graph.replay}, setting.device, rounds=ROUNDS)
        graph.replay()
        gap = _gap(value, run())
    yield from compared(f"{what}, {case}", spent, "called", shown=("replayed",))
    yield row(f"{what}, {case}", "replayed − called", gap)


def record(run: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of the call, and what it writes its value into."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = run()
    return graph, value


def _gap(one: Any, other: Any) -> float:
    first, second = (value if isinstance(value, Tensor) else value.tangent for value in (one, other))
    return float((first - second).norm() / second.norm())


def compilation(setting: Setting) -> Iterator[Row]:
    """`torch.compile` of the network: seconds until it is ready, and times of a call and of a sensitivity."""
    sides = Sides(8 if setting.tiny else 28, 2 if setting.tiny else 32, setting)
    level = torch.full(sides.latents.shape[:1], 1.0, device=setting.device)
    compiled = sides.network if setting.tiny else torch.compile(sides.network)  # a rehearsal needs no compiler
    start = time.monotonic()
    with torch.no_grad():
        value = compiled(sides.latents, level)
        yield row("torch.compile", "first call", time.monotonic() - start, "s", shown=True)
        plain = sides.network(sides.latents, level)
        yield row("torch.compile", "compiled − plain", float((value - plain).norm() / plain.norm()))
        runs = {
            "plain": lambda: sides.network(sides.latents, level),
            "compiled": lambda: compiled(sides.latents, level),
        }
        spent = times(runs, setting.device, rounds=2 if setting.tiny else ROUNDS)
        yield from compared("network call", spent, "plain", shown=("compiled",))


JOBS = [
    Job("ceilings", "cost", ceilings, 4, 15),
    Job("sensitivities", "cost", sensitivities, 20, 65),
    Job("influences", "cost", influences, 15, 50),
]
COMPILATION = Job("compilation", "cost", compilation, 25, 40)  # never got time at the end: a small budget, earlier
# A recording that fails may leave the GPU's state behind: nothing that matters more comes after it.
LATER = [Job("graphs", "cost", graphs, 15, 35)]
