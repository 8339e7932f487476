"""Arbitrary precision against definitions: numerical differentiation, integration, and one route against another."""

import itertools
import json

import mpmath
import numpy as np
import pytest

from oracles import reference
from oracles.references import regenerate

LINE = (["1/2", "3/10", "1/5"], [["-2"], ["1/2"], ["3"]], [[["3/10"]], [["1/10"]], [["3/5"]]])
TARGET = (["1"], [["1"]], [[["1/4"]]])
PLANE = (
    ["0.35", "0.65"],
    [["-1.2", "0.4"], ["0.9", "-0.3"]],
    [[["0.5", "0.2"], ["0.2", "0.3"]], [["0.25", "-0.1"], ["-0.1", "0.6"]]],
)


def close(found, wanted, digits: int) -> bool:
    return abs(found - wanted) <= mpmath.mpf(10) ** -digits * (abs(wanted) + mpmath.mpf(10) ** -digits)


def log_density(law, x, sigma):
    """log Σ_k w_k N(x; μ_k, C_k) in the plane, written out."""
    weights, means, covariances = (reference.exact(a) for a in law)
    total = mpmath.mpf(0)
    for w, m, c in zip(weights, means, covariances, strict=True):
        a, b, e = c[0, 0] + sigma**2, c[0, 1], c[1, 1] + sigma**2
        y, z = x[0] - m[0], x[1] - m[1]
        det = a * e - b * b
        total += (
            w * mpmath.exp(-(e * y * y - 2 * b * y * z + a * z * z) / (2 * det)) / (2 * mpmath.pi * mpmath.sqrt(det))
        )
    return mpmath.log(total)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_are_those_of_the_log_density(order: int) -> None:
    """Assert that score, Jacobian and third order are mpmath's derivatives of the log density, in every index."""
    law, sigma = reference.ReferenceMixture(*PLANE, digits=25), mpmath.mpf("0.7")
    x = (mpmath.mpf("0.3"), mpmath.mpf("-0.4"))
    result = (law.score, law.score_jacobian, law.third_order)[order - 1](x, sigma)
    for index in itertools.product(range(2), repeat=order):
        with mpmath.workdps(50):
            wanted = mpmath.diff(lambda *y: log_density(PLANE, y, sigma), x, (index.count(0), index.count(1)))
        assert close(result[index], wanted, 20)
    assert close(law.log_density(x, sigma), log_density(PLANE, x, sigma), 14)


def test_divergence_is_the_trace_and_responsibilities_sum_to_one() -> None:
    """Assert the two sums at 25 digits."""
    law = reference.ReferenceMixture(*PLANE, digits=25)
    jacobian = law.score_jacobian(["0.3", "0.1"], "2")
    with mpmath.workdps(40):
        assert close(law.score_divergence(["0.3", "0.1"], "2"), jacobian[0, 0] + jacobian[1, 1], 24)
        assert close(sum(law.responsibilities(["0.3", "0.1"], "2")), mpmath.mpf(1), 24)


def test_posterior_is_bayes_rule_by_integration() -> None:
    """Assert posterior mean and covariance on the line against integrals of ρ(y) N(x − y; σ²)."""
    law, x, sigma = reference.ReferenceMixture(*LINE, digits=20), mpmath.mpf("0.7"), mpmath.mpf("0.5")
    mean, covariance = law.posterior([x], sigma)
    with mpmath.workdps(25):
        w, m, c = (reference.exact(a).ravel() for a in LINE)

        def joint(y):
            prior = sum(a * mpmath.npdf(y, b, mpmath.sqrt(v)) for a, b, v in zip(w, m, c, strict=True))
            return prior * mpmath.npdf(x - y, 0, sigma)

        moments = [mpmath.quad(lambda y, k=k: y**k * joint(y), list(range(-8, 9))) for k in range(3)]
        centre = moments[1] / moments[0]
        assert close(mean[0], centre, 15)
        assert close(covariance[0, 0], moments[2] / moments[0] - centre**2, 15)


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_contamination_derivatives_are_those_in_eta(order: int) -> None:
    """Assert that power-series division gives mpmath's derivative of the mixed law's score, at η = 1/4."""
    base, toward = reference.ReferenceMixture(*LINE, digits=20), reference.ReferenceMixture(*TARGET, digits=20)
    values = reference.ReferenceContamination(base, toward).score_derivative(["0.3"], "0.5", order, "1/4")

    def score(eta):
        mixed = [(1 - eta) * reference.exact(a) for a in LINE[0]] + [eta * reference.exact(a) for a in TARGET[0]]
        law = reference.ReferenceMixture(mixed, LINE[1] + TARGET[1], LINE[2] + TARGET[2], digits=60)
        return law.score(["0.3"], "0.5")[0]

    with mpmath.workdps(40):
        assert close(values[0], mpmath.diff(score, mpmath.mpf("0.25"), order), 18)


def test_taylor_flow_is_the_monotone_transport() -> None:
    """Assert that the series of the flow and the inversion of F agree to 20 digits, and that the bar says so."""
    law = reference.ReferenceMixture(*LINE)
    line = reference.normals(LINE[0], ["-2", "1/2", "3"], ["3/10", "1/10", "3/5"])
    x, bar = reference.flow(law, ["37"], "80", "1/10", digits=22)
    wanted = reference.transport(line, line, "37", "80", "1/10", digits=30)
    with mpmath.workdps(40):
        assert abs(x[0] - wanted) <= bar + mpmath.mpf(10) ** -28
        assert bar < mpmath.mpf(10) ** -20


