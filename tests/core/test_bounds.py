"""Every whole number of every shipped component has both its bounds in its field; floats are finite."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field, ValidationError

from cmbench.core.component import Component
from cmbench.core.loader import FOLDERS, available, load
from cmbench.suite.spec import Suite
from cmbench.train.recipe import Recipe

COMPONENTS = [(kind, item.name) for kind in FOLDERS for item in available(kind)]
LOW, HIGH = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}


def _unbounded(schema: dict[str, Any], defs: dict[str, Any], place: str = "") -> Iterator[str]:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    bounded = {"enum", "const"} & set(schema) or (LOW & set(schema) and HIGH & set(schema))
    if schema.get("type") == "integer" and not bounded:
        yield place
    for key in ("anyOf", "prefixItems"):
        for inner in schema.get(key, []):
            yield from _unbounded(inner, defs, place)
    if isinstance(schema.get("items"), dict):
        yield from _unbounded(schema["items"], defs, f"{place}[]")
    for key, inner in schema.get("properties", {}).items():
        yield from _unbounded(inner, defs, f"{place}.{key}")


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_whole_numbers_have_both_bounds(kind, name):
    schema = load(kind, name).model_json_schema()
    assert not list(_unbounded(schema, schema.get("$defs", {})))


def test_those_of_recipes_have_both_bounds():
    schema = Recipe.model_json_schema()
    assert not list(_unbounded(schema, schema["$defs"]))


def test_those_of_suites_have_both_bounds_but_lists_that_are_checked_as_a_whole():
    schema = Suite.model_json_schema()
    found = set(_unbounded(schema, schema["$defs"]))
    assert found == {".runs[].nfe[]", ".runs[].steps[]"}


class _Toy(Component):
    plain: float = 0.0
    open: float = Field(default=0.0, allow_inf_nan=True)
    inner: dict[str, Any] = Field(default_factory=dict)
    several: tuple[float, ...] = ()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_floats_are_finite_unless_a_field_says_otherwise(value):
    _Toy(open=value)
    for given in ({"plain": value}, {"several": (1.0, value)}, {"inner": {"a": [{"b": value}]}}):
        with pytest.raises(ValidationError, match="finite"):
            _Toy(**given)
