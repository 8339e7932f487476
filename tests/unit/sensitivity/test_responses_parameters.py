"""What a network's parameters answer, against a network whose retraining is a solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.close import assert_close
from support.trained import CosineNetwork, trained
from torch import nn

from sensitivity import (
    DenoisingLoss,
    Grid,
    Mixture,
    Move,
    ParameterResponse,
    Points,
    Remove,
    Reweight,
    Toward,
    as_score,
    guided,
    influence,
    resample,
    sample_sensitivity,
)

SIGMA_MAX, SIGMA_MIN = 4.0, 0.3
GRID = Grid(SIGMA_MAX, SIGMA_MIN, 8)
RNG = np.random.default_rng(5)
P = RNG.uniform(0.5, 1.5, 12)
P = P / P.sum()
NEW = np.array([2.0, 0.0, 1.0, 1.0] + [0.0] * 8)
NEW = NEW / NEW.sum()


def _problem(d=3, features=20):
    """Reference, score, response and latents; ν puts weights NEW on the training points."""
    truth = trained(d, features)
    score = as_score(truth.network(P), "denoiser")
    latents = SIGMA_MAX * torch.from_numpy(np.random.default_rng(1).standard_normal((4, d)))
    return truth, score, latents


def _response(truth, score, curvature="exact", **options):
    data = Points(torch.from_numpy(truth.data), torch.from_numpy(P))
    options = {"damping": truth.ridge, **options}
    return ParameterResponse(score, truth.loss, data, curvature, **options)


def _toward(truth, weights=NEW):
    return Toward(Points(torch.from_numpy(truth.data), torch.from_numpy(weights)))


def _curved(x):
    return x.flatten(1).square().sum(1) + x.flatten(1)[:, 0]


def _wavy(x):
    return torch.sin(x.flatten(1)).sum(1)


def check_direction(truth, response):
    """Fail unless θ̇ is the derivative of retraining, by the solve's own derivative and by differences of solves."""
    values = response.direction(_toward(truth)).reshape(truth.data.shape[1], -1)
    wanted = truth.derivative(P, NEW - P)
    step = 1e-4
    differences = (truth.retrained(P + step * (NEW - P)) - truth.retrained(P - step * (NEW - P))) / (2 * step)
    scale = float(np.abs(wanted).max())
    assert_close(values, torch.from_numpy(wanted), rtol=0, atol=1e-9 * scale)
    assert_close(values, torch.from_numpy(differences), rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("curvature", ["exact", "ggn"])
def test_the_parameters_move_as_retraining_moves_them(curvature):
    """Assert 1e-9 of the derivative of a solve: there the Gauss-Newton matrix is the Hessian."""
    truth, score, _ = _problem()
    check_direction(truth, _response(truth, score, curvature, steps=200, tolerance=1e-13))


def test_a_planted_sign_is_caught(monkeypatch):
    """Assert that θ̇ of the wrong sign fails the check above."""
    truth, score, _ = _problem()
    right = ParameterResponse._directions
    monkeypatch.setattr(ParameterResponse, "_directions", lambda self, changes: -right(self, changes))
    with pytest.raises(AssertionError):
        check_direction(truth, _response(truth, score))


def test_a_damping_that_is_not_the_ridge_is_caught():
    """Assert that a fifth more damping than the training's own ridge fails the check above."""
    truth, score, _ = _problem()
    with pytest.raises(AssertionError):
        check_direction(truth, _response(truth, score, damping=1.2 * truth.ridge))


@pytest.mark.parametrize("products", ["auto", "double-vjp"])
def test_samples_move_as_those_of_retrained_networks(products):
    """Assert 1e-9 of Heun's tangent written out, and differences of samples from really retrained networks."""
    truth, score, latents = _problem()
    result = sample_sensitivity(
        score, latents, _toward(truth), GRID, response=_response(truth, score), products=products
    )
    levels, rate = GRID.levels.numpy(), truth.derivative(P, NEW - P)
    samples, tangent = truth.sampled(truth.retrained(P), rate, latents.numpy(), levels)
    assert_close(result.samples, torch.from_numpy(samples), rtol=1e-11, atol=1e-11)
    scale = float(np.abs(tangent).max())
    assert_close(result.sensitivity, torch.from_numpy(tangent), rtol=0, atol=1e-9 * scale)
    step, zero = 1e-4, np.zeros_like(rate)
    ends = [
        truth.sampled(truth.retrained(P + sign * step * (NEW - P)), zero, latents.numpy(), levels)[0]
        for sign in (1, -1)
    ]
    assert_close(result.sensitivity, torch.from_numpy((ends[0] - ends[1]) / (2 * step)), rtol=0, atol=1e-5 * scale)
    assert result.log_density is None
    assert bool(result.log_ratio.isnan().all())
    assert result.outcome.sentence == "4 of 4 samples finished."


def test_differences_are_near_the_exact_products():
    """Assert the stated kind of error of central and forward differences along (δ, θ̇), several changes at once."""
    truth, score, latents = _problem()
    changes = [_toward(truth), Move(torch.from_numpy(truth.data[:2]), torch.from_numpy(truth.data[2:4]))]
    response = _response(truth, score)
    exact = sample_sensitivity(score, latents, changes, GRID, response=response).sensitivity
    for products, error in (("finite", 1e-7), ("one-sided", 1e-3)):
        near = sample_sensitivity(score, latents, changes, GRID, response=response, products=products)
        assert float((near.sensitivity - exact).abs().max() / exact.abs().max()) < error


@pytest.mark.parametrize("denoise", [False, True], ids=["plain", "denoised"])
@pytest.mark.parametrize("solver", ["euler", "heun", "rk4", "exponential", "2m", "sde"])
def test_influence_is_the_transpose_of_the_sensitivity(solver, denoise):
    """Assert the identity to rounding for each point, functional and solver."""
    truth, score, latents = _problem()
    response = _response(truth, score)
    points = torch.from_numpy(truth.data[:5] + 0.1)
    options = {"grid": GRID, "solver": solver, "denoise": denoise, "seed": 3, "response": response}
    forward = sample_sensitivity(score, latents, [Toward(Points(row[None])) for row in points], **options)
    influences = influence(score, latents, [_curved, _wavy], points, **options)
    for k, function in enumerate((_curved, _wavy)):
        x = forward.samples.detach().requires_grad_()
        gradient = torch.autograd.grad(function(x).sum(), x)[0]
        wanted = (forward.sensitivity * gradient).flatten(2).sum(2).T
        assert_close(influences.values[k], wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    assert_close(influences.samples, forward.samples, rtol=1e-13, atol=1e-13)


def test_parts_sum_to_the_whole():
    """Assert Σ_i ν_i values_i = ∇φ·δ toward ν, and zero for the training law itself."""
    truth, score, latents = _problem()
    response = _response(truth, score)
    forward = sample_sensitivity(score, latents, _toward(truth), GRID, response=response)
    influences = influence(score, latents, _curved, torch.from_numpy(truth.data), GRID, response=response)
    x = forward.samples.requires_grad_()
    wanted = (torch.autograd.grad(_curved(x).sum(), x)[0] * forward.sensitivity).sum(1)
    scale = float(influences.values.abs().max())
    assert_close(influences.values @ torch.from_numpy(NEW), wanted, rtol=0, atol=1e-12 * scale)
    assert_close(
        influences.values @ torch.from_numpy(P), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12 * scale
    )


def test_every_kind_of_change_is_a_change_of_the_data_weights():
    """Assert Remove, Reweight, sums and multiples against derivatives of the solve."""
    truth, score, _ = _problem()
    response = _response(truth, score)
    data = torch.from_numpy(truth.data)
    some, kept = np.zeros(12), np.zeros(12)
    some[3:6], kept[3:6] = 1 / 3, [0.5 / 3, 2 / 3, 1 / 3]
    reweight = Reweight(Points(data[3:6]), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64).log())
    changes = {
        "remove": (Remove(Points(data[3:6])), some - P),
        "reweight": (reweight, (kept - kept.sum() * P) - (some - P)),
        "sum": (_toward(truth) - 2 * Remove(Points(data[3:6])), (NEW - P) - 2 * (some - P)),
    }
    for change, weights in changes.values():
        wanted = torch.from_numpy(truth.derivative(P, weights)).reshape(-1)
        assert_close(response.direction(change), wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


def test_moved_points_are_retraining_on_moved_points():
    """Assert θ̇ of `Move` against differences of solves on displaced data."""
    truth, score, _ = _problem()
    moves = np.random.default_rng(2).standard_normal((3, 3))
    change = Move(torch.from_numpy(truth.data[2:5]), torch.from_numpy(moves))

    def solved(step):
        moved = np.concatenate([truth.data, truth.data[2:5], truth.data[2:5] + step * moves])
        weights = np.concatenate([P, [-1 / 3] * 3, [1 / 3] * 3])
        return truth.retrained(weights, moved)

    def differences(step):
        return (solved(step) - solved(-step)) / (2 * step)

    # ρ + η(ν_h − ν) at η = 1 is of second order in h beside its derivative: Richardson removes h².
    wanted = (4 * differences(1e-4) - differences(2e-4)) / 3
    values = _response(truth, score).direction(change).reshape(3, -1)
    assert_close(values, torch.from_numpy(wanted), rtol=0, atol=1e-7 * float(np.abs(wanted).max()))


def test_resampling_has_the_parameters_of_one_newton_step():
    """Assert that resample is sampling from the network with θ + ηθ̇, and tangent to the sensitivity."""
    truth, score, latents = _problem()
    response = _response(truth, score)
    resampled = resample(score, latents, _toward(truth), 0.2, GRID, response=response, chunk_size=3)
    moved = truth.retrained(P) + 0.2 * truth.derivative(P, NEW - P)
    samples, _ = truth.sampled(moved, np.zeros_like(moved), latents.numpy(), GRID.levels.numpy())
    assert_close(resampled.samples, torch.from_numpy(samples), rtol=0, atol=1e-9 * float(np.abs(samples).max()))
    assert resampled.log_density is None
    with pytest.raises(ValueError, match="eta differs between latents"):
        resample(score, latents, _toward(truth), torch.linspace(0, 0.3, 4), GRID, response=response)


def test_rates_chunks_and_the_largest():
    """Assert that rates scale points, chunks change nothing and top_k is the head of the full matrix."""
    truth, score, latents = _problem()
    options = {"grid": GRID, "response": _response(truth, score)}
    points = torch.from_numpy(truth.data)
    whole = influence(score, latents, [_curved, _wavy], points, **options)
    cut = influence(score, latents, [_curved, _wavy], points, chunk_size=3, **options)
    assert_close(cut.values, whole.values, rtol=1e-10, atol=1e-11)
    rates = torch.linspace(0, 2, 12, dtype=torch.float64)
    rated = influence(score, latents, _curved, points, rates=rates, **options)
    assert_close(rated.values, whole.values[0] * rates)
    head = influence(score, latents, _curved, points, top_k=3, **options)
    assert torch.equal(head.indices, whole.values[0].abs().argsort(-1, descending=True)[:, :3])
    pieces = sample_sensitivity(score, latents, _toward(truth), chunk_size=3, **options)
    once = sample_sensitivity(score, latents, _toward(truth), **options)
    assert_close(pieces.sensitivity, once.sensitivity, rtol=1e-11, atol=1e-11)


def test_the_block_of_rows_changes_nothing():
    """Assert that gradients and curvature do not depend on how rows are cut."""
    truth, score, _ = _problem()
    whole = _response(truth, score).direction(_toward(truth))
    cut = _response(truth, score, block=5).direction(_toward(truth))
    assert_close(cut, whole, rtol=0, atol=1e-12 * float(whole.abs().max()))


def test_the_rule_of_the_damping_is_a_tenth_of_the_mean_eigenvalue():
    """Assert the rule against the reference's own matrix, exactly written out and within the probes' noise."""
    truth, score, _ = _problem()
    gram, _ = truth.moments(P)
    wanted = 0.1 * float(np.trace(gram)) / len(gram)
    assert _response(truth, score, damping=None).damping == pytest.approx(wanted, rel=1e-10)
    estimated = [_response(truth, score, "ggn", damping=None, seed=k).damping for k in range(2)]
    assert all(value == pytest.approx(wanted, rel=0.5) for value in estimated)


def test_few_pairs_stand_for_all():
    """Assert that a part of the (example, draw) pairs gives another curvature, of the same mean size."""
    truth, score, _ = _problem()
    part = _response(truth, score, damping=None, pairs=40)
    assert part.damping == pytest.approx(_response(truth, score, damping=None).damping, rel=0.5)
    assert part.damping != _response(truth, score, damping=None).damping


def test_unfinished_conjugate_gradients_state_their_residual(caplog):
    """Assert that too few steps are said in the log and in `residual`."""
    truth, score, _ = _problem()
    response = _response(truth, score, "ggn", damping=1e-6, steps=2)
    response.direction(_toward(truth))
    assert response.residual > 1e-3
    assert "left a relative residual" in caplog.text


def test_costs_are_counted():
    """Assert one product a stage, and rows of data: gradients, g_ρ, and the curvature's products."""
    truth, score, latents = _problem()
    result = sample_sensitivity(score, latents, _toward(truth), GRID, response=_response(truth, score))
    assert (result.cost.evaluations, result.cost.products) == (16, 16)
    assert result.cost.away == 3 * 12 * 6


def test_a_loss_of_ones_own():
    """Assert that a plain function is a loss, with the default's draws, and that its curvature is taken through it."""
    truth, score, _ = _problem()
    default = DenoisingLoss(scale=0.8, draws=16)

    def own(model, x0, sigma, noise):
        state = x0 + sigma[:, None] * noise
        gap = sigma[:, None] * model(state, sigma) + noise  # σ² s + σε = D − x₀ over σ
        return default.weight(sigma) * sigma**2 * gap.square().mean(1)

    class Own:
        def __call__(self, *arguments):
            return own(*arguments)

        def draw(self, example):
            return default.draw(example)

    data = torch.from_numpy(truth.data)
    change = Toward(Points(data[:2]))
    values = [ParameterResponse(score, loss, data, "exact", 0.1).direction(change) for loss in (default, Own())]
    assert_close(values[1], values[0], rtol=0, atol=1e-11 * float(values[0].abs().max()))
    assert ParameterResponse(score, own, data, "exact", 0.1).losses.draws == 16


class _Image(nn.Module):
    """A denoiser of 28×28 images with group normalisation and attention over rows."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.leave = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, sigma):
        level = sigma[:, None, None, None]
        hidden = torch.nn.functional.silu(self.norm(self.enter(x / (1 + level**2).sqrt()))) + 0.1 * level.log()
        tokens = hidden.mean(3).transpose(1, 2).contiguous()
        attended = self.attend(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2)
        return (x / (1 + level**2) + self.leave(hidden + attended[..., None])).contiguous()


def _images(count, seed=0):
    """Low rank plus noise, 28×28."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((5, 784)) * np.linspace(1, 0.2, 5)[:, None]
    images = rng.standard_normal((count, 5)) @ factors + 0.1 * rng.standard_normal((count, 784))
    return torch.from_numpy(images.reshape(count, 1, 28, 28))


def test_a_convolutional_network_with_attention_at_image_size():
    """Assert forward = adjoint at d = 784 with products that need cures, against differences in the parameters."""
    torch.manual_seed(0)
    network = _Image().double().eval()
    score = as_score(network, "denoiser")
    data, latents, grid = _images(6), 3 * _images(2, 1), Grid(3.0, 0.5, 3)
    response = ParameterResponse(score, DenoisingLoss(draws=3), data, damping=0.5, tolerance=1e-13, steps=400)
    changes = [Toward(Points(row[None])) for row in data[:2]]
    forward = sample_sensitivity(score, latents, changes, grid, response=response)
    influences = influence(score, latents, _wavy, data[:2], grid, response=response)
    gradient = forward.samples.cos()
    wanted = (forward.sensitivity * gradient).flatten(2).sum(2).T
    assert_close(influences.values, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))
    step = 1e-4
    ends = [resample(score, latents, changes[0], s * step, grid, response=response).samples for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    scale = float(slope.abs().max())
    assert_close(forward.sensitivity[0], slope, rtol=0, atol=1e-6 * scale)


def test_single_precision_and_modules_behind_closures():
    """Assert that a score over a closure takes `module`, and that float32 is near float64."""
    truth, _, latents = _problem()
    network = truth.network(P)
    values = []
    for dtype in (torch.float64, torch.float32):
        outputs = CosineNetwork(truth.frequencies, truth.phases, network.readout.detach().numpy()).to(dtype)
        score = as_score(lambda x, sigma, outputs=outputs: outputs(x, sigma), "denoiser")
        data = Points(torch.from_numpy(truth.data).to(dtype), torch.from_numpy(P).to(dtype))
        response = ParameterResponse(score, truth.loss, data, "exact", truth.ridge, module=outputs)
        change = Toward(Points(data.data[:2]))
        values.append(sample_sensitivity(score, latents.to(dtype), change, GRID, response=response).sensitivity)
    assert values[1].dtype == torch.float32
    assert float((values[1] - values[0]).abs().max() / values[0].abs().max()) < 1e-3


def test_some_parameters_may_answer_alone():
    """Assert that names choose the part of θ, held in their order."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    score = as_score(lambda x, sigma: network(x), "denoiser")
    data = torch.from_numpy(trained().data)
    options = {"module": network, "parameters": ["2.bias"]}
    response = ParameterResponse(score, DenoisingLoss(draws=4), data, "exact", 0.1, **options)
    assert response.direction(Toward(Points(data[:1]))).shape == (3,)
    assert response.weights.names == ("2.bias",)


def test_what_does_not_apply_is_refused_in_words():
    """Assert that each refusal says what to do."""
    truth, score, latents = _problem()
    data, response = torch.from_numpy(truth.data), _response(truth, score)
    loss, change = truth.loss, _toward(truth)
    other = as_score(truth.network(P), "denoiser")

    def twice(model, x0, sigma, noise):
        return (model(x0, sigma) + model(x0 + noise, sigma)).square().sum(1)

    gauss = Mixture(torch.ones(1).double(), torch.zeros(1, 3).double(), torch.eye(3).double()[None])
    made = [
        (lambda: ParameterResponse(lambda x, s: -x, loss, data), ValueError, "shows no module with parameters"),
        (lambda: ParameterResponse(score, 3.0, data), TypeError, "loss is a float"),
        (lambda: ParameterResponse(score, loss, data, "newton"), ValueError, "curvature = 'newton'"),
        (lambda: ParameterResponse(score, loss, data, damping=-1.0), ValueError, "damping = -1.0"),
        (lambda: ParameterResponse(score, loss, data, parameters=["w"]), ValueError, r"parameters=\['w'\]"),
        (lambda: ParameterResponse(score, loss, data, steps=0), ValueError, "steps = 0"),
    ]
    run = sample_sensitivity
    smooth = Toward(Points(data[:1], bandwidth=0.1))
    wide = Toward(Points(torch.zeros(1, 4).double()))
    made += [
        (lambda: run(other, latents, change, GRID, response=response), ValueError, "another score"),
        (lambda: run(score, latents, Toward(gauss), GRID, response=response), ValueError, "a Mixture has none"),
        (lambda: run(score, latents, smooth, GRID, response=response), ValueError, "bandwidth=0.1"),
        (lambda: run(score, latents, wide, GRID, response=response), ValueError, "points have shape"),
        (lambda: run(score, latents, change, GRID, response=response, order=2), ValueError, "order=2"),
        (lambda: run(score, latents, change, GRID, response=ParameterResponse), TypeError, "give an instance"),
        (
            lambda: run(score, latents, change, GRID, response=response, differentiable=True),
            ValueError,
            "differentiable=True",
        ),
        (
            lambda: run(score, latents, change, GRID, response=ParameterResponse(score, twice, data, "exact", 1.0)),
            ValueError,
            "calls the score 2 times",
        ),
        (
            lambda: run(
                score,
                latents,
                change,
                GRID,
                response=ParameterResponse(score, lambda *a: torch.ones(()), data, "exact", 1.0),
            ),
            ValueError,
            r"loss returns \(\)",
        ),
        (
            lambda: run(
                score, latents, change, GRID, response=ParameterResponse(score, loss, data, module=nn.Linear(2, 2))
            ),
            ValueError,
            "does not depend on the parameters",
        ),
    ]
    for call, kind, said in made:
        with pytest.raises(kind, match=said):
            call()


def test_a_guided_score_is_refused():
    """Assert that two networks do not answer as one."""
    truth, score, latents = _problem()
    from sensitivity import PerBranch

    both = PerBranch(_toward(truth), _toward(truth))
    with pytest.raises(ValueError, match="a guided score has two"):
        sample_sensitivity(guided(score, score, 2.0), latents, both, GRID, response=_response(truth, score))
