"""Opens a card: its model, its weights file, and their source."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmbench.assets.download import asset_path
from cmbench.cards.cards import PlacedCard
from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.core.loader import create, load
from cmbench.denoise.model import Model
from cmbench.store.jobs import Job
from cmbench.train.recipe import Recipe, read_recipe

__all__ = ["SourcedModel", "card_model", "open_card", "open_module", "weights_of"]


@dataclass(frozen=True)
class SourcedModel:
    """A network to sample from.

    Args:
        card: Its card.
        model: The adapter with its configuration.
        weights: The weights' identity in keys: {"train": key}, {"sha256": ...} or {}.
        file: The weights file, if they are not trained in this plan.
        jobs: The job that trains it, after the jobs of its teacher and start.
        axes: Values of the run's swept fields.
        recipe: The recipe behind the weights, if known.
    """

    card: PlacedCard
    model: Model
    weights: dict[str, str]
    file: Path | None = None
    jobs: tuple[Job, ...] = ()
    axes: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None


def _from_file(placed: PlacedCard, given: Path, where: str) -> SourcedModel:
    path, fields = load("model", placed.family, where=where).opened(given)
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist", where=where)
    sha256 = file_sha256(path)
    stated = placed.card.weights.sha256 if placed.card.weights else None
    if path == placed.weights_file and stated and sha256 != stated:
        raise UserError(
            f"weights file {path} is not what its card states (SHA-256 {sha256[:12]}, "
            f"stated {stated[:12]})",
            where=where,
            fix="use the file that belongs to the card",
        )
    recipe = read_recipe(placed.recipe_file) if placed.recipe_file else None
    model = card_model(placed, where, fields)
    return SourcedModel(placed, model, {"sha256": sha256}, path, recipe=recipe)


def weights_of(given: Path) -> Path:
    """Returns the weights file of a training's folder; any other path unchanged."""
    inside = given / "weights.safetensors"
    return inside if inside.is_file() else given


def open_card(placed: PlacedCard, given: Path | None = None) -> tuple[Model, Path | None]:
    """Opens a card's adapter and weights file: given, shipped, downloaded, or from the hub.

    Args:
        placed: The card.
        given: A weights file, the folder of a training, or a folder that the family opens.

    Returns:
        The adapter, and the file; None for a model in closed form.

    Raises:
        UserError: If the model must be trained first and no weights were given, or the weights
            are not those that the card states.
        Pending: If official weights are not on this machine, with the command that downloads them.
    """
    place = weights_of(given) if given is not None else placed.weights_file
    if place is None and placed.asset is not None:
        place = asset_path(placed.asset)
    if place is None and placed.hub is not None:
        place = Path(placed.hub)
    if place is not None:
        network = _from_file(placed, place, "")
        return network.model, network.file
    if placed.recipe_file is not None:
        raise UserError(
            f"model '{placed.full_name}' is trained by a recipe and has no weights yet",
            fix=f"cmbench train {placed.recipe_file} --out DIR, then give DIR as its weights",
        )
    return card_model(placed), None


def open_module(
    model: Model, file: Path | None, device: torch.device, *, channels_last: bool = False
) -> nn.Module:
    """Builds a model with its weights, on a device, in evaluation mode, without gradients.

    Args:
        model: The adapter.
        file: The weights file; None for a model in closed form.
        device: The device of the module.
        channels_last: Whether to store weights channels last, the fastest order on a CPU.

    Raises:
        UserError: If the weights do not fit the model.
    """
    module: nn.Module = model.build()
    if file is not None:
        model.load(module, file)
    module = module.to(device).eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last) if channels_last else module


def card_model(placed: PlacedCard, where: str = "", fields: dict[str, Any] | None = None) -> Model:
    """Creates the adapter with the card's configuration, its recipe's, or a weights file's."""
    spec = {"name": placed.family, **(fields or {}), **placed.card.config}
    if placed.recipe_file and not placed.card.config and not fields:
        spec = read_recipe(placed.recipe_file).model
    model: Model = create("model", spec, where=where)
    return model
