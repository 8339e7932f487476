"""The command `studies`.

Exit codes, of every command:

    0  no claim fails, the estimator holds, or the command did what was asked
    1  some claim fails, the estimator falls short, results differ, or `status` found damage
    2  no verdict: it could not be run, a cell failed, it was interrupted, or it ended in any other way

Nothing but a verdict that is stored and printed gives 0 or 1: see `studies.running.supervise`. A claim that is open,
because too little was measured, does not fail: it is counted and shown with what would decide it. Errors are one
sentence on standard error.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.errors import StudyError
from studies.running import text
from studies.running.supervise import NO_VERDICT, supervised

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]

OK, DIFFERS, CANNOT = 0, 1, NO_VERDICT
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # typer carries click inside, under a private name

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Studies that hold sensitivity estimates against ground truth.\n\n"
    "Exit codes: 0 no claim fails, 1 some do, 2 no verdict.",
)

Names = Annotated[list[str], typer.Argument(help="Studies, see 'studies list'; or modules or files of your own.")]
Out = Annotated[Path, typer.Option(help="Folder of all results.")]
Modules = Annotated[
    list[str] | None, typer.Option("--study", help="Module of a study of your own that results may come from.")
]
DEFAULT_OUT = Path("studies-out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; without `arguments`, in a child process whose end is checked."""
    if arguments is None:
        return supervised(lambda: answer(sys.argv[1:]), fail)
    return answer(arguments)


