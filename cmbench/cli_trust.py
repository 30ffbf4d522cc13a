"""`cmbench score`, `stats`, `compare`, `explain`, `verify`: numbers that can be trusted."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cmbench.cli_complete import (
    DEVICES,
    FORMATS,
    complete_component,
    complete_features,
    complete_results,
    one_of,
)
from cmbench.cli_trust_checks import register_checks
from cmbench.core.errors import UserError

__all__ = ["register"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of(DEVICES))
]
Data = Annotated[Path | None, typer.Option(help="Where the data set is.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]

stats = typer.Typer(no_args_is_help=True, help="Reference statistics: build, convert, show.")


def register(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command("score")(score)
    app.add_typer(stats, name="stats")
    app.command("compare")(compare)
    app.command("explain")(explain)
    app.command("verify")(verify)
    register_checks(app)


def score(
    images: Annotated[Path, typer.Option(help="Folder, .zip, .npz (ADM, score SDE) or .npy.")],
    reference: Annotated[
        str,
        typer.Option(
            help="A data set (digits, cifar10:split=test) or a statistics file.",
            autocompletion=complete_component("dataset"),
        ),
    ],
    features: Annotated[
        str,
        typer.Option(help="Extractors, separated by commas.", autocompletion=complete_features),
    ] = "efficientnet_lite0",
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, NAME:key=value,... or NAME@EXTRACTOR; give it again for more.",
            autocompletion=complete_component("metric"),
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH expected; else the reference's.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave broken images out and list them.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Each class alone too, where labels exist.")
    ] = False,
    data: Data = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Scores images made elsewhere, without loading them all; what is wrong with any is named."""
    from cmbench.record.shared_store import open_store
    from cmbench.run.environment import pick_device
    from cmbench.run.progress import board
    from cmbench.run.score_images import metric_specs, score_images
    from cmbench.run.workbench import Workbench

    bench = Workbench(open_store(), pick_device(device))
    with board(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"score {images}")
        found = score_images(
            images, reference, bench,
            features=[name.strip() for name in features.split(",") if name.strip()],
            metrics=metric_specs(metrics or []), size=_size(size), skip_bad=skip_bad,
            per_class=per_class, data=data, batch=batch, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        _print_json(found.as_dict())
        return
    _show_scores(found)


@stats.command("build")
def stats_build(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set (digits, cifar10:split=test), or a path of images.",
            autocompletion=complete_component("dataset"),
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    features: Annotated[
        str, typer.Option(help="Extractor.", autocompletion=complete_component("features"))
    ] = "inception",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="cmbench, compact, adm, edm, pytorch-fid, clean-fid, score-sde.",
            autocompletion=one_of(FORMATS),
        ),
    ] = "cmbench",
    data: Data = None,
    count: Annotated[int | None, typer.Option(min=2, help="So many images, by seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    images: Annotated[int, typer.Option(min=2, help="Images that adm keeps.")] = 10_000,
    keep: Annotated[int, typer.Option(min=2, help="Features that compact keeps.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 64,
    backend: Annotated[
        str, typer.Option(help="torch, or tensorflow: the graph of 2015.")
    ] = "torch",
    graph: Annotated[
        Path | None, typer.Option(help="classify_image_graph_def.pb, for tensorflow.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="A Python that has tensorflow; this one by default.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Computes reference statistics of a data set, in the format of any evaluator."""
    from cmbench.record.shared_store import open_store
    from cmbench.run.environment import pick_device
    from cmbench.run.progress import board
    from cmbench.run.score_images_statistics import build_statistics
    from cmbench.run.workbench import Workbench

    if backend not in ("torch", "tensorflow"):
        raise UserError(f"no backend named '{backend}'", expected="torch or tensorflow")
    bench = Workbench(open_store(), pick_device(device))
    with board(1, quiet=quiet) as shown:
        shown.start_job(f"statistics of {dataset}")
        built = build_statistics(
            dataset, out, bench, features=features, form=form, data=data, count=count, seed=seed,
            images=images, keep=keep, batch=batch, backend=backend, graph=graph, python=python,  # type: ignore[arg-type]
            tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    layers = ", ".join(f"{name} {width}" for name, width in built.layers.items())
    sys.stdout.write(f"{built.path}: {built.count:,} images, {layers}\n")


@stats.command("convert")
def stats_convert(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    out: Annotated[Path, typer.Argument(help="File to write.")],
    form: Annotated[
        str, typer.Option("--to", help="Format to write.", autocompletion=one_of(FORMATS))
    ] = "pytorch-fid",
    count: Annotated[
        int, typer.Option(min=0, help="Images it was made from, where the file does not say.")
    ] = 0,
) -> None:
    """Writes statistics in another evaluator's format; nothing is computed but what must be."""
    from cmbench.metrics._statistics_formats import open_statistics, save_statistics
    from cmbench.run.score_images_source import images_inside

    held = open_statistics(source, count=count)
    images = images_inside(source) if held.images and form == "adm" else None
    save_statistics(out, held.reference, form, images=images, made_of=held.made_of)
    sys.stdout.write(f"{out}: {', '.join(held.reference.moments)} ({held.form} to {form})\n")


@stats.command("show")
def stats_show(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    as_json: AsJson = False,
) -> None:
    """Says what a statistics file holds: format, layers, counts, spectrum, what it was made of."""
    from cmbench.metrics._statistics_formats import open_statistics

    summary = open_statistics(source).summary()
    if as_json:
        _print_json(summary)
        return
    sys.stdout.write(_shown_summary(summary) + "\n")


def _shown_summary(summary: dict[str, Any]) -> str:
    lines = [f"format   {summary['format']}", f"sha256   {summary['sha256']}"]
    for name, facts in summary["layers"].items():
        told = ", ".join(f"{k.replace('_', ' ')} {_brief(v)}" for k, v in facts.items())
        lines.append(f"layer    {name}: {told}")
    for key in ("images", "made_of", "arrays"):
        if summary[key]:
            lines.append(f"{key:9}{json.dumps(summary[key])}")
    return "\n".join(lines)


def _brief(value: Any) -> str:
    return (
        "unknown" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    )


def _show_scores(found: Any) -> None:
    from rich.table import Table

    console = Console()
    table = Table()
    for column in ("score", "value", "95% interval", "error", "images", "fingerprint"):
        table.add_column(column, justify="left" if column == "score" else "right")
    named = [("", found.scores), *((f" of class {k}", v) for k, v in found.classes.items())]
    for row, of in [(row, of) for of, rows in named for row in rows]:
        interval = f"{row.interval[0]:.5g} to {row.interval[1]:.5g}" if row.interval else "–"
        error = f"{row.error:.2g}" if row.error is not None else "–"
        arrow = "↑" if row.higher_is_better else "↓"
        table.add_row(f"{row.title}{of} {arrow}", f"{row.value:.6g}", interval, error,
                      f"{row.count:,}", row.fingerprint[:12])  # fmt: skip
    console.print(table)
    height, width = found.shape[1:]
    lines = [f"{found.images:,} images of {height}x{width} against {found.reference}"]
    if found.duplicates:
        lines.append(f"{found.duplicates:,} images equal an earlier one to the last bit")
    if found.ignored:
        lines.append(f"{found.ignored:,} files are no images and were ignored")
    lines += [f"left out: {text}" for text in found.skipped]
    if found.bad:
        lines.append(f"{len(found.bad):,} images left out:")
        lines += [f"  {bad.name}: {bad.fault}: {bad.detail}" for bad in found.bad]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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

    from cmbench.record.shared_store import open_store
    from cmbench.run.compare import compare_runs
    from cmbench.run.workbench import Workbench

    found = compare_runs(run_a, run_b, Workbench(open_store(), torch.device("cpu")))
    if as_json:
        _print_json(found.as_dict())
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
        table.add_row(*cells, told, p, "paired" if row.paired else row.why_unpaired)
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
    from cmbench.record.shared_store import open_store
    from cmbench.run.compare_explain import explain as explained
    from cmbench.run.compare_explain import find_cell
    from cmbench.run.environment import pick_device
    from cmbench.run.workbench import Workbench

    bench = Workbench(open_store(), pick_device(device))
    found = explained(find_cell(a), find_cell(b), score_name, bench)
    if as_json:
        _print_json(found.as_dict())
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
    """Makes a random part of the claimed samples again and compares digests and numbers.

    Exit code 0: confirmed; 1: something differs; 3: something could not be checked.
    """
    from cmbench.record.shared_store import open_store
    from cmbench.run.environment import pick_device
    from cmbench.run.progress import board
    from cmbench.run.verify import verify_results
    from cmbench.run.verify_claims import Options
    from cmbench.suite.sources import DataLookup

    paths = {}
    for item in data or []:
        name, separator, path = item.rpartition("=")
        paths[name if separator else _own_data(folder)] = Path(path)
    options = Options(fraction, seed, levels, of_error=of_error, retrain=retrain)
    with board(1, quiet=quiet or as_json) as shown:
        found = verify_results(
            folder, open_store(), pick_device(device), shown,
            options=options, suite=suite, data=DataLookup(paths),
        )  # fmt: skip
    if as_json:
        _print_json(found.as_dict())
    else:
        _show_verdict(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _own_data(folder: Path) -> str:
    """The suite's own data set, which a bare --data PATH is of."""
    import yaml

    read = yaml.safe_load((folder / "suite.yaml").read_text("utf-8"))
    named = read.get("dataset") if isinstance(read, dict) else None
    return str(named.get("name") if isinstance(named, dict) else named)


def _show_verdict(found: Any) -> None:
    kinds = {"differs": "DIFFERS  ", "unchecked": "unchecked", "confirmed": "confirmed"}
    for finding in sorted(found.findings, key=lambda f: list(kinds).index(f.verdict)):
        sys.stdout.write(
            f"{kinds[finding.verdict]}  {finding.cell}  {finding.what}: {finding.detail}\n"
        )
    word = {0: "confirmed", 1: "NOT confirmed", 3: "not wholly checked"}[found.exit_code]
    sys.stdout.write(
        f"{word}: {found.shards} of {found.claimed} shards made again, "
        f"in {len(found.cells)} cells\n"
    )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and (width or height).isdigit()):
        raise UserError(f"--size {text} is not a size", expected="32 or 32x32")
    return int(height), int(width or height)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
