"""Classifier-free guidance: new data in one class move both branches, each by its own share."""

import sys

import matplotlib.pyplot as plt
import torch

from sensitivity import Grid, Mixture, PerBranch, Toward, guided, resample, sample_sensitivity


def cloud(weights: list[float], means: list[list[float]]) -> Mixture:
    return Mixture(
        torch.tensor(weights).double(), torch.tensor(means).double(), torch.full((len(means),), 0.2).double()
    )


share = 0.5  # of the class in the data; all new data have the class
one_class, other = [[-1.5, 0.0], [-0.5, 1.0]], [[1.5, 0.0], [1.0, -1.0]]
whole, conditional = cloud([0.25] * 4, one_class + other), cloud([0.5] * 2, one_class)
new = cloud([1.0], [[-1.2, 1.5]])
score = guided(conditional.score, whole.score, 2.0)
change = PerBranch(Toward(new), (1 / share) * Toward(new))
anchor, grid = PerBranch(whole, conditional), Grid(20.0, 0.1, 60)
latents = 20 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

eta = 0.01
first = sample_sensitivity(score, latents, change, grid, anchor=anchor)
moved = resample(score, latents, change, eta, grid, anchor=anchor)  # the class gains mass by Bayes' rule
print(first.outcome.sentence)
actual = moved.samples - first.samples
print("first order against the finite change:", ((eta * first.sensitivity - actual).norm() / actual.norm()).item())

plt.figure(figsize=(5, 4))
plt.scatter(*torch.tensor(one_class).T, marker="x", c="black", label="class, means")
plt.scatter(*torch.tensor(other).T, marker="+", c="gray", label="other class, means")
plt.scatter(*new.means.T, marker="*", c="tab:green", label="new data of the class, mean")
arrows = {"angles": "xy", "scale_units": "xy", "scale": 0.1}
plt.quiver(*first.samples.T, *actual.T, color="tab:orange", width=0.009, label="finite change (10 ×)", **arrows)
plt.quiver(*first.samples.T, *(eta * first.sensitivity).T, color="tab:blue", width=0.004, label="first order", **arrows)
plt.legend(fontsize=7)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "guided.png", dpi=120)
