"""A diffusers U-Net on 8×8 digits: the training images that made each sample."""

import sys

import matplotlib.pyplot as plt
import torch
from diffusers import DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits

from sensitivity import GaussianAnchor, Grid, Points, from_diffusers, influence, sample

torch.manual_seed(0)
images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
unet = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1,
    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
)  # fmt: skip
scheduler = DDPMScheduler(num_train_timesteps=1000)
optimizer = torch.optim.Adam(unet.parameters(), 3e-3)
for _ in range(250):
    x, times, noise = images[torch.randint(len(images), (64,))], torch.randint(1000, (64,)), torch.randn(64, 1, 8, 8)
    optimizer.zero_grad()
    (unet(scheduler.add_noise(x, noise, times), times).sample - noise).square().mean().backward()
    optimizer.step()

score = from_diffusers(unet.eval(), scheduler)
grid = Grid(score.schedule.sigma_max, 0.2, 60)
latents = grid.sigma_max * torch.randn(4, 1, 8, 8)
points = Points(images, bandwidth=0.3)
samples = sample(score, latents, grid).samples


def likeness(x: torch.Tensor) -> torch.Tensor:  # how far the sample is itself
    return (x * (samples - images.mean(0))).flatten(1).sum(1)


anchor = GaussianAnchor.from_data(images)
influences = influence(score, latents, likeness, points, grid, anchor=anchor, probes=4, seed=0, top_k=6)
print(influences.outcome.sentence)
_, axes = plt.subplots(4, 7, figsize=(7, 4), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for row, values, chosen, picture in zip(axes, influences.values, influences.indices, samples, strict=True):
    for place, shown, title in zip(row, [picture, *images[chosen]], ["sample", *values.int().tolist()], strict=True):
        place.imshow(shown[0], cmap="gray", vmin=-1, vmax=1)
        place.set_title(title, fontsize=7)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "diffusers_digits.png", dpi=120)
