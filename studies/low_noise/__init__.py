"""Study `low_noise`: when do networks trained on different data part ways?

Source: Pavlova & Wei 2025, arXiv 2506.07841 (networks trained on disjoint subsets agree at high noise and diverge near
the data manifold at low noise; geometries after their code; no number of theirs could be read, so none is compared).

Protocol, fixed before any result
---------------------------------
- Data: mixtures of `oracles.geometries`, uniform and sharp (s = 1, 3) in d = 5 with 5 components, spiral (d = 2), thin
  manifold (2-d in 100-d, normal variance .01), a rotated product of three one-dimensional mixtures; digits 8×8. τ is
  the standard deviation of the pool per coordinate; all noise levels are in units of τ.
- Networks, for every geometry, objective, N and replicate: A and B on disjoint sets of N data, each with two seeds, so
  that every replicate has the control A′ (same data, other seed). 4 replicates with data sets of their own (digits:
  random splits, whose sets overlap between replicates; the splits within a replicate are disjoint). The sets of
  growing N are nested. Same residual multilayer perceptron, steps, batch and optimiser for all objectives.
- Objectives: `edm` (weighted, log-normal noise (−2, 2) in e-folds of τ), `denoising` (12 levels, geometric from 3τ
  to .003τ), `blind` (same levels, not told σ), `sliced` (same levels). .001τ is below the last three's levels:
  extrapolation.
- **Cut rule** of `full()`: the cross of the grid (every geometry with `edm`, every objective on the spiral), N = 1, 10,
  100, 1000 (digits 1, 10, 100, 800), 1000 steps; never cut: A′, the population and the empirical references. That is
  640 of the 6912 trainings of `paper()`. Not in `full()`: MNIST, Fashion, faces, N = 10⁴ and 10⁵, objectives other than
  `edm` on geometries other than the spiral; `paper()` has them (images as flattened pixels).
- States at σ/τ = 3, 1, .3, .1, .03, .01, .003, .001, 64 each, common to the four networks of a replicate: `on` (fresh
  data, noised), `off` (the same displaced by τ/2 along the least direction of the likeliest component's covariance),
  `train` (A's own data, noised), `path` (states of network A on its own trajectory from common latents at 3τ).
- Measures at every level: root mean squares over states of `f_A − f_B` (other data and other seed), `f_A − f_A′`, and
  the pair of other data with the same seed; relative to that of `f − y`; median cosine of residuals; error to the exact
  population denoiser of the **noised** law and to the network's own empirical denoiser; the place between them,
  `⟨f − D, E − D⟩/|E − D|²` (0 population, 1 memorising); the same distances of the two empirical denoisers. For
  `blind` both references are the optimum that is not told σ. Digits have no population. On `train` and `path`, whose
  states belong to A, the control is A with A′ alone.
- Trajectories: distance of end points from common latents; attractors: distinct limits of 200 iterations of f at
  fixed σ (.3τ, .1τ) and the share at training data; Jacobian of f at .1τ and .01τ: eigenvalues of its symmetric
  part, number above ½, against the exact posterior covariance / σ².
- Sensitivities (not for `blind`): the change of A′ toward B's data predicts `f_B − f_A` (A′ and not A, or the seed
  noise of A would stand on both sides). First order: the engine's `score_derivative` with the log density of A's
  empirical law, median cosine per state (the ratio r > 0 does not enter it; states where r over- or underflows are
  left out and counted). Finite: `g (E_B − f_A′)`, g = p_B/(p_A + p_B), the exact gate at η = ½; cosine over all states
  taken as one vector, and share explained `1 − |observed − predicted|²/|observed|²`. Control: the data B of the next
  replicate in place of B. `on` states.
- Onset: `e_r(σ) = √max(0, |f_A − f_B|² − |f_A − f_A′|²)/|f − y|` for replicate r (on states). The onset is the highest
  level at which, and at the next lower one, the one-sided 95 % t bound of the mean over replicates of
  `log(|f_A − f_B|/|f_A − f_A′|)` exceeds 0 **and** the mean of e_r is at least δ = .1. Its interval comes from each
  replicate's own crossing of δ, log-linear between levels (t interval of the logarithms; crossings above 3τ are
  censored and said to be). Scaling law: slope of log crossing on log N over the N that are crossed by all replicates,
  bootstrap over replicates; no fit below three such N.
- Claims, per geometry and objective: (1) agree at high noise: at the largest N, 3τ, `on`, `|f_A − f_B|/|f − y|` < .1
  (upper t bound); (2) diverge beyond seeds at low noise: mean over .03, .01, .003 τ of the log ratio above > 0 (lower
  t bound), at N = 100 and at the largest N; where this fails, the seed explains the divergence. (3) `edm`: the onset
  falls with N (upper end of the slope < 0). Over all `edm` cells: (4) the place at .1τ falls from N = 10 to the
  largest N; (5) at N = 100, .1τ the finite prediction's cosine exceeds that of the wrong data; (6) every value is
  finite, thin manifold at .001τ included.

Amendments after first results
------------------------------
1. Only two N of `full()` are crossed by all replicates in most geometries, so the protocol fits no scaling law and
   claim (3) fails there, as written. The book adds the slope between the last two N, replicate by replicate, as
   exploration.
2. Claim (2) tests whether a difference exists, not whether it matters: log ratios of .004 pass it. The book says so.
"""

from studies.low_noise.cells import cells, run_cell
from studies.low_noise.claims import claims
from studies.low_noise.config import Config
from studies.low_noise.drawing import figures

NAME = "low_noise"
QUESTION = "Below which noise level do networks trained on disjoint data differ by more than their seeds?"

__all__ = ["NAME", "QUESTION", "Config", "cells", "claims", "figures", "run_cell"]
