"""Where the files of a data set are looked for."""

import os
from pathlib import Path

from cmbench.core.errors import Pending, UserError

__all__ = ["locate"]


def locate(name: str, given: Path | None, usual: tuple[str, ...], *, command: str) -> Path:
    """The path given, or the first usual name found under `CMBENCH_DATA` or ./data.

    Raises:
        UserError: If the path given does not exist.
        Pending: If nothing is found, with the command that brings the data.
    """
    if given is not None:
        if not given.exists():
            raise UserError(f"data set {name}: {given} does not exist")
        return given
    folders = [Path(os.environ["CMBENCH_DATA"])] if os.environ.get("CMBENCH_DATA") else []
    for folder in (*folders, Path("data")):
        for item in usual:
            if (folder / item).exists():
                return folder / item
    raise Pending(f"data set {name} is not on this machine", command=command)
