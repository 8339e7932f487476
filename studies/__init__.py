"""Studies: experiments that hold the engine (`sensitivity`) against the truth (`oracles`), and the tools to run them.

Nothing heavy is imported here; `studies.verify` is loaded when it is first asked for.
"""

from typing import Any

__all__ = ["verify"]


def __getattr__(name: str) -> Any:
    if name == "verify":
        from studies.verification import verify

        return verify
    raise AttributeError(f"module 'studies' has no attribute {name!r}")
