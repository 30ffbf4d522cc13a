"""`cmbench neighbours` and `disclose`: was it copied, and out of how many was it chosen."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench.cli_complete import DEVICES, complete_component, complete_results, one_of

__all__ = ["register_checks"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of(DEVICES))
]
Data = Annotated[Path | None, typer.Option(help="Where the data set is.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def register_checks(app: typer.Typer) -> None:
    """Adds these commands to the command line."""
    app.command("neighbours")(neighbours)
    app.command("disclose")(disclose)


def neighbours(
    images: Annotated[Path, typer.Option(help="Folder, .zip, .npz (ADM, score SDE) or .npy.")],
    reference: Annotated[
        str, typer.Option(help="The training set: digits, cifar10:split=train, a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("neighbours.png"),
    features: Annotated[
        str, typer.Option(help="Extractor.", autocompletion=complete_component("features"))
    ] = "efficientnet_lite0",
    show: Annotated[int, typer.Option(min=1, help="Samples shown, most suspicious first.")] = 16,
    near: Annotated[int, typer.Option(min=1, help="Training images beside each.")] = 3,
    data: Data = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in memory at once.")] = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Shows samples beside the training images nearest to them: what was copied is seen.

    Suspicious: nearer to a training image than any other training image is to that one.
    """
    from cmbench.record.shared_store import open_store
    from cmbench.run.environment import pick_device
    from cmbench.run.progress import board
    from cmbench.run.score_images_neighbours import nearest_training_images
    from cmbench.run.workbench import Workbench

    bench = Workbench(open_store(), pick_device(device))
    with board(1, quiet=quiet or as_json) as shown:
        shown.start_job(f"neighbours of {images}")
        found = nearest_training_images(
            images, reference, bench, features=features, show=show, near=near, data=data,
            batch=batch, out=out, tick=shown.tick,
        )  # fmt: skip
        shown.end_job()
    if as_json:
        _print_json(found.as_dict())
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

    from cmbench.core.files import write_json
    from cmbench.record.shared_store import open_store
    from cmbench.report.commands import write_report
    from cmbench.run.compare import read_results
    from cmbench.run.compare_selection import selections
    from cmbench.run.workbench import Workbench

    records = read_results(folder)
    found = selections(records, Workbench(open_store(), torch.device("cpu")))
    write_json(folder / "selection.json", [s.as_dict() for s in found])
    write_report(folder)
    if as_json:
        _print_json([s.as_dict() for s in found])
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


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
