"""The trial of Jacobian products: what it must find, wherever in the run it begins, and what it must let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.close import assert_close
from torch import Tensor, nn

from sensitivity import (
    GaussianAnchor,
    Grid,
    Mixture,
    Points,
    Toward,
    as_score,
    influence,
    log_density,
    resample,
    sample_sensitivity,
)
from sensitivity.jacobians.products import Products
from sensitivity.jacobians.trial import Uses, choose

SHAPE, GRID = (2, 4, 4), Grid(40.0, 0.05, 24)
DATA = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3)).double()
LAW = Mixture(None, DATA, 0.2)
LATENTS = 40 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(4)).double()
NEW = DATA[:2] + 0.3
ANCHOR = GaussianAnchor.from_data(DATA)

Denoiser = Callable[[Tensor, Tensor], Tensor]


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact posterior mean; sigma 0-d or (batch,)."""
    return x + sigma.reshape(-1, 1, 1, 1) ** 2 * LAW.score(x, sigma)


def no_grad(x: Tensor, sigma: Tensor) -> Tensor:
    with torch.no_grad():
        return denoiser(x, sigma)


def detached(x: Tensor, sigma: Tensor) -> Tensor:
    return denoiser(x.detach(), sigma)


def through_numpy(x: Tensor, sigma: Tensor) -> Tensor:
    return denoiser(torch.from_numpy(x.detach().numpy()), sigma)


def detached_below(level: float) -> Denoiser:
    """The derivative is cut below a level only."""

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x.detach() if float(sigma.max()) < level else x, sigma)

    return network


def coupled(x: Tensor, sigma: Tensor) -> Tensor:
    """Below σ = 1 every sample takes a tenth of the mean over its batch."""
    clean = denoiser(x, sigma)
    return clean if float(sigma.max()) >= 1 else 0.9 * clean + 0.1 * clean.mean(0, keepdim=True)


def noisy(x: Tensor, sigma: Tensor) -> Tensor:
    """Below σ = 1 there is noise of one per cent."""
    clean = denoiser(x, sigma)
    return clean if float(sigma.max()) >= 1 else clean * (1 + 0.01 * torch.randn_like(clean))


def rounding(x: Tensor, sigma: Tensor) -> Tensor:
    """The input in units of its own level takes 256 values over [−4, 4]."""
    scale = (1 + sigma.reshape(-1, 1, 1, 1) ** 2).sqrt()
    return denoiser((32 * x / scale).round() / 32 * scale, sigma)


def half_cut(x: Tensor, sigma: Tensor) -> Tensor:
    """A fifth of the derivative is lost."""
    return 0.8 * denoiser(x, sigma) + 0.2 * denoiser(x.detach(), sigma)


CUT = {"no_grad": no_grad, "detach": detached, "numpy": through_numpy, "below": detached_below(1.0)}
CUT |= {"low": detached_below(0.1), "a fifth": half_cut, "rounding": rounding}


def plain(network: Denoiser) -> Any:
    """As a bare function of (x, σ), which the engine calls with a 0-d level."""
    return lambda x, sigma: (network(x, sigma) - x) / sigma.reshape(-1, 1, 1, 1) ** 2


WRAPPED = {"as_score": lambda network: as_score(network, "denoiser"), "plain": plain}


def run_influence(score: Any, **options: Any) -> Tensor:
    return influence(score, LATENTS, lambda x: x.flatten(1)[:, 0], NEW, GRID, anchor=LAW, seed=0, **options).values


def run_sensitivity(score: Any, **options: Any) -> Any:
    return sample_sensitivity(score, LATENTS, Toward(Points(NEW, bandwidth=1.0)), GRID, anchor=LAW, seed=0, **options)


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("fault", CUT)
def test_influence_through_a_cut_derivative_is_an_error(fault: str, wrap: str) -> None:
    """Assert an error that says so, never zeros, wherever the cut begins."""
    with pytest.raises(ValueError, match=r"no Jᵀu for this score.*no graph"):
        run_influence(WRAPPED[wrap](CUT[fault]))


@pytest.mark.parametrize("fault", ["no_grad", "detach", "below"])
def test_a_differentiable_run_needs_a_graph(fault: str) -> None:
    """Assert that `differentiable=True` through a cut derivative is an error too, although tangents could be had."""
    with pytest.raises(ValueError, match="there is no graph from"):
        run_sensitivity(as_score(CUT[fault], "denoiser"), differentiable=True)


@pytest.mark.parametrize("fault", ["detach", "numpy", "below", "low", "a fifth"])
def test_sensitivities_through_a_cut_derivative_are_differences_and_right(fault: str) -> None:
    """Assert that a cut anywhere between σ_max and σ_min falls to differences, which agree with the exact products."""
    expected = run_sensitivity(as_score(denoiser, "denoiser"))
    result = run_sensitivity(as_score(CUT[fault], "denoiser"))
    assert expected.product_error == 0 < result.product_error < 1e-4
    assert_close(result.sensitivity, expected.sensitivity, rtol=1e-3, atol=1e-5)


