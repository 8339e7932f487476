"""Contracts: what every measure and every score must do, held against a dense oracle.

A test class inherits a contract and supplies two methods: the object, and the oracle law that it stands for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles.mixture import GaussianMixture
from support.close import assert_close

LEVELS = (1e-2, 0.3, 2.0, 50.0)


def states(law: GaussianMixture, sigma: float, count: int = 6, seed: int = 3) -> np.ndarray:
    """States of the noised law, in turn stretched fourfold, so that tails are met too."""
    x = law.noised(sigma).sample(count, seed)
    return np.where(np.arange(count)[:, None] % 2, x, law.mean + 4 * (x - law.mean))


class _Contract:
    shape: tuple[int, ...]

    def law(self) -> GaussianMixture:
        """The oracle law, NumPy float64, over the flattened entries."""
        raise NotImplementedError

    def states(self, sigma: float, count: int = 6) -> tuple[np.ndarray, Tensor]:
        """The same states for the oracle, `(count, d)`, and for the engine, `(count, *shape)`."""
        flat = states(self.law(), sigma, count)
        return flat, torch.from_numpy(flat.copy()).reshape(count, *self.shape)

    def directions(self, x: Tensor, seed: int) -> Tensor:
        """A random tangent like `x`."""
        return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))


class ScoreContract(_Contract):
    """`score(x, sigma)` in variance-exploding coordinates; subclasses supply `score()`, `law()` and `shape`."""

    shape: tuple[int, ...] = (3,)
    levels: tuple[float, ...] = LEVELS
    rtol = 1e-9
    differentiable = True

    def score(self) -> Any:
        """The score under test."""
        raise NotImplementedError

    def truth(self, x: np.ndarray, sigma: float) -> Tensor:
        """The oracle's score, in the engine's shape."""
        return torch.from_numpy(self.law().noised(sigma).score(x)).reshape(len(x), *self.shape)

    def test_score_is_that_of_the_noised_law(self) -> None:
        """Assert that the score equals the oracle's at every level."""
        score = self.score()
        for sigma in self.levels:
            flat, x = self.states(sigma)
            truth = self.truth(flat, sigma)
            assert_close(score(x, torch.tensor(sigma, dtype=x.dtype)), truth, rtol=self.rtol, atol=self.rtol / sigma)

    def test_level_may_be_given_for_each_sample(self) -> None:
        """Assert that a vector of levels gives each sample what its own level gives it."""
        score, x = self.score(), self.states(1.0, len(self.levels))[1]
        levels = torch.tensor(self.levels, dtype=x.dtype)
        together = score(x, levels)
        for i, sigma in enumerate(levels):
            assert_close(together[i : i + 1], score(x[i : i + 1], sigma), rtol=1e-10, atol=1e-10)

    def test_samples_do_not_see_their_batch(self) -> None:
        """Assert that a sample's score is the same alone, in the batch and in another order."""
        score, (_, x) = self.score(), self.states(0.3)
        sigma, order = torch.tensor(0.3, dtype=x.dtype), torch.tensor([3, 1, 0, 5, 4, 2])
        together = score(x, sigma)
        assert_close(score(x[order], sigma), together[order], rtol=1e-10, atol=1e-10)
        assert_close(torch.cat([score(row[None], sigma) for row in x]), together, rtol=1e-10, atol=1e-10)

    def test_forward_product_is_that_of_the_noised_law(self) -> None:
        """Assert that the Jacobian product by forward mode equals the oracle's."""
        if not self.differentiable:
            return
        score, (flat, x) = self.score(), self.states(0.3)
        sigma, tangent = torch.tensor(0.3, dtype=x.dtype), self.directions(x, 1)
        product = torch.func.jvp(lambda state: score(state, sigma), (x,), (tangent,))[1]
        truth = self.law().noised(0.3).score_jacobian_product(flat, tangent.flatten(1).numpy())
        assert_close(product, torch.from_numpy(truth).reshape(x.shape), rtol=100 * self.rtol, atol=100 * self.rtol)

    def test_dtype_of_the_states_is_kept(self) -> None:
        """Assert that float32 states give a float32 score near the float64 one."""
        score, (_, x) = self.score(), self.states(0.3)
        value = score(x.float(), torch.tensor(0.3))
        assert_close(value, score(x, torch.tensor(0.3, dtype=x.dtype)).float(), rtol=1e-3, atol=1e-3)


