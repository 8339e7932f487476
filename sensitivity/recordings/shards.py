"""One shard meets all stages of all samples: its points are read once, and nothing of size batch × N is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor

from sensitivity.measures.points import Points
from sensitivity.readings.point_kernels import Block, Stages
from sensitivity.readings.streaming import Lengths, Recorded
from sensitivity.recordings.answers import Answer, Question, kept
from sensitivity.recordings.reach import Reduced, Rows, pruned
from sensitivity.responses import Condensed, SourceResponse
from sensitivity.sources import PreparedSource, SourceError
from sensitivity.sources.source import cut

# Rows (stages × batch) and points that meet at once, four megabytes of exponents. Tiles of 256 rows and 2048 points
# took a seventh more time in all: a product copies both its factors, which a short side does not pay for.
GROUP = 1024
BLOCK = 1024
# Points whose lengths are taken at once in double precision: two megabytes at d = 784.
PIECE = 256


# Other parameters are put into a network while it is called: two threads of a process would meet each other's.
_network = Lock()


class Meets(Protocol):
    """Points of a shard and what is recorded of some latents.

    Attributes:
        shape: (F, batch).
        stages: how many stages may leave points out.
    """

    shape: tuple[int, int]
    stages: int

    @property
    def lengths(self) -> Lengths | None:
        """Those of all blocks whose values were asked for; None where no stages are met."""
        ...

    def values(self, here: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Values of a block (F, batch, points), their bound (F, batch), and the samples left out of each stage."""
        ...


@dataclass(frozen=True)
class Asked:
    """What every shard is asked with: recorded stages, or what another response kept of them.

    Attributes:
        parts: the chunks of latents.
        data: where the points lie.
        shape: (F, batch) of all chunks.
        response: whose answer it is; None for the population's.
    """

    parts: Sequence[Recorded | Condensed]
    data: PreparedSource
    shape: tuple[int, int]
    response: SourceResponse | None = None

    def answer(self, shard: int, question: Question) -> Answer:
        """What the points of a shard say to all chunks of latents.

        Raises:
            SourceError: for a shard that cannot be used, which it names.
        """
        states, read = self.data.read(shard)
        names, codes = _groups(self.data, shard, question, len(states))
        states = states.to(self.data.like.device)
        start = self.data.source.starts[shard]
        meetings = self._meetings(states, start, question)
        met = [_met(one, states, start, question, len(names), codes) for one in meetings]
        lengths = [one.lengths for one in meetings if one.lengths is not None]
        answer = _answer(met, names, len(states), read, question)
        return replace(answer, lengths=Lengths.side_by_side(lengths)) if lengths else answer

    def _meetings(self, states: Tensor, start: int, question: Question) -> list[Meets]:
        if self.response is None:
            return [Meeting(part, states, question) for part in self.parts if isinstance(part, Recorded)]
        kept = [part for part in self.parts if not isinstance(part, Recorded)]
        return [Answering(self.response, kept, self.shape, states, start, question)]


Met = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _answer(met: list[Met], names: list[Any], points: int, read: int, question: Question) -> Answer:
    values, bound, sums, losses = (torch.cat([f[k] for f in met], 1) for k in (0, 2, 3, 4))
    indices = None if question.top_k is None else torch.cat([f[1] for f in met], 1)
    skipped = torch.stack([f[5] for f in met]).sum(0)
    added, lost = ({name: part[..., k] for k, name in enumerate(names)} for part in (sums, losses))
    return Answer(values, indices, bound, skipped, points, read, added, lost)


def _groups(data: PreparedSource, shard: int, question: Question, rows: int) -> tuple[list[Any], Tensor | None]:
    labels = question.labels
    if labels is None:
        return [], None
    if isinstance(labels, str):
        labels = data.source.labels(shard, labels)
    if len(labels) != rows:
        raise SourceError(f"{data.source.name(shard)} has {rows} points, but {len(labels)} labels: give one for each.")
    names = list(dict.fromkeys(labels))
    place = {name: k for k, name in enumerate(names)}
    return names, torch.tensor([place[label] for label in labels], device=data.like.device)


