"""One thing for each branch of classifier-free guidance.

Under guidance s = (1−w) s_∅ + w s_c two laws are carried: the unconditional and the conditional one. Each has its own
density, hence its own anchor, and its own change of mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PerBranch:
    """A perturbation, anchor or mass for each branch of `guided`.

    If the added mass has label law ν(c) and the data π_c, the conditional branch moves at rate ν(c)/π_c per unit mass:
    give `PerBranch(Toward(new), (ν(c)/π_c) * Toward(new_of_class_c))`.

    Example:
        >>> PerBranch(0.1, 0.3).conditional
        0.3
    """

    unconditional: Any
    conditional: Any


def conditional_mass(eta: float, new_share: float, old_share: float) -> float:
    """η_c = η ν(c)/((1−η) π_c + η ν(c)): mass of the new law in the conditional branch after moving mass η.

    Args:
        eta: η, mass moved in the whole law.
        new_share: ν(c), share of the class in the added mass.
        old_share: π_c > 0, share of the class in the data.

    Example:
        >>> round(conditional_mass(0.1, 1.0, 0.1), 4)
        0.5263
    """
    kept = (1 - eta) * old_share
    if not kept + eta * new_share > 0:
        raise ValueError(f"eta={eta} leaves no mass in the class; give an eta at which (1−η) π_c + η ν(c) > 0.")
    return eta * new_share / (kept + eta * new_share)