def answer(arguments: Sequence[str]) -> int:
    """Run one command here; whatever happens becomes an exit code and one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding that lacks a letter is no reason to fail
    try:
        code = app(args=list(arguments), prog_name="studies", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except StudyError as error:
        return fail(str(error))
    except USAGE_ERROR as error:
        told = getattr(error, "format_message", None)
        return fail(told() if told else str(error))
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return fail("interrupted")
    except (OSError, MemoryError, ImportError, SystemExit) as error:  # Rich exits where nobody reads what it prints
        return fail(f"the command ended early ({text.sentence_of(error)}); its output may be incomplete")
    except Exception as error:
        print(text.block(traceback.format_exc()), file=sys.stderr)
        return fail(f"unexpected {text.sentence_of(error)}: a fault of this program or of a study; please report it")


def fail(sentence: str) -> int:
    """Print one sentence on standard error; give the exit code."""
    with suppress(OSError, ValueError, SystemExit):
        print(f"studies: {text.line(sentence, 2000).removesuffix('.')}.", file=sys.stderr, flush=True)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        return CANNOT
    with suppress(OSError, ValueError):  # what cannot be written now could not be at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CANNOT


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_studies() -> None:
    """Name every study and its question."""
    from rich.table import Table
    from rich.text import Text

    from studies.reports.display import screen
    from studies.study import available, question

    table = Table(box=None, pad_edge=False)
    table.add_column("study", no_wrap=True)
    table.add_column("question", overflow="fold")
    for name in available():
        table.add_row(name, Text(question(name)))
    screen().print(table)


@app.command()
def run(
    names: Names,
    smoke: Annotated[bool, typer.Option("--smoke", help="At most 15 seconds; a check that everything works.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Two to three minutes on two cores (the default).")] = False,
    full: Annotated[bool, typer.Option("--full", help="At most an hour on two cores.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="For a cluster.")] = False,
    out: Out = DEFAULT_OUT,
    device: Annotated[str, typer.Option(help="Torch device of the cells.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine (default one per core); 0 runs in this process.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of an existing Dask scheduler instead.")] = None,
    seed: Annotated[int, typer.Option(help="Shifts the seeds of all cells.")] = 0,
    changed: Annotated[
        str, typer.Option(help="Stored cells of other code or package versions: redo, refuse or keep.")
    ] = "redo",
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Serve Dask's dashboard, to every user of this machine.")
    ] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Copy the final tables into the package.")] = False,
) -> int:
    """Run studies, or finish interrupted ones: finished cells are kept."""
    import studies.runner
    from studies.reports.display import screen, show_result
    from studies.running.progress import for_console
    from studies.study import load

    level = chosen_level(smoke=smoke, quick=quick, full=full, paper=paper)
    for name in names:  # a wrong name is reported before anything is computed
        load(name)
    console = screen()
    codes = []
    for name in names:
        try:
            result = studies.runner.run(
                name,
                level,
                out=out,
                device=device,
                workers=workers,
                scheduler=scheduler,
                seed=seed,
                changed=changed,
                dashboard=dashboard,
                progress=for_console(console),
            )
        except KeyboardInterrupt:
            raise StudyError("interrupted; finished cells are kept, run the same command again to go on.") from None
        show_result(console, result)
        codes.append(result.exit_code)
        if publish:
            publish_folder(console, result.folder)
    return max(codes)


def chosen_level(**flags: bool) -> str:
    """The one level asked for; `quick` when none is.

    Raises:
        StudyError: more than one.
    """
    given = [name for name, on in flags.items() if on]
    if len(given) > 1:
        raise StudyError(f"--{given[0]} and --{given[1]} exclude each other; give one of them.")
    return given[0] if given else "quick"


def publish_folder(console: Console, folder: Path) -> None:
    from studies.reports.display import path
    from studies.results import publish

    path(console, f"published: {publish(folder)}")


def named(modules: Sequence[str] | None) -> None:
    """Import the modules that the user names; those that results name are not."""
    from studies.study import load

    for module in modules or []:
        load(module)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="OUT/STUDY/LEVEL-DIGEST; of OUT or OUT/STUDY the newest result.")],
    study: Modules = None,
) -> int:
    """Make the HTML page of a result again, also of an unfinished one."""
    from studies.reports.display import path, screen
    from studies.reports.upkeep import newest, renew

    named(study)
    folder = newest(folder)
    summary = renew(folder)
    path(screen(), f"report: {folder / 'report.html'}")
    return OK if summary.complete and not summary.failures else CANNOT


@app.command()
def status(
    out: Out = DEFAULT_OUT,
    check: Annotated[bool, typer.Option("--check", help="Read and verify every file.")] = False,
    study: Modules = None,
) -> int:
    """Say what is stored, what is running, and what is damaged."""
    from studies.reports.display import say, screen, show_status
    from studies.reports.upkeep import folders
    from studies.reports.upkeep import status as look

    named(study)
    console = screen()
    results, damaged = folders(out), False
    for folder in results:
        try:
            each = look(folder, check=check)
        except StudyError as error:
            say(console, str(error))
            damaged = True
        else:
            show_status(console, each)
            damaged |= bool(each.problems)
    if not results:
        say(console, f"nothing is stored in {out}")
    return DIFFERS if damaged else OK


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A result folder.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same study.")],
) -> int:
    """Set two results side by side and test their differences (exit code 1 if they differ)."""
    from studies.reports.compare import compare as contrast
    from studies.reports.display import screen, show_comparison

    comparison = contrast(first, second)
    show_comparison(screen(), comparison)
    return DIFFERS if comparison.differs else OK


@app.command()
def clean(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all of them by default.")] = None,
    out: Out = DEFAULT_OUT,
    everything: Annotated[bool, typer.Option("--all", help="Remove whole results and trained networks.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    study: Modules = None,
) -> int:
    """Remove half-written and damaged files, or with --all everything that is stored."""
    from studies.reports.display import path, screen
    from studies.reports.upkeep import clean as sweep
    from studies.reports.upkeep import clean_cache, folders

    named(study)
    console = screen()
    chosen = [folder for folder in folders(out) if not names or folder.parent.name in names]
    if everything and chosen and not yes:
        confirm(console, chosen)
    steps = [partial(sweep, folder, everything=everything) for folder in chosen]
    steps += [partial(clean_cache, out, name) for name in sorted({each.parent.name for each in chosen}) if everything]
    removed, code = 0, OK
    for step in steps:  # what stands in the way of one is no reason to leave the others
        try:
            for place in step():
                path(console, f"removed {place}")
                removed += 1
        except StudyError as error:
            code = fail(str(error))
    path(console, f"{removed} removed")
    return code


def confirm(console: Console, chosen: Sequence[Path]) -> None:
    """Ask before results are removed.

    Raises:
        StudyError: nobody can answer, or the answer is no.
    """
    from studies.reports.display import path

    for folder in chosen:
        path(console, str(folder))
    if not sys.stdin.isatty():
        raise StudyError("removing results needs a confirmation; add --yes.")
    if not typer.confirm("Remove these results?"):
        raise StudyError("nothing was removed.")


@app.command()
def publish(folder: Annotated[Path, typer.Argument(help="A complete result folder.")], study: Modules = None) -> None:
    """Copy the final tables of a result into the package, where the book reads them."""
    from studies.reports.display import screen

    named(study)
    publish_folder(screen(), folder)


@app.command()
def verify(
    estimator: Annotated[
        str | None, typer.Argument(help="MODULE:CALLABLE or FILE.py:CALLABLE, found from the current folder.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What it estimates, such as log-density.")] = None,
    engine: Annotated[bool, typer.Option("--engine", help="Verify this package's own estimators.")] = False,
    suite: Annotated[
        str, typer.Option(help="quick or full; for attribution exact, trained, images, images-unet.")
    ] = "quick",
    backend: Annotated[str, typer.Option(help="Arrays that the estimator gets: numpy, torch or jax.")] = "torch",
    seed: Annotated[int, typer.Option(help="0 is the published suite; others draw fresh problems.")] = 0,
    problem: Annotated[list[str] | None, typer.Option(help="Only this problem; may be repeated.")] = None,
    slack: Annotated[float, typer.Option(help="Widens every limit by this factor.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; none is written by default.")] = None,
    isolated: Annotated[bool, typer.Option("--isolated", help="Run in a process of its own.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which it is ended; means --isolated.")] = None,
) -> int:
    """Hold an estimator against ground truth (exit code 1 if it falls short); without one, those of pyproject.toml."""
    from studies.verification import command

    if isolated or timeout is not None:
        from studies.verification import isolation

        options = {"task": task, "suite": suite, "backend": backend, "seed": seed, "slack": slack, "out": out}
        return isolation.run(isolation.command_line(estimator, engine, problem or [], options), timeout)
    if engine:
        if estimator is not None or task is not None:
            raise StudyError("--engine verifies the package's own estimators; leave out the name and --task.")
        return command.run_engine(suite=suite, seed=seed, out=out)
    if estimator is None and task is None:
        return command.run_listed(out=out)
    if estimator is None or task is None:
        raise StudyError("name what to verify: MODULE:CALLABLE --task TASK, or --engine for this package's own.")
    return command.run(
        estimator, task, suite=suite, backend=backend, seed=seed, problems=problem or None, slack=slack, out=out
    )


if __name__ == "__main__":
    sys.exit(main())
