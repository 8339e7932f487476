"""The study `groups_networks`: its networks, parts, values and claims, and a run from end to end."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from studies.groups import networks, values
from studies.groups.bench import GroupBench
from studies.groups.config import PLANTS, Regime
from studies.groups.networks import Config, cells, claims, run_cell
from studies.groups.reading import conservation, rank_table, trained_regimes, value_table
from studies.networks import Architecture
from studies.responses.config import Config as ResponsesConfig
from studies.responses.config import Exact
from studies.responses.exact import ExactBench
from studies.runner import run
from studies.study import Context

CONFIG = Config.smoke()
EXACT = ExactBench(ResponsesConfig((), Exact(points=40, features=8, levels=4), latents=3))
MEMBERS = values.classes(40, 3)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A smoke run in this process."""
    return run("groups_networks", "smoke", out=tmp_path_factory.mktemp("networks"), workers=0)


def test_a_run_from_end_to_end_has_rows_of_every_part_and_no_claim_of_untrained_networks(result):
    """Assert that of networks of two steps nothing is claimed but that they are trained, which fails."""
    assert not result.failures
    rows = result.rows
    assert len(rank_table(rows)) == 10
    assert list(value_table(rows)["values"]) == list(values.KINDS)
    assert trained_regimes(rows) == set()
    judged = {claim.statement.split(":")[0]: claim for claim in result.claims if "is trained" in claim.statement}
    assert set(judged) == {"digits", *(f"planted, {kind}" for kind in PLANTS)}
    assert not any(claim.holds for claim in judged.values())
    others = [c for c in result.claims if "is trained" not in c.statement]
    assert len(others) == 7
    assert all(c.statement.startswith("exact, ") for c in others)
    drawn = networks.figures(rows, CONFIG)
    assert list(drawn) == ["coverage", "ranks", "without-digits", "planted"]
    assert all(each.alt for each in drawn.values())


@pytest.mark.parametrize(("gaussian", "kernel", "claimed"), [(0.7, 0.8, True), (0.5, 0.8, False), (0.7, 0.5, False)])
def test_networks_worse_than_either_law_carry_no_claim(result, gaussian, kernel, claimed):
    """Assert that a held-out loss above the Gaussian's, or the kernel density's alone, takes the claims away."""
    model = (result.rows.kind == "model") & (result.rows.regime == "digits")
    rows = result.rows.copy()
    rows.loc[model, ["loss", "gaussian", "kernel"]] = 0.6, gaussian, kernel
    found = [c for c in claims(rows, CONFIG) if c.statement.startswith("digits: ")]
    assert found[0].holds == claimed
    assert len(found) == (12 if claimed else 1)
    rows.loc[model, "loss"] = np.nan
    assert len([c for c in claims(rows, CONFIG) if c.statement.startswith("digits: ")]) == 1


def test_networks_are_u_nets_and_those_of_groups_stay_as_they_were(tmp_path):
    """Assert the architecture that a regime asks for, of the planted groups too."""
    context = Context(CONFIG, folder=tmp_path / "run")
    for regime in (*Config.full().regimes, Config.full().planted):
        assert GroupBench(regime, context).recipe().architecture == Architecture("unet", width=12, depth=2)
    assert GroupBench(Regime("a", "digits"), context).recipe().architecture == Architecture("mlp", width=64, depth=3)
    assert {each.kind for each in Config.paper().regimes} == {"unet"}


def test_cells_are_pieces_that_two_workers_share():
    """Assert unique names, a cell for each part, and that each says what it is in JSON."""
    listed = cells(Config.full())
    assert len({cell.name for cell in listed}) == len(listed) == 3 * 7 + 4 + 3
    assert all(isinstance(value, str | int) for cell in listed for value in cell.parameters.values())
    assert asdict(Config.full())["planted"]["kind"] == "unet"


