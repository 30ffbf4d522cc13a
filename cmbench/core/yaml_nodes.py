"""YAML text to plain values with the line of each, in bounded time and memory.

What is data is read: text, whole numbers of 64 bits, floats, booleans, null, lists and mappings.
Dates stay text. What YAML can say beyond that (objects, sets, base-60 numbers, octal numbers by a
leading zero, merge keys) is refused or stays text, so that nothing is read as something else.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from cmbench.core.errors import UserError, brief

__all__ = ["Place", "read_nodes"]

Place = tuple[str | int, ...]

_DEEPEST = 64
_MOST_REPEATS = 20_000
"""Values that aliases may stand for, beyond those that are written."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_AS_TEXT = ("timestamp", "value")
"""Tags that YAML 1.1 gives to plain words which are text to everyone else."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with its depth bounded."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.level += 1
        if self.level > _DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {_DEEPEST} deep", problem_mark=mark
            )
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.removeprefix(_TAG) not in _AS_TEXT]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_nodes(text: str, name: str) -> tuple[Any, dict[Place, int]]:
    """The value of YAML text and the line (from 1) of each key and item, by its path.

    Args:
        text: The text.
        name: The file's name, for messages.

    Raises:
        UserError: For what is not YAML, or not data: file and line.
    """
    try:
        loader = _Loader(text)
        reader = _Reader(loader, name)
        node = loader.get_single_node()
        return (None if node is None else reader.build(node, ())), reader.lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"not valid YAML: a control character (U+{error.character:04X})",
            where=f"{name}:{line}",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}",
            where=f"{name}:{mark.line + 1 if mark else 1}",
            expected="YAML; strings with ': ' or a leading '[' or '{' need quotes",
        ) from None


class _Reader:
    """Builds values from nodes; each visit of a node that was seen before is counted."""

    def __init__(self, loader: _Loader, name: str) -> None:
        self.loader, self.name = loader, name
        self.lines: dict[Place, int] = {}
        self.seen: set[int] = set()
        self.repeats = 0

    def build(self, node: yaml.Node, place: Place) -> Any:
        """The value of a node, at its place."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        self._count(node, place)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            raise self._fault(node, f"the tag {brief(node.tag)} is not data")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._mapping(node, place)

    def _count(self, node: yaml.Node, place: Place) -> None:
        self.repeats += id(node) in self.seen
        self.seen.add(id(node))
        if len(place) > _DEEPEST:
            raise self._fault(node, f"nested more than {_DEEPEST} deep, by an alias of itself")
        if self.repeats > _MOST_REPEATS:
            raise self._fault(node, f"its aliases stand for more than {_MOST_REPEATS:,} values")

    def _mapping(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in result:
                where = f"{self.name}:{key_node.start_mark.line + 1}"
                raise UserError(f"key {brief(key)} stands twice", where=where)
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*place, key))
        return result

    def _key(self, node: yaml.Node) -> str:
        """A key as written: `on`, `1` and `null` are words here."""
        if not isinstance(node, yaml.ScalarNode):
            raise self._fault(node, "a list or a mapping can't be a key", "a word before the ':'")
        if node.tag == f"{_TAG}merge":
            raise self._fault(node, "merge keys (<<) are not supported", "the keys written out")
        return self._text(node)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag = node.tag.removeprefix(_TAG)
        if tag in ("str", "merge") or (tag in ("int", "float") and ":" in node.value):
            return self._text(node)
        if tag not in _PLAIN:
            raise self._fault(node, f"the tag {brief(node.tag)} is not data")
        what, make = _PLAIN[tag]
        try:
            value = make(self.loader, node)
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            raise self._fault(node, f"{brief(node.value)} is no {what}") from None
        if tag == "int" and not isinstance(value, bool):
            self._check_integer(node, value)
        return value

    def _check_integer(self, node: yaml.ScalarNode, value: int) -> None:
        if value.bit_length() > 64:
            raise self._fault(node, f"{brief(node.value)} is beyond 64 bits")
        if re.fullmatch(r"[-+]?0[0-9_]+", node.value) and value:
            raise self._fault(
                node, f"{node.value} would be octal, {value}", f"{value}, or without leading zero"
            )

    def _text(self, node: yaml.ScalarNode) -> str:
        found = _CONTROL.search(node.value)
        if found:
            raise self._fault(node, f"text holds the control character U+{ord(found[0]):04X}")
        return str(node.value)

    def _fault(self, node: yaml.Node, what: str, expected: str = "") -> UserError:
        where = f"{self.name}:{node.start_mark.line + 1}"
        return UserError(f"not valid YAML here: {what}", where=where, expected=expected)


_PLAIN: dict[str, tuple[str, Callable[[_Loader, yaml.ScalarNode], Any]]] = {
    "int": ("whole number", _Loader.construct_yaml_int),
    "float": ("number", _Loader.construct_yaml_float),
    "bool": ("boolean", _Loader.construct_yaml_bool),
    "null": ("null", _Loader.construct_yaml_null),
}
