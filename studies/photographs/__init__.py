"""Study `photographs`: a diffusers network on colour patches, from end to end, at d = 3072.

Sources: Ho et al. 2020, arXiv 2006.11239 (the network); Ho & Salimans 2022, arXiv 2207.12598 (guidance); Rombach et
al. 2022, arXiv 2112.10752 (diffusion of codes); Scarvelis & Solomon 2025, arXiv 2509.23092 (sensitivities).

Protocol
--------
Fixed before any result; amendments, if any, are listed below.

- Data: 32×32 colour patches, in [−1, 1], of the nine photographs that scikit-image and scikit-learn ship; the
  photograph is the group. Held-out patches share no pixel with training patches.
- Models: *pixels*, diffusers' UNet2DModel with attention, labels hidden in four draws of ten; *guided*, the same
  network with weight 2 toward one photograph; *codes*, a smaller UNet2DModel on the 4×8×8 codes of an autoencoder.
- Quantities: log density of samples and of held-out patches at σ_min; sensitivity to the removal of one photograph,
  its density ratio along the network's flow (*flow*) and by kernels of the bandwidth of highest held-out likelihood
  (*kernel*); influence of every training patch on a sample's brightness. Each in three settings: N levels; other
  probes; 2N levels and other probes.
- Agreement: the share of samples for which two settings differ by at most three times the error that they state
  together. A sample whose stated error is large agrees easily: the stated errors, the sizes and the outcomes stand
  beside. How many samples are *finished* is reported and is no claim.
"""

from studies.photographs.cells import cells, run_cell
from studies.photographs.config import Config
from studies.photographs.drawing import figures
from studies.photographs.verdicts import claims

NAME = "photographs"
QUESTION = "Are sensitivities right, and how sure are they, for a real network on colour images?"

__all__ = ["NAME", "QUESTION", "Config", "cells", "claims", "figures", "run_cell"]
