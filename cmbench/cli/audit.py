"""`cmbench compare`, `explain`, `verify` and `disclose`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cmbench.cli.complete import complete_results
from cmbench.cli.options import MOST_SEED, AsJson, Device, Quiet, data_paths, print_json
from cmbench.core.loader import without_folder

__all__ = ["compare", "disclose", "explain", "verify"]


def compare(
    run_a: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    run_b: Annotated[
        Path, typer.Argument(help="Another results folder.", autocompletion=complete_results)
    ],
    as_json: AsJson = False,
) -> None:
    """Tests whether the numbers of two runs are comparable, and by how much they differ.

    Differences are A - B; p-values are corrected by Holm's method. If protocols differ, prints the
    differing fields and exits with 1.
    """
    import torch

    from cmbench.audit.compare import compare_runs
    from cmbench.engine.context import JobContext
    from cmbench.store.shared import open_store

    with without_folder(run_a, run_b):
        comparison = compare_runs(run_a, run_b, JobContext(open_store(), torch.device("cpu")))
    if as_json:
        print_json(comparison.as_dict())
    else:
        _show_comparison(comparison)
    if not comparison.comparable:
        raise typer.Exit(1)


def _show_comparison(comparison: Any) -> None:
    from rich.table import Table

    console, table = Console(), Table()
    for column in ("cell", "NFE", "score", "A", "B", "A - B, 95% interval", "p (Holm)", ""):
        table.add_column(column, overflow="fold")
    fields: dict[str, tuple[Any, Any]] = {}
    for row in comparison.rows:
        nfe = "" if row.nfe is None else f"{row.nfe:g}"
        cells = [row.label, nfe, row.score, f"{row.a:.5g}", f"{row.b:.5g}"]
        if not row.comparable:
            fields |= row.fields
            table.add_row(*cells, "not comparable", "", ", ".join(row.fields))
            continue
        text = f"{row.difference:.4g}"
        if row.interval:
            text += f" ({row.interval[0]:.4g} to {row.interval[1]:.4g})"
        p = "" if row.p_corrected is None else f"{row.p_corrected:.3g}"
        how = "paired" if row.paired else row.why_unpaired
        table.add_row(*cells, text, p, f"{how}; {row.repeats}" if row.repeats else how)
    console.print(table)
    lines = [f"{name}: {one} in A, {two} in B" for name, (one, two) in fields.items()]
    lines = (
        ["protocols differ, so these numbers are not comparable:", *lines]
        if lines
        else ["all scores that both runs have use one protocol"]
    )
    lines += [f"only in A: {name}" for name in comparison.only_a]
    lines += [f"only in B: {name}" for name in comparison.only_b]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def explain(
    a: Annotated[str, typer.Argument(help="FOLDER:CELL, or a record's file.")],
    b: Annotated[str, typer.Argument(help="FOLDER:CELL, or a record's file.")],
    score_name: Annotated[str, typer.Option("--score", help="Name of the score.")] = (
        "frechet_distance"
    ),
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Names the fields in which two numbers differ and measures the shift that each one causes."""
    from cmbench.audit.explain import explain as explained
    from cmbench.audit.explain import find_cell, folder_of
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    with without_folder(folder_of(a), folder_of(b)):
        explanation = explained(find_cell(a), find_cell(b), score_name, context)
    if as_json:
        print_json(explanation.as_dict())
        return
    lines = [
        f"{explanation.score}: {explanation.a:.6g} (A), {explanation.b:.6g} (B), "
        f"B - A {explanation.b - explanation.a:+.4g}"
    ]
    for shift in explanation.shifts:
        text = "not measured" if shift.shift is None else f"{shift.shift:+.4g}"
        if shift.interval:
            text += f" ({shift.interval[0]:+.4g} to {shift.interval[1]:+.4g})"
        lines.append(f"  {shift.group}: {text}; {shift.note}")
        lines += [f"    {name}: {one} -> {two}" for name, (one, two) in shift.fields.items()]
    rest = "" if explanation.rest is None else f": {explanation.rest:+.4g}"
    lines.append(f"  samples and interactions{rest}")
    lines += [f"    {name}: {one} -> {two}" for name, (one, two) in explanation.samples.items()]
    sys.stdout.write("\n".join(lines) + "\n")


