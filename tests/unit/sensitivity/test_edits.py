"""Edits of a training set end to end: points moved, removed, reweighted and added, against exact flows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture, flow
from sensitivity import Grid, Move, Points, Remove, Reweight, Toward, resample, sample_sensitivity

TOP, BOTTOM, WIDTH = 10.0, 0.2, 0.5
RNG = np.random.default_rng(5)
DATA = RNG.standard_normal((6, 2)) * [1.0, 0.6] + [0.3, -0.2]
SHIFT = RNG.standard_normal((6, 2))
LATENTS = TOP * RNG.standard_normal((3, 2))
FINE = Grid(TOP, BOTTOM, 40, spacing="log")


def _points(data, weights=None):
    given = None if weights is None else torch.from_numpy(np.asarray(weights, dtype=float))
    return Points(torch.from_numpy(np.asarray(data, dtype=float)), given, bandwidth=WIDTH)


def _samples(data, weights=None):
    """The oracle's samples of the law of these points, smoothed by the bandwidth."""
    shares = np.full(len(data), 1.0 / len(data)) if weights is None else np.asarray(weights) / np.sum(weights)
    law = GaussianMixture.isotropic(shares, data, WIDTH**2)
    return np.asarray(flow.sample(law, LATENTS, TOP, BOTTOM))


def _run(change, **options):
    law = _points(DATA)
    options = {"solver": "dopri5"} | options
    return sample_sensitivity(law.score, torch.from_numpy(LATENTS), change, FINE, anchor=law, **options)


def _resample(change, eta):
    law = _points(DATA)
    return resample(law.score, torch.from_numpy(LATENTS), change, eta, FINE, anchor=law, solver="dopri5").samples


@pytest.mark.slow
def test_moving_points_is_right_to_second_order():
    """Assert δ and ζ against differences of exact flows of the moved points."""
    result = _run(Move(_points(DATA), torch.from_numpy(SHIFT)), order=2)
    h = 1e-3
    ends = [_samples(DATA + k * h * SHIFT) for k in (-2, -1, 0, 1, 2)]
    first = (8 * (ends[3] - ends[1]) - (ends[4] - ends[0])) / (12 * h)
    second = (16 * (ends[3] + ends[1]) - (ends[4] + ends[0]) - 30 * ends[2]) / (12 * h**2)
    assert_close(result.sensitivity, first, rtol=1e-5, atol=1e-6)
    assert_close(result.curvature, second, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["remove", "reweight", "add"])
def test_finite_edits_are_samples_of_the_edited_set(kind):
    """Assert that `.mass(N)` with `resample` gives the exact flow of the edited points, to 1e-6."""
    count = len(DATA)
    if kind == "remove":
        change, wanted = Remove(_points(DATA[:2])), _samples(DATA[2:])
    elif kind == "reweight":
        log_weights = np.array([0.7, -0.4])
        change = Reweight(_points(DATA[:2]), torch.from_numpy(log_weights))
        wanted = _samples(DATA, [*np.exp(log_weights), 1.0, 1.0, 1.0, 1.0])
    else:
        new = DATA[:2] + 0.5
        change, wanted = Toward(_points(new)), _samples(np.concatenate([DATA, new]))
    assert_close(_resample(change, change.mass(count)), wanted, rtol=0, atol=1e-6)


def test_a_small_edit_is_its_sensitivity_times_its_mass():
    """Assert that the prediction of second order misses the removal of one of 6 points by less than of first order."""
    change = Remove(_points(DATA[:1]))
    eta = change.mass(6)
    start, wanted = _samples(DATA), _samples(DATA[1:])
    result = _run(change, order=2, solver="rk4")
    first = np.linalg.norm(start + eta * result.sensitivity.numpy() - wanted, axis=1)
    second = np.linalg.norm(result.predict(eta).numpy() - wanted, axis=1)
    moved = np.linalg.norm(wanted - start, axis=1)
    assert np.median(second) < np.median(first) < 0.7 * np.median(moved)
