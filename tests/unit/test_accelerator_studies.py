"""Attribution truths and photographs on an accelerator, rehearsed.

That they are the studies' own runs, and that a lack of time or a failure costs what is unfinished only.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from accelerator_parts import attributions, photographs, plan
from accelerator_parts.plan import Setting
from accelerator_parts.store import Store
from accelerator_parts.together import by_windows
from support import pretend_device
from support.close import assert_close

from sensitivity import GaussianAnchor
from studies.photographs import networks, training
from studies.photographs.cells import network_row, quantity_rows
from studies.study import Context
from studies.training import Batches
from studies.verification.attributions import images
from studies.verification.attributions.stored import Stored

POOL = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
SHAPE = networks.Shape(channels=(8, 16))


def test_draws_for_all_networks_at_once_are_those_of_the_trainer() -> None:
    """Assert equal bits of data, levels and noise, for halves, equal weights and other weights, over two epochs."""
    half = torch.zeros(30, dtype=torch.float64)
    half[::2] = 1 / 15
    weights, seeds = (half, None, torch.linspace(1, 2, 30), half), (0, 0, 1, 1)
    value, other = (kind(POOL, weights, seeds, 8) for kind in (attributions.Batched, Batches))
    for step in range(9):
        for each, expected in zip(value.draw(step), other.draw(step), strict=True):
            assert torch.equal(each, expected)


@pytest.mark.parametrize("own", attributions.TINY, ids=["perceptrons", "convolutional"])
def test_truths_made_together_are_the_module_s(own: images.Setting) -> None:
    """Assert outputs of every half and seed, and the reference samples, to rounding."""
    made, _ = attributions.made(own, own.seeds, "cpu", 1e9)
    assert_close(torch.from_numpy(made.reference), own.outputs().reference, rtol=0.0, atol=1e-5)
    for seed in range(own.seeds):
        expected = images.remade(own, made, own.halves, seed)
        assert np.abs(made.values[:, seed] - expected).max() < 1e-5 * np.abs(expected).max()
    assert len({each.tobytes() for each in made.values[0, :, 0]}) == own.seeds


def test_convolutions_are_products_of_windows() -> None:
    """Assert conv2d's values and gradients, and a sentence for a convolution that changes the size."""
    x, weight, bias = (torch.randn(shape, requires_grad=True) for shape in ((2, 3, 5, 6), (4, 3, 3, 3), (4,)))
    result, expected = by_windows(x, weight, bias, 1, 1), torch.nn.functional.conv2d(x, weight, bias, 1, 1)
    assert_close(result.detach(), expected.detach(), rtol=1e-5, atol=1e-5)
    other = torch.randn_like(expected)
    gradients = (torch.autograd.grad(value, (x, weight, bias), other) for value in (result, expected))
    for each, wanted in zip(*gradients, strict=True):
        assert_close(each, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="keep the image's size"):
        by_windows(x, weight, bias, 2, 1)


def test_truths_are_written_as_the_tier_ships_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert files that say their device, of all seeds and, where the time is short, of as many as fit."""
    one = attributions.TINY[0]
    monkeypatch.setattr(attributions, "TINY", (one,))
    store = Store(tmp_path, {})
    (ended,) = plan.run(attributions.JOBS, Setting("cpu", True, tmp_path), 60, store)
    assert ended.verdict == "done"
    kept = Stored.load(tmp_path / "mlp.npz")
    assert (kept.device, kept.seeds, kept.values.shape) == ("cpu", (0, 1), (6, 2, 3, 2))
    assert "ink: module on the processor" in set(store.frame()["quantity"])
    made, tried = attributions.made, []

    def short(setting: images.Setting, seeds: int, *rest: object) -> object:
        tried.append(seeds)
        if seeds > 1:
            raise attributions.Slow(99.0)
        return made(setting, seeds, *rest)

    monkeypatch.setattr(attributions, "made", short)
    rows = list(attributions.work(Setting("cpu", True, tmp_path)))
    assert tried == [2, 1]
    assert rows[0]["quantity"] == "2 seeds: too slow"
    assert Stored.load(tmp_path / "mlp.npz").seeds == (0,)


def test_a_run_that_would_take_too_long_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert the exception as soon as the time of a step is known."""
    monkeypatch.setattr(attributions, "SETTLED", 2)
    monkeypatch.setattr(attributions, "TIMED", 2)
    with pytest.raises(attributions.Slow):
        attributions.made(replace(attributions.TINY[0], steps=10**6), 1, "cpu", 0.5)


def _feed() -> photographs.Labelled:
    pool, groups = torch.rand(20, 3, 8, 8), torch.arange(20)
    return photographs.Labelled(pool, groups, 99, 50, seed=0)


def test_labels_are_those_of_the_drawn_patches() -> None:
    """Assert that a label that is not hidden is its patch's, and that the study's share is hidden."""
    feed, hidden = _feed(), 0
    for step in range(40):
        feed.draw(step, rate=0.0, kept=0.0)
        shown = feed.labels != 99
        assert torch.equal(feed.labels[shown], feed.rows[0][shown])
        hidden += int((~shown).sum())
    assert abs(hidden / 2000 - training.DROPPED) < 4 * (0.24 / 2000) ** 0.5


