"""The study `low_noise`: its data, measures, onset and claims on made-up networks, and a run from end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from oracles.empirical import EmpiricalLaw
from studies.low_noise import Config, cells, figures, measures
from studies.low_noise.claims import claims
from studies.low_noise.config import LEVELS
from studies.low_noise.onset import crossing, onset, scaling
from studies.low_noise.problem import LAWS, Problem
from studies.low_noise.references import Memory
from studies.runner import run

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("geometry", [*LAWS, "digits"])
def test_sets_are_disjoint_nested_and_fresh_data_are_unseen(geometry):
    """Assert that A, B and fresh data share no row, that smaller sets are parts of larger, that normals are unit."""
    problem = Problem.of(geometry, 20, 2)
    for rows in problem.rows:
        together = torch.cat([rows["A"], rows["B"], rows["fresh"]])
        assert len(together) == len(together.unique())
    assert_close(problem.set_of(1, "B", 5), problem.set_of(1, "B", 20)[:5])
    assert_close(problem.weights(0, "A", 20) @ problem.pool, problem.set_of(0, "A", 20).mean(0), rtol=1e-9, atol=1e-12)
    assert_close(problem.normal(problem.fresh(0, 3)).norm(dim=-1), torch.ones(3, dtype=torch.float64), rtol=1e-9)


def test_an_unknown_geometry_and_too_many_images_are_refused():
    """Assert the sentences."""
    with pytest.raises(ValueError, match="is not known: choose one of"):
        Problem.of("torus", 5, 1)
    with pytest.raises(ValueError, match="too few for two sets"):
        Problem.of("digits", 900, 1)


def test_the_memory_is_the_oracles_empirical_law():
    """Assert that density and denoiser of the engine's points agree with the oracle down to σ = .001."""
    data, x = RNG.standard_normal((30, 100)), RNG.standard_normal((4, 100))
    for sigma in (1.0, 0.1, 0.001):
        own, law = Memory(torch.as_tensor(data)), EmpiricalLaw(data)
        found = own.denoiser(torch.as_tensor(x), sigma).numpy()
        assert_close(found, np.asarray(law.denoiser(x, sigma)), rtol=1e-8, atol=1e-10)
        density = own.log_density(torch.as_tensor(x), sigma).numpy()
        assert_close(density, np.asarray(law.noised(sigma).log_density(x)), rtol=1e-9)


def test_the_place_of_a_mixture_of_both_references_is_its_share():
    """Assert 0 at the population, 1 at the empirical denoiser, .3 on the way, whatever is orthogonal to it."""
    d, e = torch.as_tensor(RNG.standard_normal((2, 50, 3)))
    assert measures.place(d, d, e) == 0
    assert_close(measures.place(e, d, e), 1.0, rtol=1e-12)
    assert_close(measures.place(d + 0.3 * (e - d), d, e), 0.3, rtol=1e-12)


def test_the_halfway_prediction_is_exact_for_empirical_denoisers():
    """Assert that D of the union minus D of A is `g (E_B − E_A)`; with r upside down it is not."""
    a, b, x = (torch.as_tensor(RNG.standard_normal((n, 2))) for n in (8, 8, 20))
    one, two, both = Memory(a), Memory(b), Memory(torch.cat([a, b]))
    log_ratio = two.log_density(x, 0.5) - one.log_density(x, 0.5)
    observed = both.denoiser(x, 0.5) - one.denoiser(x, 0.5)
    right = measures.halfway(one.denoiser(x, 0.5), two.denoiser(x, 0.5), log_ratio)
    wrong = measures.halfway(one.denoiser(x, 0.5), two.denoiser(x, 0.5), -log_ratio)
    assert_close(right, observed, rtol=1e-9, atol=1e-12)
    assert measures.explained(observed, right) > 1 - 1e-9 > measures.explained(observed, wrong)


def test_the_data_part_takes_the_seeds_out_in_squares():
    """Assert √(5² − 4²)/2 and 0 where seeds differ by more than data."""
    assert_close(measures.data_part(5.0, 4.0, 2.0), 1.5)
    assert measures.data_part(4.0, 5.0, 2.0) == 0


def test_limits_are_counted_once():
    """Assert that points within the tolerance count as one."""
    assert measures.distinct(torch.tensor([[0.0], [0.01], [1.0], [1.02]]), 0.1) == 2


def test_a_crossing_must_last():
    """Assert that one level above δ is no onset, that never is NaN and always inf."""
    levels = np.array([1.0, 0.1, 0.01, 0.001])
    assert_close(crossing(levels, np.array([0.2, 0.01, 0.2, 0.3])), 10 ** (-1 - np.log(10) / np.log(20)), rtol=1e-9)
    assert np.isnan(crossing(levels, np.full(4, 0.05)))
    assert np.isinf(crossing(levels, np.full(4, 0.5)))


