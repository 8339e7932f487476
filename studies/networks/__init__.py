"""Small denoising networks with noise conditioning: an MLP, a convolutional U-Net and a transformer.

A network here is a denoiser `D(x, σ) ≈ E[X | X_σ = x]` in variance-exploding coordinates, `x` of shape
(batch, *shape) and `σ` a scalar or (batch,). `build` makes one from a JSON-able `Architecture`; the body inside is
wrapped in the preconditioning of Karras et al. 2022 (arXiv 2206.00364, table 1), centred on the data's mean.
May touch: torch only. Networks know neither data nor losses: `studies.training` does.
"""

from studies.networks.architecture import Architecture, build
from studies.networks.precondition import Denoiser
from studies.networks.stacks import split, stack

__all__ = ["Architecture", "Denoiser", "build", "split", "stack"]
