"""Claims of the study; expectations are those of the protocol."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from studies.claim_bounds import above, at_least, below
from studies.photographs.config import Config
from studies.photographs.reading import agreement, of
from studies.study import Claim

FACTOR = 3.0
LEAST = 0.9
NAMES = {"probes": "other probes", "grid": "twice the levels"}


def claims(rows: pd.DataFrame, config: Config) -> list[Claim]:
    """Losses, then finite values, then agreement, model by model."""
    del config
    judged = [*_losses(rows), *_finite(rows)]
    for _, row in of(rows, kind="agreement").iterrows():
        inside, count = agreement(row, FACTOR)
        words = (
            f"{row.model}, {row.quantity}: {NAMES.get(row.setting, row.setting)} within {FACTOR:g} stated errors "
            f"(share of {count} samples)"
        )
        judged.append(Claim(words, inside / count, _interval(inside, count), at_least(LEAST), "two settings"))
    return judged


def _losses(rows: pd.DataFrame) -> list[Claim]:
    claims = []
    for _, row in of(rows, kind="network").iterrows():
        for law in ("gaussian", "kernel"):
            words = f"{row.model}: held-out denoising loss as a share of the {law} denoiser's"
            ratio = row.held_out_loss / row[f"{law}_loss"]
            claims.append(Claim(words, float(ratio), None, below(1.0), "held-out patches, same noise"))
        if row.model == "pixels":
            words = "pixels: parameters of the network"
            claims.append(Claim(words, float(row.parameters), None, above(1e6), "diffusers UNet2DModel"))
    return claims


def _finite(rows: pd.DataFrame) -> list[Claim]:
    runs = of(rows, kind="run")
    if not len(runs):
        return []
    return [
        Claim(f"{model}, {quantity}: share of finite results", float(group.finite.sum() / group.samples.sum()), None,
              at_least(1.0), "all settings")
        for (model, quantity), group in runs.groupby(["model", "quantity"], sort=False)
    ]  # fmt: skip


def _interval(inside: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share."""
    interval = stats.binomtest(inside, count).proportion_ci(0.95, "exact")
    return float(np.clip(interval.low, 0, 1)), float(np.clip(interval.high, 0, 1))
