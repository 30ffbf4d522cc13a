"""Ships a finished training as a card's weights: float16 file, log, digest on the card."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from cmbench.cards.cards import PlacedCard, find_card
from cmbench.cards.open import card_model
from cmbench.core.digests import digest, file_sha256
from cmbench.core.errors import UserError
from cmbench.core.files import write_bytes, write_json, write_text
from cmbench.core.tensor_files import read_safetensors
from cmbench.core.yaml_source import parse_yaml, read_yaml
from cmbench.record.schema import TrainingLog
from cmbench.train.recipe import Recipe, read_recipe

__all__ = ["ship_weights"]


def ship_weights(name: str, run: Path) -> list[Path]:
    """Copies the output of `cmbench train` in `run` next to the adapter of the card `name`.

    Returns:
        The files written: weights, log, cards.

    Raises:
        UserError: If the card has no recipe or another one than the training's, if the training
            is not finished, or if a weight is not finite in float16.
    """
    placed = find_card(name)
    if placed.recipe_file is None:
        raise UserError(f"model '{placed.full_name}' has no recipe", expected="a card with one")
    recipe = read_recipe(placed.recipe_file)
    log = _log(placed, recipe, run)
    state = {
        key: _half(key, value)
        for key, value in read_safetensors(run / "weights.safetensors").items()
    }
    data = save(state)
    stem = _free_stem(placed, data)
    weights, logged = (stem.parent / f"{stem.name}.{end}" for end in ("safetensors", "log.json"))
    write_bytes(weights, data)
    model = card_model(placed)
    model.load(model.build(), weights)
    write_json(logged, log.model_dump(mode="json"))
    cards = placed.folder / "cards.yaml"
    entry = _entry(placed, recipe, weights, logged)
    text = _with_entry(cards, placed.name, entry)
    write_text(cards, text)
    _remove_unnamed(placed, text)
    return [weights, logged, cards]


def _free_stem(placed: PlacedCard, data: bytes) -> Path:
    """Returns a path for the new files that does not replace the files which the card names.

    The switch is the write of the card: a kill before it leaves the old weights intact.
    """
    place = placed.folder / "weights"
    place.mkdir(exist_ok=True)
    named = placed.card.weights.file if placed.card.weights else None
    now = placed.folder / named if named else place
    if now.is_file() and now.parent == place and now.read_bytes() == data:
        return place / now.name.removesuffix(".safetensors")
    if now != place / f"{placed.name}.safetensors":
        return place / placed.name
    return place / f"{placed.name}-{hashlib.sha256(data).hexdigest()[:8]}"


def _remove_unnamed(placed: PlacedCard, text: str) -> None:
    """Removes the files that the card named before, unless another card names them."""
    weights, log = placed.card.weights, placed.card.training.get("log")
    for name in (weights.file if weights else None, log):
        if isinstance(name, str) and name.startswith("weights/") and name not in text:
            (placed.folder / name).unlink(missing_ok=True)


def _log(placed: PlacedCard, recipe: Recipe, run: Path) -> TrainingLog:
    try:
        log = TrainingLog.model_validate_json((run / "log.json").read_text("utf-8"))
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{run} holds no finished training",
            fix=f"cmbench train {placed.recipe_file} --out {run}",
        ) from error
    if log.recipe_digest != digest(recipe.identity()):
        raise UserError(
            f"{run} was trained by another recipe than {placed.recipe_file} ({log.recipe})",
            expected=f"recipe digest {digest(recipe.identity())[:12]}",
        )
    return log


def _half(name: str, value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        return value
    half = value.half()
    if not bool(half.isfinite().all()):
        raise UserError(f"weight {name} has values that float16 can't hold")
    return half.contiguous()


def _entry(placed: PlacedCard, recipe: Recipe, weights: Path, log: Path) -> dict[str, Any]:
    inside = placed.card.model_dump(mode="json", exclude_defaults=True)
    training = {
        "images": recipe.images,
        "seed": recipe.seed,
        "precision": "float16",
        "log": str(log.relative_to(placed.folder)),
    }
    shipped = {"file": str(weights.relative_to(placed.folder)), "sha256": file_sha256(weights)}
    return inside | {"weights": shipped, "training": training}


def _with_entry(path: Path, name: str, entry: dict[str, Any]) -> str:
    """Replaces one card's block in the text of the cards; the others stay as written."""
    source = read_yaml(path)
    text = source.text
    block = yaml.safe_dump(
        {name: entry}, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None
    )
    start = re.search(rf"^{re.escape(name)}:.*\n", text, re.M)
    assert start is not None  # find_card has read it
    after = re.search(r"^\S", text[start.end() :], re.M)
    end = start.end() + after.start() if after else len(text)
    changed = text[: start.start()] + block + text[end:]
    before, now = source.data, parse_yaml(changed, path).data
    if before | {name: now[name]} != now:
        raise UserError(
            f"the card of {name} can't be replaced in its file", fix=f"write:\n{block}"
        )
    return changed
