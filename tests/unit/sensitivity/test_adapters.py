"""Public networks with random weights, offline: each adapter against that package's own sampler step.

In the engine's coordinates DDIM, Euler and flow-match Euler steps are all `x + (σ′ − σ)(−σ s)`, and the mean of a
DDPM step is `x + (σ² − σ′²) s`; what is compared is the package's result, carried over.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn

from sensitivity import GaussianAnchor, Grid, PerBranch, Points, Toward, log_density, sample_sensitivity
from sensitivity.adapters import from_azula, from_diffusers, from_edm, from_flow_matching
from sensitivity.scores.score import NetworkScore, guided

diffusers = pytest.importorskip("diffusers", reason="the test extra installs diffusers")


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module) -> nn.Module:
    """The model in evaluation mode and float64, with layers that start at zero made random."""
    generator = torch.Generator().manual_seed(7)
    model = model.eval().double().requires_grad_(False)
    for parameter in model.parameters():
        if not bool(parameter.any()):
            parameter.copy_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return model


@pytest.fixture(scope="module")
def unet() -> Any:
    """A class-conditional UNet2DModel with attention."""
    torch.manual_seed(0)
    return randomised(
        diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            attention_head_dim=4,
            num_class_embeds=3,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    )


def flow_step(score: NetworkScore, x: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """One Euler step of the probability flow in σ."""
    return x - (after - sigma) * sigma * score(x, sigma)


def levels(scheduler: Any, t: int) -> tuple[Tensor, Tensor]:
    """α and σ of a table at an integer time, from the scheduler itself."""
    alpha = scheduler.alphas_cumprod[t].double().sqrt()
    return alpha, (1 - alpha**2).sqrt() / alpha


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_step(unet: Any, prediction: str) -> None:
    """Assert that a DDIM step is an Euler step of the flow in σ."""
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(10)
    score, z, t = from_diffusers(unet, scheduler, class_labels=1), noise(3, 1, 8, 8), scheduler.timesteps[4]
    output = unet(z, t, class_labels=torch.tensor([1, 1, 1])).sample
    wanted = scheduler.step(output, t, z, eta=0.0).prev_sample
    (alpha, sigma), (alpha_after, after) = levels(scheduler, int(t)), levels(scheduler, int(t) - 100)
    assert_close(alpha_after * flow_step(score, z / alpha, sigma, after), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddpm_step(unet: Any, prediction: str) -> None:
    """Assert that a DDPM step without its noise is the mean of a reverse-SDE step, and its x₀ the denoiser."""
    scheduler = diffusers.DDPMScheduler(
        prediction_type=prediction, clip_sample=False, beta_schedule="squaredcos_cap_v2"
    )
    score, z, t = from_diffusers(unet, scheduler, class_labels=2), noise(2, 1, 8, 8), 300
    output = unet(z, t, class_labels=torch.tensor([2, 2])).sample
    step = scheduler.step(output, t, z, generator=torch.Generator().manual_seed(3))
    drawn = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(3))
    mean = step.prev_sample - scheduler._get_variance(t) ** 0.5 * drawn
    (alpha, sigma), (alpha_after, after) = levels(scheduler, t), levels(scheduler, t - 1)
    direction = score(z / alpha, sigma)
    assert_close(alpha_after * (z / alpha + (sigma**2 - after**2) * direction), mean, rtol=1e-4, atol=1e-5)
    assert_close(z / alpha + sigma**2 * direction, step.pred_original_sample, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside diffusers, NumPy 2
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_euler_discrete_step(unet: Any, prediction: str) -> None:
    """Assert that the Euler scheduler, which works at `x` itself, takes the engine's step."""
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type=prediction, timestep_spacing="leading")
    scheduler.set_timesteps(8)
    score, t = from_diffusers(unet, scheduler, class_labels=0), scheduler.timesteps[3]
    x = scheduler.sigmas[3].double() * noise(2, 1, 8, 8)
    scheduler._init_step_index(t)
    output = unet(scheduler.scale_model_input(x, t), t, class_labels=torch.tensor([0, 0])).sample
    wanted = scheduler.step(output, t, x).prev_sample
    sigma, after = scheduler.sigmas[3].double(), scheduler.sigmas[4].double()
    assert_close(flow_step(score, x, sigma, after), wanted.double(), rtol=2e-4, atol=1e-4)


