"""Rules of dual numbers for layers of networks: convolutions, linear maps, normalisations, attention.

Symbols: a joint `(v, t_1, …, t_K)` has the value and its tangents along its first axis, see
`sensitivity.jacobians.duals`. A normalisation is `y = x̂ w + b` with `x̂ = (v − m) r`, m the mean over a group of M
entries and r the inverse of their standard deviation; its tangent is `ẏ = (t − ⟨t⟩ − x̂ ⟨x̂ t⟩) r w`, with ⟨·⟩ the mean
over the group, and without the term ⟨t⟩ where no mean is taken off (RMSNorm). Attention is `P V` with
`P = softmax(S)`, `S = Q Kᵀ/√d`; its tangent `Ṗ V + P V̇` with `Ṗ = P (Ṡ − Σ P Ṡ)`, sums over the keys. Where nothing is
recorded it is taken in blocks that fit a cache (Rabe & Staats 2021, arXiv 2112.05682).

Sources: Ba, Kiros & Hinton 2016, arXiv 1607.06450; Wu & He 2018, arXiv 1803.08494; Zhang & Sennrich 2019,
arXiv 1910.07467; Vaswani et al. 2017, arXiv 1706.03762; their derivatives by the quotient rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sensitivity.jacobians import dual_algebra, dual_pointwise, dual_reductions, dual_views  # noqa: F401 - their rules
from sensitivity.jacobians.duals import Dual, aligned, push, rule, unrecorded

__all__ = ["push"]  # with all rules


Layer = Callable[[Tensor, Tensor], Tensor]


def _fixed(*arguments: Any) -> bool:
    """Whether these are constants: a rule for the tangent of the state alone holds."""
    return not any(isinstance(each, Dual) for each in arguments)


def _with_bias(joint: Tensor, bias: Any, axes: int) -> Dual:
    """`W x + b`: a constant bias shifts the value alone; `joint` is fresh memory, its channels before `axes`."""
    if bias is None:
        return Dual(joint)
    if isinstance(bias, Dual):
        shift = bias.joint.reshape(len(joint), *[1] * (joint.ndim - 2 - axes), -1, *[1] * axes)
        return Dual(joint.add_(shift) if unrecorded() else joint + shift)
    shift = bias.reshape(-1, *[1] * axes)
    if unrecorded():
        joint[0].add_(shift)
        return Dual(joint)
    return Dual.of((joint[0] + shift).to(joint.dtype), joint[1:])


def _bilinear(layer: Layer, input: Any, weight: Any) -> Tensor:
    """The joint of `W x`, with tangents `W ẋ + Ẇ x` of whichever moves, not both constants."""
    if not isinstance(weight, Dual):
        return layer(input.joint, weight)
    if not isinstance(input, Dual):
        return torch.stack([layer(input, each) for each in weight.joint])
    joint = layer(input.joint, weight.value)
    turned = [layer(input.value, each) for each in weight.tangents]
    if not unrecorded():
        return torch.cat([joint[:1], joint[1:] + torch.stack(turned)])
    for moved, each in zip(joint[1:], turned, strict=True):
        moved.add_(each)
    return joint


@rule("linear")
def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    if _fixed(input, weight):
        return NotImplemented
    return _with_bias(_bilinear(functional.linear, input, weight), bias, 0)


def _convolution(name: str, axes: int) -> None:
    function = getattr(functional, name)

    @rule(name)
    def _(input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Any:
        if _fixed(input, weight):
            return NotImplemented

        def layer(x: Tensor, w: Tensor) -> Tensor:
            ahead = x.shape[: -1 - axes]  # the joint's axis and that of the batch, where there are any
            images = function(x.reshape(-1, *x.shape[-1 - axes :]), w, None, *args, **kwargs)
            return images.reshape(*ahead, *images.shape[1:])

        return _with_bias(_bilinear(layer, input, weight), bias, axes)


for _axes in (1, 2, 3):
    _convolution(f"conv{_axes}d", _axes)
    _convolution(f"conv_transpose{_axes}d", _axes)


def _normed(image: Tensor, tangents: Tensor, normal: Tensor, spread: Tensor, scale: Tensor, centred: bool) -> Dual:
    """The image with `(t − ⟨t⟩ − x̂ ⟨x̂ t⟩) r w`, means over the last two axes.

    Args:
        image: y, of the shape that the result has.
        tangents: t, (K, …, M', M'').
        normal: x̂, (…, M', M'').
        spread: r, (…, 1, 1).
        scale: w, which broadcasts to x̂.
        centred: whether the mean is taken off.
    """
    # A normalisation undoes every shift and scaling of the group: of t nothing along 1 and along x̂ is left.
    aligned_with = (tangents * normal).mean((-2, -1), keepdim=True)
    if not unrecorded() or image.dtype != tangents.dtype:
        moved = tangents - normal * aligned_with
        moved = (moved - tangents.mean((-2, -1), keepdim=True) if centred else moved) * (spread * scale)
        return Dual.of(image, moved.reshape(-1, *image.shape))
    joint = image.new_empty(1 + len(tangents), *image.shape)
    joint[0] = image
    moved = joint[1:].view(tangents.shape)
    torch.addcmul(tangents, normal, aligned_with, value=-1, out=moved)
    if centred:
        moved.sub_(tangents.mean((-2, -1), keepdim=True))
    moved.mul_(spread * scale)
    return Dual(joint)


def _scaled(image: Any, weight: Any, bias: Any, axes: int) -> Any:
    """A normalisation whose scale or shift moves: that of the state alone, then `x̂ w + b` by the rules of algebra.

    Args:
        image: x̂.
        weight, bias: w and b.
        axes: how many x̂ has behind those of w and b.
    """
    image = image if weight is None else image * weight.reshape(*weight.shape, *[1] * axes)
    return image if bias is None else image + bias.reshape(*bias.shape, *[1] * axes)


@rule("group_norm")
def _group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    if not _fixed(weight, bias):
        return _scaled(functional.group_norm(input, num_groups, eps=eps), weight, bias, input.ndim - 2)
    if not isinstance(input, Dual) or input.ndim < 2:
        return NotImplemented
    shape, value = input.shape, input.value
    value = value.contiguous()
    grouped = (shape[0], num_groups, shape[1] // num_groups, math.prod(shape[2:]))
    tangents = input.tangents.reshape(-1, *grouped)
    normal, spread = _normalised(value.reshape(grouped), eps)
    scale = value.new_ones(()) if weight is None else weight.reshape(num_groups, -1, 1)
    image = functional.group_norm(value, num_groups, weight, bias, eps)
    return _normed(image, tangents, normal, spread, scale, True)


def _normalised(value: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x̂ and r over the last two axes; by torch's kernel where nothing is recorded."""
    if unrecorded():
        flat = value.flatten(-2)
        normal, _, spread = torch.native_layer_norm(flat, flat.shape[-1:], None, None, eps)
        return normal.reshape(value.shape), spread.unsqueeze(-1)
    centred = value - value.mean((-2, -1), keepdim=True)
    spread = torch.rsqrt(centred.square().mean((-2, -1), keepdim=True) + eps)
    return centred * spread, spread


@rule("layer_norm")
def _layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    if not _fixed(weight, bias):
        return _scaled(functional.layer_norm(input, normalized_shape, eps=eps), weight, bias, 0)
    if not isinstance(input, Dual):
        return NotImplemented
    value = input.value
    rows, tangents, scale = _rows(input, normalized_shape, weight)
    normal, spread = _normalised(rows, eps)
    image = functional.layer_norm(value, normalized_shape, weight, bias, eps)
    return _normed(image, tangents, normal, spread, scale, True)


@rule("rms_norm")
def _rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    if not _fixed(weight):
        return _scaled(functional.rms_norm(input, normalized_shape, eps=eps), weight, None, 0)
    if not isinstance(input, Dual):
        return NotImplemented
    value = input.value
    rows, tangents, scale = _rows(input, normalized_shape, weight)
    # What torch itself takes where nothing is said.
    least = torch.finfo(value.dtype).eps if eps is None else eps
    spread = torch.rsqrt(rows.square().mean((-2, -1), keepdim=True) + least)
    image = functional.rms_norm(value, normalized_shape, weight, eps)
    return _normed(image, tangents, rows * spread, spread, scale, False)


def _rows(input: Dual, shape: Sequence[int], weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """v (…, 1, M), t (K, …, 1, M) and w (M,), with the last axes of this shape as one."""
    ahead = input.shape[: input.ndim - len(shape)]
    value = input.value.reshape(*ahead, 1, -1)
    tangents = input.tangents.reshape(-1, *ahead, 1, value.shape[-1])
    return value, tangents, value.new_ones(()) if weight is None else weight.reshape(-1)


@rule("scaled_dot_product_attention")
def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or enable_gqa or not _fixed(attn_mask) or (is_causal and attn_mask is not None):
        return NotImplemented
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    ndim = max(query.ndim, key.ndim, value.ndim)
    asked, keys, values = _halves(query, ndim), _halves(key, ndim), _halves(value, ndim)
    mask = _causal(query, key) if is_causal else attn_mask
    alike = asked[0].shape[:-2] == keys[0].shape[:-2] == values[0].shape[:-2]
    if unrecorded() and alike and (mask is None or mask.ndim == 2):
        return _in_blocks(asked, keys, values, mask, factor)
    return Dual.of(*_attended(asked, keys, values, mask, factor))


Halves = tuple[Tensor, Tensor | None]


def _halves(tensor: Any, ndim: int) -> Halves:
    """v and t of a dual, aligned; v and None of a constant."""
    if not isinstance(tensor, Dual):
        return tensor, None
    joint = aligned(tensor.joint, ndim)
    return joint[0], joint[1:]


def _attended(query: Halves, key: Halves, value: Halves, mask: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    """`P V` and `(P Ṡ) V − (Σ P Ṡ) P V + P V̇`, sums over the keys: no Ṗ is written out."""
    scores, steep = _scores(query, key, factor)
    masked, empty = _masked(scores, mask)
    shares = torch.softmax(masked, -1).to(scores.dtype)
    # A query that attends to nothing has a softmax of −∞ alone, NaN; torch's kernels answer zero.
    shares = shares if empty is None else shares.masked_fill(empty, 0.0)
    values, tangents = value
    mixed = torch.matmul(shares, values)
    parts = [] if tangents is None else [dual_algebra.before(shares, tangents)]
    if steep is not None:
        weighted = shares * steep
        parts += [torch.matmul(weighted, values) - weighted.sum(-1, keepdim=True) * mixed]
    return mixed, sum(parts[1:], start=parts[0])


def _scores(query: Halves, key: Halves, factor: float) -> Halves:
    """`f Q Kᵀ` and its tangents `f (Q̇ Kᵀ + Q K̇ᵀ)`, which are one product of matrices of twice the width."""
    (ahead, ahead_moved), (behind, behind_moved) = query, key
    ahead, ahead_moved = factor * ahead, None if ahead_moved is None else factor * ahead_moved
    scores = torch.matmul(ahead, behind.mT)
    if ahead_moved is None or behind_moved is None:
        moved = ahead if ahead_moved is None else ahead_moved, behind if behind_moved is None else behind_moved
        return scores, None if ahead_moved is behind_moved else torch.matmul(moved[0], moved[1].mT)
    wide = torch.cat([ahead_moved, ahead.expand_as(ahead_moved)], -1)
    return scores, torch.matmul(wide, torch.cat([behind.expand_as(behind_moved), behind_moved], -1).mT)


def _in_blocks(query: Halves, key: Halves, value: Halves, mask: Tensor | None, factor: float) -> Dual:
    """The same, some heads or some queries of one head at a time.

    Of L queries and S keys a head has L S scores, and as many more for each tangent. Written out for all heads they
    are most of a network's memory, and most of its time where no cache holds them.
    """
    heads, rows, keys = query[0].shape[:-2], query[0].shape[-2], key[0].shape[-2]
    count = 1 + next(len(moved) for _, moved in (query, key, value) if moved is not None)
    query, key, value = (_flat_heads(part) for part in (query, key, value))
    room = max(1, _room(query[0].device) // max(1, count * keys * query[0].element_size()))  # queries
    abreast, step = max(1, room // max(1, rows)), min(room, max(1, rows))

    def block(head: int, row: int) -> Tensor:
        some, at = slice(head, head + abreast), slice(row, row + step)
        part = mask if mask is None or len(mask) == 1 else mask[at]
        return Dual.of(*_attended(_cut(query, some, at), _cut(key, some), _cut(value, some), part, factor)).joint

    places = [[(head, row) for row in range(0, rows, step)] for head in range(0, math.prod(heads), abreast)]
    joint = torch.cat([torch.cat([block(*place) for place in line], 2) for line in places], 1)
    return Dual(joint.reshape(count, *heads, *joint.shape[2:]))


def _flat_heads(part: Halves) -> Halves:
    """v (B, L, d) and t (K, B, L, d)."""
    still, moved = part
    shape = math.prod(still.shape[:-2]), *still.shape[-2:]
    return still.reshape(shape), None if moved is None else moved.reshape(len(moved), *shape)


def _cut(part: Halves, heads: slice, rows: slice = slice(None)) -> Halves:
    still, moved = part
    return still[heads, rows], None if moved is None else moved[:, heads, rows]


def _room(device: torch.device) -> int:
    """Bytes of scores with their tangents at a time: what caches hold, and elsewhere a small part of memory."""
    return torch.get_num_threads() << 22 if device.type == "cpu" else 1 << 28


def _causal(query: Any, key: Any) -> Tensor:
    return torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()


def _masked(scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scores with a mask, and the queries that attend to nothing, whose shares are zero."""
    if mask is None:
        return scores, None
    if mask.dtype is not torch.bool:
        return scores + mask, None
    return scores.masked_fill(~mask, -math.inf), ~mask.any(-1, keepdim=True)
