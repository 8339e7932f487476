"""Jacobian products: every method against the oracle's Jacobian, the trial and its cures, refusals."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.close import assert_close, relative_error
from support.problems import PROBLEMS
from torch import Tensor, nn
from torch.nn import functional

from oracles import GaussianMixture
from sensitivity import as_score
from sensitivity.jacobians import duals
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import VALUES, choose
from studies.bridge import exact_score

EXACT = ("forward", "double-vjp")
LAW = GaussianMixture(*PROBLEMS["d3_k4_s0"].base)
SCORE = exact_score(LAW)
SIGMA = torch.tensor(0.7, dtype=torch.float64)


def states(count: int = 5, d: int = 3, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, d)) * 2)


def directions(count: int, x: Tensor, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, *x.shape)))


def jacobian(x: Tensor) -> Tensor:
    return torch.from_numpy(LAW.noised(float(SIGMA)).score_jacobian(x.numpy()))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("method", EXACT)
def test_tangent_products_match_oracle(method: str, count: int) -> None:
    """Assert that J t of the exact methods is the oracle's Jacobian times t, to rounding."""
    x = states()
    t = directions(count, x)
    value, product = Products(SCORE, method).jvp(x, SIGMA, t)
    assert_close(value, SCORE(x, SIGMA), rtol=1e-12)
    assert_close(product, torch.einsum("bij,kbj->kbi", jacobian(x), t), rtol=1e-10, atol=1e-12)


def asymmetric(x: Tensor, sigma: Tensor) -> Tensor:
    """A field whose Jacobian is far from symmetric, so that J and its transpose are told apart."""
    matrix = torch.tensor([[-1.0, 2.0, 0.3], [0.1, -0.5, 0.0], [0.7, 0.2, -2.0]], dtype=x.dtype)
    return torch.tanh(x @ matrix.T) + x.square() / 10


