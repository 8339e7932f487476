"""Study `retraining`: does the sensitivity of a network's samples predict what retraining it on changed data does?

Source: Scarvelis & Solomon 2025, arXiv 2509.23092, section on images (MNIST, CelebA; median Pearson correlation .46
after retraining and .66 after fine-tuning on CelebA; network, masses and the definition of the correlation could not
be read, so these are context and not a comparison).

Protocol, fixed before any result
---------------------------------
- Data: digits 8×8 (all ten classes), MNIST subset averaged to 14×14, MNIST subset 28×28, faces 25×25; a tenth is held
  out. Fashion-MNIST joins in `paper()`, where it is installed.
- Networks: residual multilayer perceptrons of three layers with EDM weighting, noise levels log-normal (−0.5, 1.5);
  in `paper()` also convolutional U-Nets. Quality is reported as the denoising loss on training and on held-out
  images.
- Changes: each class gets more mass (η = .1; for class 3 also .01, .03, .3); class 3 is removed; one image (the first
  of class 3) is removed, or gets the mass .02; the contrast of class 3 is lowered by .3 (points move).
- Truth: P pairs of networks, one trained on the base data and one on the changed data, from the same initial
  parameters, with the same order and noise wherever their data agree; both sample from the same latents; the changes
  of P pairs are averaged (digits: 8 for class 3 at η = .1, 3 for every other change). *scratch*: all steps on the
  changed data. *finetune*: both go on from the base network for a quarter of the steps.
- 128 latents, seed 0, at σ_max = 20; 40 Heun steps (Karras spacing) to σ_min = .05; every latent and every cell is
  reported.
- Predictors, all from the base networks alone and averaged over the same P: `flow` (log density along the flow, exact
  trace in d = 64, eight random probes above), `probes` (eight probes), `finite` (the path under the finite mass),
  `kernel` (log-ratio of two kernel densities), `classifier` (noise-conditional density-ratio classifier). Bandwidths
  maximise the held-out likelihood. `one network` is `flow` from the first base network only.
- Baselines: `zero` (correlation counted as 0), `shuffled` (the prediction for another latent), `nearest` (toward the
  nearest image of the added mass), `empirical` (sensitivity of the empirical score itself), `transport` (entropic
  optimal transport from base samples to samples of the changed networks, barycentric; it sees the retrained samples,
  the predictors do not).
- Measures, latent by latent: Pearson correlation over pixels between predicted and actual change; direction cosine;
  norms (Spearman correlation and calibration slope through the origin). Medians with distribution-free 95 %
  intervals; differences to baselines are paired.
- Noise floor: the mean correlation ρ of the changes of two pairs; the ceiling for a predictor of the mean change is
  √(Pρ/(1+(P−1)ρ)) (Spearman–Brown). A predictor that knows the base networks can pass it.
- Influence: the functional is the ink (mean pixel); 24 networks trained on random halves of the data; LDS is
  Spearman's correlation, over halves, of the summed influences with the actual functional, per latent; against the
  empirical score's influences; nothing is tuned.
- Claims and thresholds: `studies.retraining.claims`.

Amendments after first results
------------------------------
1. `transport` first went to the retrained networks' samples *from the same latents*: nearest neighbours are then the
   answer itself (correlation 1.00). It now goes to twice as many samples from other latents.
2. Classes other than 3 have three pairs, whose ceiling lies below the threshold of .75 that was set for eight; that
   claim stands and fails. The claim that each class reaches 95 % of its own ceiling was added after seeing this.
"""

from studies.retraining.cells import cells, run_cell
from studies.retraining.claims import claims
from studies.retraining.config import Config
from studies.retraining.drawing import figures

NAME = "retraining"
VERSION = 2
QUESTION = "Does the sensitivity predict, without retraining, what retraining on changed data does to samples?"

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]
