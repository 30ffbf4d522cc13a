"""Writes docs/suite.md from the models that validate a suite; a test holds the file against it.

python docs/write_suite_reference.py
"""

import inspect
import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from cmbench.stats.findings import Cells, Finding
from cmbench.suite.spec import Images, MetricEntry, ReferenceEntry, RunEntry, Suite

__all__ = ["SECTIONS", "suite_reference"]

SECTIONS: dict[type[BaseModel], tuple[str, str]] = {
    Suite: ("The suite", ""),
    Images: ("images", "`images:` is one mapping."),
    ReferenceEntry: ("reference", "`reference:` is one mapping."),
    MetricEntry: (
        "metrics",
        "`metrics:` is a list. An entry is a metric's name, or a mapping with its name. Every other "
        "key is a parameter of that metric: [What each metric computes](metrics.md).",
    ),
    RunEntry: (
        "runs",
        "`runs:` is a list of mappings. Each is one line of the board, or several.",
    ),
    Finding: (
        "findings",
        "`findings:` is a list of mappings. Each is a claim that the report confirms, contradicts "
        "or leaves undecided.",
    ),
    Cells: ("better and worse", "`better:` and `worse:` of a finding choose cells of the board."),
}
"""The models of a suite's keys, each with its heading and what stands above its table."""

_INTRO = """# A suite's keys

Made from the models that validate a suite by `python docs/write_suite_reference.py`. An unknown key, or a value that
is not allowed, is refused with file, line and the nearest name before anything is computed. Try it with
`cmbench plan SUITE`.

```yaml
suite: keys
version: 1
title: A suite with most keys
dataset: {name: digits, split: train}
images: {count: 64, seeds: [0, 1], shard: 32}
features: [digits_classifier, pixels]
metrics:
  - frechet_distance
  - {name: precision_recall, k: 3}
  - {name: frechet_distance, features: pixels}
runs:
  - model: oracle/digits
    label: "oracle ({sampler})"
    sampler: [heun, {name: ddim}]
    nfe: [3, 5]
    tags: quick
  - model: consistency/digits
    label: "{objective} ({distance})"
    train: {objective: ct, distance: [l1, l2], images: 640}
    nfe: 1
findings:
  - claim: Two more evaluations help
    better: {label: oracle (heun), nfe: 5}
    worse: {label: oracle (heun), nfe: 3}
decoys: [train, noise]
```

## Lists are axes

A list under `nfe`, `steps`, `sampler`, `images.seeds` or a key of `train` is an axis: the cells of a run are the product of its
axes. A single value may be written without the brackets.

## Components

Where a table says *component*, write its name (`ddim`), or a mapping with its name and parameters (`{name: ddim, steps: 8}`).
`cmbench check SUITE` validates them; the names are the files of its folder, your own among them: [Your own parts](plugins.md).

## Placeholders

A run's `label` may hold placeholders in braces. Each cell fills in its own:

| placeholder | filled with |
|---|---|
| `{model}` | the run's `model` |
| `{sampler}` | the name of the cell's sampler |
| `{sampler.KEY}` | a parameter of it: `{sampler.rho}` |
| `{KEY}` | the cell's value of `KEY` under the run's `train`, else of the recipe: `{objective}`, `{optimiser.lr}`, `{optimiser.lr}`; a component gives its name |

A label with any other name in braces is refused; braces themselves are written `{{` and `}}`. Without `label`, the line is called by
its model, the values under `train` and, where the run has several, its sampler.

## Axes, seeds and trainings

A list under `train`, and several samplers, are axes. Their values stand in the record and in columns of their own wherever rows of one
label would look alike. Cells that differ in nothing but a seed are one row, with the spread between them in its interval
([Metrics](metrics.md#seeds-and-trainings)): `images: {seeds: [0, 1, 2]}` draws several sets of images from one network,
`train: {seed: [0, 1, 2]}` trains several networks. Any other two cells of one label, axes, number of evaluations and seed are refused, as
are findings about labels, evaluations or scores that no cell has.

## Paths

Files under `reference.files` and `weights` are looked for beside the suite first, then in the working directory. `~` is the home
folder. Paths of data sets are not part of a suite: `cmbench run SUITE --data NAME=PATH`.
"""


def suite_reference() -> str:
    """Returns the page, from the fields and docstrings of the suite's models."""
    return _INTRO + "".join(_section(model) for model in SECTIONS)


def _section(model: type[BaseModel]) -> str:
    heading, lead = SECTIONS[model]
    text = f"\n## {heading}\n\n" + (f"{lead}\n\n" if lead else "")
    words = _described(model)
    rows = [
        f"| `{name}` | {words[name]} | {_allowed(field)} | {_default(field)} |\n"
        for name, field in model.model_fields.items()
    ]
    return text + "| key | what it is | allowed | default |\n|---|---|---|---|\n" + "".join(rows)


def _described(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring's `Args:` says of each field."""
    args = (inspect.getdoc(model) or "").partition("Args:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", args, re.M)
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in found}


def _allowed(field: FieldInfo) -> str:
    return _kind(field.annotation, field.metadata)


def _kind(kind: Any, marks: Iterable[Any] = ()) -> str:
    """A type in words; `marks` are the constraints that stand beside it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        parts = [part for part in inner if part is not type(None)]
        if set(parts) == {str, dict[str, Any]}:
            return "[component](#components)"
        return " or ".join(_kind(part, marks) for part in parts)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin is list:
        listed = any(isinstance(mark, BeforeValidator) for mark in marks)
        least = next((f", at least {m.min_length}" for m in marks if isinstance(m, MinLen)), "")
        return f"one or a list: {_kind(inner[0])}" if listed else f"list: {_kind(inner[0])}{least}"
    if origin is dict:
        return "mapping"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        heading = SECTIONS[kind][0]
        return f"[{heading}](#{heading.replace(' ', '-')})"
    plain = {str: "text", bool: "true or false", int: "whole number", float: "number"}[kind]
    return plain + "".join(filter(None, map(_bound, marks)))


def _bound(mark: Any) -> str:
    if isinstance(mark, FieldInfo):
        return "".join(filter(None, map(_bound, mark.metadata)))
    if isinstance(mark, Ge):
        return f", at least {mark.ge}"
    if isinstance(mark, Le):
        return f", at most {mark.le:,}"
    if isinstance(mark, MaxLen):
        return f", at most {mark.max_length:,} characters"
    if isinstance(mark, MinLen):
        return ", not empty"
    pattern = getattr(mark, "pattern", None)
    return f" matching `{pattern}`" if pattern else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in (None, "", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("'", "")


if __name__ == "__main__":
    Path(__file__).with_name("suite.md").write_text(suite_reference(), "utf-8")
