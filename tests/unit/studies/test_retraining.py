"""The study `retraining`: its changes, measures and claims, and a run from end to end."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage, stats
from support.close import assert_close

from sensitivity import Outcome
from sensitivity.sampler.outcome import Outcomes
from studies import data
from studies import statistics as st
from studies.retraining import bench, changes, halves, measures, predictors, reading, synthetic
from studies.retraining.cells import cells, run_cell
from studies.retraining.claims import BASELINES, claims, unclaimed
from studies.retraining.config import MAIN, Config, Regime
from studies.runner import run
from studies.study import Context

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits():
    """The training digits."""
    return data.load("digits").split(0.1, seed=0)[0]


@pytest.mark.parametrize("name", ["class:3@0.1", "drop-class:3", "drop-image:0", "add-image:0@0.02"])
def test_weights_of_retraining_and_perturbation_of_the_engine_are_the_same_change(digits, name):
    """Assert that the changed weights are (1 − η)/N + η ν_i: one law for the truth and for the prediction."""
    change = changes.parse(name, digits, 0.2)
    count, members = len(digits), change.added.flatten(1)
    images = digits.images.flatten(1)
    is_member = (images[:, None] == members[None]).all(-1).any(1).double()
    expected = (1 - change.eta) / count + change.eta * is_member / is_member.sum()
    assert_close(change.weights, expected, rtol=1e-12)


def test_an_edit_moves_the_images_along_the_displacement_that_the_engine_sees(digits):
    """Assert that edited images are x + η v, v the displacement of the move, and all others unchanged."""
    change = changes.parse("contrast-class:3@0.3", digits, 0.2)
    mask = digits.of_class(3)
    assert_close(change.edited[mask], digits.images[mask] + 0.3 * (-1.0 - digits.images[mask]), rtol=1e-6)
    assert_close(change.edited[~mask], digits.images[~mask])


def test_a_blur_keeps_the_ink_and_moves_along_the_displacement_that_the_engine_sees(digits):
    """Assert SciPy's filter on the edited class, with background outside the image."""
    change = changes.parse("blur-class:3@0.5", digits, 0.2)
    mask = digits.of_class(3)
    line = np.array([0.25, 0.5, 0.25])
    whole = ndimage.convolve(
        digits.images[mask][:, 0].numpy(), np.outer(line, line)[None], mode="constant", cval=changes.BACKGROUND
    )
    half = 0.5 * (digits.images[mask][:, 0].numpy() + whole)
    assert_close(change.edited[mask][:, 0], torch.from_numpy(half), rtol=1e-5)
    assert_close(change.edited[~mask], digits.images[~mask])


@pytest.mark.parametrize("name", ["class", "grow:3", "class:x@.1"])
def test_an_unknown_change_is_named(digits, name):
    """Assert the sentence."""
    with pytest.raises(ValueError, match="is not known: write one of"):
        changes.parse(name, digits, 0.2)


