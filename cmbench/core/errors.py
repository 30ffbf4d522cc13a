"""Errors that a user can fix, and how they are worded."""

import contextlib
import difflib
import errno
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "CmbenchError",
    "Interrupted",
    "Pending",
    "UserError",
    "brief",
    "disk_error",
    "nearest",
    "placing",
    "unknown_name",
]


class CmbenchError(Exception):
    """Base of every error that cmbench raises on purpose; shown without a traceback."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM: work stops where it can go on later. Not an Exception, so that nothing
    takes it for a fault of a job.
    """


class UserError(CmbenchError):
    """A mistake in what the user gave: a file, a key, a name, a value.

    Args:
        what: What is wrong, with the offending value.
        where: File, line and key, as `suites/x.yaml:12: runs[0].nfe`.
        expected: What is allowed there.
        fix: What to do next, as a command where there is one.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        parts = [f"{where}: {what}" if where else what]
        parts += [f"  expected: {expected}"] if expected else []
        parts += [f"  fix: {fix}"] if fix else []
        super().__init__("\n".join(parts))

    def at(self, where: str) -> "UserError":
        """The same error, placed: used by callers that know the file and the line."""
        return type(self)(self.what, where=where, expected=self.expected, fix=self.fix)


@contextlib.contextmanager
def placing(where: str) -> Iterator[None]:
    """Gives a place to the errors of users that are raised inside without one."""
    try:
        yield
    except UserError as error:
        if error.where:
            raise
        raise error.at(where) from None


class Pending(CmbenchError):
    """Something needed can't be had now (no network, no data): the cell waits, the rest runs.

    Args:
        reason: What is missing.
        command: The command, or URL, that brings it.
    """

    def __init__(self, reason: str, *, command: str) -> None:
        self.reason, self.command = reason, command
        super().__init__(f"{reason}\n  bring it with: {command}")


_DISK = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is spent", "free some space"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: ("no permission", "choose another folder"),
    errno.EPERM: ("no permission", "choose another folder"),
    errno.EISDIR: ("this is a folder, where a file is needed", "name a file"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EEXIST: ("this is a file, where a folder is needed", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("links lead in a circle", "remove the links"),
    errno.EIO: ("the disk can't be read or written", "check the disk"),
    errno.EFBIG: ("the file system takes no file so large", "choose another folder"),
    errno.EMFILE: ("too many files are open", "raise the limit with `ulimit -n`"),
    errno.ESTALE: ("the network file system lost it", "mount it again"),
}


def disk_error(error: OSError, *, place: str = "", then: str = "") -> UserError | None:
    """What a full, read-only or closed disk, or an impossible path, is told as; else None.

    Args:
        error: What the system raised.
        place: Where it was writing, for the errors that don't name a file.
        then: What to do after the fix.
    """
    if error.errno not in _DISK:
        return None
    what, fix = _DISK[error.errno]
    name = error.filename or place
    return UserError(f"{what}: {name}" if name else what, fix=fix + then)


def brief(value: Any) -> str:
    """Returns the value as Python writes it, cut to a line; safe for values of any size."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = shown.maxlong = 80
    try:
        return shown.repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return f"a {type(value).__name__}"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name most like `name`, or an empty string when none is near."""
    found = difflib.get_close_matches(name[:100], list(allowed), n=1, cutoff=0.5)
    return found[0] if found else ""


def unknown_name(
    kind: str, name: str, allowed: Iterable[str], *, where: str = "", meant: str = ""
) -> UserError:
    """The error for a name that nobody has, naming the nearest (or `meant`) and all there are."""
    choices = sorted(allowed)
    near = meant or nearest(name, choices)
    hint = f" Did you mean '{near}'?" if near else ""
    return UserError(
        f"no {kind} named {brief(name)}.{hint}",
        where=where,
        expected=f"one of: {', '.join(choices) or '(none found)'}",
    )
