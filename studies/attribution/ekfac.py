"""The eigenvalue-corrected Kronecker-factored curvature of a perceptron's training loss, and solutions with it.

For a layer with inputs a (a 1 and the noise's features among them) and gradients g at its outputs, the Gauss-Newton
matrix of its parameters is approximated by `(U_A ⊗ U_G) Λ (U_A ⊗ U_G)ᵀ`: U_A, U_G the eigenvectors of `E aaᵀ` and
`E ggᵀ`, Λ the mean squares of `U_Aᵀ a gᵀ U_G` (George et al. 2018, arXiv 1806.03884; in influence functions Grosse et
al. 2023, arXiv 2308.03296; of diffusion models Mlodozeniec et al. 2025, arXiv 2410.13850). Expectations are over
training points and their noises; g is of the residual along random signs, whose outer products have the Gauss-Newton
matrix as their mean. Each layer is damped by a tenth of its mean eigenvalue, as Grosse et al. do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studies.networks.mlp import Dense

__all__ = ["Layer", "layers", "solved"]

DAMPING = 0.1  # of a layer's mean eigenvalue
PROBES = 4  # random sign vectors a draw


@dataclass(frozen=True)
class Layer:
    """One layer's curvature.

    Attributes:
        names: of its parameters, whose rows follow each other.
        rows: how many rows each has.
        left, right: U_A (inputs, inputs) and U_G (outputs, outputs).
        eigenvalues: Λ (inputs, outputs).
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    left: Tensor
    right: Tensor
    eigenvalues: Tensor

    def solve(self, gradient: Tensor, damping: float = DAMPING) -> Tensor:
        """`(H + λ)⁻¹` times gradients (n, inputs, outputs), λ a share of the mean eigenvalue."""
        turned = self.left.T @ gradient @ self.right
        return self.left @ (turned / (self.eigenvalues + damping * self.eigenvalues.mean())) @ self.right.T


def layers(network: torch.nn.Module, residual: Any, batches: Any, probes: int = PROBES) -> list[Layer]:
    """The curvature of every `Dense` layer.

    Args:
        network: made of `Dense` layers.
        residual: of a batch, (n, …), whose summed squares are the loss of its n rows, but for a factor of ½.
        batches: arguments of the residual, all of them together the data.
        probes: sign vectors a row.

    Raises:
        ValueError: it has a parameter outside of such layers.
    """
    dense = {name: part for name, part in network.named_modules() if isinstance(part, Dense)}
    names = {f"{name}.{parameter}" for name, layer in dense.items() for parameter, _ in layer.named_parameters()}
    if names != {name for name, _ in network.named_parameters()}:
        raise ValueError("network has parameters outside of dense layers; the factored curvature knows perceptrons.")
    generator = torch.Generator().manual_seed(6)
    inputs: dict[str, list[Tensor]] = {name: [] for name in dense}
    slopes: dict[str, list[Tensor]] = {name: [] for name in dense}
    for batch in batches:
        for a, g in _pass(dense, residual, batch, probes, generator):
            for name in dense:
                inputs[name].append(a[name])
                slopes[name].append(g[name])
    return [_layer(name, dense[name], torch.cat(inputs[name]), torch.cat(slopes[name])) for name in dense]


def _pass(found: dict[str, Dense], residual: Any, batch: Any, probes: int, generator: torch.Generator) -> Any:
    """Inputs (n, inputs) and gradients (n, outputs) of every layer, a sign vector a row and probe."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(layer: Dense, given: tuple[Tensor, Tensor | None], out: Tensor) -> None:
            seen[name] = (_joined(layer, *given), out)

        return keep

    handles = [layer.register_forward_hook(hook(name)) for name, layer in found.items()]
    try:
        gap = residual(*batch)
    finally:
        for handle in handles:
            handle.remove()
    outputs = [seen[name][1] for name in found]
    for probe in range(probes):
        signs = (torch.randint(0, 2, gap.shape, generator=generator) * 2 - 1).to(gap)
        slopes = torch.autograd.grad((gap * signs).sum(), outputs, retain_graph=probe + 1 < probes)
        yield {name: seen[name][0] for name in found}, dict(zip(found, slopes, strict=True))


def _joined(layer: Dense, y: Tensor, features: Tensor | None) -> Tensor:
    """A layer's whole input, in the order weight, bias, noise."""
    parts = [y, torch.ones_like(y[:, :1])]
    if layer.noise is not None and features is not None:
        parts.append(features.expand(len(y), -1))
    return torch.cat(parts, 1).detach()


def _layer(name: str, layer: Dense, a: Tensor, g: Tensor) -> Layer:
    left, right = (torch.linalg.eigh((rows.T @ rows).double() / len(rows))[1].to(rows) for rows in (a, g))
    eigenvalues = (a @ left).square().T @ (g @ right).square() / len(a)
    owned = [each for each in ("weight", "bias", "noise") if getattr(layer, each) is not None]
    rows = tuple(len(getattr(layer, each)) for each in owned)
    return Layer(tuple(f"{name}.{each}" for each in owned), rows, left, right, eigenvalues)


def solved(of: Any, g: Tensor) -> Any:
    """`(H + λ)⁻¹` of gradients g (N, P) of a problem's points; NotImplemented for networks that are no perceptrons.

    Args:
        of: the network's gradients, as `studies.attribution.attributors.parameter_gradients` has them.
        g: one row a point.
    """
    sigma, noise = of.draws()
    weight = of.weight(sigma)[:, None, None, None]

    def residual(image: Tensor) -> Tensor:
        clean = image.expand(len(sigma), *image.shape)
        return weight * of.network(clean + sigma[:, None, None, None] * noise, sigma)

    try:
        curvatures = layers(of.network, residual, [(image,) for image in of.problem.data])
    except ValueError:
        return NotImplemented
    parts = dict(zip(of.names, g.split([size.numel() for size in of.sizes], dim=1), strict=True))
    shapes = dict(zip(of.names, of.sizes, strict=True))
    for layer in curvatures:
        block = torch.cat([parts[name].unflatten(1, shapes[name]) for name in layer.names], 1)
        turned = layer.solve(block).split(layer.rows, dim=1)
        parts |= {name: part.flatten(1) for name, part in zip(layer.names, turned, strict=True)}
    return torch.cat([parts[name] for name in of.names], 1)
