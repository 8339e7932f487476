"""Results in the terminal: readable without colour and at any width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.running import text
from studies.running.progress import WORDS, ClaimTable, measured, number

if TYPE_CHECKING:
    from studies.reports.compare import ClaimPair, ColumnPair, Comparison
    from studies.reports.upkeep import Status
    from studies.runner import Result
    from studies.study import Claim

__all__ = ["path", "say", "screen", "show_comparison", "show_result", "show_status"]

NARROWEST, USUAL = 10, 80  # columns; COLUMNS=0 is what some programs leave behind


def screen() -> Console:
    """Standard output, with a width that text fits."""
    console = Console()
    if console.width < NARROWEST:
        console.width = USUAL
    return console


def say(console: Console, sentence: str) -> None:
    """Print a sentence as it is."""
    console.print(text.line(sentence, 5000), highlight=False, markup=False)


def path(console: Console, sentence: str) -> None:
    """Print a line that must not be broken, such as a path."""
    console.print(text.block(sentence), highlight=False, markup=False, soft_wrap=True)


def show_result(console: Console, result: Result) -> None:
    """Claims, failures and where to find the rest."""
    if result.claims:
        console.print(ClaimTable(result.claims))
    for note in result.notes:
        say(console, f"note: {note}")
    if result.failures:
        say(console, f"{len(result.failures)} cells failed; the report has their tracebacks")
    path(console, f"report: {result.folder / 'report.html'}")


def show_status(console: Console, status: Status) -> None:
    """One folder in two lines, and its damaged files."""
    total = "?" if status.cells is None else status.cells
    parts = [f"{status.study} {status.level}: {status.finished}/{total} cells"]
    parts += [f"{status.failed} failed"] if status.failed else []
    parts += [str(status.claims)] if status.claims else ["not judged yet"]
    parts += ["running"] if status.running else []
    parts += ["whether it runs cannot be told here"] if status.running is None else []
    parts += ["its study is not here (name it with --study) or has changed since"] if status.cells is None else []
    say(console, ", ".join(parts))
    path(console, f"  {status.folder}")
    for problem in status.problems:
        path(console, f"  {problem}")


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Claims and columns of two results side by side, and one sentence."""
    console.print(_claims(comparison.claims))
    console.print(_columns(comparison.columns))
    for name, count in comparison.relabelled.items():
        say(console, f"column {name}: {count} rows are not equal")
    if comparison.unmatched:
        say(console, f"{len(comparison.unmatched)} cells are in one result only, {comparison.unmatched[0]} for one")
    say(console, "the results differ" if comparison.differs else "no difference found")


def _claims(pairs: list[ClaimPair]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("claim", "first", "second"):
        table.add_column(column, overflow="fold")
    for pair in pairs:
        table.add_row(*map(Text, (pair.statement, _verdict(pair.first), _verdict(pair.second))))
    return table


def _verdict(claim: Claim | None) -> str:
    if claim is None:
        return "not made"
    return f"{WORDS[claim.verdict]}: {measured(claim)}"


def _columns(pairs: list[ColumnPair]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("column", "first", "second", "median difference", "p", ""):
        table.add_column(column, overflow="fold")
    for pair in pairs:
        table.add_row(*map(Text, (pair.name, number(pair.first), number(pair.second), *_test(pair))))
    return table


def _test(pair: ColumnPair) -> tuple[str, str, str]:
    if pair.test is None and pair.p_value == 1.0:
        return "equal", "", ""
    remark = "timing" if pair.timing else "DIFFERS" if pair.differs else ""
    return (str(pair.test.difference) if pair.test else "", number(pair.p_value), remark)
