"""What the oracles need from an array library, and the checks of their input.

Every oracle is written once against the array API standard (data-apis.org/array-api) and therefore runs on NumPy,
PyTorch, JAX and array-api-strict. The few things the standard lacks are here: a gradient stop, the normal
distribution function and its inverse, conversion to NumPy. Importing this module imports no array library but NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat as compat
import numpy as np
from scipy import special

Array = Any


_NAMESPACES: dict[tuple[type, ...], Any] = {}


def namespace(*arrays: Array) -> Any:
    """The array namespace that all `arrays` share."""
    kinds = tuple(map(type, arrays))
    if kinds not in _NAMESPACES:
        _NAMESPACES[kinds] = compat.array_namespace(*arrays)
    return _NAMESPACES[kinds]


def is_array(value: object) -> bool:
    """Whether `value` is an array of a supported library (NumPy scalars count as numbers, not as arrays)."""
    return not isinstance(value, np.generic) and compat.is_array_api_obj(value)


def library(array: Array) -> str:
    """The name of the array's library as messages print it."""
    return type(array).__module__.split(".")[0]


def eager(array: Array) -> bool:
    """Whether a Python loop over blocks costs nothing but its arithmetic (JAX would unroll it when tracing)."""
    return not compat.is_jax_array(array)


def detached(array: Array) -> Array:
    """The same values, constant for automatic differentiation."""
    if compat.is_torch_array(array):
        return array.detach()
    if compat.is_jax_array(array):
        from jax import lax

        return lax.stop_gradient(array)
    return array


def tracked(array: Array) -> bool:
    """Whether automatic differentiation (or another transformation) follows this array."""
    if compat.is_torch_array(array):
        import torch

        dual = torch.autograd.forward_ad.unpack_dual(array).tangent is not None
        return array.requires_grad or dual or values(array) is None
    return _traced(array)


def values(array: Array) -> np.ndarray | None:
    """The values as a NumPy array, or None where they are not known yet (inside jit, grad or vmap)."""
    try:
        if compat.is_torch_array(array):
            return np.asarray(array.detach().cpu().resolve_conj().numpy())
        if isinstance(array, np.ndarray):
            return array
        # Libraries of the array standard are known by this method alone; strict ones refuse `np.asarray`.
        return np.from_dlpack(array) if hasattr(array, "__dlpack__") and not _traced(array) else np.asarray(array)
    except (RuntimeError, TypeError):
        return None


def _traced(array: Array) -> bool:
    """Whether a JAX array is a tracer."""
    if not compat.is_jax_array(array):
        return False
    import jax

    return isinstance(array, jax.core.Tracer)


def concrete(array: Array, name: str) -> np.ndarray:
    """The values as a NumPy array; an error where they are not known."""
    known = values(array)
    if known is None:
        raise TypeError(f"{name} needs concrete values, not ones traced by jit, grad or vmap; call it outside of them")
    return known


def from_numpy(array: np.ndarray, like: Array) -> Array:
    """The array in the library, dtype and device of `like`."""
    xp = namespace(like)
    return xp.asarray(np.array(array, order="C"), dtype=like.dtype, device=compat.device(like))


def integers(array: np.ndarray, like: Array) -> Array:
    """Indices in the library and device of `like`."""
    return namespace(like).asarray(np.array(array, dtype=np.int64), device=compat.device(like))


def like(value: Any, reference: Array) -> Array:
    """A number or a zero-dimensional array as a zero-dimensional array of the kind of `reference`."""
    xp = namespace(reference)
    if is_array(value) and namespace(value) is xp:
        return xp.astype(value, reference.dtype, copy=False)
    return xp.asarray(float(value), dtype=reference.dtype, device=compat.device(reference))


def common(**named: Any) -> tuple[Any, dict[str, Array]]:
    """The common namespace and the arguments as floating-point arrays of one library, dtype and device.

    Numbers and (nested) sequences of numbers take the kind of the arrays beside them, NumPy float64 if there is none.
    """
    arrays = {name: value for name, value in named.items() if is_array(value)}
    reference = next(iter(arrays.values()), np.zeros(()))
    xp = namespace(reference)
    for name, value in arrays.items():
        _check_kind(value, reference, name)
    return xp, {name: _converted(value, reference, name) for name, value in named.items()}


