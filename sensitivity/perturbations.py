"""All perturbations of the data measure; see ``sensitivity.perturbation`` for what they have in common."""

from sensitivity.contamination import Contamination, Remove, Reweight, Toward
from sensitivity.move import Move
from sensitivity.perturbation import Masses, Perturbation, Sum

__all__ = ["Contamination", "Masses", "Move", "Perturbation", "Remove", "Reweight", "Sum", "Toward"]
