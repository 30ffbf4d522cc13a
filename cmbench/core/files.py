"""Files written whole or not at all: temporary name, fsync, rename."""

import contextlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["atomic_file", "fsync_folder", "sweep", "write_bytes", "write_json", "write_text"]

_OWNER = re.compile(r"\.(?P<pid>\d+)@(?P<host>.+)\.[^.]+\.tmp$")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an error.

    Raises:
        OSError: As the file system says (no space, read-only, no permission); nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{os.getpid()}@{socket.gethostname()}"
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.{owner}.", suffix=".tmp"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def sweep(folder: Path) -> None:
    """Removes what processes of this machine that were killed had not written whole."""
    for file in folder.glob(".*.tmp"):
        owner = _OWNER.search(file.name)
        if owner and owner["host"] == socket.gethostname() and not _lives(int(owner["pid"])):
            file.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON (sorted keys, two spaces) to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def fsync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, where the system allows to sync a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