def test_text_conditional_unet() -> None:
    """Assert that a UNet2DConditionModel takes one text embedding for all samples, guidance included."""
    torch.manual_seed(0)
    model = randomised(
        diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=2,
            out_channels=2,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            cross_attention_dim=6,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    text, empty, z, t = noise(1, 5, 6), noise(1, 5, 6, seed=1), noise(3, 2, 8, 8), scheduler.timesteps[2]
    branches = [from_diffusers(model, scheduler, encoder_hidden_states=e) for e in (text, empty)]
    outputs = [model(z, t, encoder_hidden_states=e.expand(3, -1, -1)).sample for e in (text, empty)]
    wanted = scheduler.step(outputs[1] + 3.0 * (outputs[0] - outputs[1]), t, z).prev_sample
    (alpha, sigma), (alpha_after, after) = levels(scheduler, int(t)), levels(scheduler, int(t) - 100)
    got = alpha_after * flow_step(guided(*branches, 3.0), z / alpha, sigma, after)
    assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_transformer_with_learned_variance() -> None:
    """Assert that DiT, class-conditional with twice the channels, gives the mean part."""
    torch.manual_seed(0)
    model = randomised(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=2,
            out_channels=4,
            num_layers=1,
            sample_size=4,
            patch_size=2,
            num_embeds_ada_norm=5,
            norm_num_groups=1,
        )
    )
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    z, t = noise(2, 2, 4, 4), scheduler.timesteps[5]
    labels = torch.tensor([3, 3])
    output = model(z, timestep=t.expand(2), class_labels=labels).sample[:, :2]
    wanted = scheduler.step(output, t, z).prev_sample
    (alpha, sigma), (alpha_after, after) = levels(scheduler, int(t)), levels(scheduler, int(t) - 100)
    score = from_diffusers(model, scheduler, class_labels=3)
    assert_close(alpha_after * flow_step(score, z / alpha, sigma, after), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_step_of_a_transformer(shift: float) -> None:
    """Assert that a flow-match Euler step of SD3's transformer is the engine's step, whatever the shift of the grid."""
    torch.manual_seed(0)
    model = randomised(
        diffusers.SD3Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=2,
            num_layers=1,
            attention_head_dim=4,
            num_attention_heads=2,
            joint_attention_dim=6,
            caption_projection_dim=8,
            pooled_projection_dim=5,
            out_channels=2,
            pos_embed_max_size=4,
        )
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(6)
    conditions = {"encoder_hidden_states": noise(1, 3, 6), "pooled_projections": noise(1, 5)}
    score = from_diffusers(model, scheduler, **conditions)
    z, t = noise(2, 2, 4, 4), scheduler.timesteps[2]
    repeated = {name: value.expand(2, *value.shape[1:]) for name, value in conditions.items()}
    wanted = scheduler.step(model(hidden_states=z, timestep=t.expand(2).double(), **repeated).sample, t, z).prev_sample
    share, after = scheduler.sigmas[2].double(), scheduler.sigmas[3].double()
    x = flow_step(score, z / (1 - share), share / (1 - share), after / (1 - after))
    assert_close((1 - after) * x, wanted.double(), rtol=1e-5, atol=1e-5)


def test_integer_times_reach_the_network(unet: Any) -> None:
    """Assert that a level between two of the table is handed on as a whole time when asked."""
    scheduler = diffusers.DDPMScheduler()
    seen: list[Tensor] = []
    handle = unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True)
    for integer in (True, False):
        from_diffusers(unet, scheduler, integer_times=integer, class_labels=0)(noise(1, 1, 8, 8), torch.tensor(0.777))
    handle.remove()
    assert float(seen[0][0] % 1) == 0
    assert float(seen[-1][0] % 1) != 0


def test_networks_keep_their_dtype(unet: Any) -> None:
    """Assert that float32 states pass a float64 network and come back as float32."""
    score = from_diffusers(unet, diffusers.DDPMScheduler(), class_labels=0)
    assert score(noise(2, 1, 8, 8).float(), torch.tensor(1.0)).dtype == torch.float32


