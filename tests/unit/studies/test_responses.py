"""The study `responses`: its networks, answers, statistics and claims, and a run from end to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from oracles.features import Contamination
from sensitivity import Points, Toward, UnrolledResponse, as_score, sample_sensitivity
from studies import responses
from studies.responses import linear_range
from studies.responses.answers import Answer, baselines, clean, unfinished
from studies.responses.bench import RecordedBench
from studies.responses.cells import _row, cells, run_cell
from studies.responses.config import MAIN, Config, Exact
from studies.responses.exact import SIGMA_MAX, SIGMA_MIN, ExactBench, LevelNetwork, Solved
from studies.responses.reading import (
    advantage,
    agreement_table,
    exchange_table,
    leave_out,
    model_table,
    over_units,
    recommendation_table,
    shares,
    slope,
)
from studies.responses.verdicts import claims
from studies.study import Context

RNG = np.random.default_rng(0)
SMALL = replace(Config.smoke(), exact=Exact(points=16, features=6, levels=2, draws=120, steps=20), latents=3)


@pytest.fixture(scope="module")
def exact():
    """A small exactly trained network."""
    return ExactBench(SMALL)


def test_the_engines_network_is_the_oracles(exact):
    """Assert the oracle's denoiser at every level, levels mixed in one batch."""
    levels = exact.grid.levels.tolist()
    network = LevelNetwork(exact.fitted, levels)
    states = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    score = network(states, torch.tensor(levels, dtype=torch.float64)).detach().flatten(1)
    wanted = [exact.fitted.denoiser(x.flatten().numpy(), s) for x, s in zip(states, levels, strict=True)]
    assert_close(score, torch.from_numpy(np.stack(wanted)), rtol=1e-10, atol=1e-12)
    assert levels[0] == pytest.approx(SIGMA_MAX)
    assert levels[-1] == pytest.approx(SIGMA_MIN)


