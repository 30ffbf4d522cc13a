"""Training of one recipe file from the command line: data, teacher and device resolved."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.loader import create, find
from cmbench.denoise.model import Model
from cmbench.train.loop import TrainResult, TrainState, train
from cmbench.train.recipe import Recipe, read_recipe

__all__ = ["run_recipe"]


def run_recipe(
    path: Path,
    *,
    out: Path,
    data: Path | None = None,
    teacher: Path | None = None,
    device: str = "cpu",
    progress: Callable[[TrainState], None] | None = None,
) -> TrainResult:
    """Trains the recipe at `path` into `out`, going on from the checkpoints there.

    Args:
        path: The recipe's YAML file.
        out: Folder of checkpoints, log and weights.
        data: Where the data set lies, if not at its usual place.
        teacher: The teacher's weights, or the folder it was trained in.
        device: A torch device.
        progress: Called after every step.

    Raises:
        UserError: For a faulty recipe, or a teacher that is missing or of another architecture.
        Pending: If the data set is not there.
    """
    recipe = read_recipe(path)
    place = torch.device(device)
    images = create("dataset", recipe.dataset).open(data)
    objective = recipe.built_objective()
    wanted = objective.needs_teacher or objective.starts_from_teacher() or teacher is not None
    taught = _teacher(recipe, teacher, place) if wanted else None
    return train(
        recipe,
        dataset_images=images,
        teacher=taught,
        folder=out,
        device=place,
        progress=progress,
    )


def _teacher(recipe: Recipe, weights: Path | None, device: torch.device) -> nn.Module:
    if weights is None or recipe.teacher is None:
        raise UserError(
            f"recipe {recipe.recipe} needs the weights of its teacher {recipe.teacher}",
            fix="--teacher WEIGHTS.safetensors, or the folder the teacher was trained in",
        )
    family, _, card = recipe.teacher.partition("/")
    own = read_recipe(find("model", family).parent / "recipes" / f"{card}.yaml")
    model: Model = create("model", own.model)
    module = model.build()
    model.load(module, weights / "weights.safetensors" if weights.is_dir() else weights)
    return module.to(device).eval()
