"""Planted faults: wrong estimators, one mistake each, and their right counterparts.

Every fault is a function `f(problem)` with a reason; `studies.verification` must reject it on its own task, by the
checks and on the cases that belong to the mistake, and must accept the counterparts in `CORRECT`.
One module for each family of quantities; `base` says what a fault is. May touch: the problem that it is given, and
libraries of arrays. A fault may not call the engine, whose mistakes it would share.
"""

from __future__ import annotations

from studies.verification.faults import densities, paths, posteriors, products, scores
from studies.verification.faults.base import Fault
from studies.verification.replies import Estimator

__all__ = ["CORRECT", "FAULTS", "Fault"]

_MODULES = (scores, products, densities, paths, posteriors)
FAULTS: dict[str, Fault] = {fault.name: fault for module in _MODULES for fault in module.FAULTS}
CORRECT: dict[str, dict[str, Estimator]] = {task: item for module in _MODULES for task, item in module.CORRECT.items()}
