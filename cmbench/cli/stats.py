"""`cmbench stats`: builds, converts and shows reference statistics."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench.cli.complete import (
    FORMATS,
    complete_component,
    one_of,
)
from cmbench.cli.options import AsJson, DataPath, Device, Overwrite, Quiet, print_json
from cmbench.core.errors import UserError

__all__ = ["stats"]

stats = typer.Typer(no_args_is_help=True, help="Reference statistics: build, convert, show.")


@stats.command("build")
def stats_build(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A data set (digits, cifar10:split=test), or a path of images.",
            autocompletion=complete_component("dataset"),
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write; .npz is added where it lacks.")],
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
    data: DataPath = None,
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
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Computes reference statistics of a data set, in the format of any evaluator."""
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.engine.progress import show_progress
    from cmbench.external.build_statistics import build_statistics
    from cmbench.external.containers import ignored_files
    from cmbench.store.shared import open_store

    if backend not in ("torch", "tensorflow"):
        raise UserError(f"no backend named '{backend}'", expected="torch or tensorflow")
    context = JobContext(open_store(), pick_device(device))
    with show_progress(1, quiet=quiet) as shown:
        shown.start_job(f"statistics of {dataset}")
        built = build_statistics(
            dataset, out, context, features=features, form=form, data=data, count=count, seed=seed,
            images=images, keep=keep, batch=batch, backend=backend, graph=graph, python=python,  # type: ignore[arg-type]
            tick=shown.tick, overwrite=overwrite,
        )  # fmt: skip
        shown.end_job()
    layers = ", ".join(f"{name} {width}" for name, width in built.layers.items())
    others = f" ({ignored_files(built.ignored)})" if built.ignored else ""
    sys.stdout.write(f"{built.path}: {built.count:,} images{others}, {layers}\n")


@stats.command("convert")
def stats_convert(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    out: Annotated[Path, typer.Argument(help="File to write; .npz is added where it lacks.")],
    form: Annotated[
        str, typer.Option("--to", help="Format to write.", autocompletion=one_of(FORMATS))
    ] = "pytorch-fid",
    count: Annotated[
        int, typer.Option(min=0, help="Images it was made from, where the file does not say.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Writes statistics in another evaluator's format; nothing is computed but what must be."""
    from cmbench.external.build_statistics import convert_statistics

    done = convert_statistics(source, out, form, count=count, overwrite=overwrite)
    lost = "; features are not kept" if done.lost else ""
    sys.stdout.write(f"{done.path}: {', '.join(done.layers)} ({done.form} to {form}{lost})\n")


@stats.command("show")
def stats_show(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    as_json: AsJson = False,
) -> None:
    """Says what a statistics file holds: format, layers, counts, spectrum, what it was made of."""
    from cmbench.metrics.statistics.formats import open_statistics

    summary = open_statistics(source).summary()
    if as_json:
        print_json(summary)
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
