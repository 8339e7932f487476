"""The study `photographs`: patches, networks, training, and every quantity of the three models, end to end."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd
import pytest
import torch
from support.close import assert_close

from studies import photographs
from studies.cache import Cache
from studies.photographs import networks, patches, reading, training
from studies.photographs.cells import packed, unpacked
from studies.photographs.config import Config
from studies.photographs.measuring import Measured, agreement_row, compared
from studies.photographs.models import Bench
from studies.study import Context

pytest.importorskip("diffusers")
SHAPE = networks.Shape(channels=(8, 16))
PLAN = training.Plan(3, 2)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Networks of the smoke configuration, trained for two steps."""
    folder = tmp_path_factory.mktemp("photographs") / "run"
    return Bench(Context(Config.smoke(), folder=folder, level="smoke"))


def test_held_out_patches_share_no_pixel_with_training_patches():
    """Assert it on a picture of column numbers, and that all of a photograph's patches carry its number."""
    columns = torch.arange(200.0).expand(3, 100, 200)
    left, right = columns[:, :, : patches.cut(columns)], columns[:, :, patches.cut(columns) :]
    assert float(left.max()) < float(right.min())
    train, held = patches.load(3, 2)
    assert train.groups.bincount().tolist() == [3] * 9
    assert held.images.shape == (18, 3, 32, 32)
    assert float(train.images.abs().max()) <= 1
    again, _ = patches.load(3, 2)
    assert torch.equal(train.images, again.images)


def test_more_patches_than_there_are_is_an_error():
    """Assert the sentence."""
    with pytest.raises(ValueError, match="ask for fewer"):
        patches.load(100_000, 1)


def test_what_is_trained_is_what_the_adapter_reads():
    """Assert that the objective's denoiser and from_diffusers give one denoiser, at times between the table's.

    A score is the denoiser's distance from the state over σ²: at σ = .07 single precision leaves it 1e-4.
    """
    network = networks.build(SHAPE, 0).requires_grad_(False)
    x, sigma = torch.randn(3, 3, 32, 32), torch.tensor([0.07, 1.3, 40.0])
    outputs = networks.Denoiser(network, 0.5, torch.tensor([9, 9, 9]))
    read = x + sigma.reshape(-1, 1, 1, 1) ** 2 * networks.score(network, 9)(x, sigma)
    assert_close(outputs(x, sigma), read, rtol=1e-5, atol=2e-5)


def test_a_killed_training_ends_in_the_same_bits(tmp_path, monkeypatch):
    """Assert that going on from a checkpoint gives what an undisturbed run gives."""
    monkeypatch.setattr(training, "EVERY", 1)
    data, groups = torch.rand(6, 3, 32, 32), torch.arange(6)
    whole = training.denoiser(SHAPE, PLAN, data, groups, Cache(tmp_path / "whole"), 0)
    with monkeypatch.context() as patched:
        patched.setattr(training.Optimiser, "record", killed_at(2))
        with pytest.raises(KeyboardInterrupt):
            training.denoiser(SHAPE, PLAN, data, groups, Cache(tmp_path / "killed"), 0)
    assert list((tmp_path / "killed").glob("partial*"))
    resumed = training.denoiser(SHAPE, PLAN, data, groups, Cache(tmp_path / "killed"), 0)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def killed_at(step):
    """`record` that dies at the given call."""
    calls = []

    def record(self, window):
        calls.append(window)
        if len(calls) > step:
            raise KeyboardInterrupt
        self.curve.append((self.last.clone(), 1))

    return record


def test_four_labels_of_ten_are_hidden():
    """Assert the share within four standard deviations, and that a step's labels are a function of the step."""
    labels = training.Labels(torch.zeros(5000, dtype=torch.int64), 9, 0)
    rows = torch.arange(5000)
    share = float((labels.at(3, rows) == 9).double().mean())
    assert abs(share - training.DROPPED) < 4 * math.sqrt(0.24 / 5000)
    assert torch.equal(labels.at(3, rows), labels.at(3, rows))
    assert not torch.equal(labels.at(3, rows), labels.at(4, rows))