def test_dropout_in_training_mode_is_refused() -> None:
    """Assert that a diffusers network in training mode is refused at the adapter."""
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        dropout=0.1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).train()
    with pytest.raises(ValueError, match=r"\.eval\(\)"):
        from_diffusers(model, diffusers.DDPMScheduler())


class Tiny(nn.Module):
    """A smooth map of a state and a time for each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, 3)
        self.double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """`W₂ tanh(W₁ [x, t])`."""
        return self.outer(self.inner(torch.cat([x, t.expand(x.shape[0])[:, None]], 1)).tanh())


def test_edm_step() -> None:
    """Assert that an EDM-preconditioned network takes the step of diffusers' EDM scheduler."""
    scheduler, network = diffusers.EDMEulerScheduler(), Tiny()
    scheduler.set_timesteps(7)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([
            scheduler.precondition_outputs(
                row[None],
                network(scheduler.precondition_inputs(row[None], s), scheduler.precondition_noise(s)),
                s,
            )
            for row, s in zip(x, sigma, strict=True)
        ])  # fmt: skip

    x, i = 3 * noise(4, 3), 3
    sigma, after, t = scheduler.sigmas[i].double(), scheduler.sigmas[i + 1].double(), scheduler.timesteps[i]
    output = network(scheduler.scale_model_input(x, t), scheduler.precondition_noise(scheduler.sigmas[i]).double())
    wanted = scheduler.step(output, t, x).prev_sample
    assert_close(flow_step(from_edm(denoiser), x, sigma, after), wanted.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "schedule", ["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule", "DecaySchedule"]
)
@pytest.mark.parametrize("kind", ["SimpleDenoiser", "KarrasDenoiser"])
def test_azula_step(kind: str, schedule: str) -> None:
    """Assert that azula's Euler sampler takes the engine's step on each of its schedules."""
    from azula import denoise, sample
    from azula import noise as schedules

    denoiser = getattr(denoise, kind)(Tiny(), getattr(schedules, schedule)()).eval()
    t, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    z = noise(4, 3)
    wanted = sample.EulerSampler(denoiser, steps=4).step(z, t, s)
    (alpha, share), (alpha_after, share_after) = denoiser.schedule(t), denoiser.schedule(s)
    got = flow_step(from_azula(denoiser), z / alpha, share / alpha, share_after / alpha_after)
    assert_close(alpha_after * got, wanted, rtol=1e-8, atol=1e-9)


def test_azula_gaussian_denoiser() -> None:
    """Assert that azula's exact Gaussian denoiser gives the Gaussian's score."""
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import DiagonalCovariance
    from azula.noise import VPSchedule

    variance, mean = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64), torch.tensor([1.0, 0.0, -1.0]).double()
    score = from_azula(GaussianDenoiser(mean, DiagonalCovariance(variance), VPSchedule()))
    x, sigma = noise(4, 3), torch.tensor(0.7, dtype=torch.float64)
    assert_close(score(x, sigma), -(x - mean) / (variance + sigma**2), rtol=1e-9)


def test_flow_matching_step() -> None:
    """Assert that an Euler step of flow_matching's solver on the straight path is the engine's step."""
    from flow_matching.solver import ODESolver

    network, z = Tiny(), noise(4, 3)
    start, end = 0.3, 0.45
    grid = torch.tensor([start, end], dtype=torch.float64)
    wanted = ODESolver(network).sample(x_init=z, step_size=None, method="euler", time_grid=grid)
    x = flow_step(
        from_flow_matching(network), z / start, torch.tensor((1 - start) / start), torch.tensor((1 - end) / end)
    )
    assert_close(end * x, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["CondOTScheduler", "VPScheduler", "CosineScheduler", "LinearVPScheduler", "Polynomial"]
)
def test_flow_matching_schedulers(name: str) -> None:
    """Assert that the denoiser on each scheduler is what the package's own path makes of the velocity."""
    from flow_matching.path import AffineProbPath, scheduler

    chosen = scheduler.PolynomialConvexScheduler(2.0) if name == "Polynomial" else getattr(scheduler, name)()
    network, z, t = Tiny(), noise(4, 3), torch.tensor(0.6, dtype=torch.float64)
    wanted = AffineProbPath(chosen).velocity_to_target(network(z, t), z, t)
    output = chosen(t)
    alpha, sigma = output.alpha_t, output.sigma_t / output.alpha_t
    got = z / alpha + sigma**2 * from_flow_matching(network, chosen)(z / alpha, sigma)
    assert_close(got, wanted, rtol=1e-6, atol=1e-7)


