"""Densities: log p of a model's noised law, with the errors it states.

`log_density` is the public estimate, along the probability flow or by the density formula of `formula` (its nodes in
`formula_nodes`), `ratio` that of two models, `network_measure` a network used as a measure, `estimate` a value with
its standard error.
May touch everything before it: ground, `scores`, `jacobians`, `measures`, `perturbations`, `sampler`.
"""
