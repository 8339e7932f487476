"""Dual parameters: derivatives along state and parameters together, against torch's forward mode."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn
from torch.func import functional_call, jvp

from sensitivity import as_score
from sensitivity.jacobians import duals
from sensitivity.jacobians.dual_layers import push
from sensitivity.jacobians.products import Products
from sensitivity.responses.moving_parameters import Along
from sensitivity.responses.weights import Weights
from studies.networks import Architecture, build


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 5), (2, 3, 6)),
    "linear without bias": (nn.Linear(6, 5, bias=False), (2, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    "conv2d in groups": (nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 4, 6, 6)),
    "conv2d of one image": (nn.Conv2d(4, 6, 3), (4, 6, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), (2, 4, 5, 5)),
    "group_norm": (nn.GroupNorm(2, 4, eps=1e-3), (2, 4, 3, 5)),
    "layer_norm": (nn.LayerNorm((3, 5), eps=1e-3), (2, 3, 5)),
    "rms_norm": (nn.RMSNorm(5, eps=1e-3), (2, 3, 5)),
}


def layer_of(name: str) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """A layer, its parameters and an input."""
    module, shape = LAYERS[name]
    module = module.double()
    table = {n: p.detach() + 0.3 * random(*p.shape, seed=k) for k, (n, p) in enumerate(module.named_parameters())}
    return module, table, random(*shape, seed=40)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("moves", [True, False], ids=["state moves", "state is constant"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_move_with_their_parameters(name: str, moves: bool, count: int, graph: bool) -> None:
    """Assert value and tangents to rounding, whether or not the state moves too."""
    module, values, x = layer_of(name)
    rates = {n: random(count, *v.shape, seed=60 + k) for k, (n, v) in enumerate(values.items())}
    tangents = random(count, *x.shape, seed=80) * moves
    moving: dict[str, Tensor] = {n: duals.Dual.of(v, rates[n]) for n, v in values.items()}
    with torch.set_grad_enabled(graph):
        if moves:
            value, moved = push(lambda y: functional_call(module, moving, (y,)), x, tangents)
        else:
            image = functional_call(module, moving, (x,))
            value, moved = image.value, image.tangents
    for k in range(count):
        way = {n: rate[k] for n, rate in rates.items()}
        result, turned = jvp(lambda y, v: functional_call(module, v, (y,)), (x, values), (tangents[k], way))
        assert_close(value, result, rtol=1e-11, atol=1e-12)
        assert_close(moved[k], turned, rtol=1e-11, atol=1e-12)


def along(network: nn.Module, count: int) -> tuple[Along, Tensor, Tensor, Tensor]:
    """The product along state and parameters by own rules, with a state, a level and tangents."""
    for k, parameter in enumerate(network.parameters()):
        parameter.data += 0.1 * random(*parameter.shape, seed=k)
    weights = Weights(as_score(network, "denoiser"))
    products = Products(weights.score, "forward", cures=("rules",))
    x = random(2, 1, 8, 8, seed=90)
    weights.score(x, torch.tensor(0.7).double())  # its checks at the first call
    return (
        Along(weights, products, random(count, len(weights), seed=91)),
        x,
        torch.tensor(0.7).double(),
        random(count, *x.shape, seed=92),
    )


def plain(product: Along, x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's forward mode."""
    products = Products(product.weights.score, "forward", cures=("math",))
    return Along(product.weights, products, product.rates)(x, sigma, tangents)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["mlp", "unet", "transformer"])
def test_networks_move_with_their_parameters(kind: str, count: int) -> None:
    """Assert values and tangents of whole networks to rounding, and that no operation was without a rule."""
    product, x, sigma, tangents = along(build(Architecture(kind, 8, 2), (1, 8, 8), dtype=torch.float64).eval(), count)
    with torch.no_grad(), duals.counted() as tally:
        result = product._by_rules(x, sigma, tangents)
    assert tally.pushed == 0 < tally.ruled
    with torch.no_grad():
        assert product._ruled(x[:1], sigma)
    for each, torchs in zip(result, plain(product, x, sigma, tangents), strict=True):
        assert_close(each, torchs, rtol=1e-11, atol=1e-11)


class Worn(nn.Module):
    """A network that uses its parameter in a way that dual numbers refuse, or through a constant."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.scale = way, nn.Parameter(torch.ones(8, 8).double())

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.way == "in place":
            return torch.zeros_like(x).add_(self.scale) * x
        return x * torch.sin(self.scale)


def test_a_network_whose_parameters_have_no_rule_takes_torchs_forward_mode() -> None:
    """Assert the exact product where a parameter is written in place, for which dual numbers have no rule."""
    product, x, sigma, tangents = along(Worn("in place"), 1)
    with torch.no_grad():
        assert not product._ruled(x[:1], sigma)
    value, wanted = product(x, sigma, tangents)[1], plain(product, x, sigma, tangents)[1]
    assert_close(value, wanted, rtol=1e-12)


def test_a_planted_fault_in_a_rule_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a rule of half the slope in a parameter, where the state's product is right, is found and left."""

    def wrong(dual: duals.Dual) -> duals.Dual:
        return duals.Dual.of(torch.sin(dual.value), 0.5 * torch.cos(dual.value) * dual.tangents)

    for function in (torch.sin, Tensor.sin):
        monkeypatch.setitem(duals._RULES, function, wrong)
    product, x, sigma, tangents = along(Worn("through a sine"), 1)
    with torch.no_grad():
        faulty = product._by_rules(x, sigma, tangents)[1]
    values, wanted = product(x, sigma, tangents)[1], plain(product, x, sigma, tangents)[1]
    assert float((faulty - wanted).norm()) > 0.1 * float(wanted.norm())
    assert_close(values, wanted, rtol=1e-12)
