"""Writes docs/cli.md from the commands themselves; a test holds the file against it.

python docs/write_cli_reference.py
"""

from pathlib import Path
from typing import Any

from typer.main import get_command

from cmbench.cli.examples import EXAMPLES
from cmbench.cli.main import app

__all__ = ["cli_reference"]

_INTRO = """# Command line

Generated from the commands by `python docs/write_cli_reference.py`; `cmbench COMMAND --help` prints the same.

## Exit codes

| code | meaning |
|---:|---|
| 0 | success; cells may be pending, each with the command that completes it |
| 1 | some cells failed, or a check (`models check`, `verify`, `compare`, `doctor`) failed |
| 2 | invalid input; the message says how to fix it, and nothing was computed |
| 3 | cells or scores are pending under `run --strict`; `verify` could not check something |
| 130 | interrupted; the same command resumes |

## Output

Results go to standard output, progress and messages to standard error. On a terminal progress is a live board; on a
pipe it is plain lines, and `--quiet` leaves them out. Colour obeys `NO_COLOR`. `--json` prints one JSON value, for
machines, on standard output: `run`, `plan`, `check`, `report`, `doctor`, `models list`, `show` and `check`, and others
below.

## Completion

`cmbench --install-completion` sets up completion in your shell (bash, zsh, fish, PowerShell): of commands
and options, suites, models, data sets, extractors, metrics, assets, engines, kinds, formats and results folders, your own
plugins among them; `cmbench --show-completion` prints the script instead.
"""


def cli_reference() -> str:
    """The page, from every command's help, arguments and options."""
    return _INTRO + "".join(_section("cmbench", get_command(app)))


def _section(path: str, command: Any) -> list[str]:
    inner = getattr(command, "commands", None)
    if inner:
        return [part for name in sorted(inner) for part in _section(f"{path} {name}", inner[name])]
    lines = [f"\n## {path}\n\n{(command.help or '').strip()}\n"]
    rows = [row for row in map(_row, command.params) if row]
    if rows:
        lines.append("\n| | what it is | default |\n|---|---|---|\n" + "".join(rows))
    examples = EXAMPLES.get(path.partition(" ")[2], ())
    if examples:
        lines.append("\n```\n" + "\n".join(examples) + "\n```\n")
    return lines


def _row(parameter: Any) -> str:
    if parameter.name in ("help", "install_completion", "show_completion"):
        return ""
    is_option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if is_option else [parameter.name.upper()]
    shown = ", ".join(f"`{name}`" for name in names)
    default = parameter.default
    plain = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    value = f"`{default}`" if plain and str(default) else ""
    required = "required" if parameter.required else value
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| {shown} | {text} | {required} |\n"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(cli_reference(), "utf-8")
