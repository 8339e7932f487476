"""The adjoint of some samples, kept: recorded once beside the network, asked of any data afterwards.

Given the stages (x, μ, log p, σ, s) the influence of a point depends on nothing else: the network is not needed, and
points may be anywhere and come in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_positive_number, check_same_home, check_states
from sensitivity.grid import Grid
from sensitivity.measures.points import Points
from sensitivity.readings.chunks import joined
from sensitivity.readings.influences import (
    Influence,
    answered,
    by_chunks,
    check_top,
    noted,
    rates_of,
    relative_of,
)
from sensitivity.readings.streaming import Lengths, Recorded, paired
from sensitivity.recordings.answers import Answer, Question, Values
from sensitivity.recordings.folder import Folder, answer_of, content_of
from sensitivity.recordings.identity import described
from sensitivity.recordings.reach import axes_of
from sensitivity.recordings.run import Ran, ShardFailure, run
from sensitivity.recordings.shards import Asked
from sensitivity.recordings.storage import read, write
from sensitivity.responses import Condensed, SourceResponse
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcome, Outcomes
from sensitivity.sources import PreparedSource, as_source
from sensitivity.sources.arrays import digest
from sensitivity.sources.source import SHARD

# How far the answer of a response that is given anew may be from that of the one recorded: rounding of two machines.
SAME = 1e-3


@dataclass(frozen=True)
class Answered:
    """What a response other than the population's kept of the stages."""

    kept: Condensed
    shares = (1.0,)


@dataclass(frozen=True)
class Part:
    """A chunk of latents: its stages, and what an `Influence` says of its samples beside values."""

    stages: Recorded | Answered
    samples: Tensor
    functional: Tensor
    log_density: Tensor | None
    log_density_error: Tensor | None
    grid_error: Tensor | None
    codes: Tensor
    levels: Tensor


