"""SymPy arrays that know their arguments: LaTeX, compilation, and the exact test of zero (see `oracles.symbolic`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from oracles.symbolic._compile import compiled

Arguments = dict[str, sp.Array]


@dataclass(frozen=True)
class Expression:
    """A SymPy array (or scalar, shape ()) and the symbols it is made of, by argument name."""

    value: Any
    arguments: Arguments = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value; () for a scalar."""
        return tuple(getattr(self.value, "shape", ()))

    def entries(self) -> list[sp.Expr]:
        """The entries in row-major order."""
        return list(sp.flatten(self.value)) if self.shape else [self.value]

    def latex(self, abbreviate: bool = False) -> str:
        """LaTeX of the value; with `abbreviate`, common subexpressions get names t_0, t_1, …, one line each."""
        if not abbreviate:
            return str(sp.latex(self.value))
        names, values = sp.cse(self.entries(), symbols=sp.numbered_symbols("t_"))
        rows = [rf"{sp.latex(name)} &= {sp.latex(part)}" for name, part in names]
        rows.append(rf"&\phantom{{=}}\ {sp.latex(array(values, self.shape))}")
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def compile(self, backend: str = "numpy") -> Callable[..., Any]:
        """A function of the named arguments, common subexpressions shared, for "numpy", "torch" or "mpmath".

        `x` may have leading axes (numpy and torch), which the result keeps before its own. With "mpmath" the result is
        a list of numbers in row-major order, or one number. Exponentials are evaluated as they stand: in float64 they
        underflow in far tails, where mpmath does not.

        Raises:
            ValueError: for an unknown backend, and, when called, for an argument of the wrong shape.
            TypeError: when called with missing or unknown arguments.
        """
        return compiled(self.entries(), self.shape, self.arguments, backend)

    def __sub__(self, other: Expression) -> Expression:
        difference = [a - b for a, b in zip(self.entries(), other.entries(), strict=True)]
        return Expression(array(difference, self.shape), {**self.arguments, **other.arguments})


def array(entries: list[sp.Expr], shape: tuple[int, ...]) -> Any:
    """The entries in this shape; a scalar for ()."""
    return sp.Array(entries, shape) if shape else entries[0]


def vanishes(expression: Expression, values: Mapping[str, Any]) -> bool:
    """Whether every entry is zero, in exact arithmetic, at rational `values` of the arguments.

    At a rational point only e to rational powers and square roots are not rational. e is transcendental, so a rational
    function of e^(1/q) is zero if and only if it cancels as one in a free symbol. Square roots of determinants are
    rational at the points of `rational_point`.

    Raises:
        ValueError: where a value is missing or not rational.
    """
    rational: dict[sp.Expr, sp.Expr] = {}
    for name, symbols in expression.arguments.items():
        if name not in values:
            raise ValueError(f"values lacks {name!r}")
        pairs = zip(sp.flatten(symbols), sp.flatten(sp.Array(values[name])), strict=True)
        rational.update({s: v for s, v in pairs if s != 0})
    if not all(v.is_Rational for v in rational.values()):
        raise ValueError("values must be rational, or zero cannot be decided exactly: use sympy.Rational or integers")
    return all(_cancels(entry.xreplace(rational)) for entry in expression.entries())


def _cancels(entry: sp.Expr) -> bool:
    powers = entry.atoms(sp.exp)
    unit = math.lcm(*(int(power.exp.q) for power in powers))
    t = sp.Symbol("t", positive=True)
    replaced = {power: t ** (power.exp * unit) for power in powers}
    return bool(sp.cancel(sp.together(entry.xreplace({**replaced, sp.E: t**unit}))) == 0)
