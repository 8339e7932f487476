"""Contract classes name the cases they run on in `CASES`."""

from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that needs a `case` on each of its class's cases."""
    if "case" in metafunc.fixturenames:
        cases = metafunc.cls.CASES
        metafunc.parametrize("case", cases, ids=["-".join(case) for case in cases])