def test_forward_mode_passes_through_no_grad() -> None:
    """Assert that tangents, which no_grad does not stop, are taken and right."""
    expected = run_sensitivity(as_score(denoiser, "denoiser")).sensitivity
    assert_close(run_sensitivity(as_score(no_grad, "denoiser"), products="forward").sensitivity, expected, rtol=1e-9)


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize(("network", "words"), [(coupled, "another output"), (noisy, "same input")])
def test_coupling_and_noise_that_begin_below_are_found(network: Denoiser, words: str, wrap: str) -> None:
    """Assert that every entry refuses them, though σ_max shows nothing."""
    with pytest.raises(ValueError, match=words):
        run_sensitivity(WRAPPED[wrap](network))
    with pytest.raises(ValueError, match=words):
        log_density(WRAPPED[wrap](network), DATA, 0.1, anchor=LAW, grid=GRID)


def test_rounding_of_what_cancels_at_a_symmetric_state_is_no_coupling() -> None:
    """Assert that 1e-8 more in an odd batch is let pass where x and the denoiser are zero, and 1e-2 is not."""

    def score(rounding: float) -> Callable[[Tensor, Tensor], Tensor]:
        def network(x: Tensor, sigma: Tensor) -> Tensor:
            squares = sigma.reshape(-1, 1) ** 2
            return rounding * (len(x) % 2) / squares - x / (0.25 + squares)

        return network

    level = torch.tensor(10.0)
    choose(Products(score(1e-8)), torch.zeros(1, 1), level)
    with pytest.raises(ValueError, match="another output"):
        choose(Products(score(1e-2)), torch.zeros(1, 1), level)
    as_score(score(1e-8), "score")(torch.zeros(1, 1), level)
    with pytest.raises(ValueError, match="another output"):
        as_score(score(1e-2), "score")(torch.zeros(1, 1), level)


def test_a_network_that_rounds_its_input_is_refused() -> None:
    """Assert that differences flat at small steps and steep at wide ones are no derivative."""
    with pytest.raises(ValueError, match="does not work for this score"):
        run_sensitivity(as_score(rounding, "denoiser"))


def test_a_wrong_second_derivative_is_found() -> None:
    """Assert that order 2 refuses a rule that is right once and cut the second time; order 1 takes it."""

    class Cubed(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x**3

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0].detach() ** 2 * gradient

        @staticmethod
        def jvp(ctx: Any, tangent: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0].detach() ** 2 * tangent

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        return -x / (1 + sigma**2) - Cubed.apply(x / (1 + sigma)) / (1 + sigma)

    x, sigma = torch.ones(2, 3).double(), torch.tensor(0.7).double()
    assert choose(Products(score), x, sigma).exact
    chosen = choose(Products(score), x, sigma, uses=Uses(second=True))
    assert not chosen.exact


def test_the_trial_says_what_it_costs_and_is_remembered() -> None:
    """Assert 20 calls for a run, 16 with a network, none for a second one on the same levels, some for a lower end."""
    calls: list[int] = []

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(len(x))
        return LAW.score(x, sigma)

    # A function is asked once more a level, for its asymmetry; of a network that is not in question.
    network = torch.nn.Linear(2, 2)
    sigma = torch.tensor(40.0).double()
    for asked, count in ((score, 20), (lambda x, sigma: (network, score(x, sigma))[1], 16)):
        for uses in (Uses(), Uses(tangents=False), Uses(tangents=False, cotangents=True)):
            calls.clear()
            choose(Products(asked), LATENTS, sigma, uses=uses, until=0.05)
            assert (len(calls), max(calls)) == (count, 26)
            choose(Products(asked), LATENTS, sigma, uses=uses, until=0.1)
            assert len(calls) == count
        choose(Products(asked), LATENTS, sigma, until=0.01)
        assert len(calls) == 2 * count


def test_a_void_trial_is_not_remembered() -> None:
    """Assert that scores that are not finite at first are tried again."""
    broken = [True]

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x.detach(), sigma) * (float("nan") if broken[0] else 1.0)

    score, sigma = as_score(network, "denoiser"), torch.tensor(40.0).double()
    assert choose(Products(score), LATENTS, sigma, until=0.05).exact
    assert not score.verified
    broken[0] = False
    assert not choose(Products(score), LATENTS, sigma, until=0.05).exact


