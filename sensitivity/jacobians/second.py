"""Derivatives of Jacobian products: second derivatives `D²s[v, t]` of a score."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sensitivity._checks import per_sample
from sensitivity.jacobians.differences import norms, step_length
from sensitivity.jacobians.products import Products, linearised


def along(
    products: Products, x: Tensor, sigma: Tensor, directions: Tensor, tangent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """s, J v_k and D²s[v_k, t] for directions (K, batch, *shape) and one tangent t.

    Products are differentiated once more in forward mode, or by double-VJP where they are double-VJPs themselves or an
    operation (SiLU) has no second forward derivative; where they are finite differences, so is this.
    """
    if products.exact:
        known = getattr(products.score, "trials", {})
        if products.method != "double-vjp" and known.get("second") != "double-vjp":
            try:
                both = torch.func.jvp(lambda y: products.jvp(y, sigma, directions), (x,), (tangent,))
                return *both[0], both[1][1]
            except NotImplementedError:
                known["second"] = "double-vjp"
        recorded = replace(products, differentiable=True)
        moved, onward = linearised(lambda y: recorded.jvp(y, sigma, directions)[1], x)
        images = moved, onward(tangent)
        return products.value(x, sigma), *(images if products.differentiable else (each.detach() for each in images))
    length = per_sample(step_length(x, sigma, order=2) / norms(tangent[None])[0], x)
    score, moved = products.jvp(x, sigma, directions)
    ahead = products.jvp(x + length * tangent, sigma, directions)[1]
    behind = products.jvp(x - length * tangent, sigma, directions)[1]
    return score, moved, (ahead - behind) / (2 * length)