def test_absent_images_are_reported(monkeypatch, tmp_path):
    """Assert that optional data that are not here are a row, and no error."""
    monkeypatch.setattr("studies.data.available", lambda name: False)
    (row,) = run_cell(cells(CONFIG)[0], Context(CONFIG, folder=tmp_path / "run"))
    assert row["kind"] == "skipped"


def shapley_by_orders(value, players):
    """Shapley's value over all orders, by the definition."""
    orders, total = list(itertools.permutations(range(players))), [0.0] * players
    for order in orders:
        for place, g in enumerate(order):
            total[g] = total[g] + value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return np.stack(total) / len(orders)


def test_shapley_by_solves_is_the_mean_over_all_orders():
    """Assert both sums over the same trainings, and that they add up."""

    def value(present):
        weights = np.ones(40)
        for g, rows in enumerate(MEMBERS.values()):
            weights[rows] *= 1.0 if g in present else 0.5
        return values.ink(values.solved(EXACT, weights)).numpy()

    result, total = values.by_solves(EXACT, MEMBERS, "shapley", 0.5)
    assert_close(torch.from_numpy(result), torch.from_numpy(shapley_by_orders(value, 3)), rtol=1e-9, atol=1e-12)
    assert_close(torch.from_numpy(result.sum(0)), torch.from_numpy(total), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["shapley", "leave-out"])
def test_predicted_values_are_those_of_solves_where_little_goes(kind):
    """Assert both within 3 % where a twentieth of each class goes, and that values of the other sign are not."""
    result = torch.from_numpy(values.by_solves(EXACT, MEMBERS, kind, 0.95)[0])
    predicted = values.asked(EXACT, MEMBERS, kind, 0.95, None).values
    tolerance = 0.03 * float(result.abs().max())
    assert_close(predicted, result, rtol=0, atol=tolerance)
    with pytest.raises(AssertionError):  # planted: mass moved the other way
        assert_close(-predicted, result, rtol=0, atol=tolerance)


def test_additive_values_are_the_slope_of_leaving_out():
    """Assert the limit of leaving out a little, by solves."""
    small = 1e-4
    slope = torch.from_numpy(values.by_solves(EXACT, MEMBERS, "leave-out", 1 - small)[0]) / small
    predicted = values.asked(EXACT, MEMBERS, "additive", 0.0, None).values
    assert_close(predicted, slope, rtol=0, atol=2e-3 * float(slope.abs().max()))


def row(predicted, actual, error=1e-3):
    """A row of Shapley values (10, 5) with what all classes are worth."""
    return {
        "kind": "value", "regime": np.nan, "worth": "shapley", "groups": 10, "runs": 40, "seconds": 1.0,
        "solve_seconds": 2.0, "predicted": predicted.ravel().tolist(), "actual": actual.ravel().tolist(),
        "standard_error": [error] * actual.size, "total": actual.sum(0).tolist(),
    }  # fmt: skip


def test_claims_of_values_catch_what_is_wrong():
    """Assert that right values pass, and a wrong sign, size and sum each fail the claim that is theirs."""
    actual = np.random.default_rng(0).standard_normal((10, 5))
    shifted = actual.copy()
    shifted[3] += 0.1
    planted = {"right": actual, "sign": -actual, "size": actual / 3, "sum": shifted}
    verdicts = {}
    for name, predicted in planted.items():
        rows = pd.DataFrame([row(predicted, actual), {"kind": "model", "loss": 1.0, "gaussian": 2.0, "kernel": 2.0}])
        verdicts[name] = [c.holds for c in claims(rows, replace(CONFIG, plants=0)) if "exact" in c.statement]
    assert verdicts["right"] == [True, True, True]
    assert verdicts["sign"] == [False, False, False]
    assert verdicts["size"] == [True, False, False]
    assert verdicts["sum"] == [True, True, False]
    assert conservation(pd.Series(row(shifted, actual))) == pytest.approx(0.1 / (1e-3 * 10**0.5))
