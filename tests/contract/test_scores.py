"""Every parametrization on every schedule, and every adapter, is the score of the noised law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.contracts import ScoreContract
from support.problems import PROBLEMS
from torch import Tensor, nn

from oracles.mixture import GaussianMixture
from sensitivity.adapters import from_azula, from_edm, from_flow_matching
from sensitivity.measures.mixture import Mixture
from sensitivity.scores.schedules import VE, DiscreteDDPM, RectifiedFlow, Schedule, VPCosine, VPLinear
from sensitivity.scores.score import as_score, guided

LAW = PROBLEMS["d3_k4_s0"].base
EXACT = {
    dtype: Mixture(*(torch.from_numpy(v.copy()).to(dtype) for v in LAW)) for dtype in (torch.float64, torch.float32)
}
TABLE = (1 - torch.linspace(1e-5, 0.05, 1000, dtype=torch.float64)).cumprod(0)


def column(value: Tensor) -> Tensor:
    """A value for each sample against states `(batch, 3)`."""
    return value[:, None]


def predictions(z: Tensor, alpha: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """What networks would predict at `z = α x₀ + σ′ ε`: exact posterior means, from their definitions."""
    x, sigma = z / column(alpha), noise / alpha
    mean = x + column(sigma) ** 2 * EXACT[z.dtype].score(x, sigma)
    residual = (z - column(alpha) * mean) / column(noise)
    return {
        "score": -residual / column(noise),
        "noise": residual,
        "denoiser": mean,
        "v": column(alpha) * residual - column(noise) * mean,
    }


def network(parametrization: str, schedule: Schedule | None) -> Callable[[Tensor, Tensor], Tensor]:
    """An exact network of a schedule, or of the engine's own coordinates."""

    def call(z: Tensor, t: Tensor) -> Tensor:
        if schedule is None:
            return own(z, t)
        alpha, noise = (v.to(z.dtype) for v in schedule.coefficients(t.double()))
        values = predictions(z, alpha, noise)
        if parametrization != "velocity":
            return values[parametrization]
        rates = [column(v.to(z.dtype)) for v in schedule.rates(t.double())]
        return rates[0] * values["denoiser"] + rates[1] * values["noise"]

    def own(x: Tensor, sigma: Tensor) -> Tensor:
        one = torch.ones_like(sigma)
        if parametrization == "v":
            alpha = (1 + sigma**2).rsqrt()
            return predictions(column(alpha) * x, alpha, sigma * alpha)["v"]
        return predictions(x, one, sigma)["noise" if parametrization == "velocity" else parametrization]

    return call


SCHEDULES = (None, VPLinear(), VPCosine(), VE(), RectifiedFlow(), DiscreteDDPM(TABLE))


class TestNetworks(ScoreContract):
    """`as_score` on all schedules and parametrizations."""

    levels = (0.05, 0.3, 2.0, 40.0)
    rtol = 1e-8

    @pytest.fixture(
        autouse=True,
        params=[
            pytest.param((p, s), id=f"{p}-{type(s).__name__}")
            for p in ("score", "noise", "denoiser", "velocity", "v")
            for s in SCHEDULES
            if not (p == "velocity" and isinstance(s, DiscreteDDPM))
        ],
    )
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.chosen = request.param

    def law(self) -> GaussianMixture:
        """The oracle law."""
        return GaussianMixture(*LAW)

    def score(self) -> Any:
        """The score read off an exact network."""
        parametrization, schedule = self.chosen
        return as_score(network(parametrization, schedule), parametrization, schedule)


class _AdapterContract(ScoreContract):
    """The same law through an adapter."""

    levels = (0.05, 0.3, 2.0, 40.0)
    rtol = 1e-8

    def law(self) -> GaussianMixture:
        """The oracle law."""
        return GaussianMixture(*LAW)


class TestEDM(_AdapterContract):
    """A denoiser in EDM's and k-diffusion's protocol."""

    def score(self) -> Any:
        """Through `from_edm`."""
        return from_edm(lambda x, sigma, **_: predictions(x, torch.ones_like(sigma), sigma)["denoiser"], class_labels=2)


class TestFlowMatching(_AdapterContract):
    """A velocity of the straight path, data at t = 1."""

    path_noise = 0.0

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """`dz/dt = x₀ − ((1 − t)/σ′) ε`, the conditional mean."""
        noise = ((1 - t) ** 2 + self.path_noise**2).sqrt()
        values = predictions(z, t, noise)
        return values["denoiser"] - column((1 - t) / noise) * values["noise"]

    def score(self) -> Any:
        """Through `from_flow_matching`."""
        return from_flow_matching(self.velocity)


class TestTorchCFM(TestFlowMatching):
    """torchcfm's argument order and path noise."""

    path_noise = 0.02

    def score(self) -> Any:
        """Through `from_flow_matching` with torchcfm's protocol."""
        return from_flow_matching(lambda t, z: self.velocity(z, t), protocol="torchcfm", path_noise=self.path_noise)


