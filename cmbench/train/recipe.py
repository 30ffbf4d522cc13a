"""Recipes: YAML files that describe a training run and determine its weights bit for bit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmbench.core.bounds import Seed
from cmbench.core.digests import digest
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
    """The optimiser; `warmup_images` is the length of a linear warm-up from zero."""

    name: Literal["adam", "adamw", "radam", "muon"] = "radam"
    lr: float = Field(default=4e-4, gt=0, le=100)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=0, ge=0, le=_MOST_IMAGES)
    decay_images: int = Field(
        default=0, ge=0, le=_MOST_IMAGES, description="length of the final linear decay to zero"
    )


class EMA(_Part):
    """The average of the weights for sampling; its half-life grows at first (EDM's ramp)."""

    half_life_images: float = Field(default=50_000, ge=0, description="0: no average")
    ramp: float = Field(
        default=0.05, ge=0, description="bound of the half-life, as share of the images seen"
    )


class Recipe(_Part):
    """A training run; the fields in `transport` do not change the result or the identity.

    Args:
        recipe: Name of the recipe, `family/name`.
        model: Adapter and its fields.
        images: Total number of images seen; the number of steps is images / batch.
        distance: Training distance, for objectives that need one.
        teacher: Card of the teacher, `family/card`.
        start: Card whose weights the training continues, `family/card`, with a new optimiser.
            None: random weights, or the teacher's if the objective requires it.
        flip: Whether images are flipped horizontally at random.
        clip: Greatest norm of the gradient; None for no clipping.
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
        default=50, ge=1, le=_MOST_IMAGES, description="steps between log entries"
    )
    save_every_images: int = Field(default=50_000, ge=1, le=_MOST_IMAGES)
    show_every_images: int | None = Field(
        default=None, ge=1, le=_MOST_IMAGES, description="images between sample grids"
    )
    compile: bool = False

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return -(-self.images // self.batch)

    def identity(self) -> dict[str, Any]:
        """Returns the fields that determine the weights, except for data and teacher."""
        plain = self.model_dump(mode="json", exclude=set(self.transport))
        plain["objective"] = self.built_objective().spec()
        if self.distance is not None:
            plain["distance"] = create("distance", self.distance).spec()
        if self.start is None:
            del plain["start"]
        return plain

    def digest_without_seed(self) -> str:
        """Hash of the identity but for name and seed: equal for trainings that repeat each "
        "other.
        """
        named = ("recipe", "seed")
        return digest({k: v for k, v in self.identity().items() if k not in named})

    def built_objective(self) -> Objective:
        """Returns the objective with its parameters."""
        objective: Objective = create("objective", self.objective)
        return objective

    def forward_equivalents(self) -> float:
        """Forward passes of the training run; a backward pass counts as two."""
        return self.built_objective().forward_equivalents() * self.steps * self.batch

    def with_overrides(self, overrides: dict[str, Any]) -> "Recipe":
        """Returns this recipe with keys replaced; `objective.points: 36` sets a nested key.

        `distance: l2` keeps the recipe's own settings if the recipe uses l2; any other distance
        starts from its defaults.

        Raises:
            UserError: If a recipe has no such key, or the value is invalid.
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
        UserError: If the recipe is invalid; names file, line and key, and what is allowed.
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
    objective: Objective = _part("objective", recipe.objective, where, ("objective",))
    if recipe.distance is not None:
        _part("distance", recipe.distance, where, ("distance",))
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
    _part("dataset", recipe.dataset, where, ("dataset",))
    model: Model = _part("model", recipe.model, where, ("model",))
    for kind in ("network", "degradation"):
        if isinstance(recipe.model.get(kind), dict):
            _part(kind, recipe.model[kind], where, ("model", kind))
    network = "network" if isinstance(recipe.model.get("network"), dict) else "name"
    require_buildable(model, where(("model", network)))


def _part(kind: str, spec: ComponentSpec, where: Callable[[Place], str], place: Place) -> Any:
    """Creates a component; an impossible parameter is reported at its own line.

    Raises:
        UserError: For an unknown name or an impossible parameter.
    """
    try:
        return create(kind, spec, where=where(place))
    except UserError as error:
        fault = error.__context__
        if isinstance(fault, ValidationError):
            raise error.at(where((*place, *fault.errors()[0]["loc"]))) from None
        raise


_ALIKE = ("teacher", "dataset", "model", "batch", "seed", "flip", "precision")
"""Fields that must agree for students to share images, noise, times and the teacher."""


def require_alike(recipes: Sequence[Recipe]) -> None:
    """Refuses recipes whose students can't share draws and teacher in one training run.

    Raises:
        UserError: If two recipes differ in a field that must agree (named in the error), or an
            objective has nothing to share.
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
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise UserError(f"recipe {duplicate} is given twice", fix="name each once")


def _shared_fields(recipe: Recipe) -> dict[str, Any]:
    plain = recipe.model_dump(mode="json", include=set(_ALIKE))
    objective = recipe.built_objective()
    shared = {f"objective.{k}": v for k, v in (objective.shares() or {}).items()}
    return {key: plain[key] for key in _ALIKE} | {"objective": objective.name} | shared


def _put(data: dict[str, Any], keys: list[str], value: Any) -> None:
    first, *rest = keys
    if first not in data and "name" not in data:
        near = nearest(first, data)
        raise UserError(
            f"a recipe has no key {brief(first)}" + (f"; did you mean '{near}'?" if near else ""),
            expected="one of: " + ", ".join(data),
        )
    old = data.get(first)
    if not rest:
        if not (isinstance(old, dict) and isinstance(value, str) and old.get("name") == value):
            data[first] = value
        return
    if not isinstance(old, (str, dict, type(None))):
        raise UserError(f"{first} is {brief(old)}, which holds no key {brief(rest[0])}")
    data[first] = {"name": old} if isinstance(old, str) else dict(old or {})
    _put(data[first], rest, value)
