"""Shipped truths: outputs of retrained networks as compact arrays in one file a setting."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.errors import StudyError
from studies.files import read, write

if TYPE_CHECKING:
    from studies.verification.attributions.outputs import Outputs

__all__ = ["Stored"]


@dataclass(frozen=True)
class Stored:
    """What networks on subsets of N data say.

    Attributes:
        name: of the setting.
        digest: of data and latents, so that truths are not used with others.
        masks: which data each subset holds (subsets, N).
        functionals: names of the outputs.
        values: (functionals, seeds, subsets, queries).
        reference: samples of the network on all data (queries, 1, h, w).
        weights, offsets: of the fixed classifier (classes, d), (classes,).
        seeds: of the trainings.
        derivative: of every output toward every datum (functionals, queries, N), or None.
        device: what trained the networks and was asked the outputs.
    """

    name: str
    digest: str
    masks: np.ndarray
    functionals: tuple[str, ...]
    values: np.ndarray
    reference: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    seeds: tuple[int, ...]
    derivative: np.ndarray | None = None
    device: str = "cpu"

    def of(self, functional: str) -> np.ndarray:
        """Outputs of one functional (seeds, subsets, queries)."""
        return self.values[self.functionals.index(functional)]

    def outputs(self, setting: Any) -> Outputs:
        """The functionals, with the shipped reference and classifier."""
        import torch

        from studies.verification.attributions.outputs import Outputs

        given = setting.data.double()
        scale = float((given - given.mean(0)).square().mean().sqrt())
        arrays = (torch.from_numpy(each) for each in (self.reference, self.weights, self.offsets))
        reference, weights, offsets = arrays
        return Outputs(setting.latents, setting.levels, reference, scale, weights, offsets)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Values are kept as half-precision numbers of standard deviations from their mean, by functional and query:
        5e-4 of a deviation, far below what another seed changes.
        """
        middle = self.values.mean((1, 2), keepdims=True)
        spread = np.maximum(self.values.std((1, 2), keepdims=True), 1e-30)
        content = io.BytesIO()
        more: dict[str, Any] = {} if self.derivative is None else {"derivative": self.derivative.astype(np.float32)}
        np.savez_compressed(
            content,
            **more,
            name=self.name,
            digest=self.digest,
            masks=np.packbits(self.masks, axis=1),
            points=self.masks.shape[1],
            functionals=np.array(self.functionals),
            values=((self.values - middle) / spread).astype(np.float16),
            middle=middle,
            spread=spread,
            reference=self.reference.astype(np.float32),
            weights=self.weights.astype(np.float32),
            offsets=self.offsets.astype(np.float32),
            seeds=np.array(self.seeds),
            device=self.device,
        )
        write(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Stored:
        """The shipped file.

        Raises:
            StudyError: it is absent or damaged.
        """
        try:
            with np.load(io.BytesIO(read(path)), allow_pickle=False) as stored:
                return cls(
                    name=str(stored["name"]),
                    digest=str(stored["digest"]),
                    masks=np.unpackbits(stored["masks"], axis=1, count=int(stored["points"])).astype(bool),
                    functionals=tuple(str(each) for each in stored["functionals"]),
                    values=stored["middle"] + stored["spread"] * stored["values"].astype(np.float64),
                    reference=stored["reference"],
                    weights=stored["weights"],
                    offsets=stored["offsets"],
                    seeds=tuple(int(each) for each in stored["seeds"]),
                    derivative=stored["derivative"].astype(np.float64) if "derivative" in stored else None,
                    device=str(stored["device"]) if "device" in stored else "cpu",
                )
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise StudyError(f"the truth {str(path)!r} is damaged ({error}); make it again, see its module.") from error
