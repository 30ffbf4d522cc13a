"""Names and keys that come out of files, checked before any of them becomes part of a path.

A suite, a record or a card names components and outputs; the loader and the store turn those names
into files. Only what cannot leave a folder is taken: no separator, no dot, no drive.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from cmbench.core.errors import UserError, brief

__all__ = ["CardName", "ComponentName", "Key", "is_key", "is_name", "require_name"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEY = re.compile(r"[0-9a-f]{64}")
_ALLOWED = "at most 100 letters, digits, '_' and '-': a name, not a path"


def is_name(text: Any) -> bool:
    """Whether `text` can be a component's name: 1 to 100 ASCII letters, digits, `_` and `-`."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_key(text: Any) -> bool:
    """Whether `text` is a store key: 64 lower-case hexadecimal digits."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


def require_name(kind: str, name: str, *, where: str = "") -> None:
    """Refuses a name that could be a path.

    Raises:
        UserError: If it is not 1 to 100 letters, digits, `_` and `-`.
    """
    if not is_name(name):
        raise UserError(f"{brief(name)} is no name of a {kind}", where=where, expected=_ALLOWED)


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"not a component's name; expected {_ALLOWED}")
    return text


def _card(text: str) -> str:
    family, slash, card = text.partition("/")
    if not is_name(family) or (slash and not is_name(card)):
        raise ValueError(f"not a model's name; expected family/card, each {_ALLOWED}")
    return text


def _key(text: str) -> str:
    if not is_key(text):
        raise ValueError("not a key; expected 64 hexadecimal digits")
    return text


ComponentName = Annotated[str, AfterValidator(_name)]
"""A component's name in a pydantic model."""

CardName = Annotated[str, AfterValidator(_card)]
"""A card's name, `family/card` or a family without cards, in a pydantic model."""

Key = Annotated[str, AfterValidator(_key)]
"""A store key in a pydantic model."""
