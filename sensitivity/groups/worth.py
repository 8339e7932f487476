"""What groups of the training data are worth to a functional of the samples, without retraining.

The value of a coalition is the functional of the samples that the response predicts when every group outside it has its
weights multiplied by `keep`, 0 for removed. The data of no group stay as they are. For an additive value no coalition
is evaluated: the group of points with weights w_i and influences φ̇_i has Σ_{i in group} w_i φ̇_i, the first-order
change of φ per unit by which its weights are multiplied; over all of the data these sum to zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import functional_outputs, outside_inference_mode
from sensitivity._checks import check_choice, check_count, check_real_number, check_states
from sensitivity.grid import Grid
from sensitivity.groups.games import Coalition, Game, by_enumeration, by_permutations, leave_one_out
from sensitivity.groups.members import Groups
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.perturbations.contamination import Toward
from sensitivity.progress import Progress
from sensitivity.readings.finite_mass import resample
from sensitivity.readings.influences import influence
from sensitivity.responses import POPULATION, Response
from sensitivity.scores.score import Score

KINDS = ("additive", "leave-out", "shapley")
ENUMERATED = 16
"""Groups of which all coalitions may be asked: 65 536 runs of the sampler."""
FULL = 1e-9  # of the data's weight: less than this is no rest


@dataclass(frozen=True)
class GroupValues:
    """What each group is worth.

    Attributes:
        names: of the groups.
        values: positive where the group raises φ, (G, batch, *out).
        standard_error: over random orders, like `values`; 0 where exact.
        whole: φ of the samples of the network as it is, (batch, *out).
        none: φ with every group multiplied by `keep`, like `whole`; NaN for kinds that do not ask for it.
        runs: how many coalitions were sampled.
        unfinished: how many of these had a sample that did not finish.
    """

    names: tuple[Any, ...]
    values: Tensor
    standard_error: Tensor
    whole: Tensor
    none: Tensor
    runs: int
    unfinished: int


@outside_inference_mode
def group_values(
    score: Score,
    latents: Tensor,
    groups: Groups,
    grid: Grid,
    functional: Callable[[Tensor], Tensor],
    *,
    kind: str = "shapley",
    keep: float = 0.0,
    permutations: int | None = 32,
    response: Response = POPULATION,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    seed: int = 0,
    solver: Any = "heun",
    denoise: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    control: GaussianAnchor | None = None,
) -> GroupValues:
    """How much each of G disjoint groups of the training data contributes to a functional of the samples.

    Args:
        score, latents, grid, response: as for `counterfactual`.
        groups: disjoint; what is done to them plays no part.
        functional: φ: samples (batch, *shape) -> (batch, *out), or a 0-d tensor; for "additive" -> (batch,) and
            differentiable.
        kind: "additive": Σ w_i φ̇_i over the group, one backward pass for all; "leave-out": φ less φ without the group,
            a run each; "shapley": the mean over orders of the groups of what each adds, at finite mass.
        keep: what a group's weights are multiplied by outside a coalition, 0 ≤ keep < 1. Groups that are all of the
            data cannot all be removed: leave a part in no group, or keep some.
        permutations: random orders for "shapley", at least 2; None asks all 2^G coalitions of up to 16 groups.
        seed: of the orders, and of random probes.

    Other args:
        anchor, trace, probes, solver, denoise, chunk_size, products, control: as for `sample_sensitivity`.
        progress: likewise, but that coalitions are counted (for "additive" steps).

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Source: Shapley 1953; Castro, Gómez & Tejada 2009; Ghorbani & Zou 2019, arXiv 1904.02868 (values of data).

    Example (what is left of a law of four points, two of them in groups):
        >>> from sensitivity import Points
        >>> law = Points(torch.tensor([[-1.0], [-1.2], [1.0], [1.2]]), bandwidth=0.5)
        >>> groups = Groups(law, {"left": [0], "right": [2]})
        >>> where = lambda x: x[:, 0]
        >>> worth = group_values(law.score, torch.zeros(1, 1), groups, Grid(10.0, 0.2, 20), where, anchor=law,
        ...                      permutations=None)
        >>> bool(worth.values[0] < 0 < worth.values[1])
        True
        >>> bool((worth.values.sum(0) - (worth.whole - worth.none)).abs() < 1e-5)
        True
    """
    check_choice(kind, KINDS, "kind")
    if not isinstance(groups, Groups):
        raise TypeError(f"groups is a {type(groups).__name__}; give Groups(points, members).")
    check_states(latents, "latents", groups.points.shape)
    if bool((groups.masks.sum(0) > 1).any()):
        raise ValueError("groups share points, and a point can be worth something once only; give disjoint groups.")
    options = {
        "anchor": anchor,
        "trace": trace,
        "probes": probes,
        "seed": seed,
        "solver": solver,
        "denoise": denoise,
        "chunk_size": chunk_size,
        "products": products,
        "control": control,
        "response": response,
    }
    if kind == "additive":
        return _additive(score, latents, groups, grid, functional, options | {"progress": progress})
    _check_keep(keep, groups, kind)
    # Who is asked does not depend on the answers: a game of noughts counts the runs beforehand.
    rehearsed = Game(lambda _: torch.zeros(()), len(groups))
    _played(rehearsed, kind, permutations, seed)
    told = Progress.of(len(rehearsed.known), progress, "coalitions")
    sampler = _Coalitions(score, latents, groups, grid, functional, float(keep), options, told)
    game = Game(sampler, len(groups))
    played = _played(game, kind, permutations, seed)
    return GroupValues(groups.names, *played, len(game.known), sampler.unfinished)


def _played(game: Game, kind: str, permutations: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values and standard errors of the players, and φ of all and of none."""
    if kind == "leave-out":
        shares = leave_one_out(game)
    elif permutations is not None:
        check_count(permutations, "permutations", 2)
        shares = by_permutations(game, permutations, seed)
    elif game.players <= ENUMERATED:
        shares = by_enumeration(game)
    else:
        raise ValueError(
            f"permutations=None asks all coalitions of {game.players} groups; give at most {ENUMERATED} groups, or a "
            "number of random orders."
        )
    whole = game(game.whole)
    return *shares, whole, torch.full_like(whole, math.nan) if kind == "leave-out" else game(game.nobody)


