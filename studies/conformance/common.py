"""What the checks share: exact networks of a known law in every parametrisation, exact ends of its flow, verdict rows.

For `z = α x + σ ε`, `x` drawn from a Gaussian mixture: the data prediction is `E[x | z]`, the noise prediction
`E[ε | z] = −σ ∇log p(z)`, the velocity `α̇ E[x | z] + σ̇ E[ε | z]`, all in closed form. A package is given these as its
network, on its real code; what it computes from them is held against the same law.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from oracles import flow
from studies.verification.draws import smallest_p
from studies.verification.laws import law, oracle

__all__ = ["Check", "Exact", "Measured", "converging", "exact", "installed", "largest", "lawful", "order", "relative"]

ORDER_SLACK = 0.4
SMALLEST_P = 1e-6


@dataclass(frozen=True)
class Measured:
    """One measurement: an error and what is allowed.

    Attributes:
        error: in the unit that `unit` says.
        allowed: the largest error that counts as agreement.
        unit: `relative` (median over rows), `nats` (largest), `p` (a p-value: here more is better), `standard errors`.
        order: observed order of convergence, NaN where there is none.
        expected: the order that the package states, NaN where none is judged.
        note: a sentence for the table.
    """

    error: float
    allowed: float
    unit: str = "relative"
    order: float = float("nan")
    expected: float = float("nan")
    note: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the error is allowed (NaN never is) and the order, where one is stated, is at least near it."""
        right = self.error >= self.allowed if self.unit == "p" else self.error <= self.allowed
        return right and not self.order < self.expected - ORDER_SLACK


@dataclass(frozen=True)
class Check:
    """One thing a package computes.

    Attributes:
        package: distribution name.
        name: unique within the package, safe as a file name.
        quantity: `schedule`, `conversion`, `density`, `divergence`, `sampler`, `solver`, `law`.
        shape: `flat`, `image` or `none`.
        run: the measurement, given a seed and a size (1 for smoke, 2 quick, 4 full); None where not applicable.
        note: why it is not applicable, or what is special.
    """

    package: str
    name: str
    quantity: str
    shape: str
    run: Callable[[int, int], Measured] | None
    note: str = ""


def of_package(package: str) -> Callable[..., Check]:
    """`Check` with its first argument given: checks of one package are listed by it."""
    return partial(Check, package)


def flat_of_package(package: str) -> Callable[..., Check]:
    """The same for a package whose checks are all on flat states: name, quantity, run and note."""

    def check(name: str, quantity: str, run: Callable[[int, int], Measured] | None, note: str = "") -> Check:
        return Check(package, name, quantity, "flat", run, note)

    return check


def installed(package: str) -> str:
    """The installed version, or an empty string."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Exact:
    """A law of the verification suite as exact networks (torch, float64); states have shape (n, *shape).

    Args:
        name: the law's name in `studies.verification.laws`.
        shape: shape of one state; flat by default.
    """

    def __init__(self, name: str, shape: tuple[int, ...] = ()) -> None:
        given = law(name)
        self.numpy = oracle(given)
        self.torch = oracle(given.map(torch.tensor))
        self.dimension = given.dimension
        self.shape = shape or (given.dimension,)

    def data(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`E[x | z]`."""
        return self.torch.denoiser(self._flat(z) / alpha, sigma / alpha).reshape(z.shape)

    def score(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`∇ log p(z)`."""
        return self.torch.noised(sigma, alpha).score(self._flat(z)).reshape(z.shape)

    def noise(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """`E[ε | z]`."""
        return -sigma * self.score(z, alpha, sigma)

    def velocity(self, z: Tensor, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor) -> Tensor:
        """`α̇ E[x | z] + σ̇ E[ε | z]`: no quotient that fails at either end."""
        return d_alpha * self.data(z, alpha, sigma) + d_sigma * self.noise(z, alpha, sigma)

    def log_density(self, x: Tensor) -> Tensor:
        """`log ρ(x)` of the data law itself."""
        return self.torch.log_density(self._flat(x))

    def states(self, n: int, sigma: float, seed: int) -> Tensor:
        """Draws from the law noised to σ (n, *shape), variance-exploding coordinates; σ = 0 gives data."""
        drawn = self.numpy.sample(n, seed)
        drawn = drawn + sigma * np.random.default_rng([seed, 1]).standard_normal(drawn.shape)
        return torch.tensor(drawn).reshape(n, *self.shape)

    def end(self, x: Tensor, sigma_max: float, sigma_min: float) -> Tensor:
        """Where the exact flow carries `x` from σ_max to σ_min (1e-5 stands for zero)."""
        flat = self._flat(x).detach().numpy()
        return torch.tensor(flow.sample(self.numpy, flat, sigma_max, max(sigma_min, 1e-5), 1e-9)).reshape(x.shape)

    def _flat(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[: z.ndim - len(self.shape)], self.dimension)


@cache
def exact(name: str = "five", shape: tuple[int, ...] = ()) -> Exact:
    """The exact networks of a law, built once."""
    return Exact(name, shape)


def relative(value: Tensor, truth: Tensor) -> float:
    """Median over rows of `|value − truth| / |truth|`."""
    gap = (value.double() - truth).flatten(1).norm(dim=1)
    return float((gap / truth.flatten(1).norm(dim=1)).median())


def largest(value: Tensor, truth: Tensor) -> float:
    """Largest relative difference of two tensors, over the largest entry of the truth."""
    return float((value.double() - truth).abs().max() / truth.abs().max())


def order(sizes: list[int], errors: list[float]) -> float:
    """Slope of −log error in log size (least squares)."""
    if min(errors) <= 0 or not np.all(np.isfinite(errors)):
        return float("nan")
    return float(-np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def converging(
    run: Callable[[int], Tensor],
    truth: Tensor,
    sizes: list[int],
    allowed: float,
    expected: float = float("nan"),
    note: str = "",
) -> Measured:
    """Error of the finest of several discretisations, with the observed order."""
    errors = [relative(run(size), truth) for size in sizes]
    return Measured(errors[-1], allowed, order=order(sizes, errors), expected=expected, note=note)


def lawful(draws: Tensor, name: str, sigma: float, note: str = "") -> Measured:
    """Smallest p-value of the draws' projections against the exact law noised to σ."""
    value, _ = smallest_p(exact(name).numpy, draws.double().flatten(1).numpy(), sigma)
    return Measured(value, SMALLEST_P, "p", note=note)
