"""Proofs in exact arithmetic that definitions and closed forms agree, and that the code's numbers are theirs."""

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from support.close import assert_close

from oracles import AdditivePerturbation, GaussianMixture
from oracles.parameters import ParameterPerturbation
from oracles.symbolic import (
    QUANTITIES,
    Expression,
    SymbolicContamination,
    SymbolicMixture,
    SymbolicPath,
    identities,
    rational_point,
    vanishes,
)

DERIVED = [q for q in QUANTITIES if q != "log_density"]


def numbers(law: SymbolicMixture, seed: int = 0) -> dict[str, np.ndarray]:
    """Float64 parameters for a symbolic law with full covariances, by argument name."""
    rng = np.random.default_rng(seed)
    k, d = law.size, law.dimension
    weights, root = rng.uniform(0.5, 2.0, k), rng.standard_normal((k, d, d))
    covariances = root @ np.swapaxes(root, 1, 2) / d + 0.1 * np.eye(d)
    prefix = f"{law.name}_" if law.name else ""
    parts = {"weights": weights / weights.sum(), "means": rng.standard_normal((k, d)), "covariances": covariances}
    return {prefix + name: value for name, value in parts.items()}


@pytest.mark.parametrize("quantity", DERIVED)
@pytest.mark.parametrize(
    ("size", "dimension", "kind"), [(1, 1, "full"), (3, 1, "isotropic"), (2, 2, "full"), (2, 2, "diagonal")]
)
def test_closed_forms_are_the_derivatives(quantity: str, size: int, dimension: int, kind: str) -> None:
    """Assert that the code's closed form minus SymPy's derivative is exactly zero at rational points."""
    law = SymbolicMixture(size, dimension, kind)
    difference = law.definition(quantity) - law.closed_form(quantity)
    assert vanishes(difference, rational_point(law, seed=size))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_contamination_derivatives_of_any_order_have_the_gate(order: int) -> None:
    """Assert that n! (1−r)^{n−1} r/D^{n+1} (s^ν−s) is the n-th derivative in η, at η = 1/5, exactly."""
    pair = SymbolicContamination(SymbolicMixture(2, 1), SymbolicMixture(2, 1, name="toward"))
    assert vanishes(pair.definition(order) - pair.closed_form(order), pair.rational_point())


@pytest.mark.parametrize(
    ("size", "dimension", "kind", "order"),
    [(2, 1, "full", 1), (2, 1, "full", 2), (1, 2, "full", 2), (2, 2, "full", 1), (2, 2, "isotropic", 1)],
)
def test_parameter_derivatives_have_the_stated_form(size: int, dimension: int, kind: str, order: int) -> None:
    """Assert that the closed derivative in weights, means and covariances together is SymPy's, exactly."""
    path = SymbolicPath(SymbolicMixture(size, dimension, kind))
    assert vanishes(path.definition(order) - path.closed_form(order), path.rational_point())


@pytest.mark.slow
def test_second_parameter_derivatives_in_the_plane_have_the_stated_form() -> None:
    """Assert the same at second order for two full covariances in the plane."""
    path = SymbolicPath(SymbolicMixture(2, 2))
    assert vanishes(path.definition(2) - path.closed_form(2), path.rational_point())


@pytest.mark.parametrize("name", sorted(identities()))
def test_general_statements_simplify_to_zero(name: str) -> None:
    """Assert that each statement holds for undetermined densities."""
    statement = identities()[name]
    assert sp.simplify(statement.lhs - statement.rhs) == 0


def test_a_wrong_closed_form_does_not_vanish() -> None:
    """Assert that a dropped term, a factor 1 + 1e-9 and a wrong sign are all seen."""
    law = SymbolicMixture(2, 1)
    right, point = law.definition("score_jacobian"), rational_point(law)
    local = law.closed_form("score_jacobian").value[0, 0]
    uncentred = local + law.closed_form("score").value[0] ** 2
    for wrong in (uncentred, local * (1 + sp.Rational(1, 10**9)), -local):
        assert not vanishes(right - Expression(sp.Array([[wrong]]), law.arguments), point)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_code_evaluates_the_definitions(quantity: str) -> None:
    """Assert that GaussianMixture's numbers are those of the compiled definition, at states with leading axes."""
    law, sigma = SymbolicMixture(2, 2), 0.6
    values = numbers(law)
    x = np.random.default_rng(1).standard_normal((3, 4, 2))
    wanted = law.definition(quantity).compile("numpy")(x=x, sigma=sigma, **values)
    clean = GaussianMixture(*values.values())
    assert_close(evaluated(clean, quantity, x, sigma), wanted, rtol=1e-11, atol=1e-13)


