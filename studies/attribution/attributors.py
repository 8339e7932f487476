"""Attributions of the task `attribution` of `studies verify`, ours and published ones: `f(problem) -> (queries, N)`.

    studies verify studies.attribution.attributors:trak --task attribution --suite images

Gradient methods take the gradient of the output itself, through the sampler where it is one of samples: kinder to them
than the loss at the sample. Up-weighting point i moves the parameters by `−H⁻¹ g_i`, hence the minus signs: positive
means that the output rises. Methods of similarity are multiplied by what the pull of a point does to the output.

No query is looked at. Dampings are a fixed share of a training matrix's mean eigenvalue (Grosse et al. 2023, arXiv
2308.03296); what a method's authors choose by the score on the queries (dampings of D-TRAK and of the diffusion
attribution score; level and side of the patches' similarity) was chosen by the score on other images with latents and
halves of their own, see `studies.attribution.tuning`. What does not depend on the output is kept between the outputs of
a network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from sensitivity import GaussianAnchor, Grid, LocalResponse, Points, as_score, influence
from studies.attribution.das import magnitude, misses, score_of_images, score_of_numbers
from studies.attribution.ekfac import solved
from studies.training.loop import digest

__all__ = ["ATTRIBUTORS"]

Problem = Any
DRAWS = 32  # noises a training point
SHARE = 0.1  # of the mean eigenvalue, the damping (Grosse et al. 2023, arXiv 2308.03296)
SQUARE_SHARES = (10.0, 1.0)  # the same of D-TRAK in its two forms, chosen by `studies.attribution.tuning`
SCORE_SHARE = 1.0  # the same of the diffusion attribution score as its authors compute it, chosen there too
INNER = 1e-6  # under the square root of the recorded run's Adam
LEVEL, SIDE = 1.0, 0.4  # of the patches' similarity, in data deviations and sides of an image; chosen there too


def population(problem: Problem) -> Any:
    """Ours, the population's response: through the network's score, its own log density and the data's moments."""
    if problem.functional is None:
        return NotImplemented
    score = as_score(problem.network, "denoiser")
    return _influence(problem, score, anchor=GaussianAnchor.from_data(problem.data), trace="exact")


def empirical(problem: Problem) -> Any:
    """The population's response with the score of the training points themselves."""
    if problem.functional is None:
        return NotImplemented
    points = Points(problem.data)
    return _influence(problem, points.score, anchor=points, trace="exact")


def local(problem: Problem) -> Any:
    """Ours, the response of a machine of patches whose sides are calibrated on the network (arXiv 2412.20292)."""
    if problem.functional is None:
        return NotImplemented
    score = as_score(problem.network, "denoiser")
    return _influence(problem, score, response=LocalResponse(problem.data, levels=6, states=8))


def _influence(problem: Problem, score: Any, **options: Any) -> np.ndarray:
    levels = problem.levels
    grid = Grid(float(levels[0]), float(levels[-1]), len(levels) - 1)
    influences = influence(score, problem.latents, problem.functional, problem.data, grid, **options)
    return np.asarray(influences.values.detach().double())


def parameters(problem: Problem) -> Any:
    """Ours, the parameters' response: `−Γ (H + λ)⁻¹ g_i`, H the Gauss-Newton matrix from drawn residuals."""
    return _with_gradients(problem, _gauss_newton)


def gradient_product(problem: Problem) -> Any:
    """`−Γ·g_i` at the final network: TracIn with one checkpoint (arXiv 2002.08484)."""
    return _with_gradients(problem, lambda g, of: -of.gradients @ g.T)


def gradient_cosine(problem: Problem) -> Any:
    """The cosine of the same."""
    return _with_gradients(problem, lambda g, of: -_unit(of.gradients) @ _unit(g).T)


def ekfac(problem: Problem) -> Any:
    """Influence functions with the factored curvature, its eigenvalues corrected: see `studies.attribution.ekfac`."""

    def scored(g: Tensor, of: _Gradients) -> Any:
        influences = _kept("curvature", of, lambda: solved(of, g))
        return influences if influences is NotImplemented else -of.gradients @ influences.T

    return _with_gradients(problem, scored)


def d_trak(problem: Problem, share: float = SQUARE_SHARES[0]) -> Any:
    """D-TRAK (arXiv 2311.00500): `φ_q (ΦᵀΦ + λ)⁻¹ φ_i`, φ gradients of the mean square of the predicted noise.

    The published kernel compares sample and point, and is the same for every output: it is multiplied by the pull.
    Without projection: the networks have no more parameters than the published one keeps numbers.
    """
    if not list(problem.network.parameters()):
        return NotImplemented
    of = _Gradients(problem, outputs=False)
    features = _kept("square", of, lambda: of.points(_square))
    at_samples = of.points(_square, problem.samples.to(problem.data))
    return -_kernel(at_samples, features, share) * _pulls(problem)


