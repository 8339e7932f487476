"""The derivative of a training run, against runs that are really repeated; records of runs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.close import assert_close

from sensitivity import Grid, Move, Points, Toward, UnrolledResponse, as_score, influence, sample_sensitivity
from studies import data
from studies.cache import Cache
from studies.errors import StudyError
from studies.networks import Architecture
from studies.sampling import sample
from studies.training import Objective, Recipe, train
from studies.training.descent import Adam, Momentum
from studies.training.record import TrainingRecord, record
from studies.training.unrolled import Descent

N = 60
OBJECTIVE = Objective(mean=-0.5, spread=1.5)
SMALL = Recipe(
    Architecture(width=8, depth=2), OBJECTIVE, steps=20, batch=16, warmup=5, halflife=4.0, precision="float64"
)
CONVOLUTIONS = Architecture("unet", width=4, depth=2)


def digits():
    return data.load("digits").images[:N]


def toward_class_three():
    """Rates of the weights toward the uniform law on class 3, (N,), float64."""
    mask = (data.load("digits").labels[:N] == 3).double()
    return mask / mask.sum() - 1 / N


def central(made, rates, step=1e-6):
    """Differences of parameters that were really trained again."""
    weights = torch.full((N,), 1 / N, dtype=torch.float64)
    ends = [made.retrained(weights + sign * step * rates) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


def check_forward(made, tolerance):
    """Fail unless forward mode agrees with differences, relative to the largest entry and in norm."""
    rates = toward_class_three()
    value, wanted = made.parameter_change(rates[None])[0], central(made, rates)
    assert float((value - wanted).norm() / wanted.norm()) < tolerance
    assert float((value - wanted).abs().max() / wanted.abs().max()) < tolerance


def check_transpose(made, tolerance):
    """Fail unless the pass back is the transpose of forward mode for two functionals."""
    torch.manual_seed(0)
    cotangents = torch.randn(2, len(made.theta), dtype=made.theta.dtype)
    rates = torch.stack([toward_class_three(), torch.eye(N, dtype=torch.float64)[7] - 1 / N])
    forward = (cotangents @ made.parameter_change(rates).T).double()
    back = made.pull(cotangents).double() @ (rates + 1 / N).T
    assert_close(back, forward, rtol=0, atol=tolerance * float(forward.abs().max()))


RULES = {"adam": Adam(), "adamw": Adam(decay=0.1, inner=1e-6), "momentum": Momentum(0.8, 0.01), "descent": Momentum()}


@pytest.mark.parametrize("name", RULES)
def test_a_run_moves_as_runs_that_are_repeated(name):
    """Assert 1e-6 of central differences on the digits in float64, and the transpose to rounding."""
    made = record(SMALL, digits(), seed=1, rule=RULES[name])
    check_forward(made, 1e-6)
    check_transpose(made, 1e-12)


def test_a_recorded_run_is_the_trainers_own():
    """Assert the parameters of `train` to rounding: same seed, order, noise, Adam, rates and averages."""
    trained = train(SMALL, digits(), seed=4).network
    made = record(SMALL, digits(), seed=4)
    assert_close(made.theta, torch.cat([p.flatten() for p in trained.parameters()]), rtol=0, atol=1e-13)


def test_other_architectures_objectives_and_weights_are_differentiated():
    """Assert the same for a convolutional network, a transformer, sliced score matching, and unequal weights."""
    short = dataclasses.replace(SMALL, steps=5, batch=8)
    torch.manual_seed(2)
    weights = torch.rand(N, dtype=torch.float64) + 0.5
    # Gates that start at zero leave gradients near ε, where plain Adam's step bends within differences.
    attention = Architecture("transformer", width=8, depth=1, heads=2)
    for architecture, rule in ((CONVOLUTIONS, Adam()), (attention, Adam(inner=1e-6))):
        made = record(dataclasses.replace(short, architecture=architecture), digits(), seed=2, rule=rule)
        check_forward(made, 1e-6)
        check_transpose(made, 1e-12)
    sliced = Objective("sliced", "levels", low=0.2, high=2.0, count=3)
    made = record(dataclasses.replace(short, objective=sliced), digits(), seed=2, weights=weights)
    rates = torch.eye(N, dtype=torch.float64)[3] - weights / weights.sum()
    ends = [made.retrained(weights / weights.sum() + h * rates) for h in (1e-6, -1e-6)]
    assert_close(made.parameter_change(rates[None])[0], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("rule", "error"), [(Adam(), 1e-2), (Adam(inner=1e-6), 1e-5), (Momentum(0.8), 1e-5)])
def test_single_precision_keeps_what_rounding_allows(rule, error):
    """Assert how far float32 agrees with float64 on the same convolutional run: Adam's step is a quotient of sizes that
    both may be small, and its rounding grows through the run (measured 3e-3 without a floor ε₀ under
    the root, 2e-6 with it)."""
    recipe = dataclasses.replace(SMALL, architecture=CONVOLUTIONS, steps=12, batch=8)
    single = record(dataclasses.replace(recipe, precision="float32"), digits(), seed=1, rule=rule)
    double = record(recipe, digits(), seed=1, rule=rule, start=single.network_at(single.saved[0][0]).double())
    rates = toward_class_three()[None]
    value, wanted = (made.parameter_change(rates)[0].double() for made in (single, double))
    assert float((value - wanted).norm() / wanted.norm()) < error
    check_transpose(single, 1e-4)


def test_displaced_data_move_the_run():
    """Assert central differences of runs on data that are moved, through the engine's own words for it."""
    made = record(SMALL, digits(), seed=1)
    pool = made.descent.pool
    shift = torch.zeros_like(pool)
    shift[5:9] = torch.linspace(-1, 1, 4 * 64, dtype=torch.float64).reshape(4, 1, 8, 8)
    derivative = UnrolledResponse(made).direction(4 / N * Move(Points(pool[5:9]), shift[5:9]))
    ends = []
    for step in (1e-6, -1e-6):
        moved = dataclasses.replace(made.descent, pool=pool + step * shift)
        ends.append(moved.forward(made.saved[0][0])[0])
    wanted = (ends[0] - ends[1]) / 2e-6
    assert float((derivative - wanted).norm() / wanted.norm()) < 1e-6


