"""Changes of a data set: what retraining sees (weights or edited images) and what the engine sees (a perturbation).

| written | means |
|---|---|
| `class:3@0.1` | ρ → (1 − η) ρ + η ν, ν uniform on class 3, η = .1 |
| `drop-class:3` | class 3 is removed |
| `drop-image:0`, `add-image:0@0.02` | image 0 of class 3 (of all, without classes) is removed, or gains mass |
| `contrast-class:3@0.3` | the contrast of class 3 is lowered by η: x → x + η (background − x) |
| `blur-class:3@0.5` | class 3 is blurred: x → x + η (blur(x) − x), blur the binomial filter (1 2 1)/4 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from sensitivity import Move, Perturbation, Points, Remove, Toward
from studies.data import Images

IMAGE_CLASS = 3
BACKGROUND = -1.0


@dataclass(frozen=True)
class Change:
    """One change of a training set of N images.

    Attributes:
        name: as written in the table.
        eta: the factor of the perturbation (a mass; the length of a move; negative:
        removal).
        added: the images of ν.
        weights: (N,) of the changed data, or None where images are edited.
        edited: the edited pool, or None.
        perturbation: χ, so that the change of samples is η δ to first order.
    """

    name: str
    eta: float
    added: Tensor
    weights: Tensor | None
    edited: Tensor | None
    perturbation: Perturbation


def parse(name: str, train: Images, bandwidth: float) -> Change:
    """The change of this name on a training set; densities of its images use the given kernel bandwidth.

    Raises:
        ValueError: for a name that the table does not have.
    """
    kind, _, rest = name.partition(":")
    which, _, mass = rest.partition("@")
    makers: dict[str, Callable[..., Change]] = {
        "class": _more,
        "drop-class": _less,
        "add-image": _more,
        "drop-image": _less,
        "contrast-class": partial(_edited, edit=faded),
        "blur-class": partial(_edited, edit=blurred),
    }
    if kind not in makers or not which.isdigit():
        raise ValueError(f"change {name!r} is not known: write one of {', '.join(f'{k}:INDEX' for k in makers)}.")
    mask = _mask(kind, int(which), train)
    return makers[kind](name, train.images, mask, float(mass or 0), bandwidth)


def _mask(kind: str, which: int, train: Images) -> Tensor:
    if kind.endswith("class"):
        return train.of_class(which)
    everything = torch.arange(len(train), device=train.images.device)
    members = everything if train.labels is None else train.of_class(IMAGE_CLASS).nonzero()[:, 0]
    return everything == members[which]


def _more(name: str, images: Tensor, mask: Tensor, eta: float, bandwidth: float) -> Change:
    weights = (1 - eta) / len(images) + eta * mask.double() / mask.sum()
    added = images[mask]
    return Change(name, eta, added, weights, None, Toward(Points(added, bandwidth=bandwidth)))


def _less(name: str, images: Tensor, mask: Tensor, eta: float, bandwidth: float) -> Change:
    perturbation = Remove(Points(images[mask], bandwidth=bandwidth))
    kept = (~mask).double()
    return Change(name, perturbation.mass(len(images)), images[mask], kept / kept.sum(), None, perturbation)


def _edited(
    name: str, images: Tensor, mask: Tensor, eta: float, bandwidth: float, *, edit: Callable[[Tensor], Tensor]
) -> Change:
    displacement = edit(images[mask]) - images[mask]
    edited = images.clone()
    edited[mask] += eta * displacement
    share = float(mask.double().mean())
    move = Move(Points(images[mask], bandwidth=bandwidth), displacement)
    return Change(name, eta, edited[mask], None, edited, share * move)


def faded(images: Tensor) -> Tensor:
    """Images without any contrast: background everywhere."""
    return torch.full_like(images, BACKGROUND)


def blurred(images: Tensor) -> Tensor:
    """Images (N, 1, height, width) under the binomial filter (1 2 1)/4 along both sides; background outside.

    Example:
        >>> blurred(torch.full((1, 1, 4, 4), -1.0)).unique()
        tensor([-1.])
    """
    line = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype, device=images.device)
    ink = functional.pad(images - BACKGROUND, (1, 1, 1, 1))
    return functional.conv2d(ink, torch.outer(line, line)[None, None]) + BACKGROUND
