"""Study `responses`: which answer of a network to a change of its data is the one that training gives?

Sources: Scarvelis & Solomon 2025, arXiv 2509.23092 (the population's answer); Koh & Liang 2017, arXiv 1703.04730, and
Mlodozeniec et al. 2024, arXiv 2410.13850 (parameters); Kamb & Ganguli 2024, arXiv 2412.20292 (patches); Ilyas &
Engstrom 2025, arXiv 2504.16430 (the derivative of the run).

Protocol
--------
Fixed before any result; amendments, if any, are listed below.

- Data: digits 8×8, MNIST subset averaged to 14×14, Fashion-MNIST averaged to 14×14 (optional: a row says so where it
  is not installed); a tenth is held out.
- Networks: residual multilayer perceptrons of three layers and a convolutional U-Net; EDM weighting, noise levels
  log-normal (−0.5, 1.5), Adam with a floor ε₀ = 1e-6 under the root (the derivative of a convolutional run is then
  the same in single and in double precision to 2e-6, and to 3e-3 without it).
- Changes, the same for all: class 3 gets η = .1 more mass; class 3 is removed; one image of class 3 gets η = .02;
  class 3 is blurred by half.
- Truths. (a) *exact*: a network that is trained exactly, by a solve at each noise level (`oracles.features`): the
  derivative of its samples in η, by a solver of high order. (b) *run*: the derivative of the samples along the
  derivative of the training run itself, network by network. (c) *scratch* and *finetune*: P pairs of networks, one
  trained on the base and one on the changed data, from the same parameters, in the same order and with the same noise
  (the change multiplies the losses of drawn data); fine-tuning takes a quarter of the steps from the base network, the
  control goes on with the base data. The changes of P pairs are averaged, and so are the predictions from the P base
  networks.
- *others*: each pair's change from scratch against the mean answer of the other pairs' networks, and against the mean
  of the other pairs' changes (`retraining`), which is what seeds have in common.
- Responses: `population` (log density along the flow: exact trace at d = 64, random probes above), `kernel` (log ratio
  of two kernel densities of the bandwidth of highest held-out likelihood), `local` (patches calibrated by the
  network's own denoiser), `parameters` (Gauss–Newton by conjugate gradients, damping by the package's rule), `unrolled`
  (the derivative of the run; for fine-tuning that of the control's fine-tuning; for the exact network that of its
  solve, whose distance from the truth is the sampler's grid alone).
- Baselines: `zero`, `another latent` (the `unrolled` answer for the next latent), `mean over latents` (the mean of
  `unrolled`): what is predicted without looking at the latent.
- Measures: Pearson correlation over pixels, latent by latent, median over latents; the same of changes without their
  mean over latents (centred); the slope through the origin of actual on predicted change; the share of the ceiling
  √ρ_P, jackknifed over the P pairs (`studies.statistics.trainings`), where the ceiling's interval lies above .1; a
  response that knows the base networks can pass the ceiling; network evaluations per latent and seconds.
- Leave-out: 1 % of the data removed at random, trained again at the same seed, against one pass back through the run;
  Spearman's correlation over removals of the held-out loss and of the ink (mean pixel) of samples.
- The unit of intervals over networks is the pair, of removals the removal. What P pairs are too few for is open.
- Expectations, stated before any result: `parameters` is the answer of the exact network (correlation ≥ .99, slope in
  .9–1.1) and the population's is not; the leave-out correlation is ≥ .95; the best response reaches ≥ 90 % of the
  ceiling after fine-tuning and ≥ 80 % from scratch with a slope in .7–1.4; `unrolled` has the larger share of the
  ceiling than every other response.

Amendments
----------
After a first quick run (version 1; digits, four pairs: `unrolled` .996 from scratch and .999 fine-tuned where its own
seed is known, `parameters` .31 and .23):

1. New truth *others*: a run's derivative knows its seed, and so does the truth *scratch*; what is left between seeds
   was not seen.
2. New response `unrolled` of the exact network; it has fewer points and features and more levels, to fit two minutes.
3. The quick run's networks were worse than a Gaussian on held-out images (.92 against .71): 700 steps instead of 300
   (.89 then: still worse, which the page says; more does not fit two minutes).
   With 300 steps and the new truths `unrolled` had a centred correlation of .56 with other pairs' changes, as had other
   pairs' own mean change, and the exact network's derivative .92 with `parameters` of six noises a level.

Of 2026-11-27, before any full run (version 4), from held-out losses of single trainings alone:

4. At the sizes planned for the full run the perceptrons denoise held-out images worse than a Gaussian (digits .76
   against .71, MNIST .85 against .61, Fashion-MNIST .76 against .55), the convolutional networks better (digits .60,
   MNIST .49; of 103 321 parameters on digits .55). A network that is worse than the Gaussian or the kernel density of
   the same data carries no claim, and the full run keeps convolutional networks only; perceptrons stay for removals,
   which compare a run with itself. The other changes, Fashion-MNIST and transformers are left to `paper` (and since to
   `responses_networks`).
5. The machine was shared when the full run was planned: 24 latents, 8 noises an image, 1 024 products, four pairs.
   Truth *scratch* and truth *finetune* of a regime are cells of their own.
"""

from studies.responses.cells import cells, run_cell
from studies.responses.config import Config
from studies.responses.drawing import figures
from studies.responses.verdicts import claims

NAME = "responses"
VERSION = 4
QUESTION = "Which answer to a change of the data is the one that a trained network gives?"

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]
