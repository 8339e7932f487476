"""Which estimator, when: chosen from the study's rows, for the book.

A *regime* is a kind of score (exact, network, images) with a dimension and a budget of evaluations for each state.
In it the estimator of least rms error is named with its mean error, standard deviation, evaluations and milliseconds;
the runner-up is the next of another kind, and the two count as equal where a bootstrap over states of the mean log
ratio of their mean square errors contains 0.

Errors are against the exact law (exact scores) or against the density of the network's own flow (networks, images): no
estimator can undo the error of a score. Left out are the mixture fitted to draws, which knows the family, and the
controls with the exact law at σ_max.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from studies.statistics import bootstrap

LEFT_OUT = ("mixture", "flow, reference", "flow, exact end", "formula, exact end")
COLUMNS = ["regime", "dimension", "budget", "estimator", "rms", "bias", "sd", "squares", "evaluations", "seconds"]
SETS = {"digits": ("digits 8×8", 64), "mnist": ("MNIST 28×28", 784), "fashion": ("Fashion-MNIST 28×28", 784)}


def regimes(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows that compete, in one layout for all kinds of score.

    Columns: `regime`, `dimension`, `budget`, `estimator`, `rms`, `bias`, `sd`, `squares` (a list, one mean square error
    for each state), `evaluations`, `seconds`.
    """
    table = pd.concat([_exact(rows), _networks(rows), _images(rows)], ignore_index=True)
    return table[~table.estimator.isin(LEFT_OUT)].reset_index(drop=True)


def _exact(rows: pd.DataFrame) -> pd.DataFrame:
    selected: Any = rows[rows.part == "exact"]
    return selected.assign(regime="exact score, " + selected.family, squares=selected.state_squares)[COLUMNS]


def _networks(rows: pd.DataFrame) -> pd.DataFrame:
    selected: Any = rows[rows.part == "network"]
    return selected.assign(
        regime="network", rms=selected.own_rms, bias=selected.own_bias, squares=selected.own_state_squares
    )[COLUMNS]


def _images(rows: pd.DataFrame) -> pd.DataFrame:
    selected: Any = rows[rows.part == "images"]
    names, sizes = (selected.images.map({key: value[k] for key, value in SETS.items()}) for k in range(2))
    return selected.assign(regime="network, " + names, dimension=sizes, squares=selected.state_squares)[COLUMNS]


def choose(rows: pd.DataFrame) -> pd.DataFrame:
    """The table "which estimator, when": one row for each regime, dimension and budget.

    An estimator that cannot spend a budget (a flow at its largest number of steps) competes with its last result.
    """
    choices, groups = [], regimes(rows).groupby(["regime", "dimension"], sort=True)
    for (regime, dimension), group in cast(Any, groups):
        for budget in sorted(group.budget.unique()):
            within = group[group.budget <= budget].sort_values("budget").drop_duplicates("estimator", keep="last")
            choices.append({"score": regime, "d": int(dimension), "budget": int(budget)} | _ranked(within))
    return pd.DataFrame(choices)


def _ranked(selected: Any) -> dict[str, Any]:
    """The best of one regime and budget, and the next of another kind."""
    order = selected.sort_values("rms")
    best = order.iloc[0]
    others = order[order.estimator.map(kind) != kind(best.estimator)]
    best_of = {
        "estimator": best.estimator,
        "rms error": best.rms,
        "mean error": best.bias,
        "deviation": best.sd,
        "calls": int(best.evaluations),
        "milliseconds": 1e3 * best.seconds,
    }
    if len(others) == 0:
        return best_of | {"next": "", "its rms error": np.nan, "equal": False}
    second = others.iloc[0]
    return best_of | {
        "next": second.estimator,
        "its rms error": second.rms,
        "equal": _equal(best.squares, second.squares),
    }


def kind(estimator: str) -> str:
    """Estimators of one kind differ in how they lower their noise.

    Example:
        >>> kind("hutchinson, control"), kind("antithetic"), kind("ito")
        ('flow with probes', 'formula', 'ito')
    """
    if estimator.startswith("hutch"):
        return "flow with probes"
    return estimator if estimator in ("flow", "ito", "kernel") else "formula"


def _equal(first: Any, second: Any) -> bool:
    """Whether the mean log ratio of the states' mean square errors has a 95 % interval that contains 0."""
    a, b = (np.log(np.maximum(np.asarray(values, dtype=float), 1e-30)) for values in (first, second))
    if len(a) < 3:
        return False
    estimate = bootstrap(a - b, method="percentile")
    return bool(estimate.low <= 0 <= estimate.high)


def at_a_glance(rows: pd.DataFrame) -> pd.DataFrame:
    """Names only: one row for each score and dimension, one column for each budget; "a or b" where they are equal."""
    table = choose(rows)
    pairs = zip(table.estimator, table["next"], table.equal, strict=True)
    named: Any = table.assign(name=[f"{best} or {other}" if equal else best for best, other, equal in pairs])
    frame = named.pivot(index=["score", "d"], columns="budget", values="name").fillna("")
    frame.columns = [f"{budget:,} evaluations".replace(",", " ") for budget in frame.columns]
    return cast(pd.DataFrame, frame.reset_index())


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table as the book prints it: two digits, and "equal" said with the runner-up."""
    table = choose(rows)
    parts = zip(table["next"], table["its rms error"], table.equal, strict=True)
    second = [f"{name} ({error:.2g}){', equal' if equal else ''}" if name else "" for name, error, equal in parts]
    kept: Any = table[["score", "d", "budget", "estimator"]].copy()
    for name in ("rms error", "mean error", "deviation"):
        kept[name] = [f"{value:.2g}" for value in table[name]]
    kept["calls"] = table.calls
    kept["milliseconds"] = [f"{value:.3g}" for value in table.milliseconds]
    kept["next of another kind"] = second
    return cast(pd.DataFrame, kept)
