"""Perturbations: what a change of the data does to the score at one state.

`perturbation` is what all have in common, `contamination` moves mass toward measures, `displacement` moves points,
`derivative` is the score's derivative per unit mass (first order), `finite_score` the exact score at finite mass.
Paths, samplers and densities along them come later.
May touch the ground, `scores`, `jacobians` and `measures`.
"""
