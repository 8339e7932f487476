"""Scores: a black-box network as s(x, σ) in variance-exploding coordinates.

`score` turns a network's parametrisation into a score and guides one by another, `schedule` and `schedules` map a
process's time to (α, σ′), `per_branch` pairs what belongs to the two branches of a guided score.
The first room of the data's way: what comes later sees a score and nothing of the network's habits.
May touch the ground only (`_checks`, `grid`, `noise`).
"""
