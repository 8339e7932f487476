"""Rows of the study as coverages, widths and rank correlations, and the tables of the page."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from sensitivity import Calibration
from studies.datamodelling import Lds, ranked, ranked_apart
from studies.groups.config import Config
from studies.retraining.reading import LAWS
from studies.statistics import Interval, mean_of_units

Array = np.ndarray
LEVEL = 0.9
OURS = "unrolled"
TRUTHS = ("retraining, same seed", "retraining, other seed")


def of(rows: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """The rows whose columns have the given values."""
    for column, value in wanted.items():
        rows = rows[rows[column] == value] if column in rows else rows[:0]
    return rows


def regimes(rows: pd.DataFrame) -> list[str]:
    """Data sets with groups, in order."""
    return list(dict.fromkeys(of(rows, kind="group").regime))


def lowest_of_laws(rows: pd.DataFrame) -> pd.DataFrame:
    """Base networks with their held-out loss, and the lower one of two laws, `least`."""
    models = of(rows, kind="model")
    return models.assign(least=models[list(LAWS)].min(axis=1))


def trained_regimes(rows: pd.DataFrame) -> set[str]:
    """Regimes whose base network denoises held-out images better than a Gaussian and a kernel density of the data."""
    models = lowest_of_laws(rows)
    return set(models[models.loss < models.least].regime)


@dataclass(frozen=True)
class Pool:
    """Outcomes of a pool of groups: predicted and retrained (G, entries), stretches (G,)."""

    names: list[str]
    predicted: torch.Tensor
    retrained: torch.Tensor
    stretch: torch.Tensor

    @classmethod
    def of(cls, rows: pd.DataFrame, regime: str, pool: str) -> Pool:
        """Ink and contrast of every latent, and class shares, side by side."""
        result = of(rows, kind="group", regime=regime, pool=pool)
        predicted, retrained = (_stacked(result, name) for name in ("predicted", "retrained"))
        return cls(list(result.group), predicted, retrained, torch.tensor(result.stretch.to_numpy(dtype=float)))

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, chosen: Array) -> Calibration:
        """A calibration of some groups."""
        at = torch.from_numpy(chosen)
        return Calibration(self.predicted[at], self.retrained[at], LEVEL, stretch=self.stretch[at])

    def inside(self, calibration: Calibration, chosen: Array) -> Array:
        """Of some groups the share of entries inside the intervals, (chosen,)."""
        at = torch.from_numpy(chosen)
        low, high = calibration.interval(self.predicted[at], self.stretch[at])
        held = (low <= self.retrained[at]) & (self.retrained[at] <= high)
        return held.double().mean(1).numpy()


def _stacked(rows: pd.DataFrame, name: str) -> torch.Tensor:
    return torch.tensor(
        np.array([[*one, *both] for one, both in zip(rows[name], rows[f"{name}_shares"], strict=True)], dtype=float)
    )


def over_divisions(pool: Pool, config: Config) -> Interval:
    """Coverage of groups outside the calibration, each group's mean over divisions as unit."""
    rng, sums, times = np.random.default_rng(0), np.zeros(len(pool)), np.zeros(len(pool))
    for _ in range(config.divisions):
        order = rng.permutation(len(pool))
        some, others = order[: config.calibration], order[config.calibration :]
        sums[others] += pool.inside(pool.rows(some), others)
        times[others] += 1
    return mean_of_units(sums / times)


def transfer(calibrated: Pool, asked: Pool, config: Config) -> Interval:
    """Coverage of all groups of one pool by intervals of the first groups of another, the group as unit."""
    calibration = calibrated.rows(np.arange(config.calibration))
    return mean_of_units(asked.inside(calibration, np.arange(len(asked))))


def width(pool: Pool, rows: pd.DataFrame, regime: str, config: Config) -> float:
    """Median half length of the intervals, over divisions, entries and groups outside the calibration, each widened
    beyond its radius of trust as it is, over that of nothing changed but the seed.
    """
    nothing = _seeds(rows, regime)
    return float("nan") if nothing is None else _width(pool, nothing.margin, config)


def _seeds(rows: pd.DataFrame, regime: str) -> Calibration | None:
    """The base network's outcomes as the prediction of networks with nothing changed but the seed, entries as `Pool`'s;
    None without such networks.
    """
    floor = of(rows, kind="floor", regime=regime)
    if not len(floor):
        return None
    row = floor.iloc[0]
    count = int(row["count"])
    base = np.concatenate([np.asarray(row.predicted, dtype=float), np.asarray(row.predicted_shares, dtype=float)])
    nets = np.concatenate(
        [np.asarray(row[name], dtype=float).reshape(count, -1) for name in ("retrained", "retrained_shares")], 1
    )
    return Calibration(torch.from_numpy(np.tile(base, (count, 1))), torch.from_numpy(nets), LEVEL)


def _width(pool: Pool, nothing: torch.Tensor, config: Config) -> float:
    if len(pool) <= config.calibration:
        return float("nan")
    rng, ratios = np.random.default_rng(0), []
    for _ in range(min(config.divisions, 100)):
        order = rng.permutation(len(pool))
        some, others = order[: config.calibration], torch.from_numpy(order[config.calibration :])
        halves = pool.rows(some).margin * pool.stretch[others, None]
        ratios.append(float((halves / nothing).median()))
    return float(np.median(ratios))


