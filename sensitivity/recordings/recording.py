"""The adjoint of some samples, kept: recorded once beside the network, asked of any data afterwards.

Given the stages (x, μ, log p, σ, s) the influence of a point depends on nothing else: the network is not needed, and
points may be anywhere and come in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_finite, check_positive_number, check_same_home, check_states
from sensitivity.grid import Grid
from sensitivity.measures.points import Points
from sensitivity.readings.chunks import joined
from sensitivity.readings.influences import Influence, answered, by_chunks, check_top, noted, rates_of
from sensitivity.readings.streaming import Lengths, Recorded, matched, paired
from sensitivity.recordings.answers import Answer, Question, Values
from sensitivity.recordings.asking import question_of
from sensitivity.recordings.concluding import by_parts, noted_failures, provenance_of, with_sums
from sensitivity.recordings.folder import Folder, answer_of, content_of
from sensitivity.recordings.identity import described
from sensitivity.recordings.parts import Answered, Part, named, part_of
from sensitivity.recordings.run import Ran, ShardFailure, run
from sensitivity.recordings.shards import Asked
from sensitivity.recordings.storage import read, write
from sensitivity.recordings.witness import known_again, witness_of
from sensitivity.responses import Condensed, SourceResponse
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcomes
from sensitivity.sources import PreparedSource, as_source
from sensitivity.sources.arrays import digest
from sensitivity.sources.source import SHARD


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
        return replace(recording, witness=witness_of(response, recording._kept))

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
        tensors = named(self.parts) | ({} if self.witness is None else {"witness": self.witness})
        return {name: value.detach().contiguous() for name, value in tensors.items()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all, with all that is known of its making.

        Raises:
            ImportError: without the package safetensors.
            ValueError: for a path that cannot be written.
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
            ImportError: without the package safetensors.
            ValueError: for a file that is missing, damaged or no recording; for another response than the recorded one.
        """
        tensors, text = read(path, device)
        try:
            about = json.loads(text)
            made_from, shares = about["made_from"], about["shares"]
            plain = made_from.get("response", "PopulationResponse") == "PopulationResponse"
            parts = tuple(part_of(tensors, k, tuple(each) if plain else None) for k, each in enumerate(shares))
            recording = cls(parts, about["several"], made_from, witness=tensors.get("witness"))
            meant = about["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"path={path} is no recording: give a file that Recording.save wrote.") from error
        if recording.digest != meant:
            raise ValueError(
                f"path={path} has changed since it was written: its numbers have another SHA-256; record anew."
            )
        recorded = made_from.get("response", "PopulationResponse")
        takes_part = known_again(response, recorded, recording.witness, recording._kept)
        return replace(recording, response=response) if takes_part else recording

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
            progress: True for a line on standard error, or a function of (points done, total, rate a second, seconds
                left); see `sensitivity.progress`.

        Raises:
            ValueError, TypeError: for arguments that do not fit, with the remedy.
            ShardFailure: after all other shards are done, where some could not be used; it names them.

        Example:
            >>> from sensitivity import Mixture, record
            >>> base = Mixture(torch.tensor([1.0]), torch.zeros(1, 1), torch.ones(1, 1, 1))
            >>> right_of = lambda x: x[:, 0]
            >>> kept = record(base.score, torch.zeros(1, 1), right_of, Grid(10.0, 0.1, 20), anchor=base)
            >>> sums = kept.influence(torch.tensor([[-1.0], [1.0], [1.5]]), top_k=1, groups=["left", "right", "right"])
            >>> sums.group_names, bool(sums.groups[0, 0] < 0 < sums.groups[0, 1])
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
        question = question_of(
            data,
            self.samples,
            self.response,
            guided=self._guided,
            top_k=top_k,
            groups=groups,
            rates=rates,
            bandwidth=bandwidth,
            prune=prune,
        )
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
            values = torch.cat([matched(one, y, variance) for one, y in zip(self._recorded, rows, strict=True)], 1)
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
            split = by_chunks([len(part.samples) for part in self.parts], *pair)
            parts = [self._influence(part, *pair) for part, pair in zip(self.parts, split, strict=True)]
        return self._labelled(joined(parts, functionals=not self.several), len(data))

    def _influence(
        self,
        part: Part,
        values: Tensor,
        indices: Tensor | None,
        bound: Tensor | None = None,
        lengths: Lengths | None = None,
    ) -> Influence:
        return part.influence(values, indices, bound, lengths, self.cost, self.grid.sigma_min)

    def _labelled(self, result: Influence, points: int) -> Influence:
        asked = 0 if self.response is None else self.response.rows_per_point * points
        words = str(self.made_from["note"])
        outcome = noted(result, words) if self.response is None else replace(result.outcome, note=words)
        return replace(result, outcome=outcome, cost=replace(self.cost, away=self.cost.away + asked))

    @property
    def _guided(self) -> bool:
        return len(self.parts[0].stages.shares) > 1

    def _result(self, ran: Ran[Answer], answer: Answer, data: PreparedSource, question: Question) -> Influence:
        pruned = question.prune is not None
        split = by_parts([len(part.samples) for part in self.parts], answer, self.samples.device, pruned)
        parts = [self._influence(part, *pieces) for part, pieces in zip(self.parts, split, strict=True)]
        result = self._labelled(joined(parts, functionals=not self.several), answer.points)
        result = with_sums(result, answer, pruned, self.several)
        # Another response keeps no stages, and prunes none.
        levels = self._recorded[0].sigma if self._recorded else self.samples.new_empty(0)
        told = provenance_of(ran, answer, data, question, levels, len(self.samples))
        return replace(
            result,
            outcome=replace(result.outcome, note=noted_failures(result.outcome.note, ran, len(data.source.sizes))),
            provenance={"recording": self.digest, "made_from": dict(self.made_from)} | told,
        )
