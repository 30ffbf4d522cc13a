"""Paths as users write them, and where cmbench keeps what is large and can be made again."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from cmbench.core.errors import UserError, brief

__all__ = ["cache_folder", "user_path"]


def cache_folder() -> Path:
    """The cache: `CMBENCH_CACHE`, or the user's cache folder of this system.

    Nothing in it is a result: it may be deleted at any time.

    Raises:
        UserError: If it is a URL.
    """
    given = os.environ.get("CMBENCH_CACHE")
    if given and "://" in given:
        raise UserError(
            f"CMBENCH_CACHE={given} is a URL",
            expected="a folder of this machine",
            fix=f"CMBENCH_STORE={given} shares what is in that folder through object storage",
        )
    return user_path(given) if given else user_cache_path("cmbench")


def user_path(text: str | Path, *, where: str = "") -> Path:
    """A path as a user wrote it, `~` and `~name` expanded.

    Raises:
        UserError: If it names a user that there is not, or is too long for a file system.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        user = str(text).partition("/")[0]
        raise UserError(f"{brief(str(text))}: no home folder of {user}", where=where) from None
    parts = [part.encode("utf-8", "surrogateescape") for part in path.parts]
    if any(len(part) > 255 or b"\0" in part for part in parts) or sum(map(len, parts)) > 4000:
        raise UserError(
            f"{brief(str(text))} is no path", where=where, expected="names of at most 255 bytes"
        )
    return path
