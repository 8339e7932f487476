"""Recording the adjoint of some samples: forward and back through the sampler, with every stage kept."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import modules_of, outside_inference_mode
from sensitivity._checks import check_states
from sensitivity.grid import Grid
from sensitivity.jacobians.trial import COTANGENTS
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.readings.influences import (
    Functional,
    Passage,
    check_products,
    condensed,
    listed,
    passages,
    total_error,
)
from sensitivity.readings.prepare import UNCHANGED, Options, prepare
from sensitivity.readings.streaming import Recorded
from sensitivity.recordings.identity import name_of, network_name
from sensitivity.recordings.parts import Answered, Part
from sensitivity.recordings.recording import Recording
from sensitivity.responses import POPULATION, Response, SourceResponse, chosen, note
from sensitivity.sampler.local_maps import Cost
from sensitivity.scores.score import Score
from sensitivity.sources.arrays import digest


@outside_inference_mode
def record(
    score: Score,
    latents: Tensor,
    functionals: Functional | Sequence[Functional],
    grid: Grid,
    *,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    solver: Any = "heun",
    denoise: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    control: GaussianAnchor | None = None,
    response: Response = POPULATION,
) -> Recording:
    """Sample, take the gradients of functionals, go back through the transposed sampler, and keep every stage.

    `record(...).influence(points)` is `influence(score, latents, functionals, points, grid, ...)`, to the last bit; the
    recording can be saved, and asked about data that are too large for memory. It holds (3 + F) numbers for each
    entry, stage and sample: 40 stages of 32 images of 784 entries are 16 MB in single precision. Of a response of
    parameters it holds F solutions of the size of the network for each sample, and no stages.

    Args:
        score, latents, functionals, grid: as for `influence`; at least one latent.

    Other args:
        anchor, trace, probes, generator, seed, solver, denoise, chunk_size, products, progress, control: as for
            `sample_sensitivity`.
        response: as for `sample_sensitivity`. The population's needs nothing but the stages afterwards; another one is
            asked again for each point (a gradient of the training loss, of parameters), goes to the workers of a
            `client` with its network and data, and is to be given to `Recording.load`.

    Raises:
        ValueError, TypeError: as `influence` does.

    Example:
        >>> from sensitivity import Mixture
        >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
        >>> kept = record(base.score, torch.zeros(4, 1), lambda x: x[:, 0], Grid(10.0, 0.1, 20), anchor=base)
        >>> kept.samples.shape, kept.made_from["solver"]
        (torch.Size([4, 1]), 'heun')
    """
    check_products(products)
    wanted = listed(functionals)
    check_states(latents, "latents")
    if not len(latents):
        raise ValueError("latents is empty: give at least one latent to record.")
    answer = chosen(response)
    other = answer if isinstance(answer, SourceResponse) else None
    options = Options(
        anchor=anchor,
        trace=trace,
        probes=probes,
        generator=generator,
        seed=seed,
        solver=solver,
        denoise=denoise,
        products=products,
        control=control,
        progress=progress,
        response=other,
    )
    # What the seed is, before a generator moves on.
    drawn = seed if generator is None else int(generator.initial_seed())
    prepared = prepare(score, latents, UNCHANGED, grid, options, uses=COTANGENTS, density=other is None, passes=2)
    parts: list[Part] = []
    cost = Cost()
    for passage in passages(prepared, wanted, chunk_size):
        stages = _kept(passage, other)
        outcome, cost = passage.watch.read(), passage.prepared.maps.cost if not parts else cost
        parts.append(
            Part(
                stages=stages,
                samples=passage.samples,
                functional=passage.functional,
                log_density=passage.logs.value,
                log_density_error=passage.logs.error,
                grid_error=passage.logs.grid,
                codes=outcome.codes,
                levels=outcome.levels,
            )
        )
    if other is not None:
        cost = replace(cost, away=other.evaluations)
    made = {
        "levels": prepared.grid.levels.tolist(),
        "solver": solver if isinstance(solver, str) else repr(solver),
        "trace": trace,
        "probes": probes,
        "seed": drawn,
        "denoise": denoise,
        "products": products,
        "functionals": [name_of(f) for f in wanted],
        "response": type(answer).__name__,
        "score": name_of(score),
        "networks": [network_name(m) for m in modules_of(score)],
        "anchor": type(anchor).__name__,
        "latents": digest(latents),
        "cost": vars(cost).copy(),
        "note": note(score) if other is None else "",
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "recording": 1},
    }
    return Recording.of(tuple(parts), isinstance(functionals, Sequence), made, other)


def _kept(passage: Passage, response: SourceResponse | None) -> Recorded | Answered:
    if response is None:
        error = total_error(passage.logs.error, passage.logs.grid)
        return Recorded.of(passage.prepared.maps, list(passage.pairings), error)
    return Answered(condensed(response, passage))
