"""Readings: what is asked of a path.

`prepare` makes a path of the public arguments (`linking` ties carried networks to it); `first_order` and `second_order`
differentiate its samples, `finite_mass` samples the changed law, `influences` pairs the cotangents of `adjoint` with
points that `streaming` and `point_kernels` bring by blocks; `results` holds what is returned, `chunks` joins it,
`ito_bias` is a check.
May touch everything before it; only `sensitivity` itself and its adapters come after.
"""