@dataclass(frozen=True)
class Recording:
    """All stages of the adjoint of a batch of samples; made by `record`.

    Attributes:
        parts: the chunks of latents.
        several: whether a sequence of functionals was given, so that values have an axis for them.
        made_from: grid, solver, seed, trace, digests of latents and network, names of functionals, versions, cost.
        response: whose answer was recorded; None for the population's, which nothing but the stages is needed for.
        witness: its answer to one of its training points, (F, batch), by which it is known again.
    """

    parts: tuple[Part, ...]
    several: bool
    made_from: Mapping[str, Any]
    response: SourceResponse | None = None
    witness: Tensor | None = None

    @classmethod
    def of(
        cls, parts: tuple[Part, ...], several: bool, made_from: Mapping[str, Any], response: SourceResponse | None
    ) -> Recording:
        """What was recorded, with its witness."""
        recording = cls(parts, several, made_from, response)
        if response is None:
            return recording
        return replace(recording, witness=response.against(recording._kept, response.example)[..., 0])

    @property
    def samples(self) -> Tensor:
        """x(σ_min), (batch, *shape)."""
        return torch.cat([part.samples for part in self.parts])

    @property
    def functional(self) -> Tensor:
        """φ(x_b), (F, batch)."""
        return torch.cat([part.functional for part in self.parts], 1)

    @property
    def cost(self) -> Cost:
        """What recording asked of the network, per sample."""
        return Cost(**self.made_from["cost"])

    @property
    def outcome(self) -> Outcomes:
        """How each sample ended."""
        joined = Outcomes.join([Outcomes(part.codes, part.levels) for part in self.parts])
        return replace(joined, note=str(self.made_from["note"]))

    @property
    def grid(self) -> Grid:
        """The levels of the path."""
        return Grid.from_levels(self.made_from["levels"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all its numbers."""
        hasher = hashlib.sha256()
        for name, value in sorted(self.tensors().items()):
            hasher.update(f"{name}:{digest(value)}".encode())
        return hasher.hexdigest()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, as `save` writes it."""
        named = {} if self.witness is None else {"witness": self.witness}
        for k, part in enumerate(self.parts):
            named |= {f"{k}.{name}": value for name, value in vars(part).items() if isinstance(value, Tensor)}
            recorded = part.stages.kept if isinstance(part.stages, Answered) else vars(part.stages)
            named |= {f"{k}.stages.{name}": value for name, value in recorded.items() if isinstance(value, Tensor)}
        return {name: value.detach().contiguous() for name, value in named.items()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all, with all that is known of its making.

        Raises:
            ImportError: without the package safetensors. ValueError: for a path that cannot be written.
        """
        shares = [list(part.stages.shares) for part in self.parts]
        about = {"made_from": dict(self.made_from), "several": self.several, "shares": shares, "digest": self.digest}
        write(path, self.tensors(), json.dumps(about))

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device = "cpu", response: Any = None) -> Recording:
        """Read what `save` wrote, and see that every number is as it was.

        Args:
            path: the file.
            device: where its numbers go.
            response: of a response other than the population's, the one that it was recorded with, made anew: the file
                holds neither network nor loss nor training data. Its answer to one training point must be the same.

        Raises:
            ImportError: without the package safetensors. ValueError: for a file that is missing, damaged or none; for
                another response than the recorded one.
        """
        tensors, text = read(path, device)
        try:
            about = json.loads(text)
            made_from, shares = about["made_from"], about["shares"]
            plain = made_from.get("response", "PopulationResponse") == "PopulationResponse"
            parts = tuple(_part(tensors, k, tuple(each) if plain else None) for k, each in enumerate(shares))
            recording = cls(parts, about["several"], made_from, witness=tensors.get("witness"))
            meant = about["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"path={path} is no recording: give a file that Recording.save wrote.") from error
        if recording.digest != meant:
            raise ValueError(
                f"path={path} has changed since it was written: its numbers have another SHA-256; record anew."
            )
        return recording._answering(response)

    def _answering(self, response: Any) -> Recording:
        """The recording with the response that it was made with, given anew."""
        recorded = self.made_from.get("response", "PopulationResponse")
        if self.witness is None and (response is None or type(response).__name__ == recorded):
            return self
        given = "no response" if response is None else f"a {type(response).__name__}"
        if type(response).__name__ != recorded or not isinstance(response, SourceResponse) or self.witness is None:
            raise ValueError(
                f"the recording is of a {recorded}, and {given} was given: pass response=, the {recorded} that it was "
                "recorded with or one made alike."
            )
        try:
            gap = (response.against(self._kept, response.example)[..., 0] - self.witness).abs().max()
            same = bool(gap <= SAME * self.witness.abs().max())
        except (RuntimeError, ValueError):
            same = False  # of another size
        if not same:
            raise ValueError(
                f"response={recorded} answers otherwise than the recorded one: give it the same network, loss and "
                "training data, or record anew."
            )
        return replace(self, response=response)

    @property
    def _kept(self) -> list[Condensed]:
        return [part.stages.kept for part in self.parts if isinstance(part.stages, Answered)]

    @property
    def _recorded(self) -> list[Recorded]:
        return [part.stages for part in self.parts if isinstance(part.stages, Recorded)]

    def influence(
        self,
        points: Any,
        top_k: int | None = None,
        groups: Any = None,
        client: Any = None,
        *,
        rates: Any = None,
        bandwidth: float = 0.0,
        transform: Callable[[Tensor], Tensor] | None = None,
        encoder: Callable[[Tensor], Tensor] | None = None,
        encoder_batch: int = 256,
        column: Any = None,
        shard_rows: int = SHARD,
        prune: float | None = None,
        folder: str | Path | None = None,
        incomplete: bool = False,
        progress: Any = False,
    ) -> Influence:
        """The derivative of the functionals toward each of N points, wherever these lie, in one pass over them.

        Memory is bounded by a shard and, with `top_k` or `groups`, does not grow with N. A tensor without further
        arguments gives the values of `influence` to the last bit, everything else to rounding.

        Args:
            points: a `Points`; a tensor (N, *shape); a NumPy array or memory map; a path or list of paths to `.npy`,
                `.safetensors` or `.parquet` shards; a torch `Dataset` or `DataLoader`; a table of Hugging Face
                `datasets`; a `sensitivity.sources.PointSource`.
            top_k: keep only the k points of largest |value| for each functional and sample.
            groups: one label a point, (N,), or the name of a field of the data set: Σ values for each label. The full
                matrix is then not kept; give `top_k` for the leading points beside the sums.
            client: a `dask.distributed.Client` whose workers read the shards; they need the same paths.
            rates: as for `influence`.
            bandwidth: b of the points, see `Points`; a `Points` brings its own.
            transform: what makes states of stored rows, such as `sensitivity.sources.Affine(2 / 255, -1.0)` for
                bytes; needed for integers. It gives the dtype of the latents.
            encoder: what follows the transform, by batches of `encoder_batch`: an autoencoder's encoder.
            column: where points lie in a table, a file with several tensors, or an item of a data set.
            shard_rows: points of a shard; a Parquet file is cut at its row groups.
            prune: what every single value may lose; points that provably cannot matter to a stage are then left out of
                it, and `bound` of the result says how much any value may have lost (never above `prune`). For the
                population's response only.
            folder: where answers of finished shards are kept, each written at once with a checksum; a run that was
                killed goes on from there. It belongs to one recording and one question.
            incomplete: return the result of all other shards where some failed; its outcome's note names them.
            progress: True for a line on standard error, or a function of (points done, of, a second, seconds left).

        Raises:
            ValueError, TypeError: for arguments that do not fit, with the remedy.
            ShardFailure: after all other shards are done, where some could not be used; it names them.

        Example:
            >>> from sensitivity import Mixture, record
            >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
            >>> right_of = lambda x: x[:, 0]
            >>> kept = record(base.score, torch.zeros(1, 1), right_of, Grid(10.0, 0.1, 20), anchor=base)
            >>> found = kept.influence(torch.tensor([[-1.0], [1.0], [1.5]]), top_k=1, groups=["left", "right", "right"])
            >>> found.group_names, bool(found.groups[0, 0] < 0 < found.groups[0, 1])
            (('left', 'right'), True)
        """
        check_top(top_k)
        wished = [groups, client, transform, encoder, column, prune, folder]
        plain = isinstance(points, Tensor | Points) and all(value is None for value in wished)
        if plain and shard_rows == SHARD and progress is False:
            check_positive_number(bandwidth, "bandwidth", zero=True)
            return self._at_once(points, top_k, rates, bandwidth)
        if isinstance(points, Points):
            points, bandwidth = points.data, points.bandwidth
        source = as_source(points, shard_rows=shard_rows, column=column)
        data = PreparedSource(source, self.samples[:0], transform, encoder, encoder_batch)
        question = self._question(data, top_k, groups, rates, bandwidth, prune)
        key = {"recording": self.digest, "question": described(question, data)}
        kept = None if folder is None else Folder(folder, key, content_of, answer_of)
        shape = (self.functional.shape[0], self.functional.shape[1])
        asked = Asked(self._recorded if self.response is None else self._kept, data, shape, self.response)
        ran = run(asked, question, Values(question.top_k), client, kept, progress)
        if ran.answer is None or (ran.failures and not incomplete):
            raise ShardFailure(ran.failures, len(source.sizes), kept is not None)
        return self._result(ran, ran.answer, data, question)

    def self_influence(self, points: Tensor, *, bandwidth: float = 0.0) -> Tensor:
        """The influence of point b on sample b alone, (batch,) or (F, batch), without the matrix.

        Args:
            points: one point a sample, like the samples: what each was made to resemble, or the sample itself.
            bandwidth: b of the points.

        Raises:
            ValueError, TypeError: for points that do not match the samples; under guidance, where rates decide.
        """
        check_states(points, "points")
        if points.shape != self.samples.shape:
            raise ValueError(
                f"points has shape {tuple(points.shape)}, but the samples have {tuple(self.samples.shape)}: give one "
                "point for each sample."
            )
        check_same_home(points, self.samples, "points", "the samples")
        check_finite(points, "points")
        variance = check_positive_number(bandwidth, "bandwidth", zero=True) ** 2
        if self._guided:
            raise ValueError("self_influence has no rates, which guidance needs: use influence with rates=PerBranch.")
        if self.response is not None:
            every = self.response.against(self._kept, Points(points, bandwidth=bandwidth))
            values = every.diagonal(dim1=1, dim2=2)
        else:
            rows = points.split([len(part.samples) for part in self.parts])
            values = torch.cat([_matched(one, y, variance) for one, y in zip(self._recorded, rows, strict=True)], 1)
        return values if self.several else values[0]

    def _at_once(self, points: Tensor | Points, top_k: int | None, rates: Any, bandwidth: float) -> Influence:
        """All points in memory, as `influence` meets them."""
        data = points if isinstance(points, Points) else Points(points, bandwidth=bandwidth)
        like = self.parts[0].samples
        if data.shape != tuple(like.shape[1:]):
            raise ValueError(
                f"points have shape {data.shape}, but the recording is of shape {tuple(like.shape[1:])}: give points "
                "of that shape."
            )
        check_same_home(data.data, like.cpu() if data.data.device.type == "cpu" else like, "points", "the recording")
        speeds = rates_of(rates, self._guided, len(data), like)
        if self.response is None:
            met = [paired(one, data, speeds, top_k) for one in self._recorded]
            pieces = zip(self.parts, met, strict=True)
            parts = [self._influence(part, values, places, None, lengths) for part, (values, places, lengths) in pieces]
        else:
            pair = answered(self.response, self._kept, data, speeds[0], top_k)
            found = by_chunks([len(part.samples) for part in self.parts], *pair)
            parts = [self._influence(part, *pair) for part, pair in zip(self.parts, found, strict=True)]
        return self._labelled(joined(parts, functionals=not self.several), len(data))

    def _influence(
        self,
        part: Part,
        values: Tensor,
        indices: Tensor | None,
        bound: Tensor | None = None,
        lengths: Lengths | None = None,
    ) -> Influence:
        """What a chunk of latents says; how much each stage adds is known by its `lengths`."""
        silent = (values == 0).all(-1).all(0).cpu()
        if bound is not None:
            silent = silent & (bound == 0).all(0).cpu()
        new = silent & (part.codes == Outcome.FINISHED.value)
        codes = part.codes.masked_fill(new, Outcome.NO_POINT_NEAR.value)
        outcome = Outcomes(codes, part.levels.masked_fill(new, self.grid.sigma_min))
        relative = relative_of(part.samples, part.log_density_error, part.grid_error, len(part.stages.shares))
        if lengths is not None and isinstance(part.stages, Recorded):
            relative = lengths.relative_error(part.stages, relative)
        return Influence(
            values=values,
            indices=indices,
            samples=part.samples,
            functional=part.functional,
            log_density=part.log_density,
            log_density_error=part.log_density_error,
            grid_error=part.grid_error,
            outcome=outcome,
            cost=self.cost,
            relative_error=relative,
        )

    def _labelled(self, result: Influence, points: int) -> Influence:
        asked = 0 if self.response is None else self.response.rows_per_point * points
        words = str(self.made_from["note"])
        outcome = noted(result, words) if self.response is None else replace(result.outcome, note=words)
        return replace(result, outcome=outcome, cost=replace(self.cost, away=self.cost.away + asked))

    @property
    def _guided(self) -> bool:
        return len(self.parts[0].stages.shares) > 1

    def _question(
        self, data: PreparedSource, top_k: int | None, groups: Any, rates: Any, bandwidth: float, prune: float | None
    ) -> Question:
        check_positive_number(bandwidth, "bandwidth", zero=True)
        if self.response is not None:
            self.response.check_points(Points(self.samples[:1], bandwidth=bandwidth))
        if prune is not None:
            check_positive_number(prune, "prune")
            if self.response is not None:
                raise ValueError(
                    f"prune={prune} leaves out what a ratio of densities bounds, and a {type(self.response).__name__} "
                    "has none: leave prune out."
                )
        count = len(data.source)
        labels = groups if groups is None or isinstance(groups, str) else _labels(groups, count)
        speeds = tuple(rates_of(rates, self._guided, count, self.samples))
        # With sums asked for and no list, one leading point stands for the matrix.
        keep = 1 if groups is not None and top_k is None else top_k
        axes = None if prune is None else axes_of(data.read(0)[0])
        return Question(keep, bandwidth, prune, axes, speeds, labels)

    def _result(self, ran: Ran[Answer], answer: Answer, data: PreparedSource, question: Question) -> Influence:
        home = self.samples.device
        sizes = [len(part.samples) for part in self.parts]
        bound = answer.bound.to(home) if question.prune is not None else None
        split = zip(
            self.parts,
            answer.values.to(home).split(sizes, 1),
            [None] * len(sizes) if answer.indices is None else answer.indices.to(home).split(sizes, 1),
            [None] * len(sizes) if bound is None else bound.split(sizes, 1),
            [None] * len(sizes) if answer.lengths is None else answer.lengths.to(home).split(sizes),
            strict=True,
        )
        result = joined([self._influence(*pieces) for pieces in split], functionals=not self.several)
        result = self._labelled(result, answer.points)
        names = tuple(sorted(answer.sums, key=lambda name: (str(type(name)), name)))
        sums, losses = (
            torch.stack([part[n] for n in names], -1).to(self.samples) if names else None
            for part in (answer.sums, answer.losses)
        )
        one = slice(None) if self.several else 0
        return replace(
            result,
            bound=None if bound is None else _upward(bound, self.samples)[one],
            groups=None if sums is None else sums[one],
            group_bound=None if losses is None or bound is None else losses[one],
            group_names=names,
            outcome=replace(result.outcome, note=_note(result.outcome.note, ran, len(data.source.sizes))),
            provenance=self._provenance(ran, answer, data, question),
        )

    def _provenance(self, ran: Ran[Answer], answer: Answer, data: PreparedSource, question: Question) -> dict[str, Any]:
        pruned = {}
        if question.prune is not None:
            share = answer.skipped / (answer.points * len(self.samples))
            pruned = {f"{float(s):.4g}": float(v) for s, v in zip(self._recorded[0].sigma, share, strict=True)}
        return {
            "recording": self.digest,
            "made_from": dict(self.made_from),
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


def _part(tensors: Mapping[str, Tensor], k: int, shares: tuple[float, ...] | None) -> Part:
    prefix = f"{k}.stages."
    named = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    stages = Answered(named) if shares is None else Recorded(**named, shares=shares)
    optional = ("log_density", "log_density_error", "grid_error")
    rest = {f.name: tensors[f"{k}.{f.name}"] for f in fields(Part) if f.name not in ("stages", *optional)}
    rest |= {"codes": rest["codes"].cpu(), "levels": rest["levels"].cpu()}
    return Part(stages, **rest, **{name: tensors.get(f"{k}.{name}") for name in optional})  # type: ignore[arg-type]


def _matched(stages: Recorded, points: Tensor, extra: float) -> Tensor:
    """Σ over stages of r (s_y − s)·μ with one point a sample, (F, batch), in double precision."""
    total = stages.cotangents.new_zeros(stages.cotangents.shape[0], len(points), dtype=torch.float64)
    y, dimension = points.flatten(1).double(), points[0].numel()
    for j, sigma in enumerate(stages.sigma.double()):
        tau2 = sigma**2 + extra
        gap = y - stages.x[j].flatten(1).double()
        log_ratio = -0.5 * gap.square().sum(1) / tau2 - 0.5 * dimension * (2 * torch.pi * tau2).log()
        ratio = torch.where(stages.running[j], (log_ratio - stages.logs[0, j]).exp(), 0.0)
        slope = (gap / tau2 - stages.scores[0, j].flatten(1)) * ratio[:, None]
        total += (slope * stages.cotangents[:, j].flatten(2)).sum(-1)
    return total.to(points)


def _labels(groups: Any, count: int) -> list[Any]:
    # Labels come as arrays, tensors or columns of any package, which share this method and no class.
    values = groups.tolist() if hasattr(groups, "tolist") else groups
    if not isinstance(values, Sequence) or any(isinstance(v, list | dict | set) for v in values[:1]):
        raise TypeError(f"groups is a {type(groups).__name__}: give one label a point, or the name of a field.")
    if len(values) != count:
        raise ValueError(f"groups has {len(values)} labels, but there are {count} points: give one label a point.")
    if kinds := {type(v).__name__ for v in values} - {"int", "str"}:
        raise TypeError(f"groups has labels of type {sorted(kinds)[0]}: give integers or strings.")
    return list(values)


def _upward(bound: Tensor, like: Tensor) -> Tensor:
    """A bound in the dtype of the values, never below itself."""
    rounded = bound.to(like.dtype)
    return torch.where(rounded < bound, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)


def _note(before: str, ran: Ran[Answer], total: int) -> str:
    if not ran.failures:
        return before
    failed = " ".join(ran.failures.values())
    return f"{before} {len(ran.failures)} of {total} shards failed and are left out: {failed}".strip()
