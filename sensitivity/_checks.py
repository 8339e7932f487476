"""Input checks of the engine.

Every check raises `ValueError` or `TypeError` with one sentence that quotes the argument, says why it is refused
and what to do. Shapes, dtypes and devices are read without touching the values; only the functions that say so in their
name (`finite`, `positive`) read values, which on an accelerator waits for the device: they belong at public entry.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, SupportsIndex, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

__all__ = [
    "at_least_single",
    "check_callable",
    "check_choice",
    "check_count",
    "check_dense",
    "check_finite",
    "check_levels",
    "check_like",
    "check_log_density",
    "check_positive_number",
    "check_precision",
    "check_real_number",
    "check_same_home",
    "check_seed",
    "check_sigma",
    "check_states",
    "check_tensor",
    "check_values",
    "check_weights",
    "full_precision",
    "in_autocast",
    "per_sample",
    "transformed",
]


def transformed() -> bool:
    """Whether the code runs inside a `torch.func` transform or a trace, where values cannot be read or kept."""
    if torch.compiler.is_compiling():
        return True
    # Torch has no public question for this; a torch without the private one is taken to be outside.
    peek = getattr(torch._C._functorch, "peek_interpreter_stack", None)
    return peek is not None and peek() is not None


def in_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function or method that keeps its own dtype under autocast: half precision ruins exponents.

    The device is that of the first tensor among the arguments, or of `self.x`.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        like = next((value for value in given if isinstance(value, Tensor)), getattr(given[0], "x", None))
        if not (isinstance(like, Tensor) and in_autocast(like)):
            return function(*args, **kwargs)
        with torch.autocast(like.device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def at_least_single(x: Tensor) -> Tensor:
    """`x` itself, or in single precision where it is a half: paths in half precision lose tenths of a sensitivity."""
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x


def check_states(x: Tensor, name: str = "x", shape: Sequence[int] | None = None) -> None:
    """States are floating tensors of shape `(batch, *shape)`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}, not a tensor: pass torch.as_tensor({name}).")
    check_dense(x, name)
    if not x.dtype.is_floating_point:
        raise TypeError(f"{name} has dtype {x.dtype}, states are floating point: pass {name}.float() or .double().")
    if x.ndim < 2:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, states have shape (batch, *shape): "
            f"write a batch of numbers as {name}[:, None], one sample as {name}[None]."
        )
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, but each sample must have shape {tuple(shape)}: "
            f"reshape it to (batch, {', '.join(map(str, shape))})."
        )


def check_dense(x: Tensor, name: str) -> None:
    """`x` is a dense tensor."""
    if x.layout != torch.strided:
        raise TypeError(
            f"{name} has layout {x.layout}, the engine computes with dense tensors: pass {name}.to_dense()."
        )


def check_values(x: Tensor, name: str) -> None:
    """`x` holds values."""
    if x.device.type == "meta":
        raise TypeError(f"{name} is on the meta device and holds no values: pass a tensor on a real device.")


def check_tensor(x: Any, name: str) -> None:
    """`x` is a dense real floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}, not a tensor: pass torch.as_tensor of it.")
    check_dense(x, name)
    check_values(x, name)
    if not x.dtype.is_floating_point:
        raise TypeError(f"{name} has dtype {x.dtype}: pass a real floating tensor.")


def check_callable(value: Any, name: str) -> None:
    """`value` can be called."""
    if not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}, not callable: pass a function.")


def check_precision(x: Tensor, name: str) -> None:
    """`x` has at least single precision: densities and derivatives lose all digits in half."""
    check_values(x, name)
    if torch.finfo(x.dtype).eps > torch.finfo(torch.float32).eps:
        raise TypeError(
            f"{name} has dtype {x.dtype}, in which densities and derivatives have no digits: pass {name}.float(); the "
            "network may stay in half precision."
        )


def check_count(value: Any, name: str, least: int = 1) -> None:
    """`value` is an integer of at least `least`, or None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}: give an integer of at least {least}.")
    if value < least:
        raise ValueError(f"{name}={value} is too few: give an integer of at least {least}.")


