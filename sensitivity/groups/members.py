"""Who belongs to a group of the training data, and what is done to it.

A group of mass W = Σ_{i in group} w_i whose weights are multiplied by c leaves the law with the weights

    w′_i = c w_i/Z in the group, w_i/Z outside,    Z = 1 + W (c − 1),

which is the mass η = W (c − 1)/Z moved from the data's law toward that of the group: c = 0 removes it, η = −W/(1 − W).
Several groups with multipliers c_g move η_g = W_g (c_g − 1)/Z, Z = 1 + Σ W_g (c_g − 1), together. A group whose points
become others moves its mass W toward the new points and away from the old.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_like
from sensitivity.measures.points import Points
from sensitivity.perturbations.contamination import Toward
from sensitivity.perturbations.displacement import Move
from sensitivity.perturbations.perturbation import Perturbation

MULTIPLIERS = {"removed": 0.0, "halved": 0.5, "doubled": 2.0}


@dataclass(frozen=True)
class GroupChange:
    """What is done to one group: the direction, per unit mass moved, and the mass η that moves along it."""

    name: Any
    perturbation: Perturbation
    eta: float


class Groups:
    """Named groups of the training points, each with what is done to it.

    Args:
        points: the N training points, `Points` with their weights and bandwidth, or a tensor (N, *shape).
        members: who belongs to which group: N labels (a tensor or a sequence), each of which names a group; or a
            mapping from names to masks, (N,) of bool, or to lists of indices. Groups of a mapping may overlap.
        edits: what is done: "removed", "halved", "doubled", or a number c ≥ 0 that multiplies the group's weights; or
            other data (M, *shape) that take the place of the group's M points, in their order; or a mapping from names
            to these, for each group its own.

    Attributes:
        points: the training points.
        names: of the groups, in the order of the last axis of everything that is said of them.
        masks: (G, N), who belongs to which.
        masses: W_g, the share of the data's weight in each, (G,).

    Raises:
        ValueError, TypeError: for members that are no such thing, an empty group, a group that is all of the data and
            is to be removed, an edit that does nothing or does not fit.

    Example:
        >>> data = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> groups = Groups(data, ["a", "a", "b", "b"], {"a": "removed", "b": "doubled"})
        >>> [(change.name, round(change.eta, 3)) for change in groups.changes()]
        [('a', -1.0), ('b', 0.333)]
    """

    def __init__(self, points: Points | Tensor, members: Any, edits: Any = "removed"):
        self.points = points if isinstance(points, Points) else Points(points)
        masks = _masks(members, self.points)
        self.names = tuple(masks)
        self.masks = torch.stack(list(masks.values()))
        self.masses = self.masks.to(self.points.weights) @ self.points.weights
        given = edits if isinstance(edits, Mapping) else dict.fromkeys(self.names, edits)
        missing = [name for name in self.names if name not in given] + [name for name in given if name not in masks]
        if missing:
            raise ValueError(
                f"edits and members differ in the groups {missing}; say for each group what is done to it."
            )
        self.edits = {name: self._edit(name, given[name]) for name in self.names}

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Groups({len(self)} groups of {len(self.points)} points)"

    def law(self, name: Any) -> Points:
        """The points of one group with their share of the weights."""
        mask = self.masks[self.names.index(name)]
        return Points(self.points.data[mask], self.points.weights[mask], self.points.bandwidth, block=self.points.block)

    def changes(self, *, moves: bool = False) -> list[GroupChange]:
        """What is done to each group as a direction and a mass; with `moves`, edited points as a `Move` of the old."""
        return [self._change(name, mass, moves) for name, mass in zip(self.names, self.masses.tolist(), strict=True)]

    def moved(self, multipliers: Tensor) -> Tensor:
        """η_g toward each group's law when the weights of all are multiplied by c_g, (..., G); disjoint groups."""
        excess = self.masses * (multipliers.to(self.masses) - 1)
        return excess / (1 + excess.sum(-1, keepdim=True))

    def _change(self, name: Any, mass: float, moves: bool) -> GroupChange:
        edit, old = self.edits[name], self.law(name)
        if not isinstance(edit, Tensor):
            return GroupChange(name, Toward(old), mass * (edit - 1) / (1 + mass * (edit - 1)))
        if moves:
            # A Move of points that are all of their law moves mass 1; the group has W of it.
            return GroupChange(name, Move(old, edit - old.data), mass)
        new = Points(edit, old.weights, old.bandwidth, block=old.block)
        return GroupChange(name, Toward(new) - Toward(old), mass)

    def _edit(self, name: Any, edit: Any) -> float | Tensor:
        place = self.names.index(name)
        mask, whole = self.masks[place], bool(self.masks[place].all())
        if isinstance(edit, Tensor):
            check_like(edit, self.points.data[mask], f"edits[{name!r}]", "the group's points")
            return edit.detach()
        if isinstance(edit, str):
            if edit not in MULTIPLIERS:
                raise ValueError(
                    f"edits[{name!r}]={edit!r} is unknown; give 'removed', 'halved', 'doubled', a number that "
                    "multiplies the group's weights, or the points that take the place of its own."
                )
            edit = MULTIPLIERS[edit]
        if isinstance(edit, bool) or not isinstance(edit, int | float):
            raise TypeError(
                f"edits[{name!r}] is a {type(edit).__name__}; give 'removed', a number that multiplies the group's "
                "weights, or a tensor of the points that take the place of its own."
            )
        if not (math.isfinite(edit) and edit >= 0) or edit == 1:
            raise ValueError(
                f"edits[{name!r}]={edit} multiplies the group's weights; give a finite number ≥ 0 other than 1."
            )
        if whole:
            end = "leaves nothing" if edit == 0 else "changes nothing"
            raise ValueError(
                f"the group {name!r} is all of the data, and edits[{name!r}]={edit} {end}; take a part of the data."
            )
        return float(edit)


