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
    typer.Option("--data", help="Where data is: PATH for the suite's own set, or NAME=PATH."),
]


Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of(DEVICES))
]


Features = Annotated[
    str, typer.Option(help="Extractor.", autocompletion=complete_component("features"))
]


Results = Annotated[Path, typer.Option(help="Folder of results; the suite's name is added.")]


Retrain = Annotated[
    bool, typer.Option("--retrain", help="Train what has a recipe, though weights are shipped.")
]


Tag = Annotated[str | None, typer.Option(help="Only the suite's runs that have this tag.")]


DataPath = Annotated[Path | None, typer.Option("--data", help="Where the data set is.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


MOST_SEED = 2**63 - 1
"""The greatest seed; the least is 0 (`cmbench.core.bounds.Seed`)."""


def data_paths(given: list[str], default: Callable[[], str]) -> dict[str, Path]:
    """Paths by data set, from `--data PATH` (of the set `default`) and `--data NAME=PATH`.

    What stands before the first `=` is a name only if it can be one, so that a path may hold `=`.

    Raises:
        UserError: For a path that does not exist, or two paths of one data set.
    """
    paths: dict[str, Path] = {}
    for item in given:
        name, separator, path = item.partition("=")
        is_named = bool(separator) and is_name(name)
        chosen = user_path(path if is_named else item, where=f"--data {item}")
        if not chosen.exists():
            raise UserError(f"--data {item}: {chosen} does not exist")
        key = name if is_named else default()
        if key in paths:
            raise UserError(f"--data {item}: data set {key} has a path already")
        paths[key] = chosen
    return paths


def key_values(option: str, given: list[str]) -> dict[str, str]:
    """The pairs of an option that is given as KEY=VALUE, again and again."""
    pairs = [item.partition("=") for item in given]
    for key, separator, _ in pairs:
        if not (key and separator):
            raise UserError(f"{option} {key}: no value", expected=f"{option} KEY=VALUE")
    return {key: value for key, _, value in pairs}


def print_json(value: Any) -> None:
    """Prints `value` on standard output, keys sorted."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
