"""Log densities by the flow and by kernels: against the oracle, orders, errors, independence of batching, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.problems import PROBLEMS
from torch import Tensor

from oracles import GaussianMixture
from sensitivity import Estimate, Formula, GaussianAnchor, Grid, Mixture, log_density, log_density_ratio
from studies.bridge import engine_measure, exact_score

SIGMA = 0.3
NAMES = tuple(PROBLEMS)
RANDOM = {
    "hutchinson": {"trace": "hutchinson", "probes": 4},
    "gaussian": {"trace": "hutchinson-gaussian", "probes": 4},
    "hutch++": {"trace": "hutch++", "probes": 9},
    "formula": {"method": "formula", "evaluations": 800},
}


def law(name: str) -> GaussianMixture:
    return GaussianMixture(*PROBLEMS[name].base)


def states(name: str, count: int, sigma: float = SIGMA) -> Tensor:
    noise = np.random.default_rng(1).standard_normal((count, law(name).dimension))
    return torch.from_numpy(law(name).sample(count, 2) + sigma * noise)


def truth(name: str, x: Tensor, sigma: float = SIGMA) -> Tensor:
    return torch.from_numpy(law(name).noised(sigma).log_density(x.numpy()))


def gaussian(name: str) -> GaussianAnchor:
    return GaussianAnchor(torch.from_numpy(law(name).mean), torch.from_numpy(law(name).covariance))


@pytest.mark.parametrize("name", NAMES)
def test_flow_with_exact_trace_matches_oracle(name: str) -> None:
    """Assert the median and the 99 % quantile of the error with an exact anchor; no standard error is claimed."""
    x = states(name, 30)
    value, error = log_density(
        engine_measure(law(name)).score, x, SIGMA, anchor=engine_measure(law(name)), grid=Grid(80.0, SIGMA, 48)
    )
    gaps = (value - truth(name, x)).abs()
    assert float(gaps.median()) < 3e-4
    assert float(gaps.quantile(0.99)) < 5e-3
    assert torch.equal(error, torch.zeros_like(error))


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        ("euler", 24),
        pytest.param("heun", 24, marks=pytest.mark.slow),
        pytest.param("exponential", 24, marks=pytest.mark.slow),
        ("2m", 24),
        ("rk4", 16),
    ],
)
def test_flow_converges_at_fourth_order_whatever_the_solver(solver: str, steps: int) -> None:
    """Assert that refining the grid fourfold divides the median error by more than 4^3.5: L is taken along the path."""
    model, x = engine_measure(law("d2_k3_s0")), states("d2_k3_s0", 20)
    errors = []
    for factor in (1, 2, 4):
        grid = Grid(20.0, SIGMA, steps * factor, spacing="log")
        value, _ = log_density(model.score, x, SIGMA, anchor=model, grid=grid, trace="exact", solver=solver)
        errors.append(float((value - truth("d2_k3_s0", x)).abs().median()))
    assert np.log2(errors[0] / errors[-1]) / 2 > 3.5


def test_matched_anchor_error_is_within_its_bound() -> None:
    """Assert that with a moment-matched anchor the density errs by at most five times the anchor's stated bound."""
    name = "d5_k2_s0"
    x, anchor = states(name, 40), gaussian(name)
    value, _ = log_density(exact_score(law(name)), x, SIGMA, anchor=anchor, grid=Grid(20.0, SIGMA, 32))
    gaps = (value - truth(name, x)).abs()
    assert float(gaps.max()) < 1e-3 + 5 * anchor.error(exact_score(law(name)), 20.0)


@pytest.mark.parametrize("name", ["d2_k3_s0", "d10_k3_s0"])
@pytest.mark.parametrize("kind", RANDOM)
def test_random_estimates_are_within_their_errors(kind: str, name: str) -> None:
    """Assert values within 5 Student standard errors of the oracle, and errors that are not all zero."""
    model, x = engine_measure(law(name)), states(name, 6)
    anchor = gaussian(name) if kind == "formula" else model
    estimate = log_density(model.score, x, SIGMA, anchor=anchor, seed=3, grid=Grid(80.0, SIGMA, 24), **RANDOM[kind])
    low, high = estimate.interval(0.9999)
    slack = 1e-2  # of the grid and of the anchor
    assert bool(((low - slack < truth(name, x)) & (truth(name, x) < high + slack)).all())


def test_one_probe_has_no_standard_error() -> None:
    """Assert NaN, not zero, where one probe cannot tell its error."""
    model, x = engine_measure(law("d2_k3_s0")), states("d2_k3_s0", 3)
    estimate = log_density(model.score, x, SIGMA, anchor=model, trace="hutchinson", probes=1, seed=0)
    assert bool(torch.isfinite(estimate.value).all())
    assert bool(torch.isnan(estimate.standard_error).all())
    assert bool(torch.isnan(estimate.interval()[0]).all())


