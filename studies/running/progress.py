"""What a run tells while it goes on: nothing (library), lines (files and pipes) or a live display (terminals)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from studies.claim_bounds import Tally, Verdict
from studies.study import Claim

__all__ = ["ClaimTable", "Lines", "LiveDisplay", "Progress", "Silent", "for_console", "number"]


WORDS = {Verdict.HOLDS: "holds", Verdict.FAILS: "DOES NOT HOLD", Verdict.OPEN: "OPEN"}
STYLES = {Verdict.HOLDS: "green", Verdict.FAILS: "bold red", Verdict.OPEN: "yellow"}
FIRST = (Verdict.FAILS, Verdict.OPEN, Verdict.HOLDS)  # the order in which claims are shown
WIDE, INDENT = 110, 4  # columns; below, a table of four columns takes a claim seven lines


class Progress(Protocol):
    """Listener of a run; `shows_claims` says whether it is worth telling it the claims as they stand."""

    shows_claims: bool

    def start(self, study: str, question: str, total: int, kept: int) -> None: ...
    def note(self, sentence: str) -> None: ...
    def cell(self, name: str, seconds: float, error: str) -> None: ...
    def claims(self, claims: Sequence[Claim]) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """Tells nothing."""

    shows_claims = False

    def start(self, study: str, question: str, total: int, kept: int) -> None: ...
    def note(self, sentence: str) -> None: ...
    def cell(self, name: str, seconds: float, error: str) -> None: ...
    def claims(self, claims: Sequence[Claim]) -> None: ...
    def stop(self) -> None: ...


class Rate:
    """Counts cells and says how fast they come and how long the rest takes."""

    def __init__(self, total: int, kept: int) -> None:
        self.total, self.kept, self.done, self.failed = total, kept, kept, 0
        self.began = self.first = time.monotonic()

    def count(self, error: str) -> None:
        if self.done == self.kept:
            self.first = time.monotonic()  # a cluster's start is no part of the rate
        self.done += 1
        self.failed += bool(error)

    def sentence(self) -> str:
        now, new = time.monotonic(), self.done - self.kept
        text = f"{self.done}/{self.total} cells"
        if new and self.done == self.total:
            text += f" in {duration(now - self.began)}"
        elif new > 1 and now > self.first:
            rate = (new - 1) / (now - self.first)
            text += f", {_per_time(rate)}, {duration((self.total - self.done) / rate)} left"
        return text + (f", {self.failed} failed" if self.failed else "")


class Lines:
    """Prints a line now and then: for pipes, files and terminals that cannot redraw."""

    shows_claims = False

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self.console, self.every = console, every
        self.rate = Rate(0, 0)
        self.last = 0.0

    def start(self, study: str, question: str, total: int, kept: int) -> None:
        self.rate, self.last = Rate(total, kept), time.monotonic()
        self.console.print(f"{study}: {question}", highlight=False, markup=False)
        self.console.print(f"{total} cells, {kept} already stored", highlight=False)

    def note(self, sentence: str) -> None:
        self.console.print(f"note: {sentence}", highlight=False, markup=False)

    def cell(self, name: str, seconds: float, error: str) -> None:
        self.rate.count(error)
        if error:
            self.console.print(f"cell {name} failed: {error}", highlight=False, markup=False)
        if time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            self.console.print(self.rate.sentence(), highlight=False)

    def claims(self, claims: Sequence[Claim]) -> None: ...

    def stop(self) -> None:
        self.console.print(self.rate.sentence(), highlight=False)


class LiveDisplay:
    """A bar with rate and remaining time above the claims as they stand."""

    shows_claims = True

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rate, self.title = Rate(0, 0), ""
        self.current: Sequence[Claim] = ()
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def start(self, study: str, question: str, total: int, kept: int) -> None:
        self.rate, self.title, self.current = Rate(total, kept), study, ()
        self.console.print(Text.assemble((study, "bold"), f": {question}"))
        self.live.start()

    def render(self) -> RenderableType:
        width = max(8, min(40, self.console.width - 20))
        filled = width * self.rate.done // max(1, self.rate.total)
        bar = "█" * filled + "░" * (width - filled)
        return Group(f"{bar} {self.rate.sentence()}", *([ClaimTable(self.current)] if self.current else []))

    def note(self, sentence: str) -> None:
        self.console.print(f"note: {sentence}", highlight=False, markup=False)

    def cell(self, name: str, seconds: float, error: str) -> None:
        self.rate.count(error)
        if error:
            self.console.print(f"cell {name} failed: {error}", highlight=False, markup=False)

    def claims(self, claims: Sequence[Claim]) -> None:
        self.current = claims

    def stop(self) -> None:
        self.live.stop()
        self.console.print(self.rate.sentence(), highlight=False)


def for_console(console: Console) -> Progress:
    """The display that suits a console."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class ClaimTable:
    """Claims with their measured values, those that fail first, and how many there are of each kind last.

    A table where four columns fit; below that a paragraph each, its lines set in. The verdict is a word, so that it
    needs no colour.
    """

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = sorted(claims, key=lambda claim: FIRST.index(claim.verdict))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < WIDE:
            for claim in self.claims:
                yield from _paragraph(claim)
        else:
            yield self._table()
        yield Text(f"{Tally.of(claim.verdict for claim in self.claims)}.")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("verdict", no_wrap=True)
        for name, share in (("claim", 5), ("measured", 2), ("expected", 2)):
            table.add_column(name, ratio=share, overflow="fold")
        for claim in self.claims:
            plain = (_whole(claim), measured(claim), claim.expected)
            table.add_row(_verdict(claim), *map(Text, plain))  # Text: brackets are no markup
        return table


def _verdict(claim: Claim) -> Text:
    return Text(WORDS[claim.verdict], STYLES[claim.verdict])


def _whole(claim: Claim) -> str:
    """The statement; of an open claim also what would decide it."""
    reason = claim.judgement.reason
    return f"{claim.statement} [open: {reason}]" if reason else claim.statement


def _paragraph(claim: Claim) -> Iterator[RenderableType]:
    """Verdict and statement, and below, set in, what was measured and expected."""
    yield Text.assemble(_verdict(claim), f": {_whole(claim)}", overflow="fold")
    yield Padding(Text(f"{measured(claim)}, expected {claim.expected}", overflow="fold"), (0, 0, 0, INDENT))


def measured(claim: Claim) -> str:
    """The measured value with its interval."""
    text = number(claim.measured)
    if claim.interval is not None:
        text += f" [{number(claim.interval[0])}, {number(claim.interval[1])}]"
    return text


def number(value: float | str) -> str:
    """Four significant digits, or the text itself; zeros are kept where they are digits of a rounded number.

    Example:
        >>> number(1.00049), number(1.0), number(2.5e-9), number("exact")
        ('1.000', '1', '2.5e-09', 'exact')
    """
    if isinstance(value, str):
        return value
    text = f"{value:.4g}"
    return text if float(text) == value or "." in text else f"{value:#.4g}"


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(4.2), duration(192), duration(7260)
        ('4 s', '3 min 12 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _per_time(rate: float) -> str:
    return f"{rate:.3g} cells/s" if rate >= 1 else f"{rate * 60:.3g} cells/min"