def test_the_parameters_of_the_lowest_held_out_loss_are_kept() -> None:
    """Assert them of a run whose loss rises after its third point, and that the learner is the study's denoiser."""
    feed = photographs.Labelled(torch.rand(6, 3, 8, 8), torch.arange(6), 9, 2, seed=0)
    network = networks.build(replace(SHAPE, size=8), 0)
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 2.0])
    learner = photographs.Learner(network, 0.5, feed.labels)
    assert torch.equal(learner(x, sigma), networks.Denoiser(network, 0.5, feed.labels)(x, sigma))
    trainer, _ = photographs._trainer(network, feed, 0.5)
    losses, seen = iter([3.0, 2.0, 1.0, 4.0, *range(5, 11)]), []

    def held_out() -> float:
        seen.append(trainer.average.clone())
        return next(losses)

    curve, best = photographs._descend(trainer, feed, 10, 1e-3, held_out)
    assert [step for step, _ in curve] == list(range(1, 11))
    assert torch.equal(best, seen[2])
    assert not torch.equal(best, seen[-1])


def test_the_moments_left_for_the_study_are_those_that_it_would_take(tmp_path: Path) -> None:
    """Assert the log density and score of `GaussianAnchor.from_data`, for a model that finds them in the cache."""
    data = torch.randn(40, 1, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 4)
    context = Context(photographs.config(tiny=True), folder=tmp_path / "run")
    photographs.moments(data, context.cache)
    kept = list((tmp_path / "cache").glob("anchor*"))
    result = photographs.LentBench(context, None).model("pixels")._anchor(data)
    assert kept
    assert list((tmp_path / "cache").glob("anchor*")) == kept
    expected, x = GaussianAnchor.from_data(data), torch.randn(5, 1, 3, 4)
    assert_close(result.score(x, torch.tensor(0.2)), expected.score(x, torch.tensor(0.2)), rtol=1e-3, atol=1e-4)
    assert_close(result.log_density(x, 0.2), expected.log_density(x, 0.2), rtol=1e-4, atol=0.0)


def test_a_quantity_that_fails_or_does_not_fit_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert rows that say so, claims on the rest, and that the plan's own end is passed on."""
    row = {"kind": "network", "model": "pixels"} | dict.fromkeys(
        ("parameters", "held_out_loss", "train_loss", "gaussian_loss", "kernel_loss"), 1.0
    )
    run = {
        "kind": "run", "model": "pixels", "quantity": "log density", "setting": "base", "outcomes": "FINISHED 1",
        "sizes": [1.0], "finite": 1, "samples": 1,
    }  # fmt: skip

    def rows(model: object, quantity: str) -> list[dict]:
        if quantity == "kernel":
            raise RuntimeError("planted")
        return [run]

    monkeypatch.setattr(photographs, "network_row", lambda *_: row)
    monkeypatch.setattr(photographs, "quantity_rows", rows)
    context = Context(photographs.config(tiny=True), folder=Path("nowhere") / "run")
    bench = photographs.LentBench(context, networks.build(SHAPE, 0))
    values = [each.get("quantity") for each in photographs._measured(bench, Setting("cpu", False, None, budget=30.0))]
    assert values.count("left out, no time") == 1  # the exact trace
    assert values.count("failed") == 2
    assert any("share of finite results" in str(each) for each in values)

    def ended(*_: object) -> list[dict]:
        raise TimeoutError

    monkeypatch.setattr(photographs, "quantity_rows", ended)
    with pytest.raises(TimeoutError):
        list(photographs._measured(bench, Setting("cpu", False, None)))


def test_optional_packages_that_break_the_import_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert a second try without them."""
    tried: list[bool] = []

    def build(*_: object) -> None:
        tried.append(sys.modules.get("peft", "absent") is None)
        if len(tried) == 1:
            raise RuntimeError("planted")

    monkeypatch.setattr(photographs.networks, "build", build)
    monkeypatch.setattr(photographs.sys, "modules", {"diffusers": ModuleType("diffusers")})
    photographs.importable()
    assert tried == [False, True]


@pytest.mark.slow
@pytest.mark.skipif(not pretend_device.AVAILABLE, reason="private parts of torch are missing")
def test_photographs_are_measured_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert, on a device that refuses mixing, losses, log densities and sensitivities by kernels."""
    monkeypatch.setattr(pretend_device.PretendTensor, "tolist", lambda own: own.inner.tolist())
    with pretend_device.pretend_device() as move:
        network = networks.build(SHAPE, 0)
        for module in network.modules():
            for name, value in module._parameters.items():
                module._parameters[name] = torch.nn.Parameter(move(value.data), requires_grad=False)
        context = Context(photographs.config(tiny=True), pretend_device.NAME, tmp_path / "run")
        bench = photographs.LentBench(context, network)
        assert network_row(bench, "pixels")["held_out_loss"] > 0
        assert {each["kind"] for each in quantity_rows(bench.model("pixels"), "density")} == {"run", "agreement"}
        assert "picture" in {each["kind"] for each in quantity_rows(bench.model("pixels"), "kernel")}


@pytest.mark.slow
def test_the_rehearsal_of_photographs_leaves_the_study_s_rows(tmp_path: Path) -> None:
    """Assert rows of both models, claims, and a table that can be read back."""
    store = Store(tmp_path, {})
    (ended,) = plan.run(photographs.JOBS, Setting("cpu", True, tmp_path), 900, store)
    assert ended.verdict == "done"
    rows = pd.read_parquet(tmp_path / "photographs.parquet")
    assert {"network", "run", "agreement", "picture", "largest"} <= set(rows["kind"])
    assert set(rows["model"]) == {"pixels", "guided"}
    assert store.frame()["note"].str.contains("expected").sum() > 10