class Wrapper(nn.Module):
    """Hands any arguments on, as training frameworks do."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inside = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own output."""
        return self.inside(*args, **kwargs)


class Compiled(nn.Module):
    """The calling convention of `torch.compile`'s module, without the compilation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own output."""
        return self._orig_mod(*args, **kwargs)


@pytest.mark.parametrize(
    "wrapped",
    [
        nn.DataParallel,
        Compiled,
        Wrapper,
        pytest.param(lambda model: torch.compile(model, backend="eager"), marks=pytest.mark.slow),
    ],
)
def test_wrapped_networks_are_called_as_the_network_itself(
    unet: Any, wrapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert equal scores through `torch.compile`, `DataParallel` and a wrapper of any arguments."""
    # Where tests of devices have run, DataParallel would find the pretended one and move the network there.
    monkeypatch.setattr(sys.modules["torch.nn.parallel.data_parallel"], "_get_available_device_type", lambda: None)
    x, sigma, scheduler = noise(2, 1, 8, 8), torch.tensor(1.0), diffusers.DDPMScheduler()
    wanted = from_diffusers(unet, scheduler, class_labels=1)(x, sigma)
    assert_close(from_diffusers(wrapped(unet), scheduler, class_labels=1)(x, sigma), wanted, rtol=1e-10)


def test_a_network_without_a_time_is_refused() -> None:
    """Assert the sentence for a module whose forward takes a state alone."""
    with pytest.raises(TypeError, match="takes no timestep"):
        from_diffusers(nn.Linear(3, 3), diffusers.DDPMScheduler())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_times_keep_their_precision_whatever_the_networks_dtype(dtype: torch.dtype) -> None:
    """Assert that times 999, 501 and 259 of a table reach a network in any dtype exactly, and states in its own."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=dtype))

        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            seen.append((sample, timestep))
            return (sample * self.weight,)

    scheduler = diffusers.DDPMScheduler()
    sigma = torch.stack([levels(scheduler, t)[1] for t in (999, 501, 259)])
    for network in (Listening(), Listening()):
        score = from_diffusers(network, scheduler)
        for states in (noise(3, 1, 4, 4).float(), noise(3, 1, 4, 4).to(torch.bfloat16)):
            seen.clear()
            assert score(states, sigma).dtype == states.dtype
            assert seen[-1][0].dtype == dtype
            exact = torch.tensor([999.0, 501.0, 259.0])
            assert float((seen[-1][1] - exact).abs().max()) < (1e-3 if states.dtype == torch.float32 else 1e-2)


def test_whole_times_are_integers_that_tables_can_be_read_with() -> None:
    """Assert that a network which looks its time up in a table works, in every direction of a product."""
    from sensitivity.jacobians.products import Products

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gains = nn.Parameter(torch.linspace(0.1, 1.0, 1000, dtype=torch.float64))

        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            return (sample * self.gains[timestep][:, None],)

    scheduler = diffusers.DDPMScheduler()
    alpha, sigma = levels(scheduler, 300)
    score, x = from_diffusers(Table(), scheduler, integer_times=True), noise(2, 3)
    gain = 0.1 + 0.9 * 300 / 999
    assert_close(score(x, sigma), -gain * alpha * x / sigma, rtol=1e-6)
    for method in ("forward", "double-vjp"):
        product = Products(score, method).jvp(x, sigma, x[None])[1][0]
        assert_close(product.detach(), score(x, sigma).detach(), rtol=1e-9)


def test_zero_terminal_snr_of_the_euler_scheduler(unet: Any) -> None:
    """Assert that the stand-in value at the end of the table is left out, and that the others are the table's."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    euler = from_diffusers(unet, diffusers.EulerDiscreteScheduler(**options), class_labels=0)
    ddim = from_diffusers(unet, diffusers.DDIMScheduler(**options), class_labels=0)
    assert euler.schedule.start == ddim.schedule.start == 998.0
    x, sigma = 5 * noise(2, 1, 8, 8), torch.tensor(5.0)
    assert_close(euler(x, sigma), ddim(x, sigma), rtol=1e-5)


def test_unipc_with_flow_sigmas_is_flow_matching(unet: Any) -> None:
    """Assert the score of the flow-match scheduler, whatever the shift of the solver's own grid."""
    flow = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    x, sigma = noise(2, 1, 8, 8), torch.tensor(0.7)
    wanted = from_diffusers(unet, diffusers.FlowMatchEulerDiscreteScheduler(), class_labels=0)(x, sigma)
    assert_close(from_diffusers(unet, flow, class_labels=0)(x, sigma), wanted, rtol=1e-12)
    noisy = from_diffusers(
        unet, diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="epsilon"), class_labels=0
    )
    assert noisy.parametrization == "noise"
    with pytest.raises(ValueError, match="on flow sigmas"):
        from_diffusers(unet, diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("LCMScheduler", "is no score"),
        ("TCDScheduler", "is no score"),
        ("CMStochasticIterativeScheduler", "is no score"),
        ("EDMEulerScheduler", "from_edm"),
        ("EDMDPMSolverMultistepScheduler", "from_edm"),
        ("ScoreSdeVeScheduler", r"as_score\("),
    ],
)
def test_other_schedulers_are_told_the_way(unet: Any, name: str, words: str) -> None:
    """Assert that each names the right adapter, or says that its network is no score."""
    with pytest.raises(ValueError, match=words):
        from_diffusers(unet, getattr(diffusers, name)(), class_labels=0)


