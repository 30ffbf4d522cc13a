"""The axes of a run: the points of its sweep, and how records call their values."""

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

from cmbench.core.digests import canonical
from cmbench.samplers.base import Sampler

__all__ = ["as_scalar", "axis_points", "sampler_axes"]

Point = tuple[dict[str, Any], dict[str, Any]]


def axis_points(train: dict[str, Any]) -> list[Point]:
    """The points of a run's training axes: overrides of the recipe, and how records call them."""
    choices = [v if isinstance(v, list) else [v] for v in train.values()]
    called = [_called(values) for values in choices]
    places = product(*(range(len(values)) for values in choices))
    return [
        (
            {name: values[i] for name, values, i in zip(train, choices, place, strict=True)},
            {name: values[i] for name, values, i in zip(train, called, place, strict=True)},
        )
        for place in places
    ]


def sampler_axes(sampler: Sampler, bases: Sequence[Sampler]) -> dict[str, Any]:
    """The axes of a run with several samplers: the name, and the parameters that tell them apart.

    Args:
        sampler: The cell's sampler.
        bases: The run's samplers as listed, before `nfe` or `steps` were set.
    """
    alike = [base.spec() for base in bases if base.name == sampler.name]
    several = len({base.name for base in bases}) > 1
    own = sampler.spec()
    # `steps` is told by the number of evaluations, along which a line is drawn.
    differing = [
        k for k in own if k != "steps" and len({canonical(spec.get(k)) for spec in alike}) > 1
    ]
    named = {"sampler": sampler.name} if several else {}
    return named | {f"sampler.{key}": as_scalar(own[key]) for key in differing}


def as_scalar(value: Any) -> Any:
    """The value as a record's axis holds it: a component by name, lists and mappings as text."""
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return value if value is None or isinstance(value, str | int | float) else _text(value)


def _called(values: list[Any]) -> list[Any]:
    """The values as records call them: by name, with what differs where two have one name."""
    short = [as_scalar(value) for value in values]
    return [
        name if short.count(name) == 1 else _whole(value)
        for name, value in zip(short, values, strict=True)
    ]


def _whole(value: Any) -> Any:
    """`ct(s0=2, s1=32)`, for a component; other values as they are."""
    if not (isinstance(value, dict) and "name" in value):
        return as_scalar(value)
    given = [f"{k}={_text(v)}" for k, v in value.items() if k != "name"]
    return f"{value['name']}({', '.join(given)})" if given else str(value["name"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