class _Coalitions:
    """φ when the groups outside a coalition are multiplied by `keep`."""

    def __init__(
        self,
        score: Score,
        latents: Tensor,
        groups: Groups,
        grid: Grid,
        functional: Callable[[Tensor], Tensor],
        keep: float,
        options: dict[str, Any],
        progress: Progress,
    ):
        self.score, self.latents, self.groups, self.grid = score, latents, groups, grid
        self.functional, self.keep, self.options, self.progress = functional, keep, options, progress
        # The same objects for every coalition: a response that solves for directions does so once.
        self.changes = [Toward(groups.law(name)) for name in groups.names]
        self.unfinished = 0

    def __call__(self, coalition: Coalition) -> Tensor:
        multipliers = torch.tensor([1.0 if inside else self.keep for inside in coalition], dtype=torch.float64)
        eta = self.groups.moved(multipliers).tolist()
        run = resample(self.score, self.latents, self.changes, eta, self.grid, **self.options)
        self.unfinished += int(not bool(run.outcome.finished.all()))
        self.progress.add(1)
        return functional_outputs(self.functional, run.samples, "functional")


def _additive(
    score: Score,
    latents: Tensor,
    groups: Groups,
    grid: Grid,
    functional: Callable[[Tensor], Tensor],
    options: dict[str, Any],
) -> GroupValues:
    influences = influence(score, latents, functional, groups.points, grid, **options)
    weights = groups.masks.to(influences.values) * groups.points.weights.to(influences.values)
    values = weights @ influences.values.T
    return GroupValues(
        groups.names,
        values,
        torch.zeros_like(values),
        influences.functional,
        torch.full_like(influences.functional, math.nan),
        1,
        int(not bool(influences.outcome.finished.all())),
    )


def _check_keep(keep: Any, groups: Groups, kind: str) -> None:
    number = check_real_number(keep, "keep")
    if not 0 <= number < 1:
        raise ValueError(f"keep={keep} multiplies the weights of groups outside a coalition; give 0 ≤ keep < 1.")
    if kind == "shapley" and number == 0 and float(1 - groups.masses.sum()) < FULL:
        raise ValueError(
            "keep=0 removes every group from the empty coalition, and the groups are all of the data: leave a part in "
            "no group, or give keep=0.5, say."
        )