def test_codes_are_scaled(bench):
    """Assert mean 0 and standard deviation 1 over the training patches, channel by channel."""
    codes = bench.codes[0]
    assert codes.shape[1:] == (4, 8, 8)
    assert_close(codes.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(codes.std(dim=(0, 2, 3)), torch.ones(4), rtol=1e-3, atol=0)


def run(bench, *names):
    """The rows of some cells, or of all."""
    chosen = [cell for cell in photographs.cells(bench.context.config) if not names or cell.name in names]
    return pd.DataFrame([row for cell in chosen for row in photographs.run_cell(cell, bench.context)])


def check_told(table, models):
    """Fail unless every model's results have sizes, stated errors and outcomes that add up, and kernel ratios are
    finite."""
    runs = reading.of(table, kind="run")
    assert set(runs.model) == models
    for _, row in runs.iterrows():
        told = sum(int(part.rsplit(" ", 1)[1]) for part in row.outcomes.split("; "))
        assert told == row.samples, row.outcomes
        assert len(row.sizes) == len(row.stated) == row.samples
    kernel = reading.of(runs, quantity="sensitivity, kernel")
    assert (kernel.finite == kernel.samples).all()
    assert all(max(sizes) > 0 for sizes in kernel.sizes)


def test_the_pipeline_runs_on_a_network_with_attention(bench):
    """Assert log densities, sensitivities and influences of the smoke run, claims on them, figures and tables."""
    table = run(bench, "networks", "pixels-density", "pixels-kernel", "pixels-influence")
    check_told(table, {"pixels"})
    judged = photographs.claims(table, bench.context.config)
    for words in ("share of finite", "held-out denoising loss", "stated errors"):
        assert any(words in claim.statement for claim in judged), words
    drawn = photographs.figures(table, bench.context.config)
    assert set(drawn) == {"agreement", "change-pixels", "influence-pixels"}
    assert all(figure.alt for figure in drawn.values())
    assert len(reading.run_table(table)) == len(reading.of(table, kind="run"))
    assert len(reading.network_table(table)) == 2
    assert len(reading.agreement_table(table)) == len(reading.of(table, kind="agreement"))


@pytest.mark.slow
def test_every_cell_of_the_smoke_run_gives_rows_claims_and_figures(bench):
    """Assert the same of the guided model and of that on codes."""
    table = run(bench)
    check_told(table, {"pixels", "guided", "codes"})
    assert len(photographs.claims(table, bench.context.config)) > 30
    drawn = photographs.figures(table, bench.context.config)
    assert {"agreement", "change-guided", "influence-codes"} <= set(drawn)


def test_a_difference_beyond_what_is_stated_is_seen():
    """Assert that a planted difference of four stated errors, NaN and an overflow are counted as apart."""
    first = measured([0.0, 0.0, 0.0, math.nan, math.inf])
    second = measured([0.1, 0.2, 2.0, 0.0, 0.0])
    difference, stated = compared(first, second)
    assert_close(stated, torch.full((5,), 0.05 * math.sqrt(2) + 0.4), rtol=1e-6, atol=0)
    assert difference.tolist()[:3] == pytest.approx([0.1, 0.2, 2.0])
    row = agreement_row(Named(), "log density", "probes", first, second)
    assert reading.agreement(pd.Series(row), 3.0) == (2, 5)
    row["errors"] = [math.inf] * 5
    assert reading.agreement(pd.Series(row), 3.0) == (3, 5)


@dataclasses.dataclass
class Named:
    """A model's name."""

    name: str = "pixels"


def measured(values):
    """Values with a standard error of .05 and a grid's of .2."""
    value = torch.tensor(values)
    return Measured(value, torch.full_like(value, 0.05), torch.full_like(value, 0.2), None, 0.0, 0.0)


def test_pictures_survive_being_written():
    """Assert a byte's rounding."""
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    back = torch.from_numpy(unpacked(packed(pictures)).copy()).permute(0, 3, 1, 2)
    assert_close(back.float() / 127.5 - 1, pictures, atol=1 / 255 + 1e-6, rtol=0)


def test_without_the_photographs_a_cell_says_so(bench, monkeypatch):
    """Assert one row with the reason."""
    monkeypatch.setattr(patches, "load", missing)
    (row,) = photographs.run_cell(photographs.cells(bench.context.config)[-1], bench.context)
    assert row["kind"] == "skipped"
    assert "scikit-image" in row["reason"]
    assert photographs.claims(pd.DataFrame([row]), bench.context.config) == []
    assert photographs.figures(pd.DataFrame([row]), bench.context.config) == {}


def missing(*counts):
    """As where scikit-image is not installed."""
    raise ImportError("photograph 'astronaut' comes with scikit-image")


@pytest.mark.slow
def test_a_trained_network_agrees_with_itself(tmp_path):
    """Assert, on the quick run's networks, finite results and agreeing settings."""
    bench = Bench(Context(Config.quick(), folder=tmp_path / "run", level="quick"))
    table = run(
        bench, "networks", "pixels-density", "pixels-kernel", "codes-density", "codes-kernel", "codes-influence"
    )
    runs = reading.of(table, kind="run")
    assert (runs.finite == runs.samples).all()
    network = reading.of(table, kind="network", model="pixels").iloc[0]
    assert network.parameters > 1e6
    for _, row in reading.of(table, kind="agreement").iterrows():
        inside, count = reading.agreement(row, 3.0)
        assert inside == count, f"{row.model}, {row.quantity}, {row.setting}: {row.differences} against {row.errors}"