def method(row: pd.Series) -> tuple[Array, Array]:
    """Predicted class shares (G, classes), and retrained ones (seeds, G, classes)."""
    shape = (int(row.groups), int(row.classes))
    predicted = np.asarray(row.predicted_shares, dtype=float).reshape(shape)
    return predicted, np.asarray(row.retrained_shares, dtype=float).reshape(int(row.seeds), *shape)


def rank(row: pd.Series) -> Lds:
    """Rank correlation over groups, mean over classes; the second seed's own retrainings are judged by the first."""
    predicted, actual = method(row)
    return ranked(predicted, actual[:1] if row.method == TRUTHS[1] else actual)


def advantage(first: pd.Series, second: pd.Series) -> Interval:
    """How much better the first ranks groups than the second."""
    predicted, actual = method(first)
    return ranked_apart(predicted, method(second)[0], actual)


def precision_at_top(rows: pd.DataFrame, plant: str, how: str) -> Interval:
    """Mean over draws of planted groups; a share."""
    mean = mean_of_units(of(rows, kind="planted", plant=plant, method=how).precision.to_numpy(dtype=float))
    return replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))


def coverage_table(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One line a data set."""
    lines = []
    for regime in regimes(rows):
        pool = Pool.of(rows, regime, "real")
        random = of(rows, kind="group", regime=regime, pool="random")
        lines.append(
            {
                "data": regime,
                "groups": len(pool),
                "over divisions": _written(over_divisions(pool, config)),
                "transfer": _written(transfer(Pool.of(rows, regime, "random"), pool, config)) if len(random) else "",
                "width / noise floor": round(width(pool, rows, regime, config), 2) if len(random) else "",
                "median departure": round(float(np.median(of(rows, kind="group", regime=regime).departure)), 3),
                "beyond the radius": int((of(rows, kind="group", regime=regime, pool="real").stretch > 1).sum()),
            }
        )
    return pd.DataFrame(lines)


def rank_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a data set and predictor."""
    lines = []
    for _, row in of(rows, kind="method").iterrows():
        score = rank(row)
        model = of(rows, kind="model", regime=row.regime).iloc[0]
        lines.append(
            {
                "data": row.regime,
                "predictor": row.method,
                "rank correlation": f"{score.value:.2f} [{score.interval[0]:.2f}, {score.interval[1]:.2f}]",
                "ceiling": "" if np.isnan(score.ceiling) else f"{score.ceiling:.2f}",
                "seconds a group": round(row.seconds / row.groups, 3),
                "of retraining": round(row.seconds / model.retraining_seconds, 3),
            }
        )
    return pd.DataFrame(lines)


def width_table(rows: pd.DataFrame, config: Config) -> pd.DataFrame:
    """One line a predictor, one column a data set: `width` of intervals for class shares, without radii of trust.

    The last line predicts that nothing changes.
    """
    columns = {}
    for regime in dict.fromkeys(of(rows, kind="method").regime):
        seeds = _seeds(rows, regime)
        if seeds is None:
            continue
        methods = [row for _, row in of(rows, kind="method", regime=regime).iterrows()]
        asked = {row.method: method(row) for row in methods}
        first = asked[methods[0].method]
        asked["no change"] = np.tile(seeds.predicted[0, -first[0].shape[1] :], (len(first[0]), 1)), first[1]
        columns[regime] = {
            name: _width(_shares(*each), seeds.margin[-each[0].shape[1] :], config) for name, each in asked.items()
        }
    return pd.DataFrame(columns).rename_axis("predictor").reset_index()


def _shares(predicted: Array, actual: Array) -> Pool:
    """Class shares as predicted (G, classes), and of the first retraining."""
    names = [str(k) for k in range(len(predicted))]
    return Pool(names, torch.tensor(predicted), torch.tensor(actual[0]), torch.ones(len(names)))


def planted_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a kind of planted groups."""
    lines = []
    for plant in dict.fromkeys(of(rows, kind="planted").plant):
        both = {how: precision_at_top(rows, plant, how) for how in ("harm", "training loss")}
        lines.append({"planted": plant, **{how: _written(each) for how, each in both.items()}})
    return pd.DataFrame(lines)


def worth(row: pd.Series) -> tuple[Array, Array]:
    """Values of groups as predicted, and by solves, (G, latents) each."""
    shape = (int(row.groups), -1)
    return np.asarray(row.predicted, dtype=float).reshape(shape), np.asarray(row.actual, dtype=float).reshape(shape)


def worth_slope(row: pd.Series) -> float:
    """Of actual on predicted values through the origin."""
    predicted, actual = worth(row)
    return float((predicted * actual).sum() / (predicted**2).sum())


def conservation(row: pd.Series) -> float:
    """How far predicted values are from summing to what all groups are worth, in standard errors; the worst latent."""
    predicted, _ = worth(row)
    errors = np.asarray(row.standard_error, dtype=float).reshape(predicted.shape)
    gaps = np.abs(predicted.sum(0) - np.asarray(row.total, dtype=float))
    return float((gaps / np.sqrt((errors**2).sum(0))).max())


def value_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a kind of values."""
    lines = []
    for _, row in of(rows, kind="value").iterrows():
        score = ranked(*worth(row))
        lines.append(
            {
                "values": row.worth,
                "rank correlation": f"{score.value:.3f} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]",
                "slope": f"{worth_slope(row):.2f}",
                "sum, standard errors": f"{conservation(row):.2g}" if row.worth == "shapley" else "",
                "coalitions": int(row.runs),
                "seconds": round(row.seconds, 1),
                "seconds of solves": round(row.solve_seconds, 1),
            }
        )
    return pd.DataFrame(lines)


def _written(found: Interval) -> str:
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
