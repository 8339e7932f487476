"""Through all shards: in this process or on Dask, keeping what is done, naming what failed, saying how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sensitivity.progress import Progress
from sensitivity.recordings.answers import Merger, Total
from sensitivity.recordings.folder import Folder
from sensitivity.sources import PreparedSource
from sensitivity.sources.files import needed

A = TypeVar("A")
Given = TypeVar("Given", covariant=True)


class Question(Protocol):
    """What differs between shards; a shard gets its own part."""

    def of(self, first: int, size: int) -> Any:
        """The question to the shard that begins at point `first`."""
        ...


class Asked(Protocol[Given]):
    """What every shard is asked with; it goes to every worker once."""

    @property
    def data(self) -> PreparedSource:
        """Where the points lie."""
        ...

    def answer(self, shard: int, question: Any) -> Given:
        """What the points of a shard say."""
        ...


class ShardFailure(RuntimeError):
    """Some shards could not be used; all others were, and are kept where there is a folder.

    Attributes:
        failures: the sentence of each failed shard, by its number.
    """

    def __init__(
        self,
        failures: dict[int, str],
        total: int,
        kept: bool,
        remedy: str = "incomplete=True gives the result of the others",
    ) -> None:
        self.failures = failures
        first = next(iter(failures.values())).rstrip(".")
        after = "the others are kept in the folder" if kept else "with folder= the others would be kept"
        number = f"{len(failures)} of {total} shards failed ({after})"
        super().__init__(f"{number}: {first}; {remedy}.")

    def __reduce__(self) -> Any:
        return (_again, (self.failures, str(self)))


def _again(failures: dict[int, str], words: str) -> ShardFailure:
    error = ShardFailure.__new__(ShardFailure, words)
    RuntimeError.__init__(error, words)
    error.failures = failures
    return error


@dataclass
class Ran(Generic[A]):
    """What came of a run.

    Attributes:
        answer: of all shards that did not fail.
        failures: sentences of those that did.
        reused: how many answers the folder had already.
        seconds: how long it took.
    """

    answer: A | None
    failures: dict[int, str]
    reused: int
    seconds: float


def run(
    asked: Asked[A], question: Question, total: Total[A], client: Any, folder: Folder[A] | None, progress: Any
) -> Ran[A]:
    """Ask every shard.

    Raises:
        TypeError, ImportError: for a client that is not one of Dask.
    """
    # Dask is optional: its client is known by what it can do, so that nothing is imported to refuse another.
    if client is not None and not (hasattr(client, "submit") and hasattr(client, "scatter")):
        raise TypeError(f"client is a {type(client).__name__}: give a dask.distributed.Client.")
    source, begun = asked.data.source, time.perf_counter()
    merger, told = Merger(total, list(range(len(source.sizes)))), Progress.of(len(source), progress, "points")
    failures: dict[int, str] = {}
    waiting, reused = [], 0
    for shard in range(len(source.sizes)):
        try:
            stored = None if folder is None else folder.read(shard, source.fingerprint(shard))
        except (ValueError, OSError) as error:
            failures[shard], stored = str(error), None
            merger.add(shard, None)
            told.add(source.sizes[shard], True)
            continue
        if stored is None:
            waiting.append(shard)
            continue
        reused += 1
        merger.add(shard, stored)
        told.add(source.sizes[shard], True)
    mapped = _here if client is None else _on_dask
    for shard, result in mapped(client, asked, question, waiting, folder):
        if isinstance(result, str):
            failures[shard] = result
        merger.add(shard, None if isinstance(result, str) else result)
        told.add(source.sizes[shard], False)
    return Ran(total.result(), dict(sorted(failures.items())), reused, time.perf_counter() - begun)


def _here(
    client: None, asked: Asked[A], question: Question, shards: list[int], folder: Folder[A] | None
) -> Iterator[tuple[int, A | str]]:
    for shard in shards:
        result = tried(asked, shard, _part(question, asked.data, shard), folder)
        yield shard, result


def _on_dask(
    client: Any, asked: Asked[A], question: Question, shards: list[int], folder: Folder[A] | None
) -> Iterator[tuple[int, A | str]]:
    completed = needed("distributed", "runs on a Dask client").as_completed
    # The recording goes to every worker once, not with every shard.
    common = client.scatter((asked, folder), broadcast=True)
    futures = {
        client.submit(_remote, common, shard, _part(question, asked.data, shard), pure=False): shard for shard in shards
    }
    for future in completed(list(futures)):
        shard = futures[future]
        try:
            yield shard, future.result()
        except Exception as error:
            # A worker that died, or a client that lost its cluster.
            name = asked.data.source.name(shard)
            yield shard, f"{name} was lost ({type(error).__name__}: {str(error).splitlines()[0]})."
        future.release()


def _part(question: Question, data: PreparedSource, shard: int) -> Any:
    return question.of(data.source.starts[shard], data.source.sizes[shard])


def _remote(common: tuple[Asked[A], Folder[A] | None], shard: int, question: Any) -> Any:
    asked, folder = common
    return tried(asked, shard, question, folder)


def tried(asked: Asked[A], shard: int, question: Any, folder: Folder[A] | None) -> A | str:
    """The answer of a shard, kept in the folder; or in a sentence what was wrong."""
    source = asked.data.source
    name = source.name(shard)
    try:
        result = asked.answer(shard, question)
        if folder is not None:
            folder.write(shard, result, {"name": name, "data": source.fingerprint(shard)})
        return result
    except Exception as error:
        # One shard's fault, of whatever kind, is not that of the others.
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        return words if name in words or "shard" in words else f"{name} failed ({type(error).__name__}: {words})."
