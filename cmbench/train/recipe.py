"""Recipes: how a model is trained, as one YAML file that decides its weights to the bit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmbench.core.bounds import Seed
from cmbench.core.errors import UserError, brief, nearest
from cmbench.core.loader import create, validation_message
from cmbench.core.names import CardName
from cmbench.core.yaml_nodes import Place
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.denoise.buildable import require_buildable
from cmbench.denoise.model import Model
from cmbench.train.objectives.base import Objective

__all__ = ["EMA", "Optimiser", "Recipe", "read_recipe", "require_alike"]

ComponentSpec = str | dict[str, Any]
Beta = Annotated[float, Field(ge=0, lt=1)]
_MOST_IMAGES = 10**12


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimiser(_Part):
    """The optimiser; `warmup_images` raises the rate linearly from zero."""

    name: Literal["adam", "adamw", "radam", "muon"] = "radam"
    lr: float = Field(default=4e-4, gt=0, le=100)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=0, ge=0, le=_MOST_IMAGES)
    decay_images: int = Field(
        default=0, ge=0, le=_MOST_IMAGES, description="last images, rate falls to zero"
    )


class EMA(_Part):
    """The average that is sampled from: half-life in images, shorter at first (EDM's ramp)."""

    half_life_images: float = Field(default=50_000, ge=0, description="0: no average")
    ramp: float = Field(default=0.05, ge=0, description="half-life at most this share of the past")


class Recipe(_Part):
    """A training. Fields in `transport` change how, not what: they stay out of its identity.

    Args:
        recipe: Its name, `family/name`.
        model: Adapter and its fields.
        images: Images seen in all; steps are images / batch.
        distance: Training distance, for the objectives that need one.
        teacher: Card of the teacher, `family/card`.
        start: Card whose weights the training goes on from, `family/card`; its optimiser starts
            anew. None: random weights, or the teacher's where the objective says so.
        flip: Random horizontal flips.
        clip: Greatest norm of the gradient; none for no clipping.
    """

    transport: ClassVar[frozenset[str]] = frozenset(
        {
            "summary",
            "log_every",
            "save_every_images",
            "show_every_images",
            "compile",
        }
    )

    recipe: CardName
    summary: str = ""
    model: dict[str, Any]
    dataset: ComponentSpec
    objective: ComponentSpec
    distance: ComponentSpec | None = None
    teacher: CardName | None = None
    start: CardName | None = None
    optimiser: Optimiser = Optimiser()
    batch: int = Field(default=128, ge=1, le=1_000_000)
    images: int = Field(ge=1, le=_MOST_IMAGES)
    ema: EMA = EMA()
    flip: bool = False
    clip: float | None = Field(default=1.0, gt=0)
    seed: Seed = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = Field(
        default=50, ge=1, le=_MOST_IMAGES, description="steps between logged points"
    )
    save_every_images: int = Field(default=50_000, ge=1, le=_MOST_IMAGES)
    show_every_images: int | None = Field(
        default=None, ge=1, le=_MOST_IMAGES, description="sample grids"
    )
    compile: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return -(-self.images // self.batch)

    def identity(self) -> dict[str, Any]:
        """What decides the weights, with every default written out (data and teacher apart)."""
        plain = self.model_dump(mode="json", exclude=set(self.transport))
        plain["objective"] = self.built_objective().spec()
        if self.distance is not None:
            plain["distance"] = create("distance", self.distance).spec()
        if self.start is None:
            del plain["start"]
        return plain

    def built_objective(self) -> Objective:
        """The objective with its parameters."""
        objective: Objective = create("objective", self.objective)
        return objective

    def forward_equivalents(self) -> float:
        """Forward passes the whole training costs; a backward counts as two."""
        return self.built_objective().forward_equivalents() * self.steps * self.batch

    def with_overrides(self, overrides: dict[str, Any]) -> "Recipe":
        """This recipe with keys replaced; `objective.points: 36` reaches inside.

        A bare name of the component that the recipe has (`objective: cd`) keeps its parameters;
        another name takes that component's defaults.

        Raises:
            UserError: For a key that the recipe has not, or an impossible value.
        """
        data = self.model_dump(mode="json")
        for dotted, value in overrides.items():
            _put(data, dotted.split("."), value)
        try:
            changed = Recipe.model_validate(data)
        except ValidationError as error:
            raise UserError(
                f"recipe {self.recipe}: {validation_message(error, list(Recipe.model_fields))}"
            ) from None
        _require_parts(changed, lambda place: "")
        return changed


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe: its keys, its components and their parameters.

    Raises:
        UserError: File, line, key, what is allowed and the nearest name.
    """
    source = read_yaml(path)
    recipe = validate(source, Recipe)
    _require_parts(recipe, source.where)
    return recipe


def _require_parts(recipe: Recipe, where: Callable[[Place], str]) -> None:
    """Makes every component of a recipe, and its network without memory.

    Args:
        recipe: The recipe.
        where: File, line and key of a place in it.

    Raises:
        UserError: For an unknown name, an impossible parameter, or a part that is missing.
    """
    objective: Objective = create("objective", recipe.objective, where=where(("objective",)))
    if recipe.distance is not None:
        create("distance", recipe.distance, where=where(("distance",)))
    if objective.needs_distance and recipe.distance is None:
        raise UserError(
            f"objective '{objective.name}' needs a distance",
            where=where(("objective",)),
            expected="distance: l1, l2, lpips, ...",
        )
    if objective.needs_teacher and recipe.teacher is None:
        raise UserError(
            f"objective '{objective.name}' needs a teacher",
            where=where(("objective",)),
            expected="teacher: family/card",
        )
    create("dataset", recipe.dataset, where=where(("dataset",)))
    model: Model = create("model", recipe.model, where=where(("model",)))
    network = "network" if isinstance(recipe.model.get("network"), dict) else "name"
    require_buildable(model, where(("model", network)))


_ALIKE = ("teacher", "dataset", "model", "batch", "seed", "flip", "precision")
"""What must agree for students to draw the same images, noise and times, and ask one teacher."""


def require_alike(recipes: Sequence[Recipe]) -> None:
    """Recipes can be trained in step if they differ only in what a student makes by itself.

    Raises:
        UserError: Naming the field in which two of them differ, or an objective without anything
            to share.
    """
    first, apart = recipes[0], "train them one after the other"
    for recipe in recipes:
        if recipe.built_objective().shares() is None:
            raise UserError(
                f"recipe {recipe.recipe}: students of objective "
                f"'{recipe.built_objective().name}' share nothing",
                expected="recipes of consistency distillation",
                fix=apart,
            )
        mine, other = (_shared_fields(r) for r in (recipe, first))
        unlike = next((key for key in other if mine.get(key) != other[key]), None)
        if unlike is not None:
            raise UserError(
                f"recipes {first.recipe} and {recipe.recipe} can't be trained together: {unlike} "
                f"is {other[unlike]} in one and {mine.get(unlike)} in the other",
                fix=apart,
            )
    names = [recipe.recipe for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"recipe {twice} is given twice", fix="name each once")


def _shared_fields(recipe: Recipe) -> dict[str, Any]:
    plain = recipe.model_dump(mode="json", include=set(_ALIKE))
    objective = recipe.built_objective()
    own = {f"objective.{k}": v for k, v in (objective.shares() or {}).items()}
    return {key: plain[key] for key in _ALIKE} | {"objective": objective.name} | own


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    first, *rest = keys
    if first not in data and "name" not in data:
        near = nearest(first, data)
        raise UserError(
            f"a recipe has no key {brief(first)}" + (f"; did you mean '{near}'?" if near else ""),
            expected="one of: " + ", ".join(data),
        )
    held = data.get(first)
    if not rest:
        if not (isinstance(held, dict) and isinstance(value, str) and held.get("name") == value):
            data[first] = value
        return
    if not isinstance(held, (str, dict, type(None))):
        raise UserError(f"{first} is {brief(held)}, which holds no key {brief(rest[0])}")
    data[first] = {"name": held} if isinstance(held, str) else dict(held or {})
    _put(data[first], rest, value)