def verify(
    folder: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of the shards to sample again.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="Seed of the random choice of shards.")
    ] = 0,
    levels: Annotated[
        int,
        typer.Option(
            min=0, max=255, help="Grey levels by which pixels may differ (other devices)."
        ),
    ] = 0,
    of_error: Annotated[
        float, typer.Option(min=0, help="Allowed difference, in standard errors of a score.")
    ] = 0.01,
    suite: Annotated[
        Path | None, typer.Option(help="The suite's file, if it refers to files next to it.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Path of a data set: PATH or NAME=PATH.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Repeat trainings that are not in the cache.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compares every claim of a results folder with its suite, and recomputes a random fraction.

    Exit code 0: confirmed; 1: something differs; 3: something could not be checked.
    """
    from cmbench.audit.claims import Options
    from cmbench.audit.verify import verify_results
    from cmbench.core.environment import pick_device
    from cmbench.engine.progress import show_progress
    from cmbench.store.shared import open_store
    from cmbench.suite.networks import DataLookup

    paths = data_paths(data or [], lambda: _own_data(folder))
    options = Options(fraction, seed, levels, of_error=of_error, retrain=retrain)
    with show_progress(1, quiet=quiet or as_json) as shown, without_folder(folder):
        verification = verify_results(
            folder, open_store(), pick_device(device), shown,
            options=options, suite=suite, data=DataLookup(paths),
        )  # fmt: skip
    if as_json:
        print_json(verification.as_dict())
    else:
        _show_verdict(verification)
    if verification.exit_code:
        raise typer.Exit(verification.exit_code)


def _own_data(folder: Path) -> str:
    """Returns the name of the suite's own data set, which `--data PATH` without a name means."""
    from cmbench.core.errors import UserError
    from cmbench.core.yaml_source import read_yaml

    if not (folder / "suite.yaml").is_file():
        raise UserError(
            f"{folder} holds no suite.yaml", expected="a folder that `cmbench run` wrote"
        )
    read = read_yaml(folder / "suite.yaml").data
    named = read.get("dataset") if isinstance(read, dict) else None
    return str(named.get("name") if isinstance(named, dict) else named)


def _show_verdict(verification: Any) -> None:
    kinds = {"differs": "DIFFERS  ", "unchecked": "unchecked", "on trust": "on trust ",
             "confirmed": "confirmed"}  # fmt: skip
    for finding in sorted(verification.findings, key=lambda f: list(kinds).index(f.verdict)):
        place = f"{finding.cell}  " if finding.cell else ""
        sys.stdout.write(f"{kinds[finding.verdict]}  {place}{finding.what}: {finding.detail}\n")
    word = {0: "confirmed", 1: "NOT confirmed", 3: "not fully checked"}[verification.exit_code]
    sys.stdout.write(
        f"{word}: {verification.shards} of {verification.claimed} shards sampled again, "
        f"in {len(verification.cells)} cells\n"
    )


def disclose(
    folder: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    as_json: AsJson = False,
) -> None:
    """Counts the settings that were tried per cell: checkpoints, samplers, time points, seeds.

    Reads this machine's store, writes selection.json into the folder, and updates the folder's
    tables and page, which then mark the cells that were chosen among several settings.
    """
    import torch

    from cmbench.audit.selection import selections
    from cmbench.core.files import write_json
    from cmbench.engine.context import JobContext
    from cmbench.record.folder import read_results
    from cmbench.report.write import write_report
    from cmbench.store.shared import open_store

    records = read_results(folder)
    with without_folder(folder):
        rows = selections(records, JobContext(open_store(), torch.device("cpu")))
    write_json(folder / "selection.json", [s.as_dict() for s in rows])
    write_report(folder)
    if as_json:
        print_json([s.as_dict() for s in rows])
        return
    for s in rows:
        head = f"{s.label} at {s.nfe:g} NFE, {s.score}: best of {s.tried}"
        parts = [f"{s.weights} weights", f"{s.samplers} samplers"]
        parts += [f"{s.searched} time points searched"] if s.searched else []
        choice = (
            "held-out seed"
            if s.held_out
            else f"chosen on this seed: expect it to look {s.gain:.2g} standard errors too good"
        )
        sys.stdout.write(f"{head} ({', '.join(parts)}); {choice}\n")
    unknown = sum(r.status == "done" for r in records) - len(rows)
    if unknown:
        sys.stdout.write(f"{unknown} cells: no scores in this machine's store\n")
