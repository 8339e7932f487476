"""Every long call says how far it is, and that alone."""

import pytest
import torch

from sensitivity import (
    Formula,
    GaussianAnchor,
    Grid,
    Groups,
    Points,
    Toward,
    counterfactual,
    group_values,
    influence,
    log_density,
    log_density_ratio,
    record,
    resample,
    sample,
    sample_sensitivity,
)
from sensitivity.progress import Progress

DATA = torch.tensor([[-1.0, 0.2], [-1.2, 0.0], [1.0, -0.1], [1.2, 0.3]], dtype=torch.float64)
LAW = Points(DATA, bandwidth=0.3)
NEW = Toward(Points(DATA[:1], bandwidth=0.3))
GRID = Grid(10.0, 0.2, 6)
LATENTS = 10 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GROUPS = Groups(LAW, {"left": [0], "right": [2]})
OTHER = GaussianAnchor(torch.zeros(2).double(), 1.0)
GAUSSIAN = GaussianAnchor(torch.ones(2).double(), 1.0)


def right(x):
    return x[:, 0]


def density(method, **options):
    def call(**known):
        return log_density(OTHER.score, LATENTS / 10, 0.5, anchor=OTHER, method=method, seed=0, **options, **known)

    return call


CALLS = {
    "sample": (lambda **known: sample(LAW.score, LATENTS, GRID, chunk_size=2, **known), 30),
    "denoised": (lambda **known: sample(LAW.score, LATENTS, GRID, denoise=True, **known), 35),
    "sde": (lambda **known: sample(LAW.score, LATENTS, GRID, solver="sde", seed=0, **known), 30),
    "sensitivity": (
        lambda **known: sample_sensitivity(LAW.score, LATENTS, NEW, GRID, anchor=LAW, chunk_size=3, **known),
        30,
    ),
    "resample": (lambda **known: resample(LAW.score, LATENTS, NEW, 0.1, GRID, anchor=LAW, **known), 30),
    "influence": (
        lambda **known: influence(LAW.score, LATENTS, right, DATA, GRID, anchor=LAW, chunk_size=2, **known),
        60,
    ),
    "record": (lambda **known: record(LAW.score, LATENTS, right, GRID, anchor=LAW, denoise=True, **known), 70),
    "flow": (density("flow", grid=Grid(10.0, 0.5, 8)), 40),
    "formula": (density("formula", grid=Grid(10.0, 0.5, 8), evaluations=128, formula=Formula(replicates=4)), 20),
    "tolerance": (density("formula", grid=Grid(10.0, 0.5, 8), evaluations=256, tolerance=0.5), 80),
    "ratio": (
        lambda **known: log_density_ratio(
            GAUSSIAN.score, OTHER.score, LATENTS / 10, 0.5, new_anchor=GAUSSIAN, anchor=OTHER, grid=GRID, **known
        ),
        None,
    ),
    "counterfactual": (lambda **known: counterfactual(LAW.score, LATENTS, GROUPS, GRID, anchor=LAW, **known), 3),
    "first order": (
        lambda **known: counterfactual(LAW.score, LATENTS, GROUPS, GRID, anchor=LAW, form="first", **known),
        1,
    ),
    "coalitions": (
        lambda **known: group_values(LAW.score, LATENTS, GROUPS, GRID, right, anchor=LAW, permutations=None, **known),
        4,
    ),
    "orders": (
        lambda **known: group_values(LAW.score, LATENTS, GROUPS, GRID, right, anchor=LAW, permutations=2, **known),
        None,
    ),
    "leave-out": (
        lambda **known: group_values(LAW.score, LATENTS, GROUPS, GRID, right, anchor=LAW, kind="leave-out", **known),
        3,
    ),
}


def values_of(result):
    fields = ("value", "values", "sensitivity", "samples")
    return next(getattr(result, name) for name in fields if getattr(result, name, None) is not None)


@pytest.mark.parametrize("name", CALLS)
def test_every_call_ends_where_it_said(name):
    call, total = CALLS[name]
    told = []
    spoken = values_of(call(progress=lambda *numbers: told.append(numbers)))
    done = [numbers[0] for numbers in told]
    totals = {numbers[1] for numbers in told}
    assert done == sorted(set(done))
    assert totals == {done[-1]}
    assert total in (None, done[-1])
    assert all(rate > 0 and left >= 0 for _, _, rate, left in told)
    assert told[-1][3] == 0
    assert torch.equal(spoken, values_of(call()))  # whoever listens changes nothing


@pytest.mark.parametrize("name", CALLS)
def test_another_word_is_one_sentence(name):
    with pytest.raises(TypeError, match="progress='yes' is a str: give True, False or a function"):
        CALLS[name][0](progress="yes")


def test_one_line_on_standard_error(capsys):
    sample(LAW.score, LATENTS, GRID, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("s left \n")
    assert printed.err.count("\r") == 6
    assert printed.err.startswith("\r5 of 30 steps, ")


def test_an_interrupted_call_has_said_how_far_it_came():
    told = []

    def stop(done, *_):
        told.append(done)
        if done >= 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(LAW.score, LATENTS, GRID, progress=stop)
    assert told == [5, 10, 15]


def test_what_was_there_before_says_nothing_of_the_rate():
    told = []
    progress = Progress.of(4, lambda *numbers: told.append(numbers))
    progress.add(2, reused=True)
    assert told[0][2] == 0
    assert told[0][3] == 0
    assert list(progress.over("ab")) == ["a", "b"]
    assert told[-1][0] == 4
    assert told[-1][2] > 0
