"""The bandwidth of a smoothed law."""

import pytest
import torch
from support.close import assert_close

from studies.bandwidths import likeliest

CHOICES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@pytest.fixture(scope="module")
def points():
    """4000 draws of N(0, 1)."""
    return torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_bandwidth_follows_the_spacing_of_the_data(points):
    """Assert that few data are smoothed more than many of the same law."""
    few, many = (likeliest(points[:n], points[3500:], CHOICES) for n in (5, 3000))
    assert few > many
    assert {few, many} <= set(CHOICES)


def test_the_bandwidth_has_the_units_of_the_data(points):
    """Assert that data a thousand times as large have a bandwidth a thousand times as large."""
    small, large = (likeliest(u * points[:50], u * points[3500:], CHOICES, unit=u) for u in (1.0, 1000.0))
    assert_close(torch.tensor(large), torch.tensor(1000 * small))
