"""Every public entry with every argument made wrong in every way: a sentence of our own, or the right result.

The cases are a product, entries × arguments × bad values. Each must end in a ValueError, TypeError or ImportError that
this package raises and that names the argument, or in a finite result that equals the one for the good argument.
`python tests/faults/test_bad_inputs_of_entries.py` counts how they end.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sensitivity
from sensitivity import (
    SDE,
    Adaptive,
    Formula,
    GaussianAnchor,
    Grid,
    Groups,
    Mixture,
    NetworkMeasure,
    PerBranch,
    Points,
    Remove,
    Reweight,
    Toward,
    as_score,
    counterfactual,
    functionals,
    group_values,
    guided,
    influence,
    log_density,
    log_density_ratio,
    resample,
    sample_sensitivity,
    score_derivative,
)

HOME = Path(sensitivity.__file__).parent
OURS = (ValueError, TypeError, ImportError)
DATA = torch.tensor([[0.0, 1.0], [1.0, -1.0], [2.0, 2.0]], dtype=torch.float64)
LAW = Mixture(None, DATA, 0.5)
GRID = Grid(10.0, 0.5, 4)
X = torch.tensor([[3.0, -2.0], [9.0, 4.0]], dtype=torch.float64)
NEW = Toward(Mixture(None, torch.ones(1, 2, dtype=torch.float64), 0.5))


GROUPS = Groups(Points(DATA, bandwidth=0.5), {"first": [0], "last": [2]})


class Law:
    """An anchor made of a function."""

    def __init__(self, call: Callable[[Tensor, Tensor], Any]) -> None:
        self.log_density = call


def _single(x: Tensor, sigma: Tensor) -> Tensor:
    return _NET(x)


torch.manual_seed(0)
_NET = nn.Linear(2, 2)


def scores() -> dict[str, Any]:
    """Wrong scores."""
    return {
        "none": None,
        "a word": "score",
        "a number": 3.0,
        "a tensor": DATA,
        "returns none": lambda x, sigma: None,
        "returns numpy": lambda x, sigma: LAW.score(x, sigma).detach().numpy(),
        "returns a scalar": lambda x, sigma: x.sum(),
        "returns a column": lambda x, sigma: x[:, :1],
        "returns complex": lambda x, sigma: torch.complex(LAW.score(x, sigma), 0 * x),
        "returns integers": lambda x, sigma: x.long(),
        "single network": _single,
        "as_score of a single network": as_score(lambda x, sigma: _NET(x)),
        "x in place": lambda x, sigma: _in_place(x, sigma),
        "sigma in place": lambda x, sigma: LAW.score(x, sigma.mul_(1.0)) + 0 * sigma.mul_(2.0).reshape(-1, 1),
    }


def _in_place(x: Tensor, sigma: Tensor) -> Tensor:
    value = LAW.score(x.clone(), sigma)
    return x.zero_() + value


def states(good: Tensor) -> dict[str, Any]:
    """Wrong batches of states, and some that are unusual and right."""
    return {
        "none": None,
        "a word": "x",
        "a list": good.tolist(),
        "numpy": good.numpy(),
        "integers": good.long(),
        "booleans": good > 0,
        "complex": torch.complex(good, good),
        "half": good.half(),
        "bfloat16": good.bfloat16(),
        "meta": good.to("meta"),
        "sparse": good.to_sparse(),
        "nan": good * float("nan"),
        "inf": good / 0,
        "one axis": good[0],
        "no axis": good.flatten()[0],
        "another shape": torch.cat([good, good], -1),
        "single": good.float(),
        "requires grad": good.clone().requires_grad_(),
        "transposed strides": good.T.contiguous().T if good.ndim == 2 else good[:],
    }


def numbers() -> dict[str, Any]:
    """Wrong positive numbers."""
    return {
        "none": None,
        "a word": "wide",
        "a list": [1.0],
        "true": True,
        "zero": 0.0,
        "negative": -1.0,
        "nan": float("nan"),
        "inf": float("inf"),
        "complex": 1j,
        "two": torch.ones(7),
        "complex tensor": torch.tensor(1j),
        "meta": torch.ones((), device="meta"),
    }


def counts() -> dict[str, Any]:
    """Wrong counts."""
    return {
        "a half": 1.5,
        "true": True,
        "zero": 0,
        "negative": -2,
        "a word": "many",
        "a list": [1],
        "nan": float("nan"),
    }


def grids() -> dict[str, Any]:
    """What is no grid."""
    return {"none": None, "a list": [10.0, 1.0], "levels": GRID.levels, "a number": 10.0, "a word": "karras"}


def anchors() -> dict[str, Any]:
    """Wrong anchors."""
    return {
        "none": None,
        "a word": "gaussian",
        "a tensor": DATA,
        "a class": GaussianAnchor,
        "returns none": Law(lambda x, sigma: None),
        "returns a number": Law(lambda x, sigma: 1.0),
        "returns a scalar": Law(lambda x, sigma: x.sum()),
        "returns one": Law(lambda x, sigma: x.sum()[None]),
        "returns a column": Law(lambda x, sigma: x[:, :1]),
        "returns numpy": Law(lambda x, sigma: x[:, 0].numpy()),
        "returns complex": Law(lambda x, sigma: torch.complex(x[:, 0], x[:, 1])),
        "returns integers": Law(lambda x, sigma: x[:, 0].long()),
        "in place": Law(lambda x, sigma: LAW.log_density(x, sigma.mul_(1.0)) + 0 * x.zero_()[:, 0]),
    }


def words() -> dict[str, Any]:
    """Wrong choices."""
    return {"none": None, "a word": "magic", "a number": 3, "a list": ["heun"]}


def changes() -> dict[str, Any]:
    """What is no perturbation."""
    return {
        "none": None,
        "data": DATA,
        "a measure": LAW,
        "empty": [],
        "a word": "remove",
        "branches": PerBranch(NEW, NEW),
    }


def whole_functionals() -> dict[str, Any]:
    """Wrong functionals."""
    return {
        "none": None,
        "a word": "ink",
        "empty": [],
        "a tensor": DATA,
        "returns none": lambda x: None,
        "returns numpy": lambda x: x.detach().numpy()[:, 0],
        "returns states": lambda x: x,
        "returns complex": lambda x: torch.complex(x[:, 0], x[:, 1]),
        "returns integers": lambda x: x[:, 0].long(),
        "returns nan": lambda x: x[:, 0] * float("nan"),
        "constant": lambda x: torch.ones(len(x)).double(),
        "in place": lambda x: x.mul_(1.0)[:, 0],
    }


BASE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sample_sensitivity": (
        lambda **a: sample_sensitivity(**a).sensitivity,
        {"score": LAW.score, "latents": X, "perturbation": NEW, "grid": GRID, "anchor": LAW},
    ),
    "influence": (
        lambda **a: influence(**a).values,
        {
            "score": LAW.score,
            "latents": X,
            "functional": lambda x: x[:, 0],
            "points": DATA,
            "grid": GRID,
            "anchor": LAW,
        },
    ),
    "resample": (
        lambda **a: resample(**a).samples,
        {"score": LAW.score, "latents": X, "perturbation": NEW, "eta": 0.3, "grid": GRID, "anchor": LAW},
    ),
    "counterfactual": (
        lambda **a: counterfactual(**a).values,
        {"score": LAW.score, "latents": X, "groups": GROUPS, "grid": GRID, "anchor": LAW, "functional": None}
        | {"form": "finite", "share": 0.5, "calibration": None},
    ),
    "group_values": (
        lambda **a: group_values(**a).values,
        {"score": LAW.score, "latents": X, "groups": GROUPS, "grid": GRID, "functional": lambda x: x[:, 0]}
        | {"anchor": LAW, "kind": "shapley", "keep": 0.0, "permutations": None},
    ),
    "log_density": (
        lambda **a: log_density(**a).value,
        {"score": LAW.score, "x": X, "sigma": 1.0, "anchor": LAW, "grid": GRID},
    ),
    "log_density formula": (
        lambda **a: log_density(**a, method="formula", evaluations=64, seed=0).value,
        {"score": LAW.score, "x": X, "sigma": 1.0, "anchor": LAW, "grid": GRID},
    ),
    "log_density kernel": (
        lambda **a: log_density(None, method="kernel", anchor=None, **a).value,  # type: ignore[arg-type]
        {"x": X, "sigma": 1.0, "data": DATA},
    ),
    "log_density_ratio": (
        lambda **a: log_density_ratio(**a).value,
        {"new": LAW.score, "base": LAW.score, "x": X, "sigma": 1.0, "new_anchor": LAW, "anchor": LAW, "grid": GRID},
    ),
    "score_derivative": (
        score_derivative,
        {"score": LAW.score, "x": X, "sigma": 1.0, "perturbation": NEW, "log_density": LAW},
    ),
    "Points": (lambda **a: Points(**a).score(X, 1.0), {"data": DATA, "weights": None, "bandwidth": 0.5, "block": 2}),
    "Mixture": (
        lambda **a: Mixture(**a).score(X, 1.0),
        {"weights": None, "means": DATA, "covariances": 0.5, "covariance_type": None},
    ),
    "GaussianAnchor": (
        lambda **a: GaussianAnchor(**a).log_density(X, 1.0),
        {"mean": DATA[0], "covariance": 0.5, "rank": None},
    ),
    "from_data": (lambda **a: GaussianAnchor.from_data(**a).log_density(X, 1.0), {"data": DATA, "rank": None}),
    "from_score": (
        lambda **a: GaussianAnchor.from_score(**a).log_density(X, 1.0),
        {"score": LAW.score, "mean": DATA[0], "sigma": 10.0, "samples": 4},
    ),
    "Grid": (
        lambda **a: Grid(**a).levels,
        {"sigma_max": 10.0, "sigma_min": 0.5, "steps": 4, "spacing": "karras", "exponent": 7.0},
    ),
    "SDE": (lambda **a: torch.tensor(SDE(**a).kappa), {"kappa": 1.0, "refinement": 1}),
    "Adaptive": (lambda **a: torch.tensor(Adaptive(**a).rtol), {"rtol": 1e-3, "atol": 1e-3}),
    "Formula": (lambda **a: torch.tensor(Formula(**a).replicates), {"replicates": 4, "times": "lattice"}),
    "guided": (
        lambda **a: guided(**a)(X, torch.tensor(1.0)),
        {"conditional": LAW.score, "unconditional": LAW.score, "weight": 2.0},
    ),
    "as_score": (
        lambda **a: as_score(**a)(X, torch.tensor(1.0)),
        {"network": LAW.score, "parametrization": "score", "schedule": None},
    ),
    "NetworkMeasure": (
        lambda **a: NetworkMeasure(**a).log_density(X, 1.0),
        {"score": LAW.score, "anchor": LAW, "grid": GRID},
    ),
    "Toward": (lambda **a: Toward(**a).source(X, 1.0, X, X[:, 0]), {"measure": LAW}),
    "Remove": (lambda **a: Remove(**a).source(X, 1.0, X, X[:, 0]), {"measure": LAW}),
    "Reweight": (
        lambda **a: Reweight(**a).source(X, 1.0, X, X[:, 0]),
        {"measure": Points(DATA), "log_weights": torch.zeros(3).double()},
    ),
    "linear": (lambda **a: functionals.linear(**a)(X), {"weights": DATA[0]}),
    "patch": (lambda region: functionals.patch(region)(X), {"region": 0}),
    "class_logit": (lambda **a: functionals.class_logit(**a)(X), {"classifier": lambda x: x, "label": 0}),
    "feature_distance": (
        lambda **a: functionals.feature_distance(**a)(X),
        {"features": lambda x: x, "target": DATA[0]},
    ),
}

OPTIONS = {
    "chunk_size": counts,
    "probes": counts,
    "trace": words,
    "solver": words,
    "products": words,
    "seed": lambda: {"a half": 1.5, "a word": "seed", "true": True, "a list": [1]},
    "generator": lambda: {"a seed": 3, "a word": "seed"},
    "control": lambda: {"a law": LAW, "a number": 1.0},
}
RUNS = {
    "sample_sensitivity": OPTIONS,
    "influence": OPTIONS
    | {
        "top_k": counts,
        "rates": lambda: {
            "a word": "fast",
            "two": torch.ones(2),
            "nan": torch.ones(3) * float("nan"),
            "complex": torch.ones(3) * 1j,
            "a number": 1.0,
            "meta": torch.ones(3, device="meta"),
        },
    },
    "resample": OPTIONS,
    "counterfactual": OPTIONS,
    "group_values": {k: v for k, v in OPTIONS.items() if k != "generator"},
    "log_density": OPTIONS,
    "log_density_ratio": {k: v for k, v in OPTIONS.items() if k not in ("chunk_size", "control")},
}
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "score": scores,
    "new": scores,
    "base": scores,
    "conditional": scores,
    "unconditional": scores,
    "network": scores,
    "latents": lambda: states(X),
    "x": lambda: states(X),
    "data": lambda: states(DATA),
    "points": lambda: states(DATA),
    "means": lambda: states(DATA),
    "mean": lambda: states(DATA[0]),
    "weights": lambda: states(DATA),
    "log_weights": lambda: states(DATA),
    "target": lambda: states(DATA),
    "groups": lambda: {
        "none": None,
        "a dictionary": {"first": [0]},
        "a list": [[0]],
        "points": Points(DATA),
        "a word": "all",
    },
    "calibration": lambda: {"a word": "split", "a number": 0.9, "data": DATA},
    "form": words,
    "kind": words,
    "share": numbers,
    "keep": lambda: numbers() | {"above one": 1.5},
    "permutations": counts,
    "grid": grids,
    "anchor": anchors,
    "new_anchor": anchors,
    "log_density": anchors,
    "sigma": numbers,
    "bandwidth": numbers,
    "covariance": numbers,
    "covariances": numbers,
    "sigma_max": numbers,
    "sigma_min": numbers,
    "exponent": numbers,
    "kappa": numbers,
    "rtol": numbers,
    "atol": numbers,
    "eta": numbers,
    "weight": numbers,
    "steps": counts,
    "block": counts,
    "rank": counts,
    "samples": counts,
    "refinement": counts,
    "replicates": counts,
    "label": lambda: counts() | {"far": 9},
    "region": lambda: {"a word": "all", "far": 7, "a half": 0.5, "none": None},
    "spacing": words,
    "times": words,
    "parametrization": words,
    "schedule": words,
    "covariance_type": words,
    "perturbation": changes,
    "measure": changes,
    "functional": whole_functionals,
    "classifier": lambda: {"none": None, "returns none": lambda x: None, "returns one": lambda x: x[:, 0]},
    "features": lambda: {"none": None, "a word": "inception"},
}
# What is right, in the engine's own words, although the matrix makes it "wrong" for other arguments.
FINE = {
    ("anchor", "in place"),
    ("new_anchor", "in place"),
    ("log_density", "in place"),
    ("functional", "in place"),
    ("score", "x in place"),
    ("score", "sigma in place"),
    ("kappa", "zero"),
    ("bandwidth", "zero"),
    ("rank", "zero"),
    ("eta", "zero"),
    ("eta", "negative"),
    ("covariance", "zero"),
    ("covariances", "zero"),
    ("weight", "zero"),
    ("weight", "negative"),
    ("covariance", "a list"),
    ("covariances", "a list"),
    ("label", "negative"),
    ("log_weights", "none"),
    ("weights", "none"),
}
# What some entries take and others must refuse: a functional of many outputs, or one that no group changes.
FINE_OF = {
    (entry, "functional", kind)
    for entry in ("counterfactual", "group_values")
    for kind in ("returns states", "constant", "in place")
}


def cases() -> Iterator[tuple[str, str, str]]:
    """Entry, argument, bad value."""
    for entry, (_, arguments) in BASE.items():
        for argument in (*arguments, *RUNS.get(entry, {})):
            kinds = RUNS.get(entry, {}).get(argument) or KINDS[argument]
            yield from ((entry, argument, name) for name in kinds())


def verdict(entry: str, argument: str, name: str) -> tuple[str, str]:
    """ "refused", "right", "cryptic" or "silent", with what was seen."""
    call, good = BASE[entry]
    good = {key: value.clone() if isinstance(value, Tensor) else value for key, value in good.items()}
    bad = (RUNS.get(entry, {}).get(argument) or KINDS[argument])()[name]
    extra = {"trace": "hutchinson"} if argument == "probes" else {}
    try:
        result = call(**{**good, **extra, argument: bad})
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        outcome = Path(frames[-1].filename).is_relative_to(HOME)
        named = re.search(rf"\b{re.escape(argument)}", str(error)) or argument in _also(str(error))
        return (
            "refused" if isinstance(error, OURS) and outcome and named else "cryptic"
        ), f"{type(error).__name__}: {error}"
    return _judged(result, entry, good, argument, name, bad)


def _judged(found: Any, entry: str, good: dict[str, Any], argument: str, name: str, bad: Any) -> tuple[str, str]:
    if not isinstance(found, Tensor) or not bool(torch.isfinite(found).all()):
        return "silent", f"returned {found}"
    if (entry, argument, name) in FINE_OF or bad is None or ((argument, name) in FINE and "in place" not in name):
        return "right", "an option of its own"
    expected = BASE[entry][0](**good)
    same = found.shape == expected.shape and bool(
        torch.allclose(found.double(), expected.double(), rtol=1e-3, atol=1e-4)
    )
    return ("right" if same else "silent"), f"returned {found.flatten()[:3]}"


def _also(text: str) -> set[str]:
    """Arguments that a sentence names in other words."""
    names = {
        "score": ("network", "score"),
        "latents": ("sample", "x has"),
        "new": ("score",),
        "base": ("score",),
        "x": ("state",),
        "sigma": ("level",),
        "solver": ("tableau", "method"),
        "anchor": ("log_density",),
        "new_anchor": ("log_density",),
        "points": ("data",),
        "perturbation": ("PerBranch",),
        "data": ("x has",),
        "means": ("x has",),
        "mean": ("x has",),
        "conditional": ("score", "network"),
        "unconditional": ("score", "network"),
    }
    return {key for key, values in names.items() if any(value in text for value in values)}


MATRIX = list(cases())


def test_the_matrix_is_large() -> None:
    """Assert that there are at least 500 cases."""
    assert len(MATRIX) >= 500


@pytest.mark.parametrize("entry", BASE)
def test_bad_input_ends_in_a_sentence_or_in_the_right_result(entry: str) -> None:
    """Assert that no case of this entry is silent or cryptic."""
    bad = []
    for case in MATRIX:
        if case[0] == entry:
            kind, seen = verdict(*case)
            if kind in ("silent", "cryptic"):
                bad.append(f"{kind}: {' / '.join(case)}: {seen.splitlines()[0][:150]}")
    assert not bad, "\n".join(bad)


if __name__ == "__main__":
    print(f"{len(MATRIX)} bad inputs: {dict(Counter(verdict(*case)[0] for case in MATRIX))}")