def test_no_scaling_law_is_fitted_to_two_counts():
    """Assert that N not crossed by all replicates are left out, and that two are not enough."""
    assert scaling({1: np.array([np.inf, 1.0]), 10: np.ones(2), 100: np.ones(2)}) is None


def made_up(*, seeds: float = 0.01, falls: bool = True, high: float = 0.01) -> pd.DataFrame:
    """Rows of a world where data part networks below σ = N^{-1/2} and seeds differ by `seeds`."""
    found = []
    for n in Config.quick().counts:
        top = 1.5 * (n**-0.5 if falls else 0.03)
        for r in range(4):
            rng = np.random.default_rng((r, n))
            for level in LEVELS:
                data = min(high * (3 / level) ** 0.01 if level > top else 0.1 * top / level, 1.0)
                data *= float(np.exp(0.05 * rng.standard_normal()))
                within = seeds * float(np.exp(0.05 * rng.standard_normal()))
                cross = float(np.hypot(data, within) * np.exp(0.02 * rng.standard_normal()))
                row = {"cross": cross, "within": within, "data_part": data, "empirical": data, "place": n**-0.1}
                row |= {"finite_cosine": 0.6 + 0.01 * r, "finite_cosine_wrong": 0.1, "finite": 1.0}
                place = {"kind": "level", "states": "on", "level": level, "N": n, "replicate": r}
                found += [row | place | {"geometry": "spiral", "objective": o} for o in ("edm", "blind")]
    return pd.DataFrame(found)


def held(rows: pd.DataFrame) -> dict[str, bool]:
    """Whether each claim holds, by its first words."""
    return {claim.statement: claim.holds for claim in claims(rows, Config.quick())}


def test_in_a_world_as_the_paper_says_every_claim_holds():
    """Assert that agreement, divergence, falling onset, placing, predicting and finiteness all hold there."""
    assert all(held(made_up()).values())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"seeds": 50.0}, "differ by more than seeds"),
        ({"falls": False}, "the onset falls"),
        ({"high": 0.5}, "agree at 3τ"),
    ],
)
def test_a_planted_contradiction_breaks_its_claim(fault, words):
    """Assert that seeds as large as data, an onset that stays, and disagreement at high noise each fail."""
    assert not any(holds for statement, holds in held(made_up(**fault)).items() if words in statement)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("place", 1.0, "the place"), ("finite_cosine_wrong", 0.9, "wrong data"), ("finite", 0.0, "all finite")],
)
def test_a_planted_column_breaks_its_claim(column, value, words):
    """Assert that a place that stays, a control as good as the prediction, and a NaN are seen."""
    rows = made_up()
    rows[column] = value
    assert not any(holds for statement, holds in held(rows).items() if words in statement)


def test_the_onset_test_needs_the_control():
    """Assert that equal distances of A, B and A, A′ give no onset although both are large."""
    rows = made_up()
    rows["within"] = rows["cross"] * np.exp(0.1 * RNG.standard_normal(len(rows)))
    rows["data_part"] = np.sqrt(np.maximum(0, rows["cross"] ** 2 - rows["within"] ** 2))
    own = rows[(rows["objective"] == "edm") & (rows["N"] == 10)]
    assert np.isnan(onset(own).level)


def test_every_level_has_cells_and_the_paper_has_all_of_the_grid():
    """Assert unique names, and four objectives for ten geometries in `paper()`."""
    for make in (Config.smoke, Config.quick, Config.full, Config.paper):
        names = [cell.name for cell in cells(make())]
        assert len(names) == len(set(names))
    assert len(cells(Config.paper())) == 40
    assert {cell.parameters["objective"] for cell in cells(Config.full())} == {"edm", "denoising", "blind", "sliced"}
    assert Config.full().counts_of("digits") == (1, 10, 100, 800)
    with pytest.raises(ValueError, match="is not known"):
        Config.quick().recipe("gan", 1.0)


def test_the_smoke_run_ends_with_claims_and_figures(tmp_path):
    """Assert that every cell finishes, and that claims and described figures come out."""
    result = run("low_noise", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    assert set(result.rows["kind"]) == {"level", "ends", "jacobian", "attractors"}
    assert len(result.claims) > 2
    drawn = figures(result.rows, Config.smoke())
    assert set(drawn) == {"disagreement", "onset", "place", "accuracy", "prediction"}
    assert all(len(drawing.alt) > 60 for drawing in drawn.values())
