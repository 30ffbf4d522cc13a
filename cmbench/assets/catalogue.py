"""The catalogue of official files: `catalogue.yaml` in this folder, and users' own lists.

An `assets.yaml` of the same form in the working directory, on `CMBENCH_PATH` or in an installed
package of components adds rows, or replaces those of the same name.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cmbench.core.errors import unknown_name
from cmbench.core.loader import roots
from cmbench.core.yaml_source import Source, read_yaml, validate

__all__ = ["Asset", "catalogue", "find_asset"]

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SHA256 = r"^[0-9a-f]{64}$"
_KEPT = (".part", ".part.json", ".sha256")
"""Suffixes of files that are kept next to an asset."""


class Asset(BaseModel):
    """One official file.

    Args:
        url: Its address: https, http or file; None if it must be downloaded by hand.
        page: Web page that offers it, if there is no `url`.
        file: Its name in the cache and on mirrors.
        bytes: Its size, if known.
        sha256: Its checksum, if published.
        sha256_prefix: The first digits of its checksum, if only they are published.
        note: Further instructions for downloading it by hand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    page: str | None = None
    file: str
    bytes: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern=_SHA256)
    sha256_prefix: str | None = Field(default=None, pattern=r"^[0-9a-f]{1,64}$")
    licence: str
    citation: str
    note: str = ""

    @field_validator("file")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _FILE.fullmatch(value) or value.endswith(_KEPT):
            raise ValueError("file must be a plain name of letters, digits, '.', '_', '+' and '-'")
        return value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://", "file:///")):
            raise ValueError("url must start with https://, http:// or file:///")
        return value

    @model_validator(mode="after")
    def _one_checksum(self) -> Self:
        if self.sha256 is not None and self.sha256_prefix is not None:
            raise ValueError("give sha256 or sha256_prefix, not both")
        return self

    @property
    def how(self) -> str:
        """Instructions for a file that must be downloaded by hand."""
        location = f"it is at {self.page}" if self.page else "its owners serve no file"
        return f"{location}; {self.note}" if self.note else location


class _Catalogue(BaseModel):
    model_config = ConfigDict(extra="forbid")

    assets: dict[str, Asset]


def catalogue() -> dict[str, Asset]:
    """Reads all assets by name, cmbench's own first.

    Raises:
        UserError: For an invalid list, with file, line, key and the allowed values.
    """
    assets: dict[str, Asset] = {}
    own = [root / "assets.yaml" for root in reversed(roots())]
    for path in (Path(__file__).with_name("catalogue.yaml"), *own):
        if path.is_file():
            assets |= _read(path, path.stat().st_mtime_ns)
    return assets


def find_asset(name: str) -> Asset:
    """Finds the asset called `name`.

    Raises:
        UserError: If there is none; the error names the nearest.
    """
    assets = catalogue()
    if name not in assets:
        raise unknown_name("asset", name, assets)
    return assets[name]


@lru_cache(maxsize=16)
def _read(path: Path, changed: int) -> Mapping[str, Asset]:
    """Reads the rows of a list; `changed` keys the cache, so that a changed file is reread."""
    source = read_yaml(path)
    # The file is a mapping of names to assets; the wrapper keeps line numbers of errors.
    lines = {("assets", *place): line for place, line in source.lines.items()}
    wrapped = Source(source.path, source.text, {"assets": source.data or {}}, lines)
    return validate(wrapped, _Catalogue).assets
