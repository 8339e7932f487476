"""A flow-matching network of two moons: the samples if the points at one moon's end had never been there."""

import sys

import matplotlib.pyplot as plt
import torch
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import CondOTScheduler
from flow_matching.utils import ModelWrapper
from sklearn.datasets import make_moons

from sensitivity import GaussianAnchor, Grid, Points, Remove, from_flow_matching, resample, sample

torch.manual_seed(0)
data = 1.5 * (torch.tensor(make_moons(1000, noise=0.05, random_state=0)[0]).float() - torch.tensor([0.5, 0.25]))
layers = [torch.nn.Linear(3, 128), torch.nn.SiLU(), torch.nn.Linear(128, 128), torch.nn.SiLU(), torch.nn.Linear(128, 2)]


class Velocity(ModelWrapper):
    def forward(self, x: torch.Tensor, t: torch.Tensor, **extras: object) -> torch.Tensor:
        return self.model(torch.cat([x, t.expand(len(x))[:, None]], 1))


velocity, path = Velocity(torch.nn.Sequential(*layers)), AffineProbPath(CondOTScheduler())
optimizer = torch.optim.Adam(velocity.parameters(), 4e-3)
for _ in range(1500):
    x = data[torch.randint(len(data), (256,))]
    step = path.sample(t=torch.rand(256), x_0=torch.randn_like(x), x_1=x)
    optimizer.zero_grad()
    (velocity(step.x_t, step.t) - step.dx_t).square().mean().backward()
    optimizer.step()

score = from_flow_matching(velocity.eval(), CondOTScheduler())
grid, anchor = Grid(score.schedule.sigma_max, 0.05, 50), GaussianAnchor.from_data(data)
latents = grid.sigma_max * torch.randn(300, 2)
gone = Remove(Points(data[data[:, 0] > 1.2], bandwidth=0.1))
before, without = (
    sample(score, latents, grid),
    resample(score, latents, gone, gone.mass(len(data)), grid, anchor=anchor),
)
print(without.outcome.sentence)
_, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharex=True, sharey=True, layout="constrained")
shown = {"data, removed red": data, "samples": before.samples, "samples without those points": without.samples}
for place, (title, points) in zip(axes, shown.items(), strict=True):
    place.scatter(*points.T, s=3, c=["tab:red" if x > 1.2 else "tab:blue" for x in points[:, 0]])
    place.set_title(title, fontsize=9)
plt.savefig(sys.argv[1] if len(sys.argv) > 1 else "flow_matching_moons.png", dpi=120)
