"""Retrained truths: made again, by another route, and through their files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from oracles import GaussianMixture
from studies.datamodelling import by_query, lds, paired
from studies.errors import StudyError
from studies.networks import stack
from studies.verification import verify
from studies.verification.attributions import exact, images, tiers, trained
from studies.verification.attributions.outputs import FUNCTIONALS, Outputs
from studies.verification.attributions.stored import Stored
from studies.verification.tasks.attribution import TASK

SHIPPED = sorted({case.law for case in TASK.cases})


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_are_small_and_of_these_data(name):
    """Assert at most 1 MB, and data and latents of the digest that was shipped."""
    from studies.training.loop import digest

    assert (tiers.FOLDER / f"{name}.npz").stat().st_size <= 1_000_000
    _images_of(name)
    setting = tiers.setting_of(name)
    assert digest(setting.data, setting.latents) == tiers.shipped(name).digest


@pytest.mark.parametrize("name", exact.SETTINGS)
def test_the_exact_truth_made_again_is_the_shipped_one(name):
    """Assert that the first halves, solved again, give the shipped outputs to half precision."""
    stored, setting = tiers.shipped(name), tiers.exact_setting(name, 0)
    again = setting.values(stored.masks[:3])
    spread = stored.values[:, 0].std(1)
    assert np.abs(again - stored.values[:, 0, :3]).max() < 5e-3 * spread.max()
    assert (stored.masks == setting.halves(len(stored.masks))).all()


@pytest.mark.parametrize("name", exact.SETTINGS)
def test_the_exact_derivative_is_that_of_differences(name):
    """Assert derivative = (output at ρ + h χ − output at ρ − h χ)/2h for the first points."""
    setting, step = tiers.exact_setting(name, 0), 1e-5
    weights = np.full(exact.POINTS, 1 / exact.POINTS)
    moved = np.stack([weights + sign * step * (np.eye(exact.POINTS)[i] - weights) for i in (0, 7) for sign in (1, -1)])
    with torch.no_grad():
        x = setting.asked.samples(setting.stacked(moved), members=4)
    values = setting.asked.of_samples("logit", x).numpy()
    known = tiers.truth(name, "logit").derivative
    assert known is not None
    assert np.allclose((values[0] - values[1]) / (2 * step), known[:, 0], rtol=1e-4, atol=1e-4)
    assert np.allclose((values[2] - values[3]) / (2 * step), known[:, 7], rtol=1e-4, atol=1e-4)


def test_the_kernel_network_is_the_posterior_mean_of_its_mixture():
    """Assert that it agrees with the oracle's mixture of isotropic kernels."""
    setting = tiers.exact_setting("exact-kernels", 0)
    data = setting.data.flatten(1).numpy()
    law = GaussianMixture.isotropic(np.full(len(data), 1 / len(data)), data, np.full(len(data), exact.BANDWIDTH**2))
    x = setting.data[:4] + 0.7 * setting.latents[:4] / 10
    mean, _ = law.posterior(x.flatten(1).numpy(), 0.7)
    score = setting.network()(x, torch.full((4,), 0.7, dtype=torch.float64))
    assert np.allclose(score.flatten(1).numpy(), mean, atol=1e-10)


@pytest.mark.slow
def test_the_derivative_of_the_run_is_that_of_differences():
    """Assert that the derivative toward the first image is that of two whole runs."""
    run, asked = trained.SETTING.recorded(), trained.SETTING.outputs()
    for number, name in enumerate(trained.FUNCTIONALS):
        known = trained.derivative(run, asked, name)[:, 0]
        assert np.corrcoef(trained.by_differences()[number], known)[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "mnist14", "fashion14"])
def test_retrained_halves_made_again_agree_with_the_shipped(name):
    """Assert that two halves, trained again here and beside fewer others, are within a tenth of the spread of seeds."""
    _images_of(name)
    stored = tiers.shipped(name)
    again = images.remade(images.SETTINGS[name], stored, rows=2, seed=0)
    spread = stored.values.std(1)[:, :2]  # over seeds
    gap = np.abs(again - stored.values[:, 0, :2]) / spread
    assert np.median(gap) < 0.01
    assert np.quantile(gap, 0.99) < 0.1


@pytest.mark.slow
def test_a_convolutional_half_made_again_agrees_with_the_shipped():
    """Assert that one half, trained again here, is within a tenth of what two seeds part it by."""
    stored, setting = tiers.shipped("digits-unet"), images.SETTINGS["digits-unet"]
    again = images.remade(setting, stored, rows=1, seed=0)
    differences = np.abs(stored.values[:, 0, :1] - stored.values[:, 1, :1]).mean((1, 2))
    gap = np.abs(again - stored.values[:, 0, :1]).mean((1, 2))
    assert (gap < 0.1 * differences).all()


