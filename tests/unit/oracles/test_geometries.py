"""The named laws: the numbers that define them, seeds, and the truths that go with them."""

import numpy as np
import pytest
from support.close import assert_close

from oracles import AdditivePerturbation, GaussianMixture, flow, geometries
from oracles.transport import ProductOracle

CONSTRUCTORS = {
    "uniform": lambda seed: geometries.uniform(3, 4, seed),
    "sharp": lambda seed: geometries.sharp(4, 3, 3.0, seed),
    "spiral": lambda seed: geometries.spiral(10, seed),
    "thin_manifold": lambda seed: geometries.thin_manifold(20, 2, 5, seed=seed),
    "bimodal": lambda seed: geometries.bimodal(seed=seed),
    "isotropic": lambda seed: geometries.isotropic(seed=seed),
    "anisotropic": lambda seed: geometries.anisotropic(3, 3, seed),
    "rotated_product": lambda seed: geometries.rotated_product(
        [geometries.anisotropic(1, 2), geometries.anisotropic(1, 2, 1)], seed
    )[0],
    "companion": lambda seed: geometries.companion(geometries.anisotropic(3, 3), seed=seed),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_law_is_a_function_of_its_seed(name: str) -> None:
    """Assert that equal seeds give equal laws, other seeds others, and that weights are a law's."""
    first, again, other = (CONSTRUCTORS[name](seed) for seed in (1, 1, 2))
    x = first.sample(3, 0)
    assert_close(again.noised(0.5).score(x), first.noised(0.5).score(x), rtol=0, atol=0)
    assert np.max(np.abs(other.noised(0.5).score(x) - first.noised(0.5).score(x))) > 1e-3
    assert abs(np.sum(first.weights) - 1) < 1e-12
    assert np.all(np.linalg.eigvalsh(first.covariances) >= -1e-14)


def test_sharp_covariances_have_the_stated_spectrum() -> None:
    """Assert that eigenvalues decay as e^{−js}/2 down to the floor, with another rotation for each component."""
    law = geometries.sharp(dimension=8, size=3, sharpness=3.0, seed=0)
    wanted = np.maximum(0.5 * np.exp(-3.0 * np.arange(8)), 1e-6)
    for covariance in law.covariances:
        assert_close(np.sort(np.linalg.eigvalsh(covariance))[::-1], wanted, rtol=1e-9, atol=1e-15)
    assert np.max(np.abs(law.covariances[0] - law.covariances[1])) > 0.01


def test_spiral_components_lie_along_the_curve() -> None:
    """Assert the radii, and that the long axis of each component is the direction of the curve."""
    law = geometries.spiral()
    angles = np.linspace(0, 1.9 * np.pi, 10)
    assert_close(np.linalg.norm(law.means, axis=1), 3.5 * (1 - angles / (2 * np.pi)), rtol=1e-12)
    values, vectors = np.linalg.eigh(law.covariances)
    assert_close(values[:, 1] / values[:, 0], np.full(10, 10.0), rtol=1e-9)
    step = 1e-6

    def point(t: np.ndarray) -> np.ndarray:
        return (3.5 * (1 - t / (2 * np.pi)))[:, None] * np.stack([np.cos(t), np.sin(t)], -1)

    along = (point(angles + step) - point(angles - step)) / (2 * step)
    cosine = np.abs(np.einsum("ki,ki->k", along, vectors[:, :, 1])) / np.linalg.norm(along, axis=1)
    assert_close(cosine, np.ones(10), rtol=1e-8)


def test_thin_manifold_is_flat() -> None:
    """Assert that all but the intrinsic directions have the normal variance, and that the means lie in the plane."""
    law = geometries.thin_manifold(dimension=30, intrinsic=2, size=4, normal_variance=0.01)
    values = np.linalg.eigvalsh(law.covariances)
    assert_close(values[:, :28], np.full((4, 28), 0.01), rtol=1e-9)
    assert_close(values[:, 28:], np.full((4, 2), 0.5), rtol=1e-9)
    assert np.linalg.matrix_rank(law.means, tol=1e-9) == 2


def test_grid_is_centred() -> None:
    """Assert the number of components, their spacing and the centre."""
    law = geometries.grid(side=3, dimension=2, spacing=2.0)
    assert law.size == 9
    assert_close(np.unique(law.means), np.array([-2.0, 0.0, 2.0]))
    assert_close(law.mean, np.zeros(2), atol=1e-14)


def test_bimodal_modes_are_the_distance_apart() -> None:
    """Assert the distance, a zero mean, and unequal weights."""
    law = geometries.bimodal(10, distance=4.0)
    assert abs(np.linalg.norm(law.means[0] - law.means[1]) - 4.0) < 1e-12
    assert_close(law.mean, np.zeros(10), atol=1e-12)
    assert law.weights[0] != law.weights[1]


def test_rotated_product_has_the_product_oracles_transport() -> None:
    """Assert that the flow of the rotated mixture is the rotated transport of its factors, one of them contaminated."""
    first, second, third = (geometries.anisotropic(1, k, k) for k in (2, 1, 3))
    nu = geometries.companion(first)
    law, q = geometries.rotated_product([first, second, third], seed=4)
    toward, same = geometries.rotated_product([nu, second, third], seed=4)
    assert_close(same, q, rtol=0, atol=0)
    z = 80.0 * np.random.default_rng(0).standard_normal((4, 3))
    exact = ProductOracle([first, second, third], [nu, None, None], rotation=q).sensitivity(z, 80.0, 0.1)
    result = flow.sensitivity(AdditivePerturbation(law, toward), z, 80.0, 0.1, rtol=1e-11)
    assert_close(result[0], exact[0], rtol=0, atol=1e-9)
    assert_close(result[1], exact[1], rtol=0, atol=1e-8)
    assert_close(geometries.rotated_product([first], seed=None)[0].means, first.means)


@pytest.mark.parametrize("name", ["uniform", "sharp", "thin_manifold", "isotropic"])
def test_companions_are_covered(name: str) -> None:
    """Assert that log ν_σ/p_σ stays below a bound everywhere tried, fifty standard deviations out, at every σ."""
    perturbation = geometries.contamination(CONSTRUCTORS[name](0))
    x = perturbation.base.mean + 50 * np.random.default_rng(0).standard_normal((200, perturbation.base.dimension))
    for sigma in (1e-2, 1.0, 50.0):
        near = perturbation.toward.noised(sigma).sample(200, 1)
        for points in (x, near):
            assert np.max(perturbation.log_ratio(points, sigma)) < 12 + 0.5 * perturbation.base.dimension


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: geometries.uniform(0, 3), "dimension = 0"),
        (lambda: geometries.isotropic(3, 1.5), "size = 1.5"),
        (lambda: geometries.sharp(2, 2, -1.0), "sharpness = -1.0"),
        (lambda: geometries.thin_manifold(3, 4), "intrinsic = 4"),
        (lambda: geometries.thin_manifold(3, 2, normal_variance=0.6), "normal_variance = 0.6"),
        (lambda: geometries.bimodal(weight=1.0), "weight = 1.0"),
        (lambda: geometries.companion(geometries.spiral(), shrink=1.0), "shrink = 1.0"),
        (lambda: geometries.rotated_product([GaussianMixture.isotropic([1.0], [[0.0, 0.0]], 1.0)]), "d = 1"),
    ],
)
def test_bad_arguments_are_refused_with_the_reason(make, message: str) -> None:
    """Assert that each bad input names the argument."""
    with pytest.raises(ValueError, match=message):
        make()
