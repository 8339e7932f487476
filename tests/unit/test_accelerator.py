"""The command for a machine with a GPU, rehearsed on this one: plan, recording, training and what is left behind."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import accelerator
import numpy as np
import pandas as pd
import pytest
import torch
from accelerator_parts import plan, protocols, publish, truth
from accelerator_parts.plan import Job, Setting
from accelerator_parts.store import LIMIT, Row, Store, row, table
from accelerator_parts.together import train_together
from accelerator_parts.training import Feed, Trainer, vector_of
from support.close import assert_close

from studies.errors import StudyError
from studies.networks import Architecture, build
from studies.reports import gpu
from studies.retraining.bench import OBJECTIVE
from studies.training import Objective, Recipe, train
from studies.training.batches import Draw

POOL = torch.randn(50, 1, 9, 9, generator=torch.Generator().manual_seed(0))
NETWORK = build(Architecture("unet", 8, 2), (1, 9, 9), seed=3)
STEPS = 12


def test_the_rehearsal_leaves_tables_that_say_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Assert that cheap jobs run on the processor and leave few small files, a manifest and a table of few lines."""
    code = accelerator.main(["--rehearse", "--out", str(tmp_path / "out"), "--only", "noise,ceilings"])
    printed = capsys.readouterr().out
    files = list((tmp_path / "out").rglob("*"))
    assert code == 0
    assert len(files) <= 8
    assert all(file.stat().st_size <= LIMIT for file in files)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["jobs"] == {"noise": "done", "ceilings": "done"}
    assert {"commit", "versions", "machine", "gpu", "command", "seed", "rehearsal"} <= manifest.keys()
    rows = pd.read_parquet(tmp_path / "out" / "rows.parquet").set_index("quantity")
    assert rows.loc["bits that differ", "value"] == 0
    assert len(printed.splitlines()) <= 62


def test_an_unknown_job_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Assert exit status 2 and a sentence that lists the jobs."""
    assert accelerator.main(["--rehearse", "--out", str(tmp_path), "--only", "nothing"]) == 2
    assert "choose from noise" in capsys.readouterr().out


def _good(setting: Setting) -> Iterator[Row]:
    yield row("case", "budget", setting.budget)


def _bad(setting: Setting) -> Iterator[Row]:
    yield row("case", "before", 1.0)
    raise RuntimeError("planted")


def test_a_job_that_fails_or_does_not_fit_does_not_stop_the_others(tmp_path: Path) -> None:
    """Assert verdicts in order, rows from before a failure, its traceback in the log, and budgets within the time."""
    jobs = [
        Job("bad", "checks", _bad, 0, 5),
        Job("long", "checks", _good, 1e3, 1e3),
        Job("good", "checks", _good, 0, 5),
    ]
    store = Store(tmp_path, {})
    ended = plan.run(jobs, Setting("cpu", False, tmp_path), 60, store)
    assert [each.verdict.split(":")[0] for each in ended] == ["failed", "skipped", "done"]
    assert store.frame()["quantity"].tolist() == ["before", "budget"]
    assert store.frame()["value"].iloc[1] == 5
    assert "RuntimeError: planted" in (tmp_path / "log.txt").read_text()


def test_a_job_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a job beyond its budget and the grace ends in a TimeoutError."""

    def endless(setting: Setting) -> Iterator[Row]:
        while True:
            pass
        yield

    monkeypatch.setattr(plan, "GRACE", 0.0)
    ended = plan.run(
        [Job("endless", "checks", endless, 0, 1)], Setting("cpu", False, tmp_path), 60, Store(tmp_path, {})
    )
    assert ended[0].verdict.startswith("failed: TimeoutError")


def test_the_table_keeps_its_length() -> None:
    """Assert that rows beyond the length asked for are counted, not printed."""
    frame = pd.DataFrame([row("case", "quantity", k, shown=True) for k in range(9)])
    assert len(table(frame, 4)) == 4
    assert "6 more rows" in table(frame, 4)[-1]


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_recorded_step_is_adam(last: bool) -> None:
    """Assert the parameters of torch's own Adam on the same draws, to single precision, in both layouts."""
    feed = Feed(POOL, [None], 6, seed=0)
    trainer = Trainer(copy.deepcopy(NETWORK), feed, 0, OBJECTIVE, last=last)
    trainer.capture()
    feed.restart(0)
    for step in range(STEPS):
        feed.draw(step, rate=1e-3, kept=0.0)
        trainer.step()
    expected = _by_torch()
    for each, wanted, start in zip(
        trainer.averaged().parameters(), expected.parameters(), NETWORK.parameters(), strict=True
    ):
        assert_close(each, wanted.detach(), rtol=1e-3, atol=1e-5)
        assert not torch.equal(each, start)
    assert_close(vector_of(trainer, trainer.averaged()), trainer.average, rtol=0.0)


def _by_torch() -> torch.nn.Module:
    feed, network = Feed(POOL, [None], 6, seed=0), copy.deepcopy(NETWORK).train().requires_grad_(True)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(STEPS):
        feed.draw(step, rate=1e-3, kept=0.0)
        draw = Draw(feed.clean[0], feed.level, feed.noise, feed.noise)
        adam.zero_grad()
        OBJECTIVE.losses(network, draw).mean().backward()
        adam.step()
    return network