def test_labels_may_be_numpys_and_conditions_arrays(unet: Any) -> None:
    """Assert that NumPy integers, 0-d tensors and arrays are what Python numbers and tensors are."""
    x, sigma, scheduler = noise(2, 1, 8, 8), torch.tensor(1.0), diffusers.DDPMScheduler()
    wanted = from_diffusers(unet, scheduler, class_labels=2)(x, sigma)
    for label in (np.int64(2), np.array([2]), np.array(2), torch.tensor(2)):
        assert_close(from_diffusers(unet, scheduler, class_labels=label)(x, sigma), wanted, rtol=0)
    with pytest.raises(ValueError, match="one condition for all samples"):
        from_diffusers(unet, scheduler, class_labels=np.array([1, 2]))


def test_edm_networks_get_their_labels_one_hot() -> None:
    """Assert that a label and its one-hot row are one condition, and the refusal of a label that is none."""

    class Conditional(nn.Module):
        label_dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.shifts = nn.Parameter(torch.arange(12.0).reshape(4, 3))

        def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
            return x / (1 + sigma.reshape(-1, 1) ** 2) + class_labels.to(torch.float32).reshape(-1, 4) @ self.shifts

    x, sigma = noise(3, 3).float(), torch.tensor(1.0)
    row = torch.nn.functional.one_hot(torch.tensor([2]), 4).float()
    wanted = from_edm(Conditional(), class_labels=row)(x, sigma)
    for label in (2, np.int64(2), torch.tensor(2), torch.tensor([2])):
        assert_close(from_edm(Conditional(), class_labels=label)(x, sigma), wanted, rtol=0)
    with pytest.raises(ValueError, match="label_dim = 4"):
        from_edm(Conditional(), class_labels=4)


class MLP(nn.Module):
    """The calling convention of torchcfm's `MLP(time_varying=True)`: one argument, the time its last coordinate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.SELU(), nn.Linear(16, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        """The velocity at `[z, t]`."""
        return self.net(x)


class torch_wrapper(nn.Module):
    """The calling convention of `torchcfm.utils.torch_wrapper`: one time for all samples."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, t: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The model at `[x, t]`."""
        return self.model(torch.cat([x, t.repeat(x.shape[0])[:, None]], 1))