class MeasureContract(ScoreContract):
    """A measure; subclasses supply `measure(dtype)`, `law()` and `shape`."""

    def measure(self, dtype: torch.dtype = torch.float64) -> Any:
        """The measure under test."""
        raise NotImplementedError

    def score(self) -> Any:
        """The score of the measure at the dtype of the states."""
        return lambda x, sigma: self.measure(x.dtype).score(x, sigma)

    def test_log_density_is_that_of_the_noised_law(self) -> None:
        """Assert that the log density equals the oracle's at every level."""
        for sigma in self.levels:
            flat, x = self.states(sigma)
            truth = torch.from_numpy(self.law().noised(sigma).log_density(flat))
            assert_close(self.measure().log_density(x, sigma), truth, rtol=self.rtol, atol=self.rtol)

    def test_both_at_once_are_the_two_alone(self) -> None:
        """Assert that the pass for both gives exactly each."""
        measure, (_, x) = self.measure(), self.states(0.3)
        log_density, score = measure.log_density_and_score(x, 0.3)
        assert_close(log_density, measure.log_density(x, 0.3), rtol=1e-14, atol=1e-13)
        assert_close(score, measure.score(x, 0.3), rtol=1e-14, atol=1e-13)

    def test_score_product_is_that_of_the_noised_law(self) -> None:
        """Assert that the closed-form product equals the oracle's at every level."""
        for sigma in self.levels:
            flat, x = self.states(sigma)
            tangent = self.directions(x, 2)
            truth = self.law().noised(sigma).score_jacobian_product(flat, tangent.flatten(1).numpy())
            product = self.measure().score_product(x, sigma, tangent)
            scale = max(1.0, float(np.abs(truth).max()))
            assert_close(product, torch.from_numpy(truth).reshape(x.shape), rtol=self.rtol, atol=self.rtol * scale)

    def test_score_product_is_symmetric(self) -> None:
        """Assert that `u·(∇s v) = v·(∇s u)`."""
        measure, (_, x) = self.measure(), self.states(0.3)
        u, v = self.directions(x, 3), self.directions(x, 4)
        left = (u * measure.score_product(x, 0.3, v)).flatten(1).sum(1)
        right = (v * measure.score_product(x, 0.3, u)).flatten(1).sum(1)
        assert_close(left, right, rtol=1e-10, atol=1e-10)

    def test_score_is_the_gradient_of_the_log_density(self) -> None:
        """Assert that autograd through the log density gives the score."""
        measure, (_, x) = self.measure(), self.states(0.3)
        gradient = torch.func.grad(lambda state: measure.log_density(state, 0.3).sum())(x)
        assert_close(gradient, measure.score(x, 0.3), rtol=1e-8, atol=1e-8)

    def test_log_density_takes_a_level_for_each_sample(self) -> None:
        """Assert that a vector of levels gives each sample what its own level gives it."""
        measure, x = self.measure(), self.states(1.0, len(self.levels))[1]
        levels = torch.tensor(self.levels, dtype=x.dtype)
        together, tangent = measure.log_density(x, levels), self.directions(x, 5)
        product = measure.score_product(x, levels, tangent)
        for i, sigma in enumerate(self.levels):
            row = slice(i, i + 1)
            assert_close(together[row], measure.log_density(x[row], sigma), rtol=1e-10, atol=1e-10)
            alone = measure.score_product(x[row], sigma, tangent[row])
            assert_close(product[row], alone, rtol=1e-9, atol=1e-9)

    def test_far_states_are_finite(self) -> None:
        """Assert that 100 standard deviations out nothing overflows."""
        measure, (_, x) = self.measure(), self.states(1.0)
        log_density, score = measure.log_density_and_score(100 * x + 100, 1.0)
        assert bool(torch.isfinite(log_density).all())
        assert bool(torch.isfinite(score).all())

    @pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
    def test_levels_that_are_none_are_refused(self, sigma: float) -> None:
        """Assert that numbers which are no noise level raise a sentence that names sigma."""
        with pytest.raises(ValueError, match="sigma"):
            self.measure().log_density(self.states(1.0)[1], sigma)

    def test_states_of_another_shape_are_refused(self) -> None:
        """Assert that states of another shape raise a sentence that names the shape expected."""
        with pytest.raises(ValueError, match="shape"):
            self.measure().score(torch.zeros(2, 17, dtype=torch.float64), 1.0)

    def test_states_of_another_dtype_are_refused(self) -> None:
        """Assert that the dtype of the states must be that of the measure."""
        with pytest.raises(TypeError, match="dtype"):
            self.measure().score(self.states(1.0)[1].float(), 1.0)