def test_flow_sensitivity_is_the_transports() -> None:
    """Assert that differences of series and differences of inversions agree within their bars."""
    base, toward = reference.ReferenceMixture(*LINE), reference.ReferenceMixture(*TARGET)
    lines = (
        reference.normals(LINE[0], ["-2", "1/2", "3"], ["3/10", "1/10", "3/5"]),
        reference.normals(["1"], ["1"], ["1/4"]),
    )
    result = reference.flow_sensitivity(base, toward, ["30"], "80", "1/4", digits=12)
    wanted = reference.transport_sensitivity(*lines, "30", "80", "1/4", digits=12)
    for key in ("samples", "first", "second"):
        assert (
            abs(result[key][0] - wanted[key][0])
            <= result[f"{key}_error"] + wanted[f"{key}_error"] + mpmath.mpf(10) ** -14
        )
        assert result[f"{key}_error"] < mpmath.mpf(10) ** -9


@pytest.mark.parametrize(
    ("law", "lower", "upper"), [(reference.uniform("-1", "2"), -1, 2), (reference.laplace("1/2", "3/10"), -40, 40)]
)
def test_line_functions_are_convolutions(law, lower: int, upper: int) -> None:
    """Assert that noised density and distribution function are integrals of the clean density with Gaussian noise."""
    sigma, x = mpmath.mpf("0.4"), mpmath.mpf("0.2")

    def clean(y):
        return (
            mpmath.mpf(1) / 3
            if upper == 2
            else mpmath.exp(-abs(y - mpmath.mpf("0.5")) / mpmath.mpf("0.3")) / mpmath.mpf("0.6")
        )

    knots = (
        [lower, mpmath.mpf("0.2"), mpmath.mpf("0.5"), upper]
        if upper == 2
        else [lower, -5, 0, mpmath.mpf("0.5"), 1, 6, upper]
    )
    with mpmath.workdps(30):
        density = mpmath.quad(lambda y: clean(y) * mpmath.npdf(x - y, 0, sigma), knots)
        below = mpmath.quad(lambda y: clean(y) * mpmath.ncdf((x - y) / sigma), knots)
        p, f, g = law(x, sigma)
        assert close(p, density, 12)
        assert close(f, below, 12)
        assert close(f + g, mpmath.mpf(1), 25)


def test_values_below_their_natural_size_are_zero() -> None:
    """Assert that e^(−1e12) of a third derivative counts as zero, and that a value that merely cancels does not."""
    far = reference.ReferenceMixture(["1/2", "1/2"], [["0"], ["1"]], [[["0"]], [["0"]]], digits=20)
    assert far.third_order(["1/10"], "1e-6")[0, 0, 0] == 0
    near = reference.ReferenceMixture(["1/2", "1/2"], [["0"], ["1"]], [[["0"]], [["0"]]], digits=20)
    value = near.third_order(["1/10"], "100")[0, 0, 0]
    assert 0 < abs(value) < 1e-9


def test_a_value_that_never_settles_is_an_error() -> None:
    """Assert that a value that moves with the precision, and differences beyond the linear range, are refused."""
    with pytest.raises(ArithmeticError, match="does not settle"):
        reference.certified(lambda: np.array([mpmath.mpf(1) / mpmath.mp.dps], dtype=object), 10)
    lines = reference.uniform("-1", "2"), reference.laplace("1/2", "3/10")
    with pytest.raises(ArithmeticError, match="do not agree"):
        reference.transport_sensitivity(*lines, "-170", "10", "1/20", digits=12)


@pytest.mark.parametrize("name", ["flow", "line", "local"])
def test_committed_tables_have_their_hash_and_provenance(name: str) -> None:
    """Assert that tables load, state what the definition asks, and that one changed digit is noticed."""
    table = reference.load(name)
    assert set(table.provenance) == {"command", "definition", "digits", "doubtful", "seconds", "versions"}
    content = {"name": name, "digits": table.digits, "problems": table.problems, "rows": table.rows}
    stated = {**content, "sha256": reference.content_hash(content), "provenance": table.provenance}
    text = regenerate.written(stated)
    assert reference.parse(text, name) == table
    key = "score" if name == "local" else "first"
    broken = json.loads(text)
    broken["rows"][0][key][0] = broken["rows"][0][key][0].replace("1", "2", 1) + "1"
    with pytest.raises(ValueError, match="is damaged"):
        reference.parse(json.dumps(broken), name)


def test_rows_are_regenerated_to_the_last_digit() -> None:
    """Assert that the first rows of two tables come out as committed."""
    for name, count in (("local", 2), ("line", 2)):
        rows, _ = regenerate.TABLES[name]
        fresh = list(itertools.islice(rows(regenerate.DIGITS[name]), count))
        assert json.loads(json.dumps(fresh)) == reference.load(name).rows[:count]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow", "line", "local"])
def test_whole_tables_are_regenerated(name: str) -> None:
    """Assert that `--check` finds every table as committed."""
    assert regenerate.main([name, "--check"]) == 0


def test_the_script_refuses_unknown_tables() -> None:
    """Assert exit code 2 with the names that exist."""
    with pytest.raises(SystemExit) as stopped:
        regenerate.main(["nonsense"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.load("nonsense"), "there are flow, line, local"),
        (lambda: reference.ReferenceMixture(["1"], ["0"], [[["1"]]]), "must have shapes"),
        (lambda: reference.ReferenceMixture(*TARGET, digits=0), "digits = 0"),
        (
            lambda: reference.ReferenceContamination(
                reference.ReferenceMixture(*PLANE), reference.ReferenceMixture(*TARGET)
            ),
            "dimension 2",
        ),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(call, message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(ValueError, match=message):
        call()
