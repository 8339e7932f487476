"""A claim decides itself: words and verdict come from one bound, and nothing else may set the verdict."""

import ast
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import studies
from studies import claim_bounds
from studies.claim_bounds import (
    Condition,
    Tally,
    Verdict,
    above,
    agrees,
    at_least,
    at_most,
    below,
    equals,
    restored,
    within,
)
from studies.errors import StudyError
from studies.reports import papers
from studies.results import load, names
from studies.results.rejudge import changed
from studies.retraining.reading import untrained
from studies.runner import Result
from studies.running.summary import claims_from, claims_to
from studies.study import Claim

HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN
HOME = Path(studies.__file__).parent


@pytest.mark.parametrize(
    ("bound", "inside", "edge", "outside"),
    [
        (at_most(2), 1.9, HOLDS, 2.1),
        (below(2), 1.9, FAILS, 2.1),
        (at_least(2), 2.1, HOLDS, 1.9),
        (above(2), 2.1, FAILS, 1.9),
        (within(-2, 2), 0.0, HOLDS, -2.1),
        (equals(1, 1), 1.5, HOLDS, 2.1),
        (equals(2), 2.0, HOLDS, 2.0 + 1e-15),
    ],
)
def test_a_point_decides_whatever_its_interval(bound, inside, edge, outside):
    """Assert the verdict inside, at and beyond the end at 2, with an interval that would say otherwise."""
    for interval in (None, (-9.0, 9.0)):
        assert bound.judge(inside, interval).verdict is HOLDS
        assert bound.judge(2.0, interval).verdict is edge
        assert bound.judge(outside, interval).verdict is FAILS
    assert bound.judge(math.nan, None).verdict is OPEN
    assert "point decides" in str(bound)


@pytest.mark.parametrize(
    ("bound", "interval", "verdict"),
    [
        (above(0, interval=True), (0.1, 0.5), HOLDS),
        (above(0, interval=True), (0.0, 0.5), OPEN),
        (above(0, interval=True), (-0.5, 0.0), FAILS),
        (at_least(0, interval=True), (0.0, 0.5), HOLDS),
        (at_least(0, interval=True), (-0.5, 0.0), OPEN),
        (at_least(0, interval=True), (-0.5, -0.1), FAILS),
        (below(0, interval=True), (-math.inf, -0.1), HOLDS),
        (below(0, interval=True), (-math.inf, 0.1), OPEN),
        (at_most(1, interval=True), (0.9, 1.1), OPEN),
        (within(-1, 1, interval=True), (-0.9, 0.9), HOLDS),
        (within(-1, 1, interval=True), (-1.1, 0.9), OPEN),
        (within(-1, 1, interval=True), (1.1, 1.9), FAILS),
        (equals(-0.5, 0.05, interval=True), (-0.595, -0.127), OPEN),
        (agrees(0, 1), (-0.2, 0.9), HOLDS),
        (agrees(0, 1), (-0.2, 2.0), OPEN),
        (agrees(0, 1), (0.1, 0.9), FAILS),
        (above(0, interval=True), None, OPEN),
        (above(0, interval=True), (math.nan, math.nan), OPEN),
        (agrees(0, 1), None, OPEN),
    ],
)
def test_an_interval_decides_whatever_its_point(bound, interval, verdict):
    """Assert the verdicts of the module's table, and that only an open one says what would decide it."""
    middle = 0.0 if interval is None or not all(map(math.isfinite, interval)) else sum(interval) / 2
    judgement = bound.judge(middle, interval)
    assert judgement.verdict is verdict
    assert bool(judgement.reason) == (verdict is OPEN)
    assert "interval decides" in str(bound)


def test_an_open_claim_says_how_much_more_must_be_measured():
    """Assert the number of repetitions: the reach to the bound is halved by four times as many."""
    bound = above(0, interval=True)
    assert "about 4 times" in bound.judge(0.5, (-0.5, 1.5)).reason
    assert bound.judge(0.5, (0.5 - 1.0 / 2.01, 1.0)).verdict is HOLDS  # … which then suffices
    assert "thousand" in bound.judge(0.0, (-0.5, 1.5)).reason
    assert "about 9 times" in agrees(0, 0.1).judge(0.1, (-0.2, 0.4)).reason
    assert "too few" in bound.judge("too few", None).reason


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (1.1, "somewhat more independent"),
        (1.4, "about twice as many independent"),
        (2.1, "about 4 times as many independent"),
        (12.0, "about 140 times as many independent"),
        (40.0, "more than a thousand times as many independent"),
    ],
)
def test_repetitions_are_counted_in_whole_numbers(reach, words):
    """Assert that the square of the reach over the distance is written as a whole number, in at most two digits."""
    reason = above(0, interval=True).judge(0.5, (0.5 - reach * 0.5, 1.0)).reason
    assert f"{words} repetitions would decide" in reason


