"""Study `groups`: what if a group of the training data were gone, and how far do intervals for that answer hold?

Sources: Scarvelis & Solomon 2025, arXiv 2509.23092 (finite masses without retraining); Ilyas & Engstrom 2025, arXiv
2504.16430 (the derivative of the run); Koh & Liang 2017, arXiv 1703.04730 (parameters); Park et al. 2023, arXiv
2303.14186 (projected gradients, summed over a group); Vovk, Gammerman & Shafer 2005 and Lei et al. 2018 (split
conformal prediction).

Protocol
--------
Fixed before any result; amendments, if any, are listed below.

- Data, each cut into 20 groups: digits 8×8, a MNIST subset averaged to 14×14, Fashion-MNIST averaged to 14×14 (two
  clusters by k-means in each class), Unifont glyphs averaged to 8×8 (20 pages of 256 code points; optional, as
  Fashion-MNIST is: a row says so where it is not installed). A tenth of the images is held out.
- Networks: residual multilayer perceptrons, EDM weighting, noise levels log-normal (−0.5, 1.5). One *base* network on
  all of the data, whose run is recorded; for each group a network *retrained* from scratch without it, with a fresh
  seed, twice (two seeds), and once with the base's own seed; *random* groups of the size of the real ones, retrained
  once; nine networks retrained with nothing changed but the seed (the *noise floor*).
- Outcomes, from the same latents for all networks: ink (mean) and contrast (standard deviation over pixels) of each
  sample; and of all samples together the share of every class, a softmax of the distances to class means.
- Prediction: the finite form of `UnrolledResponse`. Rivals: its first order; `ParameterResponse`; the population's
  removal with the ratio of two kernel densities; guidance away from the group by the same mass without a ratio
  (negative conditioning); fine-tuning of the base network without the group for a quarter of the steps; projected
  gradients summed over the group (class shares only); class shares by counting images; retraining itself with another
  seed, and with the base's own. Costs are processor seconds for all groups.
- Coverage: 90 % intervals calibrated on nine of the 20 groups, drawn 400 times, and held against the other eleven. Over
  all divisions of one pool such coverage is what the rule says, whatever predicts: this tests the program; the
  predictor decides the width. Therefore also *transfer*: calibrated on the first nine random groups, held against all
  real groups, where exchangeability is an assumption that may fail.
- Widths: margin of the intervals over the margin, by the same rule, of the nine networks of the noise floor.
- Ranks: Spearman's correlation over groups of predicted and retrained class share (mean over the two fresh seeds), mean
  over classes; intervals by the jackknife over groups, the two seeds' common part added (`studies.datamodelling`).
- Exact: the same on a network that is trained by a solve (`oracles.features`) on digits, without seeds: model error
  alone.
- Planted groups: digits in 20 random groups of which three are blurred, have a watermark in a corner, or are repeated
  50 times each (five images); and images of class 3 in which three groups are of class 8. Every group is ranked by what
  its removal does to the loss of held-out clean images, by one pass back through the run (most harmful first); the
  baseline ranks by the mean training loss of the group. Precision among the first three, over four draws of each kind.
- The unit of intervals is the group, or the draw of planted groups.
- Expectations, stated before any result: coverage lies within .86 to .94 over divisions on every data set, and in
  transfer; intervals are at most half as wide again as the noise floor's; `unrolled` ranks groups better than every
  rival but retraining; planted groups are found with a precision of at least .8, and better than by training loss.

Amendments
----------
Of 2026-11-27, after a first quick run (digits, perceptrons of width 32 and 300 steps: coverage .90 over divisions and
.91 in transfer, widths 1.01; `unrolled` within .1 of every rival, undecided; one draw of each kind of planted groups
found whole), before any full run:

1. That run took five minutes of a processor in the place of two, and the machine was shared: nine random groups in the
   place of 20, three draws of planted groups in the place of four, 500 steps; MNIST is left to `paper`.
2. Retraining with the base's own seed runs side by side with the other networks, which draw data by their weights.
3. At this size retraining side by side is cheaper than the derivative of a run: costs are reported, not claimed.
"""

from studies.groups.cells import cells, run_cell
from studies.groups.config import Config
from studies.groups.drawing import figures
from studies.groups.verdicts import claims

NAME = "groups"
VERSION = 1
QUESTION = "What would samples be if a group of the data were gone, and how far do intervals for that answer hold?"

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]
