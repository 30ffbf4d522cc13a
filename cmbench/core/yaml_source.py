"""YAML files read with the line of every key, so that a fault is reported where it stands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cmbench.core.errors import UserError, brief, nearest
from cmbench.core.yaml_nodes import Place, read_nodes

__all__ = ["Source", "parse_value", "parse_yaml", "read_yaml", "validate"]

MOST_BYTES = 4 * 2**20
"""Size of the largest YAML file that is read."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Source:
    """A parsed YAML file.

    Args:
        path: The file.
        text: Its text as read.
        data: What it holds: dicts, lists, scalars.
        lines: Line number (from 1) of each key and item, by its path in `data`.
    """

    path: Path
    text: str
    data: Any
    lines: dict[Place, int] = field(repr=False)

    def where(self, place: Place = ()) -> str:
        """`file:line: key.path` of a place, or of its nearest parent that the file has."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known, 1)
        key = _dotted(place)
        return f"{self.path}:{line}" + (f": {key}" if key else "")


def read_yaml(path: Path) -> Source:
    """Reads a YAML file safely: no tags that build objects, no duplicate keys, bounded work.

    Raises:
        UserError: If the file is missing, not UTF-8, not YAML, repeats a key, nests more than
            64 deep, or its aliases stand for more than 20,000 values.
    """
    return parse_yaml(_text_of(path), path)


def parse_yaml(text: str, path: Path) -> Source:
    """Parses YAML text as `read_yaml` does; `path` stands in the messages.

    Raises:
        UserError: As `read_yaml`.
    """
    data, lines = read_nodes(text, str(path))
    return Source(path, text, data, lines)


def parse_value(text: str, where: str) -> Any:
    """One value typed on a command line, as YAML reads it: 3, 0.5, true, [1, 2], a word.

    Args:
        text: The value.
        where: The option it stands in, for messages.

    Raises:
        UserError: If it is not YAML.
    """
    try:
        return read_nodes(text, where)[0]
    except UserError as error:
        raise error.at(where) from None


def _text_of(path: Path) -> str:
    try:
        if not path.is_file():
            raise UserError(f"no such file: {path}", expected="a YAML file")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None
    if len(raw) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES:,} bytes", expected="a YAML file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"not UTF-8: byte 0x{raw[error.start]:02x}",
            where=f"{path}:{line}",
            expected="text saved as UTF-8",
        ) from None


def validate(source: Source, model: type[M]) -> M:
    """The file's content as `model`.

    Raises:
        UserError: At the first fault: file, line, key, what is allowed and the nearest name.
    """
    if not isinstance(source.data, dict):
        raise UserError("expected a mapping of keys at the top", where=source.where())
    try:
        return model.model_validate(source.data, context={"source": source})
    except ValidationError as error:
        # A misspelt key is named before the key that it leaves missing.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise _placed(source, model, faults[0]) from None


def _placed(source: Source, model: type[BaseModel], fault: ErrorDetails) -> UserError:
    place = tuple(p for p in fault["loc"] if not str(p).startswith("function-"))
    allowed = _fields_at(model, place[:-1])
    if fault["type"] == "extra_forbidden":
        key = str(place[-1])
        near = nearest(key, allowed)
        return UserError(
            f"unknown key {brief(key)}" + (f"; did you mean '{near}'?" if near else ""),
            where=source.where(place),
            expected=f"one of: {', '.join(allowed)}" if allowed else "",
        )
    if fault["type"] == "missing":
        return UserError(f"key '{place[-1]}' is missing", where=source.where(place[:-1]))
    message = fault["msg"].removeprefix("Value error, ")
    while place and place not in source.lines:  # which of several types was tried, in pydantic
        place = place[:-1]
    return UserError(f"{message} (got {brief(fault['input'])})", where=source.where(place))


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    current: Any = model
    is_key = False
    for part in place:
        if isinstance(part, int) or is_key:
            is_key = False
            continue
        info = current.model_fields.get(part) if _is_model(current) else None
        found = _models_in(info.annotation) if info else []
        if info is None or not found:
            return []
        current = found[0]
        is_key = get_origin(info.annotation) is dict  # what follows is a key of the user's own
    return list(current.model_fields) if _is_model(current) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if _is_model(annotation):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
