"""`cmbench edit` and `search-steps`: tools for consistency models."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cmbench.cli.complete import (
    EDITS,
    complete_component,
    one_of,
)
from cmbench.cli.options import AsJson, Consistency, DataPath, Features, Overwrite, print_json
from cmbench.core.errors import UserError

__all__ = ["edit", "search_steps_command"]


def edit(
    model: Consistency,
    task: Annotated[
        str,
        typer.Option(
            help="inpaint, colourise, super-resolve, interpolate or denoise.",
            autocompletion=one_of(EDITS),
        ),
    ] = "inpaint",
    weights: Annotated[Path | None, typer.Option(help="Weights file or trained folder.")] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="Data set whose images are edited.", autocompletion=complete_component("dataset")
        ),
    ] = "digits",
    data: DataPath = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("edited.png"),
    count: Annotated[int, typer.Option(min=2, help="Images.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Evaluations an image.")] = 17,
    seed: int = 0,
    overwrite: Overwrite = False,
) -> None:
    """Edits images zero-shot by a consistency model; rows: original, what is given, what is made.

    interpolate walks between two noises instead: its second row shows the noises.
    """
    from typing import get_args

    from PIL import Image

    from cmbench.core.environment import pick_device
    from cmbench.core.errors import unknown_name
    from cmbench.core.files import atomic_file, new_file
    from cmbench.core.loader import create
    from cmbench.run.edit import Task, edit_sheet, load_denoiser

    if task not in get_args(Task):
        raise unknown_name("task", task, get_args(Task))
    new_file(out, overwrite=overwrite)
    denoiser = load_denoiser(model, weights, pick_device("cpu"))
    images = create("dataset", dataset).open(data)
    sheet = edit_sheet(denoiser, images, task, count=count, steps=steps, seed=seed)  # type: ignore[arg-type]
    picture = Image.fromarray(sheet.numpy())
    zoom = max(1, 320 // max(denoiser.shape[1:]) // 5)
    picture = picture.resize(
        (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
    )
    with atomic_file(out) as file:
        picture.save(file, format="PNG")
    sys.stdout.write(f"{out}\n")


def search_steps_command(
    model: Consistency,
    weights: Annotated[Path | None, typer.Option(help="Weights file or trained folder.")] = None,
    nfe: Annotated[int, typer.Option(min=2, help="Evaluations an image.")] = 2,
    grid: Annotated[int, typer.Option(min=3, help="Points of the Karras grid.")] = 18,
    dataset: Annotated[
        str,
        typer.Option(help="Data set to be near to.", autocompletion=complete_component("dataset")),
    ] = "digits",
    data: DataPath = None,
    features: Features = "digits_classifier",
    count: Annotated[int, typer.Option(min=10, help="Images a candidate.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the search; boards use others.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Searches multi-step time points: greedy, ternary, all candidates at the same noise."""
    from cmbench.core.environment import pick_device
    from cmbench.core.loader import create
    from cmbench.run.edit import load_denoiser
    from cmbench.run.search_steps import search_steps

    denoiser = load_denoiser(model, weights, pick_device("cpu"))
    chosen = create("dataset", dataset)
    try:
        found = search_steps(
            denoiser,
            chosen,
            chosen.open(data),
            features,
            nfe=nfe,
            grid=grid,
            count=count,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    sampler = {"name": "multistep", "indices": list(found.indices), "grid": grid}
    if as_json:
        print_json({"sampler": sampler, "value": found.value, "tried": len(found.tried)})
        return
    sys.stdout.write(
        f"sampler: {json.dumps(sampler)}\n"
        f"Frechet distance {found.value:.4f}, the least of {len(found.tried)} tried\n"
    )
