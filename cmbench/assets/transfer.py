"""One file over HTTP(S), or from a path, into a file of this machine.

It goes on where an earlier attempt broke off (RFC 9110: Range, If-Range), tries again with waits
that double, and gives up after so many attempts in a row that brought nothing.
"""

import contextlib
import errno
import http.client
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from cmbench.assets.http_rules import checked_url, status_words, url_opener, whole_number
from cmbench.assets.patience import Patience
from cmbench.core.errors import UserError, disk_error
from cmbench.core.files import regular_file

__all__ = [
    "Progress",
    "copy_file",
    "download",
    "leave_room",
    "origin_file",
]

Progress = Callable[[int, int | None], None]
_CHUNK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class _PassingError(Exception):
    """A fault that may be gone at the next attempt.

    Args:
        what: In a few words, to be counted.
        wait: Seconds that the server asks for.
    """

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.what, self.wait = what, wait


def download(
    url: str,
    part: Path,
    *,
    patience: Patience,
    progress: Progress | None,
    other_place: str,
    size: int | None = None,
) -> None:
    """Brings `url` to `part`, whole by what the server says.

    Args:
        url: https, http or file.
        part: Where it grows; kept when an attempt breaks off.
        patience: How long to try.
        progress: Called with bytes here and bytes in all (None if the server doesn't say).
        other_place: What to do if the server has no such file.
        size: Bytes of the file, where they are known: nothing longer or shorter is taken.

    Raises:
        UserError: If it can't be had, with what was tried.
    """
    url = checked_url(url)
    if url.startswith("file:"):
        copy_file(Path(unquote(urlsplit(url).path)), part, progress, size=size)
        return
    if size is not None and _length(part) > size:
        forget(part)
    started, failed, faults = time.monotonic(), 0, Counter[str]()
    furthest = _length(part)
    while True:
        try:
            _attempt(url, part, patience.timeout, progress, other_place, size)
            return
        except _PassingError as fault:
            faults[fault.what] += 1
            # Only new ground counts: a server that starts over each time would keep us for ever.
            failed = 1 if _length(part) > furthest else failed + 1
            furthest = max(furthest, _length(part))
            if failed >= patience.attempts:
                raise _given_up(url, part, faults, time.monotonic() - started) from None
            time.sleep(max(patience.wait(failed), min(fault.wait, patience.longest_wait)))


def copy_file(
    source: Path, target: Path, progress: Progress | None = None, *, size: int | None = None
) -> None:
    """Copies a file of this machine, after a look at the room that is left.

    Raises:
        UserError: If it is no regular file, can't be read, is empty or not of the size stated, or
            if the disk is full.
    """
    regular_file(source)
    try:
        with source.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            if not total:
                raise UserError(f"{source} is empty", expected="the file itself")
            _refuse_size(str(source), total, size)
            leave_room(target, total)
            _receive(lambda most: _read_local(file, source, most), target, 0, total, progress)
    except OSError as error:
        raise _told(error, target) from error


def _read_local(file: BinaryIO, source: Path, most: int) -> bytes:
    try:
        return file.read(most)
    except OSError as error:
        raise UserError(f"{source} can't be read: {error.strerror or error}") from None


def leave_room(target: Path, needed: int) -> None:
    """Refuses what the disk of `target` has no room for.

    Raises:
        UserError: With the bytes needed and those free.
    """
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise UserError(
            f"{target.parent} has {free:,} bytes free, {needed:,} are needed",
            fix="free some space (cmbench assets prune), or set CMBENCH_CACHE",
        )


def origin_file(part: Path) -> Path:
    """Beside a download in progress: which URL it comes from, and in which version."""
    return part.with_name(part.name + ".json")


