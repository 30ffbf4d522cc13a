"""Files written atomically (temporary name, fsync, rename), and read with care.

Whoever reads a file that cmbench did not write opens it by `regular_file` or `read_regular`, and
parses it inside `parsing`, so that every fault of it is a UserError with its path.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cmbench.core.errors import CmbenchError, UserError, disk_error

__all__ = [
    "atomic_file",
    "fsync_folder",
    "new_file",
    "parsing",
    "read_regular",
    "refuse_unwritable",
    "regular_file",
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


def refuse_unwritable(path: Path, *, folder: bool = False, then: str = "") -> None:
    """Refuses, before a long computation, a path that its result could not be written to.

    Args:
        path: The file that will be written; its folder is created if it is missing.
        folder: Whether `path` itself is to be a folder.
        then: What to do after the fix, such as the option that names another path.

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
        raise disk_error(error, place=str(path), then=then) or UserError(
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


def regular_file(path: Path, kind: str = "file") -> Path:
    """Returns `path` if it is a regular file, or a link to one.

    A FIFO or a device would be waited for, or read, without end.

    Args:
        path: The file.
        kind: The word for it in the error: `weights file`.

    Raises:
        UserError: If it is missing, a folder, a FIFO, a socket or a device, or if its name leads
            nowhere (a dangling link, links in a circle, a name too long).
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if path.is_symlink():
            target = os.readlink(path)
            raise UserError(f"{kind} {path} is a link to {target}, which does not exist") from None
        raise UserError(f"{kind} {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{kind} {_printable(path)} can't be opened: {_reason(error)}") from None
    if not stat.S_ISREG(mode):
        known = [name for test, name in _KINDS if test(mode)]
        raise UserError(
            f"{path} is {known[0] if known else 'no regular file'}", expected=f"a {kind}"
        )
    return path


def read_regular(path: Path, kind: str = "file") -> bytes:
    """Reads a regular file, and of it no more bytes than its size says.

    Raises:
        UserError: As `regular_file`, or if it can't be read.
    """
    regular_file(path, kind)
    try:
        with path.open("rb") as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise UserError(f"{kind} {path} can't be read: {_reason(error)}") from None
    except MemoryError:
        raise UserError(f"{kind} {path} is larger than this machine's memory") from None


@contextlib.contextmanager
def parsing(
    path: Path, form: str, *, fix: str = "replace it with an intact copy"
) -> Iterator[None]:
    """Turns whatever a parser raises over the bytes of `path` into a UserError with the path.

    Libraries raise more kinds of exceptions for broken files than any list of them has, so that
    all are taken, but for an interrupt.

    Args:
        path: The file.
        form: What it should have been: `a torch checkpoint`.
        fix: What to do.

    Raises:
        UserError: In place of any exception.
    """
    try:
        yield
    except UserError as error:
        mistaken = _mistaken(path)
        if mistaken is not None:
            raise mistaken from None
        placed = error.where or str(path) in error.what
        raise (error if placed else error.at(str(path))) from None
    except CmbenchError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} asks for more memory than this machine has") from error
    except Exception as error:
        raise (
            _mistaken(path)
            or UserError(
                f"the file is truncated or not {form} ({type(error).__name__}: {_reason(error)})",
                where=str(path),
                fix=fix,
            )
        ) from error


def new_file(path: Path, *, overwrite: bool) -> Path:
    """Returns `path` if it can be written and nothing is lost by that.

    Raises:
        UserError: If a file is there and `overwrite` is false, or a folder is, or if the file
            system refuses the path.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder", expected="the name of a file to write")
    if not overwrite and os.path.lexists(path):
        raise UserError(f"{path} exists already", fix="give another name, or --overwrite")
    refuse_unwritable(path)
    return path


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _mistaken(path: Path) -> UserError | None:
    """The error for a file that is known to be saved in place of what was wanted."""
    try:
        with path.open("rb") as file:
            head = file.read(64).lstrip().lower()
    except OSError:
        return None
    if head.startswith((b"<!doctype", b"<html")):
        return UserError(
            f"{path} is a web page that was saved in place of the file",
            fix="download it again, from the link to the raw file",
        )
    if head.startswith(b"version https://git-lfs"):
        return UserError(f"{path} is a pointer of Git LFS, not the file", fix="git lfs pull")
    return None


def _reason(error: BaseException) -> str:
    """The first words of an error, printable: a parser may repeat a part of the file."""
    told = (isinstance(error, OSError) and error.strerror) or str(error)
    return _printable(" ".join(str(told).split())[:200])


def _printable(text: object) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def _prefix(name: str) -> str:
    """`.name.PID@HOST.`, the name cut so that no file system refuses the result as too long."""
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
