"""The trainer: optima, weights, coupling, averages, resumption."""

import dataclasses

import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture
from studies.bridge import ExactLaw
from studies.cache import Cache
from studies.networks import Architecture
from studies.training import Batches, Objective, Recipe, blind_optimum, excess_loss, train, train_many
from studies.training.checkpoint import Checkpoint
from studies.training.optimiser import Optimiser

LAW = GaussianMixture([1.0], [[1.0, -1.0, 0.5]], [[[1.0, 0.6, 0.0], [0.6, 0.8, -0.2], [0.0, -0.2, 0.3]]])
SMALL = Architecture(width=16, depth=1)
TINY = Recipe(SMALL, steps=12, batch=16, warmup=3)


def sample(count, seed):
    return torch.from_numpy(LAW.sample(count, seed)).float()


def parameters(trained):
    return torch.cat([p.flatten() for p in trained.network.parameters()])


OBJECTIVES = {
    "edm": Objective(),
    "one level": Objective("denoising", "levels", high=0.5, count=1),
    "many levels": Objective("denoising", "levels", low=0.1, high=2.0, count=5),
    "blind": Objective("blind", "levels", low=0.1, high=2.0, count=5),
    "sliced": Objective("sliced", "levels", low=0.2, high=2.0, count=3),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_reaches_its_known_optimum_on_a_gaussian(name):
    """Assert that the loss comes within 1.5 % of the variance of the least loss, which training started far from."""
    objective = OBJECTIVES[name]
    recipe = Recipe(Architecture(width=48, depth=2, conditioned=name != "blind"), objective, steps=500, rate=3e-3)
    trained = train(recipe, sample(8000, 0))
    exact = ExactLaw(LAW)
    optimum = blind_optimum(exact, objective, trained.network.scale) if name == "blind" else exact.denoiser
    after = excess_loss(trained.network, objective, sample(4000, 1), optimum)
    before = excess_loss(train(TINY, sample(64, 0)).network, objective, sample(4000, 1), optimum)
    assert after.excess < 0.015
    assert after.excess < before.excess / 6
    assert abs(after.loss - after.optimum - after.excess) < 0.02  # the identity behind the excess
    assert after.excess_error < after.excess


def test_the_optimum_of_denoising_is_the_posterior_variance():
    """Assert that the least loss at one level is tr Cov[X | X_σ]/(σ² d), known in closed form for a Gaussian."""
    objective = OBJECTIVES["one level"]
    exact = ExactLaw(LAW)
    excess = excess_loss(train(TINY, sample(64, 0)).network, objective, sample(60000, 2), exact.denoiser)
    values = torch.linalg.eigvalsh(torch.tensor(LAW.covariances[0]))
    assert_close(excess.optimum, float((values / (values + 0.25)).mean()), rtol=0.01)


def test_the_optimum_of_sliced_score_matching_is_half_the_negative_fisher_information():
    """Assert that at one level the least loss is −σ²E|s|²/2d = −½ σ² mean 1/(λ + σ²) for a Gaussian."""
    objective = Objective("sliced", "levels", high=0.5, count=1)
    excess = excess_loss(train(TINY, sample(64, 0)).network, objective, sample(60000, 2), ExactLaw(LAW).denoiser)
    values = torch.linalg.eigvalsh(torch.tensor(LAW.covariances[0]))
    assert_close(excess.optimum, float(-0.125 * (1 / (values + 0.25)).mean()), rtol=0.02)


def test_the_blind_optimum_is_least_among_shrinkages_of_itself():
    """Assert that scaling the blind optimum about the mean raises its loss: its first variation is zero."""
    objective, exact = OBJECTIVES["blind"], ExactLaw(LAW)
    best = blind_optimum(exact, objective, 1.0)
    recipe = Recipe(Architecture(width=8, depth=1, conditioned=False), objective, steps=1, batch=8)
    network = train(recipe, sample(64, 0)).network
    draws = sample(20000, 3)

    def loss(scale):
        return excess_loss(network, objective, draws, lambda x, s: scale * best(x, s)).optimum

    assert loss(1.0) < min(loss(0.97), loss(1.03))


def test_weighted_data_are_drawn_with_their_weights():
    """Assert that frequencies match weights above, below and at zero of the equal weight."""
    pool = torch.arange(8.0)[:, None]
    weights = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 3.0, 0.5])
    batches = Batches(pool, [weights, None], [0, 0], 64)
    draws = [batches.draw(step).clean[..., 0] for step in range(400)]
    counts = torch.stack([torch.bincount(torch.cat([d[k] for d in draws]).long(), minlength=8) for k in (0, 1)])
    shares = counts / counts.sum(1, keepdim=True)
    assert_close(shares[0], weights / weights.sum(), atol=0.008, rtol=0.0)
    assert counts[1].max() - counts[1].min() <= 1  # equal weights: every datum once an epoch


