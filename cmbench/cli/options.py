"""Options and arguments that several commands share."""

import json
import sys
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

__all__ = [
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


def data_paths(given: list[str], default: str) -> dict[str, Path]:
    """Paths by data set, from `--data PATH` (of the set `default`) and `--data NAME=PATH`."""
    paths = {}
    for item in given:
        name, separator, path = item.partition("=")
        chosen = Path(path if separator else item).expanduser()
        if not chosen.exists():
            raise UserError(f"--data {item}: {chosen} does not exist")
        paths[name if separator else default] = chosen
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
