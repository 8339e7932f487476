"""User callables: every score, anchor and functional is called through this module.

A callable gets copies, so that one that works in place changes neither the engine's levels nor the caller's states. Its
result must be a real tensor of the right shape on the device of the states; anything else is an error that names the
callable, since broadcasting would turn it into a meaningless number further on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from sensitivity._checks import in_autocast

__all__ = [
    "anchor_log_density",
    "as_anchor",
    "check_dtypes",
    "check_result",
    "evaluate",
    "functional_values",
    "let_pass",
    "modules_of",
    "outside_inference_mode",
    "ready",
    "refuse_training_mode",
    "resolution",
    "unit_of",
]

P = ParamSpec("P")
R = TypeVar("R")

_TF32 = 2.0**-11
_COARSE = 1e-5
_DEPTH = 4  # how far functions are followed to the networks that they call


def evaluate(score: Callable[[Tensor, Tensor], Any], x: Tensor, sigma: Tensor) -> Tensor:
    """`score(x, σ)` of copies, checked, in the dtype of `x`."""
    try:
        # Copies: a network that works in place changes neither the states of a run nor its levels.
        value = score(x.clone(), sigma.clone())
    except RuntimeError:
        check_dtypes(score, x)
        raise
    check_result(value, x, tuple(x.shape), "score", "return a tensor like x")
    return value if value.dtype == x.dtype else value.to(x.dtype)


def check_dtypes(score: Any, x: Tensor) -> None:
    """Say so where a score failed whose network has another dtype than its states."""
    for module in modules_of(score):
        other = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point and p.dtype != x.dtype), None)
        if other is not None:
            raise TypeError(
                f"score has a network in {other}, but x has dtype {x.dtype}: convert one of them with .to({x.dtype})."
            )


def anchor_log_density(anchor: Any, x: Tensor, sigma: Tensor, name: str = "anchor") -> Tensor:
    """`log q_σ(x)`, `(batch,)`, of anything with `log_density(x, sigma)`, checked, in the dtype of `x`."""
    value = as_anchor(anchor, name).log_density(x.clone(), sigma.clone())
    check_result(value, x, (x.shape[0],), f"{name}.log_density", "return log q(x) in nats, one number a state")
    return value.to(x.dtype)


def functional_values(function: Callable[[Tensor], Any], x: Tensor, name: str) -> Tensor:
    """`φ(x)` of a copy: `(batch,)`, or 0-d where it pools the samples; finite and real."""
    if not callable(function):
        raise TypeError(
            f"{name} is {function!r}, not callable: pass a function of the samples, such as functionals.patch(0)."
        )
    value = function(x.clone())
    if not isinstance(value, Tensor) or value.shape not in (x.shape[:1], ()):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} returns {shape}; it must map samples to ({x.shape[0]},) or to one number.")
    check_result(value, x, tuple(value.shape), name, "return real numbers, computed with torch")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} is not finite at the samples: its derivative means nothing there; change it.")
    return value


def functional_outputs(function: Callable[[Tensor], Any], x: Tensor, name: str) -> Tensor:
    """`φ(x)` of a copy, detached: `(batch, *out)`, or 0-d; real, and finite where the samples are."""
    if not callable(function):
        raise TypeError(
            f"{name} is a {type(function).__name__}; give a function of the samples, such as functionals.patch(0)."
        )
    value = function(x.clone())
    if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} returns {kind}; it must return real numbers, computed with torch.")
    if value.ndim and value.shape[0] != len(x):
        raise ValueError(
            f"{name} returns {tuple(value.shape)} for {len(x)} samples; it must return one entry for each, "
            "(batch, ...), or one number for all."
        )
    if bool(torch.isfinite(x).all()) and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} is not finite at samples that are: no change of it can be stated; change it.")
    return value.detach()


def check_result(value: Any, x: Tensor, shape: tuple[int, ...], name: str, remedy: str) -> None:
    """`value` is a real tensor of this shape on the device of `x`."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} returns a {type(value).__name__}, not a tensor: {remedy}.")
    if not value.dtype.is_floating_point or value.layout != torch.strided:
        kind = value.dtype if value.layout == torch.strided else value.layout
        raise TypeError(f"{name} returns {kind}, which is no real dense tensor: {remedy}.")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} returns shape {tuple(value.shape)} for x of shape {tuple(x.shape)}: {remedy}.")
    if value.device != x.device:
        raise ValueError(f"{name} returns a tensor on {value.device} for x on {x.device}: move one of them.")


def as_anchor(anchor: Any, name: str = "anchor") -> Any:
    """The anchor itself, or the noised laws of one that has `noised(sigma).log_density(x)`.

    Raises:
        TypeError: for anything without a log density of noised states.
    """
    if callable(getattr(anchor, "noised", None)):
        return _Noised(anchor, name)
    if isinstance(anchor, type) or not callable(getattr(anchor, "log_density", None)):
        raise ValueError(
            f"{name}={_short(anchor)} has no log_density(x, sigma); the engine needs log p at sigma_max: give "
            "GaussianAnchor.from_data(data), or the exact law where one is known."
        )
    return anchor