def test_the_laws_of_a_feed_are_coupled() -> None:
    """Assert that the changed law draws a class with its own frequency, and the base law's datum most of the time."""
    pool, mask = torch.arange(100.0).reshape(-1, 1), torch.arange(100) < 10
    weights = 0.9 / 100 + 0.1 * mask.double() / 10
    feed, changed, same = Feed(pool, [None, weights], 50, seed=1), 0, 0
    for step in range(400):
        feed.draw(step, rate=0.0, kept=0.0)
        changed += int((feed.clean[1] < 10).sum())
        same += int((feed.clean[0] == feed.clean[1]).sum())
    # 20 000 draws: five standard deviations of a share of .19 are .014; the coupling keeps 1 − η(1 − .1) = .91.
    assert abs(changed / 20_000 - 0.19) < 0.014
    assert abs(same / 20_000 - 0.91) < 0.011


def test_steps_fit_the_time() -> None:
    """Assert that all networks take the share of the time that is theirs, and no more steps than asked for."""
    size, per_step = truth.SIZES["mnist"], 0.005
    steps = truth.steps_of(size, 200.0, per_step)
    whole = size.pairs * (steps + steps // truth.FINE_TUNING) * per_step
    assert 0.95 * 200 * (1 - truth.TAIL) < whole <= 200 * (1 - truth.TAIL)
    assert truth.steps_of(size, 1e6, per_step) == size.most


def test_only_measurements_on_a_gpu_with_a_commit_are_published(tmp_path: Path) -> None:
    """Assert that rehearsals and runs of unknown origin are refused, and others copied without arrays."""
    source, goal = tmp_path / "run", tmp_path / "goal"
    source.mkdir()
    pd.DataFrame([{"job": "job", **row("case", "quantity", 1.0)}]).to_parquet(source / "rows.parquet")
    (source / "changes-mnist.npz").write_bytes(b"")
    for manifest, code in (
        ({"rehearsal": True, "gpu": {"name": "card"}, "commit": "c"}, 1),
        ({"gpu": None, "commit": "c"}, 1),
        ({"gpu": {"name": "card"}, "commit": "unknown"}, 1),
        ({"gpu": {"name": "card"}, "commit": "c"}, 0),
    ):
        known = {
            "versions": {"torch": "2", "python": "3"},
            "started": "now",
            "command": "run",
            "jobs": {"late": "skipped"},
        }
        card = manifest["gpu"] and {**manifest["gpu"], "driver": "1", "cuda": "13"}
        (source / "manifest.json").write_text(json.dumps(known | manifest | {"gpu": card}))
        assert publish.publish([source], goal) == code
        assert goal.exists() == (code == 0)
    assert sorted(file.name for file in goal.iterdir()) == ["origin.json", "rows.parquet"]
    assert "late (skipped)" in gpu.origin(goal)
    assert "case | quantity | 1" in repr(gpu.measured("job", home=goal))
    with pytest.raises(StudyError, match="no rows"):
        gpu.measured("other", home=goal)


def test_a_later_run_is_added_to_what_is_published(tmp_path: Path) -> None:
    """Assert earlier cases and jobs beside new ones, the later of equal ones, and all runs in their order."""
    sources, goal = [tmp_path / name for name in ("first", "second")], tmp_path / "goal"
    for number, source in enumerate(sources):
        source.mkdir()
        cases = [row(case, "quantity", float(number)) for case in ("both", f"only {number}")]
        pd.DataFrame([{"job": "job", **one} for one in cases]).to_parquet(source / "rows.parquet")
        truths = [{"job": "both", "slope": float(number)}, {"job": f"only {number}", "slope": float(number)}]
        pd.DataFrame(truths).to_parquet(source / "truth.parquet")
        manifest = {"gpu": {"name": "card"}, "commit": str(number), "command": "run"}
        (source / "manifest.json").write_text(json.dumps(manifest))
        assert publish.publish([source], goal) == 0
    rows = pd.read_parquet(goal / "rows.parquet")
    assert dict(zip(rows["case"], rows["value"], strict=True)) == {"both": 1.0, "only 0": 0.0, "only 1": 1.0}
    truths = pd.read_parquet(goal / "truth.parquet")
    assert dict(zip(truths["job"], truths["slope"], strict=True)) == {"both": 1.0, "only 0": 0.0, "only 1": 1.0}
    assert [run["commit"] for run in json.loads((goal / "origin.json").read_text())["runs"]] == ["0", "1"]


def test_noise_levels_keep_their_digits(tmp_path: Path) -> None:
    """Assert that published levels compare equal to the studies' own, and that cases can be chosen."""
    source, goal = tmp_path / "run", tmp_path / "goal"
    source.mkdir()
    cases = [row(case, "quantity", 0.1) for case in ("one setting", "all settings")]
    pd.DataFrame([{"job": "job", **one} for one in cases]).to_parquet(source / "rows.parquet")
    pd.DataFrame([{"job": "job", "sigma": 0.03, "level": 0.01, "cross": 0.1}]).to_parquet(source / "length.parquet")
    known = {"gpu": {"name": "card"}, "commit": "c", "command": "run"}
    (source / "manifest.json").write_text(json.dumps(known))
    assert publish.publish([source], goal) == 0
    (kept,) = gpu.rows("length", goal).to_dict("records")
    assert (kept["sigma"], kept["level"]) == (0.03, 0.01)
    assert kept["cross"] == np.float32(0.1)
    assert "one setting" not in repr(gpu.measured("job", case="all", home=goal))


def test_a_way_to_train_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that ways which cannot be recorded are reported, and that training without recording remains."""

    def refused(self: Trainer) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Trainer, "capture", refused)
    regimen, ways = truth.Regimen(truth.TINY, Setting("cpu", True, tmp_path)), []
    rows = list(truth._variants(regimen, "digits", ways))
    assert [str(way) for way in ways] == ["TF32, channels first, not recorded"]
    assert sum("failed" in one["quantity"] for one in rows) == 4


def test_networks_trained_together_are_those_of_the_studies() -> None:
    """Assert, for convolutional networks, the parameters and losses of training one after the other, to rounding."""
    pool = POOL[:, :, :6, :6]
    recipe = Recipe(Architecture("unet", 4, 2), Objective(), steps=STEPS, batch=8)
    for seed, together in enumerate(train_together(recipe, pool, range(2), "cpu")):
        alone = train(recipe, pool, seed=seed)
        for each, expected in zip(together.network.parameters(), alone.network.parameters(), strict=True):
            assert_close(each, expected, rtol=1e-4, atol=1e-6)
        assert_close(together.history, alone.history, rtol=1e-4)


def test_the_protocols_of_studies_leave_rows_and_claims(tmp_path: Path) -> None:
    """Assert that both studies' jobs give the studies' own rows, and every claim that those rows can carry."""
    setting, store = Setting("cpu", True, tmp_path), Store(tmp_path, {})
    ended = plan.run(protocols.JOBS, setting, 60, store)
    assert [each.verdict for each in ended] == ["done", "done"]
    assert {"radius", "network", "level"} <= set(store.frame("far")["kind"])
    assert set(store.frame("length")["length"]) == {1, 4, 16}
    notes = store.frame()[store.frame()["note"] != ""]
    assert notes["note"].str.contains("expected").all()
    assert set(notes["job"]) == {"selective underfitting", "low noise"}
    assert notes["quantity"].str.contains("than for N =").sum() == 1


def test_studies_take_the_steps_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert steps for the share of the time, none beyond those asked for, and none where too few fit."""
    monkeypatch.setattr(protocols, "step_seconds", lambda *_: 1e-3)
    ladder, setting = protocols.far_ladders(tiny=False)[2], Setting("cpu", False, tmp_path)
    fitted = protocols._fitted(ladder, 10.0, setting)
    assert fitted is not None
    taken = sum(rung.steps for rung in protocols.far.rungs(fitted))
    assert 0.95 * 10 * (1 - protocols.RESERVE) < 1e-3 * taken <= 10 * (1 - protocols.RESERVE)
    assert protocols._fitted(ladder, 1e6, setting) == ladder
    assert protocols._fitted(ladder, 1.0, setting) is None
    text = protocols.length_settings(tiny=False)[0]
    config = protocols._lengthened(text, protocols.REPLICATES, 21.0, setting)
    assert config is not None
    assert (config.replicates, config.lengths) == (10, (1, 4, 16))
    assert 840 <= config.steps <= 850
    assert protocols._lengthened(text, protocols.REPLICATES, 1.0, setting) is None


def test_responses_need_the_networks_of_a_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert a sentence where nothing was trained, and rows of each response for as many networks as there is time."""
    monkeypatch.setattr(truth, "MADE", {})
    setting = Setting("cpu", True, tmp_path)
    (one,) = truth.answer("mnist")(setting)
    assert one["quantity"].startswith("no trained networks")
    base, changes = [NETWORK] * 3, {"scratch": np.random.default_rng(0).normal(size=(3, 4, 64))}
    made = truth.Made(truth.Regimen(truth.TINY, setting), base, changes)
    monkeypatch.setattr(truth, "_predicted", lambda *_: np.random.default_rng(1).normal(size=(4, 64)))
    hurried = Setting("cpu", True, tmp_path, budget=0.0)
    rows = list(truth._answered(made, "mnist", hurried, {"first": {}, "second": {}}))
    quantities = [each.get("quantity", "") for each in rows]
    assert "first: networks" in quantities
    assert made.predictions["first"].shape == (truth.FEWEST, 4, 64)
    assert "second: left out, no time" in quantities

    def stopped(*_: object) -> None:
        raise TimeoutError("stopped after 75 s")

    monkeypatch.setattr(truth, "_predicted", stopped)
    with pytest.raises(TimeoutError):
        list(truth._answered(made, "mnist", setting, {"first": {}}))
