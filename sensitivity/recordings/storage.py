"""Recordings as safetensors files: numbers without code, read on any machine.

The package is asked for only by those who save: it is a reader of files, and nothing that is computed needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensitivity.recordings.folder import replace
from sensitivity.sources.files import needed

KEY = "score-sensitivity recording"


def write(path: str | Path, tensors: dict[str, Tensor], about: str) -> None:
    """Write tensors and a text atomically.

    Raises:
        ImportError: without safetensors.
        ValueError: for a path that cannot be written.
    """
    save = needed("safetensors.torch", "saved recordings").save
    content = save({name: value.cpu() for name, value in tensors.items()}, metadata={KEY: about})
    try:
        replace(Path(path), content)
    except OSError as error:
        raise ValueError(
            f"path={path} cannot be written ({error.strerror}): give a file in a writable folder."
        ) from error


def read(path: str | Path, device: Any) -> tuple[dict[str, Tensor], str]:
    """Tensors and text.

    Raises:
        ImportError: without safetensors.
        ValueError: for a file that is missing, damaged or of another kind.
    """
    library = needed("safetensors", "saved recordings")
    if not Path(path).is_file():
        raise ValueError(f"path={path} is no file: give one that Recording.save wrote.")
    try:
        with library.safe_open(path, "pt", device=str(torch.device(device))) as file:
            about = (file.metadata() or {}).get(KEY)
            # Copied to where torch puts tensors: products of numbers at odd addresses differ in their last bits.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (library.SafetensorError, OSError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ValueError(f"path={path} is damaged or no safetensors file ({reason}): record and save again.") from error
    if about is None:
        raise ValueError(f"path={path} is no recording: give a file that Recording.save wrote.")
    return tensors, about
