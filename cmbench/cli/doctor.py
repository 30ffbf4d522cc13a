"""`cmbench doctor`: what works on this machine, and what to install for the rest."""

from typing import Annotated

import typer
from rich.console import Console

from cmbench.cli.options import AsJson, print_json

__all__ = ["doctor"]


def doctor(
    network: Annotated[bool, typer.Option(help="Contact the hosts of official weights.")] = True,
    as_json: AsJson = False,
) -> None:
    """Lists what works on this machine, what doesn't, and how to install or download the rest."""
    from cmbench.doctor import examine

    console = Console()
    checks = []
    for check in examine(network=network):
        checks.append(vars(check))
        if not as_json:
            console.print(f"{check.state:8}{check.subject}: {check.detail}", markup=False,
                          highlight=False, soft_wrap=True)  # fmt: skip
            if check.fix:
                console.print(f"{'':8}  fix: {check.fix}", markup=False,
                              highlight=False, soft_wrap=True)  # fmt: skip
    if as_json:
        print_json(checks)
    if any(check["state"] == "wrong" for check in checks):
        raise typer.Exit(1)
