"""One torch thread, Hypothesis profiles, tests that are slow, and the options `--device` and `--dtype`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import HealthCheck, settings
from support import pretend_device  # noqa: F401  (registered before the first backward pass, which counts the devices)

torch.set_num_threads(1)
settings.register_profile(
    "ci", max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the engine's tests, such as cuda")
    parser.addoption("--dtype", default="float64", choices=["float32", "float64"], help="dtype of the engine's tests")


SLOW = Path(__file__).parent / "support" / "slow.txt"


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device asked for on the command line."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The dtype asked for on the command line."""
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests listed in `support/slow.txt` run with `-m slow`; CUDA tests skip, with their reason, without a GPU."""
    listed = set(SLOW.read_text(encoding="utf-8").splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays: a million objects of libraries and tests."""
    gc.collect()
    gc.freeze()