def check_seed(generator: Any, seed: Any) -> None:
    """`generator` is torch's, `seed` an integer, and at most one is given."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is a {type(generator).__name__}: give torch.Generator().manual_seed(...), or seed=."
        )
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, SupportsIndex)):
        raise TypeError(f"seed={seed!r} is a {type(seed).__name__}: give an integer.")
    if generator is not None and seed is not None:
        raise ValueError("generator and seed both fix the noise: give one of them.")


def check_real_number(value: Any, name: str) -> float:
    """`value` as a float: a number, or a tensor or array of one real number."""
    try:
        number = float(value) if not isinstance(value, str | bytes | bool) else None
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise TypeError(f"{name}={value!r} is no real number: pass a float.")
    return number


def check_like(y: Tensor, x: Tensor, name: str, reference: str = "x") -> None:
    """`y` has the shape, dtype and device of `x`."""
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} is a {type(y).__name__}, not a tensor: pass a tensor like {reference}.")
    if y.shape != x.shape:
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}, but {reference} has shape {tuple(x.shape)}: "
            f"pass one entry for each entry of {reference}."
        )
    check_same_home(y, x, name, reference)


def check_same_home(y: Tensor, x: Tensor, name: str, reference: str = "x") -> None:
    """`y` has the dtype and the device of `x`."""
    if y.dtype != x.dtype:
        raise TypeError(
            f"{name} has dtype {y.dtype}, but {reference} has dtype {x.dtype}: convert one of them with .to({x.dtype})."
        )
    if y.device != x.device:
        raise ValueError(
            f"{name} is on {y.device}, but {reference} is on {x.device}: move one of them with .to('{x.device}')."
        )


def check_sigma(sigma: Tensor | float, x: Tensor, name: str = "sigma") -> Tensor:
    """The noise level as a 0-d or `(batch,)` tensor of the dtype and device of `x`; plain numbers must be > 0.

    Floating tensors of another dtype are converted (grids are float64); values of tensors are not read here,
    see `check_levels`.
    """
    if isinstance(sigma, Tensor):
        check_dense(sigma, name)
        return _sigma_tensor(sigma, x, name)
    if isinstance(sigma, bool) or not isinstance(sigma, int | float):
        raise TypeError(
            f"{name} is a {type(sigma).__name__}, a noise level is a number or a tensor: pass float({name})."
        )
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"{name} = {sigma} is not a noise level: pass a finite number > 0.")
    return torch.full((), float(sigma), dtype=x.dtype, device=x.device)


def _sigma_tensor(sigma: Tensor, x: Tensor, name: str) -> Tensor:
    if sigma.dtype.is_complex or sigma.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {sigma.dtype}, a noise level is real: pass a floating tensor.")
    if sigma.ndim > 1 or (sigma.ndim == 1 and sigma.shape[0] != x.shape[0]):
        raise ValueError(
            f"{name} has shape {tuple(sigma.shape)}, but x has batch {x.shape[0]}: pass one noise level or one for "
            f"each sample, shape () or ({x.shape[0]},)."
        )
    if sigma.device != x.device:
        raise ValueError(f"{name} is on {sigma.device}, but x is on {x.device}: move it with .to('{x.device}').")
    return sigma.to(x.dtype)


def check_levels(sigma: Tensor, name: str = "sigma") -> None:
    """Reads the values: every noise level is finite and > 0."""
    if transformed():
        return
    if not bool(torch.all(torch.isfinite(sigma) & (sigma > 0))):
        raise ValueError(
            f"{name} has entries that are not finite and > 0: noise levels are positive, stop at a sigma_min > 0."
        )


def check_finite(x: Tensor, name: str) -> None:
    """Reads the values: no NaN, no infinity."""
    if transformed():
        return
    check_values(x, name)
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where = tuple(int(i) for i in torch.nonzero(~finite)[0])
        raise ValueError(f"{name} is not finite, first at index {where}: remove or repair such entries.")


def check_positive_number(value: float | Tensor, name: str, zero: bool = False) -> float:
    """`value` as a finite float > 0, or ≥ 0 when `zero`."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a number: pass a float.")
    if isinstance(value, Tensor):
        check_dense(value, name)
        check_values(value, name)
        if value.is_complex():
            raise TypeError(f"{name} has dtype {value.dtype}: pass one real number.")
    if isinstance(value, Tensor) and value.ndim:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: pass one number.")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} = {number} is refused: pass a finite number {'≥' if zero else '>'} 0.")
    return number


def check_weights(weights: Tensor | Sequence[float] | None, like: Tensor, name: str = "weights") -> Tensor:
    """Reads the values: one weight ≥ 0 for each row of `like`, returned normalised to sum 1 (equal when `None`)."""
    count = like.shape[0]
    if weights is None:
        return torch.full((count,), 1.0 / count, dtype=like.dtype, device=like.device)
    w = weights if isinstance(weights, Tensor) else _numbers(weights, like, name)
    check_dense(w, name)
    if w.shape != (count,):
        raise ValueError(f"{name} has shape {tuple(w.shape)}, but there are {count} rows: pass shape ({count},).")
    check_same_home(w, like, name, "the data")
    check_finite(w, name)
    if bool((w < 0).any()):
        raise ValueError(
            f"{name} has negative entries: the weights of a measure are ≥ 0, use Remove for mass taken away."
        )
    total = w.sum()
    if not bool(total > 0):
        raise ValueError(f"{name} sums to 0: at least one weight must be > 0.")
    return w / total


def _numbers(values: Any, like: Tensor, name: str) -> Tensor:
    """A sequence of numbers as a tensor of the dtype and device of `like`."""
    try:
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is a {type(values).__name__} that is no list of numbers: pass a tensor.") from error


def check_log_density(log_density: Tensor | None, x: Tensor, name: str = "log_density") -> Tensor:
    """A log density of shape `(batch,)` on the dtype and device of `x`."""
    if log_density is None:
        raise ValueError(
            f"{name} is missing: this perturbation needs log p_sigma(x), pass {name}= of shape ({x.shape[0]},)."
        )
    if not isinstance(log_density, Tensor):
        raise TypeError(f"{name} is a {type(log_density).__name__}, not a tensor: pass shape ({x.shape[0]},).")
    if log_density.shape != x.shape[:1]:
        raise ValueError(
            f"{name} has shape {tuple(log_density.shape)}, but x has batch {x.shape[0]}: pass shape ({x.shape[0]},)."
        )
    check_same_home(log_density, x, name)
    return log_density


def check_choice(value: str, choices: Sequence[str], name: str) -> None:
    """`value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} = {value!r} is unknown: choose one of {', '.join(map(repr, choices))}.")


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    """A 0-d or `(batch,)` tensor shaped to broadcast against `x` of shape `(batch, *shape)`."""
    return value if value.ndim == 0 else value.reshape(-1, *([1] * (x.ndim - 1)))
