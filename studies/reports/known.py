"""What is known, in one table: the numbers that a stranger reads first, drawn from published claims.

    python -m studies.reports.known

prints it in Markdown; `README.md` holds it between two comments, and a test compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from studies.results import FOLDER, load
from studies.study import Claim

__all__ = ["table"]

POWER = Path(__file__).resolve().parents[1] / "verification" / "power.json"


class Line(NamedTuple):
    """One line: what is asked, and the beginning of the claim that answers it."""

    asked: str
    study: str
    claim: str


LINES = (
    Line(
        "score derivative in the data against the closed form, d = 100: relative error, 99 % quantile",
        "convergence",
        "the score derivative equals the closed form to 1e-9 relative, d = 100",
    ),
    Line(
        "sample sensitivity against the oracle, d = 100: relative error, 99 % quantile",
        "convergence",
        "99 % of the sample sensitivities equal the oracle's to 1e-6 relative, d = 100",
    ),
    Line(
        "order in η at which (x_η − x_0)/η tends to the prediction, d = 100",
        "convergence",
        "(x_η − x_0)/η tends to the predicted sensitivity at first order in η, d = 100",
    ),
    Line(
        "order in the steps of Heun's method",
        "convergence",
        "the sensitivity converges at order 2 in the steps of heun",
    ),
    Line(
        "fine-tuned perceptrons on digits, 16 pairs: correlation with retrained changes as share of the most possible",
        "retraining_pairs",
        "digits-mlp, class:3@0.1, finetune: the median correlation as a share of its ceiling",
    ),
    Line(
        "the same on 14×14 MNIST after the mean change over latents is taken from both sides",
        "retraining_pairs",
        "mnist14-mlp, finetune: the same share after the mean change over latents is taken from both sides",
    ),
    Line(
        "the same, U-Nets on 14×14 MNIST, two pairs",
        "retraining",
        "mnist14-unet, class:3@0.1, finetune: the median correlation as a share of its ceiling",
    ),
    Line(
        "fine-tuned U-Nets on 14×14 Fashion-MNIST, four pairs: the same of the best answer, the run's derivative",
        "responses_networks",
        "fashion14-unet, class:3@0.1, finetune: the best response",
    ),
    Line(
        "U-Nets trained from scratch on 14×14 MNIST: the same of the best answer, that of the parameters",
        "responses_networks",
        "mnist14-unet, class:3@0.1, scratch: the best response",
    ),
    Line(
        "90 % intervals for samples of a U-Net on digits without a group: share of retrained outcomes inside",
        "groups_networks",
        "digits: 90 % intervals hold retrained outcomes",
    ),
    Line(
        "a perceptron of d = 784: time of a sensitivity in those of a sample with its log density",
        "cost",
        "sampling (dimension=784",
    ),
    Line(
        "a convolutional network, 28×28, twenty steps: time of a sensitivity in those of a hand-written pass for log p",
        "single_pass_long",
        "fused_long (kind=conv, width=96, depth=6, training=0, data=fashion, side=28, batch=8, steps=20, "
        "points=60000): sensitivity takes",
    ),
    Line(
        "the same by the two-step solver where log p is equally accurate, d = 3072",
        "single_pass",
        "equal_accuracy (dimension=3072",
    ),
)


def table(folder: Path = FOLDER) -> str:
    """The table in Markdown.

    Raises:
        KeyError: a claim is not published any more.
    """
    lines = ["| question | measured | verdict |", "|---|---|---|"]
    for line in LINES:
        claim = _claim(line, folder)
        lines.append(f"| {line.asked} | {_measured(claim)} | {claim.verdict} |")
    lines.append(f"| smallest constant factor on a sample sensitivity that `studies verify` rejects | {_power()} | |")
    return "\n".join(lines)


def _claim(line: Line, folder: Path) -> Claim:
    matching = [claim for claim in load(line.study, folder).claims if claim.statement.startswith(line.claim)]
    if not matching:
        raise KeyError(f"no published claim of {line.study!r} begins with {line.claim!r}.")
    return matching[0]


def _measured(claim: Claim) -> str:
    text = f"{claim.measured:.4g}"
    return text if claim.interval is None else f"{text} [{claim.interval[0]:.4g}, {claim.interval[1]:.4g}]"


def _power() -> str:
    known = json.loads(POWER.read_text(encoding="utf-8"))["power"]
    smallest = next(one for one in known if one["task"] == "sample-sensitivity" and one["factor"] is not None)
    return f"{1 + smallest['factor']:.4g}, quick suite, {smallest['seeds']} seeds"


if __name__ == "__main__":
    print(table())
