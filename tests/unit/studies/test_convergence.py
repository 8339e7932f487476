"""The convergence study: its smoke configuration from cells to claims and figures, and its measures."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from studies import convergence
from studies.bridge import exact_score
from studies.claim_bounds import Verdict
from studies.convergence import exact, images, neural, robust, truth, verdicts
from studies.convergence.engine import predict, relative
from studies.convergence.problems import SIGMA_MAX, SIGMA_MIN, problem
from studies.results import load
from studies.running.setting import Setting
from studies.running.tables import decode, encode, frame, join
from studies.study import LEVELS, Context, configuration


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Rows of the smoke configuration, through the store's own encoding."""
    config = convergence.Config.smoke()
    context = Context(config, folder=tmp_path_factory.mktemp("convergence") / "smoke")
    parts = [decode(encode(cell.name, convergence.run_cell(cell, context))) for cell in convergence.cells(config)]
    return frame(join(parts)), config


@pytest.fixture(scope="module")
def published():
    """The published rows, of the full configuration."""
    return load("convergence").rows, convergence.Config.full()


def test_smoke_rows_support_every_claim(results):
    """Assert that all claims are made and measured, that none fails, and that few latents leave few of them open."""
    claims = convergence.claims(*results)
    assert len(claims) >= 15
    assert [claim.statement for claim in claims if claim.verdict is Verdict.FAILS] == []
    undecided = [claim.statement for claim in claims if claim.verdict is Verdict.OPEN]
    assert len(undecided) <= 3, undecided
    assert len({claim.statement for claim in claims}) == len(claims)


def test_every_figure_is_drawn_with_words(results, tmp_path):
    """Assert that figures draw without a warning and say what they show."""
    for name, drawing in convergence.figures(*results).items():
        drawing.savefig(tmp_path / f"{name}.png", dpi=30)
        assert len(drawing.alt) > 60


def test_claims_about_learned_networks_are_made_where_they_are_judged(results):
    """Assert that all other configurations claim more than smoke does, and that brief training fails them."""
    rows, config = results
    more = convergence.claims(rows, dataclasses.replace(config, judged=True))
    assert len(more) > len(convergence.claims(rows, config))
    assert not all(claim.holds for claim in more)
    assert all(configuration(convergence, level).judged for level in LEVELS[1:])


def test_a_prediction_of_the_wrong_size_fails_the_order_claim(published):
    """Assert that a sensitivity 1 % too long has no first order left."""
    rows, config = published
    wrong = rows.copy()
    wrong["errors"] = [None if e is None else np.asarray(e, dtype=float) + 0.01 for e in rows["errors"]]
    claims = [c for c in convergence.claims(wrong, config) if "tends to the predicted" in c.statement]
    assert claims
    assert not any(claim.holds for claim in claims)


def test_a_slope_without_points_above_the_floor_is_a_claim_that_does_not_hold(published):
    """Assert that a floor cannot hide errors."""
    rows, config = published
    wrong = rows.copy()
    wrong.loc[wrong["part"] == "exact", "floor"] = 1.0
    claims = [c for c in convergence.claims(wrong, config) if "tends to the predicted" in c.statement]
    assert not any(claim.holds for claim in claims)
    assert all("floor" in str(claim.measured) for claim in claims)


def test_all_levels_have_unique_cells():
    """Assert that each configuration is JSON-able, with distinct cells, and larger than the one before."""
    counts = []
    for level in LEVELS:
        setting = Setting.of(convergence, level)
        counts.append(len(setting.cells(convergence)))
        assert setting.digest
    assert counts == sorted(counts)


