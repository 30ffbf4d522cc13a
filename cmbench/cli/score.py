"""`cmbench score` and `neighbours`: images from other programs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cmbench.cli.complete import (
    complete_component,
    complete_features,
)
from cmbench.cli.options import AsJson, DataPath, Device, Overwrite, Quiet, print_json
from cmbench.core.errors import UserError

__all__ = ["neighbours", "score"]


def score(
    images: Annotated[Path, typer.Option(help="Folder, .zip, .npz, .npy or .parquet.")],
    reference: Annotated[
        str,
        typer.Option(
            help="A data set (digits, cifar10:split=test) or a statistics file.",
            autocompletion=complete_component("dataset"),
        ),
    ],
    features: Annotated[
        str,
        typer.Option(
            help="Feature extractors, separated by commas.", autocompletion=complete_features
        ),
    ] = "efficientnet_lite0",
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, NAME:key=value,... or NAME@EXTRACTOR; repeatable.",
            autocompletion=complete_component("metric"),
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Expected HEIGHTxWIDTH; default: the reference's, or the most frequent."
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Omit bad images and list them.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also score each class, if labels exist.")
    ] = False,
    data: DataPath = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Scores images from other programs, in batches; bad images are named."""
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.engine.progress import show_progress
    from cmbench.external.score import metric_specs, score_images
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    with show_progress(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"score {images}")
        scores = score_images(
            images, reference, context,
            features=[name.strip() for name in features.split(",") if name.strip()],
            metrics=metric_specs(metrics or []), size=_size(size), skip_bad=skip_bad,
            per_class=per_class, data=data, batch=batch, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        print_json(scores.as_dict())
        return
    _show_scores(scores)


def _show_scores(scores: Any) -> None:
    from rich.table import Table

    from cmbench.external.containers import ignored_files

    console = Console()
    table = Table()
    for column in ("score", "value", "95% interval", "error", "images", "fingerprint"):
        table.add_column(column, justify="left" if column == "score" else "right")
    named = [
        ("", scores.scores),
        *((f" of class {scores.class_names[k]}", v) for k, v in scores.classes.items()),
    ]
    for row, of in [(row, of) for of, rows in named for row in rows]:
        interval = f"{row.interval[0]:.5g} to {row.interval[1]:.5g}" if row.interval else "–"
        error = f"{row.error:.2g}" if row.error is not None else "–"
        arrow = "↑" if row.higher_is_better else "↓"
        table.add_row(f"{row.title}{of} {arrow}", f"{row.value:.6g}", interval, error,
                      f"{row.count:,}", row.fingerprint[:12])  # fmt: skip
    console.print(table)
    height, width = scores.shape[1:]
    lines = [f"{scores.images:,} images of {height}x{width} against {scores.reference}"]
    if scores.duplicates:
        lines.append(f"{scores.duplicates:,} images are exact duplicates of an earlier one")
    lines += [ignored_files(scores.ignored)] if scores.ignored else []
    lines += [f"not scored: {text}" for text in scores.skipped]
    if scores.bad:
        lines.append(f"{len(scores.bad):,} images omitted:")
        lines += [f"  {bad.name}: {bad.fault}: {bad.detail}" for bad in scores.bad]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdigit() and (width or height).isdigit()):
        raise UserError(f"--size {text} is not a size", expected="32 or 32x32")
    return int(height), int(width or height)


def neighbours(
    images: Annotated[Path, typer.Option(help="Folder, .zip, .npz, .npy or .parquet.")],
    reference: Annotated[
        str, typer.Option(help="The training set: digits, cifar10:split=train, a folder.")
    ],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("neighbours.png"),
    features: Annotated[
        str, typer.Option(help="Feature extractor.", autocompletion=complete_component("features"))
    ] = "efficientnet_lite0",
    show: Annotated[int, typer.Option(min=1, help="Samples shown, most suspicious first.")] = 16,
    near: Annotated[int, typer.Option(min=1, max=64, help="Training images per sample.")] = 3,
    data: DataPath = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Shows each sample with the training images nearest to it, to detect near-copies.

    A sample is suspicious if it is nearer to a training image than any other training image is.
    """
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.engine.progress import show_progress
    from cmbench.external.neighbours import nearest_training_images
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    with show_progress(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"neighbours of {images}")
        result = nearest_training_images(
            images, reference, context, features=features, show=show, near=near, data=data,
            batch=batch, out=out, overwrite=overwrite, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        print_json(result.as_dict())
        return
    share = 100 * result.suspicious / result.images
    lines = [
        f"{result.suspicious:,} of {result.images:,} samples ({share:.3g}%) are nearer to an "
        f"image of {result.training} than any other image of it is ({result.features})"
    ]
    lines += [
        f"  sample {n.sample}: training image {n.nearest[0]}, distance {n.distances[0]:.4g} "
        f"(its own nearest: {n.own_gap:.4g}), {n.levels:.3g} grey levels"
        for n in result.shown[:5]
    ]
    sys.stdout.write("\n".join([*lines, str(out)]) + "\n")
