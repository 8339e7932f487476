"""Study `single_pass_long`: what sensitivities and influences cost beside one hand-written pass, in twenty steps.

Protocol, fixed before any result
---------------------------------
The study `single_pass` timed paths of two steps (eight of the perceptron, six of one convolutional network), and its
bounds failed there. By counting products, the shortest paths are the dearest (`studies.cost.benchmarks.fused_long`),
and samplers take some twenty steps: so the same networks, images, batches and bounds on twenty steps, timed as `cost`
times. Counting puts the exact sensitivity at 64/40 = 1.6, the bound itself: whether it holds was not known.

It ran twice. After the first run (4 of 18 claims held, 4 were open; a sensitivity of the diffusers network took 1.98
and an influence of convolutions 2.09 of the pass) the engine was changed: fused attention in blocks that fit a cache,
graphs of an influence kept up to a gigabyte. The second run, protocol as it was, is the one that is published.
May touch: `studies.cost`, which runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from studies.cost import Config as CostConfig
from studies.cost import benchmarks, claims, figures, run_cell
from studies.single_pass import cells

__all__ = ["NAME", "QUESTION", "SERIAL", "Config", "cells", "claims", "figures", "run_cell"]

NAME = "single_pass_long"
QUESTION = "What do sensitivities and influences cost beside one hand-written pass of twenty steps?"
SERIAL = True


@dataclass(frozen=True)
class Config(CostConfig):
    """As for `cost`; `only` names the benchmark."""

    only: tuple[str, ...] = benchmarks.LONG