def test_a_trial_draws_no_noise_of_the_user() -> None:
    """Assert that neither the global generator nor a given one is advanced by the trial."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    choose(Products(LAW.score), LATENTS, torch.tensor(40.0).double(), until=0.05)
    assert torch.equal(torch.get_rng_state(), before)


def test_inference_mode_changes_nothing() -> None:
    """Assert equal values, whether or not a trial outside came first, and for latents made in inference mode."""
    for first in (True, False):
        score = as_score(denoiser, "denoiser")
        runs: list[Callable[[Tensor], Tensor]] = [
            lambda x, s=score: log_density(s, x, 0.5, anchor=LAW, grid=GRID, trace="exact").value,
            lambda x, s=score: (
                resample(s, x, Toward(Points(NEW, bandwidth=1.0)), 0.4, GRID, anchor=LAW, seed=0).samples
            ),
            lambda x, s=score: run_influence(s),
            lambda x, s=score: run_sensitivity(s).sensitivity,
        ]
        for run in runs:
            expected = run(LATENTS) if first else None
            with torch.inference_mode():
                result, made = run(LATENTS), LATENTS.clone()
                inner = run(made)
            expected = run(LATENTS) if expected is None else expected
            assert_close(result, expected, rtol=1e-12)
            assert_close(inner, expected, rtol=1e-12)
            assert_close(run(made), expected, rtol=1e-12)


class Dropped(nn.Module):
    """A denoiser with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.drop(denoiser(x, sigma))


@pytest.mark.parametrize("kind", ["as_score", "closure", "module"])
def test_a_network_put_back_into_training_mode_is_refused(kind: str) -> None:
    """Assert that every public entry looks at the flag anew."""
    net = Dropped().eval()
    score: Any = {
        "as_score": as_score(net, "denoiser"),
        "closure": as_score(lambda x, sigma: net(x, sigma), "denoiser"),
        "module": plain(net),
    }[kind]
    x = DATA[:2]
    run_sensitivity(score)
    log_density(score, x, 0.5, anchor=LAW, grid=GRID)
    net.train()
    for run in (
        lambda: run_sensitivity(score),
        lambda: run_influence(score),
        lambda: resample(score, LATENTS, Toward(Points(NEW)), 0.1, GRID, anchor=LAW, seed=0),
        lambda: log_density(score, x, 0.5, anchor=LAW, grid=GRID),
    ):
        with pytest.raises(ValueError, match=r"network is in training mode.*Dropout"):
            run()
    if kind == "as_score":
        with pytest.raises(ValueError, match="training mode"):
            score(x, torch.tensor(1.0))


def test_a_network_that_reads_the_first_level_only_is_refused() -> None:
    """Assert that a network which takes t[0] for all its samples is found at the first call."""
    score = as_score(lambda x, sigma: denoiser(x, sigma[:1].expand(len(x))), "denoiser")
    with pytest.raises(ValueError, match="alone in the batch"):
        score(DATA, torch.tensor(1.0))


class HalfNet(nn.Module):
    """A small residual network in bfloat16."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Conv2d(2, 32, 3, padding=1), nn.Conv2d(32, 2, 3, padding=1)
        self.norm, self.inner = nn.GroupNorm(4, 32), nn.Conv2d(32, 32, 3, padding=1)
        self.bfloat16()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        h = self.first(x.bfloat16() / (1 + sigma.bfloat16().reshape(-1, 1, 1, 1)))
        return self.last(h + self.inner(torch.nn.functional.silu(self.norm(h))))


def test_half_networks_are_single() -> None:
    """Assert that rounding in bfloat16 is not taken for coupling: 20 networks, scores and sensitivities."""
    for seed in range(20):
        score = as_score(HalfNet(seed).eval(), "denoiser")
        x = LATENTS.float()
        assert bool(score(x, torch.tensor(0.5)).isfinite().all())
        choose(Products(score), x, torch.tensor(40.0), until=0.05)


def test_planted_trials_that_look_away_are_seen_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a trial at σ_max alone, or one of the whole product, lets faults pass which the tests above find."""
    from sensitivity.jacobians import stations

    sigma = torch.tensor(40.0).double()
    faults: list[tuple[str, Any, Denoiser]] = [
        ("levels", lambda start, until: [start], detached_below(1.0)),
        ("CLOSE", 1e3, half_cut),
    ]
    for name, planted, fault in faults:
        assert _found(fault, sigma)
        with monkeypatch.context() as patch:
            patch.setattr(stations, name, planted)
            if name == "CLOSE":
                patch.setattr(stations, "FAR", planted)
            assert not _found(fault, sigma)


def _found(fault: Denoiser, sigma: Tensor) -> bool:
    try:
        return not choose(Products(plain(fault)), LATENTS, sigma, until=0.05).exact
    except ValueError:
        return True


def test_a_batch_of_one_and_equal_samples_are_tried_on_two() -> None:
    """Assert that a fault in all but the first sample is found in a batch whose samples are equal."""

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([denoiser(x[:1], sigma), denoiser(x[1:].detach(), sigma)])

    sigma = torch.tensor(40.0).double()
    for x in (LATENTS, LATENTS[:1], LATENTS[:1].expand(3, *SHAPE)):
        assert not choose(Products(plain(network)), x, sigma, until=0.05).exact
    assert choose(Products(plain(denoiser)), LATENTS[:1], sigma, until=0.05).exact