def _attempt(
    url: str,
    part: Path,
    timeout: float,
    progress: Progress | None,
    other_place: str,
    size: int | None,
) -> None:
    have, version = _length(part), _version(part, url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if version:
            request.add_header("If-Range", version)
    try:
        with url_opener().open(request, timeout=timeout) as answer:
            _refuse_page(answer, url)
            have = have if _goes_on(answer, have) else 0
            length = whole_number(answer.headers.get("Content-Length", ""))
            total = size if length is None else length + have
            if total is not None:
                _refuse_size(url, total, size)
                leave_room(part, total - have)
            _remember(part, url, answer)
            _receive(answer.read1, part, have, total, progress)
    except urllib.error.HTTPError as error:
        _refused(error, url, part, have, other_place)
    except http.client.HTTPException as error:
        raise _PassingError(f"a broken answer ({type(error).__name__})") from None
    except urllib.error.URLError as error:
        _unreachable(error.reason, url)
    except OSError as error:
        if disk_error(error) is None:
            raise _PassingError(_word(error)) from None
        raise _told(error, part) from error
    except ValueError as error:
        raise UserError(f"{url} answered with what is no HTTP: {error}", fix=other_place) from None


def _refuse_size(what: str, found: int, stated: int | None) -> None:
    if stated is not None and found != stated:
        raise UserError(
            f"{what} has {found:,} bytes, {stated:,} are stated",
            expected="the file that the catalogue means",
        )


def _receive(
    read: Callable[[int], bytes], part: Path, have: int, total: int | None, progress: Any
) -> None:
    with part.open("ab" if have else "wb") as file:
        while block := _read(read, file):
            if total is not None and have + len(block) > total:
                forget(part)
                raise UserError(
                    f"more than the {total:,} bytes stated came for {part.stem}",
                    expected="the file that the catalogue means",
                )
            file.write(block)
            # What came is on the disk before more is asked for: a kill loses nothing of it.
            file.flush()
            have += len(block)
            if progress:
                progress(have, total)
        os.fsync(file.fileno())
    if total is not None and have < total:
        raise _PassingError("broke off")


def _read(read: Callable[[int], bytes], file: BinaryIO) -> bytes:
    try:
        return read(_CHUNK)
    except http.client.IncompleteRead as error:
        file.write(error.partial)
        raise _PassingError("broke off") from None


def _goes_on(answer: Any, have: int) -> bool:
    """Whether the answer is the rest from `have` on, not the whole anew.

    Raises:
        _PassingError: If it is some other part.
    """
    if answer.status != 206:
        return False
    told = answer.headers.get("Content-Range", "")
    if told.startswith("bytes ") and not told.startswith(f"bytes {have}-"):
        raise _PassingError(f"sent another range ({told[:60]!r})")
    return True


def _refuse_page(answer: Any, url: str) -> None:
    if answer.headers.get_content_type() == "text/html" and not url.endswith((".html", ".htm")):
        raise UserError(
            f"{url} answered with a web page, not with a file",
            expected="the file itself: a login, a proxy or a consent page stands before it",
            fix="open it in a browser, then: cmbench assets add NAME FILE",
        )


def _refused(
    error: urllib.error.HTTPError, url: str, part: Path, have: int, other_place: str
) -> None:
    """Tells of an HTTP error status; returns if the whole file turns out to be here."""
    if error.code == 416 and have:
        whole = whole_number(error.headers.get("Content-Range", "").rpartition("/")[2])
        if whole is None or whole == have:
            return
        forget(part)
        raise _PassingError("the part here is of another file")
    if error.code in _PASSING:
        asked = whole_number(error.headers.get("Retry-After", ""))
        raise _PassingError(f"HTTP {status_words(error.code)}", float(asked or 0))
    raise UserError(f"{url} answered {status_words(error.code)}", fix=other_place)


def _unreachable(reason: object, url: str) -> None:
    again = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_AGAIN
    if isinstance(reason, _BROKEN) or again:
        raise _PassingError(_word(reason)) from None
    raise UserError(
        f"{url} can't be reached: {getattr(reason, 'strerror', None) or reason}",
        fix="run the same command again to go on, or use --mirror URL",
    ) from None


def forget(part: Path) -> None:
    """Removes a download in progress and what is known of it."""
    for file in (part, origin_file(part)):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def _given_up(url: str, part: Path, faults: Counter[str], seconds: float) -> UserError:
    tried = ", ".join(f"{what} ({n} times)" if n > 1 else what for what, n in faults.items())
    return UserError(
        f"{url} could not be brought in {sum(faults.values())} attempts over {seconds:.0f} s: "
        f"{tried}; {_length(part):,} bytes are kept",
        fix="run the same command again to go on from there, or use --mirror URL",
    )


def _told(error: OSError, part: Path) -> UserError:
    kept = f"; {_length(part):,} bytes are kept, run the same command again to go on"
    place = str(part)
    other = UserError(f"{place} can't be written: {error.strerror or error}{kept}")
    return disk_error(error, place=place, then=kept) or other


def _word(fault: object) -> str:
    if isinstance(fault, TimeoutError):
        return "timed out"
    if isinstance(fault, OSError) and fault.errno in (errno.ECONNRESET, errno.EPIPE):
        return "connection reset"
    return str(fault) or type(fault).__name__


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _remember(part: Path, url: str, answer: Any) -> None:
    tag = answer.headers.get("ETag", "")
    # Weak tags don't promise equal bytes, so that If-Range may not be asked with them.
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    origin_file(part).write_text(json.dumps({"url": url, "version": version}), "utf-8")


def _version(part: Path, url: str) -> str:
    """The version that the part here is of, as the same URL told it."""
    try:
        told = json.loads(origin_file(part).read_text("utf-8"))
        return str(told["version"]) if told["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