def d_trak_outputs(problem: Problem, share: float = SQUARE_SHARES[1]) -> Any:
    """D-TRAK's features of the points with the gradient of the output in the place of the sample's features.

    How those features move with the loss is left open: the sign is that of their mean product over the points.
    """

    def scored(g: Tensor, of: _Gradients) -> Tensor:
        features = _kept("square", of, lambda: of.points(_square))
        return torch.sign((features * g).sum(1).mean()) * _kernel(of.gradients, features, share)

    return _with_gradients(problem, scored)


def trak(problem: Problem) -> Any:
    """TRAK (arXiv 2303.14186): `−Γ (GᵀG + λ)⁻¹ g_i`, G the gradients of the training losses."""
    return _with_gradients(problem, lambda g, of: _kernel(of.gradients, g))


def leveraged(problem: Problem) -> Any:
    """TRAK over one less the point's leverage, an ingredient of the diffusion attribution score (arXiv 2410.18639)."""

    def scored(g: Tensor, of: _Gradients) -> Tensor:
        gram = g @ g.T
        damping = SHARE * gram.diagonal().mean()
        inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
        leverage = (gram @ inverse).diagonal()
        return -(of.gradients @ g.T @ inverse) / (1 - leverage)

    return _with_gradients(problem, scored)


def das(problem: Problem, share: float = SCORE_SHARE) -> Any:
    """The diffusion attribution score (arXiv 2410.18639) as its authors compute it, see `studies.attribution.das`.

    Published for no output in particular: how far the prediction at a sample moves, whatever way. It is multiplied by
    the pull, as D-TRAK's kernel.
    """
    if not list(problem.network.parameters()):
        return NotImplemented
    of, samples = _Gradients(problem, outputs=False), problem.samples.to(problem.data)
    features = _kept("magnitude", of, lambda: of.points(magnitude))
    at_samples = _kept(f"magnitude at {digest(samples)}", of, lambda: of.points(magnitude, samples))
    residuals = _kept("misses", of, lambda: misses(of))
    return score_of_numbers(at_samples, features, residuals, share) * _pulls(problem)


def das_images(problem: Problem, share: float = SHARE) -> Any:
    """The same by its definition, every pixel an output; damped by the fixed share, not tuned."""
    if not list(problem.network.parameters()):
        return NotImplemented
    of, samples = _Gradients(problem, outputs=False), problem.samples.to(problem.data)
    g = _kept("points", of, lambda: of.points(problem.loss))
    moved = _kept(f"moved by {share} at {digest(samples)}", of, lambda: score_of_images(of, g, share, samples))
    return moved * _pulls(problem)


