"""The study `retraining`: its changes, measures and claims, and a run from end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from sensitivity import Points
from studies import data
from studies.retraining import changes, measures, predictors
from studies.retraining.claims import BASELINES, claims
from studies.retraining.config import MAIN, Config, Regime
from studies.runner import run

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
    change = changes.parse("edit-class:3@0.3", digits, 0.2)
    mask = digits.of_class(3)
    assert_close(change.edited[mask], digits.images[mask] + 0.3 * (-1.0 - digits.images[mask]), rtol=1e-6)
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


def test_the_kernel_ratio_is_the_difference_of_two_kernel_densities():
    """Assert log r and its gradient by automatic differentiation."""
    points = torch.from_numpy(RNG.standard_normal((12, 3)))
    ratio = predictors.KernelRatio(Points(points[:4], bandwidth=0.4), Points(points, bandwidth=0.4))
    x = torch.from_numpy(RNG.standard_normal((5, 3))).requires_grad_()
    value = ratio.log_density(x, 0.5)
    assert_close(torch.autograd.grad(value.sum(), x)[0], ratio.score(x.detach(), 0.5), rtol=1e-9)


def test_transport_of_a_translated_cloud_is_the_translation():
    """Assert that entropic transport finds a small common displacement."""
    cloud = 5 * RNG.standard_normal((60, 2))
    moved = predictors.transport(cloud, cloud + np.array([0.3, -0.2]))
    assert np.median(moved, axis=0) == pytest.approx([0.3, -0.2], abs=0.15)


def synthetic(quality: float) -> pd.DataFrame:
    """Rows of a made-up study in which `flow` predicts with the given sign and strength."""
    truth = RNG.standard_normal((60, 64))
    rows = [
        {"kind": "floor", "regime": "r", "change": MAIN, "truth": t, "ceiling": 0.9, "pairs": 8}
        for t in ("scratch", "finetune")
    ]
    for t in ("scratch", "finetune"):
        for name in ("flow", *BASELINES):
            strength = quality if name == "flow" else 0.0
            predicted = strength * truth + 0.3 * RNG.standard_normal(truth.shape)
            shared = {"kind": "agreement", "regime": "r", "change": MAIN, "truth": t, "predictor": name, "pairs": 8}
            rows.append(shared | measures.agreement(predicted, truth))
    return pd.DataFrame(rows)


CONFIG = Config((Regime("r", "digits"),))


def test_claims_hold_for_a_good_predictor_and_fail_for_a_wrong_sign():
    """Assert that a sensitivity of the wrong sign makes every claim fail."""
    assert all(claim.holds for claim in claims(synthetic(1.0), CONFIG))
    assert not any(claim.holds for claim in claims(synthetic(-1.0), CONFIG))


def test_the_study_runs_from_end_to_end(tmp_path):
    """Assert that the smoke configuration gives rows of every kind, claims, figures and finite numbers."""
    result = run("retraining", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    assert set(result.rows.kind) == {"model", "floor", "agreement", "shown", "lds", "influential"}
    assert np.isfinite(np.concatenate([np.asarray(c) for c in result.rows.correlation.dropna()])).all()
    assert len(list((result.folder / "figures").glob("*.png"))) == 4
