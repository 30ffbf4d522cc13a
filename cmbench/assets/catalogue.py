"""The catalogue of official files: `catalogue.yaml` beside this module, validated."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cmbench.core.errors import unknown_name
from cmbench.core.yaml_source import Source, read_yaml, validate

__all__ = ["Asset", "catalogue", "find_asset"]


class Asset(BaseModel):
    """One official file.

    Args:
        url: Where its owner serves it.
        file: Its name there and in the cache.
        bytes: Its size, where known.
        sha256: Its checksum, where published.
        sha256_prefix: The first digits of it, where only they are published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    file: str
    bytes: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    licence: str
    citation: str


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid")

    assets: dict[str, Asset]


def catalogue() -> dict[str, Asset]:
    """Every asset by name."""
    source = read_yaml(Path(__file__).with_name("catalogue.yaml"))
    lines = {("assets", *place): line for place, line in source.lines.items()}
    wrapped = Source(source.path, source.text, {"assets": source.data}, lines)
    return validate(wrapped, _Catalogue).assets


def find_asset(name: str) -> Asset:
    """The asset called `name`.

    Raises:
        UserError: If there is none, naming the nearest.
    """
    found = catalogue()
    if name not in found:
        raise unknown_name("asset", name, found)
    return found[name]
