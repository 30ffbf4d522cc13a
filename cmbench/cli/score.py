"""`cmbench score` and `neighbours`: images that were made elsewhere."""

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
        str | None,
        typer.Option(help="HEIGHTxWIDTH expected; else the reference's, or most images'."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave broken images out and list them.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Each class alone too, where labels exist.")
    ] = False,
    data: DataPath = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Scores images made elsewhere, without loading them all; what is wrong with any is named."""
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.engine.progress import show_progress
    from cmbench.external.score import metric_specs, score_images
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    with show_progress(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"score {images}")
        found = score_images(
            images, reference, context,
            features=[name.strip() for name in features.split(",") if name.strip()],
            metrics=metric_specs(metrics or []), size=_size(size), skip_bad=skip_bad,
            per_class=per_class, data=data, batch=batch, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        print_json(found.as_dict())
        return
    _show_scores(found)


def _show_scores(found: Any) -> None:
    from rich.table import Table

    from cmbench.external.containers import ignored_files

    console = Console()
    table = Table()
    for column in ("score", "value", "95% interval", "error", "images", "fingerprint"):
        table.add_column(column, justify="left" if column == "score" else "right")
    named = [
        ("", found.scores),
        *((f" of class {found.class_names[k]}", v) for k, v in found.classes.items()),
    ]
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
    lines += [ignored_files(found.ignored)] if found.ignored else []
    lines += [f"left out: {text}" for text in found.skipped]
    if found.bad:
        lines.append(f"{len(found.bad):,} images left out:")
        lines += [f"  {bad.name}: {bad.fault}: {bad.detail}" for bad in found.bad]
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
        str, typer.Option(help="Extractor.", autocompletion=complete_component("features"))
    ] = "efficientnet_lite0",
    show: Annotated[int, typer.Option(min=1, help="Samples shown, most suspicious first.")] = 16,
    near: Annotated[int, typer.Option(min=1, help="Training images beside each.")] = 3,
    data: DataPath = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Shows samples beside the training images nearest to them: what was copied is seen.

    Suspicious: nearer to a training image than any other training image is to that one.
    """
    from cmbench.core.environment import pick_device
    from cmbench.engine.context import JobContext
    from cmbench.engine.progress import show_progress
    from cmbench.external.neighbours import nearest_training_images
    from cmbench.store.shared import open_store

    context = JobContext(open_store(), pick_device(device))
    with show_progress(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"neighbours of {images}")
        found = nearest_training_images(
            images, reference, context, features=features, show=show, near=near, data=data,
            batch=batch, out=out, overwrite=overwrite, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        print_json(found.as_dict())
        return
    share = 100 * found.suspicious / found.images
    lines = [
        f"{found.suspicious:,} of {found.images:,} samples ({share:.3g}%) are nearer to an image "
        f"of {found.training} than any other of it is ({found.features})"
    ]
    lines += [
        f"  sample {n.sample}: training image {n.nearest[0]}, distance {n.distances[0]:.4g} "
        f"(its own nearest: {n.own_gap:.4g}), {n.levels:.3g} grey levels"
        for n in found.shown[:5]
    ]
    sys.stdout.write("\n".join([*lines, str(out)]) + "\n")
