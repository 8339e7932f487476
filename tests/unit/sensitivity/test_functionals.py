"""Ready-made functionals: values, gradients, bad input."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close
from support.engine import SIGMA_MAX, SIGMA_MIN, case

from sensitivity import Grid, influence
from sensitivity.functionals import class_logit, feature_distance, linear, own_log_density, patch


def _images(seed=0):
    return torch.randn(3, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_patch_is_the_mean_of_its_entries():
    """Assert values of a pixel, a patch and a whole channel."""
    x = _images()
    assert_close(patch(0, 1, 2)(x), x[:, 0, 1, 2])
    assert_close(patch(0, slice(1, 3), slice(0, 2))(x), x[:, 0, 1:3, 0:2].mean((1, 2)))
    assert_close(patch(0)(x), x.mean((1, 2, 3)))


def test_linear_logits_and_distances_are_what_they_say():
    """Assert values against their definitions."""
    x = _images()
    weights, target = _images(1)[0], _images(2)[0]
    assert_close(linear(weights)(x), torch.einsum("bijk,ijk->b", x, weights))
    matrix = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_close(class_logit(lambda y: y.flatten(1) @ matrix, 2)(x), (x.flatten(1) @ matrix)[:, 2])
    whole = feature_distance(torch.tanh, target)(x)
    assert_close(whole, (x.tanh() - target.tanh()).square().sum((1, 2, 3)))
    assert_close(feature_distance(torch.tanh, _images(4))(x)[1:2], feature_distance(torch.tanh, _images(4)[1])(x[1:2]))


def test_the_own_log_density_has_the_score_as_gradient():
    """Assert the value of the exact law and the exact gradient, inside `influence` too."""
    problem = case("d2_k3_s0", samples=2)
    x = (problem.latents / SIGMA_MAX).requires_grad_()
    function = own_log_density(problem.score, 0.5, anchor=problem.exact, grid=Grid(SIGMA_MAX, 0.5, 48), solver="rk4")
    value = function(x)
    assert_close(value.detach(), problem.exact.log_density(x.detach(), 0.5), rtol=0, atol=1e-4)
    gradient = torch.autograd.grad(value.sum(), x)[0]
    assert_close(gradient, problem.exact.score(x.detach(), 0.5))
    grid = Grid(SIGMA_MAX, SIGMA_MIN, 5)
    result = own_log_density(problem.score, SIGMA_MIN, anchor=problem.exact)
    influences = influence(
        problem.score, problem.latents, result, torch.zeros(1, 2).double(), grid, anchor=problem.exact
    )
    slope = problem.exact.score(influences.samples, SIGMA_MIN)

    def pulled(y):
        return (slope * y).sum(1)

    wanted = influence(problem.score, problem.latents, pulled, torch.zeros(1, 2).double(), grid, anchor=problem.exact)
    assert_close(influences.values, wanted.values, rtol=1e-10, atol=1e-12)


def test_bad_functionals_say_what_fits():
    """Assert that each error quotes its argument."""
    x = _images()
    bad = [
        (patch(0, 1, 2, 3), "region="),
        (patch(0, slice(2, 2)), "holds no entry"),
        (linear(torch.zeros(3).double()), "weights has shape"),
        (class_logit(lambda y: y, 0), "classifier returns"),
        (class_logit(lambda y: y.flatten(1)[:, :2], 5), "label=5"),
        (feature_distance(torch.tanh, torch.zeros(2).double()), "target has shape"),
    ]
    for function, words in bad:
        with pytest.raises(ValueError, match=words):
            function(x)
    with pytest.raises(ValueError, match="region is empty"):
        patch()
    with pytest.raises(TypeError, match="weights has dtype"):
        linear(torch.zeros(1, 4, 5))(x)
