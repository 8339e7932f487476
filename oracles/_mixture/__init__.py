"""The private parts of a Gaussian mixture.

Covariances in every form and their whitening, the local quantities of a mixture at a state (responsibilities, scores,
Jacobians), seeded draws, and the distribution function and quantiles in one dimension.
Array-API generic: NumPy, PyTorch and JAX arrays in, the same kind out.
May touch `oracles._arrays` only; `oracles.mixture` is built from it.
"""
