"""Where a cell's network comes from: a card's weights, a file, or a recipe trained for it."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.assets.download import asset_path
from cmbench.cards.cards import PlacedCard, find_card
from cmbench.cards.open import SourcedModel, _from_file, card_model
from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.paths import user_path
from cmbench.core.yaml_source import Source
from cmbench.datasets.base import Dataset
from cmbench.denoise.model import Model
from cmbench.store.jobs import Cost, make_job
from cmbench.suite.axes import axis_points
from cmbench.suite.spec import RunEntry
from cmbench.train.recipe import Recipe, read_recipe
from cmbench.train.suitability import require_images

__all__ = ["DataLookup", "beside", "networks_of_run"]

_MOST_NETWORKS = 10_000


class DataLookup:
    """Opens each data set once, and knows the paths given on the command line.

    Args:
        paths: Data set name to path (`--data NAME=PATH`).

    Attributes:
        asked: Names of the data sets that were asked for.
    """

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths
        self.asked: set[str] = set()
        self._known: dict[str, _Known] = {}

    def path(self, dataset: Dataset) -> Path | None:
        """The path given for this data set, if any."""
        self.asked.add(dataset.name)
        return self.paths.get(dataset.name)

    def fingerprint(self, dataset: Dataset) -> str:
        """SHA-256 of the data.

        Raises:
            Pending: If the data is not there.
        """
        return self._look(dataset).fingerprint

    def count(self, dataset: Dataset) -> int:
        """Images in the data set.

        Raises:
            Pending: If the data is not there.
        """
        return self._look(dataset).count

    def shape(self, dataset: Dataset) -> tuple[int, int, int]:
        """Shape (C, H, W) of its images.

        Raises:
            Pending: If the data is not there.
        """
        return self._look(dataset).shape

    def require_trainable(self, dataset: Dataset, recipe: Recipe, model: Model) -> None:
        """Refuses a data set whose images or labels do not suit the model that is to be trained.

        Raises:
            UserError: If their shape or classes differ.
            Pending: If the data is not there.
        """
        known, classes = self._look(dataset), int(getattr(model, "classes", 0))
        shape = getattr(model, "shape", None)
        require_images(recipe.recipe, shape, classes, held=known.shape, labels=known.labels)

    def _look(self, dataset: Dataset) -> "_Known":
        key = str(dataset.spec())
        if key not in self._known:
            images = dataset.open(self.path(dataset))
            self._known[key] = _Known(
                images.fingerprint(), len(images), images.shape, images.labels()
            )
        return self._known[key]


@dataclass(frozen=True)
class _Known:
    """What a plan needs of a data set, without its pixels."""

    fingerprint: str
    count: int
    shape: tuple[int, int, int]
    labels: NDArray[np.int64] | None


def networks_of_run(
    run: RunEntry, index: int, source: Source, data: DataLookup, *, retrain: bool = False
) -> list[SourcedModel]:
    """The networks of one run of a suite: one for each point of its training axes.

    Raises:
        UserError: For an unknown card, recipe or override.
        Pending: If data, weights or an asset can't be had now.
    """
    where = source.where(("runs", index, "model"))
    placed = find_card(run.model, where=where)
    if run.weights is not None:
        return [_from_file(placed, beside(source, run.weights), source.where(("runs", index)))]
    if run.train:
        return _trained(placed, run.train, index, source, data, retrain)
    return [_by_card(placed, data, retrain, where)]


def _by_card(placed: PlacedCard, data: DataLookup, retrain: bool, where: str) -> SourcedModel:
    if retrain and placed.recipe_file:
        return _train(placed, read_recipe(placed.recipe_file), {}, data, retrain, where)
    if placed.weights_file is not None:
        return _from_file(placed, placed.weights_file, where)
    if placed.asset is not None:
        path = asset_path(placed.asset)
        return SourcedModel(placed, card_model(placed, where), {"sha256": file_sha256(path)}, path)
    if placed.hub is not None:
        return _from_file(placed, Path(placed.hub), where)
    if placed.recipe_file is not None:
        return _train(placed, read_recipe(placed.recipe_file), {}, data, retrain, where)
    return SourcedModel(placed, card_model(placed, where), {})


def _trained(
    placed: PlacedCard,
    overrides: dict[str, Any],
    index: int,
    source: Source,
    data: DataLookup,
    retrain: bool,
) -> list[SourcedModel]:
    if placed.recipe_file is None:
        raise UserError(
            f"model '{placed.full_name}' has no recipe, so nothing can be trained",
            where=source.where(("runs", index, "train")),
            fix="leave `train` out, or name a card with a recipe",
        )
    base = read_recipe(placed.recipe_file)
    sizes = [len(v) if isinstance(v, list) else 1 for v in overrides.values()]
    if prod(sizes) > _MOST_NETWORKS:
        raise UserError(
            f"the axes of `train` make {prod(sizes):,} networks",
            where=source.where(("runs", index, "train")),
            expected=f"at most {_MOST_NETWORKS:,}",
        )
    networks = []
    where = source.where(("runs", index, "train", *list(overrides)[:1]))
    for given, axes in axis_points(overrides):
        try:
            recipe = base.with_overrides(given)
        except UserError as error:
            faulty = _faulty_key(base, given)
            raise error.at(source.where(("runs", index, "train", faulty))) from None
        networks.append(_train(placed, recipe, axes, data, retrain, where))
    return networks


def _faulty_key(base: Recipe, overrides: dict[str, Any]) -> str:
    """The first override that fails alone, for the place of a fault; else the first."""
    for key, value in overrides.items():
        try:
            base.with_overrides({key: value})
        except UserError:
            return key
    return next(iter(overrides))


def _train(
    placed: PlacedCard,
    recipe: Recipe,
    axes: dict[str, Any],
    data: DataLookup,
    retrain: bool,
    where: str,
) -> SourcedModel:
    dataset = create("dataset", recipe.dataset, where=where)
    model = create("model", recipe.model, where=where)
    try:
        data.require_trainable(dataset, recipe, model)
    except UserError as error:
        raise error.at(error.where or where) from None
    teacher = _parent(recipe.teacher, data, retrain, where)
    start = _parent(recipe.start, data, retrain, where)
    spec = {
        "recipe": recipe.identity(),
        "data": data.fingerprint(dataset),
        "teacher": _identity(teacher),
        **({"start": _identity(start)} if start else {}),
    }
    path = data.path(dataset)
    transport = {
        "recipe": recipe.model_dump(mode="json"),
        "data_path": str(path) if path else None,
        "teacher_file": str(teacher.file) if teacher and teacher.file else None,
        "start_file": str(start.file) if start and start.file else None,
    }
    parents = [network for network in (teacher, start) if network]
    detail = ", ".join(str(v) for v in axes.values())
    job = make_job(
        "train",
        spec,
        needs=tuple(network.jobs[-1].address for network in parents if network.jobs),
        title=f"train {recipe.recipe}" + (f" ({detail})" if detail else ""),
        transport=transport,
        cost=Cost(training=recipe.forward_equivalents(), network=placed.full_name),
    )
    jobs = (*(earlier for network in parents for earlier in network.jobs), job)
    return SourcedModel(placed, model, {"train": job.address.key}, None, jobs, axes, recipe)


def _parent(card: str | None, data: DataLookup, retrain: bool, where: str) -> SourcedModel | None:
    if card is None:
        return None
    return _by_card(find_card(card, where=where), data, retrain, where)


def _identity(network: SourcedModel | None) -> dict[str, Any] | None:
    return {"model": network.model.spec(), "weights": network.weights} if network else None


def beside(source: Source, name: str) -> Path:
    """A file named in a suite: beside the suite if it is there, else as written."""
    path = user_path(name)
    near = source.path.parent / path
    return near if not path.is_absolute() and near.exists() else path
