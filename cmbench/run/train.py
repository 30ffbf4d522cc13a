"""Trains recipe files from the command line: resolves data, teacher, start and device."""

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
    """Trains the recipes at `paths`, several in step, resuming from existing checkpoints.

    Args:
        paths: The recipes' YAML files.
        out: Folder of checkpoints, log and weights; several recipes get a subfolder each, named
            after the recipe.
        data: Path of the data set, if not at its usual place.
        teacher: The teacher's weights, or the folder of its training; by default the shipped
            weights of its card.
        start: The same for the card that the recipe's `start` names.
        device: A torch device.
        progress: Called after every step.

    Raises:
        UserError: For an invalid recipe, recipes that can't share a teacher, or a teacher that is
            missing or of another architecture.
        Pending: If the data set is not on this machine.
    """
    recipes = [read_recipe(path) for path in paths]
    if len(recipes) > 1:
        require_alike(recipes)
    recipe, target = recipes[0], torch.device(device)
    if data is not None and not data.exists():
        raise UserError(f"--data {data}: it does not exist")
    for role, given in (("teacher", teacher), ("start", start)):
        _require_used(recipes, role, given)
    _require_folder(out)
    images = create("dataset", recipe.dataset).open(data)
    module = _module_of(recipe, "teacher", teacher, target) if _uses_teacher(recipe) else None
    students = [
        Student(
            each,
            out / Path(each.recipe).name if len(recipes) > 1 else out,
            _module_of(each, "start", start, target) if each.start else None,
        )
        for each in recipes
    ]
    return train_in_step(
        students, dataset_images=images, teacher=module, device=target, progress=progress
    )


def _uses_teacher(recipe: Recipe) -> bool:
    objective = recipe.built_objective()
    return objective.needs_teacher or objective.starts_from_teacher()


def _require_used(recipes: Sequence[Recipe], role: str, given: Path | None) -> None:
    """Refuses --teacher or --start if no recipe would read it."""
    if given is None:
        return
    used = any(r.start if role == "start" else _uses_teacher(r) for r in recipes)
    if not used:
        names = ", ".join(r.recipe for r in recipes)
        raise UserError(
            f"--{role} {given}: recipe {names} uses no {role}",
            fix=f"omit --{role}, or name a card in the recipe: {role}: family/card",
        )


def _require_folder(out: Path) -> None:
    """Refuses a path where no folder can be created, before anything is read or trained."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", expected="a folder, new or of this training")
    if any(parent.is_file() for parent in out.parents):
        raise UserError(f"--out {out} leads through a file", expected="a folder")


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
