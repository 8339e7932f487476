"""Study `low_noise`: when do networks trained on different data part ways?

Source: Pavlova & Wei 2025, arXiv 2506.07841 (networks trained on disjoint subsets agree at high noise and diverge
near the data manifold at low noise; geometries after their code; no number of theirs could be read, so none is
compared).

This is the second protocol, written down before any of its results. The first one (N ≤ 1000, noise up to 3τ) could
fit no scaling law, because networks on 1 or 10 data already differ at 3τ, and counted log ratios of .004 as
divergence. What is changed because of that is marked (amended).

Protocol
--------
- Data: mixtures of `oracles.geometries`, uniform and sharp (s = 1, 3) in d = 5 with 5 components, spiral (d = 2),
  thin manifold (2-d in 100-d, normal variance .01), a rotated product of three one-dimensional mixtures; digits 8×8,
  MNIST averaged to 14×14, faces averaged to 12×12, Fashion-MNIST averaged to 14×14 (optional; where its files are
  missing the cell says so in one row). τ is the standard deviation of the pool per coordinate; all noise levels are
  in units of τ.
- Networks, for every geometry, objective, N and replicate: A and B on disjoint sets of N data, each with two seeds,
  so that every replicate has the control A′ (same data, other seed). 3 replicates with data sets of their own
  (images: random splits, whose sets overlap between replicates; the splits within a replicate are disjoint). The sets
  of growing N are nested. Same residual multilayer perceptron (3×64), steps, batch (64) and optimiser for all
  objectives.
- Objectives: `edm` (weighted, log-normal noise (−1, 2.2) in e-folds of τ), `denoising` (17 levels, geometric from 30τ
  to .003τ), `sliced` (same levels), `blind` (13 levels from 3τ to .003τ, not told σ; above 3τ its unweighted loss
  would see nothing else, so it is not looked at there). .001τ is below the training levels: extrapolation. (Amended:
  the levels reached 3τ.)
- **Training length** (amended; chosen on pilot networks that are no part of the study): Adam's peak rate is that of
  2e-3, 5e-3 and 1e-2 with the least seed noise at .1τ (spiral, `edm`, N = 10⁴, 1000 steps: .25, .20, .24 of the
  residual); steps are the least of 1000, 2000, 4000 whose excess loss is below 5 % of the least possible loss
  there (1000: 4.1 %; 2000: 2.1 %). Every network A reports its excess over the law's optimum on fresh data and over
  its own data's optimum on those. `spiral/edm` at N = 10³ is repeated with 4 times the steps: does longer
  training turn seed noise into a visible part of the data?
- **Cut rule** of `full()`, from twenty minutes of one core: every mixture with `edm` at N = 1, 10, …, 10⁴, the spiral
  also at 10⁵; on the spiral every objective, `denoising` and `blind` at N = 10, …, 10⁴, `sliced`, three times as
  dear, at 10, 100, 1000; every other mixture and digits with `denoising` and `blind` at two N (100, and 1000 or 800),
  with `sliced` at 100; images with `edm` at two or three N up to the largest that their set allows (digits 800, MNIST
  2000, faces 40, Fashion 10⁴). Never cut: A′, replicates (3; were 4), the population and the empirical references.
  Above N = 10³ the data are compared with on the states `on` only, and nothing is predicted. `paper()` has the whole
  grid, all N, 8 replicates, width 256 and 50 000 steps.
- States at σ/τ = 30, 10, 3, 1, .3, .1, .03, .01, .003, .001, 64 each, common to the four networks of a replicate:
  `on` (fresh data, noised); at 1, .1, .01 also `off` (the same displaced by τ/2 along the least direction of the
  likeliest component's covariance), `train` (A's own data, noised), `path` (states of network A on its own trajectory
  from common latents).
- Measures at every level: root mean squares over states of `f_A − f_B` (*cross*: other data and other seed), `f_A −
  f_A′` (*within*), and the pair of other data with the same seed (*twin*); relative to that of `f − y`; median cosine
  of residuals; error to the exact population denoiser of the **noised** law and to the network's own empirical
  denoiser; the place between them, `⟨f − D, E − D⟩/|E − D|²` (0 population, 1 memorising); the distance of the two
  empirical denoisers. For `blind` both references are the optimum that is not told σ. Images have no population. On
  `train` and `path`, whose states belong to A, the control is A with A′ alone.
- **The data's part** (amended): `e² = E⟨f_A − f_B, f_A′ − f_B′⟩/|f − y|²`, the part of the difference that two seeds
  share (A, B start from one seed and see its noise, A′, B′ from the other). It estimates `(cross² − within²)/|f −
  y|²` without bias and with less noise. Also their cosine, the share *reproduced* under another seed.
- Trajectories: distance of end points from common latents; attractors (two replicates): distinct limits of 100
  iterations of f at fixed σ (.3τ, .1τ) and the share at training data; Jacobian of f at .1τ and .01τ (two
  replicates): eigenvalues of its symmetric part, number above ½, against the exact posterior covariance / σ².
- Sensitivities (not for `blind`; N ≤ 10³), see `prediction.py`: first order (the engine's `score_derivative`), finite
  (the exact gate at η = ½ for the direction, η = 1 for the size) and, amended, the same with the data smoothed by the
  bandwidth of .003, …, 1τ under which held-out data are likeliest; and, amended, the engine's `resample` of A′ along
  trajectories (`edm`, N = 100, 1000, 30τ to .03τ). Cosine over all states taken as one vector, share explained `1 −
  |observed − predicted|²/|observed|²`, best scale `⟨observed, predicted⟩/|predicted|²`. Control: the data B of the
  next replicate in place of B.
- Onset: `e_r(σ)` of replicate r (on states). The onset is the highest level at which, and at the next lower one, the
  one-sided 95 % t bound of the mean over replicates of `log(cross/within)` exceeds 0 **and** the root of the mean of
  e² is at least δ = .1. Its interval comes from each replicate's own crossing of δ, log-linear between levels (t
  interval of the logarithms; crossings above the highest level are censored and said to be). Scaling law: slope of
  log crossing on log N over the N that all replicates cross, each replicate fitted by itself, t interval of the mean
  (amended: was a bootstrap of replicates); no fit below three such N. Reference: the same of the exact empirical
  denoisers, over the same N.
- **Verdict** at low noise (amended): over .03, .01, .003τ the mean of `log(cross/within)`. *data*: its one-sided 95 %
  lower bound exceeds log 1.1; *seed*: its upper bound is below (the control explains the divergence); *open*
  otherwise.
- Claims, per geometry and objective: (1) agree at high noise: at the largest N, 3τ, `on`, |f_A − f_B|/|f − y| < .1
  (upper t bound); (2) diverge by data at low noise: the verdict is *data* at the largest N ≤ 100 and at the largest
  N; (3) the onset falls with N (upper end of the slope < 0), wherever there are three N. Over all: (4) at N = 10 and
  30τ, where the theory says what networks must differ by (the means), `e` over that of the empirical denoisers is
  within ±.1 in logs; the exact onset from N = 1 to 10 has slope −½; (5) the place at .1τ falls from N = 10 to the
  largest N; (6) `edm`, N = 100, .1τ: the predictions' cosine exceeds that of the wrong data, and they explain a share
  above 0; (7) `edm`, N ≥ 1000, d ≤ 5: median excess loss < 5 %; (8) `spiral/edm`: 4 times the steps raise the log
  ratio at low noise; (9) every value is finite, thin manifold at .001τ included.
"""

from studies.low_noise.cells import cells, run_cell
from studies.low_noise.claims import claims
from studies.low_noise.config import Config
from studies.low_noise.drawing import figures

NAME = "low_noise"
QUESTION = "Below which noise level do networks trained on disjoint data differ by more than their seeds?"
VERSION = 2

__all__ = ["NAME", "QUESTION", "VERSION", "Config", "cells", "claims", "figures", "run_cell"]
