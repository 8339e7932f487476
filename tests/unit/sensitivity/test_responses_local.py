"""What a machine of patches answers, against loops over pixels, the kernel ratio and finite mass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close

from sensitivity import (
    Grid,
    LocalResponse,
    Mixture,
    Move,
    Points,
    Remove,
    Toward,
    as_score,
    influence,
    resample,
    sample_sensitivity,
    score_derivative,
)
from sensitivity.responses import patches

SHAPE = (2, 4, 5)
GRID = Grid(3.0, 0.3, 6)
WIDTH = 0.3


def _draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


DATA = 0.7 * _draw(9, *SHAPE) + torch.linspace(-0.5, 0.8, 5, dtype=torch.float64)
LAW = Points(DATA, torch.linspace(0.5, 2.0, 9, dtype=torch.float64), bandwidth=WIDTH)
NEW = Points(DATA[:3] + 0.2, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), bandwidth=WIDTH)
LATENTS = 3 * _draw(4, *SHAPE, seed=1)


def _network(x, sigma):
    """Some other score: its products transport what the machine answers."""
    level = sigma if sigma.ndim == 0 else sigma.reshape(-1, 1, 1, 1)
    return (torch.sin(x) - 0.5 * x.roll(1, -1)) / (1 + level**2)


def _curved(x):
    return x.flatten(1).square().sum(1) + x.flatten(1)[:, 0]


def _wavy(x):
    return torch.sin(x.flatten(1)).sum(1)


def _looped(x, points, side, variance):
    """Z_u and D_u of one state by loops over pixels, points and patches."""
    _, height, width = x.shape
    total, mean = torch.zeros(height, width, dtype=x.dtype), torch.zeros_like(x)
    reach = side // 2
    for row in range(height):
        for column in range(width):
            for weight, y in zip(points.weights, points.data, strict=True):
                distance = 0.0
                for r in range(row - reach, row + reach + 1):
                    for c in range(column - reach, column + reach + 1):
                        if 0 <= r < height and 0 <= c < width:
                            distance += float((x[:, r, c] - y[:, r, c]).square().sum())
                k = float(weight) * math.exp(-distance / (2 * variance))
                total[row, column] += k
                mean[:, row, column] += k * y[:, row, column]
    return total, mean / total


def check_source(side, states=2):
    """Fail unless ṡ equals r_u (D^ν_u − D_u)/τ² with both machines by loops."""
    response, sigma = LocalResponse(LAW, side), torch.tensor(0.7, dtype=torch.float64)
    x = _draw(states, *SHAPE, seed=2)
    value = response._sources(response.sizes(_network, GRID), [Toward(NEW)], x, sigma)[0]
    variance = 0.7**2 + WIDTH**2
    for state, source in zip(x, value, strict=True):
        base, mean = _looped(state, LAW, side, variance)
        new, other = _looped(state, NEW, side, variance)
        wanted = (new / base) * (other - mean) / variance
        assert_close(source, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("side", [1, 3, 5, 9])
def test_the_source_is_that_of_loops_over_patches(side):
    """Assert agreement to rounding, channels and borders included."""
    check_source(side)


def test_a_planted_shift_of_the_patch_is_caught(monkeypatch):
    """Assert that a patch one pixel off its centre fails the check above."""
    right = patches._band
    monkeypatch.setattr(patches, "_band", lambda length, side: right(length, side).roll(1, 1))
    with pytest.raises(AssertionError):
        check_source(3)


def test_whole_images_give_the_kernel_ratio_back():
    """Assert ṡ = r (s^ν − s^ρ) with kernel densities, and the population's sensitivities on the data's own law."""
    response, x = LocalResponse(LAW, "whole"), _draw(3, *SHAPE, seed=3)
    value = response._sources(response.sizes(LAW.score, GRID), [Toward(NEW)], x, torch.tensor(0.7).double())[0]
    wanted = score_derivative(LAW.score, x, float(torch.tensor(0.7)), Toward(NEW), log_density=LAW)
    assert_close(value, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    near = Grid(3.0, 0.3, 100)
    local = sample_sensitivity(LAW.score, LATENTS, Toward(NEW), near, response=response, products="double-vjp")
    flow = sample_sensitivity(
        LAW.score, LATENTS, Toward(NEW), near, anchor=LAW, trace="exact", solver="rk4", products="double-vjp"
    )
    # The flow carries log p by its own integration: the two agree to the order of the grids.
    scale = float(flow.sensitivity.abs().max())
    assert float((local.sensitivity - flow.sensitivity).abs().max()) < 2e-3 * scale


def test_the_sensitivity_is_the_derivative_of_finite_mass():
    """Assert central differences of resample, which uses D^η itself, toward and away, single and together."""
    response = LocalResponse(LAW, 3)
    changes = [Toward(NEW), Remove(Points(DATA[4:6], bandwidth=WIDTH))]
    both = sample_sensitivity(_network, LATENTS, changes, GRID, response=response).sensitivity
    step = 1e-6
    for k, masses in enumerate(([step, 0.0], [0.0, step])):
        ends = [
            resample(_network, LATENTS, changes, [s * m for m in masses], GRID, response=response, chunk_size=3)
            for s in (1, -1)
        ]
        slope = (ends[0].samples - ends[1].samples) / (2 * step)
        # The differences err by (step · r)², and a pixel's ratio r may be in the hundreds.
        assert_close(both[k], slope, rtol=0, atol=1e-5 * float(both[k].abs().max()))


def test_finite_mass_is_the_machine_of_the_mixed_points():
    """Assert that the shifted score is that of a machine built on (1 − η) ρ + η ν, for another η at each latent."""
    response, x = LocalResponse(LAW, 3), _draw(2, *SHAPE, seed=4)
    etas, sigma = torch.tensor([0.1, 0.6], dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    score = response.finite(_network, [Toward(NEW)], [etas], GRID)(slice(0, 2))
    values = score(x, sigma) - _network(x, sigma)
    for state, eta, shift in zip(x, etas, values, strict=True):
        weights = torch.cat([(1 - eta) * LAW.weights, eta * NEW.weights])
        mixed = Points(torch.cat([LAW.data, NEW.data]), weights, bandwidth=WIDTH)
        variance = 0.7**2 + WIDTH**2
        wanted = (_looped(state, mixed, 3, variance)[1] - _looped(state, LAW, 3, variance)[1]) / variance
        assert_close(shift, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("solver", ["euler", "heun", "sde"])
def test_influence_is_the_transpose_of_the_sensitivity(solver):
    """Assert the identity to rounding for points of the data and others, two functionals, denoised."""
    response = LocalResponse(LAW, {3.0: 5, 1.0: 3, 0.3: 1})
    points = Points(torch.cat([DATA[:2], _draw(2, *SHAPE, seed=5)]), bandwidth=WIDTH)
    options = {"grid": GRID, "solver": solver, "denoise": True, "seed": 3, "response": response}
    single = [Toward(Points(row[None], bandwidth=WIDTH)) for row in points.data]
    forward = sample_sensitivity(_network, LATENTS, single, **options)
    influences = influence(_network, LATENTS, [_curved, _wavy], points, **options)
    for k, function in enumerate((_curved, _wavy)):
        x = forward.samples.detach().requires_grad_()
        gradient = torch.autograd.grad(function(x).sum(), x)[0]
        wanted = (forward.sensitivity * gradient).flatten(2).sum(2).T
        assert_close(influences.values[k], wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_influences_of_the_data_sum_to_zero():
    """Assert Σ_i w_i values_i = 0 for the machine's own points."""
    influences = influence(_network, LATENTS, _curved, LAW, GRID, response=LocalResponse(LAW, 3))
    scale = float(influences.values.abs().max())
    zero = torch.zeros(4, dtype=torch.float64)
    assert_close(influences.values @ LAW.weights, zero, rtol=0, atol=1e-12 * scale)