def test_the_smallest_effect_that_could_have_been_seen():
    """Assert that an estimate so far beyond the bound, with this interval, is the first that holds."""
    claim = Claim("a", 0.2, (-0.1, 0.6), above(0, interval=True), "s")
    assert claim.smallest == pytest.approx(0.3)
    assert above(0, interval=True).judge(0.31, (0.01, 0.71)).verdict is HOLDS
    assert above(0, interval=True).judge(0.29, (-0.01, 0.69)).verdict is OPEN
    assert Claim("a", 0.2, (-0.1, 0.6), below(1, interval=True), "s").smallest == pytest.approx(0.4)
    assert agrees(0, 1).smallest(0.0, (-0.2, 0.4)) == pytest.approx(0.3)
    assert math.isnan(Claim("a", 0.2, (-0.1, 0.6), above(0), "s").smallest)


def test_conditions_can_only_make_it_worse():
    """Assert that a claim holds only if all its conditions do."""
    good, bad = Condition("error", 0.1, at_most(1)), Condition("error", 2.0, at_most(1))
    unknown = Condition("error", 2.0, at_most(1, interval=True))
    for conditions, verdict in (((good,), HOLDS), ((good, unknown), OPEN), ((unknown, bad), FAILS)):
        claim = Claim("fast", 1.0, None, at_most(2), "s", conditions=conditions)
        assert claim.verdict is verdict
        assert all(f"error {each.bound}" in claim.expected for each in conditions)
    assert Claim("fast", 3.0, None, at_most(2), "s", conditions=(good,)).verdict is FAILS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equals(1, -0.1), "slack=-0.1 is not positive"),
        (lambda: equals(1, interval=True), "slack=0.0 is not positive"),
        (lambda: within(2, 1), "a bound from 2.0 to 1.0"),
        (lambda: above(math.nan), "a bound from nan"),
        (lambda: agrees(0, 0), "resolution=0.0"),
    ],
)
def test_a_bound_that_decides_nothing_is_refused(make, message):
    """Assert the sentences."""
    with pytest.raises(ValueError, match=message):
        make()


def test_text_is_no_bound_and_a_verdict_no_argument():
    """Assert that the old way of making a claim is refused in a sentence that says what to do."""
    with pytest.raises(TypeError, match="make it by a function of"):
        Claim("pigs fly", 1.0, None, "> 0", "folklore")
    for call in ({"holds": True}, {"verdict": HOLDS}):
        with pytest.raises(TypeError):
            Claim("pigs fly", 1.0, None, above(0), "folklore", **call)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Claim("pigs fly", 1.0, None, above(0), "folklore").holds = True
    with pytest.raises(TypeError):
        dataclasses.replace(Claim("pigs fly", -1.0, None, above(0), "folklore"), holds=True)


EVERY = [at_most(2), below(2), at_least(2), above(2, interval=True), within(1, 2), equals(1, 0.5), agrees(0, 1)]


@pytest.mark.parametrize("bound", EVERY, ids=str)
def test_claims_are_stored_with_their_bound_and_judged_anew(bound, tmp_path):
    """Assert that nothing is lost in the file, and that a verdict edited in it is refused."""
    claim = Claim("a", 1.5, (1.2, 1.9), bound, "s", conditions=(Condition("e", 0.1, at_most(1)),))
    path = tmp_path / "claims.json"
    path.write_bytes(claims_to([claim]))
    assert claims_from(path.read_bytes(), path) == [claim]
    assert restored(bound.stored()) == bound
    edited = json.loads(path.read_text())
    edited[0]["verdict"] = "fails" if claim.holds else "holds"
    path.write_text(json.dumps(edited))
    with pytest.raises(StudyError, match="does not follow from its bound"):
        claims_from(path.read_bytes(), path)


def test_claims_stored_before_bounds_existed_keep_their_verdict(tmp_path):
    """Assert that files of version 0.1 load, and are written again without loss."""
    old = {"statement": "a", "measured": 1.0, "interval": [0, 2], "expected": -0.5, "source": "s", "holds": False}
    path = tmp_path / "claims.json"
    path.write_text(json.dumps([old, old | {"holds": True, "expected": "≥ .9"}]))
    claims = claims_from(path.read_bytes(), path)
    assert [(claim.expected, claim.verdict) for claim in claims] == [("-0.5", FAILS), ("≥ .9", HOLDS)]
    path.write_bytes(claims_to(claims))
    assert claims_from(path.read_bytes(), path) == claims


@pytest.mark.parametrize("damage", [{"bound": {"kind": "planted"}}, {"bound": {}}, {"bound": None}, {"conditions": 5}])
def test_a_damaged_bound_is_refused_in_a_sentence(damage, tmp_path):
    """Assert that no traceback of JSON comes through."""
    path = tmp_path / "claims.json"
    path.write_bytes(claims_to([Claim("a", 1.0, None, at_most(2), "s")]))
    path.write_text(json.dumps([json.loads(path.read_text())[0] | damage]))
    with pytest.raises(StudyError, match="is damaged"):
        claims_from(path.read_bytes(), path)


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (math.nan, 0), (-1.0, 1)])
def test_only_a_failing_claim_changes_the_exit_code(value, code):
    """Assert 0 for claims that hold or are open, 1 for one that fails."""
    claims = [Claim("a", value, None, above(0), "s"), Claim("b", 1.0, None, above(0), "s")]
    assert Result("s", Path(), None, claims).exit_code == code
    assert Tally.of(claim.verdict for claim in claims).holds == 1 + (value == 1.0)


