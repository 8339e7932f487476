"""The study `low_noise`: its data, measures, onset and claims on made-up networks, and a run from end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from support.close import assert_close

from oracles import GaussianMixture
from oracles.empirical import EmpiricalLaw
from studies import data as images
from studies.bridge import ExactLaw
from studies.low_noise import Config, cells, figures, measures, reading, run_cell
from studies.low_noise.claims import claims
from studies.low_noise.comparison import shares
from studies.low_noise.config import GEOMETRIES, IMAGES, LARGEST, LEVELS, OBJECTIVES, Part
from studies.low_noise.onset import crossing, onset, scaling
from studies.low_noise.problem import LAWS, Problem
from studies.low_noise.references import Memory, optimum
from studies.low_noise.verdicts import verdict
from studies.runner import run
from studies.study import Context
from studies.training import blind_optimum

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("geometry", [*LAWS, "digits", "faces12"])
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
        value, law = Memory(torch.as_tensor(data)), EmpiricalLaw(data)
        values = value.denoiser(torch.as_tensor(x), sigma).numpy()
        assert_close(values, np.asarray(law.denoiser(x, sigma)), rtol=1e-8, atol=1e-10)
        density = value.log_density(torch.as_tensor(x), sigma).numpy()
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


def test_what_is_not_told_sigma_has_the_blind_optimum_of_its_data():
    """Assert that the shared-distance form agrees with the general one on the same points as a mixture."""
    points, x = RNG.standard_normal((12, 2)), torch.as_tensor(RNG.standard_normal((5, 2)))
    noise = Config.quick().recipe("blind", 0.7).objective
    law = ExactLaw(GaussianMixture.empirical(points))
    expected = blind_optimum(law, noise, 0.7)(x, torch.tensor(0.1))
    assert_close(optimum(Memory(torch.as_tensor(points)), noise, 0.7)(x, 0.1), expected, rtol=1e-9, atol=1e-12)


def test_the_memory_takes_one_noise_level_for_each_state():
    """Assert that levels given one by one change nothing."""
    law, x = Memory(torch.as_tensor(RNG.standard_normal((9, 3)))), torch.as_tensor(RNG.standard_normal((2, 3)))
    both = law.denoiser(x, torch.tensor([0.3, 2.0], dtype=torch.float64))
    assert_close(both, torch.cat([law.denoiser(x[:1], 0.3), law.denoiser(x[1:], 2.0)]), rtol=1e-9, atol=1e-12)


def test_the_data_part_takes_the_seeds_out_whatever_they_do():
    """Assert e = |μ_A − μ_B|/size on average, under seed noise ten times as large and shared by A and B."""
    shift, noise = torch.full((4000, 2), 0.1), torch.as_tensor(RNG.standard_normal((3, 2, 4000, 2))).float()
    a, a2 = noise[0, 0] + 0.1 * noise[1, 0], noise[0, 1] + 0.1 * noise[1, 1]
    b, b2 = noise[0, 0] + shift + 0.1 * noise[2, 0], noise[0, 1] + shift + 0.1 * noise[2, 1]
    portions = shares(torch.stack([a, a2, b, b2]), 2.0)
    assert_close(portions["data_part"], 0.02**0.5 / 2, rtol=0.05)
    assert portions["within"] > 0.9
    swapped = shares(torch.stack([a, b2, b, a2]), 2.0)
    assert swapped["data_square"] < 0


def test_the_best_scale_undoes_an_overshoot():
    """Assert that a prediction of ten times the size has the scale .1."""
    observed = torch.as_tensor(RNG.standard_normal((5, 2)))
    assert_close(measures.scale(observed, 10 * observed), 0.1, rtol=1e-12)
    assert measures.explained(observed, 10 * observed) < 0


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


def test_the_scaling_law_is_each_replicates_own():
    """Assert the mean of two slopes, an interval about it, and that `among` confines the fit."""
    n = np.array([1.0, 10.0, 100.0, 1000.0])
    result = scaling({int(k): np.array([k**-0.4, 2 * k**-0.6]) for k in n})
    assert result is not None
    assert result.used == (1, 10, 100, 1000)
    assert_close(result.slope.estimate, -0.5, rtol=1e-9)
    assert result.slope.low < -0.6 < -0.4 < result.slope.high
    assert scaling({int(k): np.ones(2) for k in n}, (1, 10)) is None


def made_up(*, seeds: float = 0.01, falls: bool = True, high: float = 0.01) -> pd.DataFrame:
    """Rows of a world where data part networks below σ = N^{-1/2} and seeds differ by `seeds`."""
    values = []
    for n in (1, 10, 100, 1000):
        top = 1.5 * (n**-0.5 if falls else 0.03)
        for r in range(4):
            rng = np.random.default_rng((r, n))
            for level in LEVELS:
                data = min(high * (3 / level) ** 0.01 if level > top else 0.1 * top / level, 1.0)
                data *= float(np.exp(0.05 * rng.standard_normal()))
                within = seeds * float(np.exp(0.05 * rng.standard_normal()))
                cross = float(np.hypot(data, within) * np.exp(0.02 * rng.standard_normal()))
                row = {"cross": cross, "within": within, "data_part": data, "data_square": data**2, "empirical": data}
                row |= {"finite_cosine": 0.6 + 0.01 * r, "finite_cosine_wrong": 0.1, "finite": 1.0, "place": n**-0.1}
                row |= {"finitefull_explained": 0.3 + 0.01 * r, "relative_error": 0.1, "reproduced": 0.5}
                place = {"kind": "level", "states": "on", "level": level, "N": n, "replicate": r, "length": 1}
                values += [row | place | {"geometry": "spiral", "objective": o} for o in ("edm", "blind")]
    return pd.DataFrame(values)


def held(rows: pd.DataFrame) -> dict[str, bool]:
    """Whether each claim holds, by its first words."""
    return {claim.statement: claim.holds for claim in claims(rows, Config.quick())}


def test_in_a_world_as_the_paper_says_every_claim_holds():
    """Assert that agreement, divergence, falling onset, placing, predicting and finiteness all hold there."""
    assert all(held(made_up()).values())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"seeds": 50.0}, "data and not seeds"),
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
    rows["data_square"] = rows["cross"] ** 2 - rows["within"] ** 2
    rows["data_part"] = np.sqrt(np.maximum(0, rows["data_square"]))
    value = rows[(rows["objective"] == "edm") & (rows["N"] == 10)]
    assert np.isnan(onset(value).level)


def test_the_verdict_tells_data_from_seeds_and_from_too_little_evidence():
    """Assert data at a ratio of 2, seed at 1.02, open where replicates scatter about 1.1."""
    low = pd.DataFrame(
        [{"kind": "level", "states": "on", "level": 0.01, "replicate": r, "within": 1.0} for r in range(3)]
    )
    cases = {"data": [2.0, 2.1, 1.9], "seed": [1.02, 1.01, 1.03], "open": [1.0, 1.1, 1.3]}
    assert all(verdict(low.assign(cross=values)).what == what for what, values in cases.items())


def test_every_level_has_cells_and_the_paper_has_all_of_the_grid():
    """Assert unique names, every geometry with every objective in `paper()`, and what `full()` may not leave out."""
    for make in (Config.smoke, Config.quick, Config.full, Config.paper):
        names = [cell.name for cell in cells(make())]
        assert len(names) == len(set(names))
    paper = [Part.of(text) for text in Config.paper().grid]
    assert {(p.geometry, p.objective) for p in paper} == {(g, o) for g in (*GEOMETRIES, *IMAGES) for o in OBJECTIVES}
    assert all(p.counts[-1] == LARGEST.get(p.geometry, 100_000) for p in paper)
    full = {(p.geometry, p.objective) for p in map(Part.of, Config.full().grid)}
    assert full >= {(g, o) for g in GEOMETRIES for o in OBJECTIVES} | {(g, "edm") for g in IMAGES}
    with pytest.raises(ValueError, match="is not known"):
        Config.quick().recipe("gan", 1.0)


def test_no_network_is_looked_at_above_its_training_noise():
    """Assert that blind networks stop at 3τ, as their training does, and the others at 30τ."""
    config = Config.full()
    for objective in OBJECTIVES:
        noise = config.recipe(objective, 1.0).objective
        top = noise.high if noise.noise == "levels" else np.exp(noise.mean + 2 * noise.spread)
        assert config.levels_of(objective)[0] <= 1.01 * top
    assert config.levels_of("blind") == LEVELS[2:]


def test_images_that_are_not_here_are_said_to_be_skipped(monkeypatch, tmp_path):
    """Assert one row with the reason, and that claims and figures go on without."""

    def missing() -> images.Raw:
        raise FileNotFoundError("images 'fashion' are optional and not on this machine")

    monkeypatch.setitem(images.LOADERS, "fashion14", missing)
    config = Config(("fashion14/edm/10",))
    rows = run_cell(cells(config)[0], Context(config, folder=tmp_path / "x"))
    assert [(row["kind"], "optional" in row["why"]) for row in rows] == [("skipped", True)]
    assert len(claims(pd.concat([made_up(), pd.DataFrame(rows)]), Config.quick())) > 5


def test_the_smoke_run_ends_with_claims_and_figures(tmp_path):
    """Assert that every cell finishes, and that claims and described figures come out."""
    result = run("low_noise", "smoke", out=tmp_path, workers=0)
    assert not result.failures
    assert set(result.rows["kind"]) == {"level", "ends", "jacobian", "attractors", "loss", "path"}
    assert len(result.claims) > 2
    drawn = figures(result.rows, Config.smoke())
    assert set(drawn) >= {
        "disagreement",
        "objectives",
        "data-part",
        "onset",
        "verdicts",
        "place",
        "accuracy",
        "prediction",
    }
    assert all(len(drawing.alt) > 60 for drawing in drawn.values())
    tables = (
        "judged",
        "scaling_laws",
        "crossings",
        "training",
        "ladder",
        "by_states",
        "dynamics",
        "predictions",
        "paths",
    )
    assert all(len(getattr(reading, name)(result.rows)) for name in tables if name != "ladder")


def test_the_ladder_pairs_the_usual_length_with_the_longer_one():
    """Assert a line for each length at the N that were trained longer, and a claim that sees the gain."""
    usual = made_up()
    longer = usual[(usual["N"] == 1000) & (usual["objective"] == "edm")].assign(length=4)
    longer["within"] = longer["within"] / 3
    rows = pd.concat([usual, longer])
    assert reading.ladder(rows)["times the steps"].tolist() == [1, 4]
    assert [claim.holds for claim in claims(rows, Config.quick()) if "4 times as long" in claim.statement] == [True]