@pytest.mark.parametrize("method", [*EXACT, "reverse", "finite"])
def test_cotangent_products_are_transposed(method: str) -> None:
    """Assert that Jᵀ u is the transpose, on a field that is no gradient."""
    x = states()
    u = directions(2, x)
    dense = torch.func.vmap(torch.func.jacrev(lambda y: asymmetric(y, SIGMA)))(x)
    _, product = Products(asymmetric, method).vjp(x, SIGMA, u)
    assert_close(product, torch.einsum("bij,kbi->kbj", dense, u), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cures", [(), ("serial",)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_ordinary_graph_and_the_transform_give_the_same_cotangents(count: int, cures: tuple[str, ...]) -> None:
    """Assert that reverse mode is one map whether or not its graph is kept, and leaves none where it is not."""
    x = states().requires_grad_()
    u = directions(count, x)
    products = Products(asymmetric, "reverse", cures=cures)
    value, images = products.vjp(x, SIGMA, u)
    kept_value, kept_images = replace(products, differentiable=True).vjp(x, SIGMA, u)
    assert not value.requires_grad
    assert not images.requires_grad
    assert kept_images.requires_grad
    assert_close(value, kept_value.detach(), rtol=1e-14)
    assert_close(images, kept_images.detach(), rtol=1e-13)


def test_a_constant_score_has_zero_cotangents_and_one_without_a_graph_none() -> None:
    """Assert zeros for a constant field, and an error, never zeros, where the graph is missing."""
    x = states()
    u = directions(2, x)
    _, images = Products(lambda y, sigma: 0 * y + 1, "reverse").vjp(x, SIGMA, u)
    assert_close(images, torch.zeros(2, *x.shape, dtype=x.dtype))
    with pytest.raises(ValueError, match="score has no graph from its states"):
        Products(lambda y, sigma: torch.ones_like(y), "reverse").vjp(x, SIGMA, u)


def test_the_fastest_method_is_exact_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Assert that an exact method is taken, named with the times, and right."""
    x = states()
    with caplog.at_level(logging.INFO, logger="sensitivity"):
        chosen = choose(Products(SCORE, "fastest"), x, SIGMA)
    assert chosen.method in EXACT
    assert "the fastest of: forward" in chosen.message
    assert chosen.message in caplog.text
    t = directions(2, x)
    assert_close(chosen.jvp(x, SIGMA, t)[1], torch.einsum("bij,kbj->kbi", jacobian(x), t), rtol=1e-10, atol=1e-12)
    assert choose(Products(SCORE, "fastest"), x, SIGMA, uses=VALUES).method in (*EXACT, "reverse")


def test_a_network_is_tried_once_for_each_kind_of_state() -> None:
    """Assert that a second run asks the network nothing, and that another dtype is another trial."""
    calls = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(x.dtype)
        return x / (1 + sigma[:, None] ** 2)

    score = as_score(denoiser, "denoiser")
    x = states()
    first = choose(Products(score), x, SIGMA)
    count = len(calls)
    assert choose(Products(score), x, SIGMA) == first
    assert len(calls) == count > 0
    choose(Products(score), x.float(), SIGMA.float())
    assert len(calls) > count
    assert choose(Products(score), x, SIGMA, uses=VALUES).method == "reverse"


@pytest.mark.parametrize("method", EXACT)
def test_forward_and_transposed_satisfy_the_inner_product_identity(method: str) -> None:
    """Assert u·(Jt) = (Jᵀu)·t to rounding, on a field that is no gradient."""
    x, products = states(), Products(asymmetric, method)
    t, u = directions(2, x), directions(2, x, seed=2)
    left = (u * products.jvp(x, SIGMA, t)[1]).flatten(2).sum(2)
    right = (products.vjp(x, SIGMA, u)[1] * t).flatten(2).sum(2)
    assert_close(left, right, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", EXACT)
def test_second_order_matches_oracle(method: str) -> None:
    """Assert that D²s[t, t] is the oracle's third derivative of log p."""
    x = states()
    t = directions(1, x)[0]
    value, product, curvature = Products(SCORE, method).second(x, SIGMA, t)
    expected = torch.from_numpy(LAW.noised(float(SIGMA)).third_order(x.numpy(), t.numpy(), t.numpy()))
    assert_close(value, SCORE(x, SIGMA), rtol=1e-12)
    assert_close(product, torch.einsum("bij,bj->bi", jacobian(x), t), rtol=1e-10, atol=1e-12)
    assert_close(curvature, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sigma", [1e-2, 0.7, 80.0])
@pytest.mark.parametrize(("dtype", "first", "second"), [(torch.float64, 2e-6, 1e-3), (torch.float32, 3e-2, 0.6)])
def test_finite_differences_keep_their_stated_error(
    dtype: torch.dtype, first: float, second: float, sigma: float
) -> None:
    """Assert the errors of differences, first and second order, at states of the noised law, each level and dtype."""
    rng = np.random.default_rng(3)
    level = torch.tensor(sigma, dtype=dtype)
    x = torch.from_numpy(LAW.sample(20, 3) + sigma * rng.standard_normal((20, 3))).to(dtype)
    t = directions(2, x).to(dtype)
    exact, finite = Products(SCORE, "forward"), Products(SCORE, "finite")
    assert not finite.exact
    assert np.median(relative_error(finite.jvp(x, level, t)[1], exact.jvp(x, level, t)[1])) < first
    value, wanted = (products.second(x, level, t[0]) for products in (finite, exact))
    assert np.median(relative_error(value[1], wanted[1])) < first
    if sigma == 0.7:  # elsewhere the law is locally Gaussian and its third derivative below rounding
        assert np.median(relative_error(value[2], wanted[2])) < second


def test_forward_differences_cost_one_evaluation_a_tangent_and_keep_their_stated_error() -> None:
    """Assert the states evaluated, exact quadratic forms, the stated error, and that they are never chosen unasked."""
    rows = []

    def counted(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        rows.append(len(y))
        return SCORE(y, sigma)

    x = states()
    t = directions(3, x)
    products, exact = Products(counted, "one-sided"), Products(SCORE, "forward").jvp(x, SIGMA, t)
    value, forms, moved = products.forms_and_tangents(x, SIGMA, t[:1], t)
    assert rows == [len(x), 3 * len(x)]
    assert_close(value, exact[0])
    assert_close((forms * t[:1]).sum(2), (exact[1][:1] * t[:1]).sum(2), rtol=1e-11, atol=1e-12)
    assert_close(products.jvp(x, SIGMA, t)[1], moved, rtol=1e-6, atol=1e-7)
    chosen = choose(products, x, SIGMA)
    assert not chosen.exact
    assert "forward differences with relative error about" in chosen.message
    error = np.median(relative_error(moved, exact[1]))
    assert 0.01 * chosen.error < error < 100 * chosen.error < 1e-3
    assert choose(Products(SCORE), x, SIGMA).method != "one-sided"


@pytest.mark.parametrize("method", [*EXACT, "finite"])
def test_level_per_sample_equals_one_level_at_a_time(method: str) -> None:
    """Assert that σ of shape (batch,) gives every sample its own level."""
    x = states()
    t, levels = directions(3, x), torch.linspace(0.3, 2.0, 5, dtype=torch.float64)
    products = Products(SCORE, method)
    _, together = products.jvp(x, levels, t)
    singles = [products.jvp(x[i : i + 1], levels[i], t[:, i : i + 1])[1] for i in range(5)]
    assert_close(together, torch.cat(singles, dim=1), rtol=1e-6 if method == "finite" else 1e-11, atol=1e-12)


@pytest.mark.parametrize("method", [*EXACT, "finite"])
def test_products_do_not_depend_on_batch_chunk_or_serial_order(method: str) -> None:
    """Assert that splitting the batch, the directions or the batched call changes nothing beyond rounding."""
    x = states(6)
    t = directions(5, x)
    products = Products(SCORE, method)
    _, whole = products.jvp(x, SIGMA, t)
    tolerance = {"rtol": 1e-7, "atol": 1e-9} if method == "finite" else {"rtol": 1e-12, "atol": 1e-13}
    halves = [products.jvp(x[rows], SIGMA, t[:, rows])[1] for rows in (slice(0, 2), slice(2, 6))]
    assert_close(torch.cat(halves, dim=1), whole, **tolerance)
    assert_close(replace(products, chunk_size=2).jvp(x, SIGMA, t)[1], whole, **tolerance)
    assert_close(replace(products, cures=("serial",)).jvp(x, SIGMA, t)[1], whole, **tolerance)


def test_parameters_stay_out_of_the_graph_unless_asked() -> None:
    """Assert that gradients reach the network's parameters with differentiable=True only."""
    weight = torch.full((), 2.0, dtype=torch.float64, requires_grad=True)
    x, t = states(), directions(2, states())

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return -weight * y / (1 + sigma**2)

    for method in EXACT:
        detached = Products(score, method).jvp(x, SIGMA, t)[1]
        kept = Products(score, method, differentiable=True).jvp(x, SIGMA, t)[1]
        assert not detached.requires_grad
        (gradient,) = torch.autograd.grad(kept.sum(), weight)
        assert_close(gradient, -t.sum() / (1 + SIGMA**2), rtol=1e-12)


class Attention(nn.Module):
    """A denoiser over four tokens with fused attention and a group norm on transposed input."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.out = nn.Linear(3, 24), nn.Linear(8, 3)
        self.norm = nn.GroupNorm(2, 8) if norm else None

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        q, k, v = (
            self.embed(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        )  # two heads: the fused kernel wants four axes
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.norm is not None:
            image = mixed.unflatten(1, (2, 2)).permute(0, 3, 1, 2)
            mixed = self.norm(image).permute(0, 2, 3, 1).flatten(1, 2)
        return self.out(mixed) - x / (1 + sigma**2)


@pytest.mark.parametrize("norm", [False, True])
def test_attention_and_group_norm_are_cured_once_with_one_message(
    norm: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert exact forward mode of a network that has none as it stands: by rules of our own, or by cures without."""
    network = Attention(norm).double()
    x = directions(1, torch.zeros(3, 4, 3, dtype=torch.float64))[0]
    t = directions(2, x)
    with pytest.raises((NotImplementedError, RuntimeError)):
        Products(network, "forward").jvp(x, SIGMA, t)
    assert choose(Products(network), x, SIGMA).cures == ("rules",)
    monkeypatch.setattr(duals, "_RULES", {})
    with caplog.at_level(logging.INFO, logger="sensitivity"):
        products = choose(Products(lambda y, sigma: network(y, sigma)), x, SIGMA)
    assert products.method == "forward"
    assert products.exact
    assert set(products.cures) == ({"math", "contiguous"} if norm else {"math"})
    assert len(caplog.records) == 1
    assert "attention" in caplog.records[0].message
    rows = [torch.autograd.functional.jacobian(lambda y: network(y[None], SIGMA)[0].flatten(), sample) for sample in x]
    flat = torch.stack(rows).flatten(2)
    expected = torch.einsum("bij,kbj->kbi", flat, t.flatten(2)).reshape(t.shape)
    for method in (products, replace(products, method="double-vjp")):
        assert_close(method.jvp(x, SIGMA, t)[1], expected, rtol=1e-10, atol=1e-12)
    _, transposed = products.vjp(x, SIGMA, t)
    assert_close(transposed.flatten(2), torch.einsum("bij,kbi->kbj", flat, t.flatten(2)), rtol=1e-10, atol=1e-12)


class ReverseOnly(torch.autograd.Function):
    """x ↦ −sin x by NumPy, with a reverse rule and neither a forward nor a batching rule."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.from_numpy(-np.sin(x.numpy()))

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return -torch.cos(ctx.saved_tensors[0]) * gradient


def test_operation_without_forward_or_batching_rule_takes_the_double_reverse_route() -> None:
    """Assert that exact products are found when only the reverse mode exists."""
    x = states()
    t = directions(3, x)
    products = choose(Products(lambda y, sigma: ReverseOnly.apply(y)), x, SIGMA)
    assert products.method == "double-vjp"
    assert products.exact
    assert_close(products.jvp(x, SIGMA, t)[1], -torch.cos(x) * t, rtol=1e-12)


def test_detached_network_falls_to_differences_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Assert that a cut derivative is noticed: no exact method is believed, differences are used, with a warning."""
    x = states()
    t = directions(3, x)
    with caplog.at_level(logging.INFO, logger="sensitivity"):
        products = choose(Products(lambda y, sigma: -torch.sin(y.detach())), x, SIGMA)
    assert (products.method, products.exact) == ("finite", False)
    assert 0 < products.error < 1e-6
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "finite" not in caplog.records[0].message
    assert "central differences" in caplog.records[0].message
    assert_close(products.jvp(x, SIGMA, t)[1], -torch.cos(x) * t, rtol=1e-6, atol=1e-8)


def test_score_outside_torch_gets_differences() -> None:
    """Assert that a score computed by NumPy still has products."""

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return torch.from_numpy(-np.sin(y.detach().numpy()))

    x = states()
    assert choose(Products(score), x, SIGMA).method == "finite"


def test_good_score_is_chosen_silently(caplog: pytest.LogCaptureFixture) -> None:
    """Assert that a score that needs no cure gives forward mode by our own rules and no message."""
    with caplog.at_level(logging.DEBUG, logger="sensitivity"):
        products = choose(Products(SCORE), states(), SIGMA)
    assert (products.method, products.cures, products.message) == ("forward", ("rules",), "")
    assert not caplog.records


def test_trial_passes_the_error_of_a_score_that_cannot_be_evaluated() -> None:
    """Assert that the score's own error is not swallowed by the trial."""

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        raise KeyError("missing table")

    with pytest.raises(KeyError, match="missing table"):
        choose(Products(score), states(), SIGMA)


def test_explicit_method_that_cannot_work_is_refused() -> None:
    """Assert that forward mode on a network without it names the method and the way out."""
    with pytest.raises(ValueError, match="'forward' does not work for this score"):
        choose(Products(lambda y, sigma: ReverseOnly.apply(y), "forward"), states(), SIGMA)


def test_products_refuse_unknown_undecided_and_one_way_methods() -> None:
    """Assert that each misuse raises its sentence."""
    x = states()
    with pytest.raises(ValueError, match="products method 'magic' is unknown"):
        Products(SCORE, "magic")
    with pytest.raises(ValueError, match=r"has no method yet: call sensitivity.jacobians.trial.choose"):
        Products(SCORE).jvp(x, SIGMA, x[None])
    with pytest.raises(ValueError, match="transposed Jacobian"):
        Products(SCORE, "reverse").jvp(x, SIGMA, x[None])
    with pytest.raises(ValueError, match="chunk_size=0"):
        Products(SCORE, chunk_size=0)


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 3)).to(dtype)


@pytest.mark.parametrize("method", [*EXACT, "reverse", "finite"])
def test_products_keep_the_dtype_of_the_state_under_autocast(method: str) -> None:
    """Assert that a network which answers in bfloat16 gives float32 values and products close to full precision."""
    net, x = network(torch.float32), states().float()
    products = Products(lambda y, sigma: net(y) - y / sigma**2, method)
    t = directions(2, x).float()
    _, expected = products.quadratic(x, SIGMA.float(), t)
    with torch.autocast("cpu", torch.bfloat16):
        value, product = products.quadratic(x, SIGMA.float(), t)
        stated = choose(products, x, SIGMA.float()).error
    assert value.dtype == product.dtype == torch.float32
    if method == "finite":
        # Differences of rounded values, in units of the tangent: the loss is said, and is what is said.
        loss = SIGMA.float() ** 2 * (product - expected).norm() / t.norm()
        assert 0.001 < float(loss) < 2 * stated < 0.02
    else:
        assert float((product - expected).norm() / expected.norm()) < 0.02


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of the compiler itself
def test_products_of_a_compiled_score_and_compiled_products() -> None:
    """Assert that torch.compile of the network, and of the product itself, changes nothing beyond rounding."""
    net, x = network(torch.float64), states()
    t = directions(2, x)

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return net(y) - y / sigma**2

    expected = Products(score, "forward").jvp(x, SIGMA, t)[1]
    compiled = choose(Products(torch.compile(score)), x, SIGMA)
    assert compiled.exact
    assert_close(compiled.jvp(x, SIGMA, t)[1], expected, rtol=1e-11, atol=1e-13)
    for method in EXACT:
        products = Products(score, method)
        inside = torch.compile(lambda y, u, products=products: products.jvp(y, SIGMA, u)[1])
        assert_close(inside(x, t), expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of diffusers' own imports
def test_public_unet_with_attention_gets_exact_forward_products() -> None:
    """Assert that diffusers' UNet2DModel has forward products equal to reverse ones."""
    from diffusers import UNet2DModel

    torch.manual_seed(2)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip

    def score(y: Tensor, sigma: Tensor) -> Tensor:
        return unet(y, sigma.expand(len(y))).sample - y / (1 + sigma**2)

    x = torch.randn(2, 1, 8, 8)
    t, u = torch.randn(2, *x.shape), torch.randn(2, *x.shape)
    products = choose(Products(score), x, SIGMA.float())
    assert (products.method, products.cures) == ("forward", ("rules",))
    left = (u * products.jvp(x, SIGMA.float(), t)[1]).flatten(2).sum(2)
    right = (products.vjp(x, SIGMA.float(), u)[1] * t).flatten(2).sum(2)
    assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_many_directions_are_taken_in_parts_of_equal_size_with_the_same_products() -> None:
    from sensitivity.jacobians import products as module

    def bent(x: Tensor, sigma: Tensor) -> Tensor:
        return -torch.tanh(x) * x.roll(1, -1) / (1 + sigma**2)

    x, sigma = torch.linspace(-1, 1, 600, dtype=torch.float64)[None], torch.tensor(0.5, dtype=torch.float64)
    basis = torch.eye(600, dtype=torch.float64)[:, None]
    assert module._fitting(basis) == 300
    assert module._fitting(basis[:3]) == 3
    for products in (Products(bent, "forward", cures=("rules",)), Products(bent, "reverse")):
        route = products.jvp if products.exact and products.method == "forward" else products.vjp
        value, images = route(x, sigma, basis)
        apart = torch.cat([route(x, sigma, part)[1] for part in basis.split(1)])
        assert torch.equal(value, bent(x, sigma))
        assert torch.allclose(images, apart, rtol=1e-14, atol=1e-15)
