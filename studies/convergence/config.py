"""Sizes of the convergence study."""

from __future__ import annotations

from dataclasses import dataclass

SOLVER_STEPS = (10, 20, 40, 80, 160, 320, 480)
PATH_LEVELS = (5.0, 2.0, 1.0, 0.5, 0.2, 0.05)


@dataclass(frozen=True)
class Config:
    """How much of each part is computed; JSON-able.

    Attributes:
        dimensions, latents: of part (a), and the number of latents in each dimension.
        etas: masses moved in part (a).
        steps: of the fifth-order solver in part (a), one number for each dimension.
        solvers, solver_steps, solver_latents: the solvers' order, coarse grids of part (b) included.
        log_errors, score_errors, robust_etas, robust_latents: part (b), errors added to log p (standard deviation in
            nats), to the score (relative), against η; `robust_steps` of the fifth-order solver.
        probes, probe_latents: part (b), numbers of Hutchinson probes.
        anchor_dimensions: part (b), moment-matched against exact anchors.
        path_levels: noise levels at which paths, sensitivities and log-ratios are shown.
        sizes, width, neural_steps, neural_seeds, neural_latents, neural_eta: part (c), training sizes, network,
            optimiser steps, pairs of networks, latents, and mass moved in retraining.
        image_steps, image_width, image_pairs, image_latents, image_eta, image_class, image_grid: part (d), likewise;
            `image_grid` sampler steps.
        judged: whether networks are trained long enough for claims about them.
    """

    dimensions: tuple[int, ...] = (1, 2, 10, 100)
    latents: tuple[int, ...] = (64, 64, 64, 16)
    etas: tuple[float, ...] = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
    steps: tuple[int, ...] = (240, 72, 84, 90)
    solvers: tuple[str, ...] = ("euler", "heun", "rk4", "exponential")
    solver_steps: tuple[int, ...] = (10, 20, 40, 80, 120, 180, 270)
    solver_latents: int = 24
    log_errors: tuple[float, ...] = (0.0, 0.01, 0.1, 0.5)
    score_errors: tuple[float, ...] = (0.0, 1e-3, 1e-2, 1e-1)
    robust_etas: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
    robust_latents: int = 32
    robust_steps: int = 60
    probes: tuple[int, ...] = (1, 4, 16)
    probe_latents: int = 128
    anchor_dimensions: tuple[int, ...] = (2, 10, 100)
    path_levels: tuple[float, ...] = (5.0, 1.0, 0.2, 0.05)
    sizes: tuple[int, ...] = (1000, 16000)
    width: int = 96
    neural_steps: int = 1500
    neural_seeds: int = 2
    neural_latents: int = 64
    neural_eta: float = 0.2
    image_steps: int = 1500
    image_width: int = 224
    image_pairs: int = 1
    image_latents: int = 64
    image_eta: float = 0.1
    image_class: int = 3
    image_grid: int = 40
    judged: bool = True

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; networks are trained too briefly for claims about them."""
        return cls(
            dimensions=(1, 2),
            latents=(24, 16),
            etas=(1e-2, 1e-3, 1e-4),
            steps=(200, 70),
            solvers=("heun", "rk4"),
            solver_steps=(30, 60, 120),
            solver_latents=8,
            log_errors=(0.0, 0.1),
            score_errors=(0.0, 1e-2),
            robust_etas=(1e-1, 1e-3),
            robust_latents=12,
            probes=(1, 16),
            probe_latents=32,
            anchor_dimensions=(2,),
            path_levels=(1.0, 0.05),
            sizes=(1000,),
            width=32,
            neural_steps=200,
            neural_seeds=1,
            neural_latents=24,
            image_steps=60,
            image_width=64,
            image_latents=16,
            image_grid=10,
            judged=False,
        )

    @classmethod
    def quick(cls) -> Config:
        """Under two minutes on two cores.

        The questions, dimensions and claims of `full`, on grids nearly as coarse as the claims allow: errors of the
        fifth-order solver below .6 of the limit of 1e-6 (d = 1: .9 of it), those beside an error of log p so small that
        it shows, local slopes of the fourth-order solver within .1 of 4.
        """
        return cls()

    @classmethod
    def full(cls) -> Config:
        """About an hour and a half of one core."""
        return cls(
            latents=(512, 512, 512, 128),
            steps=(400, 120, 120, 120),
            solver_steps=SOLVER_STEPS,
            solver_latents=64,
            robust_latents=256,
            robust_steps=80,
            probes=(1, 2, 4, 8, 16, 32),
            probe_latents=512,
            path_levels=PATH_LEVELS,
            sizes=(300, 1000, 3000, 10_000, 30_000, 100_000),
            width=128,
            neural_steps=10_000,
            neural_seeds=4,
            neural_latents=512,
            image_steps=6000,
            image_width=384,
            image_pairs=8,
            image_latents=128,
        )

    @classmethod
    def paper(cls) -> Config:
        """For a cluster."""
        return cls(
            latents=(4096, 4096, 4096, 1024),
            steps=(400, 200, 200, 150),
            solver_steps=SOLVER_STEPS,
            solver_latents=512,
            robust_latents=1024,
            robust_steps=80,
            probes=(1, 2, 4, 8, 16, 32, 64),
            probe_latents=4096,
            path_levels=PATH_LEVELS,
            sizes=(300, 1000, 3000, 10_000, 30_000, 100_000, 300_000),
            width=512,
            neural_steps=100_000,
            neural_seeds=16,
            neural_latents=4096,
            image_steps=40_000,
            image_width=1024,
            image_pairs=32,
            image_latents=1024,
        )
