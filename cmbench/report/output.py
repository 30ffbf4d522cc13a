"""Writing and reading inside a report's folder: no link leads either out of it."""

import stat
from pathlib import Path

from cmbench.core.errors import UserError

__all__ = ["inside", "is_own", "read_own"]

_MOST_BYTES = 16_000_000
"""The largest text file of a results folder that is read."""


def inside(folder: Path, name: str) -> Path:
    """The path of a file to write in `folder`; folders on the way to it must be its own.

    Raises:
        UserError: If one of them is a link or no folder.
    """
    path = folder / name
    for parent in list(path.relative_to(folder).parents)[:-1]:
        place = folder / parent
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UserError(
                f"{place} is a link or no folder: the report is not written through it",
                fix=f"rm {place}",
            )
    return path


def is_own(path: Path) -> bool:
    """Returns whether `path` is a regular file and no link, which may lead to private files."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def read_own(path: Path) -> str:
    """The text of a file of the folder; empty if there is none that `is_own`, or it is no text."""
    if not is_own(path) or path.stat().st_size > _MOST_BYTES:
        return ""
    return path.read_bytes().decode("utf-8", errors="replace")
