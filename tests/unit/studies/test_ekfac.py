"""The factored curvature: against curvlinops, and where the approximation is exact."""

from __future__ import annotations

import pytest
import torch

from studies.attribution.ekfac import layers
from studies.networks import Architecture, build
from studies.networks.mlp import Dense


class Plain(torch.nn.Module):
    """Two dense layers without noise features."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = Dense(4, 5, conditioned=False, zero=False, generator=generator)
        self.last = Dense(5, 3, conditioned=False, zero=False, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 4) to (n, 3)."""
        return self.last(torch.nn.functional.silu(self.first(x, None)), None)


def test_it_is_that_of_curvlinops():
    """Assert the product of the operator with a vector, of the mean squared error (no extra has it)."""
    curvlinops = pytest.importorskip("curvlinops")
    network, x = Plain().double(), torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    twin = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.SiLU(), torch.nn.Linear(5, 3)).double()
    for each, other in ((network.first, twin[0]), (network.last, twin[2])):
        other.weight.data, other.bias.data = each.weight.data.T.clone(), each.bias.data[0].clone()
    known = curvlinops.EKFACLinearOperator(
        twin,
        torch.nn.MSELoss(),
        list(twin.parameters()),
        [(x, torch.zeros(40, 3, dtype=torch.float64))],
        fisher_type="type-2",
        separate_weight_and_bias=False,
    )
    generator = torch.Generator().manual_seed(2)
    vectors = [torch.randn(part.shape, dtype=torch.float64, generator=generator) for part in twin.parameters()]
    expected = known @ vectors
    curvatures = layers(network, lambda rows: (2 / 3) ** 0.5 * network(rows), [(x,)], probes=4000)
    for layer, k in zip(curvatures, (0, 2), strict=True):
        block = torch.cat([vectors[k].T, vectors[k + 1][None]])
        product = layer.left @ (layer.eigenvalues * (layer.left.T @ block @ layer.right)) @ layer.right.T
        wanted = torch.cat([expected[k].T, expected[k + 1][None]])
        assert (product - wanted).norm() < 0.03 * wanted.norm()  # signs are drawn


def test_of_a_linear_network_it_is_the_matrix_itself():
    """Assert the damped solution of one layer, whose Gauss-Newton matrix is a Kronecker product."""
    layer = Dense(3, 2, conditioned=False, zero=False, generator=torch.Generator().manual_seed(0)).double()
    network = torch.nn.ModuleDict({"only": layer})
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (value,) = layers(network, lambda rows: layer(rows, None), [(x,)], probes=2000)
    rows = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], 1)
    matrix = torch.kron((rows.T @ rows) / 50, torch.eye(2, dtype=torch.float64))
    damped = matrix + 0.1 * matrix.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    g = torch.randn(1, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = torch.linalg.solve(damped, g.flatten())
    assert (value.solve(g).flatten() - expected).norm() < 0.03 * expected.norm()


def test_other_networks_are_refused():
    """Assert a sentence for a network with convolutions."""
    network = build(Architecture("unet", width=4, depth=2), (1, 8, 8), centre=torch.zeros(1, 8, 8), scale=1.0, seed=0)
    with pytest.raises(ValueError, match="knows perceptrons"):
        layers(network, lambda x: network(x, 1.0), [])
