"""One thing for each branch of classifier-free guidance.

Under guidance s = (1−w) s_∅ + w s_c two laws are carried: the unconditional and the conditional one. Each has its own
density, hence its own anchor, and its own change of mass.

Let mass η move from the data, of which a share π_c lies in class c, toward a law ν with the share ν(c) there. The class
then holds (1−η) π_c + η ν(c), and of that the share η_c = η ν(c)/((1−η) π_c + η ν(c)) is new (Bayes' rule), so that

    η_c′(0) = ν(c)/π_c = a,    η_c″(0) = 2a (1 − a).

More generally, changes χ = Σ c_j (ν_j − ρ) of the whole and χ_c = Σ a_j (ν_j,c − ρ_c) of the class, where
a_j = c_j ν_j(c)/π_c, leave the class the unnormalised measure ρ_c + η (T ρ_c + χ_c), T = Σ a_j − Σ c_j its growth: the
masses in the conditional law are η a_j/(1 + ηT), and s̈_c has the term −2T ṡ_c, which is η_c″ ṡ_c per unit of η_c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PerBranch:
    """A perturbation, anchor or mass for each branch of `guided`.

    If the added mass has label law ν(c) and the data π_c, the conditional branch moves at rate ν(c)/π_c per unit mass:
    give `PerBranch(Toward(new), (ν(c)/π_c) * Toward(new_of_class_c))`. Both factors are per unit of the mass η that
    moves in the whole: beyond first order the class follows Bayes' rule (`conditional_mass`), in ζ and in `resample`
    with one number η. A branch that is None stays as it is, and the other one moves by its own mass, η times its
    factor.

    Example:
        >>> PerBranch(0.1, 0.3).conditional
        0.3
    """

    unconditional: Any
    conditional: Any

    @property
    def growth(self) -> float:
        """T of two perturbations (see the module): how fast the class gains mass relative to itself; else 0."""
        if self.unconditional is None or self.conditional is None:
            return 0.0
        return float(self.conditional.taken - self.unconditional.taken)


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
