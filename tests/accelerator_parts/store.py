"""Results on disk, rewritten after every job, and where they come from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from studies.running import provenance

Row = dict[str, Any]
LIMIT = 16 * 2**20  # bytes of one file


def row(
    case: str,
    quantity: str,
    value: float,
    unit: str = "",
    *,
    low: float = math.nan,
    high: float = math.nan,
    shown: bool = False,
    note: str = "",
) -> Row:
    """A measured value; `shown` puts it on the table that is printed last."""
    known = {"case": case, "quantity": quantity, "value": float(value), "low": float(low), "high": float(high)}
    return {**known, "unit": unit, "shown": shown, "note": note}


class Store:
    """Tables, arrays, a log and a manifest in one folder.

    Args:
        folder: made if it is not there.
        setting: what the manifest says of the run beside its surroundings.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any]) -> None:
        self.folder, self.started = folder, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.setting, self.tables = dict(setting), {"rows": []}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("")

    def add(self, job: str, one: Row) -> None:
        """A row; the key "table" names another table than "rows"."""
        one = dict(one)
        self.tables.setdefault(one.pop("table", "rows"), []).append({"job": job, **one})

    def log(self, text: str) -> None:
        """Append to the log."""
        with (self.folder / "log.txt").open("a") as stream:
            stream.write(text.rstrip() + "\n")

    def write(self, verdicts: Mapping[str, str], seconds: Mapping[str, float]) -> None:
        """All tables and the manifest."""
        for name, rows in self.tables.items():
            if rows:
                pd.DataFrame(rows).to_parquet(self.folder / f"{name}.parquet", index=False)
        manifest = {"started": self.started, **self.setting, "jobs": dict(verdicts), "seconds": dict(seconds)}
        (self.folder / "manifest.json").write_text(json.dumps(manifest | surroundings(), indent=1, default=str) + "\n")

    def frame(self, name: str = "rows") -> pd.DataFrame:
        """One table so far."""
        return pd.DataFrame(self.tables.get(name, []))


def save(folder: Path, name: str, **arrays: np.ndarray) -> Row:
    """Half-precision arrays in one compressed file; a row that says how large it became.

    Raises:
        ValueError: for a file that would not travel.
    """
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **{key: np.asarray(value, dtype=np.float16) for key, value in arrays.items()})
    if path.stat().st_size > LIMIT:
        path.unlink()
        raise ValueError(f"{name} takes more than {LIMIT} bytes: keep fewer latents or networks.")
    return row(name, "file", path.stat().st_size, "bytes")


def surroundings() -> dict[str, Any]:
    """Packages, commit, processor and GPU."""
    result = provenance.environment()
    return {
        "commit": result["commit"] or "unknown",
        "command": " ".join(["python", *sys.argv]),
        "versions": result["versions"],
        "machine": result["machine"],
        "gpu": gpu(),
    }


def gpu() -> dict[str, Any] | None:
    """Name, driver, CUDA and cuDNN versions and memory; None without one."""
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return {
        "name": card.name,
        "memory_bytes": card.total_memory,
        "multiprocessors": card.multi_processor_count,
        "capability": f"{card.major}.{card.minor}",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def table(frame: pd.DataFrame, most: int) -> list[str]:
    """The rows that are to be shown, one a line."""
    if frame.empty:
        return []
    lines = []
    for one in frame[frame["shown"]].itertuples():
        interval = "" if math.isnan(one.low) else f" [{one.low:.3g}, {one.high:.3g}]"
        note = f"  ({one.note})" if one.note else ""
        lines.append(f"{one.case[:44]:44} {one.quantity[:34]:34} {one.value:.4g}{interval} {one.unit}{note}"[:150])
    if len(lines) > most:
        lines = [*lines[: most - 1], f"… {len(lines) - most + 1} more rows in rows.parquet"]
    return lines
