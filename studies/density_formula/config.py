"""Sizes of the study `density_formula`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """How much of each part is computed; JSON-able.

    Attributes:
        far, near: dimensions of the exact laws of either family.
        budgets: score evaluations for each state. states: of the exact laws. repeats: repetitions at each budget.
        coverage_states: for the coverage of intervals, four repetitions each.
        network_dimensions, network_steps, network_width, network_states, network_budget: trained networks on mixtures.
        excess_states: draws for the over-estimate of a wrong score.
        images, image_steps, image_width, image_states, image_budget: real images.
        elbo_steps: numbers N of steps of the evidence bound.
        classifier_states, classifier_budgets: diffusion classifier on mixtures.
        digit_steps, digit_width, digit_states, digit_budget, digit_flow: diffusion classifier on digits.
        conditional_steps, conditional_width: networks of the tokens and of the generator.
        sequences, token_budget: autoregressive tokens.
        generator_points, generator_data, generator_budget: parameters θ, data and evaluations of the generator's loss.
        judged: False where sizes are too small for claims to mean anything.
    """

    far: tuple[int, ...] = (1, 2, 10)
    near: tuple[int, ...] = (10,)
    budgets: tuple[int, ...] = (256, 2048)
    states: int = 8
    repeats: tuple[int, ...] = (6, 3)
    coverage_states: int = 60
    network_dimensions: tuple[int, ...] = (2,)
    network_steps: int = 500
    network_width: int = 64
    network_states: int = 32
    network_budget: int = 1024
    excess_states: int = 256
    images: tuple[str, ...] = ("digits",)
    image_steps: int = 300
    image_width: int = 96
    image_states: int = 16
    image_budget: int = 1024
    elbo_steps: tuple[int, ...] = (8, 32, 128, 1024)
    classifier_states: int = 64
    classifier_budgets: tuple[int, ...] = (64, 512)
    digit_steps: int = 300
    digit_width: int = 48
    digit_states: int = 24
    digit_budget: int = 256
    digit_flow: int = 288
    conditional_steps: int = 800
    conditional_width: int = 48
    sequences: int = 40
    token_budget: int = 256
    generator_points: int = 6
    generator_data: int = 128
    generator_budget: int = 256
    judged: bool = True

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; networks are hardly trained."""
        return cls(
            far=(1, 2),
            near=(2,),
            budgets=(128,),
            states=4,
            repeats=(2,),
            coverage_states=12,
            network_steps=40,
            network_width=16,
            network_states=8,
            network_budget=128,
            excess_states=64,
            image_steps=20,
            image_width=16,
            image_states=6,
            image_budget=128,
            elbo_steps=(8, 16, 32),
            classifier_states=24,
            classifier_budgets=(64,),
            digit_steps=20,
            digit_width=16,
            digit_states=8,
            digit_budget=64,
            digit_flow=24,
            conditional_steps=40,
            conditional_width=16,
            sequences=10,
            token_budget=64,
            generator_points=3,
            generator_data=48,
            generator_budget=64,
            judged=False,
        )

    @classmethod
    def quick(cls) -> Config:
        """A minute or two on two cores."""
        return cls()

    @classmethod
    def full(cls) -> Config:
        """Three core-minutes; every dimension, estimator and control."""
        return cls(
            far=(1, 2, 10, 50, 100),
            near=(10, 100),
            budgets=(256, 2048, 32_000),
            states=6,
            repeats=(4, 2, 1),
            coverage_states=80,
            network_dimensions=(2, 10),
            network_steps=1500,
            network_states=32,
            network_budget=2048,
            excess_states=768,
            image_steps=800,
            image_width=128,
            image_states=16,
            image_budget=2048,
            elbo_steps=(8, 32, 128, 512, 1024),
            classifier_states=256,
            classifier_budgets=(16, 64, 256, 1024),
            digit_steps=400,
            digit_states=40,
            conditional_steps=1500,
            conditional_width=64,
            sequences=100,
            token_budget=512,
            generator_points=12,
            generator_data=192,
            generator_budget=256,
        )

    @classmethod
    def paper(cls) -> Config:
        """For a cluster."""
        return cls(
            far=(1, 2, 10, 50, 100),
            near=(1, 2, 10, 50, 100),
            budgets=(256, 1024, 4096, 32_000, 128_000),
            states=64,
            repeats=(64, 64, 32, 16, 8),
            coverage_states=1000,
            network_dimensions=(2, 10, 50),
            network_steps=100_000,
            network_width=384,
            network_states=512,
            network_budget=8192,
            excess_states=16_384,
            images=("digits", "mnist", "fashion"),
            image_steps=100_000,
            image_width=1024,
            image_states=256,
            image_budget=32_000,
            elbo_steps=(8, 16, 32, 64, 128, 256, 512, 1024),
            classifier_states=4096,
            classifier_budgets=(16, 64, 256, 2048, 16_384),
            digit_steps=40_000,
            digit_width=256,
            digit_states=179,
            digit_budget=8192,
            digit_flow=8192,
            conditional_steps=60_000,
            conditional_width=256,
            sequences=2000,
            token_budget=8192,
            generator_points=128,
            generator_data=8192,
            generator_budget=4096,
        )
