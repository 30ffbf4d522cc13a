"""`cmbench train`: trains one recipe, or several together."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench.cli.options import DataPath, Device, Quiet

if TYPE_CHECKING:
    from cmbench.train.loop import TrainState

__all__ = ["train"]


def train(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPE...", help="A recipe's YAML file, or several.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for checkpoints, log and weights; several recipes get a subfolder each."
        ),
    ],
    data: DataPath = None,
    teacher: Annotated[Path | None, typer.Option(help="Teacher's weights or folder.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights or folder of the card the recipe starts from.")
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Trains a recipe; run it again to resume. Several GPUs: `torchrun ... -m cmbench train`.

    Several recipes of consistency distillation that differ only in distance, target or optimiser
    are trained together: they share the teacher's passes, and each gets the weights of a training
    of its own.
    """
    from cmbench.core.environment import pick_device
    from cmbench.core.files import refuse_unwritable
    from cmbench.engine.progress import show_progress
    from cmbench.run.train import run_recipes
    from cmbench.train.recipe import read_recipe

    refuse_unwritable(out, folder=True, then=" (--out)")
    total = sum(read_recipe(recipe).images for recipe in recipes)
    seen: dict[str, int] = {}
    with show_progress(1, quiet=quiet) as shown:

        def progress(state: "TrainState") -> None:
            seen[state.recipe] = state.images
            shown.tick(sum(seen.values()), total, f"loss {state.loss:.4f}")

        shown.start_job(f"train {', '.join(str(recipe) for recipe in recipes)}")
        results = run_recipes(
            recipes,
            out=out,
            data=data,
            teacher=teacher,
            start=start,
            device=str(pick_device(device)),
            progress=progress,
        )
        shown.end_job()
    for result in results:
        sys.stdout.write(f"{result.weights}\n")
