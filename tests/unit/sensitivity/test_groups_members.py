"""Groups of the training data and what is done to them: masses by hand, and refusals in words."""

from __future__ import annotations

import pytest
import torch
from support.close import assert_close

from sensitivity import Groups, Points

DATA = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
POINTS = Points(DATA, WEIGHTS)


def weights_after(change, groups, members):
    """The data's weights once η has moved toward the group's law."""
    law = torch.zeros(5, dtype=torch.float64)
    law[members] = groups.law(change.name).weights
    return (1 - change.eta) * WEIGHTS + change.eta * law


@pytest.mark.parametrize(("edit", "factor"), [("removed", 0.0), ("halved", 0.5), ("doubled", 2.0), (3.5, 3.5)])
def test_a_mass_moved_multiplies_the_weights_of_the_group(edit, factor):
    """Assert that mass η toward the group's law is the law of multiplied weights."""
    members = [1, 3]
    groups = Groups(POINTS, {"g": members}, edit)
    wanted = WEIGHTS.clone()
    wanted[members] *= factor
    assert_close(weights_after(groups.changes()[0], groups, members), wanted / wanted.sum(), rtol=1e-14)


def test_several_multipliers_together_are_masses_toward_each_law():
    """Assert the masses of two groups at once against weights that are multiplied and normalised."""
    groups = Groups(POINTS, {"a": [0, 1], "b": [2, 4]})
    eta = groups.moved(torch.tensor([0.5, 3.0]))
    moved = (1 - eta.sum()) * WEIGHTS
    for mass, name, members in zip(eta, groups.names, ([0, 1], [2, 4]), strict=True):
        moved[members] += mass * groups.law(name).weights
    wanted = WEIGHTS * torch.tensor([0.5, 0.5, 3.0, 1.0, 3.0])
    assert_close(moved, wanted / wanted.sum(), rtol=1e-14)


def test_labels_masks_and_indices_say_the_same():
    """Assert one group of each kind."""
    by_label = Groups(DATA, torch.tensor([0, 1, 0, 1, 1]))
    by_mask = Groups(DATA, {0: [True, False, True, False, False], 1: torch.tensor([1, 3, 4])})
    assert by_label.names == by_mask.names == (0, 1)
    assert torch.equal(by_label.masks, by_mask.masks)
    assert_close(by_label.masses, torch.tensor([0.4, 0.6], dtype=torch.float64), rtol=1e-12)


def test_edited_points_take_the_mass_of_the_old():
    """Assert that an edit moves the group's mass toward the new points and away from the old, said in two ways."""
    new = DATA[[1, 2]] + 0.5
    groups = Groups(POINTS, {"g": [1, 2]}, {"g": new})
    change = groups.changes()[0]
    assert change.eta == pytest.approx(0.5)
    (up, after), (down, before) = change.perturbation.masses
    assert (up, down) == (1.0, -1.0)
    assert torch.equal(after.data, new)
    assert torch.equal(before.data, DATA[[1, 2]])
    assert_close(after.weights, torch.tensor([0.6, 0.4], dtype=torch.float64), rtol=1e-12)
    moved = groups.changes(moves=True)[0]
    assert moved.eta == pytest.approx(0.5)
    assert_close(moved.perturbation.displacement, torch.full_like(new, 0.5), rtol=1e-12)


@pytest.mark.parametrize(
    ("members", "edits", "kind", "words"),
    [
        ({}, "removed", ValueError, "members is empty"),
        ("abcde", "removed", TypeError, "members is a str"),
        (torch.rand(5), "removed", TypeError, "integer labels"),
        ([0, 1], "removed", ValueError, "2 labels for 5 points"),
        ({"a": []}, "removed", ValueError, "is empty; give at least one point"),
        ({"a": [7]}, "removed", ValueError, "beyond 0 … 4"),
        ({"a": [1, 1]}, "removed", ValueError, "names a point twice"),
        ({"a": [0.5]}, "removed", TypeError, "give a mask"),
        ({"a": "x"}, "removed", TypeError, "give a mask or a list"),
        ({"a": [True, False]}, "removed", ValueError, "a mask of 2 for 5"),
        ({"a": [0, 1, 2, 3, 4]}, "removed", ValueError, "leaves nothing"),
        ({"a": [0, 1, 2, 3, 4]}, "doubled", ValueError, "changes nothing"),
        ({"a": [0]}, "gone", ValueError, "edits\\['a'\\]='gone' is unknown"),
        ({"a": [0]}, 1, ValueError, "other than 1"),
        ({"a": [0]}, -0.5, ValueError, "finite number ≥ 0"),
        ({"a": [0]}, float("nan"), ValueError, "finite number ≥ 0"),
        ({"a": [0]}, True, TypeError, "edits\\['a'\\] is a bool"),
        ({"a": [0]}, {"b": "removed"}, ValueError, "edits and members differ"),
        ({"a": [0, 1]}, torch.zeros(3, 1).double(), ValueError, "edits\\['a'\\] has shape"),
    ],
)
def test_what_is_no_group_is_refused(members, edits, kind, words):
    """Assert an error that quotes the argument."""
    with pytest.raises(kind, match=words):
        Groups(DATA, members, edits)


def test_points_without_weight_are_no_group():
    """Assert that a group of weight 0 is refused: a change of weights would do nothing."""
    with pytest.raises(ValueError, match="weight 0 alone"):
        Groups(Points(DATA, torch.tensor([0.0, 1, 1, 1, 1]).double()), {"a": [0]})