def _check_kind(value: Array, reference: Array, name: str) -> None:
    """Raise unless `value` has the library, floating dtype and device of `reference`."""
    if namespace(value) is not namespace(reference):
        kinds = f"{library(value)} while other arguments are arrays of {library(reference)}"
        raise TypeError(f"{name} is an array of {kinds}; convert them to one library")
    if not namespace(value).isdtype(value.dtype, "real floating"):
        raise TypeError(f"{name} has dtype {value.dtype}, which is not floating point; cast it to float64 or float32")
    if value.dtype != reference.dtype:
        raise TypeError(f"{name} has dtype {value.dtype} but {reference.dtype} is in use; cast them to one dtype")
    here, there = compat.device(value), compat.device(reference)
    if here != there and here is not None and there is not None:  # a tracer of JAX is nowhere yet
        places = f"{here} but {there} is in use"
        raise ValueError(f"{name} is on device {places}; move them to one device")


def _converted(value: Any, reference: Array, name: str) -> Array:
    if is_array(value):
        return value
    if not isinstance(value, (int, float, np.generic, Sequence)):
        raise TypeError(f"{name} must be an array or numbers, not {type(value).__name__}")
    if isinstance(value, Sequence) and any(is_array(item) for item in value):
        return namespace(reference, *value).stack(list(value))
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is not a rectangular array of numbers; give nested lists of equal length") from error
    return from_numpy(numbers, reference)


def check_finite(array: Array, name: str) -> None:
    """Raise where known values are not finite."""
    known = values(array)
    if known is not None and not np.all(np.isfinite(known)):
        raise ValueError(f"{name} contains values that are not finite; remove or replace them")


def check_states(x: Any, reference: Array, dimension: int | None, name: str = "x") -> Array:
    """An array of the law's kind, of shape (..., d) unless `dimension` is None; raise with the reason otherwise."""
    if not is_array(x):
        x = _converted(x, reference, name)
    _check_kind(x, reference, name)
    if dimension is not None and (x.ndim == 0 or x.shape[-1] != dimension):
        raise ValueError(f"{name} has shape {tuple(x.shape)}; its last axis must have the law's dimension {dimension}")
    return x


def check_sigma(sigma: Any, reference: Array, name: str = "sigma") -> Array:
    """The noise level as a zero-dimensional array of the law's kind; positive and finite where its value is known."""
    return check_positive(sigma, reference, name)


def check_positive(number: Any, reference: Array, name: str) -> Array:
    """A positive finite number as a zero-dimensional array; numbers whose value is not known yet pass."""
    if getattr(number, "shape", ()) != ():
        raise ValueError(f"{name} has shape {tuple(number.shape)}; it must be one number, so map over several")
    if not (is_array(number) or isinstance(number, (int, float, np.generic))):
        raise TypeError(f"{name} must be a number, not {type(number).__name__}")
    known = values(number) if is_array(number) else np.asarray(number)
    if known is not None and not (np.isfinite(known) and known > 0):
        raise ValueError(f"{name} = {float(known)} must be positive and finite")
    if known is not None and float(known) ** 2 < float(namespace(reference).finfo(reference.dtype).smallest_normal):
        raise ValueError(f"{name} = {float(known)} is so small that its square vanishes in {reference.dtype}; rescale")
    return like(number, reference)


def eye(dimension: int, reference: Array) -> Array:
    """The identity matrix in the kind of `reference`."""
    return namespace(reference).eye(dimension, dtype=reference.dtype, device=compat.device(reference))


def transposed(matrices: Array) -> Array:
    """The transposes of a stack of matrices."""
    return namespace(matrices).matrix_transpose(matrices)