def check_rates(exact, factor=1.0):
    """Fail unless the engine's θ̇ is the oracle's Ẇ up to the noise of the draws that stand for an expectation."""
    network = LevelNetwork(exact.fitted, exact.grid.levels.tolist())
    added = exact.images[exact.mask]
    response = exact._parameters(as_score(network, "denoiser"))
    response._damping = factor * response._damping
    derivative = response.direction(Toward(Points(added))).reshape(network.readout.shape)
    path = Contamination(exact.fitted, added.flatten(1).numpy())
    wanted = np.stack([path._level(level, 0.0).level.coefficients(1) for level in exact.grid.levels.tolist()])
    gaps = np.linalg.norm(derivative.numpy() - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
    assert gaps.max() < 0.3, gaps


def test_parameters_of_the_exact_network_move_as_its_solve_says(exact):
    """Assert the oracle's derivative at each level, and that a hundred times the ridge is not it."""
    check_rates(exact)
    with pytest.raises(AssertionError):
        check_rates(exact, factor=100.0)


def test_changed_networks_differ_from_base_networks_by_the_change_alone(tmp_path):
    """Assert that no change gives the base network's bits, and a change of weights the run's own retraining."""
    bench = RecordedBench(Config.smoke().regimes[0], Context(Config.smoke(), folder=tmp_path / "run"))
    change = bench.change(MAIN)
    same = replace(change, weights=torch.ones(80, dtype=torch.float64))
    made = bench.runs[1]
    base = torch.nn.utils.parameters_to_vector(bench.base[1].network.parameters())
    for asked, wanted in ((same, made.theta), (change, made.retrained(change.weights))):
        result = torch.nn.utils.parameters_to_vector(bench._record(1, asked, None).module.parameters())
        assert_close(result, wanted, rtol=0, atol=1e-6)
    assert_close(base, made.theta)
    edited = bench.change("blur-class:3@0.5")
    assert torch.equal(bench._record(1, edited, None).module.centre, made.module.centre)
    assert bench.sharp(MAIN).perturbation.masses[0][1].bandwidth == 0


def test_baselines_do_not_know_the_latent():
    """Assert another latent's prediction, the mean, nothing; and that what is not finite counts as none."""
    values = RNG.standard_normal((4, 6))
    result = baselines(values)
    assert_close(result["another latent"][1], values[0])
    assert_close(result["mean over latents"][3], values.mean(0))
    assert not result["zero"].any()
    values[2, 1] = np.nan
    assert unfinished(values) == 1
    assert not clean(values)[2].any()


def rows_of(strength, pairs=5, noise=0.5, truth="scratch"):
    """Rows of responses that are the signal times a strength plus an error of the given size."""
    signal = RNG.standard_normal((12, 30))
    changes = signal + noise * RNG.standard_normal((pairs, 12, 30))
    values = []
    for name, (size, error) in strength.items():
        predicted = size * (signal + error * RNG.standard_normal(signal.shape))
        shared = {"regime": "r", "change": "c", "truth": truth, "pairs": pairs}
        answer = Answer(predicted, 10.0, 0.1)
        values.append(shared | _row(name, answer, changes))
    return pd.DataFrame(values)


def test_shares_and_slopes_know_a_perfect_answer():
    """Assert a share of 1 and a slope of the right size, and what too few pairs leave open."""
    rows = rows_of({"unrolled": (0.5, 0.0), "kernel": (1.0, 3.0)})
    best, other = (row for _, row in rows.iterrows())
    portions = shares(best)
    assert abs(portions.share.estimate - 1) < 0.05
    assert slope(best).low < 2.0 < slope(best).high
    gap = advantage(best, other)
    assert gap.low > 0.3
    assert advantage(other, best).high < 0
    few = rows_of({"unrolled": (1.0, 0.0)}, pairs=2).iloc[0]
    assert shares(few) is None
    assert np.isnan(advantage(few, few).low)
    assert np.isnan(over_units(np.ones(1)).low)


def verdict(rows, words):
    """The one claim whose statement has these words."""
    (value,) = [c for c in claims(rows, Config.smoke()) if words in c.statement]
    return value


def test_claims_can_hold_and_fail():
    """Assert both for the share, the size and the comparison; without a ceiling a share does not hold."""
    good = rows_of({"unrolled": (1.0, 0.0), "kernel": (1.0, 3.0)}, pairs=8, noise=0.2)
    bad = rows_of({"unrolled": (3.0, 3.0), "kernel": (1.0, 3.0)}, pairs=8, noise=0.2)
    for words in ("as a share of the ceiling", "the size of its prediction"):
        assert verdict(good, words).holds
        assert not verdict(bad, words).holds
    assert verdict(good, "correlates better").holds
    assert not verdict(bad, "correlates better").holds
    none = verdict(rows_of({"unrolled": (1.0, 0.0)}, noise=1e3), "as a share of the ceiling")
    assert isinstance(none.measured, str)
    assert not none.holds


def test_networks_worse_than_simple_laws_carry_no_claim():
    """Assert that a held-out loss above the Gaussian's, or the kernel density's alone, takes the claims away."""
    rows = rows_of({"unrolled": (1.0, 0.0), "kernel": (1.0, 3.0)}, pairs=8, noise=0.2)
    model = {"kind": "model", "regime": "r", "held_out_loss": 0.6}
    for gaussian, kernel, count in ((0.7, 0.8, 3), (0.5, 0.8, 0), (0.7, 0.5, 0)):
        laws = pd.DataFrame([model | {"gaussian_loss": gaussian, "kernel_loss": kernel}])
        assert len(claims(pd.concat([rows, laws]), Config.smoke())) == count


def test_removals_are_ranked():
    """Assert Spearman's correlation 1 for a monotone relation, about 0 for none, with intervals that contain it."""
    predicted = RNG.standard_normal((40, 3))
    loss, ink = leave_out(predicted, np.exp(predicted))
    assert (loss.estimate, ink.estimate, ink.low) == pytest.approx((1.0, 1.0, 1.0))
    loss, _ = leave_out(predicted, RNG.standard_normal((40, 3)))
    assert loss.low < 0 < loss.high


def test_the_derivative_of_a_run_is_its_difference_at_small_masses_only(tmp_path):
    """Assert that cosine and slope tend to one as the mass falls."""
    regime = replace(SMALL.regimes[0], pairs=1)
    bench = RecordedBench(regime, Context(replace(SMALL, regimes=(regime,)), folder=tmp_path / "run"))
    first, *rows = linear_range.table(bench, (0.5, 1e-1, 1e-3))
    assert first[0] == 0.0
    cosines, slopes = ([row[k] for row in rows] for k in (2, 3))
    assert cosines[-1] > 0.999
    assert abs(slopes[-1] - 1) < 0.01
    assert abs(slopes[-1] - 1) < abs(slopes[0] - 1)


def test_the_study_runs_from_end_to_end(tmp_path):
    """Assert rows of every truth and response, tables, claims and figures from a run of seconds."""
    config = replace(Config.smoke(), regimes=(replace(Config.smoke().regimes[0], changes=(MAIN,)),))
    rows = []
    context = Context(config, folder=tmp_path / "run")
    for cell in cells(config):
        rows += run_cell(cell, context)
    table = pd.DataFrame(rows)
    answers = table[table.kind == "answer"]
    assert set(answers.truth) == {"exact", "run", "others", "scratch", "finetune"}
    scratch = answers[answers.truth == "scratch"]
    assert set(scratch.response) == {
        "population", "kernel", "local", "parameters", "unrolled", "zero", "another latent", "mean over latents",
    }  # fmt: skip
    value = answers[(answers.truth == "run") & (answers.response == "unrolled")].iloc[0]
    assert value.correlations == [1.0] * 4
    assert len(agreement_table(table)) == len(answers)
    assert list(model_table(table).regime) == ["digits-mlp"]
    assert len(recommendation_table(table)) == 4
    exchanged = exchange_table(table).set_index("response")
    assert exchanged.loc["unrolled", "run"] == "1.00 (1.00)"
    assert exchanged.loc["retraining", "run"] == ""
    judged = claims(table, config)
    assert any("1 % of the data" in c.statement for c in judged)
    drawn = responses.figures(table, config)
    assert set(drawn) == {"agreement", "changes-exact", "changes-digits-mlp", "removals"}
    assert all(each.alt for each in drawn.values())


def test_images_that_are_not_here_are_reported(tmp_path, monkeypatch):
    """Assert one row that says so."""
    monkeypatch.setattr("studies.data.available", lambda name: False)
    (cell,) = [c for c in cells(Config.smoke()) if c.name == "digits-unet-class=3-0.1-scratch"]
    (row,) = run_cell(cell, Context(Config.smoke(), folder=tmp_path / "run"))
    assert row["kind"] == "skipped"


def test_the_solves_derivative_is_the_truth_up_to_the_grid(exact):
    """Assert that the oracle's flow is met as the sampler's steps become fine, and that a pass back is transposed."""
    fine = ExactBench(replace(SMALL, exact=replace(SMALL.exact, levels=60)))
    network = LevelNetwork(fine.fitted, fine.grid.levels.tolist())
    record, score = Solved(fine, network), as_score(network, "denoiser")
    added = fine.images[fine.mask]
    value = sample_sensitivity(
        score, fine.latents, Toward(Points(added)), fine.grid, response=UnrolledResponse(record)
    ).sensitivity
    truth = torch.from_numpy(fine.truth()).reshape(value.shape)
    assert float((value - truth).norm() / truth.norm()) < 0.02
    network = LevelNetwork(exact.fitted, exact.grid.levels.tolist())
    record = Solved(exact, network)
    cotangents = torch.randn(2, network.readout.numel(), dtype=torch.float64)
    rates = torch.eye(16, dtype=torch.float64)[:3] - 1 / 16
    assert_close(record.pull(cotangents)[:, :3], cotangents @ record.parameter_change(rates).T, rtol=1e-10, atol=1e-10)
