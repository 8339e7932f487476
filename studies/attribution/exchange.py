"""Why one attributor does better than another: pairs that differ in one ingredient, on the same subsets and seeds.

    python -m studies.attribution.exchange

asks both attributors of every pair and takes the paired difference of their scores with its interval over subsets and
seeds. Finished problems are kept; `--again` asks anew. What else differs between two attributors (a damping chosen
elsewhere, see `studies.attribution.tuning`) is said in the ingredient.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from studies.attribution.leaderboard import answers
from studies.datamodelling import paired
from studies.files import as_json, write
from studies.verification.attributions.tiers import truth
from studies.verification.tasks.attribution import TASK, RetrainedCase

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EXCHANGES", "PROBLEMS", "TABLE", "Exchange", "exchanged", "table"]

TABLE = Path(__file__).with_name("exchange.json")
PROBLEMS = ("digits-ink", "digits-logit", "mnist14-ink", "fashion14-ink")


class Exchange(NamedTuple):
    """An ingredient, what stands in its place, and the attributors with the one and with the other."""

    ingredient: str
    before: str
    after: str
    first: str
    second: str


EXCHANGES = (
    Exchange("matrix", "none", "second moments of gradients", "gradient product", "TRAK"),
    Exchange("matrix", "second moments of gradients", "Kronecker factors", "TRAK", "EK-FAC influence"),
    Exchange("matrix", "Kronecker factors", "Gauss-Newton", "EK-FAC influence", "parameter response"),
    Exchange("lengths of gradients", "as they are", "one", "gradient product", "gradient cosine"),
    Exchange("checkpoints", "the last", "six, by learning rates", "gradient product", "TracIn"),
    Exchange("leverage of a point", "left", "divided out", "TRAK", "TRAK with leverages"),
    Exchange("loss of a point", "training", "square of the predicted noise, own damping", "TRAK", "D-TRAK features"),
    Exchange("of the sample", "gradient of the output", "features, times the pull", "D-TRAK features", "D-TRAK"),
    Exchange("leaving out", "one number a point", "every pixel, other damping", "DAS", "DAS, every pixel"),
    Exchange("score", "of the points", "of the network", "empirical score", "population response"),
    Exchange("what is near", "whole images", "patches", "population response", "local response (patches)"),
    Exchange("transport", "through the sampler", "none: near the sample", "empirical score", "nearest points"),
    Exchange("what is near, no transport", "whole images", "patches", "nearest points", "patch weights"),
    Exchange("what is near, no transport", "distances", "angles", "nearest points", "cosine of pixels"),
)


def exchanged(case: RetrainedCase, exchanges: Sequence[Exchange] = EXCHANGES) -> list[dict[str, Any]]:
    """Score with the one, with the other, and the difference with its 95 % interval, for every pair that answers."""
    names = list(dict.fromkeys(name for each in exchanges for name in (each.first, each.second)))
    rows, values = answers(case, names)
    scores, known = {row["method"]: row.get("lds") for row in rows}, truth(case.setting, case.functional)
    found = []
    for each in exchanges:
        first, second = values.get(each.first), values.get(each.second)
        if first is None or second is None or not (np.isfinite(first).all() and np.isfinite(second).all()):
            continue
        gap = paired(known.masks, known.values, second, first)
        gain = [round(float(value), 4) for value in (gap.estimate, *gap.bounds)]
        found.append(
            {
                "problem": case.name,
                **each._asdict(),
                "lds_first": scores[each.first],
                "lds_second": scores[each.second],
                "gain": gain,
            }
        )
    return found


def table(path: Path = TABLE) -> pd.DataFrame:
    """A line an exchange, a column a problem: what the second has more than the first, with its interval."""
    import pandas as pd

    rows = json.loads(path.read_text())["rows"]
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((row["ingredient"], row["before"], row["after"]), {})
        estimate, low, high = row["gain"]
        line[row["problem"]] = f"{estimate:+.2f} [{low:+.2f}, {high:+.2f}]"
    heads = ("ingredient", "from", "to")
    return pd.DataFrame([dict(zip(heads, key, strict=True)) | line for key, line in lines.items()]).fillna("")


def main() -> None:
    parser = argparse.ArgumentParser(description="Exchange one ingredient at a time.")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--problem", action="append", choices=[case.name for case in TASK.cases])
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    rows = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    for name in given.problem or PROBLEMS:
        kept = [row for row in rows if row["problem"] == name]
        if kept and not given.again:
            continue
        rows = [row for row in rows if row not in kept] + exchanged(TASK.case(name))
        write(given.out, as_json({"rows": rows}))
        print(name, *(row["gain"][0] for row in rows if row["problem"] == name), flush=True)


if __name__ == "__main__":
    main()
