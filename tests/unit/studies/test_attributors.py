"""Attributors of the leaderboard are what their formulas say, and keep nothing from one network for another."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from studies.attribution import attributors, tuning
from studies.attribution.attributors import gradients, parameter_gradients, runs, similarities
from studies.networks import Architecture, build
from studies.training import Recipe, train
from studies.training.descent import Adam
from studies.training.record import record

TUNED = ("D-TRAK", "D-TRAK features", "DAS")


class Loss:
    """Draws and the plain squared error."""

    exact, scale = False, 0.7

    def draw(self, count, like, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return 0.3 + torch.rand(count, generator=generator), torch.randn(count, *like.shape[1:], generator=generator)

    def __call__(self, denoise, clean, sigma, noise):
        return (denoise(clean + sigma[:, None, None, None] * noise, sigma) - clean).flatten(1).square().mean(1)


def problem(seed=0):
    """Five images of 4×4, two samples, a small perceptron."""
    generator = torch.Generator().manual_seed(seed)
    data, samples = (torch.randn(n, 1, 4, 4, generator=generator) for n in (5, 2))
    network = build(Architecture(width=8, depth=2), (1, 4, 4), centre=data.mean(0), scale=0.7, seed=seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return SimpleNamespace(
        name="small-ink",
        seed=0,
        data=data,
        samples=samples,
        latents=10 * samples,
        network=network,
        output=lambda denoise: denoise(samples, torch.full((2,), 0.5)).mean((1, 2, 3)),
        functional=lambda x: x.mean((1, 2, 3)),
        loss=Loss(),
        recipe=None,
    )


def test_d_trak_is_the_damped_kernel_of_the_predicted_noise_times_the_pull():
    """Assert the formula with gradients by autograd, image by image."""
    given = problem()
    sigma, noise = given.loss.draw(parameter_gradients.DRAWS, given.data)

    def features(image):
        state = image.expand(noise.shape) + sigma[:, None, None, None] * noise
        size = ((state - given.network(state, sigma)) / sigma[:, None, None, None]).square().mean()
        return torch.cat([part.flatten() for part in torch.autograd.grad(size, list(given.network.parameters()))])

    points, samples = (torch.stack([features(image) for image in of]).double() for of in (given.data, given.samples))
    gram = points @ points.T
    inverse = torch.linalg.inv(gram + 0.3 * gram.diagonal().mean() * torch.eye(5))
    pulls = given.functional(given.data)[None] - given.functional(given.samples)[:, None]
    values = np.asarray(attributors.d_trak(given, share=0.3))
    assert np.allclose(values, samples @ points.T @ inverse * pulls, rtol=1e-3, atol=1e-5)


def test_weights_of_patches_are_those_of_a_loop_over_patches():
    """Assert the posterior over all points and places, each patch with what lies beyond the border as a value."""
    given, level, reach = problem(), 0.8, 1
    values = np.asarray(attributors.patches(given, level=level, side=0.1))
    data = given.data.double()
    sigma = level * float((data - data.mean(0)).square().mean().sqrt())
    noise = torch.randn(given.samples.shape, generator=torch.Generator().manual_seed(17), dtype=torch.float64)

    def around(image):
        padded = torch.nn.functional.pad(image[0], [reach] * 4, value=1e3).numpy()
        return np.stack([padded[i : i + 3, j : j + 3].ravel() for i in range(4) for j in range(4)])

    points = np.stack([around(image) for image in data])
    for q, image in enumerate(given.samples.double() + sigma * noise):
        total = np.zeros(5)
        for patch in around(image):
            weights = np.exp(-((points - patch) ** 2).sum(-1) / (2 * sigma**2))
            total += weights.sum(1) / weights.sum()
        pulls = given.functional(given.data) - given.functional(given.samples)[q]
        assert np.allclose(values[q], total * pulls.numpy(), rtol=1e-3, atol=1e-4)


def test_unrolled_differentiation_is_that_of_two_runs():
    """Assert the derivative toward a point by symmetric differences of runs with other weights."""
    given, step = problem(), 1e-3
    given.data = given.data.double()
    given.recipe = Recipe(Architecture(width=6, depth=1), steps=5, batch=4, rate=4e-2, warmup=1, precision="float64")
    rule = Adam(inner=runs.INNER)
    given.network = train(given.recipe, given.data, seed=0).network
    given.output = lambda denoise: denoise(given.samples.double(), torch.full((2,), 0.5).double()).mean((1, 2, 3))
    value, ends = np.asarray(attributors.unrolled(given)), []
    for sign in (1, -1):
        weights = torch.full((5,), (1 - sign * step) / 5, dtype=torch.float64)
        weights[2] += sign * step
        ends.append(given.output(record(given.recipe, given.data, weights=weights, rule=rule).module).detach())
    assert np.allclose(value[:, 2], (ends[0] - ends[1]) / (2 * step), rtol=1e-3)
    assert np.abs(value[:, 2]).min() > 1e-4


def test_what_is_kept_belongs_to_its_network():
    """Assert that answers for another network are not those of the last one, and come back with the first."""
    methods = [attributors.ATTRIBUTORS[name] for name in ("parameter response", "EK-FAC influence", "TRAK", "D-TRAK")]
    first, second = problem(), problem(1)
    for method in methods:
        before, other = np.asarray(method(first)), np.asarray(method(second))
        assert before.shape == other.shape == (2, 5)
        assert not np.allclose(before, other)
        assert np.array_equal(np.asarray(method(first)), before)


def test_chosen_settings_are_among_the_candidates():
    """Assert that what the module uses was tried, and that the tuning setting shares no image with a problem."""
    titles = {name: [title for title, _ in of] for name, of in tuning.CANDIDATES.items()}
    for name, share in zip(TUNED, (*gradients.SQUARE_SHARES, gradients.SCORE_SHARE), strict=True):
        assert f"damping {share:g}" in titles[name]
    assert f"level {similarities.LEVEL:g}, side {similarities.SIDE:g}" in titles["patch weights"]
    from studies.verification.attributions.images import SETTINGS

    known = {image.numpy().tobytes() for image in SETTINGS["digits"].data}
    assert not known & {image.numpy().tobytes() for image in SETTINGS[tuning.SETTING].data}
