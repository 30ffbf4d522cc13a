"""The command line: `cmbench run SUITE`, then `cmbench report`. Heavy imports are deferred."""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from cmbench import __version__
from cmbench.cli.assets import assets
from cmbench.cli.audit import compare, disclose, explain, verify
from cmbench.cli.consistency import edit, search_steps_command
from cmbench.cli.doctor import doctor
from cmbench.cli.examples import teach
from cmbench.cli.models import models
from cmbench.cli.report import report
from cmbench.cli.run import check, plan, run
from cmbench.cli.score import neighbours, score
from cmbench.cli.stats import stats
from cmbench.cli.train import train
from cmbench.core.errors import CmbenchError, Interrupted, disk_error
from cmbench.core.interrupts import InterruptHandler

__all__ = ["app", "main"]

app = typer.Typer(
    name="cmbench",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Evaluate and benchmark few-step image generators: one YAML file to a leaderboard.

    **First steps:** `cmbench run digits_nfe` trains small models on 8x8 digits and compares them,
    offline; `cmbench report results/digits_nfe` renders the results; `cmbench plan SUITE` says
    what a run would cost.

    **Exit codes:** 0 success, 1 some cells failed, 2 invalid input, 3 cells or scores are pending
    under `--strict`, 130 interrupted (run the same command again to resume).
    """,
)


_FIRST: tuple[Callable[..., None], ...] = (run, plan, check, doctor, report, train, edit)
_TRUST: tuple[Callable[..., None], ...] = (compare, explain, verify, neighbours, disclose)

for command in _FIRST:
    app.command()(command)
app.command("search-steps")(search_steps_command)
app.add_typer(models, name="models")
app.command()(score)
app.add_typer(stats, name="stats")
for command in _TRUST:
    app.command()(command)
app.add_typer(assets, name="assets")
teach(app)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"cmbench {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Runs the command; a known error is printed without a traceback and exits with 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal can't encode
            stream.reconfigure(errors="backslashreplace")
    handler = InterruptHandler()
    try:
        handler.install()
        app()
    except (CmbenchError, Interrupted, OSError, MemoryError) as error:
        handler.ending = True
        sys.exit(_report(error))
    finally:
        handler.ending = True


def _report(error: BaseException) -> int:
    """Prints the error, unless the output is closed; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    code, text = 2, f"error: {error}"
    if isinstance(error, Interrupted) or _ended_by_interrupt(error):
        code, text = 130, "interrupted; run the same command again to resume"
    elif isinstance(error, OSError):
        known = disk_error(error, then=", then run the same command again")
        if known is None and error.filename is None:
            raise error
        text = f"error: {known or f'{error.strerror or error}: {error.filename}'}"
    elif isinstance(error, MemoryError):
        text = f"error: not enough memory: {error}\n  fix: fewer images, or narrower features"
    with contextlib.suppress(OSError):  # the terminal is closed
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
    return code


def _ended_by_interrupt(error: BaseException) -> bool:
    """Tests whether the error occurred while an interrupt ended the command (closed terminal)."""
    earlier = error.__context__ if isinstance(error, OSError) else None
    while earlier is not None and not isinstance(earlier, Interrupted):
        earlier = earlier.__context__
    return earlier is not None
