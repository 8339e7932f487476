"""Answers kept in a folder: one file a shard, written beside its place and renamed, with checksum and provenance.

A file is a line of JSON (SHA-256 of the rest, what the answer was made from), then NumPy's format for arrays.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from sensitivity.readings.streaming import Lengths
from sensitivity.recordings.answers import Answer

SUFFIX = ".answer"
A = TypeVar("A")
Content = tuple[dict[str, torch.Tensor], dict[str, Any]]
_counter = itertools.count()


class Folder(Generic[A]):
    """Finished shards of one question to one recording.

    Args:
        path: the folder, made where it is not there.
        key: what question and recording are, in JSON; a folder of another key is refused.
        content: an answer as tensors by name and what JSON knows.
        restored: the answer of such content.

    Raises:
        ValueError: for a folder that cannot be used or holds something else.
    """

    def __init__(
        self, path: Any, key: dict[str, Any], content: Callable[[A], Content], restored: Callable[[Content], A]
    ) -> None:
        self.path, self._key, self._content, self._restored = Path(path), key, content, restored
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
        except OSError as error:
            raise ValueError(
                f"folder={self.path} cannot be used ({error.strerror}): give a writable folder."
            ) from error

    def _claim(self) -> None:
        """Say what the folder is for, or see that it says the same."""
        claim = self.path / "question.json"
        if not claim.exists():
            replace(claim, (json.dumps(self._key, indent=1) + "\n").encode())
        try:
            stored = json.loads(claim.read_text(encoding="utf-8"))
        except ValueError:
            stored = {}
        if stored != self._key:
            other = next((k for k in self._key if stored.get(k) != self._key[k]), "question")
            raise ValueError(f"folder={self.path} holds answers made from another {other}: give another folder.")

    def file(self, shard: int) -> Path:
        """Where the answer of a shard is kept."""
        return self.path / f"shard-{shard:06d}{SUFFIX}"

    def write(self, shard: int, answer: A, made_from: dict[str, Any]) -> None:
        """Keep an answer."""
        body = packed(self._content(answer))
        head = {"sha256": hashlib.sha256(body).hexdigest(), "shard": shard, **made_from, **self._key}
        replace(self.file(shard), json.dumps(head).encode() + b"\n" + body)

    def read(self, shard: int, fingerprint: str) -> A | None:
        """The answer of a shard; None where there is none or the file is damaged, and it is to be made again.

        Raises:
            ValueError: where the shard's data have changed since.
        """
        try:
            head, body = self.file(shard).read_bytes().split(b"\n", 1)
            meant = json.loads(head)
        except (OSError, ValueError):
            return None
        if hashlib.sha256(body).hexdigest() != meant.get("sha256"):
            return None
        if meant.get("data") != fingerprint:
            raise ValueError(
                f"{meant.get('name')} has changed since its answer was kept: restore the data, or delete "
                f"{self.file(shard)} to ask it again."
            )
        return self._restored(unpacked(body))


def packed(content: Content) -> bytes:
    """Tensors and what JSON knows as bytes."""
    arrays, plain = content
    file = io.BytesIO()
    stored: dict[str, Any] = {name: value.cpu().numpy() for name, value in arrays.items()}
    np.savez(file, plain=np.array(json.dumps(plain)), **stored)
    return file.getvalue()


def unpacked(body: bytes) -> Content:
    """The content of `packed` bytes."""
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "plain"}
        return arrays, json.loads(str(stored["plain"]))


def content_of(answer: Answer) -> Content:
    """An answer of influences."""
    arrays = {"values": answer.values, "bound": answer.bound, "skipped": answer.skipped}
    if answer.indices is not None:
        arrays["indices"] = answer.indices
    for k, name in enumerate(answer.sums):
        arrays |= {f"sum{k}": answer.sums[name], f"loss{k}": answer.losses[name]}
    if answer.lengths is not None:
        arrays |= {"whole": answer.lengths.whole, "stages": answer.lengths.stages}
    plain = {"points": answer.points, "bytes": answer.bytes, "names": [_plain(name) for name in answer.sums]}
    return arrays, plain


def answer_of(content: Content) -> Answer:
    """The answer that `content_of` took apart."""
    arrays, plain = content
    sums, losses = ({n: arrays[f"{role}{k}"] for k, n in enumerate(plain["names"])} for role in ("sum", "loss"))
    values, bound, skipped = (arrays[n] for n in ("values", "bound", "skipped"))
    # Answers of other versions, and of responses, have none.
    lengths = Lengths(arrays["whole"], arrays["stages"]) if "whole" in arrays else None
    return Answer(values, arrays.get("indices"), bound, skipped, plain["points"], plain["bytes"], sums, losses, lengths)


def _plain(name: Any) -> Any:
    """A group's name as JSON knows it."""
    return name.item() if isinstance(name, np.generic | torch.Tensor) else name


def replace(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_counter)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
