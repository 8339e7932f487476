"""The oracle's laws as the engine sees them."""

import numpy as np
import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture
from studies.bridge import ExactLaw, engine_measure, exact_denoiser, exact_score, on_torch

SIGMA = torch.tensor(0.3, dtype=torch.float64)


def law(kind="full"):
    rng = np.random.default_rng(5)
    weights, means = np.array([0.5, 0.3, 0.2]), rng.normal(size=(3, 4))
    if kind == "diagonal":
        return GaussianMixture.diagonal(weights, means, rng.uniform(0.1, 1.0, size=(3, 4)))
    factors = rng.normal(size=(3, 4, 2))
    if kind == "low rank":
        return GaussianMixture.low_rank(weights, means, factors, 0.1)
    return GaussianMixture(weights, means, factors @ factors.swapaxes(1, 2) + 0.05 * np.eye(4))


def states(*shape):
    return torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["full", "diagonal", "low rank"])
def test_bridged_score_equals_the_oracle_in_numpy(kind):
    """Assert that moving a law to torch changes nothing but the array type."""
    x = states(4)
    assert_close(exact_score(law(kind))(x, SIGMA), torch.from_numpy(law(kind).noised(0.3).score(x.numpy())), rtol=1e-12)


@pytest.mark.parametrize("kind", ["full", "diagonal", "low rank"])
def test_levels_of_each_sample_are_used(kind):
    """Assert that σ of shape (batch,) gives each sample its own level."""
    x, levels = states(4), torch.linspace(0.1, 2.0, 6, dtype=torch.float64)
    singly = torch.cat([exact_score(law(kind))(row[None], level) for row, level in zip(x, levels, strict=True)])
    assert_close(exact_score(law(kind))(x, levels), singly, rtol=1e-12)


def test_engine_and_oracle_mixtures_agree_though_they_share_no_code():
    """Assert that the engine's own mixture has the oracle's density and score."""
    x, exact, measure = states(4), ExactLaw(law()), engine_measure(law())
    assert_close(measure.log_density(x, SIGMA), exact.log_density(x, SIGMA), rtol=1e-11)
    assert_close(measure.score(x, SIGMA), exact.score(x, SIGMA), rtol=1e-10)


def test_forward_mode_under_vmap_gives_the_jacobian():
    """Assert that torch.func passes through the bridge, with both forms of σ."""
    x, score = states(4), exact_score(law())
    basis = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 6, 4)
    for level in (SIGMA, SIGMA.expand(6)):
        columns = torch.func.vmap(lambda t, s=level: torch.func.jvp(lambda y: score(y, s), (x,), (t,))[1])(basis)
        exact = on_torch(law()).noised(SIGMA).score_jacobian(x)
        assert_close(columns.movedim(0, -1), exact, rtol=1e-10, atol=1e-11)


def test_image_shaped_states_keep_their_shape_and_dtype():
    """Assert that states are flattened for the law only."""
    x = states(1, 2, 2).float()
    denoised = exact_denoiser(law())(x, 0.3)
    assert denoised.shape == x.shape
    assert denoised.dtype == torch.float32
    mean, _ = law().posterior(x.flatten(1).double().numpy(), 0.3)
    assert_close(denoised.double().flatten(1), torch.from_numpy(mean), rtol=1e-4, atol=1e-4)


def test_the_law_itself_is_left_as_it_was():
    """Assert that a bridged law is a copy."""
    original = law()
    on_torch(original, dtype=torch.float32)
    assert isinstance(original.means, np.ndarray)
    assert original.means.dtype == np.float64