def test_blocks_of_points_and_chunks_change_nothing(monkeypatch):
    """Assert independence of how points and latents are cut."""
    response, options = LocalResponse(LAW, 3), {"grid": GRID, "response": LocalResponse(LAW, 3)}
    whole = sample_sensitivity(_network, LATENTS, Toward(NEW), **options).sensitivity
    pointwise = influence(_network, LATENTS, _wavy, LAW, **options).values
    monkeypatch.setattr(patches, "NUMBERS", 330)
    options = {"grid": GRID, "response": response, "chunk_size": 3}
    cut = sample_sensitivity(_network, LATENTS, Toward(NEW), **options).sensitivity
    assert_close(cut, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))
    other = influence(_network, LATENTS, _wavy, LAW, **options).values
    assert_close(other, pointwise, rtol=0, atol=1e-12 * float(pointwise.abs().max()))


def _images(count, seed=0):
    """Images of 28×28, low rank plus noise, smooth."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 2 * np.pi, 28)
    factors = np.stack([np.outer(np.cos(a * grid), np.sin(b * grid + a)) for a in range(3) for b in (1, 2)])
    images = np.tensordot(rng.standard_normal((count, 6)) * [1.0, 0.8, 0.6, 0.5, 0.4, 0.3], factors, 1)
    return torch.from_numpy((images + 0.05 * rng.standard_normal(images.shape))[:, None])


def test_image_size_against_loops_at_some_pixels_in_both_precisions():
    """Assert D and Z at d = 784 at a corner, an edge and inside; float32 to 1e-4 of the largest."""
    data, side, sigma = _images(30), 7, 0.4
    x = data[:1] + 0.4 * _draw(1, 1, 28, 28)
    law, new = Points(data), Points(data[:4])
    values = []
    for dtype in (torch.float64, torch.float32):
        response = LocalResponse(law.to(dtype), side)
        level = torch.tensor(sigma, dtype=dtype)
        sizes = response.sizes(_network, GRID)
        values.append(response._sources(sizes, [Toward(new.to(dtype))], x.to(dtype), level)[0])
    for row, column in ((0, 0), (0, 13), (14, 9), (27, 20)):
        window = (slice(max(0, row - 3), row + 4), slice(max(0, column - 3), column + 4))
        kernels = (-(data[:, 0][:, *window] - x[0, 0][window]).square().sum((1, 2)) / (2 * sigma**2)).exp()
        value = data[:, 0, row, column]
        mean, other = (kernels @ value) / kernels.sum(), (kernels[:4] @ value[:4]) / kernels[:4].sum()
        wanted = (kernels[:4].mean() / kernels.mean()) * (other - mean) / sigma**2
        assert_close(values[0][0, 0, row, column], wanted, rtol=1e-10, atol=1e-12)
    assert float((values[1] - values[0]).abs().max() / values[0].abs().max()) < 1e-4


def test_calibration_finds_the_patches_of_a_local_machine():
    """Assert that a network that is a machine with 3 and 7 pixels is found out from held-out states, and its cost."""
    data, levels = _images(40), Grid(2.0, 0.25, 4)
    law = Points(data)
    planted = LocalResponse(law, {2.0: 7, 0.25: 3})
    sizes = planted.sizes(None, levels)

    def score(x, sigma):
        sigma = sigma.reshape(-1)[0]
        local = patches.machine(sizes, law, sigma)
        return (patches.upright(local.denoised(law, x).mean) - x) / sigma**2

    response = LocalResponse(law, levels=4, states=5, held_out=_images(5, seed=1))
    sides = response.calibration(score, levels)
    assert sides.chosen == (7, 7, 3, 3)
    assert float(sides.attained.max()) < 1e-20
    assert response.calibration(score, levels) is sides
    assert response.evaluations == 20
    result = LocalResponse(law, levels=4, states=5).calibration(score, levels)
    # A state's own point plays no part in the machine, but does in the network: nothing agrees exactly any more.
    assert result.sizes == sides.sizes
    assert 1e-6 < float(result.attained.min()) < float(result.distances.max())


def test_calibrated_patches_serve_a_run():
    """Assert that a run calibrates once and equals one with the chosen sides given."""
    response = LocalResponse(LAW, levels=3, states=4)
    result = sample_sensitivity(_network, LATENTS, Toward(NEW), GRID, response=response)
    chosen = response.calibration(_network, GRID)
    given = LocalResponse(LAW, dict(zip(chosen.levels, chosen.chosen, strict=True)))
    again = sample_sensitivity(_network, LATENTS, Toward(NEW), GRID, response=given)
    assert_close(again.sensitivity, result.sensitivity)
    assert (result.cost.away, again.cost.away) == (12, 0)
    assert result.cost.evaluations == again.cost.evaluations == 12


def test_a_convolutional_network_is_told_of_its_responses():
    """Assert that the outcome ends with the recommendation for the default response alone."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(2, 2, 3, padding=1).double()
    layer.forward = lambda x, sigma: torch.nn.functional.conv2d(x, layer.weight, padding=1)
    score = as_score(layer, "noise")
    default = sample_sensitivity(score, LATENTS, Toward(NEW), GRID, anchor=LAW, seed=0)
    assert "convolutional" in default.outcome.sentence
    assert "LocalResponse(...)" in influence(score, LATENTS, _wavy, NEW, GRID, anchor=LAW, seed=0).outcome.sentence
    local = sample_sensitivity(score, LATENTS, Toward(NEW), GRID, response=LocalResponse(LAW, 3))
    assert "convolutional" not in local.outcome.sentence


