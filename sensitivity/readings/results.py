"""What `sample_sensitivity` returns, and how chunks of it are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from sensitivity.grid import Grid
from sensitivity.readings.chunks import Latents, joined
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcomes


@dataclass(frozen=True)
class Trajectory:
    """The path of a run, level by level, σ_max first.

    Attributes:
        levels: σ_k, (n + 1,), float64.
        states: x(σ_k), (n + 1, batch, *shape).
        sensitivity: δ(σ_k), (n + 1, batch, *shape); (n + 1, K, batch, *shape) for K perturbations.
        log_ratio: log r at x(σ_k) in nats, (n + 1, batch) or (n + 1, K, batch).
        log_density: log p_σk at x(σ_k), (n + 1, batch), or None; (n + 1, branches, batch) under guidance.
        log_density_error: its standard error.
        grid_error: the grid's error of `log_density` in nats.
    """

    levels: Tensor
    states: Annotated[Tensor, Latents(1)]
    sensitivity: Annotated[Tensor, Latents(2, "directions")]
    log_ratio: Annotated[Tensor, Latents(2, "directions")]
    log_density: Annotated[Tensor | None, Latents(2, "maps")]
    log_density_error: Annotated[Tensor | None, Latents(2, "maps")]
    grid_error: Annotated[Tensor | None, Latents(2, "maps")]


@dataclass(frozen=True)
class SampleSensitivity:
    """Samples with their derivatives in the mass moved.

    Attributes:
        samples: x(σ_min), (batch, *shape).
        sensitivity: δ = dx/dη per unit mass, (batch, *shape); (K, batch, *shape) for a sequence of K perturbations.
        log_ratio: log r = log ν_σ − log p_σ in nats at x(σ_min), (batch,) or (K, batch); NaN where a sample halted.
        log_density: log p_σ_min at the samples in nats, (batch,), or None where the perturbation needs none; under
            guidance one row a branch.
        log_density_error: its standard error from independent probe groups; 0 for an exact trace, NaN for one probe.
        grid_error: the grid's error of `log_density` in nats (see `Estimate`); NaN along a stochastic path.
        standard_error: of `sensitivity`, elementwise, or None if not asked for.
        bias: jackknife estimate of the bias of `sensitivity` through exp of a noisy log-ratio, or None.
        curvature: ζ = d²x/dη², like `sensitivity`, or None for order 1.
        outcome: how each sample ended.
        cost: network evaluations, Jacobian products and sources per sample.
        grid: the noise levels; those that an adaptive solver accepted.
        trajectory: the same quantities at every level, or None if not asked for.
        product_error: stated error of the Jacobian products, 0 for exact ones (see `Products`), relative to the larger
            of the denoiser's product and the tangent; above .1 no sample is called finished.
        sensitivity_error: stated error of `sensitivity`, an upper estimate of the norm |δ − δ_exact| for each sample,
            (batch,) or (K, batch), δ_exact being that of the score's exact flow from the same latent: the solver's
            truncation, the stated errors of the log densities (grid and probes) through exp(log r), and
            `product_error`. The anchor's error and the score's own are in it no more than in `log_density`. NaN where
            a sample halted and along a stochastic path.
        products: how they were taken, network by network, such as `"forward (rules)"`; the same name gives the same
            bits again.
    """

    samples: Annotated[Tensor, Latents()]
    sensitivity: Annotated[Tensor, Latents(1, "directions")]
    log_ratio: Annotated[Tensor, Latents(1, "directions")]
    log_density: Annotated[Tensor | None, Latents(1, "maps")]
    log_density_error: Annotated[Tensor | None, Latents(1, "maps")]
    grid_error: Annotated[Tensor | None, Latents(1, "maps")]
    standard_error: Annotated[Tensor | None, Latents(1, "directions")]
    bias: Annotated[Tensor | None, Latents(1, "directions")]
    curvature: Annotated[Tensor | None, Latents(1, "directions")]
    outcome: Outcomes
    cost: Cost
    grid: Grid
    trajectory: Trajectory | None = None
    product_error: float = 0.0
    sensitivity_error: Annotated[Tensor | None, Latents(1, "directions")] = None
    products: str = ""

    def predict(self, eta: float) -> Tensor:
        """x + ηδ (+ ½η²ζ where it is known): the samples after mass η, like `sensitivity`."""
        first = self.samples + eta * self.sensitivity
        return first if self.curvature is None else first + 0.5 * eta**2 * self.curvature

    def trust_radius(self, share: float = 0.1) -> Tensor:
        """η at which the second-order term reaches `share` of the first, 2·share·|δ|/|ζ|, per sample.

        Raises:
            ValueError: if `sample_sensitivity` was not asked for order 2.
        """
        if self.curvature is None:
            raise ValueError("the trust radius needs the second derivative; call sample_sensitivity with order=2.")
        lead = self.sensitivity.ndim - self.samples.ndim + 1
        first, second = self.sensitivity.flatten(lead).norm(dim=-1), self.curvature.flatten(lead).norm(dim=-1)
        return 2 * share * first / second


def of_chunks(parts: Sequence[SampleSensitivity], single: bool) -> SampleSensitivity:
    """Consecutive chunks as one result; `single` says that one perturbation was given and not a sequence."""
    whole = joined(parts, directions=single)
    paths = [part.trajectory for part in parts if part.trajectory is not None]
    return replace(whole, trajectory=joined(paths, directions=single)) if paths else whole
