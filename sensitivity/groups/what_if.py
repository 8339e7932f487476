"""What a retrained network would give, group by group, with an interval.

First order: δ toward every group in one run that shares the network's calls. Finite mass: a run of the changed score
for each group. The interval is that of `conformal` around the functional of the predicted samples, wider or none where
`trust` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sensitivity._callables import functional_outputs, outside_inference_mode
from sensitivity._checks import check_choice, check_positive_number, check_seed, check_states, per_sample
from sensitivity.grid import Grid
from sensitivity.groups.conformal import Calibration
from sensitivity.groups.members import GroupChange, Groups
from sensitivity.groups.trust import SHARE, GroupOutcomes, Trust, departures, judged, stretches
from sensitivity.measures.anchors import GaussianAnchor
from sensitivity.progress import Progress
from sensitivity.readings.finite_mass import Resampled, resample
from sensitivity.readings.first_order import sample_sensitivity
from sensitivity.readings.results import SampleSensitivity
from sensitivity.responses import POPULATION, Response, UnrolledResponse, chosen
from sensitivity.responses.moving_parameters import MovingParameters
from sensitivity.sampler.outcome import Outcomes
from sensitivity.scores.score import Score

Functional = Callable[[Tensor], Tensor]
FORMS = ("finite", "first")


@dataclass(frozen=True)
class Counterfactual:
    """Samples from the same latents as if each of K groups had been changed and the network trained again.

    Attributes:
        names: of the groups.
        eta: the mass that moves for each, (K,).
        base: samples of the network as it is, (batch, *shape).
        samples: predicted samples, (K, batch, *shape).
        change: samples less base, (K, batch, *shape).
        first: the change to first order, ηδ, (K, batch, *shape).
        departure: e = |change − first|/|first|, (K, batch); NaN with `form="first"`.
        stretch: by how much each group's intervals are wider than within its radius of trust, (K,).
        values: φ of the predicted samples, (K, batch, *out); (K,) for a functional of all samples together.
        effect: values less φ of the base, like `values`.
        low, high: ends of the prediction interval of φ for a retrained network, like `values`; infinite where there is
            none; None without a calibration.
        outcome: how each group's prediction is to be taken.
        share: the relative departure that ends the radius of trust.
        functional: φ; None is the sample itself.
    """

    names: tuple[Any, ...]
    eta: Tensor
    base: Tensor
    samples: Tensor
    change: Tensor
    first: Tensor
    departure: Tensor
    stretch: Tensor
    values: Tensor
    effect: Tensor
    low: Tensor | None
    high: Tensor | None
    outcome: GroupOutcomes
    share: float = SHARE
    functional: Functional | None = field(default=None, repr=False)

    @property
    def radius(self) -> Tensor:
        """The mass |η| at which the finite change of each sample departs from first order by the share, (K, batch)."""
        return self.share * self.eta.abs()[:, None] / self.departure

    def measured(self, samples: Tensor) -> Tensor:
        """φ of samples (batch, *shape), checked: (batch, *out), or 0-d."""
        return _measured(self.functional, samples)

    def calibrated(self, calibration: Calibration) -> Counterfactual:
        """The same predictions with the intervals of a calibration; no network is called.

        Raises:
            ValueError, TypeError: for a calibration of another functional, or, unless pooled, of other latents.
        """
        if not isinstance(calibration, Calibration):
            raise TypeError(f"calibration is a {type(calibration).__name__}; give Calibration.of(found, retrained).")
        low, high = calibration.interval(self.values, self.stretch)
        trust = self._trust(calibration)
        lost = torch.tensor([state in (Trust.REFUSED, Trust.TOO_FEW) for state in trust], device=low.device)
        lost = per_sample(lost, low) | self._unfinished(low)
        note = (
            f"Intervals at {100 * calibration.level:g} % from {len(calibration)} retrained groups hold if groups are "
            "exchangeable with these."
        )
        return replace(
            self,
            low=low.masked_fill(lost, -torch.inf),
            high=high.masked_fill(lost, torch.inf),
            outcome=replace(self.outcome, trust=trust, note=note),
        )

    def _trust(self, calibration: Calibration) -> tuple[Trust, ...]:
        if len(calibration) < calibration.needed:
            return (Trust.TOO_FEW,) * len(self.names)
        if not bool(torch.isfinite(self.departure).any()):
            return (Trust.UNJUDGED,) * len(self.names)
        largest = 1.0 if calibration.stretch is None else float(calibration.stretch.max())
        return judged(self.stretch.tolist(), largest)

    def _unfinished(self, like: Tensor) -> Tensor:
        """Samples that did not finish, as a mask that broadcasts against the values."""
        bad = torch.stack([~outcome.finished for outcome in self.outcome.samples]).to(like.device)
        return bad.reshape(*bad.shape, *([1] * (like.ndim - 2))) if like.ndim > 1 else bad.any(1)


@outside_inference_mode
def counterfactual(
    score: Score,
    latents: Tensor,
    groups: Groups,
    grid: Grid,
    *,
    response: Response = POPULATION,
    calibration: Calibration | None = None,
    functional: Functional | None = None,
    form: str = "finite",
    share: float = SHARE,
    anchor: Any = None,
    trace: str = "auto",
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    solver: Any = "heun",
    denoise: bool = False,
    chunk_size: int | None = None,
    products: str = "auto",
    progress: Any = False,
    control: GaussianAnchor | None = None,
) -> Counterfactual:
    """What samples would be if a group of the training data were gone, halved, doubled or other, without retraining.

    Args:
        score: s(x, σ), see `as_score`.
        latents: states at σ_max, (batch, *shape).
        groups: who belongs to which group, and what is done to it, see `Groups`.
        grid: noise levels.
        response: how the score answers the change, as for `sample_sensitivity`. With `UnrolledResponse` edited points
            are a first-order `Move` of the old.
        calibration: errors on groups that were really retrained, see `Calibration.of`; None gives no intervals.
        functional: φ of the samples of which intervals are given: samples (batch, *shape) -> (batch, *out), or -> a 0-d
            tensor of all of them together; None is the sample itself, every entry with its own interval.
        form: "finite", the response's samples at the whole mass; or "first", base + ηδ, without a run for each group
            and without a radius of trust.
        share: the departure of the finite change from first order, relative to it and median over latents, that ends
            the radius of trust. Beyond it intervals are wider in proportion; more than twice as far as any calibration
            group there is none.

    Other args:
        anchor, trace, probes, generator, seed, solver, denoise, chunk_size, products, control: as for
            `sample_sensitivity`.
        progress: likewise, but that runs of the sampler are counted: one, and one for each group.

    Raises:
        ValueError, TypeError: for arguments that do not fit, with the remedy.

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092 (finite masses); Vovk, Gammerman & Shafer 2005 (intervals).

    Example (two clusters; without the right one samples go to the left):
        >>> from sensitivity import Points
        >>> data = torch.tensor([[-1.0], [-1.2], [1.0], [1.2]])
        >>> law = Points(data, bandwidth=0.3)
        >>> groups = Groups(law, {"right": [2, 3]})
        >>> prediction = counterfactual(law.score, torch.tensor([[4.0]]), groups, Grid(10.0, 0.1, 40), anchor=law)
        >>> bool(prediction.base > 0), bool(prediction.samples[0] < 0)
        (True, True)
        >>> prediction.outcome["right"].name
        'UNCALIBRATED'
    """
    check_choice(form, FORMS, "form")
    check_positive_number(share, "share")
    if not isinstance(groups, Groups):
        raise TypeError(f"groups is a {type(groups).__name__}; give Groups(points, members, edits).")
    check_states(latents, "latents", groups.points.shape)
    options = {
        "anchor": anchor,
        "trace": trace,
        "probes": probes,
        "seed": _shared(generator, seed),
        "solver": solver,
        "denoise": denoise,
        "chunk_size": chunk_size,
        "products": products,
        "control": control,
        "response": response,
    }
    changes = groups.changes(moves=isinstance(chosen(response), UnrolledResponse))
    told = Progress.of(1 + len(changes) * (form == "finite"), progress, "runs")
    linear = sample_sensitivity(score, latents, [each.perturbation for each in changes], grid, **options)
    told.add(1)
    eta = torch.tensor([each.eta for each in changes], dtype=torch.float64).to(linear.samples)
    first = per_sample(eta, linear.sensitivity) * linear.sensitivity
    if form == "first":
        samples, ended = linear.samples + first, [linear.outcome] * len(changes)
    else:
        finite = _finite(score, latents, changes, linear.grid, options, told)
        samples, ended = torch.stack([each.samples for each in finite]), [each.outcome for each in finite]
    result = _gathered(changes, eta, linear, first, samples, ended, functional, share if form == "finite" else None)
    return result if calibration is None else result.calibrated(calibration)


def _shared(generator: torch.Generator | None, seed: int | None) -> int:
    """One seed for all runs: a change is that of the samples, and not of their noise."""
    check_seed(generator, seed)
    if generator is not None and seed is not None:
        raise ValueError("generator and seed both fix the noise: give one of them.")
    if seed is not None:
        return int(seed)
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _finite(
    score: Score, latents: Tensor, changes: Sequence[GroupChange], grid: Grid, options: dict[str, Any], told: Progress
) -> list[Resampled]:
    """One run for each group; parameters that move are solved for all groups together, and once."""
    together = [each.perturbation for each in changes]
    runs = []
    for k, each in enumerate(told.over(changes)):
        if isinstance(options["response"], MovingParameters):
            masses = [other.eta if j == k else 0.0 for j, other in enumerate(changes)]
            runs.append(resample(score, latents, together, masses, grid, **options))
        else:
            runs.append(resample(score, latents, each.perturbation, each.eta, grid, **options))
    return runs


def _gathered(
    changes: Sequence[GroupChange],
    eta: Tensor,
    linear: SampleSensitivity,
    first: Tensor,
    samples: Tensor,
    ended: Sequence[Outcomes],
    functional: Functional | None,
    share: float | None,
) -> Counterfactual:
    names, base = tuple(each.name for each in changes), linear.samples
    change = samples - base
    departure = torch.full(change.shape[:2], torch.nan).to(change) if share is None else departures(change, first)
    stretch = torch.ones_like(eta) if share is None else stretches(departure, share)
    values = torch.stack([_measured(functional, each) for each in samples])
    outcome = GroupOutcomes(names, (Trust.UNCALIBRATED,) * len(names), tuple(ended))
    return Counterfactual(
        names=names,
        eta=eta,
        base=base,
        samples=samples,
        change=change,
        first=first,
        departure=departure,
        stretch=stretch,
        values=values,
        effect=values - _measured(functional, base),
        low=None,
        high=None,
        outcome=outcome,
        share=SHARE if share is None else share,
        functional=functional,
    )


def _measured(functional: Functional | None, samples: Tensor) -> Tensor:
    if functional is None:
        return samples
    return functional_outputs(functional, samples, "functional")
