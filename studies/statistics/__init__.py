"""The statistics of all studies, in one place and tested against SciPy.

>>> import numpy as np
>>> eta = np.array([1e-2, 1e-3, 1e-4])
>>> round(fit_slope(eta, 3 * eta).slope, 12)
1.0
"""

from studies.statistics.comparisons import Paired, holm, paired
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
from studies.statistics.slopes import Slope, fit_slope, local_slopes, slope_of_medians

__all__ = [
    "Ceiling",
    "Coverage",
    "Interval",
    "Paired",
    "Slope",
    "bootstrap",
    "ceiling",
    "correlations",
    "coverage",
    "fit_slope",
    "holm",
    "local_slopes",
    "median_interval",
    "paired",
    "quantile_interval",
    "share_interval",
    "slope_of_medians",
    "spearman_brown",
]
