"""Conditioning of Gaussian components on a linear observation, in factors that stay positive semi-definite.

Symbols: `y = A x + n`, A of shape (p, d), n ~ N(0, R); a component N(μ, Σ), `Σ = Q diag(ℓ²) Qᵀ + v (I − Q Qᵀ)`.

The observation is first made independent of units: with `R^{-1/2} A = V diag(a) Tᵀ`, it says
`Vᵀ R^{-1/2} y = a ∘ Tᵀ x + n′`, n′ ~ N(0, I), in orthonormal directions T (d, t), once for all components; what of y
lies outside V has the same density for all of them. With `a ∘ Tᵀ Q diag(ℓ) = U diag(s) Zᵀ` and
`r = Vᵀ R^{-1/2} y − a ∘ Tᵀ μ`

    mean        μ + Q diag(ℓ) Z diag(s/(1 + s²)) Uᵀ r
    covariance  Φ Φᵀ + v (I − Q Qᵀ),   Φ = Q diag(ℓ) Z diag((1 + s²)^{-1/2})
    log p(y)    −½ Σ_j [(Uᵀ r)_j²/(1 + s_j²) + log(1 + s_j²) + log 2π] + what is common

Nothing is subtracted, so that small posterior variances are right in their own size, and singular Σ (ℓ = 0) are legal.
Where R has no noise, `Tᵀ x` is known: 1 + s² becomes s², and the columns of Z that it fixes leave Φ.

Source: conditioning of joint Gaussians, e.g. Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.3;
the positive form is that of Joseph (Bucy & Joseph, Filtering for Stochastic Processes, 1968) in factors.

The factors are computed in NumPy float64. Where derivatives in Σ, A or R are traced they are those of the Joseph form
on dense matrices; derivatives in y, μ and the weights need neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from oracles import _arrays
from oracles._arrays import Array, namespace
from oracles._mixture import covariance
from oracles._mixture.covariance import Covariances, Diagonal, Full, Isotropic, LowRank, TrackedFull
from oracles._mixture.local import Group
from oracles._protocols import Grouped

# Singular values below this multiple of their number's rounding count as zero.
ROUNDING = 8.0


class Posterior(NamedTuple):
    """Components given y, with weights still those of the prior, and log p(y | component), shape (K,)."""

    group: Group
    log_evidence: Array


@dataclass(frozen=True)
class Reading:
    """`scales ∘ directionsᵀ x + n′ = matrix y`, with unit noise, or none where `exact`; NumPy float64.

    `rest` (p, p) maps y to the part that no x reaches, whose squared length and `constant` are added to log p(y).
    """

    directions: np.ndarray
    scales: np.ndarray
    matrix: np.ndarray
    rest: np.ndarray
    constant: float
    exact: bool


def given(groups: tuple[Group, ...], operator: Any, observation: Any, noise: Any) -> tuple[tuple[Group, ...], Array]:
    """All components given y, with their new weights, and log p(y); `noise` may be a mixture, the law of n."""
    parts = [
        _weighted(share, posterior(group, matrix, y, spread))
        for share, matrix, y, spread in _cases(groups[0].means, operator, observation, noise)
        for group in groups
    ]
    terms = _arrays.joined([logs for _, logs in parts])
    ends = np.cumsum([int(logs.shape[0]) for _, logs in parts])
    weights = _arrays.softmax(terms)
    moved = tuple(
        Group(weights[end - logs.shape[0] : end], group.means, group.covariances)
        for (group, logs), end in zip(parts, ends.tolist(), strict=True)
    )
    return moved, _arrays.log_sum_exp(terms)


def _weighted(share: Array, part: Posterior) -> tuple[Group, Array]:
    """Components with log(share w_k p(y | k))."""
    return part.group, _arrays.safe_log(share) + _arrays.safe_log(part.group.weights) + part.log_evidence


def _cases(like: Array, operator: Any, observation: Any, noise: Any) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Per component of the noise: its weight, A, y less its mean, and its covariance."""
    matrix, y = _checked(like, operator, observation)
    if not isinstance(noise, Grouped):
        yield namespace(like).ones_like(like[0, 0]), matrix, y, _checked_noise(noise, y)
        return
    means = _arrays.check_states(noise.means, like, int(y.shape[0]), "the noise law's means")
    matrices = noise.covariances
    for k in range(noise.size):
        yield noise.weights[k], matrix, y - means[k, :], _symmetric(matrices[k, :, :])


