"""What each player of a game is worth: leave one out, and Shapley's value by enumeration or by permutations.

A game gives every coalition S of G players a value v(S). The value of player g is the mean over all orders of the
players of what g adds to those before it,

    ψ_g = Σ_{S ∌ g} |S|! (G − |S| − 1)!/G! · [v(S ∪ g) − v(S)],

the only one with Σ ψ_g = v(all) − v(∅) (efficiency), equal values for players that add the same (symmetry), none for
one that adds nothing, and additivity in v. M random orders give an unbiased estimate, efficient to rounding whatever M
is, and the spread over orders its standard error.

Source: Shapley, A value for n-person games, 1953; Castro, Gómez & Tejada, Comput. Oper. Res. 36, 2009 (permutations).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Coalition = tuple[bool, ...]


class Shares(NamedTuple):
    """Values of players, (G, *out), with standard errors: 0 where exact."""

    values: Tensor
    standard_error: Tensor


class Game:
    """v of coalitions, each evaluated once.

    Args:
        value: v, a coalition of G flags ↦ a tensor.
        players: G.

    Attributes:
        known: every value so far.

    Example:
        >>> game = Game(lambda s: torch.tensor(float(s[0] and s[1])), 3)  # the first two together make 1
        >>> by_enumeration(game).values
        tensor([0.5000, 0.5000, 0.0000])
        >>> leave_one_out(game).values
        tensor([1., 1., 0.])
    """

    def __init__(self, value: Callable[[Coalition], Tensor], players: int):
        self.value, self.players = value, players
        self.known: dict[Coalition, Tensor] = {}

    def __call__(self, coalition: Coalition) -> Tensor:
        if coalition not in self.known:
            self.known[coalition] = self.value(coalition)
        return self.known[coalition]

    @property
    def whole(self) -> Coalition:
        """The coalition of all players, whose value is v(all)."""
        return (True,) * self.players

    @property
    def nobody(self) -> Coalition:
        """The coalition of no player, whose value is v(∅)."""
        return (False,) * self.players


def leave_one_out(game: Game) -> Shares:
    """v(all) − v(all without g)."""
    whole = game(game.whole)
    values = torch.stack([whole - game(_with(game.whole, player, False)) for player in range(game.players)])
    return Shares(values, torch.zeros_like(values))


def by_enumeration(game: Game) -> Shares:
    """Shapley's value from all 2^G coalitions."""
    total = []
    for player in range(game.players):
        terms = [
            _weight(sum(others), game.players) * (game(_with(others, player, True)) - game(others))
            for others in itertools.product((False, True), repeat=game.players)
            if not others[player]
        ]
        total.append(torch.stack(terms).sum(0))
    values = torch.stack(total)
    return Shares(values, torch.zeros_like(values))


def by_permutations(game: Game, permutations: int, seed: int) -> Shares:
    """Shapley's value from random orders of the players, with the standard error over orders (`permutations` ≥ 2)."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(game.players, generator=generator).tolist() for _ in range(permutations)]
    added = torch.stack([torch.stack(list(_added(game, order))) for order in orders])
    return Shares(added.mean(0), added.std(0) / math.sqrt(permutations))


def _added(game: Game, order: list[int]) -> Iterator[Tensor]:
    """What each player adds to those before it, in the order of the players' numbers."""
    gains, coalition = {}, game.nobody
    for player in order:
        larger = _with(coalition, player, True)
        gains[player] = game(larger) - game(coalition)
        coalition = larger
    return (gains[player] for player in range(game.players))


def _with(coalition: Coalition, player: int, present: bool) -> Coalition:
    return (*coalition[:player], present, *coalition[player + 1 :])


def _weight(size: int, players: int) -> float:
    return math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
