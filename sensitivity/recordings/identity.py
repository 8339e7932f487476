"""Recordings, questions and callables in words that stay the same from run to run.

What answers in a folder were made for, and what a recording says of its making, are compared and stored by these.
"""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor, nn

from sensitivity.recordings.answers import Question
from sensitivity.sources import PreparedSource
from sensitivity.sources.arrays import digest


def described(question: Question, data: PreparedSource) -> dict[str, Any]:
    """A question in JSON: what answers in a folder must have been made for."""
    labels = question.labels
    marks = [None if r is None else digest(r) for r in question.rates]
    named = labels if labels is None or isinstance(labels, str) else hashlib.sha256(repr(labels).encode()).hexdigest()
    plain = {"top_k": question.top_k, "bandwidth": question.bandwidth, "prune": question.prune}
    functions = {"transform": name_of(data.transform), "encoder": name_of(data.encoder)}
    return plain | {"rates": marks, "groups": named, "points": len(data.source)} | functions


def name_of(function: Any) -> str:
    """A callable in words that stay the same from run to run; a network with the digest of its parameters."""
    if function is None:
        return "none"
    if isinstance(function, nn.Module):
        return network_name(function)
    words = getattr(function, "__qualname__", None)
    if words is not None:
        return f"{getattr(function, '__module__', '')}.{words}"
    text = repr(function)
    return type(function).__name__ if " at 0x" in text else text


def network_name(module: nn.Module) -> str:
    hasher = hashlib.sha256()
    for name, value in module.state_dict().items():
        hasher.update(f"{name}:{digest(value) if isinstance(value, Tensor) else value}".encode())
    return f"{type(module).__name__}:{hasher.hexdigest()[:16]}"
