"""A network of your own: a small denoiser of two moons, and which training points push a sample to the right."""

import sys

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_moons

from sensitivity import GaussianAnchor, Grid, Points, as_score, influence

torch.manual_seed(0)
data = torch.tensor(make_moons(400, noise=0.06, random_state=0)[0], dtype=torch.float32) - torch.tensor([0.5, 0.25])
layers = [torch.nn.Linear(3, 128), torch.nn.SiLU(), torch.nn.Linear(128, 128), torch.nn.SiLU(), torch.nn.Linear(128, 2)]
body = torch.nn.Sequential(*layers)


def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    s, root = sigma[:, None], (sigma[:, None] ** 2 + 0.64).sqrt()  # preconditioned as in Karras et al. 2022
    return 0.64 / root**2 * x + 0.8 * s / root * body(torch.cat([x / root, s.log() / 4], 1))


optimizer = torch.optim.Adam(body.parameters(), 2e-3)
for _ in range(800):
    x = data[torch.randint(len(data), (256,))]
    sigma = (1.2 * torch.randn(256) - 1).exp()
    error = denoiser(x + sigma[:, None] * torch.randn_like(x), sigma) - x
    optimizer.zero_grad()
    ((1 / sigma**2 + 1 / 0.64)[:, None] * error**2).mean().backward()
    optimizer.step()

latents = 10 * torch.randn(4, 2)
points, anchor = Points(data, bandwidth=0.05), GaussianAnchor.from_data(data)
influences = influence(
    as_score(denoiser, "denoiser"), latents, lambda x: x[:, 0], points, Grid(10.0, 0.05, 40), anchor=anchor
)
print(influences.outcome.sentence)
shown, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharex=True, sharey=True, layout="constrained")
for place, values, sample in zip(axes, influences.values, influences.samples, strict=True):
    dots = place.scatter(*data.T, s=6, c=values, cmap="coolwarm", vmin=-values.abs().max(), vmax=values.abs().max())
    place.scatter(*sample[:, None], marker="*", s=90, c="black")
    plt.colorbar(dots, ax=place, orientation="horizontal", label="d(first coordinate)/dη")
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "own_mlp.png", dpi=120)
