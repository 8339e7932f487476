"""Conformance: checks discriminate, findings reproduce, and the study says what differs."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch

from studies import conformance
from studies.conformance import azula, beside, findings, flow_matching, schedulers
from studies.conformance.common import Check, Measured, converging, exact, installed, order
from studies.study import Context

SMOKE = conformance.Config.smoke()


def rows_of(*packages: str, quantities: tuple[str, ...] = ("schedule", "conversion")) -> pd.DataFrame:
    """Rows of some packages."""
    config = conformance.Config(packages=packages, quantities=quantities)
    values = [row for cell in conformance.cells(config) for row in conformance.run_cell(cell, Context(config))]
    return pd.DataFrame(values)


def test_names_of_checks_are_unique_and_causes_name_existing_checks() -> None:
    """Assert that findings point at checks that exist, once each."""
    for package in conformance.MODULES:
        names = [check.name for check in conformance.checks(package)]
        assert len(set(names)) == len(names)
    for finding in findings.FINDINGS:
        known = {check.name for check in conformance.checks(finding.package)}
        assert set(finding.checks) <= known
        assert finding.version


def test_every_required_package_has_checks_of_what_it_offers() -> None:
    """Assert that likelihoods are checked flat and image-shaped, exact and by Hutchinson, or said not to apply."""
    assert set(conformance.MODULES) >= {
        "flow_matching", "torchcfm", "azula", "zuko", "diffusers", "torchdiffeq", "torchsde"
    }  # fmt: skip
    names = {check.name for check in conformance.checks("flow_matching")}
    assert {
        "likelihood-exact",
        "likelihood-exact-image",
        "likelihood-hutchinson",
        "likelihood-hutchinson-image",
    } <= names
    for package in ("azula", "diffusers", "torchcfm"):
        assert any(check.run is None and check.name == "likelihood" for check in conformance.checks(package))


def test_smoke_rows_agree_but_for_the_known_finding() -> None:
    """Assert that schedules and conversions agree, but for the time-per-row conversion, which has its cause."""
    rows = rows_of(*SMOKE.packages)
    differing = rows[rows["status"] == "differs"]
    assert list(differing["check"]) == ["conversions-time-per-row"]
    assert differing["cause"].str.startswith("theirs").all()
    claims = conformance.claims(rows, SMOKE)
    assert claims[-1].holds
    held = {claim.statement.split()[0]: claim.holds for claim in claims[:-1]}
    assert held["flow_matching"] is False
    assert held["azula"] is True
    assert set(conformance.figures(rows, SMOKE)) == {"agreement"}


def test_a_package_that_is_absent_did_not_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that rows of an absent package say so and make no claim."""
    monkeypatch.setattr("studies.conformance.common.installed", lambda package: "")
    rows = rows_of("torchcfm")
    assert set(rows["status"]) == {"did not install"}
    assert len(conformance.claims(rows, SMOKE)) == 1
    assert installed("no such distribution") == ""


def test_an_unexplained_difference_fails_the_last_claim() -> None:
    """Assert that a new difference without a cause is named."""
    rows = rows_of("azula", quantities=("schedule",))
    rows.loc[0, "status"] = "differs"
    claim = conformance.claims(rows, SMOKE)[-1]
    assert not claim.holds
    assert "azula/schedule-VE" in claim.statement


def test_a_raising_check_is_a_difference_with_its_words() -> None:
    """Assert that an exception becomes a row."""

    def broken(seed: int, size: int) -> Measured:
        raise RuntimeError("no such thing")

    row = conformance.row(Check("numpy", "broken", "law", "flat", broken), 0, 1)
    assert row["status"] == "differs"
    assert row["note"] == "raises RuntimeError: no such thing"
    assert math.isnan(row["error"])


def test_a_wrong_network_makes_checks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a planted fault (noise predicted with the wrong sign) is seen by conversions and samplers."""
    network = exact()
    right = type(network).noise
    monkeypatch.setattr(type(network), "noise", lambda self, z, a, s: -right(self, z, a, s))
    assert not flow_matching.conversions("CondOT", None).agrees
    monkeypatch.setattr(type(network), "data", lambda self, z, a, s: z / a - (s / a) * right(self, z, a, s) * 1.01)
    assert not azula.sampling("HeunSampler", 2.0, 1, {}).agrees


def test_orders_below_the_stated_one_do_not_agree() -> None:
    """Assert that a first-order method announced as second is caught although its error is small."""
    truth = torch.ones(4, 2, dtype=torch.float64)
    slow = converging(lambda n: truth * (1 + 0.01 / n), truth, [8, 16, 32], 1e-2, 2.0)
    assert slow.error < slow.allowed
    assert not slow.agrees
    assert abs(order([8, 16], [1.0, 0.25]) - 2.0) < 1e-12
    assert not Measured(math.nan, 1.0).agrees


def test_reab_of_azula_is_of_second_order_once_mended() -> None:
    """Assert that the finding's cause is right: with σ_s in the last factor the observed order is two."""
    broken = azula.sampling("REABSampler", 2.0, 2, {"order": 2})
    mended = findings.mended_reab()
    assert broken.order < 1.3
    assert mended.order > 1.8
    assert mended.agrees


