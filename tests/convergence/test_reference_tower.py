"""One truth by three routes: the code's closed forms, SymPy, and mpmath, over σ = 1e-6 … 1e4 and 100 sd out."""

import mpmath
import numpy as np
import pytest
from support.close import assert_close

from oracles import AdditivePerturbation, GaussianMixture, flow, reference
from oracles.lines import Laplace, NormalMixture, Uniform
from oracles.references.regenerate import directions
from oracles.symbolic import SymbolicContamination, SymbolicMixture
from oracles.transport import QuantileOracle

EPS = np.finfo(float).eps
LOCAL, LINE, FLOW = (reference.load(name) for name in ("local", "line", "flow"))
STRICT = ("log_density", "score", "score_jacobian", "score_divergence")
CONDITIONED = (
    "posterior_mean",
    "posterior_covariance",
    "third_order",
    "score_derivative_1",
    "score_derivative_2",
    "score_derivative_3_at_0.25",
)


def mixture(stated: dict) -> GaussianMixture:
    return GaussianMixture(*(np.array(stated[key]) for key in ("weights", "means", "covariances")))


LAWS = {
    name: AdditivePerturbation(*(mixture(problem[key]) for key in ("base", "toward")))
    for name, problem in LOCAL.problems.items()
}


def evaluated(row: dict, quantity: str) -> np.ndarray:
    """The code's value at the row's state, flat."""
    p, x, sigma = LAWS[row["problem"]], np.array(row["x"]), row["sigma"]
    law, (u, v) = p.base.noised(sigma), (np.array(a) for a in directions(x.size))
    routes = {
        "third_order": lambda: law.third_order(x, u, v),
        "posterior_mean": lambda: p.base.posterior(x, sigma)[0],
        "posterior_covariance": lambda: p.base.posterior(x, sigma)[1],
        "score_derivative_1": lambda: p.score_derivative(x, sigma, 1),
        "score_derivative_2": lambda: p.score_derivative(x, sigma, 2),
        "score_derivative_3_at_0.25": lambda: p.score_derivative(x, sigma, 3, 0.25),
    }
    return np.ravel(routes[quantity]() if quantity in routes else getattr(law, quantity)(x))


def cancellation(row: dict, quantity: str) -> float:
    """Size of the terms that the closed form adds up: with ε it bounds what float64 must lose."""
    p, x, sigma = LAWS[row["problem"]], np.array(row["x"]), row["sigma"]
    law, other = p.base.noised(sigma), p.toward.noised(sigma)
    logs = abs(float(law.log_density(x))) + abs(float(other.log_density(x)))
    steepest = max(np.linalg.norm(np.linalg.inv(c), 2) for c in law.covariances)
    u, v = (np.linalg.norm(a) for a in directions(x.size))
    with np.errstate(over="ignore"):
        ratio = np.exp(p.log_ratio(x, sigma))
        pieces = ratio * (np.linalg.norm(law.score(x)) + np.linalg.norm(other.score(x)))
    centre = np.max(np.abs(p.base.means - p.base.posterior(x, sigma)[0]))
    spread = centre**2 + np.max(np.abs(p.base.covariances))
    derivative = pieces + logs * np.max(np.abs(truth(row, quantity)))
    return {
        "posterior_mean": (1 + logs) * centre,
        "posterior_covariance": (1 + logs) * spread,
        "third_order": (1 + logs) * steepest**1.5 * u * v,
    }.get(quantity, derivative)


def truth(row: dict, quantity: str) -> np.ndarray:
    return np.array([float(text) for text in row[quantity]])


@pytest.mark.parametrize("quantity", STRICT)
def test_closed_forms_have_twelve_digits_everywhere(quantity: str, capsys: pytest.CaptureFixture) -> None:
    """Assert a relative error of at most 1e-12 in every one of the table's states, and print the worst."""
    errors = [_relative(row, quantity) for row in LOCAL.rows]
    worst = int(np.argmax(errors))
    _announce(capsys, quantity, errors[worst], LOCAL.rows[worst])
    assert errors[worst] <= 1e-12


@pytest.mark.parametrize("quantity", CONDITIONED)
def test_closed_forms_lose_no_more_than_their_cancellation(quantity: str, capsys: pytest.CaptureFixture) -> None:
    """Assert 1e-12, or where terms cancel or inputs condition the value, a small multiple of ε times that."""
    excess, met = [], 0
    for row in LOCAL.rows:
        wanted, condition = truth(row, quantity), row[f"{quantity}_condition"]
        size = float(np.max(np.abs(wanted)))
        if not np.isfinite(size) or size > 1e290:  # beyond float64
            continue
        with np.errstate(over="ignore"):
            error = np.max(np.abs(evaluated(row, quantity) - wanted))
        met += error <= 1e-12 * size
        allowed = 1e-12 * size + 8 * EPS * (condition * size + cancellation(row, quantity)) + 1e-300
        excess.append((error / allowed if size else float(error > 1e-50), row))  # 0: below 1e-60 of its natural size
    worst = max(excess, key=lambda pair: pair[0])
    _announce(capsys, f"{quantity} ({met} of {len(excess)} to 1e-12; error/bound", *worst)
    assert worst[0] <= 1


def _relative(row: dict, quantity: str) -> float:
    wanted = truth(row, quantity)
    return float(np.max(np.abs(evaluated(row, quantity) - wanted)) / np.max(np.abs(wanted)))


