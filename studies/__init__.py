"""Studies: experiments that hold the engine (`sensitivity`) against the truth (`oracles`), and the tools to run them.

Lives here: the studies by name, what runs and stores them (`running`), what shows them (`reports`), verification,
training, networks, statistics, and the published tables (`results`).
May touch: both other rooms. Nothing heavy is imported here; `studies.verify` and `studies.lds` are loaded when they are
first asked for.
"""

from typing import Any

__all__ = ["Lds", "lds", "verify"]


def __getattr__(name: str) -> Any:
    if name == "verify":
        from studies.verification import verify

        return verify
    if name in ("Lds", "lds"):
        from studies import datamodelling

        return getattr(datamodelling, name)
    raise AttributeError(f"module 'studies' has no attribute {name!r}")
