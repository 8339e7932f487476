"""The study `groups`: its data, plants, statistics and claims, and a run from end to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from studies import groups
from studies.datamodelling import by_query, lds, paired, ranked, ranked_apart
from studies.errors import StudyError
from studies.groups.bench import GroupBench
from studies.groups.cells import cells, run_cell
from studies.groups.config import PLANTS, Config, Regime
from studies.groups.outcomes import Shares, looks
from studies.groups.planted import GROUPS, _draw, harm, planted, precision, training_loss
from studies.groups.predictors import counting, projected
from studies.groups.reading import (
    Pool,
    coverage_table,
    over_divisions,
    planted_table,
    rank_table,
    transfer,
    width,
    width_table,
)
from studies.groups.verdicts import claims
from studies.responses.bench import RULE
from studies.study import Context
from studies.training.record import record

CONFIG = replace(Config.smoke(), plants=2)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Small networks on digits."""
    return GroupBench(CONFIG.regimes[0], Context(CONFIG, folder=tmp_path_factory.mktemp("groups") / "run"))


def test_groups_are_a_partition_within_classes(bench):
    """Assert 20 groups, each of one class, and random groups of the same sizes."""
    assert sorted(np.concatenate(list(bench.members.values()))) == list(range(len(bench.labels)))
    assert len(bench.members) == 20
    assert all(len(np.unique(bench.labels[rows])) == 1 for rows in bench.members.values())
    sizes = [len(rows) for rows in bench.members.values()]
    assert [len(rows) for rows in bench.random_groups.values()] == sizes[: CONFIG.random]


