"""Task `attribution`: how much each of N training points raises an output of a network, judged by retraining.

Entry (q, i) is larger where output q rises when point i gets more weight in training; only the order of a query's
points is judged, a derivative toward unit mass at i has slope 1. Tiers (as suites): `exact` (`quick` is the same),
`trained`, `images`, and `images-unet`, whose network takes a minute to rebuild; `full` is all of them. Problems whose
images are not on this machine are left out, and the report says so. How the truths were made:
`studies.verification.attributions`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studies.errors import StudyError
from studies.study import suggestion
from studies.verification.kit import Kit
from studies.verification.tasks.base import Arrays, Case, Task

__all__ = ["TASK", "RetrainedCase", "retrained"]

TIERS = ("exact", "trained", "images", "images-unet")
HOURS = {"exact": "a minute", "trained": "ten minutes", "images": "half an hour", "images-unet": "two hours"}
TRUTHS = Path(__file__).parent.with_name("attributions")


@dataclass(frozen=True)
class RetrainedCase(Case):
    """A problem whose truth is retraining: `law` is the setting's name.

    Attributes:
        functional: the output, see `studies.verification.attributions.outputs`.
        seed: of an exact tier's latents and halves.
        size: d.
    """

    functional: str = ""
    seed: int = 0
    size: int = 64

    @property
    def name(self) -> str:
        return f"{self.law}-{self.functional}"

    @property
    def setting(self) -> str:
        """The setting's name."""
        return self.law

    @property
    def twin(self) -> RetrainedCase:
        """The same with latents and halves that are not published."""
        return replace(self, seed=self.seed + 1)

    def at(self, seed: int) -> RetrainedCase:
        return replace(self, seed=seed)

    @property
    def dimension(self) -> int:
        return self.size

    @property
    def digest(self) -> str:
        from studies.verification.attributions.tiers import shipped

        return shipped(self.law).digest


class AttributionTask(Task):
    """A task whose suites are tiers."""

    def suite(self, suite: str) -> list[Case]:
        """The cases of a tier; `quick` is the tier `exact`, `full` is all.

        Raises:
            StudyError: unknown tier.
        """
        known = ("quick", "full", *TIERS)
        if suite not in known:
            raise StudyError(f"there is no suite {suite!r} of the task 'attribution'; {suggestion(suite, known)}.")
        wanted = {"quick": "exact"}.get(suite, suite)
        chosen = [case for case in self.cases if wanted in ("full", case.suite)]
        if not chosen:
            raise StudyError(
                f"the truth of the suite {suite!r} is not on this machine; `python -m "
                f"studies.verification.attributions.{wanted.split('-')[0]}` makes it, in {HOURS[wanted]} on one core."
            )
        there = [case for case in chosen if not _missing(case)]
        if not there:
            raise StudyError(f"the suite {suite!r} has no problem on this machine: {_missing(chosen[0])}")
        return there

    def left_out(self, suite: str) -> list[str]:
        """The settings of a suite whose images are not on this machine, and how to get them, one sentence each."""
        wanted = {"quick": "exact"}.get(suite, suite)
        lacking: dict[str, list[Case]] = {}
        for case in self.cases:
            if wanted in ("full", case.suite) and _missing(case):
                lacking.setdefault(case.law, []).append(case)
        return [f"{len(of)} problems of {name} are left out: {_missing(of[0])}" for name, of in lacking.items()]

    def case(self, name: str) -> RetrainedCase:
        """The case of that name.

        Raises:
            StudyError: unknown name.
        """
        return retrained(super().case(name))


def _missing(case: Case) -> str:
    """Why a case cannot be posed on this machine; empty where it can, or where the studies' extra lacks."""
    if case.law not in OPTIONAL:
        return ""
    from studies import data

    return data.missing(case.law)


def retrained(case: Case) -> RetrainedCase:
    """The case as one of retraining.

    Raises:
        StudyError: it is another.
    """
    if not isinstance(case, RetrainedCase):
        raise StudyError(f"{case.name!r} is no problem of retraining.")
    return case


def _cases(setting: str, tier: str, functionals: tuple[str, ...], tags: tuple[str, ...], size: int = 64) -> list[Case]:
    return [
        RetrainedCase(setting, 0.1, suite=tier, judge="lds", tags=(*tags, name), functional=name, size=size)
        for name in functionals
    ]


OUTPUTS = ("ink", "contrast", "logit", "distance", "loss", "density")
DECLARED = (
    *_cases("exact-features", "exact", ("ink", "contrast", "logit"), ("trained exactly",)),
    *_cases("exact-kernels", "exact", ("ink", "contrast", "logit"), ("no parameters",)),
    *_cases("trained-digits", "trained", ("ink", "logit"), ("one run",)),
    *_cases("digits", "images", OUTPUTS, ("retrained",)),
    *_cases("mnist14", "images", OUTPUTS, ("retrained",), 196),
    *_cases("fashion14", "images", OUTPUTS, ("retrained",), 196),
    *_cases("digits-unet", "images-unet", OUTPUTS, ("retrained", "convolutional")),
)
OPTIONAL = ("fashion14",)  # settings whose images the studies' extra does not install, called as the images
# Truths that take hours are asked of where their files are.
CASES = tuple(case for case in DECLARED if (TRUTHS / f"{case.law}.npz").exists())


def draw(case: Case, rng: np.random.Generator) -> Arrays:
    """Nothing: the setting has all."""
    return {}


def fields(case: Case, inputs: Arrays, kit: Kit) -> dict[str, Any]:
    """Data, network, latents, levels, samples, output, functional, loss, recipe.

    Raises:
        StudyError: arrays of another library than PyTorch are wanted.
    """
    from studies.verification.attributions.tiers import given

    if kit.backend.name != "torch":
        raise StudyError(f"--backend {kit.backend.name} has no networks; the task 'attribution' gives PyTorch's.")
    trained = retrained(case)
    return given(trained.setting, trained.functional, trained.seed, kit.meter)


def truth(case: Case, inputs: Arrays) -> np.ndarray:
    """Outputs of the retrained networks (seeds, subsets, queries)."""
    from studies.verification.attributions.tiers import truth as truth_of

    trained = retrained(case)
    return truth_of(trained.setting, trained.functional, trained.seed).values


TASK = AttributionTask(
    name="attribution",
    question="how much each of N training points raises an output of the network, per query (queries, N)",
    inputs=("data", "network", "latents", "levels", "samples", "output", "functional", "loss", "recipe", "seed"),
    qualifies="networks trained again on subsets of the data (exact solves; a run's derivative; many seeds)",
    atol=0.0,
    rtol=0.0,
    quantile=1.0,
    noise=0.0,
    absolute=True,
    budget=50_000_000,
    cases=CASES,
    draw=draw,
    fields=fields,
    truth=truth,
)
