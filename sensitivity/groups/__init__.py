"""Groups: what samples would be if a group of the training data were gone, halved, doubled or other.

`members` says who belongs to a group and what is done to it; `what_if` predicts, sample by sample; `conformal` turns
errors on groups that were really retrained into intervals, `trust` says how far they reach; `games` and `worth` share
the samples' values among groups.
May touch: readings and what they may touch; nothing but `sensitivity` itself comes after.
"""

from sensitivity.groups.conformal import Calibration
from sensitivity.groups.members import Groups
from sensitivity.groups.trust import GroupOutcomes, Trust
from sensitivity.groups.what_if import Counterfactual, counterfactual
from sensitivity.groups.worth import GroupValues, group_values

__all__ = [
    "Calibration",
    "Counterfactual",
    "GroupOutcomes",
    "GroupValues",
    "Groups",
    "Trust",
    "counterfactual",
    "group_values",
]