@pytest.mark.parametrize("products", ["forward", "double-vjp", "reverse", "finite"])
def test_every_product_method_gives_the_same_density(products: str) -> None:
    """Assert that the trace by forward, double reverse, reverse and difference products agree."""
    model, x = engine_measure(law("d3_k4_s0")), states("d3_k4_s0", 4)
    for options in ({"trace": "exact"}, RANDOM["hutchinson"]):
        options = {**options, "grid": Grid(80.0, SIGMA, 12)}
        expected, _ = log_density(model.score, x, SIGMA, anchor=model, seed=1, products="forward", **options)
        value, _ = log_density(model.score, x, SIGMA, anchor=model, seed=1, products=products, **options)
        assert_close(value, expected, rtol=1e-6 if products == "finite" else 1e-10)


@pytest.mark.parametrize("kind", ["exact", *RANDOM])
def test_density_does_not_depend_on_batch_chunk_or_order(kind: str) -> None:
    """Assert that a state's estimate is the same in any batch prefix, chunk size and (by its key) company."""
    name = "d3_k4_s0"
    model, x = engine_measure(law(name)), states(name, 7)
    options = {"anchor": gaussian(name), "grid": Grid(80.0, SIGMA, 3), "seed": 4, **RANDOM.get(kind, {})}
    whole = log_density(model.score, x, SIGMA, **options)
    short = log_density(model.score, x[:3], SIGMA, **options)
    assert_close(short.value, whole.value[:3], rtol=1e-10)
    for chunk_size in (1, 3, 100):
        chunked = log_density(model.score, x, SIGMA, chunk_size=chunk_size, **options)
        assert_close(chunked.value, whole.value, rtol=1e-10)
        assert_close(chunked.standard_error, whole.standard_error, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("kind", ["exact", *RANDOM])
def test_density_in_float32_is_that_of_float64(kind: str) -> None:
    """Assert that single precision follows the same noise: the difference is rounding, far below the standard error."""
    name = "d3_k4_s0"
    model, x, anchor = engine_measure(law(name)), states(name, 5), gaussian(name)
    single = engine_measure(law(name), dtype=torch.float32)
    low = GaussianAnchor(anchor.mean.float(), torch.from_numpy(law(name).covariance).float())
    options = {"grid": Grid(20.0, SIGMA, 12), "seed": 4, **RANDOM.get(kind, {})}
    exact = log_density(model.score, x, SIGMA, anchor=anchor, **options)
    coarse = log_density(single.score, x.float(), SIGMA, anchor=low, **options)
    assert coarse.value.dtype == torch.float32
    assert_close(coarse.value, exact.value.float(), rtol=0.0, atol=1e-2 if kind == "gaussian" else 2e-3)


@pytest.mark.parametrize("kind", ["exact", "hutchinson", "formula", "kernel"])
def test_a_level_for_each_state(kind: str) -> None:
    """Assert that σ of shape (batch,) equals one call for each level."""
    name = "d2_k3_s0"
    model, x = engine_measure(law(name)), states(name, 4)
    levels = torch.tensor([0.3, 0.9, 0.3, 5.0], dtype=torch.float64)
    options = {"anchor": gaussian(name), "grid": Grid(80.0, 0.2, 12), "seed": 5, **RANDOM.get(kind, {})}
    if kind == "kernel":
        options |= {"method": "kernel", "data": states(name, 50)}
    whole = log_density(model.score, x, levels, **options)
    for row, level in enumerate(levels.tolist()):
        single = log_density(model.score, x, level, **options)
        assert_close(whole.value[row], single.value[row], rtol=1e-10)
        assert_close(whole.standard_error[row], single.standard_error[row], rtol=1e-8, atol=1e-13)


def test_density_at_sigma_max_is_the_anchor() -> None:
    """Assert that nothing is integrated at σ_max, by either route."""
    anchor, x = gaussian("d2_k3_s0"), 20 * states("d2_k3_s0", 4)
    for method in ("flow", "formula"):
        value, error = log_density(exact_score(law("d2_k3_s0")), x, 80.0, anchor=anchor, method=method, seed=0)
        assert_close(value, anchor.log_density(x, 80.0), rtol=1e-7)
        assert float(error.max()) < 1e-7


def test_images_are_flattened_nowhere() -> None:
    """Assert that states of shape (batch, 2, 5) give the density of the flattened states."""
    name = "d10_k3_s0"
    flat, x = engine_measure(law(name)), states(name, 3)
    shaped = Mixture(flat.weights, flat.means.reshape(-1, 2, 5), torch.from_numpy(np.asarray(law(name).covariances)))
    anchor = gaussian(name)
    image_anchor = GaussianAnchor(anchor.mean.reshape(2, 5), torch.from_numpy(law(name).covariance))
    for kind in ("exact", "hutchinson", "hutch++", "formula"):
        options = {"grid": Grid(80.0, SIGMA, 8), "seed": 6, **RANDOM.get(kind, {})}
        expected, _ = log_density(flat.score, x, SIGMA, anchor=anchor, **options)
        value, _ = log_density(shaped.score, x.reshape(3, 2, 5), SIGMA, anchor=image_anchor, **options)
        assert_close(value, expected, rtol=1e-9)


def test_gradient_of_the_computed_density_is_the_score() -> None:
    """Assert that autograd through the flow gives ∇ log p_σ = s, and reaches the network's parameters."""
    name = "d2_k3_s0"
    model, x = engine_measure(law(name)), states(name, 3).requires_grad_()
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return model.score(y - shift, sigma)

    options = {"anchor": model, "grid": Grid(80.0, SIGMA, 96), "trace": "exact"}
    value, _ = log_density(score, x, SIGMA, differentiable=True, **options)
    gradient, moved = torch.autograd.grad(value.sum(), (x, shift))
    assert_close(gradient, model.score(x.detach(), SIGMA), rtol=0.0, atol=2e-3)
    assert_close(moved, -model.score(x.detach(), SIGMA).sum(0), rtol=0.0, atol=2e-2)  # the anchor does not move along
    assert not log_density(score, x, SIGMA, **options).value.requires_grad


@pytest.mark.parametrize("weights", ["equal"])
def test_kernel_is_the_noised_empirical_law(weights: str) -> None:
    """Assert the kernel estimate is the oracle's density of the empirical law of the data."""
    data, x = states("d2_k3_s0", 200), states("d2_k3_s0", 5)
    expected = GaussianMixture.empirical(data.numpy()).noised(SIGMA).log_density(x.numpy())
    value, error = log_density(exact_score(law("d2_k3_s0")), x, SIGMA, anchor=None, method="kernel", data=data)
    assert_close(value, torch.from_numpy(expected), rtol=1e-10)
    kernels = torch.exp(-torch.cdist(x, data).square() / (2 * SIGMA**2))
    expected_error = kernels.std(1) / kernels.mean(1) / math.sqrt(200)
    assert_close(error, expected_error, rtol=1e-7)
    one = log_density(exact_score(law("d2_k3_s0")), x, SIGMA, anchor=None, method="kernel", data=data[:1])
    assert bool(torch.isnan(one.standard_error).all())


def test_common_probes_cancel_in_the_ratio() -> None:
    """Assert that the ratio is exact in mean and far less noisy than the difference of two separate estimates."""
    name = "d10_k3_s0"
    base, x = engine_measure(law(name)), states(name, 6)
    other = Mixture(base.weights, base.means + 0.05, torch.from_numpy(1.05 * np.asarray(law(name).covariances)))
    expected = other.log_density(x, SIGMA) - base.log_density(x, SIGMA)
    options = {"trace": "hutchinson", "probes": 4, "grid": Grid(80.0, SIGMA, 32)}
    ratio = log_density_ratio(other.score, base.score, x, SIGMA, new_anchor=other, anchor=base, seed=1, **options)
    parts = [
        log_density(model.score, x, SIGMA, anchor=model, seed=seed, **options)
        for seed, model in ((2, other), (3, base))
    ]
    error = (parts[0].value - parts[1].value - expected).square().mean().sqrt()
    together = (ratio.value - expected).square().mean().sqrt()
    assert float(together) < 0.3 * float(error)
    low, high = ratio.interval(0.9999)
    assert bool(((low - 1e-3 < expected) & (expected < high + 1e-3)).all())


def test_ratio_by_the_formula_matches_oracle() -> None:
    """Assert the ratio with the base network as reference, and anchors that differ."""
    name = "d5_k2_s0"
    base, x = engine_measure(law(name)), states(name, 6)
    other = Mixture(base.weights, base.means + 0.2, torch.from_numpy(1.2 * np.asarray(law(name).covariances)))
    expected = other.log_density(x, SIGMA) - base.log_density(x, SIGMA)
    ratio = log_density_ratio(
        other.score, base.score, x, SIGMA, new_anchor=other, anchor=base, method="formula", seed=1
    )
    low, high = ratio.interval(0.9999)
    assert bool(((low < expected) & (expected < high)).all())
    assert float(ratio.standard_error.max()) < 0.05


def test_bits_per_dimension_is_the_code_length() -> None:
    """Assert sign and units on a uniform-like density: 8 bits for a density of 1 on 256 bins of width 1/256."""
    estimate = Estimate(torch.zeros(1), torch.ones(1), degrees=3, evaluations=5)
    bits = estimate.bits_per_dimension(4, bin_width=1 / 256)
    assert_close(bits.value, torch.tensor([8.0]), rtol=1e-6)
    assert_close(bits.standard_error, torch.tensor([1 / (4 * math.log(2))]), rtol=1e-6)
    assert (bits.degrees, bits.evaluations) == (3, 5)


def test_cost_is_counted_in_network_calls() -> None:
    """Assert the stated number of evaluations against a counter in the score."""
    model, x = engine_measure(law("d2_k3_s0")), states("d2_k3_s0", 3)
    calls = 0

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += len(y)
        return model.score(y, sigma)

    for options in ({}, {"formula": Formula(antithetic=False)}, {"formula": Formula(orthogonal=False)}):
        calls = 0
        estimate = log_density(
            score, x, SIGMA, anchor=gaussian("d2_k3_s0"), method="formula", evaluations=300, seed=0, **options
        )
        assert calls == 3 * estimate.evaluations
        assert 200 <= estimate.evaluations <= 300


BAD: list[tuple[str, type[Exception], dict[str, object]]] = [
    ("method = 'flux' is unknown", ValueError, {"method": "flux"}),
    ("states have shape", ValueError, {"x": torch.zeros(3).double()}),
    ("not a tensor", TypeError, {"x": [[0.0, 0.0]]}),
    ("floating point", TypeError, {"x": torch.zeros(3, 2, dtype=torch.int64)}),
    ("not finite", ValueError, {"x": torch.full((2, 2), math.nan).double()}),
    ("sigma = -1.0", ValueError, {"sigma": -1.0}),
    ("sigma has entries", ValueError, {"sigma": torch.tensor([0.1, 0.0]).double()}),
    ("sigma has shape", ValueError, {"sigma": torch.tensor([0.1, 0.2, 0.3]).double()}),
    ("lies above sigma_max", ValueError, {"sigma": 100.0}),
    ("has no log_density", ValueError, {"anchor": None}),
    ("trace='trace' is unknown", ValueError, {"trace": "trace"}),
    ("probes=0", ValueError, {"trace": "hutchinson", "probes": 0}),
    ("generator and seed", ValueError, {"generator": torch.Generator(), "seed": 1}),
    ("solver='magic' is unknown", ValueError, {"solver": "magic"}),
    ("products method 'magic'", ValueError, {"products": "magic"}),
    ("give data", ValueError, {"method": "kernel"}),
    ("evaluations=5 is too few", ValueError, {"method": "formula", "evaluations": 5}),
    ("tolerance=-1", ValueError, {"method": "formula", "tolerance": -1.0}),
    ("each sample must have shape", ValueError, {"x": torch.zeros(2, 3).double()}),
    ("dtype", TypeError, {"x": torch.zeros(2, 2)}),
]


@pytest.mark.parametrize(("sentence", "kind", "change"), BAD, ids=[sentence for sentence, _, _ in BAD])
def test_bad_input_is_refused_with_a_sentence(sentence: str, kind: type[Exception], change: dict[str, object]) -> None:
    """Assert the type of the error and that it is one sentence that quotes the argument."""
    anchor = gaussian("d2_k3_s0")
    arguments = {"x": torch.zeros(2, 2).double(), "sigma": 0.5, "anchor": anchor} | change
    with pytest.raises(kind, match=sentence) as caught:
        log_density(anchor.score, **arguments)  # type: ignore[arg-type]  # bad on purpose
    assert "\n" not in str(caught.value)


def test_bad_formula_options_are_refused() -> None:
    """Assert that inconsistent options of the formula raise their sentence."""
    with pytest.raises(ValueError, match="times='random'"):
        Formula(times="random")
    with pytest.raises(ValueError, match="replicates=0"):
        Formula(replicates=0)
    with pytest.raises(ValueError, match="0 < finest < coarsest"):
        Formula(scales=(2.0, 1.0))
    with pytest.raises(ValueError, match="raw=True"):
        Formula(raw=True)
    with pytest.raises(ValueError, match="has no score"):
        log_density(
            exact_score(law("d2_k3_s0")), states("d2_k3_s0", 2), 0.5, anchor=gaussian("d2_k3_s0"), method="formula",
            formula=Formula(reference=object()),
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"level=1\.5"):
        Estimate(torch.zeros(1), torch.ones(1)).interval(1.5)


def test_a_flow_without_chance_draws_nothing():
    """Assert that the global generator stays where it was with an exact trace, of a density and of a ratio."""
    law = GaussianAnchor(torch.zeros(2).double(), 0.25)
    x, before = torch.ones(3, 2).double(), torch.get_rng_state()
    options = {"trace": "exact", "grid": Grid(10.0, 0.5, 10)}
    log_density(law.score, x, 0.5, anchor=law, **options)
    log_density_ratio(law.score, law.score, x, 0.5, anchor=law, new_anchor=law, **options)
    assert torch.equal(torch.get_rng_state(), before)
