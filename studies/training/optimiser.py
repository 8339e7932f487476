"""Adam, the average of the parameters and the loss curve: all state of a run but the step number, as named tensors."""

import torch
from torch import Tensor, nn


class Optimiser:
    """Moves a network's parameters and averages them.

    Args:
        network: a network, or a stack of `members`. Adam acts element by element, so the members of a stack do not mix.
    """

    def __init__(self, network: nn.Module, members: int) -> None:
        self.parameters = dict(network.named_parameters())
        self.values = list(self.parameters.values())
        self.adam = torch.optim.Adam(self.values, lr=0.0, betas=(0.9, 0.99), fused=True)
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.curve: list[tuple[Tensor, int]] = []
        self.last = torch.zeros(members)

    def step(self, losses: Tensor, rate: float, share: float) -> None:
        """One step down the sum of the members' losses; `share` is the new parameters' weight in the average."""
        self.adam.param_groups[0]["lr"] = rate
        self.adam.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.adam.step()
        self.last = losses.detach()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [v.detach() for v in self.values], share)

    def record(self, window: int) -> None:
        """Add the last losses to a window of the loss curve, and refuse to go on from a loss that is not finite."""
        if window >= len(self.curve):
            self._finite()
            self.curve.append((self.last.clone(), 1))
        else:
            total, count = self.curve[-1]
            self.curve[-1] = (total + self.last, count + 1)

    def _finite(self) -> None:
        if not bool(torch.isfinite(self.last).all()):
            raise FloatingPointError(
                "the training loss is not finite: lower the recipe's learning rate or check the data."
            )

    def result(self) -> dict[str, Tensor]:
        """The averaged parameters, and the loss curve (members, windows) as "history"."""
        self._finite()
        return {**self.average, "history": torch.stack([total / count for total, count in self.curve], dim=1)}

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs, as named tensors."""
        tensors = {"curve": torch.stack([total for total, _ in self.curve], dim=1)}
        tensors["counts"] = torch.tensor([count for _, count in self.curve])
        for name, value in self.parameters.items():
            adam = self.adam.state[value]
            tensors |= {f"value {name}": value.detach(), f"average {name}": self.average[name]}
            tensors |= {f"{part} {name}": adam[part] for part in ADAM}
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a saved state."""
        counts = tensors["counts"].tolist()
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors[f"value {name}"])
                self.average[name].copy_(tensors[f"average {name}"])
                self.adam.state[value] = {part: tensors[f"{part} {name}"].to(value.device) for part in ADAM}
        self.curve = list(zip(tensors["curve"].to(self.values[0].device).unbind(1), counts, strict=True))


ADAM = ("step", "exp_avg", "exp_avg_sq")
