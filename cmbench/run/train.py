"""Training of recipe files from the command line: data, teacher and device resolved."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from cmbench.cards.cards import find_card
from cmbench.cards.open import open_card, open_module
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.train.loop import Student, TrainResult, TrainState, train_in_step
from cmbench.train.recipe import Recipe, read_recipe, require_alike

__all__ = ["run_recipes"]


def run_recipes(
    paths: Sequence[Path],
    *,
    out: Path,
    data: Path | None = None,
    teacher: Path | None = None,
    start: Path | None = None,
    device: str = "cpu",
    progress: Callable[[TrainState], None] | None = None,
) -> list[TrainResult]:
    """Trains the recipes at `paths`, several in step, going on from the checkpoints there.

    Args:
        paths: The recipes' YAML files.
        out: Folder of checkpoints, log and weights; of several, each has one in it, named for the
            recipe.
        data: Where the data set lies, if not at its usual place.
        teacher: The teacher's weights, or the folder it was trained in; by default the weights
            that its card ships.
        start: The same for the card that the recipe's `start` names.
        device: A torch device.
        progress: Called after every step.

    Raises:
        UserError: For a faulty recipe, recipes that share nothing, or a teacher that is missing or
            of another architecture.
        Pending: If the data set is not there.
    """
    recipes = [read_recipe(path) for path in paths]
    if len(recipes) > 1:
        require_alike(recipes)
    recipe, place = recipes[0], torch.device(device)
    images = create("dataset", recipe.dataset).open(data)
    objective = recipe.built_objective()
    wanted = objective.needs_teacher or objective.starts_from_teacher() or teacher is not None
    taught = _module_of(recipe, "teacher", teacher, place) if wanted else None
    students = [
        Student(
            each,
            out / Path(each.recipe).name if len(recipes) > 1 else out,
            _module_of(each, "start", start, place) if each.start else None,
        )
        for each in recipes
    ]
    return train_in_step(
        students, dataset_images=images, teacher=taught, device=place, progress=progress
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
    return open_module(model, file, device)
