"""The sampler: one step, and the path of many.

`tableau` holds the weights of every explicit step, `step` takes one, `path` repeats it over a grid, `sde` and
`adaptive` are the stochastic step and the chosen grid, `local_maps` what a stage needs of every network,
`carried_network` the same for a measure that is a second network, `outcome` how each sample ended. The step knows
nothing of what is carried through it.
May touch everything before it: ground, `scores`, `jacobians`, `measures`, `perturbations`.
"""
