"""Small denoisers: shapes, seeds, derivatives, stacks."""

import pytest
import torch
from support.close import assert_close

from studies.networks import Architecture, build, split, stack
from studies.networks.transformer import images, patches

KINDS = [
    (Architecture("mlp", width=16, depth=2), (5,)),
    (Architecture("mlp", width=16, depth=2), (1, 6, 6)),
    (Architecture("unet", width=8, depth=2), (1, 7, 5)),
    (Architecture("unet", width=8, depth=1), (2, 4, 4)),
    (Architecture("transformer", width=16, depth=2, heads=2), (1, 6, 4)),
]


def network(architecture, shape, seed=0):
    made = build(architecture, shape, scale=0.7, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return made


def states(shape, batch=3):
    return torch.randn(batch, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("architecture", "shape"), KINDS)
def test_one_level_and_a_level_for_each_sample_agree(architecture, shape):
    """Assert that σ may be 0-d or (batch,)."""
    made, x = network(architecture, shape), states(shape)
    level = torch.tensor(0.4, dtype=torch.float64)
    assert_close(made(x, level), made(x, level.expand(3)), rtol=1e-10, atol=1e-12)
    assert_close(made.score(x, level), (made(x, level) - x) / level**2, rtol=1e-12)


@pytest.mark.parametrize(("architecture", "shape"), KINDS)
def test_forward_mode_equals_reverse_mode(architecture, shape):
    """Assert that u·(J t) = t·(Jᵀ u) for the score, also under vmap."""
    made, x = network(architecture, shape), states(shape)
    level = torch.tensor(0.4, dtype=torch.float64)

    def score(y):
        return made.score(y, level)

    tangents = torch.randn(4, *x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    products = torch.func.vmap(lambda t: torch.func.jvp(score, (x,), (t,))[1])(tangents)
    _, pullback = torch.func.vjp(score, x)
    (back,) = pullback(tangents[1])
    assert_close((products[0] * tangents[1]).sum(), (back * tangents[0]).sum(), rtol=1e-9)


@pytest.mark.parametrize(("architecture", "shape"), KINDS)
def test_samples_do_not_see_each_other(architecture, shape):
    """Assert that a sample's output is the same alone and in a batch."""
    made, x = network(architecture, shape), states(shape)
    levels = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    assert_close(made(x[1:2], levels[1:2]), made(x, levels)[1:2], rtol=1e-10, atol=1e-12)


def test_equal_seeds_give_equal_parameters_and_leave_the_global_generator_alone():
    """Assert that building is a function of the seed."""
    for architecture, shape in KINDS:
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        first, second, other = (build(architecture, shape, seed=seed) for seed in (4, 4, 5))
        assert torch.equal(before, torch.random.get_rng_state())
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_an_untrained_network_is_the_denoiser_of_a_gaussian():
    """Assert that preconditioning alone gives the linear denoiser μ + τ²/(τ² + σ²)(x − μ)."""
    centre = torch.tensor([1.0, -2.0])
    made = build(Architecture(width=8, depth=1), (2,), centre=centre, scale=0.5)
    x = torch.tensor([[3.0, 0.0]])
    assert_close(made(x, 1.0), centre + 0.2 * (x - centre), rtol=1e-6)


def test_a_blind_network_ignores_the_level():
    """Assert that conditioned=False hides σ from the network."""
    for kind in ("mlp", "unet", "transformer"):
        made = network(Architecture(kind, width=8, depth=1, conditioned=False, heads=2), (1, 4, 4))
        x = states((1, 4, 4))
        assert torch.equal(made(x, 0.1), made(x, 3.0))


def test_a_stack_acts_member_by_member_and_splits_into_its_members():
    """Assert that stacking and splitting are inverse and change no output."""
    members = [network(Architecture(width=8, depth=2), (1, 3, 2), seed) for seed in (0, 1, 2)]
    x, levels = states((1, 3, 2), 12).reshape(3, 4, 1, 3, 2), torch.rand(3, 4, dtype=torch.float64) + 0.1
    joint = stack(members)
    singly = torch.stack([member(a, b) for member, a, b in zip(members, x, levels, strict=True)])
    assert_close(joint(x, levels), singly, rtol=1e-12, atol=1e-14)
    for member, again in zip(members, split(joint), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(member.parameters(), again.parameters(), strict=True))


def test_patches_and_images_are_inverse():
    """Assert that cutting an image into tokens loses nothing and keeps patches together."""
    y = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = patches(y, 2)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(tokens[0, 1].reshape(3, 2, 2), y[0, :, :2, 2:4])
    assert torch.equal(images(tokens, 2, y), y)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Architecture("convnet"), "kind='convnet'"),
        (lambda: Architecture(width=0), "width=0"),
        (lambda: build(Architecture("unet"), (5,)), r"shape=\(5,\)"),
        (lambda: build(Architecture("transformer", width=8), (1, 5, 4)), "patch=2"),
        (lambda: build(Architecture("transformer", width=6), (1, 4, 4)), "heads=4"),
        (lambda: build(Architecture(width=4), (2,), scale=0.0), "scale=0.0"),
        (lambda: stack([build(Architecture(width=4), (2,)), build(Architecture(width=5), (2,))]), "stacked"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(make, words):
    """Assert that errors quote the argument."""
    with pytest.raises(ValueError, match=words):
        make()
