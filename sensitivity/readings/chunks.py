"""Results of consecutive chunks of latents as one result.

Every field of a result that belongs to its latents declares which of its axes counts them, and what the axis before it
counts: that one goes where there is nothing to count, one perturbation given alone, say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, get_type_hints

import torch

from sensitivity.sampler.outcome import Outcomes

__all__ = ["Latents", "joined"]

R = TypeVar("R")


class Latents(NamedTuple):
    """Annotates a tensor field of a result: which of its axes counts latents, before a row alone loses its axis.

    Attributes:
        axis: of the latents.
        rows: what the axis before counts: "directions", "functionals", or "maps".
    """

    axis: int = 0
    rows: str | None = None


def joined(parts: Sequence[R], **alone: bool) -> R:
    """The chunks as one; what belongs to no latent is that of the first chunk.

    Args:
        parts: results of one class, at least one.
        alone: whether rows of a kind were given alone, without a sequence; for others their number decides.
    """
    whole: dict[str, Any] = {}
    for name, hint in get_type_hints(type(parts[0]), include_extras=True).items():
        values = [getattr(part, name) for part in parts]
        places = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Latents)]
        if isinstance(values[0], Outcomes):
            whole[name] = Outcomes.join(values)
        elif places and values[0] is not None:
            axis, rows = places[0]
            value = torch.cat(values, axis)
            lost = rows is not None and alone.get(rows, value.shape[axis - 1] == 1)
            whole[name] = value.select(axis - 1, 0) if lost else value
    return replace(parts[0], **whole)  # type: ignore[type-var]  # a dataclass