def noise(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


def made_rows():
    """Nine networks with another seed, and two predictors of class shares of twenty groups: the truth, and noise."""
    shares, floor = noise(20, 3), noise(9, 7)
    row = {"kind": "method", "regime": "a", "groups": 20, "classes": 3, "seeds": 1, "retrained_shares": shares.ravel()}
    base = {"predicted": np.zeros(4), "predicted_shares": np.zeros(3)}
    nets = {"retrained": floor[:, :4].ravel(), "retrained_shares": floor[:, 4:].ravel()}
    return pd.DataFrame(
        [
            {"kind": "floor", "regime": "a", "count": 9, **base, **nets},
            {**row, "method": "truth", "predicted_shares": shares.ravel()},
            {**row, "method": "noise", "predicted_shares": 3 * noise(20, 3, 1).ravel()},
        ]
    )


def test_intervals_are_as_wide_as_they_are_beyond_the_radius_of_trust():
    """Assert that a stretch shared by all groups, which cancels from every interval, changes no width."""
    outcomes, rows = torch.from_numpy(noise(20, 7)), made_rows()
    wide = [
        width(Pool([""] * 20, 0 * outcomes, outcomes, torch.full((20,), stretch)), rows, "a", Config.full())
        for stretch in (1.0, 10.0)
    ]
    assert wide[0] == pytest.approx(wide[1])
    assert 0.5 < wide[0] < 2


def test_predictors_are_told_apart_by_the_width_of_their_intervals():
    """Assert none of the truth, one and more of noise, and about the seeds' own where nothing is predicted."""
    table = width_table(made_rows(), Config.full()).set_index("predictor")["a"]
    assert table["truth"] == 0
    assert 0.5 < table["no change"] < 2 < table["noise"]


def test_removed_images_have_no_weight(bench):
    """Assert the weights of training without a group."""
    rows = bench.members["group 3"]
    weights = bench.without({"one": rows})[0]
    assert float(weights[rows.tolist()].sum()) == 0
    assert float(weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", PLANTS)
def test_planted_groups_differ_from_the_others_in_what_is_said(kind):
    """Assert three planted groups, and what was done to them and to nothing else."""
    plant = planted(kind, Regime("planted", "digits", count=200), 1)
    assert int(plant.planted.sum()) == 3
    assert np.bincount(plant.of_group, minlength=GROUPS).min() > 0
    rows = plant.planted[plant.of_group]
    corner = plant.images[:, 0, :2, :2].flatten(1)
    if kind == "watermarked":
        assert bool((corner[rows] == 1).all())
        assert not bool((corner[~rows] == 1).all(1).any())
    if kind == "repeated":
        counts = np.unique(plant.images[rows].flatten(1).numpy(), axis=0, return_counts=True)[1]
        assert counts.min() >= 50
    if kind == "blurred":
        rough = plant.images.diff(dim=-1).abs().flatten(1).mean(1)
        assert float(rough[rows].mean()) < 0.7 * float(rough[~rows].mean())
    again = planted(kind, Regime("planted", "digits", count=200), 1)
    assert torch.equal(again.images, plant.images)


def test_an_unknown_plant_is_refused():
    """Assert the error's words."""
    with pytest.raises(StudyError, match="'glued'"):
        planted("glued", Regime("planted", "digits"), 0)


def test_harm_is_what_a_removal_does_to_the_held_out_loss(bench):
    """Assert the first-order harm of a group against runs in which its weights are a little less."""
    plant = planted("blurred", Regime("planted", "digits", count=100, width=8, depth=2, steps=6, batch=16), 0)
    plant = replace(plant, images=plant.images.double(), clean=plant.clean.double())
    made = record(replace(bench.recipe(), precision="float64"), plant.images, seed=3, rule=RULE)
    values, step = harm(made, plant), 1e-2

    def loss(weights):
        theta = made.retrained(weights)
        return float(made.descent.losses(theta, _draw(plant.clean, 4)).mean())

    for g in (0, 7):
        group = torch.from_numpy((plant.of_group == g).astype(float))
        # Weights are normalised in training: less of the group is more of all others.
        ends = [loss((1 + sign * step * group) / 100) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(values[g], rel=1e-3)
    assert training_loss(made, plant).shape == (GROUPS,)


def test_precision_counts_the_planted_among_the_first():
    """Assert it for three of five, and that the order of signs matters."""
    which = np.array([True, False, True, True, False])
    assert precision(np.array([5.0, 4.0, 3.0, 1.0, 0.0]), which) == pytest.approx(2 / 3)
    assert precision(-np.array([5.0, 4.0, 3.0, 1.0, 0.0]), which) == pytest.approx(2 / 3)
    assert precision(which.astype(float), which) == 1


def test_counting_takes_images_away_from_their_class(bench):
    """Assert that a class that loses half of its images has half of its share, before they are made to add up."""
    base = np.full(10, 0.1)
    result = counting(bench, {"half": np.flatnonzero(bench.labels == 2)[: int((bench.labels == 2).sum()) // 2]}, base)
    assert result[0, 2] == pytest.approx(0.05 / 0.95)
    assert result.sum() == pytest.approx(1.0)


def test_projected_gradients_follow_a_small_step_of_the_loss(bench):
    """Assert that the sum over all images is the sum over groups, each with the class shares' own number."""
    shares = Shares(bench.images, bench.labels)
    base = shares(bench.samples(bench.base.module)).double().numpy()
    result = projected(bench, bench.members, shares, base)
    whole = projected(bench, {"all": np.arange(len(bench.labels))}, shares, base)
    assert_close(torch.from_numpy((result - base).sum(0)), torch.from_numpy(whole[0] - base), rtol=1e-3, atol=1e-6)


def test_looks_and_shares_are_what_they_say():
    """Assert them by NumPy."""
    x = torch.rand(6, 1, 3, 3)
    flat = x.flatten(1).numpy()
    assert_close(looks(x), torch.from_numpy(np.stack([flat.mean(1), flat.std(1)], 1)), rtol=1e-5)
    shares = Shares(x, np.array([0, 1, 0, 1, 0, 1]))(x)
    assert float(shares.sum()) == pytest.approx(1.0, rel=1e-5)


def pool(seed, count=20, shift=0.0):
    """Exchangeable groups with errors of unequal size, and a pool that errs by more."""
    rng = np.random.default_rng(seed)
    errors = rng.standard_exponential((count, 1)) * rng.standard_normal((count, 40)) + shift
    zero = torch.zeros(count, 40).double()
    return Pool([str(k) for k in range(count)], zero, torch.from_numpy(errors), torch.ones(count).double())


def test_coverage_over_divisions_is_the_rules_and_transfer_shows_what_is_not_exchangeable():
    """Assert nine in ten over divisions, and far fewer where the groups asked about err by more."""
    assert over_divisions(pool(0), CONFIG_400).estimate == pytest.approx(0.9, abs=0.02)
    assert transfer(pool(0), pool(1, shift=3.0), CONFIG_400).high < 0.8


CONFIG_400 = replace(CONFIG, divisions=400)


def test_ranks_of_sums_are_those_of_the_datamodelling_score():
    """Assert that `ranked` and `ranked_apart` give what `lds` and `paired` give for sums over subsets."""
    rng = np.random.default_rng(0)
    masks, scores, others = rng.random((32, 50)) < 0.5, rng.normal(size=(4, 50)), rng.normal(size=(4, 50))
    outputs = masks @ scores.T + rng.normal(size=(2, 32, 4))
    sums = masks @ scores.T
    assert ranked(sums, outputs) == lds(masks, outputs, scores)
    # Two routes to the same sums: equal to rounding, not to the last bit.
    difference, same = ranked_apart(sums, masks @ others.T, outputs), paired(masks, outputs, scores, others)
    assert (difference.estimate, difference.low, difference.high) == pytest.approx(
        (same.estimate, same.low, same.high), rel=1e-12
    )
    assert ranked(sums, outputs).value == pytest.approx(by_query(masks, outputs, scores).mean())


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.full((8, 2), np.nan), np.zeros((8, 3))])
def test_ranks_of_what_does_not_fit_are_refused(bad):
    """Assert an error for too few subsets, NaN, and other shapes."""
    with pytest.raises(ValueError, match="predicted"):
        ranked(bad, np.zeros((8, 2)))


@pytest.fixture(scope="module")
def rows(bench):
    """All rows of a small run."""
    result = []
    for cell in cells(CONFIG):
        if cell.parameters.get("kind") in ("repeated", "mislabelled"):
            continue
        result += run_cell(cell, bench.context)
    return pd.DataFrame(result)


def test_a_run_from_end_to_end_has_claims_figures_and_tables(rows):
    """Assert that every claim has a bound and every figure words."""
    judged = claims(rows, CONFIG)
    assert len(judged) == 18
    assert all(each.expected for each in judged)
    drawn = groups.figures(rows, CONFIG)
    assert list(drawn) == ["coverage", "ranks", "without-digits", "without-exact", "planted"]
    assert all(each.alt for each in drawn.values())
    assert len(coverage_table(rows, CONFIG)) == 2
    assert len(rank_table(rows)) == 12
    assert list(planted_table(rows).planted) == ["blurred", "watermarked"]


def test_absent_images_are_reported(monkeypatch, bench):
    """Assert that optional data that are not here are a row, and no error."""
    monkeypatch.setattr("studies.data.available", lambda name: False)
    assert run_cell(cells(CONFIG)[0], bench.context)[0]["kind"] == "skipped"
    assert claims(pd.DataFrame(run_cell(cells(CONFIG)[0], bench.context)), CONFIG) == []