@pytest.mark.parametrize("name", ["digits", "mnist14", "fashion14", "digits-unet"])
def test_samples_and_seeds_of_retrained_networks_are_sound(name):
    """Assert finite outputs of every seed, no two alike, halves of half the images, and a ceiling above one seed's."""
    _images_of(name)
    stored, setting = tiers.shipped(name), images.SETTINGS[name]
    assert stored.seeds == tuple(range(setting.seeds))
    assert (stored.masks == setting.masks).all()
    assert (stored.masks.sum(1) == setting.points // 2).all()
    assert np.isfinite(stored.values).all()
    networks = stored.of("ink").reshape(-1, setting.queries)
    assert len({each.tobytes() for each in networks}) == setting.seeds * setting.halves
    scores = np.random.default_rng(0).normal(size=(setting.queries, setting.points))
    every, single = (lds(stored.masks, values, scores).ceiling for values in (stored.of("ink"), stored.of("ink")[:2]))
    assert 1 > every >= single > 0.3


def _images_of(name):
    """Skip where a setting's images are optional and not here."""
    lacking = TASK.left_out("full")
    if any(f" of {name} " in sentence for sentence in lacking):
        pytest.skip(next(sentence for sentence in lacking if f" of {name} " in sentence))


def test_outputs_of_a_stack_are_those_of_its_members():
    """Assert that every functional is the same for networks asked together and alone."""
    setting = images.Setting("small", "digits", points=20, width=8, depth=1, steps=3, halves=2, queries=3)
    networks = setting.trained(setting.masks, 0, None)
    scale, (weights, offsets) = 0.7, (torch.randn(3, 64), torch.randn(3))
    asked = Outputs(setting.latents, setting.levels, setting.data[:3], scale, weights, offsets)
    joint = stack(networks)
    with torch.no_grad():
        for name in FUNCTIONALS:
            both = asked.of_network(name, joint, members=2)
            alone = torch.stack([asked.of_network(name, network) for network in networks])
            assert torch.allclose(both, alone, rtol=1e-3, atol=1e-4), name


def test_a_file_comes_back_as_it_was_and_a_damaged_one_is_refused(tmp_path):
    """Assert masks exact, values to half precision of a deviation, and a sentence for a torn file."""
    rng = np.random.default_rng(0)
    masks, values = rng.random((9, 13)) < 0.5, rng.normal(3.0, 2.0, (2, 3, 9, 4))
    kept = Stored("x", "d", masks, ("a", "b"), values, np.zeros((4, 1, 2, 2)), np.ones((3, 4)), np.ones(3), (0, 1, 2))
    kept.save(tmp_path / "x.npz")
    stored = Stored.load(tmp_path / "x.npz")
    assert (stored.masks == masks).all()
    assert np.abs(stored.values - values).max() < 5e-3
    assert stored.functionals == ("a", "b")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(StudyError, match=r"damaged|cannot"):
        Stored.load(tmp_path / "x.npz")


def test_paired_differences_and_queries_belong_to_the_score():
    """Assert that the mean over queries is the score, and that paired intervals are far narrower than single ones."""
    rng = np.random.default_rng(1)
    masks, scores = rng.random((300, 40)) < 0.5, rng.normal(size=(6, 40))
    outputs = masks @ scores.T + 4 * rng.normal(size=(300, 6))
    worse = scores + 0.3 * rng.normal(size=scores.shape)
    single, gap = lds(masks, outputs, scores), paired(masks, outputs, worse, scores)
    assert by_query(masks, outputs, scores).mean() == pytest.approx(single.value)
    assert gap.bounds[1] - gap.bounds[0] < 0.7 * (single.interval[1] - single.interval[0])
    assert gap.estimate < 0


def test_a_suite_without_its_truth_says_how_to_make_it():
    """Assert a sentence with the command where files are absent, and suggestions for an unknown suite."""
    empty = dataclasses.replace(TASK, cases=())
    with pytest.raises(StudyError, match=r"attributions.images` makes it"):
        empty.suite("images")
    with pytest.raises(StudyError, match="there is no suite 'image'"):
        TASK.suite("image")


def test_optional_images_that_are_absent_are_left_out_in_a_sentence(monkeypatch):
    """Assert that the suite goes without Fashion-MNIST, and that its report says how to get it, and no other's."""
    monkeypatch.setenv("XDG_DATA_DIRS", "/nowhere")
    assert {case.law for case in TASK.suite("images")} == {"digits", "mnist14"}
    (sentence,) = TASK.left_out("images")
    assert "6 problems of fashion14 are left out" in sentence
    assert "dataset-fashion-mnist" in sentence
    assert TASK.left_out("exact") == TASK.left_out("images-unet") == []
    lacking = dataclasses.replace(TASK, cases=tuple(case for case in TASK.cases if case.law == "fashion14"))
    with pytest.raises(StudyError, match="has no problem on this machine"):
        lacking.suite("images")


def test_another_array_library_is_refused_in_a_sentence():
    """Assert that networks are PyTorch's."""
    with pytest.raises(StudyError, match="gives PyTorch's"):
        verify(lambda problem: None, "attribution", backend="numpy", problems=["exact-kernels-ink"])


def test_a_report_of_attributions_has_its_table_page_figures_and_files(tmp_path):
    """Assert that scores, ceilings and the worst query are shown and stored."""

    def near(problem):
        distances = torch.cdist(problem.samples.flatten(1), problem.data.flatten(1))
        values = torch.stack([problem.functional(point.expand_as(problem.samples)) for point in problem.data], 1)
        return torch.softmax(-distances.square() / 8, 1) * (values - problem.functional(problem.samples)[:, None])

    report = verify(near, "attribution", problems=["exact-kernels-logit"], orders=False)
    assert report.table().row_count == 1
    assert set(report.figures()) == {"scores", "worst"}
    assert "ceiling" in report.to_html()
    report.save(tmp_path / "report")
    assert any("worst query" in line for line in report.findings())


def test_the_leaderboard_is_what_its_methods_answer():
    """Assert that cheap rows asked again are the published ones, and that random numbers are told from the best."""
    from studies.attribution import leaderboard

    again = leaderboard.asked(TASK.case("digits-ink"), ("nearest points", "random"))
    known = {row["method"]: row for row in leaderboard.entries() if row["problem"] == "digits-ink"}
    for row in again:
        assert row["lds"] == pytest.approx(known[row["method"]]["lds"], abs=1e-3)
    assert known["random"]["behind"][2] < 0
    assert len(leaderboard.table("digits")) == len({row["method"] for row in leaderboard.entries()})


def test_a_method_asked_alone_stands_beside_the_rows_that_are_kept():
    """Assert the published rows, and that where the new one is the best all are held against it."""
    from studies.attribution import leaderboard

    case = TASK.case("exact-features-ink")
    kept = [row for row in leaderboard.entries() if row["problem"] == case.name]
    whole = leaderboard.joined(case, ("random",), kept)
    assert [row["method"] for row in whole] == [row["method"] for row in kept]
    known, value = (next(row for row in rows if row["method"] == "random") for rows in (kept, whole))
    assert value["lds"] == pytest.approx(known["lds"], abs=1e-3)
    assert value["behind"] == pytest.approx(known["behind"], abs=1e-3)
    alone = {**known, "behind": [0.0, 0.0, 0.0]}
    best = kept[0]["method"]
    first, last = leaderboard.joined(case, (best,), [alone])
    assert (first["method"], first["behind"]) == (best, [0.0, 0.0, 0.0])
    assert last["behind"] == pytest.approx(known["behind"], abs=1e-3)


def test_an_exchange_says_what_the_second_has_more():
    from studies.attribution import exchange

    pair = exchange.Exchange("what is near", "nothing", "distances", "random", "nearest points")
    (row,) = exchange.exchanged(TASK.case("digits-ink"), [pair])
    gain, low, high = row["gain"]
    assert gain == pytest.approx(row["lds_second"] - row["lds_first"], abs=2e-4)
    assert 0.3 < low < gain < high
    (turned,) = exchange.exchanged(TASK.case("digits-ink"), [pair._replace(first=pair.second, second=pair.first)])
    assert turned["gain"][0] == pytest.approx(-gain, abs=1e-4)


def test_the_published_exchanges_name_known_methods_and_their_scores():
    from studies.attribution import exchange, leaderboard
    from studies.attribution.attributors import ATTRIBUTORS

    assert {name for each in exchange.EXCHANGES for name in (each.first, each.second)} <= set(ATTRIBUTORS)
    published = json.loads(exchange.TABLE.read_text())["rows"]
    known = {(row["problem"], row["method"]): row.get("lds") for row in leaderboard.entries()}
    assert {row["problem"] for row in published} == set(exchange.PROBLEMS)
    for row in published:
        for side in ("first", "second"):
            assert known[row["problem"], row[side]] == pytest.approx(row[f"lds_{side}"], abs=2e-3)
    assert len(exchange.table()) == len({(row["ingredient"], row["before"], row["after"]) for row in published})
