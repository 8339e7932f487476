"""Adapters: networks of public packages read as scores; each package is imported only when its adapter is called.

Lives here: one module a package (diffusers, azula, EDM's networks, flow_matching and torchcfm), each of which finds the
network's parametrisation and process and hands both to `as_score`. `_calling` is what they share: conditions, and calls
with the arguments that a network expects. May touch: scores and input checks. Nothing in the engine may import an
adapter: the engine knows scores only.
"""

from sensitivity.adapters.azula import from_azula
from sensitivity.adapters.diffusers import from_diffusers
from sensitivity.adapters.edm import from_edm
from sensitivity.adapters.flow_matching import from_flow_matching

__all__ = ["from_azula", "from_diffusers", "from_edm", "from_flow_matching"]
