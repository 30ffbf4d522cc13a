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
from cmbench.cli.options import MOST_SEED, AsJson, DataPath, Device, Overwrite, Quiet, print_json
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
    out: Annotated[Path, typer.Option(help="File to write; .npz is appended if missing.")],
    features: Annotated[
        str, typer.Option(help="Feature extractor.", autocompletion=complete_component("features"))
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
    count: Annotated[
        int | None, typer.Option(min=2, help="Size of a random subset; default: all images.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="Seed of the random subset.")
    ] = 0,
    images: Annotated[int, typer.Option(min=2, help="Images stored in an adm file.")] = 10_000,
    keep: Annotated[
        int, typer.Option(min=2, help="Feature rows stored in a compact file.")
    ] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 64,
    backend: Annotated[
        str, typer.Option(help="torch, or tensorflow (the frozen graph of 2015).")
    ] = "torch",
    graph: Annotated[
        Path | None, typer.Option(help="classify_image_graph_def.pb, for tensorflow.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python that has TensorFlow; default: this one.")
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
        statistics = build_statistics(
            dataset, out, context, features=features, form=form, data=data, count=count, seed=seed,
            images=images, keep=keep, batch=batch, backend=backend, graph=graph, python=python,  # type: ignore[arg-type]
            tick=shown.tick, overwrite=overwrite,
        )  # fmt: skip
        shown.end_job()
    layers = ", ".join(f"{name} {width}" for name, width in statistics.layers.items())
    others = f" ({ignored_files(statistics.ignored)})" if statistics.ignored else ""
    sys.stdout.write(f"{statistics.path}: {statistics.count:,} images{others}, {layers}\n")


@stats.command("convert")
def stats_convert(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    out: Annotated[Path, typer.Argument(help="File to write; .npz is appended if missing.")],
    form: Annotated[
        str, typer.Option("--to", help="Format to write.", autocompletion=one_of(FORMATS))
    ] = "pytorch-fid",
    count: Annotated[
        int, typer.Option(min=0, help="Number of images, if the file does not state it.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Writes statistics in another evaluator's format."""
    from cmbench.external.build_statistics import convert_statistics

    conversion = convert_statistics(source, out, form, count=count, overwrite=overwrite)
    lost = "; features are not kept" if conversion.lost else ""
    sys.stdout.write(
        f"{conversion.path}: {', '.join(conversion.layers)} ({conversion.form} to {form}{lost})\n"
    )


@stats.command("show")
def stats_show(
    source: Annotated[Path, typer.Argument(help="Statistics in any known format.")],
    as_json: AsJson = False,
) -> None:
    """Prints the contents of a statistics file: format, layers, counts, spectrum, origin."""
    from cmbench.metrics.statistics.formats import open_statistics

    summary = open_statistics(source).summary()
    if as_json:
        print_json(summary)
        return
    sys.stdout.write(_shown_summary(summary) + "\n")


def _shown_summary(summary: dict[str, Any]) -> str:
    lines = [f"format   {summary['format']}", f"sha256   {summary['sha256']}"]
    for name, facts in summary["layers"].items():
        text = ", ".join(f"{k.replace('_', ' ')} {_brief(v)}" for k, v in facts.items())
        lines.append(f"layer    {name}: {text}")
    for key in ("images", "made_of", "arrays"):
        if summary[key]:
            lines.append(f"{key:9}{json.dumps(summary[key])}")
    return "\n".join(lines)


def _brief(value: Any) -> str:
    return (
        "unknown" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
