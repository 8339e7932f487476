"""Retrained truths of the task `attribution`: what networks trained on subsets of their data say.

Lives here: the settings (data, recipe, latents, functionals), the outputs of a network, the modules that make each
tier's truth again, and the shipped arrays.
May touch: oracles, studies.data, networks, training and files. Nothing here may read what an attributor answers but
`judge`, which scores it, and `looks`, which says what it looks like.
"""
