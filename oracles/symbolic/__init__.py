r"""The mixture score and its derivatives as SymPy expressions, with LaTeX, fast functions and exact proofs.

Symbols: `p = Σ_k w_k N(x; μ_k, C_k)` with `C_k = Σ_k + σ² I`, `s = ∇ log p`; ν a second mixture, η the share of mass
moved. Each quantity exists twice: as its *definition*, which SymPy differentiates, and as the *closed form* that the
code evaluates. `vanishes(definition − closed form, rational_point(law))` decides in exact arithmetic whether they are
one. `Expression.compile` turns either into a function for NumPy, PyTorch or mpmath; `Expression.latex` prints it.

- `SymbolicMixture(size, dimension, covariance)`: `.definition(q)`, `.closed_form(q)` for q in `QUANTITIES`;
- `SymbolicContamination(base, toward)`: derivatives of any order in η, at any η;
- `SymbolicPath(base)`: derivatives in weights, means and covariances;
- `identities()`: the general statements (any density, one dimension), each an equation that SymPy proves.

Example:
    >>> law = SymbolicMixture(size=1, dimension=1)
    >>> sorted(law.definition("score").arguments)
    ['covariances', 'means', 'sigma', 'weights', 'x']
    >>> score = law.definition("score").compile("numpy")
    >>> score(x=[2.0], sigma=1.0, weights=[1.0], means=[[0.0]], covariances=[[[3.0]]])
    array([-0.5])
    >>> vanishes(law.definition("score") - law.closed_form("score"), rational_point(law))
    True
"""

from __future__ import annotations

from oracles.symbolic._expression import Expression, vanishes
from oracles.symbolic._paths import SymbolicContamination, SymbolicPath
from oracles.symbolic._statements import identities
from oracles.symbolic._symbols import KINDS, QUANTITIES, SymbolicMixture, rational_point

__all__ = [
    "KINDS",
    "QUANTITIES",
    "Expression",
    "SymbolicContamination",
    "SymbolicMixture",
    "SymbolicPath",
    "identities",
    "rational_point",
    "vanishes",
]
