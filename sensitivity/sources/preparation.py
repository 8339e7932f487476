"""From what is stored to states: a stated transform, an encoder, and checks that name the shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_callable, check_count, check_real_number
from sensitivity.sources.source import PointSource, SourceError

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """`scale · stored + shift`, in a shape of its own.

    Attributes:
        scale, shift: numbers; 2/255 and −1 take bytes to [−1, 1].
        shape: shape of one point after it, such as (1, 28, 28); as stored where None.
        dtype: the floating type it gives; single precision by default.

    Example:
        >>> Affine(2 / 255, -1.0)(torch.tensor([[0, 255]], dtype=torch.uint8))
        tensor([[-1.,  1.]])
    """

    scale: float = 1.0
    shift: float = 0.0
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        check_real_number(self.scale, "scale")
        check_real_number(self.shift, "shift")
        if not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise TypeError(f"dtype={self.dtype!r} is no floating type: give torch.float32 or torch.float64.")

    def __call__(self, stored: Tensor) -> Tensor:
        """Stored points (rows, ...) as states."""
        x = stored.to(self.dtype, copy=True).mul_(self.scale).add_(self.shift)
        return x if self.shape is None else x.reshape(len(x), *self.shape)


@dataclass(frozen=True)
class PreparedSource:
    """A source whose points become states of one shape and dtype.

    Attributes:
        source: where they lie.
        like: a tensor (0, *shape) of the states' shape, dtype and device.
        transform: what is done to a shard as it is stored; needed for integers.
        encoder: what follows, by batches, without gradients: the encoder of a latent diffusion.
        encoder_batch: points that the encoder takes at once.
    """

    source: PointSource
    like: Tensor
    transform: Transform | None = None
    encoder: Transform | None = None
    encoder_batch: int = 256

    def __post_init__(self) -> None:
        for name in ("transform", "encoder"):
            if getattr(self, name) is not None:
                check_callable(getattr(self, name), name)
        check_count(self.encoder_batch, "encoder_batch")

    def read(self, shard: int) -> tuple[Tensor, int]:
        """A shard as states (rows, *shape), and how many bytes were read for it.

        Raises:
            SourceError: in one sentence that names the shard, for whatever does not make states of it.
        """
        name, stored = self.source.name(shard), self.source.read(shard)
        states = self._states(stored, name)
        if self.encoder is not None:
            with torch.no_grad():
                parts = [_applied(self.encoder, part, name, "encoder") for part in states.split(self.encoder_batch)]
            states = torch.cat(parts)
        self._check(states, name, self.source.sizes[shard])
        return states, stored.numel() * stored.element_size()

    def _states(self, stored: Tensor, name: str) -> Tensor:
        if stored.dtype in (torch.float16, torch.bfloat16):
            stored = stored.float()  # exact
        if self.transform is None:
            if not stored.dtype.is_floating_point:
                raise SourceError(
                    f"{name} holds {stored.dtype}, which are no states: say what they mean, such as "
                    "transform=Affine(2 / 255, -1.0)."
                )
            return stored
        return _applied(self.transform, stored, name, "transform")

    def _check(self, states: Tensor, name: str, rows: int) -> None:
        by = "encoder" if self.encoder is not None else "transform" if self.transform is not None else "storage"
        if len(states) != rows:
            raise SourceError(f"{name} has {rows} points, but its {by} gives {len(states)}: keep one for each.")
        if states.shape[1:] != self.like.shape[1:]:
            raise SourceError(
                f"{name} gives points of shape {tuple(states.shape[1:])}, but states have shape "
                f"{tuple(self.like.shape[1:])}: mend its {by}, such as transform=Affine(shape=...)."
            )
        if states.dtype != self.like.dtype:
            raise SourceError(
                f"{name} gives {states.dtype}, but states are {self.like.dtype}: end its {by} with "
                f".to({self.like.dtype})."
            )
        # A sum shows what is not finite in one pass; one that overflows sends the shard to the exact look.
        finite = bool(torch.isfinite(states.flatten(1).sum(1)).all()) or bool(torch.isfinite(states).all())
        if not finite:
            row = int((~torch.isfinite(states.flatten(1)).all(1)).nonzero()[0])
            raise SourceError(f"{name} is not finite, first in its row {row}: remove or repair that point.")

    def at(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The points of given indices as states, (len(indices), *shape); only their shards are read."""
        wanted = torch.as_tensor(indices).reshape(-1).tolist()
        states_of: dict[int, Tensor] = {}
        for shard, rows in self._where(sorted(set(wanted))):
            states, start = self.read(shard)[0], self.source.starts[shard]
            states_of |= {i: states[i - start] for i in rows}
        return torch.stack([states_of[i] for i in wanted]) if wanted else self.like[:0]

    def _where(self, wanted: list[int]) -> Iterator[tuple[int, list[int]]]:
        if wanted and not (wanted[0] >= 0 and wanted[-1] < len(self.source)):
            raise IndexError(f"indices {wanted[0]} to {wanted[-1]} are not all among the {len(self.source)} points.")
        for shard, (start, size) in enumerate(zip(self.source.starts, self.source.sizes, strict=True)):
            if rows := [i for i in wanted if start <= i < start + size]:
                yield shard, rows


def _applied(function: Transform, x: Tensor, name: str, role: str) -> Tensor:
    try:
        value: Any = function(x)
    except Exception as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise SourceError(f"the {role} failed on {name} ({type(error).__name__}: {reason}): mend it.") from error
    if not isinstance(value, Tensor):
        raise SourceError(f"the {role} gave a {type(value).__name__} for {name}: return a tensor (rows, *shape).")
    return value.detach()
