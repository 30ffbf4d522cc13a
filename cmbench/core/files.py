"""Files written whole or not at all: temporary name, fsync, rename."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cmbench.core.errors import UserError, disk_error

__all__ = [
    "atomic_file",
    "fsync_folder",
    "refuse_unwritable",
    "sweep",
    "temporary_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

_OWNER = re.compile(r"\.(?P<pid>\d+)@(?P<host>.+)\.[^.]+\.tmp$")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an error.

    Raises:
        OSError: As the file system says (no space, read-only, no permission); nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path.name), suffix=".tmp")
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


def temporary_folder(place: Path, name: str) -> Path:
    """Makes a folder in `place` whose name says who owns it, so that `sweep` knows a dead one's.

    Raises:
        OSError: As the file system says.
    """
    return Path(tempfile.mkdtemp(dir=place, prefix=_prefix(name), suffix=".tmp"))


def refuse_unwritable(path: Path, *, folder: bool = False) -> None:
    """Refuses, before a long computation, a path that its result could not be written to.

    Args:
        path: The file that will be written; the folder it lies in is made.
        folder: Whether `path` itself is to be a folder.

    Raises:
        UserError: If it is a folder where a file is wanted, or the other way round, or if the
            file system refuses it.
    """
    try:
        place = path if folder else path.parent
        place.mkdir(parents=True, exist_ok=True)
        if not folder and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise disk_error(error, place=str(path)) or UserError(
            f"{path} can't be written: {error.strerror or error}"
        ) from None


def sweep(folder: Path) -> None:
    """Removes what killed processes of this machine left half-written: files and folders.

    Where the folder can't be read or written, nothing is removed.
    """
    for path in folder.glob(".*.tmp"):
        owner = _OWNER.search(path.name)
        if owner and owner["host"] == socket.gethostname() and not _lives(int(owner["pid"])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


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


def _prefix(name: str) -> str:
    """`.name.PID@HOST.`, the name cut so that the whole is no longer than a file system takes."""
    short = name.encode()[:100].decode(errors="ignore")
    return f".{short}.{os.getpid()}@{socket.gethostname()}."


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
