"""A score as a function of its network's parameters, one vector θ.

`torch.func.functional_call` puts other parameters into a module while it is called. Here the module is called by the
score, so that any score works whose module is known, adapters and closures too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sensitivity.jacobians.duals import Dual
from sensitivity.responses.response import module_of
from sensitivity.scores.score import Score


class Weights:
    """The parameters of a score.

    Args:
        score: s(x, σ).
        module: the network that it calls; None finds it in `as_score(module)`, or takes the score itself.
        names: which of its parameters answer, by the names of `module.named_parameters()`; None is all floating ones.

    Attributes:
        names: of the parameters, in the order in which they lie in a vector.
        vector: θ now, (P,).
        score, module: as given or found.

    Raises:
        ValueError, TypeError: where no module is known, or a name is not one of its parameters.
    """

    def __init__(self, score: Score, module: nn.Module | None = None, names: Sequence[str] | None = None):
        network = module_of(score) if module is None else module
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"score={type(score).__name__} shows no module with parameters; give module=network, the nn.Module "
                "that it calls."
            )
        known = {name: p.detach() for name, p in network.named_parameters() if p.dtype.is_floating_point}
        self.names = tuple(known if names is None else names)
        missing = [name for name in self.names if name not in known]
        if missing or not self.names:
            raise ValueError(
                f"parameters={missing or list(self.names)} are no floating parameters of {type(network).__name__}; "
                "give names out of module.named_parameters()."
            )
        values = [known[name] for name in self.names]
        self._shapes = [value.shape for value in values]
        self._sizes = [value.numel() for value in values]
        self.vector = torch.cat([value.reshape(-1) for value in values])
        self.score, self.module = score, network
        self._caller = _Caller(network, score)

    def __len__(self) -> int:
        return len(self.vector)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parts of a vector by the names of the parameters."""
        parts = vector.split(self._sizes)
        return {n: p.reshape(s) for n, p, s in zip(self.names, parts, self._shapes, strict=True)}

    def score_at(self, vector: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The score with parameters θ = vector."""
        return self._called_with(self.named(vector))

    def score_along(self, rates: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The score for dual states, whose parameters move too: θ with tangents θ̇_k, (K, P)."""
        values, moving = self.named(self.vector), [self.named(rate) for rate in rates]
        return self._called_with({n: Dual.of(v, torch.stack([each[n] for each in moving])) for n, v in values.items()})

    def _called_with(self, parameters: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        full = {f"module.{name}": value for name, value in parameters.items()}
        return lambda x, sigma: functional_call(self._caller, full, (x, sigma))


class _Caller(nn.Module):
    """Calls the score while `functional_call` holds other parameters in the module."""

    score: Any

    def __init__(self, module: nn.Module, score: Any):
        super().__init__()
        self.module = module
        # Not registered as a submodule: a score that is a module itself would be held twice.
        object.__setattr__(self, "score", score)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.score(x, sigma)
