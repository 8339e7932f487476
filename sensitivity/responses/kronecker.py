"""Curvature by Kronecker factors of each layer, from the package curvlinops.

For losses ℓ = |R|² the Gauss-Newton matrix of a layer is near A ⊗ B, A the second moment of its inputs and B that of
the derivatives of R in its outputs (K-FAC, Martens & Grosse 2015, arXiv 1503.05671); EK-FAC keeps the eigenvectors and
takes the eigenvalues anew (George et al. 2018, arXiv 1806.03884). B is sampled with a fixed seed. A solution is two
small products a layer, whatever the number of right sides, and linear in them.

The package asks for torchvision and uses none of it here: where that does not fit the torch at hand, install it with
`--no-deps`, with its own backpack-for-pytorch, einconv, einops, linear_operator, opt-einsum and unfoldNd.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sensitivity.responses.curvature import SHARE, Curvature, GaussNewton

LAYERS = (nn.Linear, nn.Conv2d)


def covered(module: nn.Module) -> list[str]:
    """Names of the parameters that have Kronecker factors: those of linear and 2-d convolution layers.

    The projections inside `nn.MultiheadAttention` are called without their layer and have none.
    """
    names: list[str] = []
    closed = [name for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)]
    for name, part in module.named_modules():
        if isinstance(part, LAYERS) and not any(name.startswith(f"{outer}.") for outer in closed):
            names += [
                f"{name}.{parameter}" if name else parameter for parameter, _ in part.named_parameters(recurse=False)
            ]
    return names


class Kronecker(Curvature):
    """(H + λ)⁻¹ with H by Kronecker factors.

    Raises:
        ImportError: without curvlinops.
        ValueError: for a loss without `residual`.
    """

    def __init__(self, matrix: GaussNewton, damping: float | None, kind: str, seed: int):
        if not callable(getattr(matrix.data.loss, "residual", None)):
            raise ValueError(
                f"curvature={kind!r} needs loss.residual(score, x0, sigma, noise) -> (batch, d) with loss = |R|²; give "
                "it to your loss, use DenoisingLoss, or curvature='ggn'."
            )
        package = _package()
        self.damping = SHARE * matrix.mean_eigenvalue() if damping is None else damping
        module = matrix.data.weights.module
        parameters = [module.get_parameter(name) for name in matrix.data.weights.names]
        operator = {"kfac": package.KFACLinearOperator, "ekfac": package.EKFACLinearOperator}[kind]
        with _recorded(parameters):
            factors = operator(
                _Residual(matrix),
                nn.MSELoss(reduction="sum"),
                parameters,
                _batches(matrix),
                check_deterministic=False,
                seed=seed,
                num_per_example_loss_terms=1,
                num_data=len(matrix.pairs),
                batch_size_fn=lambda rows: len(rows["sigma"]),
            )
            self._inverse = package.KFACInverseLinearOperator(factors, damping=self.damping, use_exact_damping=True)
            self.solve(matrix.data.weights.vector[None])  # the factors are made at the first product
        matrix.data.evaluations += (1 if kind == "kfac" else 2) * len(matrix.pairs)

    def solve(self, vectors: Tensor) -> Tensor:
        """Layer by layer."""
        return (self._inverse @ vectors.T).T


class _Residual(nn.Module):
    """√c R for rows of a batch, as one network whose layers are the score's."""

    def __init__(self, matrix: GaussNewton):
        super().__init__()
        self.module = matrix.data.weights.module
        object.__setattr__(self, "data", matrix.data)

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        data: Any = self.data
        residual = data.loss.residual(data.weights.score, rows["x0"], rows["sigma"], rows["noise"])
        # The package squares what the network gives: a share of the loss is a factor √c of the residual.
        return residual * rows["share"].sqrt()[:, None]


def _batches(matrix: GaussNewton) -> list[tuple[dict[str, Tensor], Tensor]]:
    data, batches = matrix.data, []
    parts = (matrix.pairs.split(data.block), matrix.shares.split(data.block))
    for pairs, shares in zip(*parts, strict=True):
        x0, sigma, noise = data.rows(data.data.data.detach(), pairs)
        rows = {"x0": x0, "sigma": sigma, "noise": noise, "share": shares}
        batches.append((rows, torch.zeros_like(x0.flatten(1))))
    return batches


@contextmanager
def _recorded(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Frozen parameters take part in the graph for a while."""
    frozen = [p for p in parameters if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _package() -> Any:
    try:
        return importlib.import_module("curvlinops")
    except ImportError as error:
        raise ImportError(
            "curvature='kfac' and 'ekfac' need the package curvlinops: install curvlinops-for-pytorch, or use "
            "curvature='ggn'."
        ) from error
