"""What a training run answers, against a network whose retraining is a solve, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.trained import trained
from torch import nn

from sensitivity import (
    Grid,
    Mixture,
    Move,
    ParameterResponse,
    Points,
    Remove,
    Toward,
    UnrolledResponse,
    as_score,
    influence,
    resample,
    sample_sensitivity,
)
from sensitivity.responses.examples import Examples

SIGMA_MAX = 4.0
GRID = Grid(SIGMA_MAX, 0.3, 8)
P = np.random.default_rng(5).uniform(0.5, 1.5, 12)
P = P / P.sum()
NEW = np.array([2.0, 0.0, 1.0, 1.0] + [0.0] * 8) / 4
H = 1e-5


class Solved:
    """The record of a training that is a solve: its derivatives in closed form, and in the data by differences."""

    passes = 12

    def __init__(self, truth):
        self.truth, self.module = truth, truth.network(P)
        self.points = Points(torch.from_numpy(truth.data), torch.from_numpy(P))

    def parameter_change(self, rates, moves=None):
        values = [torch.from_numpy(self.truth.derivative(P, rate.numpy())).flatten() for rate in rates]
        if moves is not None:
            values = [each + self._moved(move.numpy()) for each, move in zip(values, moves, strict=True)]
        return torch.stack(values)

    def _moved(self, move):
        ends = [self.truth.retrained(P, self.truth.data + sign * H * move) for sign in (1, -1)]
        return torch.from_numpy((ends[0] - ends[1]) / (2 * H)).flatten()

    def pull(self, cotangents):
        return cotangents @ self.parameter_change(torch.eye(12, dtype=torch.float64) - torch.from_numpy(P)).T


def _problem(d=3, features=20):
    truth = trained(d, features)
    record = Solved(truth)
    score = as_score(record.module, "denoiser")
    latents = SIGMA_MAX * torch.from_numpy(np.random.default_rng(1).standard_normal((4, d)))
    return truth, record, score, latents


def _toward(truth, weights=NEW):
    return Toward(Points(torch.from_numpy(truth.data), torch.from_numpy(weights)))


def check_samples(truth, response, score, latents):
    """Fail unless samples move as Heun's tangent, written out, says along the solve's derivative."""
    result = sample_sensitivity(score, latents, _toward(truth), GRID, response=response)
    rate = truth.derivative(P, NEW - P)
    _, tangent = truth.sampled(truth.retrained(P), rate, latents.numpy(), GRID.levels.numpy())
    assert_close(result.sensitivity, torch.from_numpy(tangent), rtol=0, atol=1e-9 * float(np.abs(tangent).max()))
    return result


@pytest.mark.parametrize(("d", "features"), [(3, 20), (784, 12)])
def test_samples_move_as_those_of_the_retrained_network(d, features):
    """Assert the tangent written out by hand, and that a run in forward mode is counted."""
    truth, record, score, latents = _problem(d, features)
    response = UnrolledResponse(record)
    result = check_samples(truth, response, score, latents)
    assert result.log_density is None
    assert result.cost.away == 12
    assert response.needs == "a record of the network's training run"


def test_a_planted_order_of_examples_is_caught():
    """Assert that a record whose weights are in another order than its points fails the check above."""
    truth, record, score, latents = _problem()
    right = record.parameter_change
    record.parameter_change = lambda rates, moves=None: right(rates.flip(1), moves)
    with pytest.raises(AssertionError):
        check_samples(truth, UnrolledResponse(record), score, latents)


@pytest.mark.parametrize("solver", ["euler", "heun", "sde"])
def test_influence_is_the_transpose_of_the_sensitivity(solver):
    """Assert the identity to rounding for each training point and two functionals."""
    truth, record, score, latents = _problem()
    points = torch.from_numpy(truth.data[[3, 0, 7]])
    options = {"grid": GRID, "solver": solver, "seed": 3, "response": UnrolledResponse(record, block=5)}
    forward = sample_sensitivity(score, latents, [Toward(Points(row[None])) for row in points], **options)
    functions = [lambda x: x.square().sum(1) + x[:, 0], lambda x: torch.sin(x).sum(1)]
    influences = influence(score, latents, functions, points, **options)
    for k, function in enumerate(functions):
        x = forward.samples.detach().requires_grad_()
        gradient = torch.autograd.grad(function(x).sum(), x)[0]
        wanted = (forward.sensitivity * gradient).flatten(2).sum(2).T
        assert_close(influences.values[k], wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    # Forward: a run for each change; back: a run for each functional and latent, and the stages of each latent once.
    stages = options["response"].pulled // 4
    assert influences.cost.away == 12 * (3 + 2 * 4) + 4 * stages


def test_finite_masses_move_parameters_along_the_derivative():
    """Assert that resample at η is a network with parameters θ + η θ̇, removals with negative η."""
    truth, record, score, latents = _problem()
    change = Remove(Points(torch.from_numpy(truth.data[:2]), torch.from_numpy(P[:2])))
    eta = -float(P[:2].sum() / (1 - P[:2].sum()))
    value = resample(score, latents, change, eta, GRID, response=UnrolledResponse(record)).samples
    toward = np.concatenate([P[:2] / P[:2].sum(), np.zeros(10)])
    moved = truth.retrained(P) + eta * truth.derivative(P, toward - P)
    samples, _ = truth.sampled(moved, np.zeros_like(moved), latents.numpy(), GRID.levels.numpy())
    assert_close(value, torch.from_numpy(samples), rtol=0, atol=1e-10)


def test_moved_examples_are_those_of_the_parameters_response():
    """Assert that a move agrees with the gradient route of another response, together with a mass."""
    truth, record, score, _ = _problem()
    data = Points(torch.from_numpy(truth.data), torch.from_numpy(P))
    move = Move(Points(data.data[:3], torch.tensor([0.2, 0.5, 0.3]).double()), torch.ones(3, 3).double())
    change = 0.4 * move + 0.3 * _toward(truth)
    other = ParameterResponse(score, truth.loss, data, "exact", damping=truth.ridge).direction(change)
    derivative = UnrolledResponse(record).direction(change)
    assert_close(derivative, other, rtol=0, atol=1e-7 * float(other.abs().max()))


def test_equal_examples_share_their_weight():
    """Assert rates by hand for data with a repeated row, zero of either sign, and a move of it."""
    data = torch.tensor([[0.0], [1.0], [-0.0], [2.0]])
    examples = Examples(Points(data, torch.tensor([0.1, 0.4, 0.3, 0.2])), "a response")
    rates, moves = examples.rates(Toward(Points(torch.tensor([[0.0], [2.0]]))))
    assert_close(rates, torch.tensor([0.15, -0.4, -0.05, 0.3]), rtol=1e-6, atol=1e-7)
    assert moves is None
    _, moves = examples.rates(2.0 * Move(torch.tensor([[0.0]]), torch.tensor([[3.0]])))
    assert_close(moves, torch.tensor([[15.0], [0.0], [15.0], [0.0]]), rtol=1e-6, atol=0)


STRANGER = Mixture(torch.tensor([1.0]).double(), torch.zeros(1, 3).double(), torch.eye(3).double()[None])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Toward(Points(torch.zeros(1, 3).double())), "1 of 1 points are no training examples"),
        (Toward(Points(torch.zeros(1, 3).double(), bandwidth=0.1)), "without a bandwidth"),
        (Toward(STRANGER), "a Mixture has none"),
    ],
)
def test_what_a_run_does_not_know_is_refused(change, words):
    """Assert the sentence before anything is computed."""
    _, record, score, latents = _problem()
    with pytest.raises(ValueError, match=words):
        sample_sensitivity(score, latents, change, GRID, response=UnrolledResponse(record))


def test_other_networks_and_other_things_are_refused():
    """Assert the sentences for a score of another network, a class, and an object that is no record."""
    truth, record, _, latents = _problem()
    other = as_score(truth.network(P), "denoiser")
    with pytest.raises(ValueError, match="recorded for another network"):
        sample_sensitivity(other, latents, _toward(truth), GRID, response=UnrolledResponse(record))
    for wrong in (nn.Linear(1, 1), Solved):
        with pytest.raises(TypeError, match="give a recorded training run"):
            UnrolledResponse(wrong)
    shape = Points(torch.zeros(1, 2).double())
    with pytest.raises(ValueError, match="one like the other"):
        UnrolledResponse(record).direction(Toward(shape))