def test_training_on_weighted_data_learns_the_weighted_law():
    """Assert that at large σ the denoiser's offset is the weighted mean, far from the unweighted one."""
    pool = torch.cat([torch.full((100, 1), -1.0), torch.full((100, 1), 1.0)])
    weights = torch.cat([torch.full((100,), 0.1), torch.full((100,), 0.9)])
    recipe = Recipe(Architecture(width=32, depth=1), Objective("denoising", "levels", high=3.0, count=1), steps=400)
    one, two = train_many(recipe, pool, weights=[weights, None], seeds=[0, 0])
    x = 3 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, -x])
    exact = ExactLaw(GaussianMixture.empirical([[-1.0], [1.0]], weights=[0.1, 0.9]))
    assert abs(float((one.network(x, 3.0) - exact.denoiser(x, 3.0)).mean())) < 0.03
    assert abs(float(two.network(x, 3.0).mean())) < 0.03


def test_paired_networks_see_the_same_data_where_their_weights_agree():
    """Assert that a small change of the weights changes few draws, and noise and levels not at all."""
    pool = torch.randn(500, 3)
    weights = torch.ones(500)
    weights[:50] = 1.5
    draw = Batches(pool, [None, weights], [7, 7], 2000).draw(3)
    first, second = ([part[k] for part in draw] for k in (0, 1))
    same = (first[0] == second[0]).all(1).float().mean()
    moved = 0.5 * (weights / weights.sum() - 1 / 500).abs().sum()
    assert_close(1 - same, moved, atol=0.015, rtol=0.0)
    assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


def test_batches_are_a_function_of_seed_and_step():
    """Assert that draws do not depend on what was drawn before, and differ between seeds and steps."""
    pool = torch.randn(50, 2)
    again = Batches(pool, [None], [1], 16)
    for step in range(9):
        again.draw(step)
    fresh = Batches(pool, [None], [1], 16)
    assert all(torch.equal(a, b) for a, b in zip(again.draw(9), fresh.draw(9), strict=True))
    assert not torch.equal(fresh.draw(9).noise, fresh.draw(10).noise)
    assert not torch.equal(fresh.draw(9).noise, Batches(pool, [None], [2], 16).draw(9).noise)


def test_the_average_follows_the_parameters_by_its_stated_weights():
    """Assert that the averaged parameters are Σ_t a_t Π_{u>t}(1 − a_u) θ_t."""
    network = train(TINY, sample(64, 0)).network.requires_grad_(True)
    optimiser, shares = Optimiser(network, 1), [TINY.average_at(k) for k in range(5)]
    name, expected = "body.output.bias", None
    expected = optimiser.average[name].clone()
    for step, share in enumerate(shares):
        loss = network(sample(8, step), 0.3).square().mean().reshape(1)
        optimiser.step(loss, 1e-2, share)
        expected += share * (optimiser.parameters[name].detach() - expected)
    assert_close(optimiser.average[name], expected, rtol=1e-6)
    assert not torch.equal(expected, optimiser.parameters[name].detach())


def test_no_halflife_means_no_average():
    """Assert that halflife = 0 gives the last parameters."""
    assert dataclasses.replace(TINY, halflife=0.0).average_at(5) == 1.0
    assert 0 < Recipe(halflife=200).average_at(10**6) < 0.004


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


def killer(at):
    def report(done, steps):
        if done == at:
            raise Killed

    return report


def test_a_killed_run_ends_in_the_same_bits_as_an_undisturbed_one(tmp_path, monkeypatch):
    """Assert that resuming from a checkpoint changes no bit of the network or of its loss curve."""
    monkeypatch.setattr("studies.training.checkpoint.EVERY", 20)
    recipe = Recipe(SMALL, steps=90, batch=16, warmup=3)
    data, weights = sample(200, 0), [None, torch.arange(1.0, 201.0)]

    def run(cache, progress=None):
        return train_many(recipe, data, weights=weights, seeds=[0, 0], cache=cache, progress=progress)

    calm, torn = Cache(tmp_path / "calm"), Cache(tmp_path / "torn")
    undisturbed = run(calm)
    steps = []
    for at in (33, 71):
        with pytest.raises(Killed):
            run(torn, killer(at))
    resumed = run(torn, lambda done, _: steps.append(done))
    assert steps[0] == 61  # went on from the checkpoint at 60
    for a, b in zip(undisturbed, resumed, strict=True):
        assert torch.equal(parameters(a), parameters(b))
        assert torch.equal(a.history, b.history)
    assert not list((tmp_path / "torn").glob("partial*.safetensors"))


