"""The three ways of meeting points: each against double precision, and the choice between them."""

from __future__ import annotations

import math

import pytest
import torch
from support.close import assert_close

from sensitivity import Points
from sensitivity.measures.distances import kernel
from sensitivity.readings import point_kernels as ways
from sensitivity.readings.point_kernels import Block, Stages

LEVELS = [20.0, 2.0, 0.3, 0.05, 0.01, 0.002]


def _problem(count=60, dimension=30, functionals=2, batch=4):
    """Stages of one level each, states near random points of data of scale ½, near-duplicates included."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    data = 0.5 * normal(count, dimension)
    data[1] = data[0] + 1e-3 * normal(dimension)
    near = data[torch.randint(count, (len(LEVELS), batch), generator=draw)]
    near[:, 0] = data[0]
    sigma = torch.tensor(LEVELS, dtype=torch.float64)
    x = near + sigma[:, None, None] * normal(len(LEVELS), batch, dimension)
    points = Points(data)
    flat, levels = x.flatten(0, 1), sigma.repeat_interleave(batch)
    logs, score = points.log_density_and_score(flat, levels)
    shape = (len(LEVELS), batch)
    cotangents = normal(functionals, *shape, dimension)
    return Stages(x, sigma, score.reshape(*shape, -1), logs.reshape(shape), cotangents), points


def _single(stages):
    return Stages(*(getattr(stages, name).float() for name in ("x", "sigma", "score", "logs", "cotangents")))


def _wanted(stages, points):
    """Σ over stages from `Points.pairing` in double precision."""
    total = 0.0
    for k in range(len(stages.sigma)):
        total = total + torch.stack(
            [
                points.pairing(stages.x[k], stages.sigma[k], stages.score[k], stages.logs[k], mu[k])
                for mu in stages.cotangents
            ]
        )
    return total


def _size(stages, points):
    """max_i r_i |s_i| |μ| per functional and sample: what rounding is relative to, where s_i − s cancels."""
    total = 0.0
    for k in range(len(stages.sigma)):
        gap = points.data - stages.x[k][:, None]
        variance = stages.sigma[k] ** 2
        ratio = (-0.5 * gap.square().sum(2) / variance - stages.logs[k][:, None]).exp()
        ratio = ratio * (2 * torch.pi * variance) ** (-0.5 * gap.shape[2])
        slope = (ratio * gap.norm(dim=2) / variance).amax(1)
        total = total + slope * stages.cotangents[:, k].norm(dim=2)
    return total[..., None]


def _found(stages, points, levels=None):
    stages.choose_ways(points.bandwidth, float(points.data.norm(dim=1).max()))
    return stages.against(Block(points.data.to(stages.x.dtype), points.bandwidth, points.squares))


def test_double_precision_is_exact_in_every_way():
    """Assert 1e-12 of the largest value, over levels from .002 to 20."""
    stages, points = _problem()
    wanted = _wanted(stages, points)
    result = _found(stages, points)
    assert len(set(stages.expanded)) == 2
    assert float(((result - wanted) / wanted.abs().amax(-1, keepdim=True)).abs().max()) < 1e-12


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=[str(level) for level in LEVELS])
def test_single_precision_keeps_three_digits_at_every_level(level):
    """Assert that float32 differs from double precision on the same rounded inputs by 1e-3 of the largest r|s||μ|."""
    whole, points = _problem()
    stages = _single(whole)
    one = Stages(
        stages.x[level : level + 1],
        stages.sigma[level : level + 1],
        stages.score[level : level + 1],
        stages.logs[level : level + 1],
        stages.cotangents[:, level : level + 1],
    )
    rounded = Points(points.data.float().double())
    exact = Stages(*(getattr(one, n).double() for n in ("x", "sigma", "score", "logs", "cotangents")))
    wanted = _wanted(exact, rounded)
    values = _found(one, points).double()
    assert float(((values - wanted) / _size(exact, rounded)).abs().max()) < 1e-3


def test_selecting_and_evaluating_everything_agree(monkeypatch):
    """Assert that the share at which selection stops paying changes nothing beyond single precision."""
    results = []
    for share in (1.0, 0.0):
        monkeypatch.setattr(ways, "SELECTED", share)
        stages, points = _problem()
        results.append(_found(_single(stages), points))
    assert float(((results[1] - results[0]) / _size(*_problem())).abs().max()) < 1e-3


def test_low_noise_selects_and_high_noise_expands():
    """Assert the way taken at each level in single precision: the loss decides."""
    stages, points = _problem()
    single = _single(stages)
    _found(single, points)
    assert single.expanded == [True, True, True, True, False, False]


def test_a_point_far_from_every_state_receives_nothing_and_no_nan():
    """Assert exact zeros where all kernels underflow."""
    single = _single(_problem()[0])
    single.choose_ways(0.0, 1e4)
    far = Block(torch.full((3, 30), 1e3), 0.0, torch.full((3,), 3e7))
    assert_close(single.against(far), torch.zeros(2, 4, 3))


def test_a_halted_sample_receives_nothing():
    """Assert zeros where the log density stands at the mark for nothing and μ and s are zero."""
    stages, points = _problem()
    for stage in (stages, _single(stages)):
        stage.logs[:, 1], stage.score[:, 1], stage.cotangents[:, :, 1] = 1e30, 0.0, 0.0
        assert not bool(_found(stage, points)[:, 1].any())


def test_a_bandwidth_widens_the_kernel():
    """Assert that b² is added to σ² in every way."""
    stages, points = _problem()
    wide = Points(points.data, bandwidth=0.4)
    wanted = _wanted(stages, wide)
    assert_close(_found(stages, wide), wanted, rtol=1e-9, atol=1e-11 * float(wanted.abs().max()))


@pytest.mark.parametrize(("dtype", "lowest"), [(torch.float64, -708.0), (torch.float32, -87.0)])
def test_kernels_below_all_normal_numbers_are_zero(dtype, lowest):
    """Assert that values and derivatives are those of the exponential down to there, and zero below."""
    exponents = torch.linspace(lowest + 0.01, 0.0, 50, dtype=dtype).requires_grad_()
    assert torch.equal(kernel(exponents), exponents.exp())
    assert torch.equal(torch.autograd.grad(kernel(exponents).sum(), exponents)[0], exponents.exp())
    below = torch.tensor([lowest - 1e-3, lowest - 20.0, -1e30, -math.inf], dtype=dtype)
    assert torch.equal(kernel(below), torch.zeros(4, dtype=dtype))
    assert torch.isnan(kernel(torch.tensor([math.nan], dtype=dtype))).all()