def test_samples_move_as_those_of_networks_that_are_trained_again():
    """Assert sensitivities and influences of the engine against samples of networks really trained again."""
    made = record(SMALL, digits(), seed=1)
    pool, grid = made.descent.pool, Grid(10.0, 0.1, 6)
    torch.manual_seed(3)
    latents = 10 * torch.randn(3, 1, 8, 8, dtype=torch.float64)
    score, response = as_score(made.module, "denoiser"), UnrolledResponse(made)
    change = Toward(Points(pool[data.load("digits").labels[:N] == 3]))
    result = sample_sensitivity(score, latents, change, grid, response=response)
    weights = torch.full((N,), 1 / N, dtype=torch.float64)
    ends = [
        sample(as_score(made.network_at(made.retrained(weights + h * toward_class_three())), "denoiser"), latents, grid)
        for h in (1e-6, -1e-6)
    ]
    wanted = (ends[0] - ends[1]) / 2e-6
    assert_close(result.sensitivity, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    values = influence(score, latents, lambda x: x.flatten(1).mean(1), Points(pool), grid, response=response).values
    ink = result.sensitivity.flatten(1).mean(1)
    assert_close(values @ (toward_class_three() + 1 / N), ink, rtol=0, atol=1e-11 * float(ink.abs().max()))
    assert_close(values.sum(1), torch.zeros(3).double(), rtol=0, atol=1e-10 * float(values.abs().max()))


@pytest.mark.parametrize("fault", ["average", "second moment"])
def test_planted_faults_are_caught(fault, monkeypatch):
    """Assert that the checks above fail if tangents skip the average, or Adam's second moment is held fixed."""
    made = record(SMALL, digits(), seed=1)
    if fault == "average":
        right = Descent._pulled
        monkeypatch.setattr(Descent, "_pulled", lambda self, *a: (0.9 * right(self, *a)[0], right(self, *a)[1]))
        with pytest.raises(AssertionError):
            check_transpose(made, 1e-12)
        return
    along = Descent._along

    def held(self, state, gradient, step):
        inner = along(self, state, gradient, step)
        return lambda tangent, moved: (*inner((*tangent[:2], 0 * tangent[2]), moved)[:2], 0 * tangent[2])

    monkeypatch.setattr(Descent, "_along", held)
    with pytest.raises(AssertionError):
        check_forward(made, 1e-6)


@pytest.mark.parametrize("keep", [1, 7, 100])
def test_checkpoints_do_not_change_the_derivative(keep):
    """Assert the same values for every spacing of checkpoints."""
    cotangents = torch.ones(1, 1)
    made, other = record(SMALL, digits(), seed=1), record(SMALL, digits(), seed=1, keep=keep)
    cotangents = torch.ones_like(made.theta)[None]
    assert sorted(other.saved)[-1] == 20
    assert_close(other.pull(cotangents), made.pull(cotangents), rtol=1e-13, atol=1e-13)


def test_records_are_saved_whole_and_refused_when_damaged(tmp_path):
    """Assert bits after loading, and sentences for a damaged file, an absent one, and other data."""
    made = record(SMALL, digits(), seed=1, rule=Momentum(0.5))
    path = tmp_path / "folder" / "run.record"
    made.save(path)
    again = TrainingRecord.load(path, made.descent.pool)
    cotangents = torch.ones_like(made.theta)[None]
    assert torch.equal(again.pull(cotangents), made.pull(cotangents))
    assert torch.equal(again.module(digits()[:1].double(), 0.5), made.module(digits()[:1].double(), 0.5))
    with pytest.raises(ValueError, match="data differ"):
        TrainingRecord.load(path, made.descent.pool[1:])
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StudyError, match="damaged or no record"):
        TrainingRecord.load(path, made.descent.pool)
    with pytest.raises(StudyError, match="cannot be read"):
        TrainingRecord.load(tmp_path / "none", made.descent.pool)


