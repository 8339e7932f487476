"""Gaussian mixtures as measures: `ν = Σ_k w_k N(μ_k, Σ_k)`, noised to any level in closed form.

At level σ the components have covariances `C_k = Σ_k + σ² I`. With `g_k = −C_k⁻¹(x − μ_k)` and responsibilities
`γ_k(x)`: `s^ν = Σ γ_k g_k` and `∇s^ν t = Σ γ_k [(g_k − s)((g_k − s)·t) − C_k⁻¹ t]`, the centred form, which loses
nothing at small σ. Covariances are kept as eigenvalues and eigenvectors, so that no level needs a new factorisation and
singular covariances are legal.
"""

from __future__ import annotations

import math
from copy import copy

import torch
from torch import Tensor

from sensitivity._checks import (
    check_choice,
    check_dense,
    check_finite,
    check_like,
    check_precision,
    check_same_home,
    check_sigma,
    check_states,
    check_weights,
    full_precision,
)

__all__ = ["Mixture"]


class Mixture:
    """A Gaussian mixture as a measure, or as an exact anchor.

    Args:
        weights: the weights w, shape `(K,)`, ≥ 0, normalised to sum 1; equal when `None`.
        means: the means μ, shape `(K, *shape)`.
        covariances: the covariances Σ over the d flattened entries: `(K, d, d)` full, `(K, d)` diagonal, `(K,)`
            or a number isotropic; positive semi-definite (a zero covariance is a point).
        covariance_type: what `covariances` are, where their shape leaves it open: `"full"` `(K, d, d)`;
            `"tied"` `(d, d)`, one matrix for all components; `"diagonal"` `(K, d)`; `"isotropic"` `(K,)` or
            a number. By default it is read off the shape; a symmetric `(K, d)` with K = d could be variances or one
            matrix and is refused.

    Raises:
        ValueError, TypeError: for shapes that do not fit, entries that are not finite, negative weights, covariances
            that are not symmetric and positive semi-definite.

    Source: Scarvelis & Solomon 2025, arXiv 2509.23092; mixtures are closed under Gaussian convolution.

    Example:
        >>> import torch
        >>> law = Mixture(None, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.25)
        >>> law.score(torch.tensor([[0.0], [2.0]], dtype=torch.float64), 0.5)
        tensor([[ 0.0000],
                [-2.0013]], dtype=torch.float64)
    """

    def __init__(
        self,
        weights: Tensor | None,
        means: Tensor,
        covariances: Tensor | float,
        *,
        covariance_type: str | None = None,
    ):
        check_states(means, "means")
        check_precision(means, "means")
        if means.numel() == 0:
            raise ValueError("means has no rows: a mixture needs at least one component.")
        check_finite(means, "means")
        self.means = means
        self.weights = check_weights(weights, means)
        self.shape = tuple(means.shape[1:])
        self._means = means.detach().reshape(means.shape[0], -1)
        self._log_weights = self.weights.log()
        self._values, self._vectors = _factorise(_spread(covariances, self._means, covariance_type), self._means)

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def dimension(self) -> int:
        """The number d of entries of one sample."""
        return self._means.shape[1]

    @full_precision
    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`log ν_σ(x)` in nats, shape `(batch,)`."""
        log_terms, _ = self._components(x, sigma)
        return torch.logsumexp(log_terms, 1)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """`s^ν(x) = ∇ log ν_σ(x)`, shape of `x`."""
        return self.log_density_and_score(x, sigma)[1]

    @full_precision
    def log_density_and_score(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Both at once: shapes `(batch,)` and that of `x`."""
        log_terms, gradients = self._components(x, sigma)
        responsibilities = torch.softmax(log_terms, 1)
        score = (responsibilities[..., None] * gradients).sum(1)
        return torch.logsumexp(log_terms, 1), score.reshape(x.shape)

    @full_precision
    def score_product(self, x: Tensor, sigma: Tensor | float, tangent: Tensor) -> Tensor:
        """`∇s^ν(x) t`, shape of `x`; `tangent` is like `x`."""
        check_like(tangent, x, "tangent")
        log_terms, gradients = self._components(x, sigma)
        responsibilities = torch.softmax(log_terms, 1)[..., None]
        t = tangent.flatten(1)[:, None]
        # Centred before they are multiplied: far out all g_k are large and nearly equal, and E[g gᵀ] − s sᵀ cancels.
        spread = gradients - (responsibilities * gradients).sum(1, keepdim=True)
        precision_t = self._from_axes(self._to_axes(t.expand_as(gradients)) / self._noised(x, sigma))
        terms = spread * (spread * t).sum(-1, keepdim=True) - precision_t
        return (responsibilities * terms).sum(1).reshape(x.shape)

    def to(self, *args: object, **kwargs: object) -> Mixture:
        """The same measure on another device or dtype, arguments as `Tensor.to`."""
        other = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                moved = value.to(*args, **kwargs)  # type: ignore[call-overload]  # forwards Tensor.to's overloads
                setattr(other, name, moved)
        return other

    def reweighted(self, multipliers: Tensor) -> Mixture:
        """The law with weights `w_k · multipliers_k`, normalised; `multipliers` has shape `(K,)`, ≥ 0."""
        other = copy(self)
        other.weights = check_weights(self.weights * multipliers, self.means)
        other._log_weights = other.weights.log()
        return other

    def _components(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """`log w_k + log N(x; μ_k, C_k)`, `(batch, K)`, and `g_k`, `(batch, K, d)`."""
        check_states(x, "x", self.shape)
        check_same_home(x, self.means, "x", "the means of Mixture")
        variances = self._noised(x, sigma)
        offsets = self._to_axes(x.flatten(1)[:, None] - self._means)
        scaled = offsets / variances
        quadratic = (offsets * scaled).sum(-1)
        volume = (2 * math.pi * variances).log().sum(-1)
        return self._log_weights - 0.5 * (quadratic + volume), -self._from_axes(scaled)

    def _noised(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Eigenvalues of C_k, `(K, d)` or `(batch, K, d)`."""
        level = check_sigma(sigma, x)
        return self._values + (level**2 if level.ndim == 0 else level[:, None, None] ** 2)

    def _to_axes(self, vectors: Tensor) -> Tensor:
        return vectors if self._vectors is None else _turned(vectors, self._vectors)

    def _from_axes(self, coordinates: Tensor) -> Tensor:
        return coordinates if self._vectors is None else _turned(coordinates, self._vectors.mT)


def _turned(rows: Tensor, matrices: Tensor) -> Tensor:
    """`v_bk A_k`, (batch, K, d): the bits that einsum gives, without its parsing at every call."""
    return torch.matmul(rows.transpose(0, 1), matrices).transpose(0, 1)


TYPES = ("full", "tied", "diagonal", "isotropic")


def _spread(covariances: Tensor | float, means: Tensor, kind: str | None) -> Tensor:
    """The covariances in the shape that their kind has, from the caller's word or, where it is plain, their own."""
    size, dimension = means.shape
    c = covariances if isinstance(covariances, Tensor) else _tensor(covariances, means)
    check_dense(c, "covariances")
    check_same_home(c, means, "covariances", "means")
    check_finite(c, "covariances")
    if kind is None:
        if size == dimension > 1 and tuple(c.shape) == (size, dimension) and torch.equal(c, c.mT):
            raise ValueError(
                f"covariances has the symmetric shape {tuple(c.shape)}, with as many components as dimensions: "
                'variances of each component, or one covariance for all? Say covariance_type="diagonal" or "tied".'
            )
        return c
    check_choice(kind, TYPES, "covariance_type")
    shapes = {"full": (size, dimension, dimension), "tied": (dimension, dimension), "diagonal": (size, dimension)}
    if tuple(c.shape) != shapes.get(kind, c.shape if tuple(c.shape) in ((), (size,)) else (size,)):
        raise ValueError(f"covariances has shape {tuple(c.shape)}, which is not covariance_type={kind!r}: see Mixture.")
    return c.expand(size, -1, -1) if kind == "tied" else c


def _tensor(covariances: object, means: Tensor) -> Tensor:
    if isinstance(covariances, bool | str):
        raise TypeError(f"covariances={covariances!r} is a {type(covariances).__name__}: pass a tensor or a number.")
    try:
        return torch.as_tensor(covariances, dtype=means.dtype, device=means.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"covariances is a {type(covariances).__name__}: pass a tensor or a number.") from error


def _factorise(c: Tensor, means: Tensor) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues `(K, d)` and eigenvectors `(K, d, d)`; no eigenvectors when all covariances are diagonal."""
    size, dimension = means.shape
    if tuple(c.shape) in ((), (size,), (size, dimension)):
        values = c.detach().reshape(*c.shape, *([1] * (2 - c.ndim))).expand(size, dimension)
        _check_eigenvalues(values, torch.zeros_like(values))
        return values.contiguous(), None
    if tuple(c.shape) != (size, dimension, dimension):
        raise ValueError(
            f"covariances has shape {tuple(c.shape)}: pass one number, ({size},), ({size}, {dimension}) or "
            f"({size}, {dimension}, {dimension})."
        )
    return _factorise_full(c.detach())


def _factorise_full(c: Tensor) -> tuple[Tensor, Tensor]:
    size = c.abs().amax((1, 2), keepdim=True)
    # A product such as A Aᵀ is symmetric up to some ε of its largest entry; more is no rounding,
    # and its symmetric part would be another law.
    if bool(((c - c.mT).abs() > 100 * torch.finfo(c.dtype).eps * size).any()):
        raise ValueError("covariances is not symmetric: pass (C + Cᵀ)/2.")
    values, vectors = torch.linalg.eigh((c + c.mT) / 2)
    _check_eigenvalues(values, size[..., 0])
    return values.clamp(min=0.0), vectors


def _check_eigenvalues(values: Tensor, size: Tensor) -> None:
    # Rounding may leave eigenvalues of a singular covariance slightly below zero.
    floor = -1000 * torch.finfo(values.dtype).eps * size.abs()
    if bool((values < floor).any()):
        raise ValueError(
            f"covariances is not positive semi-definite (smallest eigenvalue {float(values.amin()):.3g}): "
            "pass a covariance, for instance L Lᵀ."
        )
