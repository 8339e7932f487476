"""The diffusion attribution score: against dense solves of what is left, and against fits without a point."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from studies.attribution import attributors, das
from studies.attribution.attributors import parameter_gradients
from studies.networks import Architecture, build


class Loss:
    """Draws and the plain squared error."""

    exact, scale = False, 0.7

    def draw(self, count, like, seed=0):
        generator = torch.Generator().manual_seed(seed)
        sigma, noise = 0.3 + torch.rand(count, generator=generator), torch.randn(count, 1, 4, 4, generator=generator)
        return sigma.to(like), noise.to(like)

    def __call__(self, denoise, clean, sigma, noise):
        gap = (denoise(clean + sigma[:, None, None, None] * noise, sigma) - clean).flatten(1).square().mean(1)
        return (sigma**2 + self.scale**2) / (sigma * self.scale) ** 2 * gap


@pytest.fixture
def given():
    """Five images of 4×4, three samples, a small perceptron, in double precision."""
    generator = torch.Generator().manual_seed(0)
    data, samples = (torch.randn(n, 1, 4, 4, generator=generator).double() for n in (5, 3))
    network = build(Architecture(width=5, depth=1), (1, 4, 4), centre=data.mean(0), scale=0.7, seed=1).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return SimpleNamespace(
        name="small-ink", seed=0, data=data, samples=samples, latents=10 * samples, network=network, loss=Loss(),
        functional=lambda x: x.mean((1, 2, 3)), recipe=None,
    )  # fmt: skip


def noises(given, image):
    """The predicted noise at an image, all draws (draws, 16), and the drawn noise."""
    sigma, noise = given.loss.draw(parameter_gradients.DRAWS, given.data)
    state = image + sigma[:, None, None, None] * noise
    return ((state - given.network(state, sigma)) / sigma[:, None, None, None]).flatten(1), noise.flatten(1)


def flat(value, given, keep=False):
    parts = torch.autograd.grad(value, list(given.network.parameters()), retain_graph=keep)
    return torch.cat([part.flatten() for part in parts])


def pulls(given):
    return given.functional(given.data)[None] - given.functional(given.samples)[:, None]


def numbers(given, share, leverage=True, residual=True, power=2):
    """The score of the authors' code by a solve in all parameters a point, its own row left out."""
    points, samples = (
        torch.stack([flat(noises(given, image)[0].abs().mean(), given) for image in images])
        for images in (given.data, given.samples)
    )
    size = points.shape[1]
    damping = share * (points @ points.T).diagonal().mean()
    columns = []
    for image, row in zip(given.data, points, strict=True):
        others = points.T @ points - (torch.outer(row, row) if leverage else 0)
        change = torch.linalg.solve(others + damping * torch.eye(size, dtype=row.dtype), row)
        predicted, drawn = noises(given, image)
        miss = (predicted - drawn).square().mean(1).sqrt().mean() if residual else 1.0
        columns.append((samples @ change * miss) ** power)
    return torch.stack(columns, 1) * pulls(given)


def close(found, known):
    known = known.detach()
    return torch.allclose(torch.as_tensor(found), known, rtol=1e-6, atol=1e-9 * float(known.abs().max()))


def test_the_score_of_numbers_is_a_solve_without_the_point(given):
    """Assert Sherman and Morrison's formula against dense solves; leverage, residual and square each matter."""
    result = attributors.das(given, share=0.3)
    assert close(result, numbers(given, 0.3))
    for mistake in ({"leverage": False}, {"residual": False}, {"power": 1}):
        assert not close(result, numbers(given, 0.3, **mistake)), mistake


def test_what_is_left_is_what_a_fit_without_the_point_gives():
    """Assert on ridge regressions, where one step of Newton is exact, fitted anew without each point's three rows."""
    generator = torch.Generator().manual_seed(4)
    x, y = (torch.randn(6, 3, n, generator=generator, dtype=torch.float64) for n in (30, 1))
    hessian = torch.einsum("nkp,nkq->pq", x, x) / 6
    damping = 0.2 * hessian.diagonal().sum() / 18
    ridge = damping * torch.eye(30, dtype=torch.float64)

    def fit(kept):
        gram = torch.einsum("nkp,nkq->pq", x[kept], x[kept]) / 6
        return torch.linalg.solve(gram + ridge, torch.einsum("nkp,nkj->p", x[kept], y[kept]) / 6)

    theta = fit(list(range(6)))
    slopes = torch.einsum("nkp,nk->np", x, x @ theta - y[..., 0])
    result = das.left_out(slopes, x.flatten(0, 1) / 6**0.5, 0.2)
    for i in range(6):
        change = fit([j for j in range(6) if j != i]) - theta
        assert torch.allclose(result[i], change, rtol=1e-8, atol=1e-10)


def test_the_score_of_images_is_the_mean_square_of_the_moved_noise(given):
    """Assert τ from whole Jacobians at the samples and dense solves; that a point's own rows are left out matters."""
    of, share = parameter_gradients.Gradients(given, outputs=False), 0.5
    rows, g = of.jacobians(das.PROBES), of.points(given.loss)
    damping = share * rows.square().sum() / min(rows.shape)
    ridge = damping * torch.eye(rows.shape[1], dtype=rows.dtype)
    jacobians = [
        torch.stack([flat(each, given, keep=True) for each in noises(given, image)[0].flatten()])
        for image in given.samples
    ]

    def known(own):
        columns = []
        for i, row in enumerate(g):
            block = rows[i * das.PROBES : (i + 1) * das.PROBES]
            change = torch.linalg.solve(rows.T @ rows - own * block.T @ block + ridge, row) / len(g)
            columns.append(torch.stack([(jacobian @ change).square().mean() for jacobian in jacobians]))
        return torch.stack(columns, 1) * pulls(given)

    result = attributors.das_images(given, share=share)
    assert close(result, known(1))
    assert not close(result, known(0))


def test_other_samples_of_the_same_network_get_their_own_scores(given):
    """Assert that what is kept for one set of samples is not given to another."""
    for method in (attributors.das, attributors.das_images):
        first = method(given)
        given.samples = given.samples.flip(0)
        assert torch.allclose(method(given), first.flip(0))
