"""The comparison and the strategies that every other test leans on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from support.close import assert_close
from support.problems import PROBLEMS
from support.strategies import mixtures

BASE = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (BASE, BASE[:2]),
        (BASE, BASE[None]),
        (BASE, np.array([1.0, 2.0, 3.1])),
        (np.array([np.nan]), np.array([np.nan])),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
        (np.array([np.inf]), np.array([1.0])),
        (np.array([np.inf]), np.array([-np.inf])),
        (BASE.astype(np.float32), BASE),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (BASE, BASE + np.array([1e-6, -1e-6, 0.0])),
        (torch.zeros(3), torch.full((3,), 1e-3)),
    ],
)
def test_assert_close_refuses_what_differs(actual, expected):
    """Assert that each kind of difference fails: shape, value, NaN, infinity, dtype, cancelling signs."""
    with pytest.raises(AssertionError):
        assert_close(actual, expected)


def test_assert_close_accepts_what_agrees():
    """Assert that equal values, equal infinities and rounding pass."""
    assert_close(BASE, BASE * (1 + 1e-13))
    assert_close(np.array([np.inf, 1.0]), np.array([np.inf, 1.0]))
    assert_close(torch.ones(2), torch.ones(2))
    assert_close(torch.tensor(2.0), 2.0)


@given(mixtures())
def test_generated_mixtures_are_laws(law):
    """Assert that generated weights sum to one and covariances are symmetric and positive semi-definite."""
    assert law.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert_close(law.covariances, np.swapaxes(law.covariances, 1, 2))
    assert np.linalg.eigvalsh(law.covariances).min() > -1e-12


def test_named_problems_are_anisotropic_and_asymmetric():
    """Assert that no named problem hides in a null space: unequal weights, off-centre, unequal eigenvalues."""
    for problem in PROBLEMS.values():
        assert np.ptp(problem.base.weights) > 0.01
        assert np.abs(problem.base.weights @ problem.base.means).max() > 0.05
        if problem.base.dimension > 1:
            assert np.ptp(np.linalg.eigvalsh(problem.base.covariances[0])) > 0.05


def lost(nodes, root):
    """Listed tests whose file or function is not there."""
    values = []
    for node in nodes:
        file, *_, function = node.split("[")[0].split("::")
        path = root / file
        if not path.exists() or f"def {function}(" not in path.read_text(encoding="utf-8"):
            values.append(node)
    return values


def test_every_test_listed_as_slow_is_there():
    """Assert that a test that is renamed does not come back among the quick ones unseen, and that the check sees it."""
    root = Path(__file__).resolve().parents[2]
    listed = (root / "tests" / "support" / "slow.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert listed == sorted(set(listed))
    assert lost(listed, root) == []
    planted = ["tests/unit/test_support.py::test_of_old[1]", "tests/unit/test_gone.py::test_here"]
    assert lost(planted, root) == planted
