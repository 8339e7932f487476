"""Every answer beside retraining, for perceptrons that are trained: `python -m studies.responses.perceptrons`.

The perceptrons of `responses` (width 48, 700 steps) denoise held-out digits worse than a Gaussian does, and carry no
claim there. These have the size and training of `retraining_pairs` (width 256, 3 000 steps of 128); truths, responses,
change, pairs and claims are those of `responses`. Prints its tables; some twenty minutes of a core.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import torch

from studies.responses import reading
from studies.responses.cells import run_cell
from studies.responses.config import MAIN
from studies.responses.networks import Config, cells
from studies.responses.verdicts import claims
from studies.retraining.config import Regime
from studies.study import Context

CONFIG = Config((Regime("digits-mlp", "digits", pairs=4, changes=(MAIN,)),), latents=24, draws=8, products=1024)


def rows(config: Config, folder: Path) -> pd.DataFrame:
    """Rows of both truths; networks are kept below `folder`."""
    context = Context(config, folder=folder / "run")
    return pd.DataFrame([row for cell in cells(config) for row in run_cell(cell, context)])


def main() -> None:
    """Print networks, answers and claims."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        table = rows(CONFIG, Path(folder))
    print(reading.model_table(table).to_string(index=False))
    print(reading.agreement_table(table).to_string(index=False))
    for claim in claims(table, CONFIG):
        print(f"{claim.verdict}: {claim.statement}: {claim.measured} {claim.interval or ''}")


if __name__ == "__main__":
    main()
