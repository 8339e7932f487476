"""Results of chunks of latents, joined along the axes that their fields declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sensitivity.readings.chunks import Latents, joined


@dataclass(frozen=True)
class Made:
    """A result with every kind of field."""

    samples: Annotated[Tensor, Latents()]
    values: Annotated[Tensor, Latents(1, "functionals")]
    logs: Annotated[Tensor | None, Latents(1, "maps")]
    levels: Tensor
    bias: Annotated[Tensor | None, Latents(1, "functionals")] = None


def made(first: int, last: int, rows: int, maps: int) -> Made:
    """Rows `first` to `last` of one result."""
    latents = torch.arange(first, last, dtype=torch.float64)
    values = torch.stack([10 * k + latents for k in range(rows)])
    return Made(latents[:, None], values, torch.stack([latents] * maps), torch.ones(5))


def test_fields_are_joined_along_their_latents() -> None:
    """Assert that chunks give what the whole is, that other fields are the first's, and that None stays None."""
    parts = [made(0, 3, 2, 2), made(3, 4, 2, 2)]
    whole, expected = joined(parts, functionals=False), made(0, 4, 2, 2)
    for name in ("samples", "values", "logs", "levels"):
        assert torch.equal(getattr(whole, name), getattr(expected, name))
    assert whole.bias is None


def test_a_row_alone_loses_its_axis() -> None:
    """Assert that the caller decides for what it was asked, and the number of rows for what it was not."""
    alone = joined([made(0, 2, 1, 1), made(2, 3, 1, 1)], functionals=True)
    assert alone.values.shape == (3,)
    assert alone.logs is not None
    assert alone.logs.shape == (3,)
    kept = joined([made(0, 2, 1, 2)], functionals=False)
    assert kept.values.shape == (1, 2)
    assert kept.logs is not None
    assert kept.logs.shape == (2, 2)
