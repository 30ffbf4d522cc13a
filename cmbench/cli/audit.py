"""`cmbench compare`, `explain`, `verify` and `disclose`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cmbench.cli.complete import complete_results
from cmbench.cli.options import AsJson, Device, Quiet, print_json

__all__ = ["compare", "disclose", "explain", "verify"]


def compare(
    run_a: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    run_b: Annotated[Path, typer.Argument(help="Another.", autocompletion=complete_results)],
    as_json: AsJson = False,
) -> None:
    """Says whether two runs' numbers are comparable, which fields differ, and by how much.

    Exit code 1 if protocols differ. Differences are A - B; p-values are corrected by Holm.
    """
    import torch

    from cmbench.audit.compare import compare_runs
    from cmbench.engine.context import JobContext
    from cmbench.store.shared import open_store

    found = compare_runs(run_a, run_b, JobContext(open_store(), torch.device("cpu")))
    if as_json:
        print_json(found.as_dict())
    else:
        _show_comparison(found)
    if not found.comparable:
        raise typer.Exit(1)


def _show_comparison(found: Any) -> None:
    from rich.table import Table

    console, table = Console(), Table()
    for column in ("cell", "NFE", "score", "A", "B", "A - B, 95% interval", "p (Holm)", ""):
        table.add_column(column, overflow="fold")
    fields: dict[str, tuple[Any, Any]] = {}
    for row in found.rows:
        nfe = "" if row.nfe is None else f"{row.nfe:g}"
        cells = [row.label, nfe, row.score, f"{row.a:.5g}", f"{row.b:.5g}"]
        if not row.comparable:
            fields |= row.fields
            table.add_row(*cells, "not comparable", "", ", ".join(row.fields))
            continue
        told = f"{row.difference:.4g}"
        if row.interval:
            told += f" ({row.interval[0]:.4g} to {row.interval[1]:.4g})"
        p = "" if row.p_corrected is None else f"{row.p_corrected:.3g}"
        how = "paired" if row.paired else row.why_unpaired
        table.add_row(*cells, told, p, f"{how}; {row.repeats}" if row.repeats else how)
    console.print(table)
    lines = [f"{name}: {one} in A, {two} in B" for name, (one, two) in fields.items()]
    lines = (
        ["protocols differ, so these numbers are not comparable:", *lines]
        if lines
        else ["every score that both have stands under one protocol"]
    )
    lines += [f"only in A: {name}" for name in found.only_a]
    lines += [f"only in B: {name}" for name in found.only_b]
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
    """Names the fields in which two numbers differ and measures the shift that each makes."""
    from cmbench.audit.explain import explain as explained
    from cmbench.audit.explain import find_cell
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    found = explained(find_cell(a), find_cell(b), score_name, context)
    if as_json:
        print_json(found.as_dict())
        return
    lines = [
        f"{found.score}: {found.a:.6g} (A), {found.b:.6g} (B), B - A {found.b - found.a:+.4g}"
    ]
    for shift in found.shifts:
        told = "not measured" if shift.shift is None else f"{shift.shift:+.4g}"
        if shift.interval:
            told += f" ({shift.interval[0]:+.4g} to {shift.interval[1]:+.4g})"
        lines.append(f"  {shift.group}: {told}; {shift.note}")
        lines += [f"    {name}: {one} -> {two}" for name, (one, two) in shift.fields.items()]
    rest = "" if found.rest is None else f": {found.rest:+.4g}"
    lines.append(f"  samples and interplay{rest}")
    lines += [f"    {name}: {one} -> {two}" for name, (one, two) in found.samples.items()]
    sys.stdout.write("\n".join(lines) + "\n")


def verify(
    folder: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the claimed shards to make again.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the choice of shards.")] = 0,
    levels: Annotated[
        int, typer.Option(min=0, max=255, help="Grey levels allowed, for another device.")
    ] = 0,
    of_error: Annotated[
        float, typer.Option(min=0, help="Share of a score's standard error allowed.")
    ] = 0.01,
    suite: Annotated[
        Path | None, typer.Option(help="The suite's file, if it names files beside it.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Where data is: PATH or NAME=PATH.")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train again what is not in the cache.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compares every claim of a results folder with its suite, and recomputes a random part.

    Exit code 0: confirmed; 1: something differs; 3: something could not be checked.
    """
    from cmbench.audit.claims import Options
    from cmbench.audit.verify import verify_results
    from cmbench.core.environment import pick_device
    from cmbench.engine.progress import show_progress
    from cmbench.store.shared import open_store
    from cmbench.suite.networks import DataLookup

    paths = {}
    for item in data or []:
        name, separator, path = item.rpartition("=")
        paths[name if separator else _own_data(folder)] = Path(path)
    options = Options(fraction, seed, levels, of_error=of_error, retrain=retrain)
    with show_progress(1, quiet=quiet or as_json) as shown:
        found = verify_results(
            folder, open_store(), pick_device(device), shown,
            options=options, suite=suite, data=DataLookup(paths),
        )  # fmt: skip
    if as_json:
        print_json(found.as_dict())
    else:
        _show_verdict(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _own_data(folder: Path) -> str:
    """The suite's own data set, which a bare --data PATH is of."""
    from cmbench.core.errors import UserError
    from cmbench.core.yaml_source import read_yaml

    if not (folder / "suite.yaml").is_file():
        raise UserError(
            f"{folder} holds no suite.yaml", expected="a folder that `cmbench run` wrote"
        )
    read = read_yaml(folder / "suite.yaml").data
    named = read.get("dataset") if isinstance(read, dict) else None
    return str(named.get("name") if isinstance(named, dict) else named)


def _show_verdict(found: Any) -> None:
    kinds = {"differs": "DIFFERS  ", "unchecked": "unchecked", "on trust": "on trust ",
             "confirmed": "confirmed"}  # fmt: skip
    for finding in sorted(found.findings, key=lambda f: list(kinds).index(f.verdict)):
        place = f"{finding.cell}  " if finding.cell else ""
        sys.stdout.write(f"{kinds[finding.verdict]}  {place}{finding.what}: {finding.detail}\n")
    word = {0: "confirmed", 1: "NOT confirmed", 3: "not wholly checked"}[found.exit_code]
    sys.stdout.write(
        f"{word}: {found.shards} of {found.claimed} shards made again, "
        f"in {len(found.cells)} cells\n"
    )


def disclose(
    folder: Annotated[
        Path, typer.Argument(help="A results folder.", autocompletion=complete_results)
    ],
    as_json: AsJson = False,
) -> None:
    """Counts what was scored before the cells shown: checkpoints, samplers, time points, seeds.

    Writes selection.json into the folder, from what this machine's store knows, and the folder's
    tables and page again, with what was chosen among several.
    """
    import torch

    from cmbench.audit.selection import selections
    from cmbench.core.files import write_json
    from cmbench.engine.context import JobContext
    from cmbench.record.folder import read_results
    from cmbench.report.write import write_report
    from cmbench.store.shared import open_store

    records = read_results(folder)
    found = selections(records, JobContext(open_store(), torch.device("cpu")))
    write_json(folder / "selection.json", [s.as_dict() for s in found])
    write_report(folder)
    if as_json:
        print_json([s.as_dict() for s in found])
        return
    for s in found:
        told = f"{s.label} at {s.nfe:g} NFE, {s.score}: best of {s.tried}"
        parts = [f"{s.weights} weights", f"{s.samplers} samplers"]
        parts += [f"{s.searched} time points searched"] if s.searched else []
        held = (
            "held-out seed" if s.held_out else f"chosen on its own seed, gain {s.gain:.2g} errors"
        )
        sys.stdout.write(f"{told} ({', '.join(parts)}); {held}\n")
    unknown = sum(r.status == "done" for r in records) - len(found)
    if unknown:
        sys.stdout.write(f"{unknown} cells: this machine's store knows nothing of them\n")
