r"""The probability flow of a Gaussian mixture by Taylor series in arbitrary precision (see `oracles.reference`).

In v = σ², dx/dv = −s(x, v)/2. With U_k the eigenvectors and λ_k the eigenvalues of Σ_k, `y = U_kᵀ(x − μ_k)`,
`a = y/(λ + v)`, `n_k ∝ exp(log w_k − ½ Σ y a − ½ Σ log(λ + v))`, `s = −Σ n_k U_k a / Σ n_k`; each is a power series in
v − v_0 whose next coefficient follows from those before. A step goes as far as its last coefficients allow.

Derivatives in η are central differences of flows of ρ_{±h} at many digits, without a variational equation.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np

from oracles.reference._certify import Array, differences, exact


def flow(law: Any, latent: Any, sigma_max: Any, sigma_min: Any, digits: int = 30) -> tuple[Array, Any]:
    """x(σ_min) (d,) from x(σ_max) = `latent` for a `ReferenceMixture`, and its error bar.

    The bar is the difference between series of two lengths and precisions, `digits` and `digits + 10`.
    """
    coarse = _integrate(law, latent, sigma_max, sigma_min, digits)
    fine = _integrate(law, latent, sigma_max, sigma_min, digits + 10)
    return fine, max(abs(a - b) for a, b in zip(coarse, fine, strict=True))


def flow_sensitivity(
    base: Any, toward: Any, latent: Any, sigma_max: Any, sigma_min: Any, digits: int = 16
) -> dict[str, Any]:
    """`samples`, `first` = dx/dη and `second` = d²x/dη² at η = 0, (d,) each, with an error bar for each (`*_error`)."""

    def path(eta: Any, working: int) -> Array:
        return _integrate(_mixed(base, toward, eta) if eta else base, latent, sigma_max, sigma_min, working)

    return differences(path, digits, digits // 3)


def _mixed(base: Any, toward: Any, eta: Any) -> Any:
    with mpmath.workdps(200):
        weights = np.concatenate([(1 - eta) * exact(base.parameters[0]), eta * exact(toward.parameters[0])])
    joined = (list(a) + list(b) for a, b in zip(base.parameters[1:], toward.parameters[1:], strict=True))
    return type(base)(list(weights), *joined, base.digits)


def _integrate(law: Any, latent: Any, sigma_max: Any, sigma_min: Any, digits: int) -> Array:
    with mpmath.workdps(digits + 15):
        # With n coefficients a step of 10^{−digits/n} of the radius of convergence leaves 10^−digits: .17 of it for n =
        # 1.3 digits.
        x, v, end = list(exact(latent)), exact(sigma_max)[()] ** 2, exact(sigma_min)[()] ** 2
        parts, length = _components(law), int(1.3 * digits) + 10
        while v > end:
            series = _series(parts, x, v, length)
            step = min(_reach(series, digits + 5), v - end)
            x, v = [mpmath.polyval(s[::-1], -step) for s in series], v - step
        return np.array(x, dtype=object)


def _components(law: Any) -> list[tuple[Any, list, list, list]]:
    """(w, μ, λ, U by columns) of every component with weight."""
    weights, means, covariances = (exact(a) for a in law.parameters)
    parts = []
    for w, m, c in zip(weights, means, covariances, strict=True):
        values, vectors = mpmath.eigsy(mpmath.matrix(c.tolist()))
        parts.append((w, list(m), list(values), vectors.T.tolist()))
    return [part for part in parts if part[0] != 0]


def _series(parts: list[tuple[Any, list, list, list]], x: list, v: Any, length: int) -> list[list]:
    """Taylor coefficients around v of every coordinate of x, `length` + 1 of each."""
    state, mass = [[c] for c in x], []
    pull: list[list] = [[] for _ in x]  # −s, so that dx/dv = pull/2
    components = [_Component(part, v) for part in parts]
    top = max(c.begin(x) for c in components)
    for j in range(length):
        for c in components:
            c.extend(j, [s[j] for s in state], top)
        mass.append(mpmath.fsum(c.n[j] for c in components))
        for i, p in enumerate(pull):
            # The quotient of two series, coefficient by coefficient; x's next one is its integral over v, halved.
            forces = mpmath.fsum(c.force(i, j) for c in components)
            p.append((forces - mpmath.fdot(mass[1 : j + 1], p[::-1])) / mass[0])
            state[i].append(p[j] / (2 * (j + 1)))
    return state


class _Component:
    """The series of y, a, n and n a of one component, by axis of its eigenbasis."""

    def __init__(self, part: tuple[Any, list, list, list], v: Any) -> None:
        weight, self.mean, values, self.columns = part
        # Differences at η = −h give the new law's components negative weights.
        self.sign, self.log_weight = mpmath.sign(weight), mpmath.log(abs(weight))
        self.rates = [-1 / (value + v) for value in values]
        self.powers = [mpmath.mpf(1)] * len(values)
        self.y: list[list] = [[] for _ in values]
        self.a: list[list] = [[] for _ in values]
        self.na: list[list] = [[] for _ in values]
        self.n: list = []
        self.slopes: list = []  # m E_m, m = 1, 2, …, of the exponent E

    def begin(self, x: list) -> Any:
        """The exponent at v."""
        y = self._rotated([c - m for c, m in zip(x, self.mean, strict=True)])
        terms = [-(b * b) * r - mpmath.log(-r) for b, r in zip(y, self.rates, strict=True)]
        self.exponent = self.log_weight - mpmath.fsum(terms) / 2
        return self.exponent

    def extend(self, j: int, x: list, top: Any) -> None:
        """Coefficient j of everything, from coefficient j of x."""
        for i, b in enumerate(self._rotated(x if j else [c - m for c, m in zip(x, self.mean, strict=True)])):
            # (λ + v) a = y gives (λ + v_0) a_j + a_{j−1} = y_j.
            self.y[i].append(b)
            self.a[i].append(((self.a[i][-1] if j else 0) - b) * self.rates[i])
        self.n.append(self._density(j, top))
        for i, a in enumerate(self.a):
            self.na[i].append(mpmath.fdot(self.n, a[::-1]))

    def force(self, i: int, j: int) -> Any:
        """Coefficient j of (n U a)_i."""
        return mpmath.fsum(column[i] * na[j] for column, na in zip(self.columns, self.na, strict=True))

    def _density(self, j: int, top: Any) -> Any:
        if j == 0:
            return self.sign * mpmath.exp(self.exponent - top)
        # n = e^E has j n_j = Σ_m (m E_m) n_{j−m}, and m times the coefficient of −½ log(λ + v) is ½ (−1/(λ + v_0))^m.
        self.powers = [p * r for p, r in zip(self.powers, self.rates, strict=True)]
        square = mpmath.fsum(mpmath.fdot(y, a[::-1]) for y, a in zip(self.y, self.a, strict=True))
        self.slopes.append((mpmath.fsum(self.powers) - j * square) / 2)
        return mpmath.fdot(self.slopes, self.n[::-1]) / j

    def _rotated(self, x: list) -> list:
        return [mpmath.fdot(column, x) for column in self.columns]


def _reach(series: list[list], digits: int) -> Any:
    """The step at which the last two terms are 10^−digits of the state's size."""
    size, last = max(abs(s[0]) for s in series) + 1, len(series[0]) - 1
    # A series may end, such as that of a point's own flow: its last terms are zeros.
    floor = mpmath.mpf(10) ** (-40 * digits)
    return min(
        (mpmath.mpf(10) ** -digits * size / max(floor, *(abs(s[n]) for s in series))) ** (mpmath.mpf(1) / n)
        for n in (last - 1, last)
    )
