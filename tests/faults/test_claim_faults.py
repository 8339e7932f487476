"""Faults planted in the engine must make the convergence study's claim (a) fail: its x_η is the oracle's."""

import pytest

from sensitivity.jacobians.traces import Trace
from sensitivity.sampler import local_maps
from sensitivity.sampler.local_maps import LocalMaps
from studies.convergence import exact, verdicts
from studies.convergence.config import Config
from studies.running.tables import decode, encode, frame
from studies.study import Cell

CONFIG = Config(etas=(1e-2, 1e-3, 1e-4))


def order_claims(dimension):
    """Claim (a) from a small cell of one dimension."""
    cell = Cell("exact", {"part": "exact", "dimension": dimension, "latents": 8, "steps": 100}, seed=0)
    rows = frame(decode(encode(cell.name, exact.run(cell, CONFIG))))
    return list(verdicts._order(rows))[:1]


def doubled_divergence(patch):
    """2 div s in place of div s."""
    right = Trace.combine
    patch.setattr(Trace, "combine", lambda self, *args, **options: 2 * right(self, *args, **options))


def wrong_sign(patch):
    """−ṡ in place of ṡ."""
    right = LocalMaps.sources
    patch.setattr(LocalMaps, "sources", lambda self, *args: -right(self, *args))


def undivided_probes(patch):
    """The sum over probes in place of their mean."""
    patch.setattr(LocalMaps, "means", lambda self, logs: None if logs is None else logs.sum(1))


def dropped_sigma(patch):
    """dL/dσ = div s in place of σ div s."""
    right = local_maps.node

    def node(step, stage, *rest):
        here = right(step, stage, *rest)
        return here if here.rate is None else here._replace(rate=here.rate / step.table.levels[stage])

    patch.setattr(local_maps, "node", node)


@pytest.mark.parametrize("dimension", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_claim_holds_without_a_fault(dimension):
    """Assert that the small cell supports claim (a)."""
    assert all(claim.holds for claim in order_claims(dimension))


@pytest.mark.parametrize(
    ("plant", "dimension"),
    [
        pytest.param(doubled_divergence, 2, marks=pytest.mark.slow),
        pytest.param(wrong_sign, 2, marks=pytest.mark.slow),
        (dropped_sigma, 2),
        (undivided_probes, 1),
    ],
)
def test_the_claim_fails_under_a_fault(plant, dimension, monkeypatch):
    """Assert that claim (a) does not hold for a wrong engine."""
    plant(monkeypatch)
    assert not any(claim.holds for claim in order_claims(dimension))