def test_what_does_not_apply_is_refused_in_words():
    """Assert that each refusal says what to do."""
    response = LocalResponse(LAW, 3)
    gauss = Mixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None])
    run = sample_sensitivity
    cases = [
        (lambda: LocalResponse(torch.zeros(3, 4)), ValueError, "patches are parts of images"),
        (lambda: LocalResponse(LAW, 4), ValueError, "patch=4 has no centre pixel"),
        (lambda: LocalResponse(LAW, "wide"), ValueError, "patch='wide' is unknown"),
        (lambda: LocalResponse(LAW, {0.0: 3}), ValueError, "no noise levels"),
        (lambda: LocalResponse(LAW, {}), ValueError, "has no centre pixel"),
        (lambda: LocalResponse(LAW, levels=0), ValueError, "levels = 0"),
        (lambda: LocalResponse(LAW, held_out=torch.zeros(1, 3)), ValueError, "held_out has shape"),
        (
            lambda: run(_network, LATENTS, Move(LAW, DATA), GRID, response=response),
            ValueError,
            "Move has no patch-local form",
        ),
        (lambda: run(_network, LATENTS, Toward(gauss), GRID, response=response), ValueError, "is a Mixture without"),
        (lambda: run(_network, LATENTS, Toward(Points(DATA)), GRID, response=response), ValueError, "bandwidth=0.0"),
        (
            lambda: influence(_network, LATENTS, _wavy, DATA, GRID, response=response),
            ValueError,
            "bandwidth=0.0 differs",
        ),
        (
            lambda: resample(_network, LATENTS, Toward(NEW), [0.1, 0.2], GRID, response=response),
            ValueError,
            "eta has shape",
        ),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()


def test_mass_that_is_not_there_is_marked():
    """Assert that removing more than a pixel's whole mass ends in a stated outcome."""
    resampled = resample(_network, LATENTS, Remove(NEW), -0.9, GRID, response=LocalResponse(LAW, 3))
    assert "non-finite score" in resampled.outcome.sentence