def test_records_are_found_again_in_a_cache(tmp_path, monkeypatch):
    """Assert that a second call reads, and that another seed does not."""
    cache = Cache(tmp_path)
    first = record(SMALL, digits(), seed=1, cache=cache)
    runs = []
    right = Descent.forward
    monkeypatch.setattr(Descent, "forward", lambda self, *a: runs.append(1) or right(self, *a))
    assert torch.equal(record(SMALL, digits(), seed=1, cache=cache).theta, first.theta)
    assert not runs
    record(SMALL, digits(), seed=2, cache=cache)
    assert runs == [1]


def test_a_record_that_does_not_belong_to_its_data_is_refused():
    """Assert that states that are not met again on the way back raise, rather than give another run's derivative."""
    made = record(SMALL, digits(), seed=1)
    wrong = dataclasses.replace(made, descent=dataclasses.replace(made.descent, pool=made.descent.pool + 0.01))
    with pytest.raises(RuntimeError, match="record the run again here"):
        wrong.pull(torch.ones_like(made.theta)[None])


def test_bad_input_is_refused():
    """Assert sentences for a coarse precision, weights, spacing and rules that do not fit."""
    with pytest.raises(ValueError, match="bfloat16"):
        record(dataclasses.replace(SMALL, precision="bfloat16"), digits())
    with pytest.raises(ValueError, match="weights must be 60"):
        record(SMALL, digits(), weights=-torch.ones(N))
    with pytest.raises(ValueError, match="keep=0"):
        record(SMALL, digits(), keep=0)
    with pytest.raises(ValueError, match="second < 1"):
        Adam(second=1.0)
    with pytest.raises(ValueError, match="momentum < 1"):
        Momentum(1.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        record(dataclasses.replace(SMALL, rate=1e300, warmup=0), digits(), rule=Momentum())
