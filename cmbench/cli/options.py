"""Options and arguments that several commands share."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench.cli.complete import (
    DEVICES,
    complete_component,
    complete_model,
    complete_suite,
    one_of,
)
from cmbench.core.errors import UserError
from cmbench.core.names import is_name
from cmbench.core.paths import user_path

__all__ = [
    "MOST_SEED",
    "AsJson",
    "Consistency",
    "DataPath",
    "DataPaths",
    "Device",
    "Features",
    "Overwrite",
    "Quiet",
    "Results",
    "Retrain",
    "Suite",
    "Tag",
    "data_paths",
    "key_values",
    "print_json",
]

Suite = Annotated[
    str,
    typer.Argument(
        help="A suite's YAML file, or the name of a bundled suite.", autocompletion=complete_suite
    ),
]


Consistency = Annotated[
    str,
    typer.Argument(help="A consistency model, family/card.", autocompletion=complete_model),
]


DataPaths = Annotated[
    list[str] | None,
    typer.Option("--data", help="Path of a data set: PATH for the suite's own, or NAME=PATH."),
]


Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of(DEVICES))
]


Features = Annotated[
    str, typer.Option(help="Feature extractor.", autocompletion=complete_component("features"))
]


Results = Annotated[Path, typer.Option(help="Folder of results; each suite gets a subfolder.")]


Retrain = Annotated[
    bool,
    typer.Option(
        "--retrain", help="Train all models that have a recipe, even if weights are shipped."
    ),
]


Tag = Annotated[str | None, typer.Option(help="Only the suite's runs with this tag.")]


DataPath = Annotated[Path | None, typer.Option("--data", help="Path of the data set.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


MOST_SEED = 2**63 - 1
"""Maximum seed; the minimum is 0 (`cmbench.core.bounds.Seed`)."""


def data_paths(given: list[str], default: Callable[[], str]) -> dict[str, Path]:
    """Returns paths by data set: `--data PATH` is `default`'s, `--data NAME=PATH` is NAME's.

    The text before the first `=` is a name only if it is a valid one, so a path may contain `=`.

    Raises:
        UserError: For a path that does not exist, or two paths of one data set.
    """
    paths: dict[str, Path] = {}
    for item in given:
        name, separator, path = item.partition("=")
        is_named = bool(separator) and is_name(name)
        location = user_path(path if is_named else item, where=f"--data {item}")
        if not location.exists():
            raise UserError(f"--data {item}: {location} does not exist")
        key = name if is_named else default()
        if key in paths:
            raise UserError(f"--data {item}: data set {key} has a path already")
        paths[key] = location
    return paths


def key_values(option: str, given: list[str]) -> dict[str, str]:
    """Returns the pairs of a repeatable option KEY=VALUE."""
    pairs = [item.partition("=") for item in given]
    for key, separator, _ in pairs:
        if not (key and separator):
            raise UserError(f"{option} {key}: no value", expected=f"{option} KEY=VALUE")
    return {key: value for key, _, value in pairs}


def print_json(value: Any) -> None:
    """Prints `value` on standard output, keys sorted."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
