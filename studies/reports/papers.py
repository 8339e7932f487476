"""What the four papers claim, beside what the published studies measured of it.

A `Statement` is a sentence of a paper with the paper's own number, and a pattern that finds the claims of ours which
test it. Nothing is measured here: counts, values and verdicts are read from the committed claims, so that the table
changes when a study is published again. `missing()` names statements that no published claim tests any more.

Example:
    >>> missing()
    []
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from studies.claim_bounds import Tally, Verdict
from studies.results import load, names
from studies.retraining.claims import unclaimed
from studies.study import Claim, configuration
from studies.study import load as study

__all__ = ["PAPERS", "Paper", "Statement", "failures", "missing", "summary", "undecided"]


@dataclass(frozen=True)
class Statement:
    """A statement of a paper.

    Attributes:
        text: what the paper says.
        figure: the paper's own number, or why there is none.
        study: which of our studies tests it.
        pattern: regular expression that the statements of our claims match.
        quantity: what these claims measure, if it is one and the same; only then are their values a range.
        page: the study's page in the book, if it is another study's.
    """

    text: str
    figure: str
    study: str
    pattern: str
    quantity: str = ""
    page: str = ""

    def claims(self) -> list[Claim]:
        """Our published claims that test the statement."""
        return [claim for claim in load(self.study).claims if re.search(self.pattern, claim.statement)]

    def unclaimed(self) -> list[Claim]:
        """The same of settings whose networks are not trained: measured and shown, and no claim of ours."""
        every = _unclaimed(self.study) if self.study in JUDGED_IF_TRAINED else []
        return [claim for claim in every if re.search(self.pattern, claim.statement)]


@dataclass(frozen=True)
class Paper:
    """A paper: citation key, what could not be read, and its statements."""

    key: str
    unread: str
    statements: tuple[Statement, ...]


_SLOPE = "change of log error"
JUDGED_IF_TRAINED = ("retraining", "retraining_pairs")  # regimes that are not trained carry no claim there

PAPERS = (
    Paper(
        "scarvelis2025sensitivity",
        "Which images were moved, by what mass, with which network, and how exactly the correlation is defined.",
        (
            Statement(
                "samples move at the predicted rate", "a theorem", "convergence", "first order in η", "order in η"
            ),
            Statement(
                "the prediction correlates with the change under retraining",
                "median .46 (CelebA)",
                "retraining",
                "under retraining from scratch",
                "median correlation",
            ),
            Statement(
                "… and under fine-tuning",
                "median .66 (CelebA)",
                "retraining",
                "under fine-tuning",
                "median correlation",
            ),
            Statement(
                "… the same from scratch, sixteen pairs of networks that are trained",
                "median .46 (CelebA)",
                "retraining_pairs",
                "under retraining from scratch",
                "median correlation",
                "retraining",
            ),
            Statement(
                "… and under fine-tuning",
                "median .66 (CelebA)",
                "retraining_pairs",
                "under fine-tuning",
                "median correlation",
                "retraining",
            ),
            Statement(
                "it is better than entropic optimal transport",
                "no number",
                "retraining",
                "'transport'",
                "paired difference of correlations",
            ),
        ),
    ),
    Paper(
        "song2025selective",
        "The threshold of memorisation, and how wide the shells are meant to be: with the half-width as printed, "
        "√log(1/δ) in units of the radius, they would not be thin, so that quantiles of χ² took its place.",
        (
            Statement("training states lie at r⋆ = 1", "1", "selective_underfitting", "training states lie", "r⋆"),
            Statement(
                "trajectories leave the shells as the noise falls",
                "r⋆ about 10 at t = .1",
                "selective_underfitting",
                "trajectories leave the shells",
                "r⋆ at σ = .1",
            ),
            Statement(
                "better models err less inside the shells",
                "SiT S to XL: .1884 to .1834",
                "selective_underfitting",
                "inside the shells falls",
                _SLOPE,
            ),
            Statement(
                "… and more outside",
                "SiT S to XL: .5334 to .5359",
                "selective_underfitting",
                "outside the shells, rises",
                _SLOPE,
            ),
            Statement(
                "the same at its distances: less inside",
                "SiT S to XL: .1884 to .1834; r⋆ 10 to 90",
                "selective_underfitting_far",
                r"the inside error falls \(",
                _SLOPE,
                "selective_underfitting",
            ),
            Statement(
                "… and more outside",
                "SiT S to XL: .5334 to .5359; r⋆ 10 to 90",
                "selective_underfitting_far",
                "error at external states rises",
                _SLOPE,
                "selective_underfitting",
            ),
            Statement(
                "… by the outcome that we named beforehand: they are pulled less toward the empirical score",
                "none, the pull is ours",
                "selective_underfitting_far",
                "pulled less toward",
                "change of the pull",
                "selective_underfitting",
            ),
            Statement(
                "noised training images return to themselves at low noise only",
                "1.0 at t ≤ .75, 0 at t ≥ .95",
                "selective_underfitting",
                "return to themselves",
                "share",
            ),
            Statement(
                "a broader region of supervision kills generalisation",
                "share memorised 0 to .80 (U-Net), .08 to .85 (transformer)",
                "selective_underfitting",
                "broadening D_region",
                "rise of the share",
            ),
            Statement(
                "a Gaussian toy shows both",
                "inside .98 to .17, plateau .34, outside .56 to .08",
                "selective_underfitting",
                r"^gaussian20: the (inside|outside)",
            ),
            Statement(
                "guidance differs on trajectories, not on training states",
                "no number",
                "selective_underfitting",
                "^guidance",
            ),
            Statement(
                "features aligned with perception improve samples",
                "no number",
                "selective_underfitting",
                "^perception toy",
            ),
        ),
    ),
    Paper(
        "pavlova2025lownoise",
        "None of the paper's numbers, so none is compared; set-ups follow its public code where that was clear.",
        (
            Statement(
                "networks on disjoint data agree at high noise",
                "not read",
                "low_noise",
                "agree at 3τ",
                "distance over residual",
            ),
            Statement(
                "… and diverge at low noise",
                "not read",
                "low_noise",
                "data and not seeds part them",
                "mean log ratio to the control",
            ),
            Statement(
                "… the same after longer training, by ten replicates",
                "not read",
                "low_noise_length",
                "data and not seeds part the networks",
                "mean log ratio to the control",
                "low_noise",
            ),
            Statement("the size of the training set decides where", "not read", "low_noise", "onset falls", "slope"),
        ),
    ),
    Paper(
        "li2024density",
        "The networks and data of its figures; the four implications were shown on problems of our own.",
        (
            Statement(
                "the formula gives the density",
                "a theorem",
                "density_formula",
                "mean error of the formula with the exact",
                "bias in standard deviations of one estimate",
            ),
            Statement(
                "a wrong score over-estimates −log p by its error",
                "a theorem",
                "density_formula",
                "^wrong score",
                "difference of the two in nats",
            ),
            Statement(
                "the evidence bound is maximised where the likelihood is", "no number", "density_formula", r"^\(a\)"
            ),
            Statement("diffusion classifiers rank like the likelihood", "no number", "density_formula", r"^\(b\)"),
            Statement("token losses are about negative log-likelihoods", "no number", "density_formula", r"^\(c\)"),
            Statement("score matching regularises a generator", "no number", "density_formula", r"^\(d\)"),
        ),
    ),
)


def summary(paper: Paper) -> str:
    """A Markdown table: statement, the paper's number, our measured values, how many claims hold, the page.

    Example:
        >>> summary(PAPERS[0]).splitlines()[0]
        "| statement of the paper | the paper's number | measured here | claims that hold | page |"
    """
    rows = [
        "| statement of the paper | the paper's number | measured here | claims that hold | page |",
        5 * "|---" + "|",
    ]
    for statement in paper.statements:
        claims = statement.claims()
        count = Tally.of(claim.verdict for claim in claims)
        held = f"{count.holds} of {len(claims)}" + (f" ({count.open} open)" if count.open else "")
        place = statement.page or statement.study
        page = f"[{statement.study.replace('_', ' ')}](../studies/{place}.md)"
        measured = f"{statement.quantity}: {_span(claims)}" if statement.quantity else "see the page"
        if others := statement.unclaimed():
            measured += f"; of networks that are not trained, without a claim, {_span(others)}"
        rows.append(f"| {statement.text} | {statement.figure} | {measured} | {held} | {page} |")
    return "\n".join(rows)


def failures() -> Iterator[tuple[str, Claim]]:
    """Every published claim that fails, with the study it belongs to."""
    yield from _judged(Verdict.FAILS)


def undecided() -> Iterator[tuple[str, Claim]]:
    """Every published claim that is open, because too little was measured, with the study it belongs to."""
    yield from _judged(Verdict.OPEN)


def _judged(verdict: Verdict) -> Iterator[tuple[str, Claim]]:
    for name in names():
        yield from ((name, claim) for claim in load(name).claims if claim.verdict is verdict)


def missing() -> list[str]:
    """Statements whose pattern finds no published claim."""
    return [statement.text for paper in PAPERS for statement in paper.statements if not statement.claims()]


@cache
def _unclaimed(name: str) -> list[Claim]:
    rows, _, manifest = load(name)
    return unclaimed(rows, configuration(study(name), manifest["setting"]["level"]))


def _span(claims: list[Claim]) -> str:
    """Smallest and largest measured value."""
    values = [float(claim.measured) for claim in claims if isinstance(claim.measured, int | float)]
    if not (values := [value for value in values if math.isfinite(value)]):
        return "could not be measured"
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} … {high}"
