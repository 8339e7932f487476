"""One page to look at: samples, the points that raise and lower a functional, sums of groups, and where it came from.

The page is one file without scripts, fonts or links to elsewhere; images are PNGs inside it, bars are SVG.
"""

from __future__ import annotations

import base64
import html
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_callable, check_count
from sensitivity.readings.influences import Influence
from sensitivity.recordings.folder import replace
from sensitivity.sources import PreparedSource, as_source

STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color:#1b1b1b;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:1.6rem 0 .3rem;border-top:1px solid #ccc;padding-top:.8rem}
h3{font-size:1rem;margin:.5rem 0}.row{display:flex;flex-wrap:wrap;gap:.7rem;align-items:flex-start}
figure{margin:0;width:7.5rem;font-size:.8rem}figure img{width:100%;image-rendering:pixelated;border:1px solid #bbb}
figure.sample{width:10rem}svg{width:100%;height:auto;display:block}pre{white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;table-layout:fixed}td{padding:.15rem .4rem;overflow-wrap:anywhere}
"""
UP, DOWN = "#0b6e4f", "#a3293d"


def gallery(
    influence: Influence,
    data: Any,
    path: str | Path,
    *,
    count: int = 6,
    samples: int = 16,
    transform: Callable[[Tensor], Tensor] | None = None,
    encoder: Callable[[Tensor], Tensor] | None = None,
    column: Any = None,
    image: Callable[[Tensor], Tensor] | None = None,
    title: str = "Which training points matter",
) -> Path:
    """Write a self-contained HTML page of an influence.

    Args:
        influence: of a `Recording`, or of `influence`.
        data: the points it was asked of, in any form that `Recording.influence` takes; only the shards of points that
            are shown are read.
        path: the file to write.
        count: points that raise, and points that lower, the functional, for each sample.
        samples: how many samples are shown; the page says how many there are.
        transform, encoder, column: as for `Recording.influence`.
        image: what makes pictures (rows, H, W) or (rows, 3, H, W) in [0, 1] of states (rows, *shape), such as a
            decoder; by default states of shape (1 or 3, H, W), (H, W) or a square number of entries, grey from the
            smallest to the largest entry of each state.
        title: the page's heading.

    Returns:
        The path. A bar shows a value with what is uncertain about it: |value| × (standard error and grid error of the
        sample's log density, in nats) and what pruning may have taken.

    Raises:
        ValueError, TypeError: for arguments that do not fit, states that are no pictures, a path that is not writable.
    """
    if not isinstance(influence, Influence):
        raise TypeError(f"influence is a {type(influence).__name__}: give what Recording.influence returned.")
    check_count(count, "count")
    check_count(samples, "samples")
    if image is not None:
        check_callable(image, "image")
    prepared = PreparedSource(as_source(data, column=column), influence.samples[:0], transform, encoder)
    page = "".join(_page(influence, prepared, count, samples, image or pictures, title))
    try:
        replace(Path(path), page.encode())
    except OSError as error:
        raise ValueError(
            f"path={path} cannot be written ({error.strerror}): give a file in a writable folder."
        ) from error
    return Path(path)


def _page(
    influence: Influence, data: PreparedSource, count: int, samples: int, image: Callable[[Tensor], Tensor], title: str
) -> Iterator[str]:
    words = html.escape(title)
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{words}</title>'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body><h1>{words}</h1>"
    total = len(influence.samples)
    shown = min(samples, total)
    yield f"<p>{html.escape(influence.outcome.sentence)} {shown} of {total} samples are shown.</p>"
    yield (
        "<p>A value is the derivative of the functional per unit mass moved to one training point, a sum that of a "
        "unit for each point of a group; ± is its size times the errors of the sample's log density, and what pruning "
        "may have taken.</p>"
    )
    values, indices, functional, errors = _axes(influence)
    picture = [_png(p) for p in _checked(image, influence.samples[:shown])]
    for f in range(len(values)):
        for b in range(shown):
            order = _order(values[f, b], count)
            points = order if indices is None else indices[f, b, order]
            images = [_png(p) for p in _checked(image, data.at(points))] if len(points) else []
            several = f", functional {f}" if len(values) > 1 else ""
            yield f'<h2>Sample {b}{several}</h2><div class="row"><figure class="sample">'
            yield f'<img alt="Sample {b}" src="{picture[b]}"><figcaption>φ = {float(functional[f, b]):.4g}; '
            yield f"{html.escape(influence.outcome[b].sentence)}</figcaption></figure></div>"
            rows = list(zip(points.tolist(), values[f, b, order].tolist(), images, strict=True))
            yield from _points("Raise it", [p for p in rows if p[1] > 0], errors[f, b], UP)
            yield from _points("Lower it", [p for p in rows if p[1] < 0], errors[f, b], DOWN)
            yield from _groups(influence, f, b, errors[f, b])
    yield "<h2>Where this came from</h2><pre>"
    yield html.escape(json.dumps(influence.provenance or {"provenance": "not recorded"}, indent=1, default=str))
    yield "</pre></body></html>"


def _axes(influence: Influence) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Values (F, batch, n), indices, φ (F, batch), and (F, batch, 2): relative error and absolute bound."""
    several = influence.values.ndim == 3
    lead = (lambda x: x) if several else (lambda x: x[None])
    functional = lead(influence.functional)
    relative = torch.zeros_like(functional)
    for error in (influence.log_density_error, influence.grid_error):
        if error is not None:
            relative = relative + (error if error.ndim == 1 else error.amax(0))
    bound = torch.zeros_like(functional) if influence.bound is None else lead(influence.bound)
    indices = None if influence.indices is None else lead(influence.indices).cpu()
    return lead(influence.values).cpu(), indices, functional.cpu(), torch.stack([relative, bound], -1).cpu()


def _order(values: Tensor, count: int) -> Tensor:
    """Places of the largest and of the smallest values, largest |value| first of each sign."""
    order = values.argsort(descending=True)
    up, down = order[values[order] > 0][:count], order.flip(0)[values[order.flip(0)] < 0][:count]
    return torch.cat([up, down])


def _points(title: str, points: Sequence[tuple[int, float, str]], errors: Tensor, colour: str) -> Iterator[str]:
    if not points:
        yield f"<h3>{title}: none</h3>"
        return
    yield f'<h3>{title}</h3><div class="row">'
    top = max(abs(value) for _, value, _ in points)
    for index, value, picture in points:
        error = _error(value, errors, float(errors[1]))
        words = f"{value:.3g} ± {_number(error)}"
        yield f'<figure><img alt="Training point {index}, value {words}" src="{picture}">'
        yield f"{_bar(value, error, top, colour)}<figcaption>point {index}<br>{words}</figcaption></figure>"
    yield "</div>"


def _groups(influence: Influence, f: int, b: int, errors: Tensor) -> Iterator[str]:
    if influence.groups is None:
        return
    place = (f, b) if influence.groups.ndim == 3 else (b,)
    sums = influence.groups[place].tolist()
    losses = [0.0] * len(sums) if influence.group_bound is None else influence.group_bound[place].tolist()
    top = max((abs(value) for value in sums), default=0.0)
    yield "<h3>Sums of groups</h3><table>"
    for name, value, loss in zip(influence.group_names, sums, losses, strict=True):
        error = _error(value, errors, loss)
        bar = _bar(value, error, top, UP if value >= 0 else DOWN)
        yield f"<tr><td>{html.escape(str(name))}</td><td>{value:.3g} ± {_number(error)}</td><td>{bar}</td></tr>"
    yield "</table>"


def _error(value: float, errors: Tensor, loss: float) -> float:
    """Of a value or a sum: its share of the sample's relative error, and what pruning may have taken of it."""
    return abs(value) * float(errors[0]) + loss


def _number(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "unknown"


def _bar(value: float, error: float, top: float, colour: str) -> str:
    """A bar from zero, 100 wide for `top`, with a whisker; an unknown error has none."""
    scale = 80.0 / top if top > 0 else 0.0
    length = abs(value) * scale
    bar = f'<rect x="0" y="2" width="{length:.1f}" height="8" fill="{colour}"/>'
    if math.isfinite(error) and error * scale >= 0.05:
        low, high = max(0.0, length - error * scale), min(100.0, length + error * scale)
        bar += f'<path d="M{low:.1f} 6H{high:.1f}M{low:.1f} 3V9M{high:.1f} 3V9" stroke="#000" fill="none"/>'
    return f'<svg viewBox="0 0 100 12" role="presentation">{bar}</svg>'


def pictures(states: Tensor) -> Tensor:
    """States as pictures (rows, H, W) or (rows, 3, H, W) in [0, 1], each from its smallest to its largest entry.

    Example:
        >>> pictures(torch.arange(8.0).reshape(2, 4)).shape
        torch.Size([2, 2, 2])
    """
    shape = tuple(states.shape[1:])
    side = math.isqrt(states[0].numel())
    if len(shape) == 1 and side * side == shape[0]:
        states = states.reshape(len(states), side, side)
    elif len(shape) == 3 and shape[0] == 1:
        states = states[:, 0]
    elif len(shape) != 2 and not (len(shape) == 3 and shape[0] == 3):
        raise ValueError(f"states of shape {shape} are no pictures: give image=, what makes pictures of them.")
    flat = states.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    scale = (high - low).clamp(min=torch.finfo(states.dtype).tiny)
    column = (-1, *[1] * (states.ndim - 1))
    return (states - low.reshape(column)) / scale.reshape(column)


def _checked(image: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    pictures = image(states.detach())
    fits = isinstance(pictures, Tensor) and (pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[1] == 3))
    if not fits or len(pictures) != len(states):
        shape = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ValueError(
            f"image gave {shape} for {len(states)} states: return (rows, H, W) or (rows, 3, H, W) in [0, 1]."
        )
    return pictures.detach().cpu().clamp(0, 1)


def _png(picture: Tensor) -> str:
    """A picture in [0, 1] as a PNG inside a `data:` address."""
    grey = picture.ndim == 2
    pixels = (picture[..., None] if grey else picture.permute(1, 2, 0)).mul(255).round().to(torch.uint8).numpy()
    height, width = pixels.shape[:2]
    # Every line begins with the number of its filter, 0 for none.
    lines = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
