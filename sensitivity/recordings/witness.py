"""A response known again by its answer: files hold neither its network nor its loss nor its training data.

A recording keeps, of a response other than the population's, what it answered to one of its own training points. One
that is given when the recording is read must answer that point alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sensitivity.responses import Condensed, SourceResponse

# How far the answer of a response that is given anew may be from that of the one recorded: rounding of two machines.
SAME = 1e-3


def witness_of(response: SourceResponse, kept: Sequence[Condensed]) -> Tensor:
    """Its answer to one of its training points, (F, batch)."""
    return response.against(kept, response.example)[..., 0]


def known_again(response: Any, recorded: str, witness: Tensor | None, kept: Sequence[Condensed]) -> bool:
    """Whether a response takes part in what is asked of a recording: not where the population's was recorded.

    Args:
        response: the one that is given, or None.
        recorded: the class of the recorded one.
        witness: what that one answered; None of the population's.
        kept: what it kept of the stages.

    Raises:
        ValueError: for another one than the recorded, told by its class or by its answer.
    """
    if witness is None and (response is None or type(response).__name__ == recorded):
        return False
    if type(response).__name__ != recorded or not isinstance(response, SourceResponse) or witness is None:
        passed = "no response" if response is None else f"a {type(response).__name__}"
        raise ValueError(
            f"the recording is of a {recorded}, and {passed} was given: pass response=, the {recorded} that it was "
            "recorded with or one made alike."
        )
    try:
        same = bool((witness_of(response, kept) - witness).abs().max() <= SAME * witness.abs().max())
    except (RuntimeError, ValueError):
        same = False  # of another size
    if not same:
        raise ValueError(
            f"response={recorded} answers otherwise than the recorded one: give it the same network, loss and "
            "training data, or record anew."
        )
    return True