def _announce(capsys: pytest.CaptureFixture, what: str, worst: float, row: dict) -> None:
    with capsys.disabled():
        print(f"\n  worst {what}: {worst:.1e} at {row['problem']}, sigma = {row['sigma']:g}, x = {row['x']}")


@pytest.mark.parametrize(("problem", "size"), [("line", 3), ("plane", 2), ("repeated", 2)])
@pytest.mark.parametrize("quantity", ["score", "score_jacobian", "third_order", "posterior_covariance"])
def test_sympy_and_mpmath_agree_everywhere(problem: str, size: int, quantity: str) -> None:
    """Assert that SymPy's expressions at hundreds of digits give the table's digits, or zero where it says zero."""
    stated = LOCAL.problems[problem]["base"]
    d = len(stated["means"][0])
    function = SymbolicMixture(size, d).definition(quantity).compile("mpmath")
    exact = {name: reference.exact(value) for name, value in stated.items()}
    u, v = (reference.exact(a) for a in directions(d))
    for row in (r for r in LOCAL.rows if r["problem"] == problem):
        with mpmath.workdps(240):
            values = np.array(function(x=reference.exact(row["x"]), sigma=reference.exact(row["sigma"]), **exact))
            if quantity == "third_order":
                values = (values.reshape(d, d, d) @ v) @ u
            _same(values, row[quantity])


@pytest.mark.parametrize("order", [1, 2])
def test_sympy_and_mpmath_agree_on_contamination(order: int) -> None:
    """Assert the same for derivatives in η."""
    stated = LOCAL.problems["line"]
    pair = SymbolicContamination(SymbolicMixture(3, 1), SymbolicMixture(2, 1, name="toward"))
    function = pair.definition(order).compile("mpmath")
    exact = {name: reference.exact(value) for name, value in stated["base"].items()}
    exact |= {f"toward_{name}": reference.exact(value) for name, value in stated["toward"].items()}
    for row in (r for r in LOCAL.rows if r["problem"] == "line"):
        with mpmath.workdps(240):
            state = {"x": reference.exact(row["x"]), "sigma": reference.exact(row["sigma"]), "eta": 0}
            _same(np.array(function(**state, **exact)), row[f"score_derivative_{order}"])


def _same(found: np.ndarray, wanted: list[str]) -> None:
    exact = [mpmath.mpf(text) for text in wanted]
    size = max(abs(v) for v in exact)
    for a, b in zip(found.ravel(), exact, strict=True):
        assert abs(a - b) <= mpmath.mpf(10) ** -18 * size + (mpmath.mpf(10) ** -30 if size == 0 else 0)


def line_law(stated: dict) -> object:
    numbers = {key: value for key, value in stated.items() if key != "law"}
    return {"normals": NormalMixture, "uniform": Uniform, "laplace": Laplace}[stated["law"]](**numbers)


@pytest.mark.parametrize("levels", sorted({(row["sigma_max"], row["sigma_min"]) for row in LINE.rows}))
@pytest.mark.parametrize("problem", LINE.problems)
def test_quantile_oracle_has_the_tables_digits(problem: str, levels: tuple[float, float]) -> None:
    """Assert samples, both derivatives and finite η of the 1-d transport within ten times their rounding bars."""
    rows = [r for r in LINE.rows if r["problem"] == problem and (r["sigma_max"], r["sigma_min"]) == levels]
    oracle = QuantileOracle(*(line_law(LINE.problems[problem][key]) for key in ("base", "toward")))
    z, wanted = np.array([row["latent"] for row in rows]), {key: _column(rows, key) for key in DERIVATIVES}
    x, first = oracle.sensitivity(z, *levels)
    second, quarter = oracle.sensitivity(z, *levels, order=2)[1], oracle.sample(z, 0.25, *levels)
    bars = 10 * oracle.error_bar(z, 0.0, *levels) + 1e-13
    slack = 1e-11 + 4 * bars * np.abs(oracle.base.noised(levels[1]).score(x))
    assert np.all(np.abs(x - wanted["samples"]) <= bars)
    assert np.all(np.abs(quarter - wanted["samples_at_0.25"]) <= bars)
    for key, value in (("first", first), ("second", second)):
        errors = np.array([row[f"{key}_error"] for row in rows])
        assert np.all(np.abs(value - wanted[key]) <= slack * (1 + np.abs(wanted[key])) + errors)


DERIVATIVES = ("samples", "samples_at_0.25", "first", "second")


def _column(rows: list[dict], key: str) -> np.ndarray:
    return np.array([float(row[key][0]) for row in rows])


@pytest.mark.parametrize("problem", FLOW.problems)
def test_flow_has_the_tables_digits(problem: str) -> None:
    """Assert that DOP853 and its variational equations agree with Taylor series within the bars of both."""
    rows = [r for r in FLOW.rows if r["problem"] == problem]
    z = np.array([row["latent"] for row in rows])
    exact = flow.truth(LAWS[problem], z, rows[0]["sigma_max"], rows[0]["sigma_min"], order=2)
    for k, (key, value) in enumerate(
        (("samples", exact.samples), ("first", exact.sensitivity), ("second", exact.second))
    ):
        for i, row in enumerate(rows):
            wanted = truth(row, key)
            bar = 3 * exact.errors[k, i] + row[f"{key}_error"] + 1e-12 * np.max(np.abs(wanted))
            assert bar < 1e-8 * (1 + np.max(np.abs(wanted)))
            assert_close(value[i], wanted, rtol=0, atol=bar)
