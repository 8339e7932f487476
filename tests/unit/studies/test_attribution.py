"""Attribution: the truth is right, methods give what they say, claims follow the rows."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close, relative_error

from oracles import AdditivePerturbation, GaussianMixture, flow
from studies import attribution
from studies.attribution import EXACT, OURS, RETRAINED
from studies.attribution.gradients import GRADIENTS, Task, _largest_hessian
from studies.attribution.methods import METHODS
from studies.attribution.problem import SIGMA_MAX, SIGMA_MIN, Setup, true_influence
from studies.attribution.retraining import checkpoints, halves, recipe
from studies.claim_bounds import Verdict
from studies.networks import Architecture, build
from studies.study import Context

SMALL = Setup("plane", 12, 3, 0)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A small network, untrained but not trivial."""
    made = build(Architecture(width=8, depth=2), (2,), centre=SMALL.data.mean(0), scale=1.5, seed=0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made


def test_the_truth_equals_the_oracle_of_single_points() -> None:
    """Assert that influences of all points at once equal the oracle's flow, one point at a time."""
    truth = true_influence(SMALL, 400)
    for index in (0, 7):
        point = GaussianMixture.empirical(SMALL.data.numpy()[index : index + 1])
        perturbation = AdditivePerturbation(SMALL.exact, point)
        delta = flow.sensitivity(perturbation, SMALL.latents.numpy(), SIGMA_MAX, SIGMA_MIN)[1]
        assert_close(truth[:, index], delta @ SMALL.direction.numpy(), rtol=1e-5, atol=1e-7)


def test_influence_with_the_exact_score_is_the_truth(network: torch.nn.Module) -> None:
    """Assert that the engine's influences converge to the analytic ones with the grid's error only."""
    values = METHODS["influence, exact score"](SMALL, network)
    assert np.median(relative_error(values, true_influence(SMALL, 400))) < 0.02


def test_every_method_gives_one_finite_number_per_query_and_point(network: torch.nn.Module) -> None:
    """Assert shapes, and that no method changes the network it was given a copy of."""
    before = [p.detach().clone() for p in network.parameters()]
    for method in METHODS.values():
        values = method(SMALL, copy.deepcopy(network))
        assert values.shape == (3, 12)
        assert np.isfinite(values).all()
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_tracin_and_influence_functions_are_what_their_formulas_say(network: torch.nn.Module) -> None:
    """Assert that dattri's numbers equal products of gradients, without and with the inverse damped Hessian."""
    task = Task(SMALL, copy.deepcopy(network), recipe(8, 10).objective)
    params = {name: value.detach() for name, value in task.network.named_parameters()}
    train, latents = tuple(next(iter(task.train))), SMALL.latents.float()

    def flat(tree: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([value.reshape(-1) for value in tree.values()])

    points = [tuple(part[i] for part in train) for i in range(SMALL.points)]
    losses = torch.stack([flat(torch.func.grad(task.loss)(params, point)) for point in points])
    targets = torch.stack([flat(torch.func.grad(task.target)(params, (latent,))) for latent in latents])
    cosines = torch.nn.functional.normalize(targets, dim=1) @ torch.nn.functional.normalize(losses, dim=1).T
    result = GRADIENTS["gradient cosine"](task)
    assert_close(result, -cosines.numpy(), rtol=1e-4, atol=1e-5)
    product = GRADIENTS["gradient product"](task)
    assert_close(product, -(targets @ losses.T).numpy(), rtol=1e-3, atol=1e-4 * float(np.abs(product).max()))
    state = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
    twice = Task(SMALL, copy.deepcopy(network), recipe(8, 10).objective, [(state, 0.5), (state, 1.5)])
    assert_close(GRADIENTS["TracIn"](twice), 2 * product, rtol=1e-4, atol=1e-4 * float(np.abs(product).max()))
    influence = GRADIENTS["influence function, damping 0.1"](task)
    assert influence.shape == (3, 12)
    assert np.isfinite(influence).all()
    assert _largest_hessian(task) > 0


def test_checkpoints_are_states_of_the_base_run() -> None:
    """Assert that the last part of a run is near its end, that early ones differ, and that rates follow the recipe."""
    result = checkpoints(SMALL, 8, 60)
    end = halves(SMALL, 1, 1, 8, 60, None).base.state_dict()
    gaps = [max(float((state[name] - end[name]).abs().max()) for name in end) for state, _ in result]
    assert len(result) == 6
    assert set(result[0][0]) == set(end)
    assert gaps[-1] < gaps[0]
    rates = [rate for _, rate in result]
    assert max(rates) <= recipe(8, 60).rate
    assert min(rates) > 0


def test_halves_have_half_the_points_and_share_their_seed() -> None:
    """Assert that members are halves, outputs finite, and that training on all points is not among them."""
    result = halves(SMALL, 3, 2, 8, 20, None)
    assert result.members.shape == (3, 12)
    assert (result.members.sum(1) == 6).all()
    assert result.outputs.shape == (2, 3, 3)
    assert np.isfinite(result.outputs).all()


def test_the_smoke_study_runs_and_its_control_holds(tmp_path: Path) -> None:
    """Assert that rows, claims and figures come out of the smallest configuration, and the exact score ranks right."""
    config = attribution.Config.smoke()
    (cell,) = attribution.cells(config)
    rows = pd.DataFrame(attribution.run_cell(cell, Context(config, folder=tmp_path / "run")))
    assert {"analytic influence", EXACT, OURS, "TracIn"} <= set(rows["method"])
    assert rows[rows["method"] == "analytic influence"]["truth"].min() > 0.999999
    claims = attribution.claims(rows, config)
    assert claims[0].measured > 0.999
    assert claims[0].verdict is Verdict.OPEN  # four queries have no interval at 95 %
    assert set(attribution.figures(rows, config)) == {"correlations"}


def made_rows(ours: float, other: float) -> pd.DataFrame:
    """Rows in which every query has the given correlations."""
    jitter = np.random.default_rng(0).normal(0, 0.01, 40)
    rows = []
    for method, level in ((EXACT, 0.9999), (OURS, ours), ("TracIn", other), ("TRAK", 0.0), ("empirical score", other)):
        for query in range(40):
            value = min(level + jitter[query] * (method != EXACT), 1.0)
            rows.append(
                {"law": "plane", "draw": query % 4, "method": method, "query": query, "truth": value, "lds": value}
            )
    rows.append({"law": "plane", "draw": 0, "method": RETRAINED, "query": 0, "truth": np.nan, "lds": 0.9})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("ours", "other", "holds"), [(0.9, 0.5, True), (0.5, 0.9, False)])
def test_claims_follow_the_better_method(ours: float, other: float, holds: bool) -> None:
    """Assert that the comparison claims hold exactly where ours is better, and name the best gradient method."""
    control, *others = attribution.claims(made_rows(ours, other), attribution.Config())
    assert control.holds
    assert [claim.holds for claim in others] == [holds] * 3
    assert "TracIn" in others[0].statement


def test_a_wrong_sign_would_break_the_control() -> None:
    """Assert that the control fails when the engine's influences are negated."""
    rows = made_rows(0.9, 0.5)
    rows.loc[rows["method"] == EXACT, "truth"] *= -1
    assert not attribution.claims(rows, attribution.Config())[0].holds
