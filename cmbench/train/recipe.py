"""Recipes: how a model is trained, as one YAML file that decides its weights to the bit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmbench.core.digests import digest
from cmbench.core.errors import UserError, nearest
from cmbench.core.loader import create, validation_message
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.train.objectives.base import Objective

__all__ = ["EMA", "Optimiser", "Recipe", "read_recipe", "require_alike"]

ComponentSpec = str | dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimiser(_Part):
    """The optimiser; `warmup_images` raises the rate linearly from zero."""

    name: Literal["adam", "adamw", "radam", "muon"] = "radam"
    lr: float = Field(default=4e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_images: int = Field(default=0, ge=0)
    decay_images: int = Field(default=0, ge=0, description="last images, rate falls to zero")


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

    recipe: str
    summary: str = ""
    model: dict[str, Any]
    dataset: ComponentSpec
    objective: ComponentSpec
    distance: ComponentSpec | None = None
    teacher: str | None = None
    start: str | None = None
    optimiser: Optimiser = Optimiser()
    batch: int = Field(default=128, ge=1)
    images: int = Field(ge=1)
    ema: EMA = EMA()
    flip: bool = False
    clip: float | None = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = Field(default=50, ge=1, description="steps between logged points")
    save_every_images: int = Field(default=50_000, ge=1)
    show_every_images: int | None = Field(default=None, ge=1, description="sample grids")
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

    def digest_without_seed(self) -> str:
        """Hash of the identity but for name and seed: equal for trainings that repeat each "
        "other.
        """
        named = ("recipe", "seed")
        return digest({k: v for k, v in self.identity().items() if k not in named})

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
        changed.identity()
        return changed


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe: its keys, its components and their parameters.

    Raises:
        UserError: File, line, key, what is allowed and the nearest name.
    """
    source = read_yaml(path)
    recipe = validate(source, Recipe)
    objective = create("objective", recipe.objective, where=source.where(("objective",)))
    if recipe.distance is not None:
        create("distance", recipe.distance, where=source.where(("distance",)))
    if objective.needs_distance and recipe.distance is None:
        raise UserError(
            f"objective '{objective.name}' needs a distance",
            where=source.where(("objective",)),
            expected="distance: l1, l2, lpips, ...",
        )
    if objective.needs_teacher and recipe.teacher is None:
        raise UserError(
            f"objective '{objective.name}' needs a teacher",
            where=source.where(("objective",)),
            expected="teacher: family/card",
        )
    create("dataset", recipe.dataset, where=source.where(("dataset",)))
    create("model", recipe.model, where=source.where(("model",)))
    return recipe


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
    if not rest:
        if first not in data and "name" not in data:
            near = nearest(first, data)
            raise UserError(
                f"a recipe has no key '{first}'" + (f"; did you mean '{near}'?" if near else ""),
                expected="one of: " + ", ".join(data),
            )
        held = data.get(first)
        if not (isinstance(held, dict) and isinstance(value, str) and held.get("name") == value):
            data[first] = value
        return
    inner = data.get(first)
    data[first] = {"name": inner} if isinstance(inner, str) else dict(inner or {})
    _put(data[first], rest, value)
