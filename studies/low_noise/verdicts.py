"""Is it the data or the seed? The verdict on one geometry, objective and N at low noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from studies.low_noise.config import LOW
from studies.low_noise.onset import Floats, mean_interval, usual
from studies.statistics import Interval

EFFECT = 1.1  # the least ratio |f_A − f_B| / |f_A − f_A′| that counts as an effect of the data


@dataclass(frozen=True)
class Verdict:
    """Mean over low levels of `log(|f_A − f_B|/|f_A − f_A′|)` over replicates, on the states `on`.

    Attributes:
        ratio: the mean with its one-sided 95 % bounds. what: "data": certainly above log 1.1; "seed": certainly below,
            so that the control explains the divergence; "open": neither is certain.
    """

    ratio: Interval
    what: Literal["data", "seed", "open"]


def ratios(rows: pd.DataFrame) -> Floats:
    """The mean log ratio at low noise of every replicate (R,), from the rows of one geometry, objective and N."""
    low = rows[(rows["kind"] == "level") & (rows["states"] == "on") & rows["level"].isin(LOW)]
    return low.assign(ratio=np.log(low["cross"] / low["within"])).groupby("replicate")["ratio"].mean().to_numpy()


def verdict(rows: pd.DataFrame) -> Verdict:
    """The verdict from the level rows of one geometry, objective, N and length."""
    found = mean_interval(ratios(rows), tail=0.05)
    least = float(np.log(EFFECT))
    return Verdict(found, "data" if found.low > least else "seed" if found.high < least else "open")


def verdicts(rows: pd.DataFrame) -> dict[tuple[str, str, int], Verdict]:
    """The verdict of every geometry, objective and N at the usual length."""
    groups = usual(rows).groupby(["geometry", "objective", "N"], sort=False)
    return {(str(g), str(o), int(float(str(n)))): verdict(part) for (g, o, n), part in groups}