def test_torchcfms_mlp_and_its_wrapper() -> None:
    """Assert both against the velocity by hand, at one level and at a level for each sample."""
    network, z = MLP().eval(), noise(4, 3)
    for sigma in (torch.tensor(1.5, dtype=torch.float64), torch.tensor([0.3, 1.0, 2.0, 9.0], dtype=torch.float64)):
        t = (1 / (1 + sigma)).expand(4)[:, None]
        level = sigma.expand(4)[:, None]
        wanted = -(z - network(torch.cat([t * z, t], 1))) / ((1 + level) * level)
        for velocity in (network, torch_wrapper(network)):
            assert_close(from_flow_matching(velocity, protocol="torchcfm")(z, sigma), wanted, rtol=1e-9)


def test_scores_of_every_adapter_can_be_pickled(unet: Any) -> None:
    """Assert equal scores after a round trip, conditions and schedules included."""
    from azula import denoise
    from azula import noise as schedules

    x, sigma = noise(2, 3), torch.tensor(1.0, dtype=torch.float64)
    for score in (
        from_edm(Tiny()),
        from_flow_matching(Tiny()),
        from_flow_matching(MLP(), protocol="torchcfm"),
        from_azula(denoise.SimpleDenoiser(Tiny(), schedules.VPSchedule()).eval()),
        guided(from_edm(Tiny()), from_edm(Tiny()), 2.0),
    ):
        assert_close(pickle.loads(pickle.dumps(score))(x, sigma), score(x, sigma), rtol=0)
    score = from_diffusers(unet, diffusers.DDPMScheduler(), class_labels=1)
    images = noise(2, 1, 8, 8)
    assert_close(pickle.loads(pickle.dumps(score))(images, sigma), score(images, sigma), rtol=0)


def test_levels_that_a_table_has_no_time_for_are_refused(unet: Any) -> None:
    """Assert a sentence at both ends, in the score, in a run and in a density, and none at the ends themselves."""
    from azula import denoise
    from azula import noise as schedules

    score = from_diffusers(unet, diffusers.DDPMScheduler(), class_labels=0)
    x, law = noise(2, 1, 8, 8), GaussianAnchor(torch.zeros(1, 8, 8).double(), 1.0)
    for sigma in (score.schedule.sigma_max, score.schedule.sigma_min):
        assert bool(torch.isfinite(score(x, sigma)).all())
    for sigma in (200.0, 5e-3):
        with pytest.raises(ValueError, match=r"lies outside the levels 0\.01 … 157\.4"):
            score(x, sigma)
    change = Toward(Points(noise(2, 1, 8, 8), bandwidth=0.5))
    both = PerBranch(change, change), PerBranch(law, law)
    for model, new, anchor in ((score, change, law), (guided(score, score, 2.0), *both)):
        with pytest.raises(ValueError, match="lies outside the levels"):
            sample_sensitivity(model, x, new, Grid(80.0, 2e-3, 3), anchor=anchor)
    with pytest.raises(ValueError, match="lies outside the levels"):
        log_density(score, x, 2e-3, anchor=law, grid=Grid(80.0, 1e-3, 2), trace="hutchinson", seed=0)
    tiny = from_azula(denoise.SimpleDenoiser(Tiny(), schedules.VPSchedule()).eval())
    with pytest.raises(ValueError, match="lies outside the levels"):
        tiny(noise(2, 3), 1e6)


def test_latents_from_noise_have_the_level_of_the_start() -> None:
    """Assert that σ_max ε has the law N(0, σ_max² I) where the anchor is asked, which ε/α, states without x₀, miss."""
    score, white = from_flow_matching(Tiny()), noise(2000, 3)
    start, width = score.schedule, torch.tensor(0.25, dtype=torch.float64)
    exact = (start.sigma_max**2 + width) ** 0.5
    assert float((start.sigma_max * white).std() / exact - 1) == pytest.approx(float(white.std() - 1), abs=2e-4)
    alpha, spread = start.coefficients(torch.tensor(start.start, dtype=torch.float64))
    state = alpha * 0.5 * noise(2000, 3, seed=2) + spread * white
    assert float(start.to_latents(state).std() / exact) == pytest.approx(float(white.std()), rel=1e-3)
    assert float((white / alpha).std() / exact) > 1.005 * float(white.std())
