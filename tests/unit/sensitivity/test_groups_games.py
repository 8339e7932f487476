"""Values of players: enumeration against all orders, what makes them Shapley's, and random orders with error bars."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from support.close import assert_close

from sensitivity.groups.games import Game, by_enumeration, by_permutations, leave_one_out

PLAYERS = 5


def random_game(seed, players=PLAYERS):
    """A table of random vectors for all coalitions."""
    rng = np.random.default_rng(seed)
    table = {s: torch.from_numpy(rng.standard_normal(2)) for s in itertools.product((False, True), repeat=players)}
    return Game(table.__getitem__, players)


def over_all_orders(game):
    """The definition: the mean over G! orders."""
    total = torch.zeros(game.players, 2, dtype=torch.float64)
    for order in itertools.permutations(range(game.players)):
        inside = [False] * game.players
        for player in order:
            before = game(tuple(inside))
            inside[player] = True
            total[player] += game(tuple(inside)) - before
    return total / math.factorial(game.players)


def check_shapley(values, game):
    """Fail unless the values are those of the definition, and efficient."""
    assert_close(values, over_all_orders(game), rtol=0, atol=1e-12)
    assert_close(values.sum(0), game(game.whole) - game(game.nobody), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_enumeration_is_the_mean_over_all_orders(seed):
    """Assert the two routes, and efficiency."""
    game = random_game(seed)
    check_shapley(by_enumeration(game).values, game)
    assert len(game.known) == 2**PLAYERS


def banzhaf(game):
    """Planted: equal weights of all coalitions."""
    rows = []
    for player in range(game.players):
        rest = [s for s in itertools.product((False, True), repeat=game.players) if not s[player]]
        gains = [game((*s[:player], True, *s[player + 1 :])) - game(s) for s in rest]
        rows.append(torch.stack(gains).mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("planted", [banzhaf, lambda game: leave_one_out(game).values])
def test_other_values_are_caught(planted):
    """Assert that equal weights of coalitions, and leaving one out, are not taken for Shapley's value."""
    game = random_game(0)
    with pytest.raises(AssertionError):
        check_shapley(planted(game), game)


def test_a_null_player_has_nothing_and_equal_players_have_the_same():
    """Assert both properties on a game in which player 4 adds nothing, and 0 and 1 are exchangeable."""
    base = random_game(3, 4)

    def value(s):
        return base((*sorted(s[:2]), *s[2:4]))

    values = by_enumeration(Game(value, 5)).values
    assert_close(values[4], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)
    assert_close(values[0], values[1], rtol=0, atol=1e-13)


def test_values_add_where_games_add():
    """Assert additivity."""
    a, b = random_game(1), random_game(2)
    both = Game(lambda s: 2 * a(s) - b(s), PLAYERS)
    assert_close(
        by_enumeration(both).values, 2 * by_enumeration(a).values - by_enumeration(b).values, rtol=0, atol=1e-12
    )


def test_random_orders_are_efficient_unbiased_and_know_their_error():
    """Assert efficiency to rounding for any number of orders, and the spread of estimates against the stated error."""
    game = random_game(0)
    exact = by_enumeration(game).values
    items = [by_permutations(game, 20, seed) for seed in range(200)]
    for each in items[:5]:
        assert_close(each.values.sum(0), game(game.whole) - game(game.nobody), rtol=0, atol=1e-12)
    values = torch.stack([each.values for each in items])
    errors = torch.stack([each.standard_error for each in items])
    z = (values.mean(0) - exact) / (values.std(0) / 200**0.5)
    assert float(z.abs().max()) < 4
    assert_close(errors.square().mean(0).sqrt(), values.std(0), rtol=0.2)


def test_leaving_one_out_asks_one_run_more_than_there_are_players():
    """Assert the values by hand and their number."""
    game = random_game(0)
    shares = leave_one_out(game)
    assert len(game.known) == PLAYERS + 1
    assert_close(shares.values[2], game((True,) * 5) - game((True, True, False, True, True)), rtol=0)
    assert float(shares.standard_error.abs().max()) == 0
