"""The HTML report: complete, self-contained, and readable in a real browser."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from support import demonstration
from support.browser import visit

from studies.claim_bounds import above, equals
from studies.reports import report
from studies.runner import run
from studies.running.summary import Summary
from studies.study import Claim

STUDY = "support.demonstration"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(STUDY, "smoke", out=tmp_path_factory.mktemp("report"), workers=0).folder


@pytest.fixture
def summary(folder: Path) -> Summary:
    return Summary.read(folder)


def test_the_page_says_everything(folder: Path) -> None:
    """Assert question, verdict, claim, figure with text alternative, rows, configuration, versions and command."""
    page = (folder / "report.html").read_text()
    for piece in (
        demonstration.QUESTION,
        "1 of 1 claims hold.",
        "the mean is one half within 0.4",
        "0.04937 [0, 0.04937]",
        "law of large numbers",
        'alt="Means against sample size, closing in on one half"',
        "4 of 4 rows",
        "studies run support.demonstration --smoke",
        "&#34;repeats&#34;: 2",
        "<th>numpy</th>",
    ):
        assert piece in page


def test_the_page_needs_nothing_else(folder: Path) -> None:
    """Assert that every source is inside the page and that there is no script."""
    page = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "<script" not in page
    assert "url(" not in page


def test_text_from_a_study_is_never_taken_as_html(summary: Summary) -> None:
    """Assert that a statement with tags is shown as written."""
    claim = Claim("x < y & <script>alert(1)</script>", 1.0, None, equals(1), "s")
    page = report.html(dataclasses.replace(summary, claims=[claim]))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page


def test_failures_and_verdicts_are_told(summary: Summary) -> None:
    """Assert failed cells with traceback, claims that do not hold, notes, and missing cells."""
    broken = dataclasses.replace(
        summary,
        claims=[
            Claim("pigs fly", 0.0, None, above(0), "s"),
            Claim("pigs swim", 0.5, (-0.5, 1.5), above(0, interval=True), "s"),
        ],
        failures={"n=10-0": {"error": "ValueError: no", "traceback": "Traceback: line 1"}},
        notes=["cell 'a' is redone"],
        origin=summary.origin | {"finished": 3},
    )
    page = report.html(broken)
    for piece in (
        "0 of 2 claims hold, 1 is open; 1 cells failed; 3 of 4 cells are finished.",
        "does not hold",
        'class="open">open',
        "about 4 times as many independent repetitions would decide",
        "ValueError: no",
        "Traceback: line 1",
        "cell &#39;a&#39; is redone",
    ):
        assert piece in page


def test_the_command_repeats_seed_and_device(summary: Summary) -> None:
    """Assert the options that are not the usual ones."""
    setting = summary.setting | {"seed": 3, "device": "cuda"}
    assert report.rerun(dataclasses.replace(summary, setting=setting)).endswith("--smoke --seed 3 --device cuda")


def test_equal_results_give_equal_pages(folder: Path, tmp_path: Path) -> None:
    """Assert that pictures hold no date, so that a page changes only when results do."""
    again = run(STUDY, "smoke", out=tmp_path, workers=0).folder
    assert (again / "figures" / "means.png").read_bytes() == (folder / "figures" / "means.png").read_bytes()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1000])
def test_a_browser_shows_the_figures_and_reports_no_error(folder: Path, tmp_path: Path, width: int) -> None:
    """Assert visible figures, an empty console and no sideways scrolling, on a telephone and on a screen."""
    seen = visit(folder / "report.html", tmp_path, width=width)
    assert not seen.console
    (image,) = seen.images
    assert image["alt"]
    assert min(image["natural"]) > 200
    assert min(image["box"]) > 150
    assert seen.width <= seen.view
    assert "1 of 1 claims hold." in seen.text


@pytest.mark.browser
def test_the_browser_check_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """Assert that an error, a missing image and an overlong line do show."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<body><img src="gone.png" alt="gone"><div style="width:5000px">x</div>'
        '<script>console.error("woe")</script></body>'
    )
    seen = visit(page, tmp_path)
    assert any("woe" in line for line in seen.console)
    assert seen.images[0]["natural"] == [0, 0]
    assert seen.width > seen.view
