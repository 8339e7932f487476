"""What laws and perturbations may offer beyond the least, asked by `isinstance` where one of them can do more.

They say it by their methods, not by a base class, so that a user's own law can take part. Conversion and the line stand
below the mixtures and know them by these too.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Convertible(Protocol):
    """A law or perturbation of arrays in any library, which can be had in NumPy float64."""

    def numpy(self) -> Any: ...


@runtime_checkable
class Law(Protocol):
    """What flows as it stands; a perturbation has no noise of its own, and says by `at` which law is meant."""

    def noised(self, sigma: Any) -> Any: ...


@runtime_checkable
class Joint(Protocol):
    """A law that gives log density and score from one pass."""

    def log_density_and_score(self, x: Any) -> tuple[Any, Any]: ...


@runtime_checkable
class Gaussians(Protocol):
    """A Gaussian mixture of any library, by its parameters."""

    dimension: Any
    weights: Any
    means: Any
    covariances: Any


@runtime_checkable
class Grouped(Gaussians, Protocol):
    """One whose components come in groups of a common covariance representation."""

    groups: Any
    size: int


@runtime_checkable
class Contamination(Protocol):
    """`ρ_η = (1 − η) base + η toward`; other shares than 0 are asked of `at`."""

    base: Any
    toward: Any


@runtime_checkable
class Differentiable(Protocol):
    """A perturbation known by ṡ (and s̈) at η = 0."""

    base: Any

    def score_derivative(self, x: Any, sigma: Any, order: int = 1) -> Any: ...


@runtime_checkable
class TwiceDifferentiable(Differentiable, Protocol):
    """One that knows ∇ṡ v too, as second order needs."""

    def score_derivative_product(self, x: Any, sigma: Any, v: Any) -> Any: ...
