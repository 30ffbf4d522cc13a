"""`cmbench run`, `plan` and `check`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cmbench.cli.complete import complete_engine
from cmbench.cli.options import (
    AsJson,
    DataPaths,
    Device,
    Results,
    Retrain,
    Suite,
    Tag,
    data_paths,
    key_values,
    print_json,
)
from cmbench.core.errors import UserError

__all__ = ["check", "plan", "run"]


def run(
    suite: Suite,
    data: DataPaths = None,
    results: Results = Path("results"),
    device: Device = "auto",
    retrain: Retrain = False,
    tag: Tag = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if cells or scores are pending.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report at the end.")
    ] = True,
    engine: Annotated[
        str,
        typer.Option(help="Where jobs run: local, ray or slurm.", autocompletion=complete_engine),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster (auto or HOST:PORT). Without it, Ray is "
            "started on this machine."
        ),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option(min=0.1, help="CPUs per job (Ray) or worker (Slurm); default 1."),
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs per job (Ray) or worker (Slurm); default 0.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of the Slurm array; default 1.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="Slurm parameter KEY=VALUE: partition, time (minutes), account."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds without progress after which a job counts as hung."),
    ] = None,
    race: Annotated[
        bool,
        typer.Option(
            "--race", help="Sample in rounds; stop cells early once their rank is settled."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Runs a suite: trains, samples, scores. Run it again to resume; finished work is reused."""
    if dry_run:
        plan(suite, data, device, retrain, tag, as_json)
        return
    from cmbench.core.files import refuse_unwritable
    from cmbench.engine.context import JobContext
    from cmbench.engine.open import open_engine
    from cmbench.engine.progress import show_progress
    from cmbench.engine.schedule import needed_jobs
    from cmbench.run.suite import run_suite
    from cmbench.run.waiting import waiting_lines

    if race and engine != "local":
        raise UserError(
            f"--race --engine {engine}: a race runs in one process", fix="--engine local"
        )
    values = {
        "address": address,
        "cpus": cpus,
        "gpus": gpus,
        "workers": workers,
        "slurm": key_values("--slurm", slurm) if slurm else None,
        "timeout": timeout,
    }
    options = {key: value for key, value in values.items() if value is not None}
    planned, store, target = _planned(suite, data, device, retrain, tag)
    refuse_unwritable(results / planned.suite.suite, folder=True, then=" (--results)")
    to_do = sum(not there for there in needed_jobs(planned, store).values())
    with (
        show_progress(to_do, quiet=quiet) as shown,
        open_engine(engine, JobContext(store, target), shown, options) as opened,
    ):
        if race:
            from cmbench.run.race import race_suite

            planned = race_suite(planned, opened, results / planned.suite.suite)
        outcome = run_suite(planned, opened, results / planned.suite.suite)
    if write:
        from cmbench.report.write import write_report

        write_report(outcome.folder)
    summary = {
        "results": str(outcome.folder),
        "done": outcome.done + outcome.cached,
        "new": outcome.done,
        "failed": outcome.failed,
        "pending": outcome.pending,
        "pending_scores": sum(
            score.pending is not None
            for cell in planned.cells
            if cell.pending is None
            for score in cell.scores
        ),
    }
    _tell_outcome(summary, waiting_lines(planned), as_json, write)
    if outcome.failed:
        raise typer.Exit(1)
    if strict and (summary["pending"] or summary["pending_scores"]):
        raise typer.Exit(3)


def plan(
    suite: Suite,
    data: DataPaths = None,
    device: Device = "auto",
    retrain: Retrain = False,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Prints what a run would do: jobs, cached outputs, evaluations, time and disk."""
    from cmbench.run.estimate import estimate_plan
    from cmbench.run.plan_table import plan_as_json, print_plan

    planned, store, target = _planned(suite, data, device, retrain, tag)
    _tell_foreign(planned)
    estimate = estimate_plan(planned, store, target)
    if as_json:
        print_json(plan_as_json(planned, store, estimate))
    else:
        print_plan(planned, store, estimate, Console())


def check(suite: Suite, data: DataPaths = None, as_json: AsJson = False) -> None:
    """Checks a suite without running it: every key, name, parameter, file and step count."""
    planned, _, _ = _planned(suite, data, "cpu", retrain=False)
    _tell_foreign(planned)
    waiting = [c for c in planned.cells if c.pending is not None]
    if as_json:
        reasons = sorted({str(c.pending) for c in waiting})
        print_json({"suite": str(planned.source.path), "cells": len(planned.cells),
                     "jobs": len(planned.jobs), "pending": len(waiting),
                     "reasons": reasons})  # fmt: skip
        return
    Console().print(
        f"{planned.source.path}: {len(planned.cells)} cells, {len(planned.jobs)} jobs"
        + (f", {len(waiting)} cells pending: {waiting[0].pending}" if waiting else ""),
        markup=False,
        highlight=False,
    )


def _planned(
    suite: str, data: list[str] | None, device: str, retrain: bool, tag: str | None = None
) -> tuple[Any, Any, Any]:
    from cmbench.core.environment import pick_device
    from cmbench.store.shared import open_store
    from cmbench.suite.networks import DataLookup
    from cmbench.suite.planner import make_plan, plan_of_tag
    from cmbench.suite.spec import read_suite

    target = pick_device(device)
    read, source = read_suite(suite)
    named = read.dataset if isinstance(read.dataset, str) else str(read.dataset.get("name"))
    lookup = DataLookup(data_paths(data or [], lambda: named))
    planned = make_plan(read, source, data=lookup, retrain=retrain)
    unused = sorted(set(lookup.paths) - lookup.asked)
    if unused and all(cell.pending is None for cell in planned.cells):
        raise UserError(
            f"--data {unused[0]}=...: the suite uses no data set '{unused[0]}'",
            expected=f"one of: {', '.join(sorted(lookup.asked))}",
        )
    if tag is not None:
        planned = plan_of_tag(planned, tag, retrain=retrain)
    return planned, open_store(), target


def _tell_foreign(planned: Any) -> None:
    """Warns that a run would set aside finished cells of another suite of the same name."""
    from cmbench.record.folder import on_stderr
    from cmbench.run.results import foreign_cells, foreign_line

    folder = Path("results") / planned.suite.suite
    done = [r for r in foreign_cells(planned, folder) if r.status == "done"]
    if done:
        on_stderr(foreign_line(planned, folder, len(done), "`cmbench run` moves them"))


def _tell_outcome(
    summary: dict[str, Any], waiting: list[str], as_json: bool, report: bool
) -> None:
    if as_json:
        print_json(summary)
        return
    console = Console(stderr=True, soft_wrap=True)
    lines = [
        f"{summary['done']} cells done ({summary['new']} new), {summary['failed']} failed, "
        f"{summary['pending']} pending: {summary['results']}",
        *waiting,
    ]
    if report:
        lines.append(f"open {Path(summary['results']) / 'report.html'}")
    for line in lines:
        console.print(line, markup=False, highlight=False)
