"""Measures: laws whose noised density and score are known at every level.

`measure` says what a measure is, `points` and `mixture` are the laws of data, `anchors` and `moments` the Gaussian
laws at σ_max, `classifier` (trained by `classifier_training`) a ratio of two laws learned from samples, `distances`
squared distances that do not cancel in single precision.
May touch the ground, `scores` and `jacobians`.
"""
