"""A diffusers U-Net on 8×8 digits: its samples, and the same samples had the data held no 0."""

import sys

import matplotlib.pyplot as plt
import torch
from diffusers import DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits

from sensitivity import Grid, KernelRatio, Points, Remove, Toward, from_diffusers, resample, sample

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
zeros = images[torch.tensor(digits.target) == 0]
unet = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1,
    down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
)  # fmt: skip
scheduler = DDPMScheduler(num_train_timesteps=1000)
optimizer = torch.optim.Adam(unet.parameters(), 3e-3)
decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 600)
for _ in range(600):
    x, times, noise = images[torch.randint(len(images), (64,))], torch.randint(1000, (64,)), torch.randn(64, 1, 8, 8)
    optimizer.zero_grad()
    (unet(scheduler.add_noise(x, noise, times), times).sample - noise).square().mean().backward()
    optimizer.step()
    decay.step()

score = from_diffusers(unet.eval(), scheduler)
grid = Grid(score.schedule.sigma_max, 0.05, 40)
latents = grid.sigma_max * torch.randn(16, 1, 8, 8)
before = sample(score, latents, grid).samples
share = Remove(Points(zeros)).mass(len(images))  # negative: mass is taken away
without = resample(score, latents, Toward(KernelRatio(zeros, images, 0.3)), share, grid)
print(without.outcome.sentence)
change = without.samples - before
most = change.flatten(1).norm(dim=1).argsort(descending=True)[:8]
_, axes = plt.subplots(3, 8, figsize=(7, 3), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
for row, name, pictures in zip(axes, ["sample", "without 0", "change"], [before, without.samples, change], strict=True):
    row[0].set_ylabel(name)
    for place, picture in zip(row, pictures[most], strict=True):
        place.imshow(picture[0], cmap="RdBu_r" if name == "change" else "gray", vmin=-1, vmax=1)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "diffusers_digits.png", dpi=120)
