"""Unfinished runs on disk: written whole or not at all, checked when read."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from studies.errors import StudyError
from studies.files import make_folder, read, write
from studies.training.optimiser import Optimiser

EVERY = 500  # steps; has no effect on the result


@dataclass(frozen=True)
class Checkpoint:
    """The file of one unfinished run."""

    path: Path

    def due(self, done: int, steps: int) -> bool:
        """Whether to save after `done` of `steps` steps."""
        return done % EVERY == 0 and done < steps

    def save(self, optimiser: Optimiser, done: int) -> None:
        """Write the state after `done` steps."""
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in optimiser.state().items()}
        content = save(tensors, metadata={"done": str(done), "of": self.path.name})
        make_folder(self.path.parent)
        write(self.path, hashlib.sha256(content).digest() + content)

    def load(self, optimiser: Optimiser) -> int:
        """Restore the saved state and return the steps done; 0 where no whole file of this run is there."""
        from safetensors.torch import load

        try:
            content = read(self.path)
        except StudyError:
            return 0
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return 0
        header = _header(content[32:])
        if header.get("of") != self.path.name:  # a copied file of another run
            return 0
        optimiser.restore(load(content[32:]))
        return int(header["done"])

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)


def _header(content: bytes) -> dict[str, str]:
    """What safetensors keeps as text in its header: the steps done and the file's name."""
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return metadata
