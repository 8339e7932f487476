"""Jacobians of a score: products and divergences, exact or with a stated error.

`products` takes J t, Jᵀu and v·Jv by forward mode, reverse mode, double-VJP or differences, `trial` decides once which
of them works for a network, by differences at its `stations`, `duals` is forward mode by rules of our own (in the
modules `dual_*`, by kind of operation), `traces` makes a divergence of them, exactly or by random probes.
Nothing here knows of laws, perturbations or samplers.
May touch the ground and `scores`.
"""
