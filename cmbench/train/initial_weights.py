"""Initial weights of a training run: random, the teacher's, or those of the card it continues."""

from typing import Any

from torch import nn

from cmbench.core.errors import UserError
from cmbench.train.objectives.base import Objective
from cmbench.train.recipe import Recipe

__all__ = ["initial_weights", "take_weights"]


def initial_weights(
    recipe: Recipe, objective: Objective, teacher: nn.Module | None, start: nn.Module | None
) -> dict[str, Any] | None:
    """Returns the weights that the student starts from; None keeps its random ones.

    Raises:
        UserError: If the recipe starts from a network whose weights are missing.
    """
    if recipe.start is not None:
        if start is None:
            raise UserError(
                f"recipe {recipe.recipe} continues {recipe.start}, whose weights are missing",
                fix="give --start WEIGHTS.safetensors, or the folder it was trained in",
            )
        return start.state_dict()
    if teacher is not None:
        return objective.initial_state(teacher)
    if objective.starts_from_teacher():
        raise UserError(
            f"recipe {recipe.recipe} starts from a teacher's weights, but has no teacher",
            fix="set teacher: family/card, or give --teacher PATH",
        )
    return None


def take_weights(student: nn.Module, state: dict[str, Any], recipe: Recipe) -> None:
    """Copies the weights of another network of the same architecture into the student.

    Raises:
        UserError: If a name or a shape differs.
    """
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"recipe {recipe.recipe} can't start from the weights of "
            f"{recipe.start or recipe.teacher}: {str(error).splitlines()[-1].strip()}",
            expected="the same network in both recipes",
        ) from None
