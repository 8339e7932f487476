"""From the answer of all shards to an `Influence`: its sums and bounds, what failed, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sensitivity.readings.influences import Influence
from sensitivity.readings.streaming import Lengths
from sensitivity.recordings.answers import Answer, Question
from sensitivity.recordings.identity import described
from sensitivity.recordings.run import Ran
from sensitivity.sources import PreparedSource


def by_parts(
    sizes: Sequence[int], answer: Answer, home: torch.device, pruned: bool
) -> list[tuple[Tensor, Tensor | None, Tensor | None, Lengths | None]]:
    """Values, indices and bounds, (F, batch, ...), of each chunk of latents, and how long its values are."""
    nothing = [None] * len(sizes)
    return list(
        zip(
            answer.values.to(home).split(sizes, 1),
            nothing if answer.indices is None else answer.indices.to(home).split(sizes, 1),
            answer.bound.to(home).split(sizes, 1) if pruned else nothing,
            nothing if answer.lengths is None else answer.lengths.to(home).split(sizes),
            strict=True,
        )
    )


def with_sums(result: Influence, answer: Answer, pruned: bool, several: bool) -> Influence:
    """The result with the sums of groups and what pruning may have taken, in the dtype of its samples."""
    like = result.samples
    # Integers sort as numbers and strings as words; the two, which have no order, one after the other.
    names = tuple(sorted(answer.sums, key=lambda name: (str(type(name)), name)))
    sums, losses = (
        torch.stack([part[n] for n in names], -1).to(like) if names else None for part in (answer.sums, answer.losses)
    )
    one = slice(None) if several else 0
    return replace(
        result,
        bound=_upward(answer.bound.to(like.device), like)[one] if pruned else None,
        groups=None if sums is None else sums[one],
        group_bound=losses[one] if losses is not None and pruned else None,
        group_names=names,
    )


def _upward(bound: Tensor, like: Tensor) -> Tensor:
    """A bound in the dtype of the values, never below itself."""
    rounded = bound.to(like.dtype)
    return torch.where(rounded < bound, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)


def noted_failures(before: str, ran: Ran[Answer], total: int) -> str:
    if not ran.failures:
        return before
    failed = " ".join(ran.failures.values())
    return f"{before} {len(ran.failures)} of {total} shards failed and are left out: {failed}".strip()


def provenance_of(
    ran: Ran[Answer], answer: Answer, data: PreparedSource, question: Question, levels: Tensor, batch: int
) -> dict[str, Any]:
    """What was asked, of which data, what it took, and how much was pruned at each of the stages' `levels`."""
    pruned = {}
    if question.prune is not None:
        share = answer.skipped / (answer.points * batch)
        pruned = {f"{float(s):.4g}": float(v) for s, v in zip(levels, share, strict=True)}
    return {
        "question": described(question, data),
        "points": answer.points,
        "of": len(data.source),
        "shards": len(data.source.sizes),
        "bytes_read": answer.bytes,
        "reused": ran.reused,
        "failures": ran.failures,
        "pruned": pruned,
        "seconds": ran.seconds,
    }
