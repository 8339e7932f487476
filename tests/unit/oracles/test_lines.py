"""Laws on the line against numerical integration, arbitrary precision and each other."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from support.close import assert_close

from oracles import GaussianMixture
from oracles.lines import Laplace, LineMixture, NormalMixture, Uniform, as_line

LAWS = {
    "normals": NormalMixture([0.5, 0.3, 0.2], [-2.0, 0.5, 3.0], [0.3, 0.0, 0.6]),
    "uniform": Uniform(-1.0, 2.0),
    "laplace": Laplace(0.5, 0.3),
    "mixed": LineMixture([0.4, 0.6], [Uniform(-1.0, 0.5), Laplace(2.0, 0.5)]),
}
LEVELS = (0.05, 0.7, 3.5, 90.0)


@pytest.fixture(params=LAWS, name="law")
def _law(request: pytest.FixtureRequest):
    return LAWS[request.param]


@pytest.mark.parametrize("sigma", LEVELS)
def test_distribution_function_integrates_the_density(law, sigma: float) -> None:
    """Assert that log_cdf and log_sf are the two integrals of the density."""
    noisy = law.noised(sigma)
    x = noisy.center + 0.8 * noisy.spread
    low, high = noisy.center - 40 * noisy.spread, noisy.center + 40 * noisy.spread
    breaks = sorted({noisy.center, -1.0, 0.5, 2.0, -2.0, 3.0})
    parts = [
        quad(lambda t: np.exp(noisy.log_density(t)), a, b, limit=200, epsabs=1e-14)[0]
        for a, b in _pieces(low, x, breaks)
    ]
    rest = [
        quad(lambda t: np.exp(noisy.log_density(t)), a, b, limit=200, epsabs=1e-14)[0]
        for a, b in _pieces(x, high, breaks)
    ]
    assert_close(np.exp(noisy.log_cdf(x)), sum(parts), rtol=1e-10)
    assert_close(np.exp(noisy.log_sf(x)), sum(rest), rtol=1e-10)


def _pieces(low: float, high: float, breaks: list[float]) -> list[tuple[float, float]]:
    knots = [low, *[b for b in breaks if low < b < high], high]
    return list(pairwise(knots))


@pytest.mark.parametrize("sigma", LEVELS)
def test_score_and_its_derivatives_are_those_of_the_log_density(law, sigma: float) -> None:
    """Assert that score, slope and curvature agree with fourth-order differences of one order below."""
    noisy = law.noised(sigma)
    x = noisy.center + noisy.spread * np.linspace(-3, 3, 13)
    ladder = ("log_density", "score", "score_slope", "score_curvature")
    for k, (lower, upper) in enumerate(pairwise(ladder), start=1):
        h = 2e-3 * min(noisy.spread, sigma)
        f = getattr(noisy, lower)
        slope = (8 * (f(x + h) - f(x - h)) - f(x + 2 * h) + f(x - 2 * h)) / (12 * h)
        size = np.max(np.abs(slope)) + noisy.spread**-k
        assert_close(getattr(noisy, upper)(x) / size, slope / size, rtol=0, atol=1e-7)


@pytest.mark.parametrize("z", [-30.0, -9.0, -2.0, 0.0, 4.0, 25.0])
@pytest.mark.parametrize("sigma", [0.02, 1.0, 60.0])
def test_uniform_and_laplace_hold_in_both_far_tails(sigma: float, z: float) -> None:
    """Assert that density and both tails agree with 60-digit integrals thirty standard deviations out."""
    with mpmath.workdps(60):
        for law, exact in ((Uniform(-1.0, 2.0), _exact_uniform), (Laplace(0.5, 0.3), _exact_laplace)):
            noisy = law.noised(sigma)
            x = noisy.center + z * noisy.spread
            wanted = [float(v) for v in exact(mpmath.mpf(float(x)), mpmath.mpf(sigma))]
            got = [noisy.log_density(x), noisy.log_cdf(x), noisy.log_sf(x)]
            assert_close(np.array(got), np.array(wanted), rtol=1e-12, atol=1e-14)


def _exact_uniform(x, s):
    a, b = mpmath.mpf(-1), mpmath.mpf(2)
    za, zb = (x - a) / s, (x - b) / s

    def hinge(z):
        return z * mpmath.ncdf(z) + mpmath.npdf(z)

    up, down = (-zb, -za) if za + zb > 0 else (za, zb)  # the side that does not round to 1
    density = (mpmath.ncdf(up) - mpmath.ncdf(down)) / (b - a)
    lower = s * (hinge(za) - hinge(zb)) / (b - a)
    upper = s * (hinge(-zb) - hinge(-za)) / (b - a)
    return [mpmath.log(density), mpmath.log(lower), mpmath.log(upper)]


def _exact_laplace(x, s):
    b, y = mpmath.mpf(0.3), x - mpmath.mpf(0.5)

    def part(y):
        return mpmath.exp(s**2 / (2 * b**2) - y / b) * mpmath.erfc(-(y / s - s / b) / mpmath.sqrt(2)) / 2

    def lower(y):
        return mpmath.erfc(-y / s / mpmath.sqrt(2)) / 2 - part(y) / 2 + part(-y) / 2

    return [mpmath.log((part(y) + part(-y)) / (2 * b)), mpmath.log(lower(y)), mpmath.log(lower(-y))]


def test_uniform_forms_agree_where_they_meet() -> None:
    """Assert that the closed form and the quadrature give one law at the level where the code changes over."""
    law = Uniform(-1.0, 2.0, noise=3.0)
    x = np.linspace(-30.0, 30.0, 61)
    narrow, wide = law._narrow(x), law._wide()._shape(x)
    for name in ("log_density", "score", "log_cdf", "log_sf"):
        assert_close(getattr(narrow, name), getattr(wide, name), rtol=1e-11, atol=1e-12)


def test_noising_twice_is_noising_once(law) -> None:
    """Assert that noised(a).noised(b) is noised(hypot(a, b)) and that alpha scales the law."""
    x = np.linspace(-3.0, 4.0, 9)
    assert_close(law.noised(0.3).noised(0.4).score(x), law.noised(0.5).score(x), rtol=1e-10)
    assert_close(law.noised(0.6, alpha=2.0).log_sf(x), law.noised(0.3).log_sf(x / 2), rtol=1e-10)


def test_center_and_spread_are_the_moments_of_draws(law) -> None:
    """Assert that center and spread agree with 2e5 draws within five standard errors, and that seeds repeat."""
    x = law.sample(200_000, seed=3)
    assert abs(x.mean() - law.center) < 5 * law.spread / np.sqrt(x.size)
    assert abs(x.std() - law.spread) < 5 * law.spread * 1.3 / np.sqrt(x.size)
    assert_close(law.sample(7, seed=3), law.sample(7, seed=3), rtol=0, atol=0)


def test_draws_follow_the_distribution_function(law) -> None:
    """Assert that draws of the noised law pass a Kolmogorov–Smirnov bound of probability 1e-6."""
    noisy = law.noised(0.4)
    x = np.sort(noisy.sample(20_000, seed=5))
    gap = np.max(np.abs(np.exp(noisy.log_cdf(x)) - (np.arange(x.size) + 0.5) / x.size))
    assert gap < np.sqrt(np.log(2e6) / 2 / x.size)


def test_gaussian_mixtures_in_one_dimension_are_line_laws() -> None:
    """Assert that as_line keeps a mixture's density and refuses laws in the plane."""
    law = GaussianMixture([0.3, 0.7], [[-1.0], [2.0]], [[[0.5]], [[0.2]]])
    x = np.linspace(-4.0, 4.0, 7)
    assert_close(as_line(law).log_density(x), law.log_density(x[:, None]), rtol=1e-13)
    with pytest.raises(TypeError, match="not one on the line"):
        as_line(GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2.0, 1.0), "low = 2.0 must be below"),
        (lambda: Laplace(0.0, 0.0), "scale = 0.0 positive"),
        (lambda: NormalMixture([1.0, -1.0], [0.0, 1.0], [1.0, 1.0]), "not negative"),
        (lambda: NormalMixture([1.0], [0.0, 1.0], [1.0, 1.0]), "one length"),
        (lambda: NormalMixture([1.0], [np.nan], [1.0]), "means must be finite"),
        (lambda: LineMixture([1.0], []), "give one for each"),
        (lambda: Uniform(0.0, 1.0).score(0.5), "call noised"),
        (lambda: NormalMixture([1.0], [0.0], [0.0]).score(0.5), "call noised"),
    ],
)
def test_bad_laws_are_refused_with_the_reason(make, message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(ValueError, match=message):
        make()