def _checked(like: Array, operator: Any, observation: Any) -> tuple[Array, Array]:
    """A (p, d) and y (p,) in the law's kind."""
    matrix = _arrays.check_states(operator, like, int(like.shape[1]), "operator")
    if matrix.ndim != 2 or matrix.shape[0] == 0:
        raise ValueError(f"operator has shape {tuple(matrix.shape)}; it must be (p, d) with at least one row")
    y = _arrays.check_states(observation, like, None, "observation")
    if tuple(y.shape) != (matrix.shape[0],):
        raise ValueError(f"observation has shape {tuple(y.shape)}; it must be (p,) = ({matrix.shape[0]},)")
    for array, name in ((matrix, "operator"), (y, "observation")):
        _arrays.check_finite(array, name)
    return matrix, y


def _checked_noise(noise: Any, y: Array) -> Array:
    """R as it was given: (), (p,) or (p, p), positive semi-definite."""
    size = int(y.shape[0])
    spread = _arrays.check_states(noise, y, None, "noise_covariance")
    if tuple(spread.shape) not in ((), (size,), (size, size)):
        words = f"(), (p,) or (p, p) with p = {size}"
        raise ValueError(f"noise_covariance has shape {tuple(spread.shape)}; it must be {words}")
    if spread.ndim < 2:
        covariance.check_variances(spread, "noise_covariance")
        return spread
    _arrays.check_finite(spread, "noise_covariance")
    covariance.check_symmetric(spread, "noise_covariance")
    covariance.check_positive_semidefinite(
        namespace(spread).linalg.eigvalsh(_arrays.detached(spread)), "noise_covariance"
    )
    return _symmetric(spread)


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + _arrays.transposed(matrix))


def posterior(group: Group, operator: Array, observation: Array, noise: Array) -> Posterior:
    """The components of a group given `observation`; `noise` is a variance, (p,) variances or a (p, p) covariance."""
    if _traced(group, operator, noise):
        return _dense(group, operator, observation, noise)
    log_evidence = namespace(observation).zeros_like(group.weights)
    for reading in readings(operator, noise):
        group, gained = _updated(group, reading, observation)
        log_evidence = log_evidence + gained
    return Posterior(group, log_evidence)


def readings(operator: Array, noise: Array) -> list[Reading]:
    """The exact part of an observation, if any, and its noisy part: independent given x, one after the other."""
    matrix = _arrays.concrete(operator, "conditioned").astype(np.float64)
    variances, basis = _noise_spectrum(_arrays.concrete(noise, "conditioned").astype(np.float64), len(matrix))
    parts = [(True, variances == 0), (False, variances > 0)]
    return [_reading(matrix, variances[rows], basis[:, rows], exact) for exact, rows in parts if rows.any()]


