"""The statistics of all studies, in one place and tested against SciPy.

Example:
    >>> import numpy as np
    >>> eta = np.array([1e-2, 1e-3, 1e-4])
    >>> round(fit_slope(eta, 3 * eta).slope, 12)
    1.0
"""

from studies.statistics.censored import CensoredSlope, censored_slope
from studies.statistics.comparisons import Paired, family_intervals, holm, paired
from studies.statistics.groups import Within, mean_of_units, share_of_units, shares_apart, within_groups
from studies.statistics.intervals import (
    Coverage,
    Interval,
    bootstrap,
    coverage,
    median_interval,
    quantile_interval,
    share_interval,
)
from studies.statistics.reliability import Ceiling, ceiling, correlations, spearman_brown
from studies.statistics.roc import Roc, roc
from studies.statistics.slopes import Slope, fit_slope, local_slopes, slope_of_medians
from studies.statistics.trainings import Shares, centred, perfect_shares, products, share_of_trainings
from studies.statistics.variances import data_share

__all__ = [
    "Ceiling",
    "CensoredSlope",
    "Coverage",
    "Interval",
    "Paired",
    "Roc",
    "Shares",
    "Slope",
    "Within",
    "bootstrap",
    "ceiling",
    "censored_slope",
    "centred",
    "correlations",
    "coverage",
    "data_share",
    "family_intervals",
    "fit_slope",
    "holm",
    "local_slopes",
    "mean_of_units",
    "median_interval",
    "paired",
    "perfect_shares",
    "products",
    "quantile_interval",
    "roc",
    "share_interval",
    "share_of_trainings",
    "share_of_units",
    "shares_apart",
    "slope_of_medians",
    "spearman_brown",
    "within_groups",
]
