"""A source of points that workers can import and that kills one of them, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sensitivity.sources import PointSource


class Unsteady(PointSource):
    """A source of our own whose third shard kills the process that reads it, the first time."""

    def __init__(self, data, mark):
        self.data, self.mark, self.sizes = data, mark, [3, 3, 3, 3]

    def name(self, shard):
        return f"part {shard}"

    def read(self, shard):
        if shard == 2 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data[3 * shard : 3 * shard + 3]

    def fingerprint(self, shard):
        return str(shard)
