"""Patches of the nine colour photographs that scikit-image and scikit-learn ship, in [−1, 1], photograph = group.

A photograph is averaged over squares of `⌊shorter side/200⌋` pixels. Training patches come from the left three quarters
of its width, held-out patches from the rest, so that no pixel is in both. A pixel p of [0, 255] becomes 2p/255 − 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIDE = 32
STRIDE = 4
PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "immunohistochemistry",
    "motorcycle_left",
    "retina",
    "rocket",
    "china",
    "flower",
)


@dataclass(frozen=True)
class Patches:
    """Patches with their photograph.

    Attributes:
        images: (N, 3, 32, 32), float32.
        groups: (N,) positions in PHOTOGRAPHS.
    """

    images: Tensor
    groups: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: str) -> Patches:
        """The same patches on a device."""
        return Patches(self.images.to(device), self.groups.to(device))

    def of(self, group: int) -> Tensor:
        """The patches of one photograph, (n, 3, 32, 32)."""
        return self.images[self.groups == group]


def load(training: int, held_out: int, seed: int = 0) -> tuple[Patches, Patches]:
    """Training and held-out patches.

    Args:
        training, held_out: patches of each photograph, drawn without replacement from a lattice of stride 4.
        seed: of the choice.

    Raises:
        ImportError: where a package that ships the photographs is missing.

    Example:
        >>> train, held = load(4, 2)
        >>> train.images.shape, held.groups.tolist()[:4]
        (torch.Size([36, 3, 32, 32]), [0, 0, 1, 1])
    """
    photographs = [reduced(photograph(name)) for name in PHOTOGRAPHS]
    left = [(p[:, :, : cut(p)], training) for p in photographs]
    right = [(p[:, :, cut(p) :], held_out) for p in photographs]
    return _chosen(left, seed), _chosen(right, seed + 1)


def cut(picture: Tensor) -> int:
    """The column at which the held-out part begins."""
    return picture.shape[-1] * 3 // 4


def photograph(name: str) -> Tensor:
    """One photograph, (3, height, width), in [−1, 1]."""
    try:
        if name in ("china", "flower"):
            from sklearn.datasets import load_sample_image

            pixels = load_sample_image(f"{name}.jpg")
        else:
            import skimage.data

            title = "stereo_motorcycle" if name == "motorcycle_left" else name
            pixels = getattr(skimage.data, title)()
            pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    except ImportError as error:
        raise ImportError(
            f"photograph {name!r} comes with scikit-image or scikit-learn, which is missing: pip install "
            "'score-sensitivity[images]'."
        ) from error
    array = np.ascontiguousarray(pixels, dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1) * (2 / 255) - 1


def reduced(picture: Tensor) -> Tensor:
    """Means over squares of ⌊shorter side/200⌋ pixels."""
    factor = max(1, min(picture.shape[1:]) // 200)
    return torch.nn.functional.avg_pool2d(picture, factor)


def _chosen(parts: list[tuple[Tensor, int]], seed: int) -> Patches:
    generator = torch.Generator().manual_seed(seed)
    images = []
    for picture, count in parts:
        tiles = picture.unfold(1, SIDE, STRIDE).unfold(2, SIDE, STRIDE).permute(1, 2, 0, 3, 4).flatten(0, 1)
        if count > len(tiles):
            raise ValueError(f"{count} patches are wanted of {len(tiles)}: ask for fewer.")
        images.append(tiles[torch.randperm(len(tiles), generator=generator)[:count]])
    groups = torch.arange(len(parts)).repeat_interleave(torch.tensor([count for _, count in parts]))
    return Patches(torch.cat(images).contiguous(), groups)