class _Noised:
    """A law that is noised first, `law.noised(σ).log_density(x)`, as an anchor."""

    def __init__(self, law: Any, name: str) -> None:
        self.law, self.name = law, name

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`log p_σ(x)`, `(batch,)`: one noised law for each level."""
        rows = x.detach().flatten(1)
        levels = sigma.expand(x.shape[0])
        values = torch.empty_like(levels)
        for level in levels.unique().tolist():
            chosen = levels == level
            values[chosen] = self._at(level, rows[chosen]).to(values)
        return values

    def _at(self, level: float, rows: Tensor) -> Tensor:
        law = self.law.noised(level)
        try:
            value = law.log_density(rows)
        except (TypeError, ValueError):  # a law of NumPy arrays
            try:
                value = torch.as_tensor(law.log_density(rows.cpu().numpy()))
            except Exception as error:
                raise TypeError(
                    f"{self.name}={_short(self.law)} has noised(sigma), but its log_density(x) takes neither tensors "
                    f"nor arrays ({error}): wrap it as an object with log_density(x, sigma)."
                ) from error
        check_result(value, rows, (rows.shape[0],), f"{self.name}.noised(sigma).log_density", "return one a state")
        return value


def ready(score: Any) -> None:
    """Refuse a score whose network has been put (back) into training mode.

    Raises:
        ValueError: naming the layer.
    """
    for module in modules_of(score):
        refuse_training_mode(module)


def refuse_training_mode(network: object) -> None:
    """Refuse a module whose dropout or batch norm is in training mode.

    Raises:
        ValueError: naming the layer; the cure is `network.eval()`.
    """
    if not isinstance(network, nn.Module):
        return
    for name, module in network.named_modules():
        active = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        active = active or isinstance(module, nn.modules.batchnorm._BatchNorm)
        if active and module.training:
            raise ValueError(
                f"network is in training mode and {name or 'it'} is a {type(module).__name__}, so that its output is "
                "random or depends on the batch: call network.eval() first."
            )


def modules_of(call: Any, depth: int = _DEPTH) -> Iterator[nn.Module]:
    """The networks behind a score: itself, its `network`, what its function encloses or names."""
    if isinstance(call, nn.Module):
        yield call
    elif depth:
        for inner in _behind(call):
            yield from modules_of(inner, depth - 1)


def _behind(call: Any) -> Iterator[Any]:
    if isinstance(call, functools.partial):
        yield call.func
    if inspect.ismethod(call):
        yield call.__self__
        call = call.__func__
    for name in ("network", "model", "__wrapped__"):
        inner = getattr(call, name, None)
        if inner is not None and inner is not call:
            yield inner
    if inspect.isfunction(call):
        enclosed = [cell.cell_contents for cell in call.__closure__ or () if _filled(cell)]
        named = [call.__globals__.get(name) for name in call.__code__.co_names]
        yield from (inner for inner in enclosed if isinstance(inner, nn.Module) or inspect.isfunction(inner))
        yield from (inner for inner in named if isinstance(inner, nn.Module))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (raises where the name is not bound yet)
    except ValueError:
        return False
    return True


def resolution(score: Any, x: Tensor) -> float:
    """Unit roundoff of the coarsest precision that a score is seen to compute in: state, parameters or autocast."""
    types = {p.dtype for module in modules_of(score) for p in module.parameters() if p.dtype.is_floating_point}
    return max([unit_of(x), *(_unit(dtype, x) for dtype in types)])


def unit_of(x: Tensor) -> float:
    """Unit roundoff of what is computed from states: their dtype's, or that of autocast."""
    return _unit(torch.get_autocast_dtype(x.device.type) if in_autocast(x) else x.dtype, x)


def _unit(dtype: torch.dtype, x: Tensor) -> float:
    # A GPU's convolutions, and its matrix products if allowed, keep ten bits of single precision; convolutions do so
    # unless told otherwise.
    coarse = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return _TF32 if x.is_cuda and dtype == torch.float32 and coarse else torch.finfo(dtype).eps


def let_pass(unit: float) -> float:
    """What rounding may change of a value in another batch, relative to it: far below any real dependence.

    Batched kernels reorder sums. In half precision and TF32 they keep the sums themselves in single precision, so that
    few units of the coarse precision are left.
    """
    return 1e3 * unit if unit < _COARSE else 20 * unit


def outside_inference_mode(entry: Callable[P, R]) -> Callable[P, R]:
    """An entry point that computes as usual under `torch.inference_mode` and with tensors made there.

    Inference mode ignores `enable_grad`: a backward pass in it finds no graph, and its tensors cannot enter one.
    """

    @functools.wraps(entry)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled() and not any(map(_inferred, (*args, *kwargs.values()))):
            return entry(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            keywords = {name: _normal(value) for name, value in kwargs.items()}
            return entry(*map(_normal, args), **keywords)

    return run


def _inferred(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_inference()


def _normal(value: Any) -> Any:
    return value.clone() if _inferred(value) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__}(...)"
