"""Dual numbers: every rule against torch's forward mode, and what has no rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.close import assert_close
from support.pretend_device import AVAILABLE, pretend_device
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sensitivity import GaussianAnchor, Grid, Points, Toward, sample_sensitivity
from sensitivity.jacobians import dual_layers, duals
from sensitivity.jacobians.dual_layers import push
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import choose
from studies.networks import Architecture, build


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(found: Tensor, expected: Tensor) -> float:
    """|a − b|/|b|."""
    return float((found - expected).norm() / expected.norm())


def own_norm(x: Tensor, shape: tuple[int, ...], weight: Tensor, eps: float, centred: bool) -> Tensor:
    """LayerNorm and RMSNorm written out: torch's own second derivative of `layer_norm` by forward mode is wrong."""
    axes = tuple(range(-len(shape), 0))
    values = x - x.mean(axes, keepdim=True) if centred else x
    return values * torch.rsqrt(values.square().mean(axes, keepdim=True) + eps) * weight


IMAGES, TOKENS = random(2, 4, 6, 6), random(2, 3, 5, 4)
KERNEL, BIAS = random(6, 4, 3, 3, seed=1), random(6, seed=2)
BACK = random(4, 3, 3, 3, seed=3)
SCALE, PLANE, ROW = random(4, seed=4), random(6, 6, seed=5), random(4, 1, 6, seed=6)
MIX, KEYS = random(4, 12, seed=7), random(3, 5, 4, seed=8)
MASK = random(5, 5, seed=9) > 0
WIDE = random(2, 8, 8, seed=16)
STACK, PAIR = random(4, 6, 6, seed=12), random(2, 1, 6, 6, seed=13)


def attention(**options: object) -> Callable[[Tensor], Tensor]:
    def layer(x: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(*(x @ MIX).chunk(3, -1), **options)  # type: ignore[arg-type]

    return layer


LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv1d": lambda x: functional.conv1d(x[..., 0], KERNEL[..., 0], BIAS, padding=1),
    "conv2d": lambda x: functional.conv2d(x, KERNEL, BIAS, 2, 1),
    "conv2d in groups": lambda x: functional.conv2d(x, KERNEL[:, :2], None, dilation=2, groups=2),
    "conv2d of one image": lambda x: functional.conv2d(x[0], KERNEL, bias=BIAS),
    "conv3d": lambda x: functional.conv3d(x[:, :, None], KERNEL[:, :, None], BIAS),
    "conv_transpose1d": lambda x: functional.conv_transpose1d(x[..., 0], BACK[..., 0], BIAS[:3], stride=2),
    "conv_transpose2d": lambda x: functional.conv_transpose2d(x, BACK, BIAS[:3], 2, 1, 1),
    "conv_transpose3d": lambda x: functional.conv_transpose3d(x[..., None], BACK[..., None], BIAS[:3]),
    "linear": lambda x: functional.linear(x, PLANE, BIAS),
    "group_norm": lambda x: functional.group_norm(x + 30, 2, SCALE, SCALE, 1e-3),
    "group_norm, turned": lambda x: functional.group_norm(x.transpose(2, 3), 4),
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "softmax": lambda x: torch.softmax(x, 1) + functional.softmax(x, dim=-1),
    "pointwise": lambda x: x.exp() + x.tanh() * x.sigmoid() - x.sin() * x.cos() + x.relu() + x.square() + x**3,
    "roots": lambda x: (x.square() + 1).sqrt() + (x.square() + 1).rsqrt() + (x.square() + 2).log() + 1 / (x**2 + 1),
    "logarithm": lambda x: torch.log1p(x.square()) + torch.reciprocal(x.square() + 3),
    "arithmetic": lambda x: (1 - x) * (x + 2) / (x * x + 3) - ROW + ROW * x - (ROW - x) * (ROW / (x * x + 1)) - 2 * x,
    "broadcast": lambda x: x[:, :1] * x + x[0, 0] - x.mean((2, 3), keepdim=True) + x.mean() + x.sum(),
    "products": lambda x: (x @ PLANE).mT + PLANE @ x + x @ x + x.mT @ x[0],
    "products with stacks": lambda x: x @ STACK + STACK @ x + PAIR @ x[0] + x[0, 0] @ PAIR + x[0] @ x[:, :1],
    "views": lambda x: torch.cat([x.flatten(1).unflatten(1, (6, 24))[..., 2:], IMAGES[:, 0, :, :3]], -1).permute(
        1, 0, 2
    ),
    "parts": lambda x: torch.cat([*x.chunk(2, 1), *x.split([1, 3], dim=1)], 1).unsqueeze(2).expand(-1, -1, 2, -1, -1),
    "images": lambda x: functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0) + x.roll(1, 2),
    "choice": lambda x: torch.where(x > 0, x, x * x) + x.double().contiguous().clone(),
    "without a rule": lambda x: functional.elu(x) + torch.einsum("bchw,hk->bckw", x, PLANE) + x.clamp(min=-0.3),
    "maxima": lambda x: x.max(1, keepdim=True)[0] + functional.pad(x, (1, 0), value=2.0)[..., 1:],
    "extremes": lambda x: (
        x.amax(1, keepdim=True) + torch.amin(x, (2, 3), True) + x.relu().amin() + x.amax(-1)[..., None]
    ),
    "NumPy's names": lambda x: (
        torch.sum(x, axis=1, dtype=None, keepdims=True) + torch.mean(x, axis=0) + torch.amax(x, axis=0, keepdims=True)
    ),
    "constant": lambda x: torch.ones_like(x) + x.detach(),
}
ATTENTION = {
    "self": attention(),
    "causal": attention(is_causal=True),
    "scaled": attention(scale=0.3),
    "biased": attention(attn_mask=random(5, 5, seed=10)),
    "masked": attention(attn_mask=MASK | torch.eye(5, dtype=torch.bool)),
    "of queries": lambda x: functional.scaled_dot_product_attention(x, KEYS, KEYS),
    "of keys": lambda x: functional.scaled_dot_product_attention(KEYS, x, KEYS),
    "of values": lambda x: functional.scaled_dot_product_attention(KEYS, KEYS, x),
}
CASES = [(name, IMAGES, layer) for name, layer in LAYERS.items()]
CASES += [(f"attention {name}", TOKENS, layer) for name, layer in ATTENTION.items()]
NORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "layer_norm": (
        lambda x: functional.layer_norm(x, (6,), PLANE[0], PLANE[1], 1e-3),
        lambda x: own_norm(x, (6,), PLANE[0], 1e-3, True) + PLANE[1],
    ),
    "layer_norm of planes": (
        lambda x: functional.layer_norm(x, (6, 6), PLANE),
        lambda x: own_norm(x, (6, 6), PLANE, 1e-5, True),
    ),
    "rms_norm": (
        lambda x: functional.rms_norm(x, (6,), PLANE[0], 1e-3),
        lambda x: own_norm(x, (6,), PLANE[0], 1e-3, False),
    ),
}


