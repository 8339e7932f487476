"""What a task is: a question with its inputs, its truth, the limits it is judged by and the suite of named cases.

A case names laws, a noise level or a grid, and how many rows; `draw` turns it into arrays by a seed, `fields` into
what the estimator sees, `truth` into the answer. Seed 0 is the published suite; other seeds draw fresh rows of the
same laws.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.errors import StudyError
from studies.study import suggestion
from studies.verification.kit import Kit
from studies.verification.laws import Law, law

__all__ = ["SUITES", "Case", "Task", "states"]

SUITES = ("quick", "full")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A named problem.

    Attributes:
        law: name of the data law ρ.
        sigma: the level asked about, or sigma_min of a path.
        toward: name of ν, if the task has one.
        alpha: the signal factor of z = αx + σε.
        count: number of rows n.
        spread: 1 draws states from the noised law; above 1 they lie that many standard deviations out.
        tilt: size of a non-conservative part added to the score (a network's score has one).
        sigma_max: top of the path, where there is one.
        steps: intervals of the proposed grid.
        tags: what is special here; the report names tags that tell failing cases from holding ones.
        suite: the smallest suite that has this case.
        label: set where laws and levels do not yet make the name unique.
        points: number of data points, where the task has some.
        probes: how many probes the problem asks for; 0 stands for the task's own number.
        judge: `rows` (row i of the value against row i of the truth), `law` (draws, judged as a sample), `posterior`
            (draws for each of several observations, judged together) or `lds` (an attribution, against retraining).
        operator: name of the observation's operator, see `studies.verification.observing`; empty without one.
        noise: variance of the observation's noise, R = `noise` I.
        draws: number of draws asked for of each observation.
    """

    law: str
    sigma: float
    toward: str | None = None
    alpha: float = 1.0
    count: int = 32
    spread: float = 1.0
    tilt: float = 0.0
    sigma_max: float = 0.0
    steps: int = 0
    tags: tuple[str, ...] = ()
    suite: str = "quick"
    label: str = ""
    points: int = 0
    judge: str = "rows"
    probes: int = 0
    operator: str = ""
    noise: float = 0.0
    draws: int = 0

    @property
    def name(self) -> str:
        """Unique within a task and safe as a file name."""
        return "-".join(part for part in (self.law, f"s{self.sigma:g}", self.label) if part)

    @property
    def base(self) -> Law:
        """ρ."""
        return law(self.law)

    @property
    def other(self) -> Law:
        """ν.

        Raises:
            StudyError: the case has none.
        """
        if self.toward is None:
            raise StudyError(f"the case {self.name!r} has no law to move toward.")
        return law(self.toward)

    @property
    def dimension(self) -> int:
        """d."""
        return self.base.dimension

    @property
    def digest(self) -> str:
        """Of what the truth rests on."""
        return self.base.digest

    def at(self, seed: int) -> Case:
        """The case as a seed poses it; where rows alone change, itself."""
        return self

    def rng(self, task: str, seed: int) -> np.random.Generator:
        """The generator of this case's rows."""
        return np.random.default_rng([zlib.crc32(f"{task}/{self.name}".encode()), seed])


@dataclass(frozen=True)
class Task:
    """A question that estimators answer.

    Attributes:
        name: the task's name on the command line.
        question: what is asked, as a formula.
        inputs: the fields of the problem.
        qualifies: why the truth may be called one.
        atol: absolute part of the limit on a row's error.
        rtol: relative part, of the row's norm.
        quantile: the share of rows that must keep within the limit.
        noise: largest standard deviation a stochastic estimate may have, as a multiple of |truth|, or absolute where
            `absolute`.
        absolute: errors are read as absolute (log densities, nats).
        budget: score calls allowed per problem.
        cases: the suite.
        draw: arrays of a case by generator.
        fields: what the estimator sees.
        truth: the answer, NumPy.
        slow: the truth is stored with the package, because computing it takes long.
    """

    name: str
    question: str
    inputs: tuple[str, ...]
    qualifies: str
    atol: float
    rtol: float
    quantile: float
    noise: float
    absolute: bool
    budget: int
    cases: tuple[Case, ...]
    draw: Callable[[Case, np.random.Generator], Arrays]
    fields: Callable[[Case, Arrays, Kit], dict[str, Any]]
    truth: Callable[[Case, Arrays], np.ndarray]
    slow: bool = False

    def suite(self, suite: str) -> list[Case]:
        """The cases of a suite (`full` includes `quick`).

        Raises:
            StudyError: unknown suite.
        """
        if suite not in SUITES:
            raise StudyError(f"there is no suite {suite!r}; {suggestion(suite, SUITES)}.")
        return [case for case in self.cases if suite == "full" or case.suite == "quick"]

    def left_out(self, suite: str) -> list[str]:
        """What a suite lacks on this machine and how to get it, one sentence each."""
        return []

    def case(self, name: str) -> Case:
        """The case of that name.

        Raises:
            StudyError: unknown name.
        """
        known = {case.name: case for case in self.cases}
        if name not in known:
            raise StudyError(f"task {self.name!r} has no problem {name!r}; {suggestion(name, known)}.")
        return known[name]

    def limit(self, truth: np.ndarray) -> np.ndarray:
        """Largest error (n,) allowed in each row: `atol + rtol |truth|`."""
        return self.atol + self.rtol * rownorm(truth)


def rownorm(value: np.ndarray) -> np.ndarray:
    """Norm of each row: |value_i| (n,), for values (n,) or (n, m)."""
    flat = np.abs(value.reshape(len(value), -1))
    size = np.where(flat.max(axis=1) > 0, flat.max(axis=1), 1.0)  # squares of the largest values would overflow
    return np.linalg.norm(flat / size[:, None], axis=1) * size


def states(case: Case, rng: np.random.Generator, sigma: float, count: int | None = None) -> np.ndarray:
    """Rows (n, d) drawn from `p_σ`, pushed `spread` times as far from their component's mean."""
    given, n = case.base, case.count if count is None else count
    which = rng.choice(len(given.weights), n, p=given.weights)
    noise = rng.standard_normal((n, given.dimension))
    inner = _inner(given, which, rng)
    return given.means[which] + case.spread * (inner + sigma * noise)


def _inner(given: Law, which: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`Σ_k^{1/2} ε` for each row's component."""
    n, d = len(which), given.dimension
    if given.form == "points":
        return np.zeros((n, d))
    if given.form == "full":
        # A symmetric square root: unlike Cholesky's it exists for singular covariances too.
        values, vectors = np.linalg.eigh(given.full)
        roots = np.sqrt(np.maximum(values, 0.0))
        return np.einsum("nij,nj,nj->ni", vectors[which], roots[which], rng.standard_normal((n, d)))
    inner = np.sqrt(given.variances)[which, None] * rng.standard_normal((n, d)) if given.variances is not None else 0.0
    if given.factors is not None:
        inner = inner + np.einsum("nir,nr->ni", given.factors[which], rng.standard_normal((n, given.factors.shape[2])))
    return np.asarray(inner)
