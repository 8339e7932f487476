"""Every scheduler that diffusers ships, by name: judged in the study, judged here, or the reason why neither.

`names` enumerates them from the package; a test demands that none is missing from the three.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from studies.conformance.common import Check, Measured, converging, exact
from studies.conformance.diffusers import PLAIN, SAMPLERS, drawing, flow_match, made, sampling

__all__ = ["CHECKS", "HERE", "REASONS", "STUDIED", "names"]

PACKAGE = "diffusers"
SIGMA_MAX, SIGMA_MIN, SIGMA_DATA = 9.0, 0.02, 0.5
NAN = float("nan")

STUDIED = {kind for _, kind, *_ in SAMPLERS} | {
    "DDPMScheduler",
    "EulerAncestralDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
}
CONSISTENCY = "its network is a consistency function (or one distilled for few steps), not a score"
TOKENS = "its states are discrete tokens"
OTHER = "its process, or its start, is that of one trained network, for which a mixture has no exact answer"
UNCHECKED = "not checked: its process or its steps need an adapter of its own"
REASONS = {
    "AmusedScheduler": TOKENS,
    "BlockRefinementScheduler": TOKENS,
    "CMStochasticIterativeScheduler": CONSISTENCY,
    "CogVideoXDDIMScheduler": UNCHECKED,
    "CogVideoXDPMScheduler": UNCHECKED,
    "ConsistencyDecoderScheduler": CONSISTENCY,
    "CosineDPMSolverMultistepScheduler": UNCHECKED,
    "DDIMInverseScheduler": "it adds noise: from samples to latents",
    "DDPMWuerstchenScheduler": UNCHECKED,
    "DPMSolverSDEScheduler": UNCHECKED,
    "DPMSolverMultistepInverseScheduler": "it adds noise: from samples to latents",
    "DiscreteDDIMScheduler": TOKENS,
    "EntropyBoundScheduler": TOKENS,
    "FlowMapEulerDiscreteScheduler": CONSISTENCY,
    "FlowMatchLCMScheduler": CONSISTENCY,
    "HeliosDMDScheduler": CONSISTENCY,
    "HeliosScheduler": OTHER,
    "IPNDMScheduler": UNCHECKED,
    "KarrasVeScheduler": "deprecated by the package",
    "LCMScheduler": CONSISTENCY,
    "LTXEulerAncestralRFScheduler": UNCHECKED,
    "MiniMaxH3Scheduler": OTHER,
    "PiflowScheduler": OTHER,
    "RFD4ProteinaScheduler": OTHER,
    "RePaintScheduler": "it fills in parts of a given picture",
    "SASolverScheduler": UNCHECKED,
    "SCMScheduler": CONSISTENCY,
    "ScoreSdeVeScheduler": UNCHECKED,
    "ScoreSdeVpScheduler": "deprecated by the package",
    "TCDScheduler": CONSISTENCY,
    "UnCLIPScheduler": UNCHECKED,
    "VQDiffusionScheduler": TOKENS,
}


def names() -> set[str]:
    """The schedulers of the installed package."""
    import diffusers.schedulers

    listed = {name for group in diffusers.schedulers._import_structure.values() for name in group}
    return {name for name in listed if name.endswith("Scheduler")}


def preconditioned(kind: str, size: int, stated: float) -> Measured:
    """A scheduler of the preconditioned kind: the network's output F gives `D = c_skip x + c_out F`."""
    network = exact()
    x = network.states(8, SIGMA_MAX, 5)

    def run(steps: int) -> Tensor:
        scheduler = made(kind, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=SIGMA_DATA)
        scheduler.set_timesteps(steps)
        z = x.clone()
        for i, t in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[i].double()
            scheduler.scale_model_input(z, t)
            root = (sigma**2 + SIGMA_DATA**2).sqrt()
            data = network.data(z, torch.ones_like(sigma), sigma)
            answer = (data - (SIGMA_DATA / root) ** 2 * z) / (sigma * SIGMA_DATA / root)
            z = scheduler.step(answer, t, z).prev_sample.double()
        return z

    return converging(run, network.end(x, SIGMA_MAX, 0.0), [25 * size, 50 * size, 100 * size], 5e-2, stated)


HERE: dict[str, Any] = {
    "DDIMParallelScheduler": lambda k, seed, size: sampling(k, size, 5e-2, 1.0, clip_sample=False, **PLAIN),
    "DPMSolverSinglestepScheduler": lambda k, seed, size: sampling(k, size, 5e-2, NAN),
    "EDMEulerScheduler": lambda k, seed, size: preconditioned(k, size, 1.0),
    "EDMDPMSolverMultistepScheduler": lambda k, seed, size: preconditioned(k, size, NAN),
    "FlowMatchHeunDiscreteScheduler": lambda k, seed, size: flow_match(k, size, NAN),
    "DDPMParallelScheduler": lambda k, seed, size: drawing(k, size, seed, clip_sample=False),
    "KDPM2AncestralDiscreteScheduler": lambda k, seed, size: drawing(k, size, seed, **PLAIN),
}


def _judged(kind: str, run: Any) -> Check:
    quantity = "law" if run.__code__.co_names[:1] == ("drawing",) else "sampler"
    return Check(PACKAGE, f"all-{kind}", quantity, "flat", lambda seed, size: run(kind, seed, size))


CHECKS = (
    *[_judged(kind, run) for kind, run in HERE.items()],
    *[Check(PACKAGE, f"all-{kind}", "sampler", "none", None, why) for kind, why in REASONS.items()],
)
