"""A latent model: diffusion of sixteen principal coordinates of digits, influences on the decoded image."""

import sys

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from sensitivity import GaussianAnchor, Grid, Points, as_score, influence, sample

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32).flatten(1) / 8 - 1
mean = images.mean(0)
axes = torch.linalg.svd(images - mean, full_matrices=False).Vh[:16]  # encoder: (x − mean) axesᵀ; decoder: z axes + mean
codes = (images - mean) @ axes.T
body = torch.nn.Sequential(torch.nn.Linear(17, 512), torch.nn.SiLU(), torch.nn.Linear(512, 16))


def denoiser(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    s, root = sigma[:, None], (sigma[:, None] ** 2 + 1).sqrt()
    return z / root**2 + s / root * body(torch.cat([z / root, s.log() / 4], 1))


optimizer = torch.optim.Adam(body.parameters(), 1e-3)
for _ in range(1000):
    z, sigma = codes[torch.randint(len(codes), (256,))], (1.5 * torch.randn(256) - 0.5).exp()
    error = denoiser(z + sigma[:, None] * torch.randn_like(z), sigma) - z
    optimizer.zero_grad()
    ((1 / sigma**2 + 1)[:, None] * error**2).mean().backward()
    optimizer.step()

score, grid, latents = as_score(denoiser, "denoiser"), Grid(20.0, 0.1, 40), 20 * torch.randn(4, 16)
points, anchor = Points(codes, bandwidth=0.2), GaussianAnchor.from_data(codes)
pictures = sample(score, latents, grid).samples @ axes + mean


def likeness(z: torch.Tensor) -> torch.Tensor:  # how far the decoded image is itself
    return ((z @ axes) * (pictures - mean)).sum(1)


result = influence(score, latents, likeness, points, grid, anchor=anchor, top_k=6)
print(result.outcome.sentence)
_, places = plt.subplots(4, 7, figsize=(7, 4), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for row, values, chosen, picture in zip(places, result.values, result.indices, pictures, strict=True):
    for place, shown, title in zip(row, [picture, *images[chosen]], ["sample", *values.int().tolist()], strict=True):
        place.imshow(shown.reshape(8, 8), cmap="gray", vmin=-1, vmax=1)
        place.set_title(title, fontsize=7)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "latent.png", dpi=120)