def _masks(members: Any, points: Points) -> dict[Any, Tensor]:
    if isinstance(members, Mapping):
        if not members:
            raise ValueError("members is empty; give at least one group, a name with its mask or indices.")
        return {name: _mask(who, points, name) for name, who in members.items()}
    if isinstance(members, Tensor):
        if members.dtype.is_floating_point or members.dtype.is_complex:
            raise TypeError(
                f"members has dtype {members.dtype}; give integer labels, or a mapping from names to masks or indices."
            )
        members = members.tolist()
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise TypeError(
            f"members is a {type(members).__name__}; give a label for each point, or a mapping from names to masks or "
            "indices."
        )
    if len(members) != len(points):
        raise ValueError(
            f"members has {len(members)} labels for {len(points)} points; give one for each, or a mapping from names "
            "to masks or indices."
        )
    device = points.data.device
    return {name: torch.tensor([other == name for other in members], device=device) for name in dict.fromkeys(members)}


def _mask(who: Any, points: Points, name: Any) -> Tensor:
    count, device = len(points), points.data.device
    try:
        given = torch.as_tensor(who, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"members[{name!r}] is a {type(who).__name__}; give a mask or a list of indices.") from error
    if given.ndim != 1 or (given.dtype.is_floating_point and len(given)):
        raise TypeError(
            f"members[{name!r}] has shape {tuple(given.shape)} and dtype {given.dtype}; give a mask ({count},) of "
            "bool, or a list of indices."
        )
    if given.dtype == torch.bool:
        if len(given) != count:
            raise ValueError(f"members[{name!r}] is a mask of {len(given)} for {count} points; give one for each.")
        mask = given
    else:
        mask = _of_indices(given.long(), count, name)
    if not bool(mask.any()):
        raise ValueError(f"members[{name!r}] is empty; give at least one point.")
    if not float(points.weights[mask].sum()) > 0:
        raise ValueError(f"members[{name!r}] has points of weight 0 alone, which a change of weights does not touch.")
    return mask


def _of_indices(indices: Tensor, count: int, name: Any) -> Tensor:
    if len(indices) and not bool(((indices >= 0) & (indices < count)).all()):
        raise ValueError(f"members[{name!r}] holds indices beyond 0 … {count - 1}; number the points from 0.")
    if len(indices.unique()) != len(indices):
        raise ValueError(f"members[{name!r}] names a point twice; give each index once.")
    mask = torch.zeros(count, dtype=torch.bool, device=indices.device)
    mask[indices] = True
    return mask
