"""The answer of a network that looks at patches.

A convolutional network denoises a pixel by what lies around it, near a machine that compares patches with those of the
data (Kamb & Ganguli 2024, arXiv 2412.20292). The machine's answer to mass that moves toward ν is

    Ḋ_u = r_u (D^ν_u − D_u),    r_u = Z^ν_u/Z^ρ_u,    ṡ_u = Ḋ_u/τ²,

pixel by pixel, with `patches`' symbols and τ² = σ² + b². Whole images for patches give the ratio of two kernel
densities back. Mass η moved gives D^η_u = D_u + η r_u (D^ν_u − D_u)/(1 − η + η r_u), exactly.

The machine supplies ṡ only: samples, and the transport of ṡ along them, are the network's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sensitivity._checks import check_same_home, check_states, per_sample
from sensitivity.grid import Grid
from sensitivity.jacobians.products import Products
from sensitivity.measures.points import Points, whole
from sensitivity.perturbations.perturbation import Perturbation
from sensitivity.responses.calibration import Calibration, calibrate
from sensitivity.responses.patches import Denoised, Machine, Sizes, machine, ratio, upright
from sensitivity.responses.response import Condensed, Pushed, SourceResponse, Stage
from sensitivity.scores.score import Score


class LocalResponse(SourceResponse):
    """ṡ_u = r_u (D^ν_u − D_u)/τ² pixel by pixel: what a machine answers that sees patches of the data.

    No density, no divergence, no anchor, and no network call beyond the sampler's; each stage compares the states with
    all points. Perturbations are made of `Points` with the bandwidth of the data's; `Move` is refused.

    Args:
        points: the training data ρ, images (N, C, H, W), a tensor or `Points`.
        patch: the side of the square patch in pixels, odd; or "whole", images; or "calibrated", by level, from the
            network's own denoiser (see `calibration`); or a dictionary from noise levels to sides, nearest in log σ.
        levels: number of noise levels at which patches are calibrated, geometric between the ends of the grid.
        states: number of noised images for each level.
        held_out: images (M, C, H, W) for them that the network was not trained on; None takes the points themselves,
            evenly chosen, each left out of its own machine.
        seed: of the calibration's noise.

    Attributes:
        evaluations: network evaluations asked for by calibrations so far.

    Raises:
        ValueError, TypeError: for points that are no images, or sides that are not odd.

    Source: Kamb & Ganguli 2024, arXiv 2412.20292; Scarvelis & Solomon 2025, arXiv 2509.23092 (moving mass).

    Example (images of one pixel at −1 and 1; mass moves to 1, and samples with it):
        >>> from sensitivity import Grid, Points, Toward, sample_sensitivity
        >>> data = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
        >>> law = Points(data)
        >>> change, grid = Toward(Points(data[1:])), Grid(5.0, 0.5, 8)
        >>> latents = torch.ones(1, 1, 1, 1)
        >>> local = sample_sensitivity(law.score, latents, change, grid, response=LocalResponse(law, "whole"))
        >>> local.sensitivity.item() > 0, local.cost.away
        (True, 0)
    """

    def __init__(
        self,
        points: Tensor | Points,
        patch: int | str | Mapping[float, int] = "calibrated",
        *,
        levels: int = 12,
        states: int = 16,
        held_out: Tensor | None = None,
        seed: int = 0,
    ):
        self.points = points if isinstance(points, Points) else Points(points)
        if len(self.points.shape) != 3:
            raise ValueError(
                f"points have shape {self.points.shape}, patches are parts of images (C, H, W); reshape the points and "
                "the score's states, or use another response."
            )
        self.patch = _checked(patch)
        self.levels, self.states, self.seed = whole(levels, "levels"), whole(states, "states"), seed
        if held_out is not None:
            check_states(held_out, "held_out", self.points.shape)
            check_same_home(held_out, self.points.data, "held_out", "the points")
        self.held_out = held_out
        self.evaluations = 0
        self._known: list[tuple[Score, tuple[float, float], Calibration]] = []

    @property
    def needs(self) -> str:
        """The data."""
        return "the training data as images"

    def check(self, score: Score, change: Perturbation | None, x: Tensor) -> None:
        """Images of the points' shape, and changes that are made of points."""
        check_states(x, "latents", self.points.shape)
        check_same_home(x, self.points.data, "latents", "the points of LocalResponse")
        if change is None:
            return
        if change.masses is None:
            raise ValueError(
                f"perturbation={type(change).__name__} has no patch-local form; use PopulationResponse(), or remove "
                "the old points and add the moved ones."
            )
        for _, measure in change.masses:
            self.check_points(measure)

    @property
    def example(self) -> Points:
        """The first training point."""
        return Points(self.points.data[:1], bandwidth=self.points.bandwidth)

    def check_points(self, points: Any) -> None:
        """Images like the data's, smoothed alike."""
        if not isinstance(points, Points) or points.shape != self.points.shape:
            raise ValueError(
                f"LocalResponse compares patches of images of shape {self.points.shape}, and the new law is a "
                f"{type(points).__name__} without them; give Points of such images."
            )
        if points.bandwidth != self.points.bandwidth:
            raise ValueError(
                f"bandwidth={points.bandwidth} differs from that of the data, {self.points.bandwidth}; patches of "
                "both are compared at one width, so give both the same."
            )

    def calibration(self, score: Score, grid: Grid) -> Calibration:
        """Distances of the network's denoiser from patch machines between the ends of a grid; computed once."""
        ends = (grid.sigma_max, grid.sigma_min)
        for known, between, calibration in self._known:
            if known is score and between == ends:
                return calibration
        steps = torch.linspace(0, 1, self.levels, dtype=torch.float64)
        levels = (ends[0] * (ends[1] / ends[0]) ** steps).tolist()
        calibration = calibrate(score, self.points, levels, self.held_out, self.states, self.seed)
        self.evaluations += self.levels * self.states
        self._known.append((score, ends, calibration))
        return calibration

    def sizes(self, score: Score, grid: Grid) -> Sizes:
        """Sides of the patches by noise level for a network and a grid."""
        shape, like = self.points.shape, self.points.data
        if self.patch == "calibrated":
            calibration = self.calibration(score, grid)
            return Sizes(shape, calibration.levels, calibration.chosen, like)
        if isinstance(self.patch, Mapping):
            return Sizes(shape, list(self.patch), list(self.patch.values()), like)
        # So wide a patch holds the whole image wherever its centre is.
        side = 2 * max(shape[1:]) - 1 if self.patch == "whole" else int(self.patch)
        return Sizes(shape, [1.0], [side], like)

    def pushed(self, products: Products, changes: Sequence[Perturbation], grid: Grid) -> Pushed:
        """J δ_k from the network, ṡ_k from the machine."""
        sizes = self.sizes(products.score, grid)

        def push(x: Tensor, sigma: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
            value, moved = products.jvp(x, sigma, tangents)
            return value, moved + self._sources(sizes, changes, x, sigma)

        return push

    def _sources(self, sizes: Sizes, changes: Sequence[Perturbation], x: Tensor, sigma: Tensor) -> Tensor:
        """ṡ_k, (K, batch, C, H, W)."""
        local = machine(sizes, self.points, sigma)
        base = local.denoised(self.points, x)
        return torch.stack([upright(_moved(local, base, change, x)) for change in changes]) / local.variance

    def condensed(self, stages: Sequence[Stage], score: Score, grid: Grid) -> Condensed:
        """The stages with the machine's Z and D there, and the machine itself: one pass over the data a stage."""
        sizes = self.sizes(score, grid)
        machines = [machine(sizes, self.points, stage.sigma) for stage in stages]
        bases = [one.denoised(self.points, stage.x) for one, stage in zip(machines, stages, strict=True)]
        columns: dict[str, list[Tensor]] = {
            "x": [stage.x for stage in stages],
            "cotangents": [stage.cotangents for stage in stages],
            "log_sum": [base.log_sum for base in bases],
            "mean": [base.mean for base in bases],
            "rows": [one.bands[0] for one in machines],
            "columns": [one.bands[1] for one in machines],
            "variance": [one.variance for one in machines],
        }
        return {name: torch.stack(values) for name, values in columns.items()}

    def against(self, kept: Sequence[Condensed], points: Points, first: int = 0) -> Tensor:
        """One pass over the points for each stage."""
        self.check_points(points)
        totals = []
        for one in kept:
            total = one["x"].new_zeros(*one["cotangents"].shape[1:3], len(points))
            for j, variance in enumerate(one["variance"]):
                local = Machine((one["rows"][j], one["columns"][j]), variance)
                base = Denoised(one["log_sum"][j], one["mean"][j])
                total += local.pairing(points, one["x"][j], base, one["cotangents"][j])
            totals.append(total)
        return torch.cat(totals, 1)

    def finite(
        self, score: Score, changes: Sequence[Perturbation], masses: Sequence[Tensor], grid: Grid
    ) -> Callable[[slice], Score]:
        """s^η = s + (D^η − D)/τ² with the machine's exact D^η; NaN where no mass would be left at a pixel."""
        sizes = self.sizes(score, grid)

        def of_rows(rows: slice) -> Score:
            return lambda x, sigma: score(x, sigma) + self._shift(sizes, changes, [m[rows] for m in masses], x, sigma)

        return of_rows

    def _shift(
        self, sizes: Sizes, changes: Sequence[Perturbation], masses: Sequence[Tensor], x: Tensor, sigma: Tensor
    ) -> Tensor:
        """(D^η − D)/τ² = Σ_j η_j r_j (D^j − D)/(1 + Σ_j η_j (r_j − 1))/τ²."""
        local = machine(sizes, self.points, sigma)
        base = local.denoised(self.points, x)
        shift, kept = torch.zeros_like(base.mean), torch.ones_like(base.log_sum)[:, None]
        for change, eta in zip(changes, masses, strict=True):
            for c, measure in change.masses or ():
                new, mass = local.denoised(_points(measure), x), per_sample(c * eta, shift)
                weight = mass * ratio(new, base)
                shift = shift + weight * (new.mean - base.mean)
                kept = kept + weight - mass
        return upright(torch.where(kept > 0, shift / kept, torch.nan)) / local.variance


def _moved(local: Machine, base: Denoised, change: Perturbation, x: Tensor) -> Tensor:
    """Σ_j c_j r_j (D^j − D), image axes exchanged."""
    total = torch.zeros_like(base.mean)
    for c, measure in change.masses or ():
        new = local.denoised(_points(measure), x)
        total = total + c * ratio(new, base) * (new.mean - base.mean)
    return total


def _points(measure: Any) -> Points:
    if not isinstance(measure, Points):
        raise ValueError(f"the new law is a {type(measure).__name__}; give Points.")
    return measure


def _checked(patch: Any) -> Any:
    if isinstance(patch, str):
        if patch not in ("calibrated", "whole"):
            raise ValueError(f"patch={patch!r} is unknown; give 'calibrated', 'whole', an odd side, or sides by level.")
        return patch
    sides = list(patch.values()) if isinstance(patch, Mapping) else [patch]
    for side in sides or [0]:
        if isinstance(side, bool) or not isinstance(side, int) or side < 1 or side % 2 == 0:
            raise ValueError(f"patch={patch!r} has no centre pixel; give an odd number of pixels ≥ 1 as the side.")
    if isinstance(patch, Mapping) and not all(float(level) > 0 for level in patch):
        raise ValueError(f"patch={patch!r} names levels that are no noise levels; give σ > 0.")
    return dict(patch) if isinstance(patch, Mapping) else patch