@pytest.mark.parametrize("finding", findings.FINDINGS, ids=[f"{f.package}-{f.checks[0]}" for f in findings.FINDINGS])
def test_the_minimal_example_of_a_finding_shows_it(finding: findings.Finding) -> None:
    """Assert that the example raises, or prints numbers that differ, as its comments say."""
    torch.manual_seed(0)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if "Error" in finding.example or "expected scalar" in finding.example:
            with pytest.raises((IndexError, RuntimeError)):
                exec(finding.example, {})
            return
        exec(finding.example, {})
    lines = printed.getvalue().splitlines()
    if finding.package == "azula":
        assert lines == ["True"]
    elif finding.package == "flow_matching":
        wrong, right = (float(line.split("(")[1].rstrip(")")) for line in lines)
        assert wrong > 0.1
        assert right < 1e-5
    else:
        assert "e+" in lines[0]
        assert "e-" in lines[1]


def test_configurations_and_cells_are_well_formed(tmp_path: Path) -> None:
    """Assert that every level gives cells, sizes grow, and smoke is the smallest."""
    counts = [len(conformance.cells(getattr(conformance.Config, level)())) for level in ("smoke", "quick", "full")]
    assert counts[0] < counts[1] == counts[2]
    assert conformance.Config.paper().size > conformance.Config.quick().size


@pytest.mark.slow
def test_every_difference_of_the_whole_study_has_a_cause() -> None:
    """Assert that the quick configuration finds nothing unexplained, and finds all that is known."""
    config = conformance.Config.quick()
    rows = pd.DataFrame([r for cell in conformance.cells(config) for r in conformance.run_cell(cell, Context(config))])
    assert conformance.claims(rows, config)[-1].holds
    known = {(f.package, name) for f in findings.FINDINGS for name in f.checks}
    differing = rows[rows["status"] == "differs"]
    assert set(zip(differing["package"], differing["check"], strict=True)) == known
    assert set(conformance.figures(rows, config)) == {"agreement", "orders"}


def test_every_scheduler_of_diffusers_is_judged_or_has_its_reason() -> None:
    """Assert that none is skipped silently, and none is listed that the version that was judged does not ship."""
    listed = schedulers.STUDIED | set(schedulers.HERE) | set(schedulers.REASONS)
    kept = beside.rows()
    judged = set(kept.loc[kept["package"] == "diffusers", "version"])
    assert schedulers.names() <= listed
    assert listed == schedulers.names() or version("diffusers") not in judged
    assert not (set(schedulers.HERE) | schedulers.STUDIED) & set(schedulers.REASONS)


def test_packages_beside_are_kept_with_versions_and_causes() -> None:
    """Assert that the kept rows are of the present checks, and that what differs has its cause."""
    rows = beside.rows()
    names = {(c.package, c.name) for m in beside.MODULES.values() for c in importlib.import_module(m).CHECKS}
    assert set(zip(rows["package"], rows["check"], strict=True)) == names
    judged = rows[rows["status"].isin(["agrees", "differs"])]
    assert (judged["version"] != "").all()
    assert len(set(judged["package"]) | set(conformance.MODULES)) >= 14
    differing = rows[rows["status"] == "differs"]
    assert differing["cause"].str.startswith(("theirs", "convention")).all()
    assert set(differing["check"]) == {check for finding in findings.BESIDE for check in finding.checks}


@pytest.mark.parametrize("finding", findings.BESIDE, ids=[finding.name for finding in findings.BESIDE])
def test_minimal_examples_beside_are_short_and_kept_with_what_they_printed(finding: findings.Finding) -> None:
    """Assert that a finding has a cause, a proposed change, at most fifteen lines, and words of its own run."""
    assert len(finding.example.splitlines()) <= 15
    assert all((finding.cause, finding.mend, finding.way_round))
    assert json.loads(beside.TABLE.read_text("utf-8"))["examples"][finding.name]


def test_named_packages_are_checked_anew_and_the_others_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assert that one package's rows are replaced, in the order of packages."""
    monkeypatch.setattr(beside, "_there", lambda folder, *command: ['[{"package": "lampe", "new": true}]'])
    table = tmp_path / "beside.json"
    old = [{"package": name, "new": False} for name in beside.MODULES]
    table.write_text(json.dumps({"rows": old, "examples": {"kept": []}}))
    beside.main(tmp_path, ["lampe"], table)
    written = json.loads(table.read_text())
    assert [row["package"] for row in written["rows"]] == list(beside.MODULES)
    assert [row["package"] for row in written["rows"] if row["new"]] == ["lampe"]
    assert written["examples"] == {"kept": []}


def test_packages_beside_are_run_in_a_process_that_looks_in_their_folder(tmp_path: Path) -> None:
    """Assert that a module of the folder is found there, and not here."""
    (tmp_path / "only_there.py").write_text("print('found')")
    assert beside._there(tmp_path, "-c", "import only_there") == ["found"]
