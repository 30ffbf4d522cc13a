"""Cards: the checkpoints of a model family as rows of data, `models/<family>/cards.yaml`."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cmbench.core.bounds import Classes, ImageShape
from cmbench.core.errors import UserError, unknown_name
from cmbench.core.loader import available, find
from cmbench.core.names import ComponentName
from cmbench.core.yaml_source import Source, read_yaml, validate
from cmbench.denoise.model import Published

__all__ = ["Card", "PlacedCard", "WeightsFile", "find_card", "list_cards", "survey_cards"]


class WeightsFile(BaseModel):
    """The source of weights: a file (relative to the card), an asset of the catalogue, or a
    repository on Hugging Face's hub (`owner/name`), which is read from its cache.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str | None = None
    sha256: str | None = None
    asset: str | None = None
    hub: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "WeightsFile":
        if sum(place is not None for place in (self.file, self.asset, self.hub)) != 1:
            raise ValueError("weights need one of file, asset and hub")
        return self


class Card(BaseModel):
    """One checkpoint, or one recipe that trains it.

    Args:
        config: The adapter's fields: architecture, classes, noise range.
        recipe: Recipe that trains it, relative to the family's folder; if there are `weights`
            too, they were trained by this recipe.
        weights: Source of the weights; a model in closed form has neither recipe nor weights.
        sampler: The sampler that reproduces the authors' numbers, if it is not the family's.
        published: Numbers that the authors published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    summary: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    recipe: str | None = None
    weights: WeightsFile | None = None
    shape: ImageShape | None = None
    classes: Classes | None = None
    sampler: str | dict[str, Any] | None = None
    licence: str = ""
    citation: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    published: list[Published] = Field(default_factory=list)


class _Cards(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cards: dict[ComponentName, Card]


@dataclass(frozen=True)
class PlacedCard:
    """A card with its family and the folder to which its paths are relative."""

    family: str
    name: str
    card: Card
    folder: Path

    @property
    def full_name(self) -> str:
        """The name `family/card`."""
        return f"{self.family}/{self.name}"

    @property
    def origin(self) -> str:
        """The kind of source of the weights, for listings."""
        if self.card.weights is not None:
            weights = self.card.weights
            return "shipped" if weights.file else "asset" if weights.asset else "hub"
        return "trained here" if self.card.recipe else "none needed"

    @property
    def weights_file(self) -> Path | None:
        """The file of shipped weights, if the card names one."""
        weights = self.card.weights
        return self.folder / weights.file if weights and weights.file else None

    @property
    def asset(self) -> str | None:
        """The catalogue's name of the official weights, if the card names one."""
        return self.card.weights.asset if self.card.weights else None

    @property
    def hub(self) -> str | None:
        """The hub's name of the repository that holds the weights, if the card names one."""
        return self.card.weights.hub if self.card.weights else None

    @property
    def recipe_file(self) -> Path | None:
        """The recipe that makes the weights, if there is one."""
        return self.folder / self.card.recipe if self.card.recipe else None


def find_card(name: str, *, where: str = "") -> PlacedCard:
    """Finds `family/card`. A family without cards.yaml is its own single card.

    Raises:
        UserError: For an unknown family or card; the error names the nearest.
    """
    family, _, card_name = name.partition("/")
    adapter = find("model", family, where=where)
    cards = _read_cards(adapter)
    if not card_name:
        if cards:
            raise UserError(
                f"model '{family}' needs a card",
                where=where,
                expected="one of: " + ", ".join(f"{family}/{c}" for c in sorted(cards)),
            )
        return PlacedCard(family, family, Card(), adapter.parent)
    if card_name not in cards:
        raise unknown_name(f"card of model '{family}'", card_name, cards, where=where)
    return PlacedCard(family, card_name, cards[card_name], adapter.parent)


def list_cards() -> list[PlacedCard]:
    """Lists all cards of all families, except families with an invalid cards file."""
    return survey_cards()[0]


def survey_cards() -> tuple[list[PlacedCard], list[UserError]]:
    """Reads the cards of all families.

    Returns:
        The cards, and the errors of families with an invalid cards file, whose cards are omitted.
    """
    placed: list[PlacedCard] = []
    faults: list[UserError] = []
    for item in available("model"):
        try:
            cards = _read_cards(item.path)
        except UserError as error:
            faults.append(error)
            continue
        for name, card in sorted(cards.items()):
            placed.append(PlacedCard(item.name, name, card, item.path.parent))
    return placed, faults


def _read_cards(adapter: Path) -> dict[str, Card]:
    beside = "cards.yaml" if adapter.name == "adapter.py" else f"{adapter.stem}.cards.yaml"
    path = adapter.parent / beside
    return _read_file(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=64)
def _read_file(path: Path, changed: int) -> dict[str, Card]:
    """Reads the cards of a file; `changed` keys the cache, so that a changed file is reread."""
    source = read_yaml(path)
    # The file is a mapping of names to cards; the wrapper keeps line numbers of errors.
    lines = {("cards", *place): line for place, line in source.lines.items()}
    wrapped = Source(path, source.text, {"cards": source.data or {}}, lines)
    return validate(wrapped, _Cards).cards
