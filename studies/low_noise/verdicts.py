"""Is it the data or the seed? The verdict on one geometry, objective and N at low noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from studies.low_noise.config import LOW
from studies.low_noise.onset import Floats, mean_interval, usual
from studies.statistics import Interval, data_share, family_intervals

EFFECT = 1.1  # the least ratio |f_A − f_B| / |f_A − f_A′| that counts as an effect of the data
LEAST = float(np.log(EFFECT))


@dataclass(frozen=True)
class Verdict:
    """Mean over low levels of `log(|f_A − f_B|/|f_A − f_A′|)` over replicates, on the states `on`.

    Attributes:
        ratio: the mean with its one-sided 95 % bounds.
        what: "data": certainly above log 1.1; "seed": certainly below, so that the control explains the divergence;
            "open": neither is certain.
        share: the data's share of the squared difference, `1 − (within/cross)²`, with its 95 % interval.
    """

    ratio: Interval
    what: Literal["data", "seed", "open"]
    share: Interval


def ratios(rows: pd.DataFrame) -> Floats:
    """The mean log ratio at low noise of every replicate (R,), from the rows of one geometry, objective and N."""
    low = rows[(rows["kind"] == "level") & (rows["states"] == "on") & rows["level"].isin(LOW)]
    return low.assign(ratio=np.log(low["cross"] / low["within"])).groupby("replicate")["ratio"].mean().to_numpy()


def verdict(rows: pd.DataFrame) -> Verdict:
    """The verdict from the level rows of one geometry, objective, N and length."""
    values = ratios(rows)
    return _judged(mean_interval(values, tail=0.05), values)


def _judged(estimate: Interval, values: Floats) -> Verdict:
    share = data_share(np.exp(values), np.ones(len(values)))
    return Verdict(estimate, "data" if estimate.low > LEAST else "seed" if estimate.high < LEAST else "open", share)


def verdicts(rows: pd.DataFrame) -> dict[tuple[str, str, int], Verdict]:
    """The verdict of every geometry, objective and N at the usual length; bounds hold for all at once (Holm)."""
    groups = usual(rows).groupby(["geometry", "objective", "N"], sort=False)
    values = {(str(g), str(o), int(float(str(n)))): ratios(part) for (g, o, n), part in groups}
    means = [mean_interval(each, tail=0.05) for each in values.values()]
    if any(len(each) < 2 for each in values.values()):
        return {
            key: _judged(family_interval, each)
            for (key, each), family_interval in zip(values.items(), means, strict=True)
        }
    errors, freedom = [each.standard_error for each in means], [len(each) - 1 for each in values.values()]
    family = family_intervals([each.estimate for each in means], errors, freedom, LEAST)
    return {
        key: _judged(family_interval, each) for (key, each), family_interval in zip(values.items(), family, strict=True)
    }
