"""Sizes of the study `density_formula`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """How much of each part is computed; JSON-able.

    Attributes:
        far, near: dimensions of the exact laws of either family.
        budgets: score evaluations for each state.
        states: of the exact laws.
        repeats: repetitions at each budget.
        bias_states, bias_budgets, bias_repeats: independent estimates for the mean error of the formula.
        coverage_states: for the coverage of intervals, four repetitions each.
        path_dimensions, path_states, path_steps, path_budgets, path_repeats: errors along whole paths; budgets are
            evaluations at each of 2 `path_steps` + 1 nodes.
        network_dimensions, network_steps, network_width, network_states, network_budgets, network_repeats: trained
            networks on mixtures.
        network_limit: evaluations that stand for what an estimator converges to.
        excess_states: draws for the over-estimate of a wrong score.
        images, image_steps, image_width, image_states, image_steps_of_flow: real images; the last are the steps of the
            reference.
        large_states, large_steps_of_flow: the same for images of 28×28.
        image_budgets, image_repeats: of the estimators on images.
        elbo_steps: numbers N of steps of the evidence bound.
        classifier_states, classifier_budgets: diffusion classifier on mixtures.
        class_images, class_steps, class_width, class_states, class_levels, class_budgets, class_flow: on images.
        conditional_steps, conditional_width: network of the generator, and width of the tokens'.
        sequences, token_budget, token_steps, token_ranges: autoregressive tokens.
        generator_points, generator_data, generator_budget: parameters θ, data and evaluations of the generator's loss.
        judged: False where sizes are too small for claims to mean anything.
    """

    far: tuple[int, ...] = (1, 2, 10)
    near: tuple[int, ...] = (10,)
    budgets: tuple[int, ...] = (256, 2048)
    states: int = 4
    repeats: tuple[int, ...] = (3, 2)
    bias_states: int = 4
    bias_budgets: tuple[int, ...] = (512,)
    bias_repeats: tuple[int, ...] = (16,)
    coverage_states: int = 60
    path_dimensions: tuple[int, ...] = (2,)
    path_states: int = 8
    path_steps: int = 16
    path_budgets: tuple[int, ...] = (32, 128)
    path_repeats: int = 2
    network_dimensions: tuple[int, ...] = (2,)
    network_steps: int = 500
    network_width: int = 64
    network_states: int = 16
    network_budgets: tuple[int, ...] = (256, 1024)
    network_repeats: tuple[int, ...] = (2, 2)
    network_limit: int = 8192
    excess_states: int = 256
    images: tuple[str, ...] = ("digits",)
    image_steps: int = 300
    image_width: int = 96
    image_states: int = 4
    image_steps_of_flow: int = 12
    large_states: int = 2
    large_steps_of_flow: int = 4
    image_budgets: tuple[int, ...] = (1024,)
    image_repeats: tuple[int, ...] = (2,)
    elbo_steps: tuple[int, ...] = (8, 32, 128, 1024)
    classifier_states: int = 64
    classifier_budgets: tuple[int, ...] = (64, 512)
    class_images: str = "digits"
    class_steps: int = 300
    class_width: int = 48
    class_states: int = 48
    class_levels: tuple[float, ...] = (0.05, 2.0)
    class_budgets: tuple[int, ...] = (32, 128)
    class_flow: int = 288
    conditional_steps: int = 800
    conditional_width: int = 48
    sequences: int = 40
    token_budget: int = 256
    token_steps: tuple[int, ...] = (800,)
    token_ranges: tuple[float, ...] = (0.0, 1.5)
    generator_points: int = 6
    generator_data: int = 128
    generator_budget: int = 256
    judged: bool = True

    @classmethod
    def smoke(cls) -> Config:
        """Seconds: that everything runs; networks are hardly trained."""
        return cls(
            far=(2,),
            near=(),
            budgets=(128,),
            states=3,
            repeats=(2,),
            bias_states=2,
            bias_budgets=(128,),
            bias_repeats=(4,),
            coverage_states=8,
            path_states=3,
            path_steps=3,
            path_repeats=1,
            path_budgets=(32,),
            network_steps=40,
            network_width=16,
            network_states=6,
            network_budgets=(128,),
            network_repeats=(1,),
            network_limit=512,
            excess_states=64,
            image_steps=20,
            image_width=16,
            image_states=2,
            image_steps_of_flow=4,
            image_budgets=(128,),
            image_repeats=(1,),
            elbo_steps=(8, 16, 32),
            classifier_states=24,
            classifier_budgets=(64,),
            class_steps=20,
            class_width=16,
            class_states=8,
            class_levels=(0.05,),
            class_budgets=(64,),
            class_flow=24,
            conditional_steps=40,
            conditional_width=16,
            sequences=10,
            token_budget=64,
            token_steps=(40,),
            token_ranges=(0.0,),
            generator_points=3,
            generator_data=32,
            generator_budget=64,
            judged=False,
        )

    @classmethod
    def quick(cls) -> Config:
        """A minute or two on two cores."""
        return cls()

    @classmethod
    def full(cls) -> Config:
        """A quarter of an hour of one core; every dimension, estimator and control."""
        return cls(
            far=(1, 2, 10, 50, 100),
            near=(10, 100),
            budgets=(256, 2048, 32_000),
            states=4,
            repeats=(2, 2, 1),
            bias_states=6,
            bias_budgets=(512, 32_000),
            bias_repeats=(32, 3),
            coverage_states=64,
            path_dimensions=(2, 10, 100),
            path_states=8,
            path_steps=24,
            path_budgets=(32, 128),
            path_repeats=1,
            network_dimensions=(2, 10, 100),
            network_steps=2500,
            network_states=4,
            network_budgets=(256, 2048, 8192),
            network_repeats=(2, 1, 1),
            network_limit=32_000,
            excess_states=1536,
            images=("digits", "mnist"),
            image_steps=600,
            image_width=96,
            image_states=5,
            image_steps_of_flow=48,
            large_states=2,
            large_steps_of_flow=16,
            image_budgets=(256, 2048),
            image_repeats=(2, 1),
            elbo_steps=(8, 32, 128, 512, 1024),
            classifier_states=256,
            classifier_budgets=(16, 64, 256, 1024),
            class_images="mnist14",
            class_steps=800,
            class_width=96,
            class_states=80,
            class_levels=(1.0, 2.5),
            class_budgets=(16, 64, 256),
            class_flow=288,
            conditional_steps=1000,
            conditional_width=64,
            sequences=100,
            token_budget=512,
            token_steps=(500, 2000),
            token_ranges=(0.0, 0.75, 1.5),
            generator_points=8,
            generator_data=128,
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
            bias_states=32,
            bias_budgets=(512, 4096, 32_000),
            bias_repeats=(1024, 512, 128),
            coverage_states=1000,
            path_dimensions=(1, 2, 10, 50, 100),
            path_states=256,
            path_steps=64,
            path_budgets=(32, 128, 512, 2048),
            path_repeats=16,
            network_dimensions=(2, 10, 50, 100),
            network_steps=100_000,
            network_width=384,
            network_states=512,
            network_budgets=(256, 2048, 8192, 32_000),
            network_repeats=(16, 16, 8, 4),
            network_limit=512_000,
            excess_states=16_384,
            images=("digits", "mnist", "fashion"),
            image_steps=25_000,
            image_width=512,
            image_states=128,
            image_steps_of_flow=128,
            large_states=128,
            large_steps_of_flow=64,
            image_budgets=(256, 2048, 8192, 32_000),
            image_repeats=(16, 16, 8, 4),
            elbo_steps=(8, 16, 32, 64, 128, 256, 512, 1024),
            classifier_states=4096,
            classifier_budgets=(16, 64, 256, 2048, 16_384),
            class_images="fashion",
            class_steps=40_000,
            class_width=512,
            class_states=2000,
            class_levels=(0.05, 0.5, 1.0, 2.5),
            class_budgets=(16, 64, 256, 2048),
            class_flow=8192,
            conditional_steps=60_000,
            conditional_width=256,
            sequences=2000,
            token_budget=8192,
            token_steps=(15_000, 60_000),
            token_ranges=(0.0, 0.5, 1.0, 1.5),
            generator_points=128,
            generator_data=8192,
            generator_budget=4096,
        )