def test_the_truth_in_one_dimension_is_the_flow_s():
    """Assert that quantile oracle and exact flow, two routes, give the same samples and sensitivities."""
    case = problem(1, 6)
    both = case.perturbation.sample_sensitivity(case.latents, SIGMA_MAX, SIGMA_MIN)
    assert_close(truth.samples(case, 0.0), np.asarray(both[0]), rtol=0, atol=1e-9)
    assert_close(truth.sensitivity(case), np.asarray(both[1]), rtol=1e-7, atol=1e-9)
    moved = case.perturbation.sample(case.latents, 0.1, SIGMA_MAX, SIGMA_MIN)
    assert_close(truth.samples(case, 0.1), np.asarray(moved), rtol=0, atol=1e-9)


def test_problems_do_not_lie_in_the_null_space_of_what_is_tested():
    """Assert that divergences, asymmetries and log-ratios are far from zero."""
    for dimension in (1, 2, 10):
        case = problem(dimension, 50)
        x = np.asarray(case.base.noised(0.3).sample(200, 0))
        law = case.base.noised(0.3)
        assert np.abs(np.asarray(law.score_divergence(x))).min() > 1e-3
        assert np.ptp(np.asarray(case.perturbation.log_ratio(x, 0.3))) > 1
        assert np.abs(np.asarray(case.base.mean)).max() > 0.1
        assert len({round(float(w), 6) for w in np.asarray(case.base.weights)}) == 3


def test_a_disturbed_score_errs_by_its_stated_size():
    """Assert that the added field has the stated root mean square and a divergence, for both forms of σ."""
    case = problem(10, 4)
    x = torch.from_numpy(np.asarray(case.base.noised(1.0).sample(4000, 0)))
    level = torch.tensor(1.0, dtype=torch.float64)
    plain = exact_score(case.base)
    added = robust.disturbed(plain, 0.1, 10)(x, level) - plain(x, level)
    assert float(added.square().mean().sqrt()) == pytest.approx(0.1 / 2**0.5, rel=0.1)
    assert_close(robust.disturbed(plain, 0.1, 10)(x[:3], level.expand(3)) - plain(x[:3], level), added[:3], rtol=1e-9)


def test_errors_are_relative_row_by_row():
    """Assert the definition, for arrays and tensors of any shape."""
    value, exact_values = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 0.0 + 4.0], [2.0, 0.0]])
    assert_close(relative(value, exact_values), np.array([0.75, 0.5]), rtol=1e-12)


def test_agreement_measures_directions():
    """Assert that cosine and correlation ignore size, and that the correlation ignores a constant."""
    a = np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]])
    assert_close(neural.cosines(a, 3 * a), np.ones(2), rtol=1e-12)
    assert_close(images.pearson(a, 5 - 2 * a), -np.ones(2), rtol=1e-12)
    assert_close(
        images.pearson(a[:1], np.array([[0.3, 0.1, 0.9]])), np.corrcoef(a[0], [0.3, 0.1, 0.9])[0, 1:], rtol=1e-12
    )
    pairs = np.stack([a, 2 * a, -a])
    assert_close(neural.between(pairs, neural.cosines), np.full(2, -1 / 3), rtol=1e-12)
    assert neural.between(pairs[:1], neural.cosines) is None


def test_slope_claims_report_their_interval():
    """Assert that measured orders come with bootstrap intervals."""
    eta = np.array([1e-2, 1e-3, 1e-4])
    errors = [list(e * np.linspace(1, 2, 9)) for e in eta]
    rows = pd.DataFrame({"part": "own", "size": 10, "eta": eta, "errors": errors, "floor": np.nan})
    (claim,) = list(verdicts._own(rows))
    assert claim.holds
    assert claim.interval is not None
    assert claim.interval[0] <= claim.measured <= claim.interval[1]


def test_the_engine_s_options_reach_it():
    """Assert that levels, latents and solver are passed on."""
    case = problem(2, 3)
    coarse = predict(case, 4, solver="euler", latents=case.latents[:2], sigma_min=1.0)
    assert coarse.samples.shape == (2, 2)
    assert not torch.allclose(coarse.samples, predict(case, 4, sigma_min=1.0).samples[:2])
    assert exact.SOLVERS["rk4"][0] == 4
