"""An exact mixture: how samples move when data are added at one place, by the engine and by the oracle."""

import sys

import matplotlib.pyplot as plt
import torch

from oracles import AdditivePerturbation, GaussianMixture
from sensitivity import Grid, Mixture, Toward, sample_sensitivity

base = GaussianMixture.isotropic(
    torch.tensor([0.6, 0.4]).double(),
    torch.tensor([[-1.5, 0.0], [1.5, 0.5]]).double(),
    torch.tensor([0.3, 0.3]).double(),
)
new = GaussianMixture.isotropic(
    torch.ones(1).double(), torch.tensor([[0.0, 2.0]]).double(), torch.tensor([0.2]).double()
)
law, added = (Mixture(each.weights, each.means, each.covariances) for each in (base, new))
latents = 20 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

result = sample_sensitivity(law.score, latents, Toward(added), Grid(20.0, 0.05, 100), anchor=law, solver="rk4")
samples, exact = AdditivePerturbation(base, new).sample_sensitivity(latents, 20.0, 0.05)
print("relative error of dx/dη:", ((result.sensitivity - exact).norm() / exact.norm()).item())
print(result.outcome.sentence)

arrows = {"angles": "xy", "scale_units": "xy", "scale": 20, "width": 0.004}
plt.figure(figsize=(5, 4))
plt.scatter(*base.sample(400, seed=1).T, s=3, c="lightgray", label="data")
plt.scatter(*new.sample(60, seed=2).T, s=3, c="tab:green", label="added data")
plt.quiver(*samples.T, *exact.T, color="tab:orange", label="exact dx/dη (1/20)", **{**arrows, "width": 0.009})
plt.quiver(*result.samples.T, *result.sensitivity.T, color="tab:blue", label="engine's dx/dη (1/20)", **arrows)
plt.legend(fontsize=7)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "mixture.png", dpi=120)