def test_correlations_know_sign_and_scale():
    """Assert 1 for multiples, −1 for opposites, 0 where nothing is predicted, and SciPy's value otherwise."""
    a, b = RNG.standard_normal((2, 5, 30))
    assert_close(measures.pearson(a, 3 * a + 2), np.ones(5), rtol=1e-12)
    assert_close(measures.pearson(a, -a), -np.ones(5), rtol=1e-12)
    assert_close(measures.pearson(np.zeros((5, 30)), b), np.zeros(5))
    assert_close(measures.pearson(a, b), np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def test_the_ceiling_is_what_a_perfect_predictor_of_the_mean_change_attains():
    """Assert on simulated pairs that the signal itself correlates with the mean of P noisy changes as predicted."""
    signal = RNG.standard_normal((200, 64))
    noisy = signal + 1.7 * RNG.standard_normal((6, 200, 64))
    floor = measures.noise_floor(noisy)
    attained = np.median(measures.pearson(signal, noisy.mean(0)))
    assert attained == pytest.approx(floor["ceiling"], abs=0.02)
    assert np.median(measures.pearson(signal, noisy[0])) == pytest.approx(floor["ceiling_one"], abs=0.02)


def test_the_interval_of_the_ceiling_covers_it():
    """Assert on simulated pairs that the interval holds the ceiling of infinitely many latents in most repetitions."""
    truth = np.sqrt(3 * 0.4 / (1 + 2 * 0.4))
    inside = []
    for _ in range(40):
        between = np.clip(0.4 + 0.1 * RNG.standard_normal(100), -1, 1)
        top = measures.ceiling(between, 3)
        inside.append(top.low <= truth <= top.high)
    assert np.mean(inside) >= 0.85


def test_the_share_of_the_ceiling_is_one_for_the_signal_itself():
    """Assert that a predictor that knows the signal reaches its ceiling, and half of it with independent errors."""
    signal = RNG.standard_normal((300, 256))  # many pixels: a median of correlations errs by about 1/pixels
    noisy = signal + 1.5 * RNG.standard_normal((4, 300, 256))
    between = measures.between_pairs(noisy)
    right = measures.share_of_ceiling(measures.pearson(signal, noisy.mean(0)), between, 4)
    wrong = signal + np.sqrt(3) * RNG.standard_normal(signal.shape)
    poor = measures.share_of_ceiling(measures.pearson(wrong, noisy.mean(0)), between, 4)
    assert right.low < 1 < right.high
    assert poor.estimate == pytest.approx(0.5, abs=0.02)


def test_products_of_pairs_are_kept_and_give_a_share_with_the_pair_as_unit():
    """Assert that the table is what it was, that a perfect share is covered, and that three pairs give none."""
    signal = RNG.standard_normal((20, 64))
    changes_of_pairs = signal + RNG.standard_normal((6, 20, 64))
    stored = measures.trained_products(signal, changes_of_pairs)
    table = measures.from_products(np.asarray(stored["products"]), 6)
    assert_close(torch.from_numpy(table), torch.from_numpy(st.products(signal, changes_of_pairs)), rtol=0, atol=1e-3)
    result = reading.joint(pd.Series({"pairs": 6, **stored}))
    assert result is not None
    assert result.share.low < 1 < result.share.high
    assert reading.joint(pd.Series({"pairs": 6, **stored}), "centred").share.low < 1
    assert reading.joint(pd.Series({"pairs": 3, **stored})) is None
    assert reading.joint(pd.Series({"pairs": 6})) is None


def test_intervals_of_shares_are_longer_with_fewer_pairs():
    """Assert that two pairs leave a share open which eight decide, at the same correlations."""
    between, correlation = np.full(60, 0.5), np.full(60, 0.6)
    few, many = (measures.share_of_ceiling(correlation, between, pairs) for pairs in (2, 8))
    assert few.high - few.low > 1.5 * (many.high - many.low)


def test_seed_noise_explains_all_of_what_the_signal_leaves_unexplained():
    """Assert a share of 1 for a predictor that knows the signal."""
    signal = RNG.standard_normal((300, 64))
    noisy = signal + 1.5 * RNG.standard_normal((4, 300, 64))
    result = measures.unexplained_by_noise(measures.pearson(signal, noisy.mean(0)), measures.between_pairs(noisy), 4)
    assert result.low < 1 < result.high


def test_causes_that_explain_are_told_from_causes_that_do_not():
    """Assert R² of ranks: large alone for the cause and its copy, nothing to add beside each other, none for noise."""
    cause, other = RNG.standard_normal((2, 400))
    response = cause + 0.5 * RNG.standard_normal(400)
    copy = cause + 1e-3 * RNG.standard_normal(400)
    result = measures.explained(response, {"cause": cause, "copy": copy, "other": other})
    assert result["cause"][0].estimate == pytest.approx(stats.spearmanr(cause, response).statistic ** 2, abs=1e-9)
    assert result["cause"][1].estimate < 0.02
    assert result["other"][0].high < 0.1
    assert measures.quartile_gap(response, cause).low > 0


def test_the_lds_is_spearmans_correlation_over_halves():
    """Assert SciPy's value latent by latent, and 0 for a constant."""
    predicted, actual = RNG.standard_normal((2, 12, 5))
    expected = [stats.spearmanr(predicted[:, k], actual[:, k]).statistic for k in range(5)]
    assert_close(halves.lds(predicted, actual), np.array(expected), rtol=1e-9)
    assert_close(halves.lds(np.zeros((12, 5)), actual), np.zeros(5))


def test_the_known_mixture_has_the_moments_of_its_draws():
    """Assert mean and covariance of many draws of one class, and that the law's score is that of its components."""
    drawn = synthetic.draw(20_000, seed=1)
    _, means, covariances = synthetic.components()
    members = drawn.images[drawn.of_class(3)].flatten(1).double()
    assert_close(members.mean(0), means[3].flatten(), atol=0.1, rtol=0.0)
    assert_close(torch.cov(members.T), covariances[3], atol=0.15, rtol=0.0)
    x = drawn.images[:4]
    assert_close(
        synthetic.law((3,)).log_density(x, 0.5),
        torch.distributions.MultivariateNormal(means[3].flatten(), covariances[3] + 0.25 * torch.eye(64))
        .log_prob(x.flatten(1).double())
        .float(),
        rtol=1e-4,
    )


def test_data_that_are_not_installed_are_skipped_with_the_reason(monkeypatch, tmp_path):
    """Assert one row that names the package, and no claims or figures of that regime."""
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    config = Config((Regime("fashion14-mlp", "fashion14", count=100),))
    context = Context(config, folder=tmp_path / "x")
    rows = [row for cell in cells(config) for row in run_cell(cell, context)]
    assert {row["kind"] for row in rows} == {"skipped"}
    assert "dataset-fashion-mnist" in rows[0]["reason"]
    assert claims(pd.DataFrame(rows), config) == []


def test_more_images_than_there_are_is_an_error(tmp_path):
    """Assert the sentence."""
    config = Config((Regime("r", "digits", count=5000),))
    with pytest.raises(ValueError, match="exceeds the 1617 training images"):
        _ = bench.Bench(config.regimes[0], Context(config, folder=tmp_path / "x")).train


def test_the_kernel_ratio_is_the_difference_of_two_kernel_densities():
    """Assert log r and its gradient by automatic differentiation."""
    points = torch.from_numpy(RNG.standard_normal((12, 3)))
    ratio = predictors.KernelRatio(points[:4], points, 0.4)
    x = torch.from_numpy(RNG.standard_normal((5, 3))).requires_grad_()
    value = ratio.log_density(x, 0.5)
    assert_close(torch.autograd.grad(value.sum(), x)[0], ratio.score(x.detach(), 0.5), rtol=1e-9)


def test_a_prediction_counts_unless_its_sample_halted(monkeypatch):
    """Assert that an uncertain log density leaves a prediction as it is, and that a halted sample predicts nothing."""
    codes = torch.tensor([each.value for each in (Outcome.FINISHED, Outcome.OFF_FLOW, Outcome.REMOVAL_CONTRADICTED)])
    answer = SimpleNamespace(samples=torch.ones(3, 2), outcome=Outcomes(codes, torch.ones(3)))
    monkeypatch.setattr(predictors, "resample", lambda *args, **options: answer)
    asked = SimpleNamespace(score=lambda trained: None, latents=None, grid=None, anchor=None)
    asked.context = SimpleNamespace(config=SimpleNamespace(probes=1))
    change = SimpleNamespace(perturbation=SimpleNamespace(masses=()), eta=0.1)
    moved = predictors.finite(asked, None, change, np.zeros((3, 2)))
    np.testing.assert_array_equal(moved, [[1, 1], [1, 1], [0, 0]])


def test_an_absent_package_is_named_before_anything_is_trained(monkeypatch):
    """Assert that `retraining` says at once what it will want after the training, and how to get it."""
    monkeypatch.setitem(sys.modules, "ot", None)
    cell = next(cell for cell in cells(Config.smoke()) if cell.parameters["part"] == "change")
    with pytest.raises(ImportError, match=r"POT.*score-sensitivity\[images\]"):
        run_cell(cell, Context(Config.smoke(), level="smoke"))


def test_transport_of_a_translated_cloud_is_the_translation():
    """Assert that entropic transport finds a small common displacement."""
    cloud = 5 * RNG.standard_normal((60, 2))
    moved = predictors.transport(cloud, cloud + np.array([0.3, -0.2]))
    assert np.median(moved, axis=0) == pytest.approx([0.3, -0.2], abs=0.15)


def made_up(quality: float) -> pd.DataFrame:
    """Rows of a made-up study, of trained networks, in which `flow` predicts with the given sign and strength."""
    truth = RNG.standard_normal((60, 64))
    pairs = truth + 0.3 * RNG.standard_normal((8, *truth.shape))
    losses = {"held_out_loss": 0.4, "gaussian_loss": 0.6, "kernel_loss": 0.5}
    rows: list[dict] = [{"regime": "r", "kind": "model", **losses}]
    for t in ("scratch", "finetune"):
        head = {"regime": "r", "change": MAIN, "truth": t}
        kept = measures.trained_products(quality * truth + 0.1 * RNG.standard_normal(truth.shape), pairs)
        rows.append(head | {"kind": "floor", "pairs": 8} | measures.noise_floor(pairs) | kept)
        for name in ("flow", *BASELINES):
            strength = quality if name == "flow" else 0.0
            # Large where the truth is large, so that norms agree; noise with norms of its own for the baselines.
            predicted = strength * truth + (0.1 if name == "flow" else 1.0) * RNG.standard_normal(truth.shape)
            shared = head | {"kind": "agreement", "predictor": name, "pairs": 8}
            rows.append(shared | measures.agreement(predicted, pairs.mean(0)))
    return pd.DataFrame(rows)


CONFIG = Config((Regime("r", "digits"),))


def test_claims_hold_for_a_good_predictor_and_fail_for_a_wrong_sign():
    """Assert that a sensitivity of the wrong sign makes every claim fail but those without a sign."""
    assert all(claim.holds for claim in claims(made_up(1.0), CONFIG))
    failing = claims(made_up(-1.0), CONFIG)
    signless = ("rank correlation of norms", "the base networks are trained")
    assert not [claim for claim in failing if claim.holds and not any(each in claim.statement for each in signless)]


@pytest.mark.parametrize("law", reading.LAWS)
def test_networks_no_better_than_a_simple_law_are_shown_and_carry_no_claim(law):
    """Assert that only the controls are claimed, that one fails, and that what was measured stays in the tables."""
    rows = made_up(1.0)
    rows.loc[rows.kind == "model", "held_out_loss"] = rows[f"{law}_loss"].dropna().item()
    judged = claims(rows, CONFIG)
    assert all("are trained" in claim.statement for claim in judged)
    assert len(judged) == 2
    assert not all(claim.holds for claim in judged)
    assert unclaimed(rows, CONFIG) == claims(rows.assign(held_out_loss=rows.held_out_loss / 10), CONFIG)[2:]
    assert len(reading.agreement_table(rows)) == 2


def test_the_aims_are_claimed_for_every_regime_and_its_ceiling_beside_them():
    """Assert that thresholds which were missed stay claims, and that all settings stay in the table."""
    rows = made_up(1.0)
    for regime in (Regime("r", "digits", pairs=3), Regime("r", "mnist14")):
        statements = [claim.expected for claim in claims(rows, Config((regime,)))]
        assert "≥ 0.75 (interval decides)" in statements
        assert "≥ 0.85 (interval decides)" in statements
        assert "≥ 0.95 (interval decides)" in statements
    assert len(reading.agreement_table(rows)) == 2


def test_the_study_runs_from_end_to_end(tmp_path):
    """Assert that the smoke configuration gives rows of every kind, claims, figures and finite numbers."""
    result = run("retraining", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    kinds = {"model", "floor", "agreement", "shown", "formula", "causes", "matched", "repeated", "lds", "influential"}
    assert set(result.rows.kind) == kinds
    assert np.isfinite(np.concatenate([np.asarray(c) for c in result.rows.correlation.dropna()])).all()
    assert len(list((result.folder / "figures").glob("*.png"))) == 12
