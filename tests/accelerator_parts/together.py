"""Networks of any kind side by side: one vectorised call steps all of them, as for stacked perceptrons.

`studies.training.train_many` stacks perceptrons and trains others one after the other, which suits a processor. On a
GPU a small network's step is launches and not arithmetic, so that eight convolutional networks cost little more than
one. The run is that of the studies (recipe, batches, seeds, optimiser); only the network is a vectorised one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from studies.networks import Denoiser
from studies.training import Recipe, Trained
from studies.training.batches import Batches
from studies.training.loop import Run


class Together(nn.Module):
    """Denoisers of one architecture and scale as one: x (members, batch, *shape), σ (members, batch).

    Parameters have a leading axis of members and the members' names with "." written as "/".

    Example:
        >>> from studies.networks import Architecture, build
        >>> pair = [build(Architecture("unet", 4, 2), (1, 6, 6), seed=seed) for seed in (0, 1)]
        >>> Together(pair)(torch.zeros(2, 3, 1, 6, 6), torch.ones(2, 3)).shape
        torch.Size([2, 3, 1, 6, 6])
    """

    def __init__(self, networks: Sequence[Denoiser]) -> None:
        super().__init__()
        first = networks[0]
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

        return cast("Tensor", torch.func.vmap(one)(values, centres, x, sigma))

    def split(self) -> list[Denoiser]:
        """The members, each a network of its own, on the host."""
        found = []
        for index in range(len(next(self.parameters()))):
            network = copy.deepcopy(self._single[0]).cpu()
            own = {name: self.get_parameter(name.replace(".", "/"))[index].detach().cpu() for name in self.members}
            network.load_state_dict(own, strict=False)
            found.append(network.eval().requires_grad_(False))
        return found


class TogetherRun(Run):
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
        return [Trained(member, own) for member, own in zip(members, history.cpu(), strict=True)]


def train_together(recipe: Recipe, pool: Tensor, seeds: Sequence[int], device: str) -> list[Trained]:
    """Networks of several seeds on equally weighted data, trained as `studies.training.train` trains each of them."""
    run = TogetherRun(recipe, pool, (None,) * len(seeds), tuple(seeds), None, device)
    return run.finished(run.result(None, None))