@pytest.mark.parametrize("name", names())
def test_published_claims_follow_from_published_rows(name):
    """Assert that what is published is what the code makes of the rows, with bounds and not with recorded words."""
    assert changed(name) == []
    published = load(name).claims
    assert not any(isinstance(claim.bound, claim_bounds.Recorded) for claim in published)
    assert len({claim.statement for claim in published}) == len(published)


@pytest.mark.parametrize(
    ("pattern", "truth"), [("under retraining from scratch", "scratch"), ("under fine-tuning", "finetune")]
)
def test_the_page_of_what_was_reproduced_shows_every_setting(pattern, truth):
    """Assert that the ranges of median correlations, claimed and unclaimed, are those of all rows, none chosen."""
    rows = load("retraining").rows
    chosen = rows[(rows.kind == "agreement") & (rows.predictor == "flow") & (rows.truth == truth)]
    chosen = chosen[chosen.change.str.match(r"class:\d@0\.1$")]
    compared = chosen[~chosen.regime.str.contains("=")]  # members of the one-factor design are varied on purpose
    medians = pd.Series([float(np.median(np.asarray(each, dtype=float))) for each in compared.correlation])
    without = compared.regime.isin(untrained(rows)).to_numpy()
    statements = [each for paper in papers.PAPERS for each in paper.statements if each.study == "retraining"]
    (statement,) = [each for each in statements if each.pattern == pattern]
    for some, claims in ((medians[~without], statement.claims()), (medians[without], statement.unclaimed())):
        assert sorted(float(claim.measured) for claim in claims) == pytest.approx(sorted(some))
        assert f"{some.min():.3g} … {some.max():.3g}" in papers.summary(papers.PAPERS[0])


MAKERS = {"Region", "Agreement", "Recorded", "Judgement"}
MAY_MAKE = {"Recorded": "running/summary.py"}


def verdicts_set(source: str, path: str) -> list[str]:
    """Places of a module of `studies` where a claim's verdict, or a bound that carries one, is made by hand."""
    values = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = {keyword.arg for keyword in node.keywords}
            if name in {"Claim", "of", "replace", "setattr", "__setattr__"}:
                texts = {each.value for each in node.args if isinstance(each, ast.Constant)}
                if (keywords | texts) & {"holds", "verdict", "judgement"}:
                    values.append(f"{path}:{node.lineno} sets a verdict")
            if name in MAKERS and MAY_MAKE.get(name) != path:
                values.append(f"{path}:{node.lineno} makes a {name}")
            if name == "Claim" and len(node.args) > 5:
                values.append(f"{path}:{node.lineno} gives Claim more than statement, value, interval, bound, source")
            if name == "Claim" and any(isinstance(each, ast.Constant | ast.JoinedStr) for each in node.args[3:4]):
                values.append(f"{path}:{node.lineno} gives text for a bound")
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Attribute) and t.attr in {"holds", "verdict", "judgement"} for t in targets):
                values.append(f"{path}:{node.lineno} assigns a verdict")
        if isinstance(node, ast.ClassDef):
            bases = {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
            if bases & {"Bound", "Claim", *MAKERS}:
                values.append(f"{path}:{node.lineno} derives from a claim or a bound")
    return values


def test_nothing_but_a_bound_sets_a_verdict():
    """Assert the rule in every module of studies but the one of bounds."""
    guilty = []
    for path in HOME.rglob("*.py"):
        name = path.relative_to(HOME).as_posix()
        if name != "claim_bounds.py":
            guilty += verdicts_set(path.read_text(encoding="utf-8"), name)
    assert guilty == []


@pytest.mark.parametrize(
    "planted",
    [
        "Claim('a', 1.0, None, '> 0', 's')",
        "Claim('a', 1.0, None, f'> {0}', 's')",
        "Claim('a', 1.0, None, bound, 's', True)",
        "Claim('a', 1.0, None, bound, 's', holds=True)",
        "study.Claim(statement='a', holds=value > 0)",
        "dataclasses.replace(claim, holds=True)",
        "object.__setattr__(claim, 'verdict', 'holds')",
        "claim.holds = True",
        "claim.judgement: object = good",
        "claim_bounds.Recorded('> 0', Verdict.HOLDS)",
        "Region(low=0.0)",
        "class Lenient(Bound): pass",
        "class Sure(study.Claim): pass",
    ],
)
def test_the_rule_sees_a_planted_verdict(planted):
    """Assert that each way of setting a verdict by hand is seen, wherever it stands."""
    assert verdicts_set(f"def claims(rows):\n    if rows:\n        {planted}\n", "planted.py")