def _met(meeting: Meets, states: Tensor, start: int, question: Question, groups: int, codes: Tensor | None) -> Met:
    """Values, indices, bound, sums, losses and skipped samples × points for one chunk of latents."""
    shape = meeting.shape
    wide: dict[str, Any] = {"dtype": torch.float64, "device": states.device}
    bound, sums = torch.zeros(shape, **wide), torch.zeros(*shape, groups, **wide)
    losses, skipped = torch.zeros_like(sums), torch.zeros(meeting.stages, dtype=torch.float64)
    every = None if question.top_k is not None else states.new_zeros(*shape, len(states))
    best: tuple[Tensor, Tensor] | None = None
    for first, last in cut(len(states), BLOCK):
        here, count = slice(first, last), last - first
        values, loss, left = meeting.values(here)
        bound, skipped = torch.maximum(bound, loss), skipped + left * count
        if codes is not None:
            sums.index_add_(-1, codes[here], values.double())
            if question.prune is not None:
                losses.index_add_(-1, codes[here], loss[..., None].expand(*shape, count).contiguous())
        if every is not None:
            every[..., here] = values
        elif question.top_k is not None:
            indices = torch.arange(start + first, start + last, device=values.device)
            best = kept(question.top_k, best, (values, indices.expand(values.shape)))
    ranked = best if best is not None else (every if every is not None else states[:0], states[:0])
    return *ranked, bound, sums, losses, skipped


class Meeting:
    """Points and stages, with what these points decide: which way each stage takes, and what may be left out."""

    def __init__(self, part: Recorded, states: Tensor, question: Question) -> None:
        self.question, self.states, self.shares = question, states, part.shares
        # By pieces: a shard in double precision would leave the cache, and twice the memory of the shard with it.
        pieces = states.flatten(1).split(PIECE)
        self.squares = torch.cat([torch.linalg.vector_norm(y, dim=1, dtype=torch.float64).square() for y in pieces])
        self.of_laws: list[Stages] = part.stages()
        self.shape, self.stages = (len(part.cotangents), part.x.shape[1]), len(part.sigma)
        self.lengths = Lengths.of(part)
        farthest = float(self.squares.max()) ** 0.5
        axes = question.axes
        for one in self.of_laws:
            one.choose_ways(question.bandwidth, farthest, GROUP)
        self.rows = [[Rows.of(g, axes) for g in one.groups] for one in self.of_laws] if axes is not None else []
        self.reduced = None if axes is None else Reduced.of(states.flatten(1), self.squares, axes)

    def values(self, here: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Values of a block (F, batch, points), their bound (F, batch), and the samples left out of each stage."""
        block = Block(self.states[here], self.question.bandwidth, self.squares[here])
        one = self.of_laws[0]
        total = self.states.new_zeros(one.functionals, one.batch, len(block))
        bound = torch.zeros(one.functionals, one.batch, dtype=torch.float64, device=total.device)
        skipped = torch.zeros(len(one.sigma), dtype=torch.float64)
        for law, (share, rate) in enumerate(zip(self.shares, self.question.rates, strict=True)):
            speed = None if rate is None else rate[here]
            part, loss, left = self._of_law(law, block, share, speed, here)
            total = torch.add(total, part if speed is None else part * speed, alpha=share)
            bound, skipped = bound + loss, skipped + left / len(self.shares)
        self.lengths.add(total)
        return total, bound, skipped

    def _of_law(
        self, law: int, block: Block, share: float, rate: Tensor | None, here: slice
    ) -> tuple[Tensor, Tensor | float, Tensor | float]:
        stages, squares = self.of_laws[law], self.lengths.stages[law]
        if self.reduced is None or self.question.prune is None:
            return stages.against(block, squares, rate), 0.0, 0.0
        weight = abs(share) * (1.0 if rate is None else float(rate.abs().max()))
        # Every stage of every law may lose an equal part of what a value may lose.
        limit = self.question.prune / (len(stages.sigma) * len(self.shares) * max(weight, 1e-300))
        values, bound, skipped = pruned(stages, self.rows[law], block, self.reduced[here], limit, squares, rate)
        return values, weight * bound, skipped


class Answering:
    """Points and what a response kept: every point is met once for all chunks of latents."""

    stages = 0
    lengths: Lengths | None = None

    def __init__(
        self,
        response: SourceResponse,
        kept: Sequence[Condensed],
        shape: tuple[int, int],
        states: Tensor,
        start: int,
        question: Question,
    ) -> None:
        self.response, self.kept, self.shape = response, kept, shape
        self.states, self.start, self.question = states, start, question

    def values(self, here: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Values of a block; no bound, and nothing is left out."""
        points = Points(self.states[here], bandwidth=self.question.bandwidth)
        with _network:
            values = self.response.against(self.kept, points, self.start + here.start)
        rate = self.question.rates[0]
        nothing = torch.zeros(self.shape, dtype=torch.float64, device=values.device)
        return values if rate is None else values * rate[here], nothing, torch.zeros(0, dtype=torch.float64)
