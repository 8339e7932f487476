"""A pytest plugin: hold your estimator against the truth in your own tests, in one line.

    def test_my_score(verify):
        verify(my_score, "score")

The fixture `verify` takes what `studies.verify` takes, returns the report if the estimator holds, and else fails the
test with the report's words: what errs, by how much, on which problem, and a line of Python that shows it again.
Markers choose suite and seed for a test, a class or a module, and may be overridden in the call:

    @pytest.mark.verify_suite("full")
    @pytest.mark.verify_seed(7)

The plugin is found by pytest when the package is installed, and imports nothing else until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["pytest_configure", "verify"]

MARKERS = (
    "verify_suite(name): the suite, 'quick' or 'full', that the fixture `verify` poses",
    "verify_seed(number): the seed of the problems that the fixture `verify` poses; 0 is the published suite",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, so that `--strict-markers` accepts them."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)


@pytest.fixture
def verify(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`verify(estimator, task, **options)`: the report, or a failed test whose text is the report.

    Options are those of `studies.verify`; `suite` and `seed` come from the markers `verify_suite` and `verify_seed`
    where the call does not give them. An estimator that declines every problem fails, too.
    """
    marked = {key: _marked(request, f"verify_{key}") for key in ("suite", "seed")}
    chosen = {key: value for key, value in marked.items() if value is not None}

    def held(estimator: Callable[[Any], Any], task: str, **options: Any) -> Any:
        __tracebackhide__ = True
        from studies.errors import StudyError
        from studies.verification import verify as judged

        try:
            report = judged(estimator, task, **{**chosen, **options})
        except StudyError as error:
            raise pytest.fail.Exception(f"verify: {error}", pytrace=False) from None
        if not report.holds:
            pytest.fail("\n".join(report.findings()), pytrace=False)
        return report

    return held


def _marked(request: pytest.FixtureRequest, name: str) -> Any:
    """The argument of the closest marker of that name, or None."""
    marker = request.node.get_closest_marker(name)
    if marker is None:
        return None
    if len(marker.args) != 1 or marker.kwargs:
        pytest.fail(f"the marker {name} takes one argument, such as @pytest.mark.{name}(...).", pytrace=False)
    return marker.args[0]
