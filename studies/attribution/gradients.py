"""Attribution by gradients in the network's parameters, through dattri: TracIn over checkpoints, products and cosines
at the final network, TRAK, D-TRAK's features, influence functions.

Each training point carries fixed noise draws; its loss is their mean. The target is the functional itself,
`φ(x_0(θ))`, differentiated through the sampler: kinder to these methods than a loss at the sample. Up-weighting point
i moves θ by `−H⁻¹ g_i`, hence the sign of every product is reversed, so that positive means that φ rises. The damping
is a fixed share of the largest eigenvalue of a matrix of the training data alone; nothing is tuned on queries.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from studies.attribution.problem import Setup
from studies.networks import Denoiser
from studies.training import Objective

__all__ = ["GRADIENTS", "Task"]

Checkpoint = tuple[dict[str, Tensor], float]
DRAWS = 16
SHARES = (1e-3, 1e-1)  # dampings over the largest eigenvalue: a mild and a strong one, both reported
PROJECTION = 512
CG_STEPS = 20


def dattri(module: str, name: str) -> Any:
    """A class of dattri, whose import drags in parts of torch that warn of their own age."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(importlib.import_module(f"dattri.{module}"), name)


class Task:
    """Losses, targets and data loaders of one network, as dattri wants them.

    Args:
        setup: the problem.
        network: the trained denoiser.
        objective: the loss it was trained by.
        checkpoints: its parameters on the way, each with the learning rate there; the network alone by default.
    """

    def __init__(
        self, setup: Setup, network: Denoiser, objective: Objective, checkpoints: Sequence[Checkpoint] = ()
    ) -> None:
        self.setup, self.objective = setup, objective
        self.network = network.float().requires_grad_(True)
        self.checkpoints = tuple(checkpoints) or ((self.network.state_dict(), 1.0),)
        generator = torch.Generator().manual_seed(setup.seed)
        n, d = setup.data.shape
        # The quantile of 0 or 1 may be an unbounded level of a log-normal law.
        levels = objective.quantile(torch.rand(n, DRAWS, generator=generator).clamp(1e-4, 1 - 1e-4), network.scale)
        noise = torch.randn(n, DRAWS, d, generator=generator)
        self.train = DataLoader(TensorDataset(setup.data.float(), levels, noise), batch_size=n)
        self.queries = DataLoader(TensorDataset(setup.latents.float()), batch_size=8)

    def predict(self, params: dict[str, Tensor], data: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Clean data, levels and denoised draws, one row per draw."""
        clean, levels, noise = data
        clean = clean[..., None, :].expand(noise.shape)
        state = clean + levels[..., None] * noise
        flat = state.reshape(-1, state.shape[-1])
        out = functional_call(self.network, params, (flat, levels.reshape(-1)))
        return clean, levels, out.reshape(state.shape)

    def loss(self, params: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        """The training loss, averaged over points and draws."""
        clean, levels, out = self.predict(params, data)
        weight = self.objective.weight(levels, self.network.scale)
        return (weight * (out - clean).square().mean(-1)).mean()

    def size(self, params: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        """D-TRAK's feature: the mean squared norm of the network's output, weighted like the loss."""
        _, levels, out = self.predict(params, data)
        return (self.objective.weight(levels, self.network.scale) * out.square().mean(-1)).mean()

    def target(self, params: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        """`φ` of the sample from one latent (d,), by Heun's method on the sampler's grid."""
        x = data[0].reshape(1, -1)
        levels = self.setup.grid.levels.float()

        def slope(state: Tensor, sigma: Tensor) -> Tensor:
            return (state - functional_call(self.network, params, (state, sigma))) / sigma

        for high, low in pairwise(levels):
            first = slope(x, high)
            second = slope(x + (low - high) * first, low)
            x = x + 0.5 * (low - high) * (first + second)
        return self.setup.functional(x).sum()

    def dattri(self, loss: Callable[..., Tensor] | None = None, states: list[Any] | None = None) -> Any:
        """The task in dattri's form, at the trained network or at given parameters."""
        made = dattri("task", "AttributionTask")
        return made(
            loss_func=loss or self.loss,
            model=self.network,
            checkpoints=states or self.network.state_dict(),
            target_func=self.target,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """dattri draws progress bars on standard error."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def tracin(task: Task) -> np.ndarray:
    """Products of gradients summed over checkpoints by learning rate (Pruthi et al. 2020, arXiv 2002.08484)."""
    states, rates = zip(*task.checkpoints, strict=True)
    return products(task, list(states), torch.tensor(rates))


def products(
    task: Task, states: list[Any] | None = None, weights: Tensor | None = None, normalised: bool = False
) -> np.ndarray:
    """Products of whole gradients, at the final network by default; normalised: their cosines."""
    given = torch.ones(1) if weights is None else weights
    attributor = dattri("algorithm.tracin", "TracInAttributor")(
        task.dattri(states=states), weight_list=given, normalized_grad=normalised
    )
    attributor.projector_kwargs = None  # it projects at random by default, which keeps products only roughly
    with quiet(), torch.no_grad():
        return -attributor.attribute(task.train, task.queries).numpy().T


def trak(
    task: Task, share: float = SHARES[0], loss: Callable[..., Tensor] | None = None, sign: float = -1.0
) -> np.ndarray:
    """Projected gradients and the inverse of their Gram matrix (Park et al. 2023, arXiv 2303.14186)."""
    made = task.dattri(loss)
    attributor = dattri("algorithm.trak", "TRAKAttributor")(
        made,
        correct_probability_func=lambda params, data: torch.zeros(()),
        projector_kwargs=_projection(),
        regularization=share * _largest_gram(task, made),
    )
    with quiet(), torch.no_grad():
        attributor.cache(task.train)
        return sign * attributor.attribute(task.queries).numpy().T


def d_trak(task: Task, share: float = SHARES[0]) -> np.ndarray:
    """TRAK with the squared norm of the output in place of the loss (Zheng et al. 2024, arXiv 2311.00500).

    How that feature moves with the loss is left open by the method; its sign is that of the mean product of the two
    gradients over the training points.
    """
    first, second = (_gradients(task.dattri(f), task.train) for f in (task.loss, task.size))
    return trak(task, share, task.size, sign=-float(torch.sign((first * second).sum(1).mean())))


def influence_function(task: Task, share: float = SHARES[0]) -> np.ndarray:
    """`−∇φ·H⁻¹ g_i`, the training loss's Hessian by conjugate gradients (Koh & Liang 2017, arXiv 1703.04730)."""
    damping = share * _largest_hessian(task)
    made = dattri("algorithm.influence_function", "IFAttributorCG")
    attributor = made(task.dattri(), max_iter=CG_STEPS, mode="rev-fwd", regularization=damping)
    with quiet(), torch.no_grad():  # else every iteration's graph is kept, and memory with it
        attributor.cache(task.train)
        return -attributor.attribute(task.train, task.queries).detach().numpy().T


def _projection() -> dict[str, Any]:
    return {"proj_dim": PROJECTION, "proj_max_batch_size": 32, "proj_seed": 0, "device": "cpu"}


def _gradients(made: Any, loader: DataLoader[Any]) -> Tensor:
    """Gradients of the loss at every training point (N, parameters)."""
    parameters, _ = made.get_param(ckpt_idx=0)
    gradient = made.get_grad_loss_func(in_dims=(None, 0))
    return torch.cat([gradient(parameters, tuple(batch)).detach() for batch in loader])


def _largest_gram(task: Task, made: Any) -> float:
    """Largest eigenvalue of the Gram matrix of the training gradients, in dattri's scaling."""
    rows = _gradients(made, task.train)
    return float(torch.linalg.matrix_norm(rows, 2) ** 2) / rows.shape[1]


def _largest_hessian(task: Task, steps: int = 20) -> float:
    """Largest eigenvalue (in absolute value) of the training loss's Hessian, by power iteration."""
    batch = tuple(next(iter(task.train)))
    params = {name: value.detach() for name, value in task.network.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    vector = {name: torch.randn(value.shape, generator=generator) for name, value in params.items()}
    size = 0.0

    def loss(p: dict[str, Tensor]) -> Tensor:
        return task.loss(p, batch)

    for _ in range(steps):
        norm = torch.sqrt(sum(v.square().sum() for v in vector.values()) + torch.zeros(()))
        vector = {name: v / norm for name, v in vector.items()}
        vector = torch.func.jvp(torch.func.grad(loss), (params,), (vector,))[1]
        size = float(torch.sqrt(sum(v.square().sum() for v in vector.values()) + torch.zeros(())))
    return size


GRADIENTS: dict[str, Callable[[Task], np.ndarray]] = {
    "TracIn": tracin,
    "gradient product": products,
    "gradient cosine": partial(products, normalised=True),
    **{
        f"{name}, damping {share:g}": partial(method, share=share)
        for name, method in (("TRAK", trak), ("D-TRAK features", d_trak), ("influence function", influence_function))
        for share in SHARES
    },
}
