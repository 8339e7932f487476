"""What the tuned attributors were tuned on: images, halves and latents that no problem of the task has.

    python -m studies.attribution.tuning [METHOD]

scores every candidate of a tuned method on the setting `digits-tuning` (200 digits of three other classes, 48 halves,
two seeds, 16 latents; made by `python -m studies.verification.attributions.images digits-tuning`) and prints its score
(LDS), mean over the outputs that have a first-order answer. The largest is written into
`studies.attribution.attributors` by hand. No query of a problem is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from studies.attribution import attributors
from studies.datamodelling import by_query
from studies.verification.attributions.tiers import given, shipped
from studies.verification.problem import Meter

__all__ = ["CANDIDATES", "SETTING", "scores"]

SETTING = "digits-tuning"
OUTPUTS = ("ink", "contrast", "logit", "loss", "density")
SHARES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
CANDIDATES: dict[str, list[tuple[str, Callable[[Any], Any]]]] = {
    "D-TRAK": [(f"damping {share:g}", partial(attributors.d_trak, share=share)) for share in SHARES],
    "D-TRAK features": [(f"damping {share:g}", partial(attributors.d_trak_outputs, share=share)) for share in SHARES],
    "DAS": [(f"damping {share:g}", partial(attributors.das, share=share)) for share in SHARES],
    "DAS, every pixel": [(f"damping {share:g}", partial(attributors.das_images, share=share)) for share in SHARES],
    "patch weights": [
        (f"level {level:g}, side {side:g}", partial(attributors.patches, level=level, side=side))
        for level in (0.25, 0.5, 1.0, 2.0, 4.0)
        for side in (0.1, 0.2, 0.4, 0.7, 0.9)
    ],
}


class _Problem:
    """The fields of a problem, with its name."""

    def __init__(self, name: str, functional: str) -> None:
        self.name, self.seed = f"{name}-{functional}", 0
        self.__dict__.update(given(name, functional, 0, Meter(10**12)))


def scores(methods: Sequence[str] = tuple(CANDIDATES)) -> dict[str, dict[str, float]]:
    """Mean score over outputs and queries by method and candidate."""
    stored = shipped(SETTING)
    means: dict[str, dict[str, list[float]]] = {}
    for functional in OUTPUTS:
        for method in methods:
            for title, attribute in CANDIDATES[method]:
                values = np.asarray(attribute(_Problem(SETTING, functional)))
                score = float(by_query(stored.masks, stored.of(functional), values).mean())
                means.setdefault(method, {}).setdefault(title, []).append(score)
    return {method: {title: float(np.mean(each)) for title, each in of.items()} for method, of in means.items()}


if __name__ == "__main__":
    for name, of in scores(sys.argv[1:] or tuple(CANDIDATES)).items():
        print(name, {title: round(value, 3) for title, value in of.items()})
