"""What a recording keeps of a chunk of latents: its stages, and what an `Influence` says of it beside values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from torch import Tensor

from sensitivity.readings.influences import Influence, relative_of
from sensitivity.readings.streaming import Lengths, Recorded
from sensitivity.responses import Condensed
from sensitivity.sampler.local_maps import Cost
from sensitivity.sampler.outcome import Outcome, Outcomes


@dataclass(frozen=True)
class Answered:
    """What a response other than the population's kept of the stages."""

    kept: Condensed
    shares = (1.0,)


@dataclass(frozen=True)
class Part:
    """A chunk of latents: its stages, and what an `Influence` says of its samples beside values."""

    stages: Recorded | Answered
    samples: Tensor
    functional: Tensor
    log_density: Tensor | None
    log_density_error: Tensor | None
    grid_error: Tensor | None
    codes: Tensor
    levels: Tensor

    def influence(
        self,
        values: Tensor,
        indices: Tensor | None,
        bound: Tensor | None,
        lengths: Lengths | None,
        cost: Cost,
        sigma_min: float,
    ) -> Influence:
        """The values that points gave these samples, with an outcome for those that no point reaches.

        What errors of log densities make of the values is known by `lengths`, by how much each stage adds.
        """
        silent = (values == 0).all(-1).all(0).cpu()
        if bound is not None:
            # Zeros that pruning left are not known to be zeros: the bound says what it may have taken.
            silent = silent & (bound == 0).all(0).cpu()
        new = silent & (self.codes == Outcome.FINISHED.value)
        codes = self.codes.masked_fill(new, Outcome.NO_POINT_NEAR.value)
        relative = relative_of(self.samples, self.log_density_error, self.grid_error, len(self.stages.shares))
        if lengths is not None and isinstance(self.stages, Recorded):
            relative = lengths.relative_error(self.stages, relative)
        return Influence(
            values=values,
            indices=indices,
            samples=self.samples,
            functional=self.functional,
            log_density=self.log_density,
            log_density_error=self.log_density_error,
            grid_error=self.grid_error,
            outcome=Outcomes(codes, self.levels.masked_fill(new, sigma_min)),
            cost=cost,
            relative_error=relative,
        )


def named(parts: Sequence[Part]) -> dict[str, Tensor]:
    """Every tensor of the parts by name."""
    tensors: dict[str, Tensor] = {}
    for k, part in enumerate(parts):
        tensors |= {f"{k}.{name}": value for name, value in vars(part).items() if isinstance(value, Tensor)}
        kept = part.stages.kept if isinstance(part.stages, Answered) else vars(part.stages)
        tensors |= {f"{k}.stages.{name}": value for name, value in kept.items() if isinstance(value, Tensor)}
    return tensors


def part_of(tensors: Mapping[str, Tensor], k: int, shares: tuple[float, ...] | None) -> Part:
    """Part k of the tensors that `named` gave; `shares` are those of its stages, None of another response's."""
    prefix = f"{k}.stages."
    kept = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    stages = Answered(kept) if shares is None else Recorded(**kept, shares=shares)
    optional = ("log_density", "log_density_error", "grid_error")
    rest = {f.name: tensors[f"{k}.{f.name}"] for f in fields(Part) if f.name not in ("stages", *optional)}
    # Outcomes are read on the host, wherever the stages went.
    rest |= {"codes": rest["codes"].cpu(), "levels": rest["levels"].cpu()}
    return Part(stages, **rest, **{name: tensors.get(f"{k}.{name}") for name in optional})  # type: ignore[arg-type]