def plain(layer: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's forward mode, which has none for fused attention and for a group norm of turned images."""
    with sdpa_kernel(SDPBackend.MATH):
        return layer(x), vmap(lambda t: jvp(layer, (x,), (t,))[1])(tangents)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "x", "layer"), CASES, ids=[name for name, _, _ in CASES])
def test_rules_are_torchs_forward_mode(
    name: str, x: Tensor, layer: Callable[[Tensor], Tensor], count: int, graph: bool
) -> None:
    """Assert value and tangents to rounding, with and without a graph (two code paths)."""
    tangents = random(count, *x.shape, seed=11)
    reference = (lambda y: layer(y.contiguous())) if "turned" not in name else lambda y: _turned(y)
    with torch.set_grad_enabled(graph):
        pair = push(layer, x, tangents)
    for each, torchs in zip(pair, plain(reference, x, tangents), strict=True):
        assert_close(each, torchs, rtol=1e-11, atol=1e-12)


class Stored(TorchDispatchMode):
    """The largest storage, in bytes, that any operation inside answered with."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [each.untyped_storage().nbytes() for each in tree_leaves(out) if isinstance(each, Tensor)]
        self.largest = max([self.largest, *sizes])
        return out


@pytest.mark.parametrize(
    "layer",
    [lambda x: x @ WIDE, lambda x: (x @ WIDE.mT[:, :8]).mT @ x, functional.elu, lambda x: x.clamp(min=-0.3)],
    ids=["product with a stack", "product of two", "without a rule", "without a rule, clamped"],
)
@pytest.mark.parametrize("cures", [("rules",), ()])
def test_memory_grows_with_the_number_of_directions_not_with_its_square(
    layer: Callable[[Tensor], Tensor], cures: tuple[str, ...]
) -> None:
    """Assert that an exact trace's products need no more memory at once than a few times their results.

    Forward mode once gave every one of K tangents a storage as large as all of them, and a batch of matrices was copied
    for each: 12 GB for 784 directions of three components.
    """
    count, x = 64, random(64, 8, 8, seed=14)[:2]
    products = Products(lambda y, sigma: layer(y), "forward", cures=cures)
    with Stored() as stored:
        products.jvp(x, torch.tensor(1.0, dtype=torch.float64), random(count, *x.shape, seed=15))
    assert stored.largest <= 4 * (1 + count) * x.numel() * x.element_size()


def _turned(x: Tensor) -> Tensor:
    return functional.group_norm(x.transpose(2, 3).contiguous(), 4)


@pytest.mark.parametrize("name", NORMS)
def test_norms_match_their_formulas_to_second_order(name: str) -> None:
    """Assert value, tangent and second derivative of the norms, written out."""
    layer, formula = NORMS[name]
    tangents = random(2, *IMAGES.shape, seed=12)
    with torch.no_grad():
        pair = push(layer, IMAGES, tangents)
    for each, expected in zip(pair, plain(formula, IMAGES, tangents), strict=True):
        assert_close(each, expected, rtol=1e-11, atol=1e-12)
    assert_close(second(layer, IMAGES, tangents), torchs_second(formula, IMAGES, tangents), rtol=1e-9, atol=1e-10)


def second(layer: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> Tensor:
    """D²f[t_k, t_0]: torch's forward mode through the rules."""
    return jvp(lambda y: push(layer, y, tangents)[1], (x,), (tangents[0],))[1]