def test_a_damaged_checkpoint_is_not_believed(tmp_path):
    """Assert that a run with a torn checkpoint starts again."""
    optimiser = Optimiser(train(TINY, sample(64, 0)).network.requires_grad_(True), 1)
    path = tmp_path / "partial"
    path.write_bytes(b"x" * 500)
    assert Checkpoint(path).load(optimiser) == 0
    assert Checkpoint(tmp_path / "absent").load(optimiser) == 0


def test_a_finished_network_is_not_trained_twice(tmp_path):
    """Assert that the cache is keyed by everything that matters and by nothing else."""
    cache, data = Cache(tmp_path), sample(64, 0)
    calls = []

    def trained(recipe=TINY, **changes):
        calls.clear()
        result = train(recipe, data, cache=cache, progress=lambda *at: calls.append(at), **changes)
        return parameters(result)

    first = trained()
    assert calls
    assert torch.equal(trained(), first)
    assert not calls
    for change in (
        {"seed": 1},
        {"weights": torch.arange(64.0)},
        {"recipe": dataclasses.replace(TINY, rate=1e-3)},
        {"start": train(TINY, data).network},
    ):
        assert not torch.equal(trained(**change), first)
        assert calls


def test_fine_tuning_goes_on_from_the_given_network():
    """Assert that a run of one tiny step from a network stays by it, with its preconditioning."""
    base = train(TINY, sample(64, 0)).network
    tuned = train(Recipe(SMALL, steps=1, rate=1e-9, batch=4), sample(64, 5) * 3, start=base)
    assert_close(parameters(tuned), torch.cat([p.flatten() for p in base.parameters()]), atol=1e-7)
    assert tuned.network.scale == base.scale


def test_networks_trained_together_are_those_trained_alone():
    """Assert that a stack's members do not influence each other (to rounding: kernels may sum in another order)."""
    data = sample(100, 0)
    together = train_many(TINY, data, weights=[None, None], seeds=[0, 1])
    for seed, member in enumerate(together):
        assert_close(parameters(member), parameters(train(TINY, data, seed=seed)), atol=1e-5)
    assert not torch.equal(parameters(together[0]), parameters(together[1]))


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_image_networks_train_too(kind):
    """Assert that the loss falls for convolutional and attention networks, several asked for at once."""
    pattern = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.cat([pattern, -pattern]).repeat(16, 1, 1, 1)
    recipe = Recipe(Architecture(kind, width=16, depth=1, heads=2), steps=150, batch=32, warmup=5, rate=1e-2)
    pair = train_many(recipe, images, weights=[None, None], seeds=[0, 1])
    assert all(float(t.history[-10:].mean()) < 0.85 * float(t.history[:3].mean()) for t in pair)


def test_bfloat16_products_train_a_float32_network():
    """Assert that reduced precision changes the result a little and its dtype not at all."""
    data = sample(100, 0)
    low = train(dataclasses.replace(TINY, precision="bfloat16"), data)
    assert parameters(low).dtype == torch.float32
    assert_close(parameters(low), parameters(train(TINY, data)), atol=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(steps=0), "steps"),
        (lambda: Recipe(precision="float16"), "precision='float16'"),
        (lambda: Recipe(decay="linear"), "decay='linear'"),
        (lambda: Recipe(objective=Objective("blind")), "conditioned=False"),
        (lambda: Recipe(Architecture(conditioned=False), Objective("sliced", "levels")), "told σ"),
        (lambda: Objective("flow"), "kind='flow'"),
        (lambda: Objective(noise="cosine"), "noise='cosine'"),
        (lambda: Objective(low=2.0, high=1.0), "low ≤ high"),
        (lambda: train(TINY, torch.zeros(5)), r"\(5,\)"),
        (lambda: train(TINY, torch.zeros(5, 2, dtype=torch.int64)), "int64"),
        (lambda: train(TINY, sample(5, 0), weights=torch.tensor([1.0, -1, 0, 0, 1])), "5 non-negative"),
        (lambda: train_many(TINY, sample(5, 0), weights=[None], seeds=[0, 1]), "2 seeds"),
        (lambda: train(TINY, torch.randn(9, 2), start=train(TINY, sample(5, 0)).network), "other data"),
        (lambda: Batches(sample(5, 0), [None], [0], 0), "batch=0"),
        (lambda: Batches(sample(5, 0), [None], [0, 1], 4), "2 seeds"),
    ],
)
def test_bad_requests_are_refused_by_name(make, words):
    """Assert that errors quote the argument and say what to give."""
    with pytest.raises(ValueError, match=words):
        make()


def test_a_diverging_run_says_so():
    """Assert that a loss that is not finite stops the run with a sentence."""
    with pytest.raises(FloatingPointError, match="learning rate"):
        train(dataclasses.replace(TINY, rate=1e30, steps=60), sample(64, 0))
