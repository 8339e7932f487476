"""General statements about scores and flows as equations that SymPy proves (see `oracles.symbolic`)."""

from __future__ import annotations

import sympy as sp


def identities() -> dict[str, sp.Eq]:
    """The statements by name, for undetermined densities p, ν on the line; `lhs − rhs` simplifies to zero.

    - `gate`: s^η = s + g (s^ν − s), g = ηr/(1 − η + ηr), for the score of (1 − η)p + ην;
    - `first_order`, `second_order`, `third_order`: ∂ⁿs^η/∂ηⁿ = n! (1 − r)^{n−1} r (s^ν − s) at η = 0;
    - `source_slope`: the x-derivative of ṡ = r(s^ν − s) is r[(s^ν − s)² + s^ν′ − s′];
    - `second_sensitivity`: with x(η) fixed by F^η(x) = F^η_max(z), x″ = −x′(2(r − 1) + s x′) at η = 0;
    - `linearisation`: g/(ηr) − 1 = −η(r − 1)/(1 + η(r − 1)).
    """
    x, eta = sp.symbols("x eta", real=True)
    p, nu = sp.Function("p", positive=True)(x), sp.Function("nu", positive=True)(x)
    s, target, r = sp.diff(sp.log(p), x), sp.diff(sp.log(nu), x), nu / p
    moved = sp.diff(sp.log((1 - eta) * p + eta * nu), x)
    gate = eta * r / (1 - eta + eta * r)
    statements = {"gate": sp.Eq(moved, s + gate * (target - s), evaluate=False)}
    for order, name in enumerate(("first_order", "second_order", "third_order"), start=1):
        derivative = sp.diff(moved, eta, order).subs(eta, 0)
        closed = sp.factorial(order) * (1 - r) ** (order - 1) * r * (target - s)
        statements[name] = sp.Eq(derivative, closed, evaluate=False)
    slope = r * ((target - s) ** 2 + sp.diff(target, x) - sp.diff(s, x))
    statements["source_slope"] = sp.Eq(sp.diff(r * (target - s), x), slope, evaluate=False)
    statements["linearisation"] = sp.Eq(gate / (eta * r) - 1, -eta * (r - 1) / (1 + eta * (r - 1)), evaluate=False)
    statements["second_sensitivity"] = _second_sensitivity(eta)
    return statements


def _second_sensitivity(eta: sp.Symbol) -> sp.Eq:
    """x″ from differentiating F(x(η)) + η G(x(η)) = c + η c′ twice, F′ = p, G′ = ν − p."""
    y, delta = sp.Symbol("y", real=True), sp.Symbol("delta", real=True)
    path, second = sp.Function("x")(eta), sp.Symbol("x2", real=True)
    f, g = sp.Function("F"), sp.Function("G")
    twice = sp.diff(f(path) + eta * g(path), eta, 2)
    twice = (
        twice.subs(sp.diff(path, eta, 2), second)
        .subs(sp.diff(path, eta), delta)
        .subs(eta, 0)
        .subs(path.subs(eta, 0), y)
    )
    p, nu = sp.Function("p", positive=True)(y), sp.Function("nu", positive=True)(y)
    known = {sp.diff(f(y), y, 2): sp.diff(p, y), sp.diff(f(y), y): p, sp.diff(g(y), y): nu - p}
    (solution,) = sp.solve(twice.doit().subs(known), second)
    return sp.Eq(solution, -delta * (2 * (nu / p - 1) + sp.diff(sp.log(p), y) * delta), evaluate=False)