def _noise_spectrum(noise: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (p,) and eigenvectors (p, p) of R; what rounding leaves of a zero eigenvalue is zero."""
    if noise.ndim < 2:
        return np.broadcast_to(noise, (size,)), np.eye(size)
    values, basis = np.linalg.eigh(noise)
    # `eigh` gives a zero eigenvalue as some ε |R|, of either sign: taken for a variance it would be an observation of
    # enormous precision, or the root of a negative number.
    floor = ROUNDING * size * np.finfo(float).eps * np.max(np.abs(values))
    return np.where(values <= floor, 0.0, values), basis


def _reading(operator: np.ndarray, variances: np.ndarray, basis: np.ndarray, exact: bool) -> Reading:
    """The observation along some of R's eigenvectors (p, q), divided by their standard deviations unless exact."""
    units = np.ones_like(variances) if exact else 1 / np.sqrt(variances)
    whitened = units[:, None] * basis.T
    left, sizes, right = np.linalg.svd(whitened @ operator, full_matrices=False)
    # A direction that A reaches only by rounding belongs to what no x reaches.
    kept = sizes > ROUNDING * max(operator.shape) * np.finfo(float).eps * sizes.max()
    if exact and kept.sum() < len(variances):
        raise ValueError(
            f"noise_covariance is zero in {len(variances)} directions but operator has only {int(kept.sum())} "
            "independent rows there: the observation has no density; add noise or leave repeated rows out"
        )
    left, sizes = left[:, kept], sizes[kept]
    matrix, reach = left.T @ whitened, left.shape[1]
    # The density of y: the determinant of the whitening, and the standard normals of the p − t directions outside V.
    constant = float(np.sum(np.log(units))) - 0.5 * (len(variances) - reach) * math.log(2 * math.pi)
    if exact:  # Tᵀ x itself: y's density is that of Tᵀ x over the product of a
        matrix, constant = matrix / sizes[:, None], constant - float(np.sum(np.log(sizes)))
        sizes = np.ones_like(sizes)
    return Reading(right[kept].T, sizes, matrix, whitened - left @ (left.T @ whitened), constant, exact)


def _updated(group: Group, reading: Reading, observation: Array) -> Posterior:
    """The components given one reading."""
    update = _isotropic if type(group.covariances) is Isotropic else _factorised
    posterior = update(group, reading, _residuals(group, reading, observation))
    missed = namespace(observation).matmul(_arrays.from_numpy(reading.rest, observation), observation)
    return Posterior(posterior.group, posterior.log_evidence + (reading.constant - 0.5 * _arrays.square(missed)))


def _residuals(group: Group, reading: Reading, observation: Array) -> Array:
    """r = matrix y − a ∘ Tᵀ μ_k, shape (K, t)."""
    xp = namespace(observation)
    seen = xp.matmul(_arrays.from_numpy(reading.matrix, observation), observation)
    operator = _arrays.from_numpy(reading.directions * reading.scales, group.means)
    return seen[None, :] - xp.matmul(group.means, operator)


def _isotropic(group: Group, reading: Reading, residuals: Array) -> Posterior:
    """Σ = v I: `a ∘ Tᵀ √v` is diagonal already, U = Z = I and s = a √v."""
    covariances = group.covariances.numpy()
    variances, scales = covariances.spectrum[0], reading.scales[None, :]
    if reading.exact:
        _check_rank(variances[:, 0], np.zeros_like(variances[:, 0]))
    square = scales**2 * variances
    growth = square if reading.exact else 1 + square
    gain = _arrays.from_numpy(scales * variances / growth, group.means)
    xp = namespace(group.means)
    shift = xp.matmul(gain * residuals, _arrays.from_numpy(reading.directions.T, group.means))
    remaining = np.zeros_like(square) if reading.exact else variances / growth
    moved = _isotropic_part(group.covariances, variances, remaining, reading)
    evidence = _log_normal(residuals / xp.sqrt(_arrays.from_numpy(growth, residuals)), growth)
    return Posterior(Group(group.weights, group.means + shift, moved), evidence)


def _isotropic_part(prior: Covariances, variances: np.ndarray, remaining: np.ndarray, reading: Reading) -> Covariances:
    """T diag(remaining) Tᵀ + v (I − T Tᵀ): points stay points."""
    if not variances.any():
        return prior
    basis = np.broadcast_to(reading.directions, (len(variances), *reading.directions.shape))
    return _covariances(prior, basis, remaining, variances)


def _factorised(group: Group, reading: Reading, residuals: Array) -> Posterior:
    """Any Σ = Q diag(ℓ²) Qᵀ + v (I − Q Qᵀ) with T within the span of Q, or Q square."""
    basis, roots, rest = _factors(group.covariances.numpy(), reading.directions)
    seen = reading.scales[:, None] * (reading.directions.T @ basis) * roots[:, None, :]
    # All of Z, with the columns that the observation does not see: these keep their variance in Φ.
    left, sizes, right = np.linalg.svd(seen, full_matrices=True)
    known, columns = seen.shape[1:]
    if reading.exact:
        _check_rank(_padded(sizes, known).min(axis=1), columns * np.finfo(float).eps * roots.max(axis=1))
    square = _padded(sizes, known) ** 2
    growth = square if reading.exact else 1 + square
    whitening = np.swapaxes(left, 1, 2) / np.sqrt(growth)[:, :, None]
    gain = right[:, : sizes.shape[1], :].swapaxes(1, 2) * (sizes / growth[:, : sizes.shape[1]])[:, None, :]
    # By roots ℓ, never by inverses of them: a singular Σ has zeros among them.
    gain = basis @ (roots[:, :, None] * (gain @ left[:, :, : sizes.shape[1]].swapaxes(1, 2)))
    xp = namespace(residuals)
    shift, white = (
        xp.matmul(_arrays.from_numpy(matrix, residuals), residuals[:, :, None])[:, :, 0] for matrix in (gain, whitening)
    )
    moved = _shrunk(group.covariances, basis, roots, rest, right, sizes, reading.exact)
    return Posterior(Group(group.weights, group.means + shift, moved), _log_normal(white, growth))


def _factors(covariances: Covariances, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Q (K, d, k), ℓ (K, k) and v (K, 1), None where Q is square; NumPy."""
    if isinstance(covariances, LowRank):
        wide = np.broadcast_to(directions, (covariances.size, *directions.shape))
        # The first columns of the Householder factor are those of U up to sign: Σ is diagonal in it.
        basis = np.linalg.qr(np.concatenate([covariances.basis, wide], axis=2))[0]
        values, rest = covariances.spectrum
        tail = np.broadcast_to(rest, (len(rest), basis.shape[2] - values.shape[1]))
        roots = np.sqrt(np.concatenate([values, tail], axis=1))
        return basis, roots, rest if basis.shape[2] < covariances.dimension else None
    if isinstance(covariances, Diagonal):
        shape = (covariances.size, covariances.dimension, covariances.dimension)
        return np.broadcast_to(np.eye(covariances.dimension), shape), np.sqrt(covariances.spectrum[0]), None
    if isinstance(covariances, Full):
        return covariances.basis, np.sqrt(covariances.spectrum[0]), None
    raise TypeError(f"covariances of type {type(covariances).__name__} cannot be conditioned")


def _shrunk(
    prior: Covariances,
    basis: np.ndarray,
    roots: np.ndarray,
    rest: np.ndarray | None,
    right: np.ndarray,
    sizes: np.ndarray,
    exact: bool,
) -> Covariances:
    """Φ Φᵀ + v (I − Q Qᵀ), its eigenvalues the squares of Φ's singular values."""
    columns = roots.shape[1]
    square = _padded(sizes, columns) ** 2
    kept = np.arange(columns) >= (sizes.shape[1] if exact else 0)
    shrink = np.where(kept, 1.0, 0.0) if exact else 1 / np.sqrt(1 + square)
    factor = roots[:, :, None] * np.swapaxes(right, 1, 2) * shrink[..., None, :]
    # Singular values of Φ, not eigenvalues of Φ Φᵀ: a small variance keeps its own digits beside a large one.
    turned, values, _ = np.linalg.svd(factor)
    # What the observation has fixed comes as singular values of zero, sorted last and rounded: points are to stay
    # points.
    values = np.where(kept[::-1], values, 0.0) if exact else values
    return _covariances(prior, basis @ turned, values**2, rest)


def _covariances(prior: Covariances, basis: np.ndarray, values: np.ndarray, rest: np.ndarray | None) -> Covariances:
    """The representation for a basis (K, d, k), in the library of the prior's."""
    like = prior.spectrum[0]
    # A basis that all components share was broadcast: it is converted once, and stays one.
    shared = basis.strides[0] == 0 and len(basis) > 1
    columns = _arrays.from_numpy(basis[0] if shared else basis, like)
    columns = namespace(like).broadcast_to(columns[None, :, :], basis.shape) if shared else columns
    if basis.shape[2] == basis.shape[1] or rest is None:
        return Full(columns, _arrays.from_numpy(values, like))
    return LowRank(columns, _arrays.from_numpy(values, like), _arrays.from_numpy(rest, like))


def _padded(sizes: np.ndarray, length: int) -> np.ndarray:
    """Singular values (K, m), with zeros up to a length."""
    return np.pad(sizes, ((0, 0), (0, max(0, length - sizes.shape[1]))))[:, :length]


def _log_normal(white: Array, growth: np.ndarray) -> Array:
    """−½ Σ_j (w_j² + log growth_j + log 2π), shape (K,)."""
    known = -0.5 * np.sum(np.log(2 * np.pi * growth), axis=1)
    return _arrays.from_numpy(known, white) - 0.5 * _arrays.square(white)


def _check_rank(smallest: np.ndarray, floor: np.ndarray) -> None:
    bad = np.flatnonzero(smallest <= floor)
    if bad.size:
        raise ValueError(
            f"noise_covariance is zero in a direction in which component {bad[0]} of the law has no variance: "
            "the observation has no density there; add noise"
        )


def _traced(group: Group, operator: Array, noise: Array) -> bool:
    """Whether derivatives in the covariances, the operator or the noise are wanted."""
    parts = (*group.covariances.spectrum, operator, noise)
    return isinstance(group.covariances, TrackedFull) or any(_arrays.tracked(part) for part in parts)


def _dense(group: Group, operator: Array, observation: Array, noise: Array) -> Posterior:
    """The Joseph form `(I − K A) Σ (I − K A)ᵀ + K R Kᵀ`, K = Σ Aᵀ S⁻¹, S = A Σ Aᵀ + R, by Cholesky factors of S."""
    xp, matrices = namespace(observation), group.covariances.matrices()
    size = int(operator.shape[0])
    spread = noise if noise.ndim == 2 else noise * _arrays.eye(size, operator)
    cross = xp.matmul(operator, matrices)
    total = xp.matmul(cross, operator.T) + spread
    _check_positive(total)
    lower = xp.linalg.cholesky(_symmetric(total))
    half = _arrays.solve(lower, cross)
    gain = _arrays.transposed(_arrays.solve(_arrays.transposed(lower), half))
    residuals = observation[None, :] - xp.matmul(group.means, operator.T)
    white = _arrays.solve(lower, residuals[:, :, None])
    kept = _arrays.eye(group.covariances.dimension, operator) - xp.matmul(gain, operator)
    # Positive semi-definite whatever rounding does to K, which (I − K A) Σ alone is not.
    moved = _sandwich(kept, matrices) + _sandwich(gain, spread)
    logs = xp.sum(xp.log(xp.linalg.diagonal(lower)), axis=-1) + 0.5 * size * math.log(2 * math.pi)
    means = group.means + xp.matmul(_arrays.transposed(half), white)[:, :, 0]
    shrunk = covariance.full(_symmetric(moved))
    return Posterior(Group(group.weights, means, shrunk), -logs - 0.5 * _arrays.square(white[:, :, 0]))


def _sandwich(left: Array, middle: Array) -> Array:
    """L M Lᵀ."""
    xp = namespace(left)
    return xp.matmul(xp.matmul(left, middle), _arrays.transposed(left))


def _check_positive(total: Any) -> None:
    """Raise where a known S is singular to rounding."""
    known = _arrays.values(total)
    if known is not None:
        values = np.linalg.eigvalsh(known.astype(np.float64))
        _check_rank(values[:, 0], ROUNDING * values.shape[1] * np.finfo(known.dtype).eps * values[:, -1])