def tracin(problem: Problem) -> Any:
    """TracIn (arXiv 2002.08484): products at six checkpoints, weighted by the learning rates there."""
    if problem.recipe is None:
        return NotImplemented
    from studies.training.loop import TrainingRun

    recipe = problem.recipe
    marks = [recipe.steps * (2 * part + 1) // 12 for part in range(6)]

    def way() -> list[Any]:
        return list(TrainingRun(recipe, problem.data, (None,), (0,), None, "cpu").on_the_way(marks))

    states = _kept("way", _Gradients(problem, outputs=False), way)
    total: Any = 0.0
    for step, state in zip(marks, states, strict=True):
        problem.network.load_state_dict(state)
        of = _Gradients(problem)
        g = _kept(f"points at {step}", of, partial(of.points, problem.loss), states[-1])
        total = total - recipe.rate_at(step) * of.gradients @ g.T
    return total


def unrolled(problem: Problem) -> Any:
    """The derivative of the training run (arXiv 2504.16430): the run made again, the outputs pulled back through it.

    Of perceptrons: 32 outputs back through a thousand steps take three to four minutes of one core. Adam's square root
    keeps off zero, where it has no derivative, so that this run ends a little elsewhere than the problem's.
    """
    if problem.recipe is None or problem.recipe.architecture.kind != "mlp":
        return NotImplemented
    from studies.training.descent import Adam
    from studies.training.record import record

    def made() -> Any:
        return record(problem.recipe, problem.data, seed=0, rule=Adam(inner=INNER))

    run = _kept("recorded", _Gradients(problem, outputs=False), made)
    problem.network.load_state_dict(run.module.state_dict())
    return run.pull(_Gradients(problem).gradients)


def cosine(problem: Problem) -> Tensor:
    """The cosine of raw pixels of point and sample, times what the pull of that point does to the output."""
    points, samples = problem.data.flatten(1), problem.samples.flatten(1).to(problem.data)
    return _unit(samples) @ _unit(points).T * _pulls(problem)


def nearest(problem: Problem) -> Tensor:
    """`exp(−|x − y_i|²/2h²)`, h the median distance to the nearest point, times what the pull does to the output."""
    distances = torch.cdist(problem.samples.flatten(1).to(problem.data), problem.data.flatten(1))
    width = distances.min(1).values.median()
    return torch.softmax(-distances.square() / (2 * width**2), 1) * _pulls(problem)


def patches(problem: Problem, level: float = LEVEL, side: float = SIDE) -> Tensor:
    """Posterior weights of the points' patches, any place, for every patch of the noised sample, summed over both.

    After the nonparametric attribution of Zhao et al. 2025 (arXiv 2510.14269), one scale and one level; its sum is
    multiplied by the pull. Pixels beyond the border are told from those of the image.
    """
    data = problem.data.double()
    sigma = level * float((data - data.mean(0)).square().mean().sqrt())
    size = max(3, 2 * round(side * data.shape[-1] / 2) + 1)
    noise = torch.randn(problem.samples.shape, generator=torch.Generator().manual_seed(17), dtype=torch.float64)
    noised = problem.samples.double() + sigma * noise
    points = _windows(data, size).float()  # (N, places, k)
    queries = _windows(noised, size).float()
    squares, rows = points.square().sum(-1).flatten(), []
    for windows in queries:
        products = windows @ points.flatten(0, 1).T
        shares = torch.softmax((products - squares / 2) / sigma**2, 1)
        rows.append(shares.sum(0).unflatten(0, points.shape[:2]).sum(1))
    return torch.stack(rows).double() * _pulls(problem)


def _windows(images: Tensor, size: int) -> Tensor:
    """All windows (n, places, 2 size²) about every pixel, with a mark of what lies beyond the border."""
    beyond = torch.nn.functional.pad(torch.zeros_like(images), [size // 2] * 4, value=10.0)
    padded = torch.cat([torch.nn.functional.pad(images, [size // 2] * 4), beyond], 1)
    return torch.nn.functional.unfold(padded, size).transpose(1, 2)


def random(problem: Problem) -> np.ndarray:
    """Standard normal numbers."""
    return np.random.default_rng(problem.seed).standard_normal((len(problem.latents), len(problem.data)))


def _pulls(problem: Problem) -> Tensor:
    """`φ(y_i) − φ(x_q)`; of outputs that are not of samples, the sign in which a near point moves them."""
    near = {"loss": -1.0, "density": 1.0}
    name = problem.name.rpartition("-")[2]
    if problem.functional is None:
        return torch.full((len(problem.latents), len(problem.data)), near[name]).to(problem.data)
    size = len(problem.latents)
    values = [problem.functional(point.expand(size, *point.shape)) for point in problem.data]
    return torch.stack(values, 1).detach() - problem.functional(problem.samples.to(problem.data))[:, None]


def _square(denoise: Any, clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """The mean square over pixels of the predicted noise, row by row."""
    level = sigma[:, None, None, None]
    state = clean + level * noise
    squares: Tensor = ((state - denoise(state, sigma)) / level).flatten(1).square().mean(1)
    return squares


_KEEP: dict[str, dict[str, Any]] = {}


def _kept(name: str, of: _Gradients, build: Callable[[], Any], state: dict[str, Tensor] | None = None) -> Any:
    """What depends on network and data alone, built once for all outputs; of one network (or run) at a time.

    Args:
        state: parameters that stand for the run, where `of` is at another of its steps.
    """
    key = digest(of.problem.data, of.theta if state is None else torch.cat([part.flatten() for part in state.values()]))
    kind = "run" if state is not None else "network"
    if key not in _KEEP.get(kind, {}):
        _KEEP[kind] = {key: {}}
    kept = _KEEP[kind][key]
    if name not in kept:
        kept[name] = build()
    return kept[name]


class _Gradients:
    """Gradients in the parameters of a problem's network; `outputs` says whether those of the output too."""

    def __init__(self, problem: Problem, outputs: bool = True) -> None:
        self.problem, self.network = problem, problem.network.requires_grad_(True)
        self.names = [name for name, _ in self.network.named_parameters()]
        self.theta = torch.cat([value.detach().flatten() for _, value in self.network.named_parameters()])
        self.sizes = [value.shape for _, value in self.network.named_parameters()]
        self.gradients = self._of_outputs() if outputs else torch.empty(0)

    def at(self, theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The network with other parameters."""
        parts = theta.split([size.numel() for size in self.sizes])
        given = {name: part.reshape(size) for name, part, size in zip(self.names, parts, self.sizes, strict=True)}
        return lambda x, sigma: functional_call(self.network, given, (x, sigma))

    def _of_outputs(self) -> Tensor:
        theta = self.theta.clone().requires_grad_(True)
        values = self.problem.output(self.at(theta))
        rows = [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in values]
        return torch.stack(rows).detach()

    def points(self, loss: Any, images: Tensor | None = None) -> Tensor:
        """Of the mean over draws of a loss at every training point, or at images (n, P)."""
        sigma, noise = self.draws()

        def mean(theta: Tensor, image: Tensor) -> Tensor:
            losses: Tensor = loss(self.at(theta), image.expand(len(sigma), *image.shape), sigma, noise)
            return losses.mean()

        rows = [grad(mean)(self.theta, image) for image in (self.problem.data if images is None else images)]
        return torch.stack(rows).detach()

    def draws(self) -> tuple[Tensor, Tensor]:
        """Levels and noises of a training point."""
        drawn: tuple[Tensor, Tensor] = self.problem.loss.draw(DRAWS, self.problem.data)
        return drawn

    def jacobians(self, probes: int) -> Tensor:
        """Rows whose sum of squares estimates the Gauss-Newton matrix over points and draws, (N·probes, P).

        Each is the gradient of the residual along a random sign vector at all draws of a point, whose outer product has
        the matrix as its mean.
        """
        sigma, noise = self.draws()
        generator = torch.Generator().manual_seed(5)

        def along(theta: Tensor, image: Tensor, signs: Tensor) -> Tensor:
            clean = image.expand(len(sigma), *image.shape)
            gap = self.at(theta)(clean + sigma[:, None, None, None] * noise, sigma)
            return (self.weight(sigma)[:, None, None, None] * gap * signs).sum() / len(sigma) ** 0.5

        rows = []
        for image in self.problem.data:
            shape = (probes, len(sigma), *image.shape)
            signs = (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(image)
            rows.append(vmap(grad(along), in_dims=(None, None, 0))(self.theta, image, signs))
        return torch.cat(rows).detach() / (len(rows) * probes) ** 0.5

    def weight(self, sigma: Tensor) -> Tensor:
        """Square roots of the loss's weights, times √2: the Hessian of a square."""
        loss, shape = self.problem.loss, self.problem.data.shape[1:]
        if loss.exact:
            return torch.full_like(sigma, 2**0.5)
        size = shape.numel()
        return (2 * (sigma**2 + loss.scale**2) / size).sqrt() / (sigma * loss.scale)


def _gauss_newton(g: Tensor, of: _Gradients) -> Tensor:
    return -of.gradients @ _kept("Gauss-Newton", of, lambda: _damped(g, of))


def _damped(g: Tensor, of: _Gradients) -> Tensor:
    """`(H + λ)⁻¹ g_i` (P, N)."""
    rows = of.jacobians(8)
    gram = rows @ rows.T
    damping = SHARE * gram.diagonal().sum() / min(rows.shape)
    centred = g - g.mean(0)
    solution = torch.linalg.solve(gram + damping * torch.eye(len(gram), dtype=gram.dtype), rows @ centred.T)
    return (centred.T - rows.T @ solution) / damping


def _kernel(of_outputs: Tensor, features: Tensor, share: float = SHARE) -> Tensor:
    gram = features @ features.T
    damping = share * gram.diagonal().mean()
    inverse = torch.linalg.inv(gram + damping * torch.eye(len(gram), dtype=gram.dtype))
    return -(of_outputs @ features.T) @ inverse


def _with_gradients(problem: Problem, score: Callable[[Tensor, _Gradients], Tensor]) -> Any:
    if not list(problem.network.parameters()):
        return NotImplemented
    of = _Gradients(problem)
    return score(_kept("points", of, lambda: of.points(problem.loss)), of)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)


ATTRIBUTORS: dict[str, Callable[[Problem], Any]] = {
    "population response": population,
    "parameter response": parameters,
    "local response (patches)": local,
    "empirical score": empirical,
    "TracIn": tracin,
    "unrolled differentiation": unrolled,
    "gradient product": gradient_product,
    "gradient cosine": gradient_cosine,
    "EK-FAC influence": ekfac,
    "TRAK": trak,
    "TRAK with leverages": leveraged,
    "D-TRAK": d_trak,
    "D-TRAK features": d_trak_outputs,
    "DAS": das,
    "DAS, every pixel": das_images,
    "patch weights": patches,
    "cosine of pixels": cosine,
    "nearest points": nearest,
    "random": random,
}
