"""Divergence of a score, `div s = tr J`, exactly or by random probes.

With probes `v_k`, `E[v vᵀ] = I`:

- "exact": `Σ_i e_iᵀ J e_i` over the `d` coordinates; one group, no error;
- "hutchinson" (Rademacher signs) and "hutchinson-gaussian": `v_kᵀ J v_k`, one group a probe; the variances are
  `2 Σ_{i≠j} S_ij²` and `2 |S|_F²` with `S = (J + Jᵀ)/2` (Hutchinson, *Commun. Stat. Simul. Comput.* 19, 1990;
  Avron and Toledo, *J. ACM* 58, 2011), so that signs are exact for a diagonal Jacobian;
- "hutch++" (Meyer, Musco, Musco, Woodruff, arXiv 2010.09649, algorithm 1) on the denoiser's Jacobian
  `G = I + σ²J`, the posterior covariance over σ², which has few large eigenvalues where J has none: with `Q` an
  orthonormal basis of `G S`, S random signs, `tr QᵀGQ` exactly plus Hutchinson on `(I − QQᵀ) G (I − QQᵀ)`, and
  `tr J = (tr G − d)/σ²`. A third of the products goes to each part; a group is one residual probe, unbiased given Q.

A *group* is an independent (given the sketch) unbiased estimate. The estimate is the mean over groups; its standard
error is their standard deviation over `√groups`, and one probe has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sensitivity._checks import check_count, full_precision, per_sample
from sensitivity.jacobians.products import Products
from sensitivity.noise import Noise

EXACT_UP_TO = 16
"""`trace="auto"` is exact up to this dimension: d batched products then cost no more than a few probed runs."""

TRACES = ("exact", "hutchinson", "hutchinson-gaussian", "hutch++")
_STREAM = 1  # noise stream of the probes
_SKETCH = 2  # noise stream of the Hutch++ sketch


@runtime_checkable
class Control(Protocol):
    """A Gaussian q whose Jacobian is known: its products and its divergence."""

    def score_product(self, x: Tensor, sigma: Tensor, tangent: Tensor) -> Tensor: ...

    def divergence(self, sigma: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Trace:
    """A resolved way to take the divergence; `probes` counts products with the Jacobian.

    Example:
        >>> Trace.resolve("auto", None, 3)
        Trace(name='exact', probes=3, chunk_size=None, control=None)
        >>> Trace.resolve("auto", 8, 784).name
        'hutchinson'
    """

    name: str
    probes: int
    chunk_size: int | None = None
    control: Control | None = None

    @classmethod
    def resolve(
        cls,
        name: str,
        probes: int | None,
        dimension: int,
        chunk_size: int | None = None,
        control: Control | None = None,
    ) -> Trace:
        """Resolve `"auto"` (exact up to `EXACT_UP_TO` dimensions) and check `probes` (default 4).

        `control` is a Gaussian `q` whose divergence is known: Hutchinson's probes then estimate
        `div (s − s^q)`, in which the part common to both has no noise.

        Raises:
            ValueError: if the name is unknown or the number of probes too small.
        """
        if name == "auto":
            name = "exact" if dimension <= EXACT_UP_TO else "hutchinson"
        if name not in TRACES:
            raise ValueError(f"trace={name!r} is unknown: choose one of {', '.join(('auto', *TRACES))}.")
        check_count(probes, "probes", 0)
        if control is not None and not isinstance(control, Control):
            raise TypeError(f"control is a {type(control).__name__}: give a GaussianAnchor, or None.")
        if name == "exact":
            return cls(name, dimension, chunk_size)
        if name == "hutch++" and control is not None:
            raise ValueError('control= lowers the noise of Hutchinson probes only: use trace="hutchinson" with it.')
        probes = (6 if name == "hutch++" else 4) if probes is None else probes
        least = 3 if name == "hutch++" else 1
        if probes < least:
            raise ValueError(f"probes={probes} is too few for trace={name!r}: give at least {least}.")
        return cls(name, probes, chunk_size, control)

    @property
    def exact(self) -> bool:
        return self.name == "exact"

    @property
    def groups(self) -> int:
        """Number of estimates per state."""
        return 1 if self.exact else self.probes - 2 * self._rank if self.name == "hutch++" else self.probes

    @property
    def _rank(self) -> int:
        return self.probes // 3

    def directions(self, x: Tensor, noise: Noise | None, *, step: int, stage: int = 0) -> Tensor:
        """Directions `(K, batch, *shape)`: the coordinate basis, or fresh probes of this step and stage."""
        if self.exact:
            basis = torch.eye(prod(x.shape[1:]), dtype=x.dtype, device=x.device)
            return basis.reshape(-1, 1, *x.shape[1:]).expand(-1, *x.shape)
        return self._probes(noise, x, self.groups, step, stage, _STREAM)

    def combine(self, directions: Tensor, products: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Estimates `(groups, batch)` of the divergence from directions and their products; a control needs `σ`."""
        quadratic = (directions * products).flatten(2).sum(2)
        if self.control is None or self.exact:
            return quadratic.sum(0, keepdim=True) if self.exact else quadratic
        if sigma is None:
            raise ValueError("a trace with control= needs the level: pass sigma to combine.")
        flat = directions.flatten(0, 1)
        levels = sigma if sigma.dim() == 0 else sigma.repeat(len(directions))
        known = (flat * self.control.score_product(flat, levels, flat)).flatten(1).sum(1)
        return quadratic - known.reshape(quadratic.shape) + self.control.divergence(sigma)

    def divergence(
        self, products: Products, x: Tensor, sigma: Tensor, noise: Noise | None = None, *, step: int = 0, stage: int = 0
    ) -> tuple[Tensor, Tensor]:
        """`(s(x, σ), estimates of div s)` of shapes like `x` and `(groups, batch)`.

        `chunk_size` bounds the number of directions in memory at a time.
        """
        if self.name == "hutch++":
            return self._sketched(products, x, sigma, noise, step, stage)
        directions = self.directions(x, noise, step=step, stage=stage)
        if not self.exact:
            value, images = products.quadratic(x, sigma, directions)
            return value, self.combine(directions, images, sigma)
        total = torch.zeros(1, x.shape[0], dtype=x.dtype, device=x.device)
        for part in directions.split(self.chunk_size or directions.shape[0]):
            value, images = products.quadratic(x, sigma, part)
            total = total + self.combine(part, images)
        return value, total

    def _probes(self, noise: Noise | None, x: Tensor, count: int, step: int, stage: int, stream: int) -> Tensor:
        if noise is None:
            raise ValueError(f"trace={self.name!r} is random and has no noise: give a generator or a seed.")
        draw = noise.gaussian if self.name == "hutchinson-gaussian" else noise.rademacher
        return draw(tuple(x.shape[1:]), step=step, stage=stage, probes=count, dtype=x.dtype, stream=stream)

    def _sketched(
        self, products: Products, x: Tensor, sigma: Tensor, noise: Noise | None, step: int, stage: int
    ) -> tuple[Tensor, Tensor]:
        """Hutch++ in two calls: the sketch, then its basis together with the residual probes."""
        probes = self.directions(x, noise, step=step, stage=stage)
        sketch = self._probes(noise, x, min(self._rank, prod(x.shape[1:])), step, stage, _SKETCH)
        _, images = products.quadratic(x, sigma, sketch)
        variance = per_sample(sigma.square(), x)
        basis = _orthonormal(sketch + variance * images)
        residual = probes - _projected(basis, probes)
        value, images = products.quadratic(x, sigma, torch.cat([basis, residual]))
        captured = (basis * images[: len(basis)]).flatten(2).sum((0, 2))
        # The residual probe w estimates tr G outside Q by w·Gw, not tr J by w·Jw: G = I + σ²J is small there where J is
        # near −I/σ², so that |w|² − (d − r), the noise of w's length, has to be added back to w·Jw.
        excess = residual.square().flatten(2).sum(2) - (prod(x.shape[1:]) - len(basis))
        return value, captured + (residual * images[len(basis) :]).flatten(2).sum(2) + excess / sigma.square()


@full_precision
def _orthonormal(images: Tensor) -> Tensor:
    """An orthonormal basis, per sample, of the span of `images` `(K, batch, *shape)`."""
    columns = images.flatten(2).permute(1, 2, 0)
    return torch.linalg.qr(columns).Q.permute(2, 0, 1).reshape(images.shape)


@full_precision
def _projected(basis: Tensor, probes: Tensor) -> Tensor:
    """`Q Qᵀ v` per sample."""
    coordinates = torch.einsum("rbd,gbd->grb", basis.flatten(2), probes.flatten(2))
    return torch.einsum("grb,rbd->gbd", coordinates, basis.flatten(2)).reshape(probes.shape)