class TestAzula(_AdapterContract):
    """A denoiser in azula's protocol, on each of its schedules."""

    levels = (0.05, 0.3, 2.0, 40.0)

    @pytest.fixture(autouse=True, params=["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule"])
    def _choose(self, request: pytest.FixtureRequest) -> None:
        self.chosen = request.param

    def score(self) -> Any:
        """Through `from_azula`."""
        from azula import denoise, noise

        class Exact(denoise.Denoiser):
            schedule = getattr(noise, self.chosen)()

            def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> denoise.Posterior:
                alpha, sigma = (v.to(x_t.dtype) for v in self.schedule(t.double()))
                return denoise.DiracPosterior(predictions(x_t, alpha, sigma)["denoiser"])

        return from_azula(Exact())


class TestGuided(_AdapterContract):
    """Guidance with equal branches is the branch."""

    def score(self) -> Any:
        """Any weight."""
        branch = as_score(network("denoiser", None), "denoiser")
        return guided(branch, branch, 3.5)


def test_guidance_mixes_its_branches() -> None:
    """Assert that `s = (1 − w) s_∅ + w s_c`, and that the branches stay at hand."""
    conditional, unconditional = lambda x, sigma: 2 * x, lambda x, sigma: -x
    score = guided(conditional, unconditional, 4.0)
    x = torch.ones(2, 3)
    assert_close(score(x, torch.tensor(1.0)), 11 * x)
    assert (score.conditional, score.unconditional) == (conditional, unconditional)


def test_wrong_divisor_of_sigma_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a noise network read without the division by σ, a planted fault, fails the contract."""
    from sensitivity.scores import score as scores

    monkeypatch.setattr(scores, "_own_coordinates", lambda p, output, x, sigma: -output)
    contract = TestNetworks()
    contract.chosen = ("noise", None)
    with pytest.raises(AssertionError, match="differ"):
        contract.test_score_is_that_of_the_noised_law()


class _Batch(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x - x.mean(0)


class _Random(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + torch.randn_like(x)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Dropout2d(0.1)], ids=str)
def test_training_mode_is_refused_and_eval_accepted(layer: nn.Module) -> None:
    """Assert that dropout or batch norm in training mode is an error that says `.eval()`."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.layer(x)

    net, x = Net().train(), torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"\.eval\(\)"):
        as_score(net)(x, torch.tensor(1.0))
    if not isinstance(layer, nn.Dropout2d):
        assert as_score(net.eval())(x, torch.tensor(1.0)).shape == x.shape


@pytest.mark.parametrize(("net", "words"), [(_Random(), "same input"), (_Batch(), "alone in the batch")])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_networks_that_are_no_fixed_map_of_each_sample_are_refused(net: nn.Module, words: str, batch: int) -> None:
    """Assert that randomness and coupling across the batch are found by calling, once, for any batch."""
    x = torch.randn(batch, 3, generator=torch.Generator().manual_seed(1))
    for states in (x, x[:1].expand(batch, 3)):
        with pytest.raises(ValueError, match=words):
            as_score(net)(states, torch.tensor(1.0))


def test_networks_are_verified_once_and_not_inside_transforms() -> None:
    """Assert four verifying calls at the first plain evaluation and none afterwards, nor under `torch.func`."""
    calls = []

    def net(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return -x

    score, x, sigma = as_score(net), torch.randn(4, 3), torch.tensor(1.0)
    torch.func.jvp(lambda y: score(y, sigma), (x,), (x,))
    assert calls == [4]
    score(x, sigma)
    score(x, sigma)
    assert calls == [4, 2, 2, 1, 1, 4, 4]


def test_half_precision_networks_are_accepted_under_autocast() -> None:
    """Assert that a network's rounding in bfloat16 is not taken for coupling, and that its score is float32."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 3)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert as_score(lambda x, sigma: net(x))(torch.randn(9, 3), torch.tensor(1.0)).dtype == torch.float32


def test_adapters_agree_with_each_other_to_rounding() -> None:
    """Assert that one law through any two adapters has one score."""
    contracts = [TestEDM(), TestFlowMatching(), TestTorchCFM(), TestNetworks(), TestNetworks(), TestAzula()]
    contracts[3].chosen, contracts[4].chosen = ("v", SCHEDULES[1]), ("noise", SCHEDULES[5])
    contracts[5].chosen = "VPSchedule"
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for sigma in (0.1, 1.0, 20.0):
        scores = [contract.score()(x, torch.tensor(sigma, dtype=torch.float64)) for contract in contracts]
        for score in scores[1:]:
            assert_close(score, scores[0], rtol=1e-9, atol=1e-11 / sigma**2)


def test_levels_of_a_float64_grid_do_not_change_the_dtype() -> None:
    """Assert that a float64 level with float32 states gives a float32 score."""
    score = as_score(lambda x, sigma: -x * sigma[:, None], "score")
    assert score(torch.ones(2, 3), torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32


def test_scores_of_no_states_are_empty() -> None:
    """Assert that an empty batch is not an error."""
    assert as_score(lambda x, sigma: -x)(torch.zeros(0, 3), torch.tensor(1.0)).shape == (0, 3)


def test_random_states_are_far_from_degenerate() -> None:
    """Assert that the law under test has a divergence that differs between states: no null space."""
    law = GaussianMixture(*LAW)
    divergence = law.noised(0.3).score_divergence(law.noised(0.3).sample(6, 3))
    assert np.abs(divergence).min() > 0.1
    assert divergence.std() > 0.1
