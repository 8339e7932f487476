"""Many multilayer perceptrons as one network: every parameter gains a leading axis."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from studies.networks.mlp import MLP
from studies.networks.precondition import Denoiser


def stack(networks: Sequence[Denoiser]) -> Denoiser:
    """One network that maps x (members, batch, *shape), σ (members, batch) as the given ones do, member by member.

    Raises:
        ValueError: unless all are MLPs of one architecture, shape and scale.

    Example:
        >>> from studies.networks import Architecture, build
        >>> pair = [build(Architecture(width=8, depth=1), (2,), seed=seed) for seed in (0, 1)]
        >>> stack(pair)(torch.zeros(2, 5, 2), torch.ones(2, 5)).shape
        torch.Size([2, 5, 2])
    """
    first = networks[0]
    alike = all(isinstance(n.body, MLP) and n.scale == first.scale and _shapes(n) == _shapes(first) for n in networks)
    if not alike:
        raise ValueError(
            "networks can be stacked only if all are MLPs of one architecture, shape and scale: train others singly."
        )
    joint = copy.deepcopy(first)
    for name, parameter in joint.named_parameters():
        parameter.data = torch.stack([dict(n.named_parameters())[name].data for n in networks])
    joint.centre = torch.stack([n.centre for n in networks]).unsqueeze(1)
    return joint


def split(joint: Denoiser) -> list[Denoiser]:
    """The members of a stack, each a network of its own."""
    return [_member(joint, index) for index in range(len(joint.centre))]


def _member(joint: Denoiser, index: int) -> Denoiser:
    network = copy.deepcopy(joint)
    for parameter in network.parameters():
        parameter.data = parameter.data[index].clone()
    network.centre = joint.centre[index, 0].clone()
    return network


def _shapes(network: nn.Module) -> list[torch.Size]:
    return [p.shape for p in network.parameters()]
