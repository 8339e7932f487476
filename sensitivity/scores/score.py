"""Scores: from any network to `s(x, σ) = ∇ log p_σ(x)` in variance-exploding coordinates.

Symbols: a state of the network's own process is `z = α x₀ + σ′ ε`; the engine works with `x = z/α = x₀ + σ ε`,
`σ = σ′/α`. A network predicts one of

==============  =============================  =====================================
parametrization its output                     the score
==============  =============================  =====================================
`"score"`       `∇ log p_z(z)`                 `s = α · output`
`"noise"`       `E[ε | z]`                     `s = −output/σ`
`"denoiser"`    `E[x₀ | z]`                    `s = (output − x)/σ²`
`"velocity"`    `E[α̇ x₀ + σ̇′ ε | z]`           `ε = (output − α̇ x)/(α σ̇)`
`"v"`           `E[α ε − σ′ x₀ | z]`           `ε = (output + σ′ x)/(α + σ σ′)`
==============  =============================  =====================================

Without a schedule the network is called as `network(x, sigma)` and its process is the variance-exploding one: α = 1,
time is σ itself, the velocity is `dx/dσ = ε`; `"v"` keeps its usual variance-preserving meaning,
α = (1 + σ²)^{−1/2}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sensitivity._callables import evaluate, let_pass, refuse_training_mode, resolution
from sensitivity._checks import at_least_single, check_choice, check_sigma, check_states, per_sample, transformed
from sensitivity.scores.schedule import Schedule

__all__ = ["GuidedScore", "NetworkScore", "Score", "as_score", "guided"]

PARAMETRIZATIONS = ("score", "noise", "denoiser", "velocity", "v")


@runtime_checkable
class Score(Protocol):
    """`score(x, sigma) -> like x`: x of shape `(batch, *shape)`, sigma 0-d or `(batch,)`."""

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...


def as_score(
    network: Callable[[Tensor, Tensor], Tensor], parametrization: str = "score", schedule: Schedule | None = None
) -> NetworkScore:
    """The score of a network.

    Args:
        network: `network(x, sigma)` in variance-exploding coordinates with sigma of shape `(batch,)`, or
            `network(z, t)` in those of `schedule`; returns a tensor like its first argument.
        parametrization: what it predicts, `"score" | "noise" | "denoiser" | "velocity" | "v"`, see the module.
        schedule: the map `t ↔ (α, σ′)` of the network's process, e.g. `VPLinear()`.

    The first ordinary call verifies the network once, by calling it: same input, same output; each sample's output
    depends on that sample alone; the shape is kept.

    Raises:
        ValueError: an unknown parametrization; a network in training mode with dropout or batch norm.

    Source: Song et al. 2021, arXiv 2011.13456, section 3; Karras et al. 2022, arXiv 2206.00364, table 1; Salimans & Ho
    2022, arXiv 2202.00512 (v).

    Example:
        >>> import torch
        >>> score = as_score(lambda x, sigma: x / (1 + sigma[:, None] ** 2), "denoiser")  # X ~ N(0, I)
        >>> score(torch.tensor([[1.0, 2.0]]), torch.tensor(1.0))
        tensor([[-0.5000, -1.0000]])
    """
    check_choice(parametrization, PARAMETRIZATIONS, "parametrization")
    if not callable(network):
        raise TypeError(
            f"network is a {type(network).__name__}, not callable: pass a function of (x, sigma) or (z, t)."
        )
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(f"schedule is a {type(schedule).__name__}: pass a Schedule such as VPLinear(), or None.")
    return NetworkScore(network, parametrization, schedule)


@dataclass
class NetworkScore:
    """A network read as a score; made by `as_score` and the adapters."""

    network: Callable[[Tensor, Tensor], Tensor]
    parametrization: str
    schedule: Schedule | None = None
    verified: bool = field(default=False, repr=False)
    trials: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # see `jacobians.trial.choose`
    answers: torch.dtype | None = field(default=None, init=False, repr=False, compare=False)  # the network's own dtype
    moody: tuple[nn.Module, ...] = field(default=(), init=False, repr=False, compare=False)  # layers with two modes

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s(x, σ)`, like `x`; half-precision states are computed in single precision.

        Raises:
            ValueError: a level that the schedule has no time for.
        """
        check_states(x)
        state = at_least_single(x)
        level = check_sigma(sigma, state).expand(x.shape[0])
        if self.schedule is not None and x.shape[0] and level.device.type == "cpu" and not transformed():
            check_domain(self, level.min(), level.max())
        if x.shape[0] and not (self.verified or transformed()):
            self.verify(state, level)
        if any(module.training for module in self.moody):
            refuse_training_mode(self.network)
        return self._evaluate(state, level).to(x.dtype)

    def verify(self, x: Tensor, sigma: Tensor | float) -> None:
        """Call the network on at most two of the samples and refuse one that is not a fixed map of each sample.

        Raises:
            ValueError: naming what failed: training mode, shape, determinism or dependence on the batch.
        """
        check_states(x)
        refuse_training_mode(self.network)
        with torch.no_grad():
            pair, levels = self._two_samples(x.detach(), check_sigma(sigma, x).detach().expand(x.shape[0]))
            first, again = self._evaluate(pair, levels), self._evaluate(pair, levels)
            alone = torch.cat([self._evaluate(pair[k : k + 1], levels[k : k + 1]) for k in range(2)])
        self.moody = tuple(_moody(self.network))
        # Scores that are not finite say nothing of the network: the next call verifies it.
        self.verified = _compare(first, again, alone, levels, let_pass(self._unit(x)))

    def _two_samples(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The first sample and a companion that differs from it in state and level, even in a batch of equal ones."""
        companion = 0.5 * x[-1:] + per_sample(sigma[-1:], x)
        # A network that mixes the levels of a batch shows at two of them only, both of which its schedule must know.
        other = 0.7 * sigma[-1:]
        if self.schedule is not None and bool((other < self.schedule.sigma_min).any()):
            other = 1.4 * sigma[-1:]
        return torch.cat([x[:1], companion]), torch.cat([sigma[:1], other])

    def _unit(self, x: Tensor) -> float:
        """Unit roundoff of the coarsest precision among states, parameters, answers and autocast."""
        return max(resolution(self.network, x), torch.finfo(self.answers or x.dtype).eps)

    def _evaluate(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.schedule is None:
            output = self._call(x, x, sigma)
            return _own_coordinates(self.parametrization, output, x, per_sample(sigma, x))
        # Levels and times in double precision: α and t of a small σ lose digits in float32.
        accurate = sigma if sigma.device.type == "mps" else sigma.double()
        t, alpha, noise = self.schedule.process(accurate)
        whole = getattr(self.schedule, "integer_times", False)
        output = self._call(x, x * _like(alpha, x), t.round().long() if whole else t.to(x.dtype))
        rates = self.schedule.rates(t) if self.parametrization == "velocity" else (alpha, noise)
        level, alpha, noise, alpha_rate, noise_rate = (_like(v, x) for v in (sigma, alpha, noise, *rates))
        # With x₀ = x − σ ε, "velocity" is α̇ x + (σ̇′ − σ α̇) ε and "v" is (α + σ σ′) ε − σ′ x; the score is −ε/σ.
        if self.parametrization == "score":
            return alpha * output
        if self.parametrization == "denoiser":
            return (output - x) * level**-2
        if self.parametrization == "noise":
            return -output / level
        if self.parametrization == "velocity":
            return -(output - alpha_rate * x) / ((noise_rate - level * alpha_rate) * level)
        return -(output + noise * x) / ((alpha + level * noise) * level)

    def _call(self, x: Tensor, z: Tensor, time: Tensor) -> Tensor:
        # Copies: a network that works in place changes neither the states nor the levels of a run.
        z, time = in_dtype_of(self.network, z.clone(), time.clone())
        try:
            output = self.network(z, time)
        except RuntimeError as error:
            raise _explained(error, z, time) from error
        if not isinstance(output, Tensor):
            raise TypeError(
                f"network returns a {type(output).__name__}, not a tensor: wrap it so that it returns its prediction."
            )
        if not output.dtype.is_floating_point:
            raise TypeError(f"network returns {output.dtype}: a prediction is real, return .real or .float() of it.")
        self.answers = output.dtype
        if output.shape != x.shape:
            raise ValueError(
                f"network maps shape {tuple(x.shape)} to {tuple(output.shape)}: a score keeps the shape; select the "
                "channels that are the prediction."
            )
        return output.to(x.dtype)


def _explained(error: RuntimeError, z: Tensor, time: Tensor) -> Exception:
    """A mix-up of dtypes inside a network, in a sentence; any other error as it is."""
    words = str(error)
    if "dtype" not in words and "scalar type" not in words:
        return error
    return TypeError(
        f"the score's network was called with states of {z.dtype} and times of {time.dtype} and cannot mix its dtypes "
        f"({words.splitlines()[0][:120]}): convert one of them inside it, or bring it to float32 or float64."
    )


def network_dtype(network: object) -> torch.dtype | None:
    """The dtype of a module's first floating parameter, or `None`."""
    if not isinstance(network, nn.Module):
        return None
    return next((p.dtype for p in network.parameters() if p.dtype.is_floating_point), None)


def in_dtype_of(network: object, z: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """States in the network's dtype, times in at least single precision: a half would make of time 999 a 1000."""
    dtype = network_dtype(network)
    if dtype is None:
        return z, time
    clock = torch.promote_types(dtype, torch.float32)
    return z.to(dtype), time.to(clock) if time.dtype.is_floating_point else time


def check_domain(score: object, lowest: Tensor | float, highest: Tensor | float) -> None:
    """Refuse levels that a score's schedule has no time for; reads them where there is a schedule.

    Raises:
        ValueError: naming the levels and the schedule's ends.
    """
    schedule = getattr(score, "schedule", None)
    if not isinstance(schedule, Schedule) or transformed():
        return
    low, high = (float(v.detach()) if isinstance(v, Tensor) else v for v in (lowest, highest))
    first, last = schedule.domain
    # The ends of a package's float32 table, and the levels that a user reads off it, agree to fewer digits than a
    # double has.
    outside = low < first * (1 - 1e-4) or high > last * (1 + 1e-4)
    if outside and math.isfinite(low) and math.isfinite(high):
        wrong = low if low < first * (1 - 1e-4) else high
        raise ValueError(
            f"sigma = {wrong:.4g} lies outside the levels {first:.4g} … {last:.4g} for which the score's schedule has "
            "a time, where its network was never trained: take levels within them, such as score.schedule.grid(steps)."
        )


def _own_coordinates(parametrization: str, output: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    if parametrization == "score":
        return output
    if parametrization == "denoiser":
        return (output - x) * sigma**-2  # a product: quotients of whole states cost more
    if parametrization == "v":
        # α = (1 + σ²)^{-1/2}, σ′ = ασ: ε = (v + ασ x)/(α (1 + σ²)).
        root = (1 + sigma**2).sqrt()
        return -(output / sigma + x / root) / root
    return -output / sigma


def guided(conditional: Score, unconditional: Score, weight: float) -> GuidedScore:
    """Classifier-free guidance: `s = (1 − w) s_∅ + w s_c`.

    Args:
        conditional, unconditional: the scores `s_c` and `s_∅`.
        weight: the guidance weight w; 0 is unconditional, 1 conditional.

    Source: Ho & Salimans 2022, arXiv 2207.12598 (their weight is w − 1).

    Example:
        >>> import torch
        >>> s = guided(lambda x, sigma: -x, lambda x, sigma: 0 * x, 3.0)
        >>> s(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[-3., -3.]])
    """
    for name, score in (("conditional", conditional), ("unconditional", unconditional)):
        if not callable(score):
            raise TypeError(f"{name} is a {type(score).__name__}, not callable: pass a score, see as_score.")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise TypeError(f"weight is a {type(weight).__name__}: pass a number.")
    if not math.isfinite(weight):
        raise ValueError(f"weight = {weight} is not finite: pass a number.")
    return GuidedScore(conditional, unconditional, float(weight))


@dataclass(frozen=True)
class GuidedScore:
    """`(1 − w) s_∅ + w s_c`; its branches stay at hand, since each follows its own law."""

    conditional: Score
    unconditional: Score
    weight: float

    @property
    def schedule(self) -> Schedule | None:
        """The schedule that the branches share, for latents and grids; `None` where neither has one.

        Raises:
            ValueError: the branches have different ones.
        """
        known = [getattr(branch, "schedule", None) for branch in (self.conditional, self.unconditional)]
        given = [schedule for schedule in known if schedule is not None]
        if len(given) == 2 and not given[0].same_process(given[1]):
            raise ValueError(
                "the branches of guided have different schedules: use those of score.conditional.schedule and "
                "score.unconditional.schedule."
            )
        return given[0] if given else None

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The guided score, like `x`."""
        level = sigma if isinstance(sigma, Tensor) else check_sigma(sigma, x)
        free, bound = (evaluate(branch, x, level) for branch in (self.unconditional, self.conditional))
        return (1 - self.weight) * free + self.weight * bound


def _like(value: Tensor, x: Tensor) -> Tensor:
    return per_sample(value.to(x.dtype), x)


def _compare(first: Tensor, again: Tensor, alone: Tensor, levels: Tensor, share: float) -> bool:
    """Whether the scores could be compared; `share` is relative to each sample's largest entry, at most 5 %."""
    if not bool(torch.isfinite(first).all()):
        return False
    # Entries at σ are of size 1/σ; where all are near zero, by symmetry say, the rounding of what cancels is left.
    tolerance = min(share, 5e-2) * torch.maximum(first.flatten(1).abs().amax(1), 0.01 / levels.to(first))
    if bool(((first - again).flatten(1).abs().amax(1) > tolerance).any()):
        raise ValueError(
            "network gives different outputs for the same input: a score is deterministic, call .eval() "
            "on it and fix any noise it draws."
        )
    if bool(((first - alone).flatten(1).abs().amax(1) > 10 * tolerance).any()):
        raise ValueError(
            "network gives a sample another output when it is alone in the batch: a score acts on each sample alone, "
            "call .eval() on it or remove the coupling across the batch."
        )
    return True


def _moody(network: object) -> list[nn.Module]:
    """Layers that are another map in training mode."""
    if not isinstance(network, nn.Module):
        return []
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return [module for module in network.modules() if isinstance(module, kinds)]
