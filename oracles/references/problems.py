"""The exact problems of the reference tables."""

from __future__ import annotations

from typing import Any

import numpy as np

LOCAL: dict[str, dict[str, Any]] = {
    "line": {
        "about": "three components on the line, unequal weights",
        "base": {
            "weights": [0.5, 0.3, 0.2],
            "means": [[-2.0], [0.5], [3.0]],
            "covariances": [[[0.3]], [[0.1]], [[0.6]]],
        },
        "toward": {"weights": [0.6, 0.4], "means": [[-1.0], [2.0]], "covariances": [[[0.4]], [[0.3]]]},
    },
    "plane": {
        "about": "two correlated components in the plane",
        "base": {
            "weights": [0.35, 0.65],
            "means": [[-1.2, 0.4], [0.9, -0.3]],
            "covariances": [[[0.5, 0.2], [0.2, 0.3]], [[0.25, -0.1], [-0.1, 0.6]]],
        },
        "toward": {"weights": [1.0], "means": [[0.2, 0.7]], "covariances": [[[0.3, 0.1], [0.1, 0.2]]]},
    },
    "repeated": {
        "about": "an isotropic and a singular component; the added law is a point",
        "base": {
            "weights": [0.75, 0.25],
            "means": [[0.0, 1.0], [1.5, -0.5]],
            "covariances": [[[0.5, 0.0], [0.0, 0.5]], [[0.25, 0.5], [0.5, 1.0]]],
        },
        "toward": {"weights": [1.0], "means": [[0.5, 0.5]], "covariances": [[[0.0, 0.0], [0.0, 0.0]]]},
    },
    "sharp": {
        "about": "eigenvalues from 0.5 to 1e-6 in space, one weight of 1e-300",
        "base": {
            "weights": [0.6, 0.4, 1e-300],
            "means": [[0.0, 0.5, -1.0], [1.0, -1.0, 0.5], [4.0, 4.0, 4.0]],
            "covariances": [
                [[0.5, 0.0, 0.0], [0.0, 0.025, 0.0], [0.0, 0.0, 1e-6]],
                [[0.5, 0.25, 0.0], [0.25, 0.5, 0.125], [0.0, 0.125, 0.0625]],
                [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            ],
        },
        "toward": {
            "weights": [1.0],
            "means": [[0.5, 0.25, -0.75]],
            "covariances": [[[0.25, 0.0, 0.0], [0.0, 0.25, 0.125], [0.0, 0.125, 0.25]]],
        },
    },
    "points": {
        "about": "an empirical law with two near-duplicates",
        "base": {
            "weights": [0.125, 0.25, 0.375, 0.25],
            "means": [[0.0, 0.0], [1.0, 0.25], [-0.5, 1.5], [-0.5001, 1.5]],
            "covariances": [[[0.0, 0.0], [0.0, 0.0]]] * 4,
        },
        "toward": {"weights": [1.0], "means": [[0.75, 0.5]], "covariances": [[[0.0, 0.0], [0.0, 0.0]]]},
    },
}
LEVELS = (1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4)

LINE: dict[str, dict[str, Any]] = {
    "normals": {
        "base": {
            "law": "normals",
            "weights": [0.5, 0.3125, 0.1875],
            "means": [-2.0, 0.5, 3.0],
            "variances": [0.3, 0.1, 0.6],
        },
        "toward": {"law": "normals", "weights": [0.625, 0.375], "means": [-1.0, 2.0], "variances": [0.4, 0.3]},
    },
    "overlapping": {
        "base": {"law": "normals", "weights": [0.5, 0.5], "means": [0.0, 0.4], "variances": [1.0, 1.2]},
        "toward": {"law": "normals", "weights": [1.0], "means": [0.2], "variances": [0.9]},
    },
    "uniform_to_laplace": {
        "base": {"law": "uniform", "low": -1.0, "high": 2.0},
        "toward": {"law": "laplace", "location": 0.5, "scale": 0.3},
    },
    "laplace_to_uniform": {
        "base": {"law": "laplace", "location": 0.0, "scale": 1.0},
        "toward": {"law": "uniform", "low": -1.0, "high": 1.0},
    },
}
LINE_LATENTS = (-2.125, -0.5, 0.0375, 0.875)
"""In units of sigma_max."""
LINE_LEVELS = ((80.0, 0.001), (80.0, 0.25), (10.0, 0.05))

FLOW = ("plane", "sharp")
FLOW_LATENTS = {"plane": [[37.0, -61.0], [-90.0, 12.0], [5.0, 2.0]], "sharp": [[37.0, -61.0, 20.0]]}
FLOW_LEVELS = (80.0, 0.01)


def local_states(problem: dict[str, Any], sigma: float) -> list[list[float]]:
    """A typical state, one 3 and one 100 standard deviations out, and one between two components."""
    base = {key: np.array(value) for key, value in problem["base"].items()}
    means, k, d = base["means"], 0, base["means"].shape[1]
    spread = np.sqrt(np.trace(base["covariances"][k]) / d + sigma**2)
    direction = np.cos(1.0 + np.arange(d)) + 0.3
    direction = direction / np.linalg.norm(direction)
    outward = [means[k] + t * spread * direction for t in (0.3, 3.0, 100.0)]
    return [list(map(float, x)) for x in (*outward, 0.55 * means[0] + 0.45 * means[1])]
