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
from cmbench.cli.options import (
    MOST_SEED,
    AsJson,
    Consistency,
    DataPath,
    Features,
    Overwrite,
    print_json,
)
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
    count: Annotated[int, typer.Option(min=2, help="Number of images.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Evaluations per image.")] = 17,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Edits images zero-shot by a consistency model. Rows: original, input, result.

    The task interpolate interpolates between two noises instead; its second row shows the noises.
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
    nfe: Annotated[int, typer.Option(min=2, max=64, help="Evaluations per image.")] = 2,
    grid: Annotated[int, typer.Option(min=3, max=10_000, help="Points of the Karras grid.")] = 18,
    dataset: Annotated[
        str,
        typer.Option(
            help="Reference data set of the Frechet distance.",
            autocompletion=complete_component("dataset"),
        ),
    ] = "digits",
    data: DataPath = None,
    features: Features = "digits_classifier",
    count: Annotated[int, typer.Option(min=10, help="Images per candidate.")] = 1000,
    seed: Annotated[
        int,
        typer.Option(min=0, max=MOST_SEED, help="Seed of the search, not to be used by suites."),
    ] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Searches multi-step time points greedily by ternary search, all from the same noise."""
    from cmbench.core.environment import pick_device
    from cmbench.core.loader import create
    from cmbench.run.edit import load_denoiser
    from cmbench.run.search_steps import search_steps

    denoiser = load_denoiser(model, weights, pick_device("cpu"))
    reference = create("dataset", dataset)
    try:
        search = search_steps(
            denoiser,
            reference,
            reference.open(data),
            features,
            nfe=nfe,
            grid=grid,
            count=count,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    sampler = {"name": "multistep", "indices": list(search.indices), "grid": grid}
    if as_json:
        print_json({"sampler": sampler, "value": search.value, "tried": len(search.tried)})
        return
    sys.stdout.write(
        f"sampler: {json.dumps(sampler)}\n"
        f"Frechet distance {search.value:.4f}, the smallest of {len(search.tried)} candidates\n"
    )
