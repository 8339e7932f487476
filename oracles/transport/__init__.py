r"""Truths about sampling that need no solver: the 1-d quantile oracle, product laws and the single Gaussian.

**One dimension.**  The probability flow dx/dσ = −σ s(x) is the monotone transport between the noised laws, so that
F_σ(x(σ)) is constant along it (F the distribution function of ρ noised to σ). With the latent x(σ_max) = z fixed and
ρ_η = (1 − η)ρ + ην, everything at σ_min follows from `F^η(x_η; σ_min) = F^η(z; σ_max)`: with G = F^ν − F,
p the density, r = ν_σ/p and s the score, all at x and σ_min,

    x_η by inversion,   δ = dx/dη = [G(z; σ_max) − G(x; σ_min)]/p = [F^ν(z; σ_max) − F^ν(x; σ_min)]/p,
    d²x/dη² = −δ (2(r − 1) + s δ).

**Products** evolve coordinate by coordinate; when one factor is contaminated, ρ_1^η ⊗ ρ_2 is the contamination of
ρ_1 ⊗ ρ_2 toward ν_1 ⊗ ρ_2, whose transport is the factor's own.

**One Gaussian** N(μ, Σ), Σ = U diag(λ) Uᵀ: `x(σ) = μ + A (z − μ)`, `A = U diag(f) Uᵀ`,
`f = √((λ+σ²)/(λ+σ_max²))`; dx/dμ·v = (I − A)v and dx/dΣ·H = U(K∘UᵀHU)Uᵀ(z − μ) with the divided difference
`K_ij = (f_i − f_j)/(λ_i − λ_j) = (σ_max²−σ²)/[(λ_i+σ_max²)(λ_j+σ_max²)(f_i+f_j)]`, which has no special case at
repeated eigenvalues (Daleckii–Krein).

Sources: the flow is Song et al., arXiv 2011.13456, eq. 13; in one dimension its map is the increasing rearrangement.
"""

from __future__ import annotations

from oracles.transport._gaussian import GaussianOracle
from oracles.transport._product import ProductLaw, ProductOracle
from oracles.transport._quantile import QuantileOracle

__all__ = ["GaussianOracle", "ProductLaw", "ProductOracle", "QuantileOracle"]
