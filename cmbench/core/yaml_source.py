"""YAML files read with the line of every key, so that a fault is reported where it stands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cmbench.core.errors import UserError, nearest

__all__ = ["Source", "read_yaml", "validate"]

Place = tuple[str | int, ...]
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
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
    """Reads a YAML file safely: no tags that build objects, no duplicate keys.

    Raises:
        UserError: If the file is missing, not UTF-8, not YAML, or repeats a key.
    """
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Place, int] = {}
        data = _build(node, (), lines, path) if node is not None else None
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}",
            where=place,
            expected="YAML; strings with ': ' or a leading '[' or '{' need quotes",
        ) from None
    return Source(path, text, data, lines)


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
            f"unknown key '{key}'" + (f"; did you mean '{near}'?" if near else ""),
            where=source.where(place),
            expected=f"one of: {', '.join(allowed)}" if allowed else "",
        )
    if fault["type"] == "missing":
        return UserError(f"key '{place[-1]}' is missing", where=source.where(place[:-1]))
    message = fault["msg"].removeprefix("Value error, ")
    return UserError(f"{message} (got {fault['input']!r})", where=source.where(place))


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    current: Any = model
    for part in place:
        if isinstance(part, int):
            continue
        info = current.model_fields.get(part) if _is_model(current) else None
        found = _models_in(info.annotation) if info else []
        if not found:
            return []
        current = found[0]
    return list(current.model_fields) if _is_model(current) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if _is_model(annotation):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _build(node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise UserError(
            f"not valid YAML here: the tag {node.tag} is not data",
            where=f"{path}:{node.start_mark.line + 1}",
        )
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            line = key_node.start_mark.line + 1
            if key in result:
                raise UserError(f"key '{key}' stands twice", where=f"{path}:{line}")
            lines[(*place, key)] = line
            result[key] = _build(value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    # A constructor of its own for each scalar: safe tags only; others raise ConstructorError.
    return yaml.SafeLoader("").construct_object(node, deep=True)


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text
