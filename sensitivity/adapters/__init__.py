"""Adapters: networks of public packages read as scores; each package is imported only when its adapter is called."""

from sensitivity.adapters.azula import from_azula
from sensitivity.adapters.diffusers import from_diffusers
from sensitivity.adapters.edm import from_edm
from sensitivity.adapters.flow_matching import from_flow_matching

__all__ = ["from_azula", "from_diffusers", "from_edm", "from_flow_matching"]
