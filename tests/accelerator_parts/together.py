"""Networks of any kind side by side: one vectorised call steps all of them, as for stacked perceptrons.

`studies.training.train_many` stacks perceptrons and trains others one after the other, which suits a processor. On a
GPU a small network's step is launches and not arithmetic, so that eight convolutional networks cost little more than
one. The run is that of the studies (recipe, batches, seeds, optimiser); only the network is a vectorised one.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from studies.networks import Denoiser
from studies.training import Recipe, Trained
from studies.training.batches import Batches
from studies.training.loop import TrainingRun


class Together(nn.Module):
    """Denoisers of one architecture and scale as one: x (members, batch, *shape), σ (members, batch).

    Parameters have a leading axis of members and the members' names with "." written as "/".

    Args:
        networks: the members before training.
        unfolded: convolutions as batched products, see `Unfolded`.

    Example:
        >>> from studies.networks import Architecture, build
        >>> pair = [build(Architecture("unet", 4, 2), (1, 6, 6), seed=seed) for seed in (0, 1)]
        >>> Together(pair)(torch.zeros(2, 3, 1, 6, 6), torch.ones(2, 3)).shape
        torch.Size([2, 3, 1, 6, 6])
    """

    def __init__(self, networks: Sequence[Denoiser], *, unfolded: bool = False) -> None:
        super().__init__()
        first, self.unfolded = networks[0], unfolded
        self.scale, self.shape = first.scale, first.shape
        # Kept out of the module's own parameters: it lends its code only.
        self._single = [copy.deepcopy(first).requires_grad_(False)]
        self.members, self.centres = torch.func.stack_module_state(list(networks))
        for name, value in self.members.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach().clone()))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised states, member by member."""
        single = self._single[0].to(x.device)
        values = {name: self.get_parameter(name.replace(".", "/")) for name in self.members}
        centres = {name: value.to(x.device) for name, value in self.centres.items()}

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, sigma: Tensor) -> Tensor:
            return torch.func.functional_call(single, (parameters, buffers), (x, sigma))

        with Unfolded() if self.unfolded else contextlib.nullcontext():
            return cast("Tensor", torch.func.vmap(one)(values, centres, x, sigma))

    def split(self) -> list[Denoiser]:
        """The members, each a network of its own, on the host."""
        values = []
        for index in range(len(next(self.parameters()))):
            network = copy.deepcopy(self._single[0]).cpu()
            table = {name: self.get_parameter(name.replace(".", "/"))[index].detach().cpu() for name in self.members}
            network.load_state_dict(table, strict=False)
            values.append(network.eval().requires_grad_(False))
        return values


class Unfolded(TorchFunctionMode):
    """Convolutions of stride 1 whose images keep their size, as one product of all windows with the weights.

    Side by side, convolutions become one with a group for each member, which GPUs' libraries do slowly where there are
    many narrow groups; as products they are one batched product.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not functional.conv2d:
            return func(*args, **(kwargs or {}))
        return by_windows(*args, **(kwargs or {}))


def by_windows(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` of x (n, inputs, h, w) with weight (outputs, inputs, k, k), k odd.

    Raises:
        ValueError: for a convolution that is not of stride 1 with images that keep their size.
    """
    outputs, inputs, k = weight.shape[:3]
    (n, _, h, w), ends = x.shape, _pair(padding)
    if (_pair(stride), _pair(dilation), groups, ends) != ((1, 1), (1, 1), 1, (k // 2, k // 2)):
        raise ValueError(f"stride={stride}, padding={padding}, dilation={dilation}, groups={groups} with k={k}: only "
                         "convolutions that keep the image's size are written as products.")  # fmt: skip
    wide = functional.pad(x, (k // 2,) * 4).permute(0, 2, 3, 1)
    windows = [wide[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
    product = torch.cat(windows, dim=-1).reshape(n * h * w, k * k * inputs) @ weight.permute(2, 3, 1, 0).reshape(
        k * k * inputs, outputs
    )
    product = product if bias is None else product + bias
    return product.reshape(n, h, w, outputs).permute(0, 3, 1, 2)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


class TogetherRun(TrainingRun):
    """A run of the studies whose networks, of any kind, step together."""

    def fresh(self) -> Denoiser:
        """The vectorised network before training, on the device."""
        return cast("Denoiser", Together(self._before()).to(self.device).train())

    def _losses(self, network: Denoiser, batches: Batches, step: int) -> Tensor:
        return self.recipe.objective.losses(network, batches.draw(step)).mean(dim=-1)

    def finished(self, tensors: dict[str, Tensor]) -> list[Trained]:
        """The networks that hold the given averaged parameters."""
        network, history = self.fresh(), tensors.pop("history")
        network.load_state_dict(tensors, strict=False)
        members = cast("Together", network).split()
        return [Trained(member, each) for member, each in zip(members, history.cpu(), strict=True)]


def train_together(recipe: Recipe, pool: Tensor, seeds: Sequence[int], device: str) -> list[Trained]:
    """Networks of several seeds on equally weighted data, trained as `studies.training.train` trains each of them."""
    run = TogetherRun(recipe, pool, (None,) * len(seeds), tuple(seeds), None, device)
    return run.finished(run.result(None, None))