def solve(matrices: Array, columns: Array) -> Array:
    """M⁻¹ B for matrices (..., m, m) and columns (..., m, n)."""
    xp = namespace(matrices, columns)
    if compat.is_torch_array(matrices) and (tracked(matrices) or tracked(columns)):
        # Second derivatives by nested forward mode through torch.linalg.solve are half of what they should be.
        return xp.matmul(xp.linalg.inv(matrices), columns)
    return xp.linalg.solve(matrices, columns)


def joined(parts: list[Array]) -> Array:
    """Arrays one after the other along their first axis."""
    return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=0)


def joined_columns(parts: list[Array]) -> Array:
    """Arrays side by side along their second axis."""
    return parts[0] if len(parts) == 1 else namespace(*parts).concat(parts, axis=1)


def summed(weights: Array, matrices: Array) -> Array:
    """`Σ_k w_kn M_k` for weights (K, n) and matrices (K, d, d), shape (n, d, d)."""
    xp = namespace(weights, matrices)
    size, rows, columns = matrices.shape
    flat = xp.matmul(weights.T, xp.reshape(matrices, (size, rows * columns)))
    return xp.reshape(flat, (weights.shape[1], rows, columns))


def dot(a: Array, b: Array) -> Array:
    """a·b over the last axis, in the form that is fastest in the library."""
    xp = namespace(a, b)
    return xp.sum(a * b, axis=-1) if compat.is_torch_array(a) else xp.vecdot(a, b)


def square(vectors: Array) -> Array:
    """|v|² over the last axis."""
    return dot(vectors, vectors)


def weighted(weights: Array, vectors: Array) -> Array:
    """`Σ_k w_kn v_kn` over (K, n) and (K, n, d), shape (n, d), in the form that is fastest in the library."""
    if compat.is_numpy_array(weights):
        return np.einsum("kn,knd->nd", weights, vectors)
    return namespace(weights).sum(weights[:, :, None] * vectors, axis=0)


def log_sum_exp(terms: Array) -> Array:
    """log Σ_k exp(terms[k]) over the first axis; terms of -inf are allowed."""
    xp, top = namespace(terms), _top(terms)
    return xp.log(xp.sum(xp.exp(terms - top), axis=0)) + top[0, ...]


def softmax(terms: Array) -> Array:
    """exp(terms[k]) / Σ_j exp(terms[j]) over the first axis, with sum one to rounding however large the terms."""
    xp = namespace(terms)
    shares = xp.exp(terms - _top(terms))
    return shares / xp.sum(shares, axis=0, keepdims=True)


def _top(terms: Array) -> Array:
    xp = namespace(terms)
    largest = float(xp.finfo(terms.dtype).max)  # where all terms are -inf, terms - top stays -inf and is no NaN
    return xp.clip(xp.max(detached(terms), axis=0, keepdims=True), -largest, largest)


def safe_log(weights: Array) -> Array:
    """Natural logarithm with log 0 = -inf, silently and with a derivative of zero there."""
    xp = namespace(weights)
    positive = weights > 0
    # The logarithm is taken of 1 where there is no weight: the derivative of the branch not taken would be 0 · ∞ there.
    logs = xp.log(xp.where(positive, weights, xp.ones_like(weights)))
    return xp.where(positive, logs, xp.full_like(logs, -float("inf")))


def normal_cdf(z: Array) -> Array:
    """Φ(z), the standard normal distribution function."""
    if compat.is_torch_array(z):
        import torch

        return 0.5 * torch.erfc(-z * 0.5**0.5)  # torch.special.ndtr is zero below −9
    if compat.is_jax_array(z):
        from jax.scipy.special import ndtr

        return ndtr(z)
    return from_numpy(special.ndtr(concrete(z, "the normal distribution function")), z)


def normal_quantile(u: Array) -> Array:
    """Φ⁻¹(u), the standard normal quantile."""
    if compat.is_torch_array(u):
        import torch

        return torch.special.ndtri(u)
    if compat.is_jax_array(u):
        from jax.scipy.special import ndtri

        return ndtri(u)
    return from_numpy(special.ndtri(concrete(u, "the normal quantile")), u)