def torchs_second(layer: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        return jvp(lambda y: vmap(lambda t: jvp(layer, (y,), (t,))[1])(tangents), (x,), (tangents[0],))[1]


@pytest.mark.parametrize(
    ("name", "x", "layer"),
    [case for case in CASES if case[0] not in ("silu", "group_norm, turned", "without a rule")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_second_derivatives_pass_through_the_rules(name: str, x: Tensor, layer: Callable[[Tensor], Tensor]) -> None:
    """Assert D²f[t, t] against torch's nested forward mode, which SiLU and ELU do not have."""
    tangents = random(2, *x.shape, seed=13)
    assert_close(second(layer, x, tangents), torchs_second(layer, x, tangents), rtol=1e-9, atol=1e-10)


def test_the_second_derivative_of_silu() -> None:
    """Assert D²f[t, t] of SiLU by its formula: σ' (2 + x (1 − 2σ))."""
    t = random(1, *IMAGES.shape, seed=14)
    share = torch.sigmoid(IMAGES)
    expected = share * (1 - share) * (2 + IMAGES * (1 - 2 * share)) * t[0] ** 2
    assert_close(second(functional.silu, IMAGES, t)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("room", [1, 600, 2500])  # bytes: one query, some queries of one head, some heads
@pytest.mark.parametrize(("name", "layer"), ATTENTION.items())
def test_attention_in_blocks_is_attention(
    name: str, layer: Callable[[Tensor], Tensor], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that blocks of any size give torch's value and tangents."""
    x = TOKENS[0] if name.startswith("of") else TOKENS
    tangents, asked = random(2, *x.shape, seed=21), []
    monkeypatch.setattr(dual_layers, "_room", lambda device: asked.append(device) or room)
    value, moved = plain(layer, x, tangents)
    with torch.no_grad():
        image, images = push(layer, x, tangents)
    assert asked
    assert_close(image, value, rtol=1e-12, atol=1e-12)
    assert_close(images, moved, rtol=1e-12, atol=1e-12)


def test_a_query_that_attends_to_nothing_is_zero() -> None:
    """Assert zeros, not NaN, for value and tangents, as fused attention gives."""
    mask = MASK | torch.eye(5, dtype=torch.bool)
    mask[2] = False
    value, moved = push(attention(attn_mask=mask), TOKENS, random(2, *TOKENS.shape))
    assert_close(value, attention(attn_mask=mask)(TOKENS), rtol=1e-12, atol=1e-14)
    assert float(moved[..., 2, :].abs().max()) == 0
    assert torch.isfinite(moved).all()


def test_functions_in_place_are_refused_and_the_trial_takes_torchs() -> None:
    """Assert that nothing is written into a shared value, and that such a network still has exact products."""

    def network(y: Tensor, sigma: Tensor) -> Tensor:
        hidden = 2 * y
        hidden += torch.sin(y)
        return functional.relu(hidden, True) - y

    x, sigma = random(3, 5), torch.tensor(0.7).double()
    with pytest.raises(NotImplementedError, match="in place"):
        push(lambda y: network(y, sigma), x, x[None])
    with pytest.raises(NotImplementedError, match="in place"):
        push(lambda y: functional.relu(y, True), x, x[None])
    with pytest.raises(NotImplementedError, match="in place"):
        push(lambda y: torch.zeros(3, 5).double().add_(y), x, x[None])
    products = choose(Products(network), x, sigma)
    assert (products.method, products.cures) == ("forward", ())


def test_recorded_products_do_not_pass_through_no_grad_or_hand_written_rules() -> None:
    """Assert a refusal where a graph would lose derivatives in parameters, and none where nothing is recorded."""

    def cut(y: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.sin(y)

    x = random(3, 5)
    with torch.enable_grad(), pytest.raises(NotImplementedError, match="do not pass through no_grad"):
        push(cut, x, x[None])
    with torch.no_grad():
        assert_close(push(cut, x, x[None])[1][0], torch.cos(x) * x, rtol=1e-14)


def test_a_score_of_operations_without_rules_takes_torchs_forward_mode() -> None:
    """Assert the cost model: most operations must have a rule of our own."""
    x, sigma = random(3, 5), torch.tensor(0.7).double()
    products = choose(Products(lambda y, level: torch.erf(functional.elu(torch.erf(y)))), x, sigma)
    assert (products.method, products.cures) == ("forward", ())
    assert choose(Products(lambda y, level: torch.erf(y) * y - y), x, sigma).cures == ("rules",)


NETWORKS = {
    "mlp": (Architecture("mlp", 24, 2), (3, 8, 8)),
    "unet": (Architecture("unet", 8, 2), (3, 8, 8)),
    "transformer": (Architecture("transformer", 16, 2), (3, 8, 8)),
    "mlp, real size": (Architecture("mlp", 64, 2), (3, 32, 32)),
}


def network_of(kind: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose every layer matters, states and tangents."""
    architecture, shape = NETWORKS[kind]
    network = build(architecture, shape, dtype=dtype).eval()
    for k, parameter in enumerate(network.parameters()):
        parameter.data += 0.1 * random(*parameter.shape, seed=k, dtype=dtype)
    return network, random(2, *shape, dtype=dtype), random(3, 2, *shape, seed=1, dtype=dtype)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_have_the_products_of_torchs_forward_mode(kind: str, dtype: torch.dtype, rtol: float) -> None:
    """Assert J t to rounding for networks of every kind, none of whose operations is without a rule."""
    network, x, t = network_of(kind, dtype)
    sigma = torch.tensor(0.7, dtype=dtype)
    with duals.counted() as tally:
        derivative = Products(network, "forward", cures=("rules",)).jvp(x, sigma, t)
    assert tally.pushed == 0 < tally.ruled
    for each, torchs in zip(derivative, Products(network, "forward").jvp(x, sigma, t), strict=True):
        assert distance(each, torchs) < rtol


@pytest.mark.parametrize("kind", ["mlp", "unet", "transformer"])
def test_derivatives_in_parameters_pass_through_the_rules(kind: str) -> None:
    """Assert the derivative of a recorded product along random parameters against differences of the product.

    Torch's own rules fail this for LayerNorm (torch 2.13): neither forward mode nor double-VJP can be differentiated.
    """
    network, x, t = network_of(kind, torch.float64)
    products, sigma, step = Products(network, "forward", True, cures=("rules",)), torch.tensor(0.7).double(), 1e-5
    parameters = list(network.parameters())
    ways = [random(*each.shape, seed=20 + k) for k, each in enumerate(parameters)]
    values = torch.autograd.grad(products.jvp(x, sigma, t)[1].square().sum(), parameters, allow_unused=True)
    slope = sum(float((g * way).sum()) for g, way in zip(values, ways, strict=True) if g is not None)

    def moved(length: float) -> float:
        there = copy.deepcopy(network)
        for parameter, way in zip(there.parameters(), ways, strict=True):
            parameter.data += length * way
        return float(Products(there, "forward").jvp(x, sigma, t)[1].square().sum())

    assert slope == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "unet", "transformer"])
def test_autocast_acts_on_the_rules_as_on_the_network(kind: str) -> None:
    """Assert products under bfloat16 as near to full precision as those of torch's forward mode."""
    network, x, t = network_of(kind, torch.float32)
    sigma = torch.tensor(0.7)
    exact = Products(network, "forward").jvp(x, sigma, t)[1]
    with torch.autocast("cpu", torch.bfloat16):
        value, values = Products(network, "forward", cures=("rules",)).jvp(x, sigma, t)
        torchs = Products(network, "forward").jvp(x, sigma, t)[1]
    assert value.dtype == values.dtype == torch.float32
    assert distance(values, exact) < 1.5 * distance(torchs, exact) + 1e-6
    assert distance(values, exact) > 1e-5


@pytest.mark.parametrize("kind", ["mlp", "unet", "transformer"])
def test_an_outer_vmap_sees_through_the_rules(kind: str) -> None:
    """Assert products of several stacks of states at once."""
    network, x, t = network_of(kind, torch.float64)
    sigma, products = torch.tensor(0.7).double(), Products(network, "forward", True, cures=("rules",))
    stacked = vmap(lambda y, u: products.jvp(y, sigma, u)[1])(torch.stack([x, 2 * x]), torch.stack([t, -t]))
    for k, (y, u) in enumerate(((x, t), (2 * x, -t))):
        assert_close(stacked[k], products.jvp(y, sigma, u)[1], rtol=1e-11, atol=1e-12)


@pytest.mark.skipif(not AVAILABLE, reason="torch has no private-use backend for Python")
@pytest.mark.parametrize("kind", ["mlp", "unet", "transformer"])
def test_rules_stay_on_the_device_of_the_states(kind: str) -> None:
    """Assert equal products on the pretend device, which refuses tensors of the CPU."""
    network, x, t = network_of(kind, torch.float64)
    sigma = torch.tensor(0.7).double()
    expected = Products(network, "forward", cures=("rules",)).jvp(x, sigma, t)[1]
    with pretend_device() as move:
        there = copy.deepcopy(network)
        for module in there.modules():
            for group in (module._parameters, module._buffers):
                group.update({name: move(value.data) for name, value in group.items() if value is not None})
        values = Products(there, "forward", cures=("rules",)).jvp(move(x), move(sigma), move(t))[1]
        assert values.device.type == "pretend"
        assert_close(values.cpu(), expected, rtol=1e-13, atol=1e-14)


def test_a_planted_fault_is_found_by_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a wrong rule (half of a slope) is never used: the trial takes torch's forward mode."""

    def wrong(dual: duals.Dual) -> duals.Dual:
        return duals.Dual.of(torch.sin(dual.value), 0.5 * torch.cos(dual.value) * dual.tangents)

    monkeypatch.setitem(duals._RULES, torch.sin, wrong)
    x = random(3, 5)
    products = choose(Products(lambda y, level: torch.sin(y) + 0 * y), x, torch.tensor(0.7).double())
    assert (products.method, products.cures) == ("forward", ())


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 3e30, 0.0])
def test_tiny_and_large_tangents_keep_their_digits(size: float) -> None:
    """Assert that J t is linear in t down to subnormal numbers, sample by sample, and bit for bit in powers of two."""
    network, x, t = network_of("mlp", torch.float32)
    sigma, products = torch.tensor(0.7), Products(network, "forward", cures=("rules",))
    mixed = torch.stack([t[:, 0] * size, t[:, 1]], 1)
    value, exact = products.jvp(x, sigma, mixed)[1], Products(network.double(), "forward")
    expected = exact.jvp(x.double(), sigma.double(), mixed.double())[1]
    assert torch.isfinite(value).all()
    for row in (0, 1):
        gap = (value[:, row].double() - expected[:, row]).abs().max()
        assert float(gap) <= 1e-5 * float(expected[:, row].abs().max()) + 2.0**-148


def test_powers_of_two_change_no_bit() -> None:
    """Assert J(2⁻⁴⁰ t) = 2⁻⁴⁰ J t exactly."""
    network, x, t = network_of("unet", torch.float32)
    sigma, products = torch.tensor(0.7), Products(network, "forward", cures=("rules",))
    assert torch.equal(products.jvp(x, sigma, t * 2.0**-40)[1], products.jvp(x, sigma, t)[1] * 2.0**-40)


def test_a_result_names_its_products_and_equal_calls_give_equal_bits() -> None:
    """Assert the name in the result, which no timing decides, and the same bits by another score of the network."""
    network, x, _ = network_of("mlp", torch.float64)
    values = [
        sample_sensitivity(
            lambda y, sigma: network.score(y, sigma), x, Toward(Points(x, bandwidth=1.0)), Grid(2.0, 0.5, 3),
            anchor=GaussianAnchor.from_data(x), trace="hutchinson", probes=1, seed=0,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert values[0].products == values[1].products == "forward (rules)"
    assert torch.equal(values[0].sensitivity, values[1].sensitivity)
