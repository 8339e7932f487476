"""The engine beside the hand-written pass of `fused`, on paths of the length that samplers have: twenty steps.

A sensitivity takes a node more than there are steps, and its first two steps take a divergence at both stages: counted
in products, two steps cost it ten where the pass by hand has four, and twenty cost it sixty-four where that has forty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from studies.cost.benchmarks import Setup, fused

__all__ = ["EXPECTED", "QUESTION", "SIZES", "prepare"]

QUESTION = "What do they cost on paths of twenty steps?"
STEPS = 20
# Sixteen perturbations and public packages are those of `fused`.
SHOWN = (fused.FUSED, fused.OWN, fused.ONE_SIDED, fused.INFLUENCE)
SIZES = {
    "smoke": [{"kind": "mlp", "width": 32, "depth": 2, "training": 5, **fused.SMALL, "steps": 4}],
    "quick": [{**fused.MLP, "points": 10_000, "steps": STEPS}],
    "full": [
        *({**each, "steps": STEPS} for each in (fused.CONV, fused.MLP, fused.TRANSFORMER, fused.DIFFUSERS)),
        *({**each, "steps": STEPS, "batch": 32} for each in (fused.CONV, fused.MLP)),
    ],
}
EXPECTED = tuple(bound for bound in fused.EXPECTED if bound.alternative != fused.MANY)


def prepare(parameters: Mapping[str, Any], device: str, seed: int) -> Setup:
    """As `fused`, without sixteen perturbations and public packages."""
    setup = fused.prepare(parameters, device, seed)
    return replace(setup, alternatives={name: setup.alternatives[name] for name in SHOWN})
