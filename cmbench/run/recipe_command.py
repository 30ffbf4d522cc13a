"""Training of one recipe file from the command line: data, teacher and device resolved."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.suite.cards import find_card
from cmbench.suite.sources import open_card
from cmbench.train.loop import TrainResult, TrainState, train
from cmbench.train.recipe import Recipe, read_recipe

__all__ = ["run_recipe"]


def run_recipe(
    path: Path,
    *,
    out: Path,
    data: Path | None = None,
    teacher: Path | None = None,
    start: Path | None = None,
    device: str = "cpu",
    progress: Callable[[TrainState], None] | None = None,
) -> TrainResult:
    """Trains the recipe at `path` into `out`, going on from the checkpoints there.

    Args:
        path: The recipe's YAML file.
        out: Folder of checkpoints, log and weights.
        data: Where the data set lies, if not at its usual place.
        teacher: The teacher's weights, or the folder it was trained in; by default the weights
            that its card ships.
        start: The same for the card that the recipe's `start` names.
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
    taught = _module_of(recipe, "teacher", teacher, place) if wanted else None
    first = _module_of(recipe, "start", start, place) if recipe.start else None
    return train(
        recipe,
        dataset_images=images,
        teacher=taught,
        start=first,
        folder=out,
        device=place,
        progress=progress,
    )


def _module_of(recipe: Recipe, role: str, given: Path | None, device: torch.device) -> nn.Module:
    card = recipe.teacher if role == "teacher" else recipe.start
    if card is None:
        raise UserError(f"recipe {recipe.recipe} names no {role}", fix=f"{role}: family/card")
    placed = find_card(card)
    if given is None and placed.card.weights is None and placed.recipe_file is not None:
        raise UserError(
            f"recipe {recipe.recipe} needs the weights of its {role} {card}",
            fix=f"--{role} WEIGHTS.safetensors, or the folder it was trained in",
        )
    model, file = open_card(placed, given)
    module = model.build()
    if file is not None:
        model.load(module, file)
    return module.to(device).eval()