def evaluated(clean: GaussianMixture, quantity: str, x: np.ndarray, sigma: float) -> np.ndarray:
    noisy, d = clean.noised(sigma), x.shape[-1]
    if quantity == "third_order":
        pairs = [
            [noisy.third_order(x, np.broadcast_to(u, x.shape), np.broadcast_to(v, x.shape)) for v in np.eye(d)]
            for u in np.eye(d)
        ]
        return np.moveaxis(np.array(pairs), (0, 1), (-2, -1))
    if quantity in ("denoiser", "posterior_covariance"):
        return clean.posterior(x, sigma)[quantity != "denoiser"]
    return getattr(noisy, quantity)(x)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_code_evaluates_contamination(order: int) -> None:
    """Assert that AdditivePerturbation.score_derivative is the compiled derivative of each order, at η = 0.3."""
    base, toward = SymbolicMixture(2, 2), SymbolicMixture(1, 2, name="toward")
    a, b = numbers(base), numbers(toward, 3)
    x = np.random.default_rng(1).standard_normal((5, 2))
    wanted = SymbolicContamination(base, toward).definition(order).compile()(x=x, sigma=0.6, eta=0.3, **a, **b)
    perturbation = AdditivePerturbation(GaussianMixture(*a.values()), GaussianMixture(*b.values()))
    assert_close(perturbation.score_derivative(x, 0.6, order=order, eta=0.3), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2])
def test_the_code_evaluates_parameter_paths(order: int) -> None:
    """Assert that ParameterPerturbation.score_derivative is the compiled derivative."""
    law, rng = SymbolicMixture(2, 1), np.random.default_rng(4)
    values, x = numbers(law), np.random.default_rng(1).standard_normal((5, 1))
    rates = {
        "weights": np.array([0.3, -0.3]),
        "means": rng.standard_normal((2, 1)),
        "covariances": rng.standard_normal((2, 1, 1)),
    }
    named = {f"{k}_rate": v for k, v in rates.items()}
    wanted = SymbolicPath(law).definition(order).compile()(x=x, sigma=0.6, **values, **named)
    path = ParameterPerturbation(GaussianMixture(*values.values()), **rates)
    assert_close(path.score_derivative(x, 0.6, order=order), wanted, rtol=1e-10, atol=1e-12)


def test_backends_agree_and_torch_differentiates() -> None:
    """Assert that numpy, torch and mpmath give one score, and that torch's gradient of log p is it."""
    law = SymbolicMixture(2, 2)
    values, x = numbers(law), np.array([0.3, -0.7])
    score = law.definition("score")
    expected = score.compile("numpy")(x=x, sigma=0.5, **values)
    state = torch.tensor(x, requires_grad=True)
    tensors = {k: torch.tensor(v) for k, v in values.items()}
    assert_close(score.compile("torch")(x=state, sigma=0.5, **tensors), torch.tensor(expected), rtol=1e-12)
    log_density = law.definition("log_density").compile("torch")(x=state, sigma=0.5, **tensors)
    assert_close(torch.autograd.grad(log_density, state)[0], torch.tensor(expected), rtol=1e-12)
    with mpmath.workdps(30):
        exact = score.compile("mpmath")(x=[mpmath.mpf(v) for v in x], sigma=mpmath.mpf(0.5), **values)
    assert_close(np.array([float(v) for v in exact]), expected, rtol=1e-12)


def test_latex_is_compilable_text() -> None:
    """Assert that LaTeX mentions the symbols, and that abbreviations are listed one a line."""
    law = SymbolicMixture(2, 1)
    assert r"\mu_{11}" in law.definition("score").latex()
    short = law.definition("score").latex(abbreviate=True)
    assert short.startswith(r"\begin{aligned}")
    assert short.count("&") == short.count(r"\\") + 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda law: SymbolicMixture(1, 1, "banded"), ValueError, "covariance = 'banded'"),
        (lambda law: SymbolicMixture(0, 1), ValueError, "size = 0"),
        (lambda law: law.definition("entropy"), ValueError, "quantity = 'entropy'"),
        (lambda law: law.definition("score").compile("jax"), ValueError, "backend = 'jax'"),
        (lambda law: law.definition("score").compile()(x=[0.0]), TypeError, "missing"),
        (lambda law: law.definition("score").compile()(**{**GOOD, "means": [0.0]}), ValueError, "means has shape"),
        (lambda law: SymbolicContamination(law, law), ValueError, "a name of its own"),
        (lambda law: SymbolicPath(law).closed_form(3), ValueError, "order = 3"),
        (lambda law: vanishes(law.definition("score"), {}), ValueError, "values lacks 'x'"),
        (lambda law: vanishes(law.definition("score"), GOOD), ValueError, "must be rational"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(call, error: type[Exception], message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(error, match=message):
        call(SymbolicMixture(1, 1))


GOOD = {"x": [0.5], "sigma": 1.0, "weights": [1.0], "means": [[0.0]], "covariances": [[[1.0]]]}
