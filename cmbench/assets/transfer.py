"""Downloads one file over HTTP(S), or copies it from a path.

It resumes an interrupted download (RFC 9110: Range, If-Range), retries with exponential backoff,
and gives up after a number of attempts in a row without new data.
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
    """Says that an attempt failed for a temporary reason.

    Args:
        what: The reason, by which faults are counted.
        wait: Seconds that the server asks to wait.
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
    """Downloads `url` to `part`, complete by the length that the server states.

    Args:
        url: https, http or file.
        part: The partial file, kept when an attempt fails.
        patience: Retries and timeouts.
        progress: Called with the bytes here and the total (None if the server doesn't state it).
        other_place: Advice for the user if the server has no such file.
        size: Size of the file in bytes, if known: a file of another size is refused.

    Raises:
        UserError: If the download fails, with the attempts.
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
            # Only new bytes count as progress: a server may start over each time.
            failed = 1 if _length(part) > furthest else failed + 1
            furthest = max(furthest, _length(part))
            if failed >= patience.attempts:
                raise _given_up(url, part, faults, time.monotonic() - started) from None
            time.sleep(max(patience.wait(failed), min(fault.wait, patience.longest_wait)))


def copy_file(
    source: Path, target: Path, progress: Progress | None = None, *, size: int | None = None
) -> None:
    """Copies a local file, after checking the free space.

    Raises:
        UserError: If it is not a regular file, can't be read, is empty or has another size than
            stated, or if the disk is full.
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
        raise _write_error(error, target) from error


def _read_local(file: BinaryIO, source: Path, most: int) -> bytes:
    try:
        return file.read(most)
    except OSError as error:
        raise UserError(f"{source} can't be read: {error.strerror or error}") from None


def leave_room(target: Path, needed: int) -> None:
    """Checks that the disk of `target` has `needed` bytes free.

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
    """Returns the file next to a partial download that states its URL and version."""
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
            have = have if _resumes(answer, have) else 0
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
        raise _write_error(error, part) from error
    except ValueError as error:
        raise UserError(f"{url} sent an invalid HTTP answer: {error}", fix=other_place) from None


def _refuse_size(what: str, length: int, stated: int | None) -> None:
    if stated is not None and length != stated:
        raise UserError(
            f"{what} has {length:,} bytes, {stated:,} are stated",
            expected="the file that the catalogue names",
        )


def _receive(
    read: Callable[[int], bytes], part: Path, have: int, total: int | None, progress: Any
) -> None:
    with part.open("ab" if have else "wb") as file:
        while block := _read(read, file):
            if total is not None and have + len(block) > total:
                forget(part)
                raise UserError(
                    f"the server sent more than the {total:,} bytes stated for {part.stem}",
                    expected="the file that the catalogue names",
                )
            file.write(block)
            # Written to disk before the next read, so that a kill loses nothing.
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


def _resumes(answer: Any, have: int) -> bool:
    """Tests whether the answer is the rest from `have` on, not the complete file.

    Raises:
        _PassingError: If it is another range.
    """
    if answer.status != 206:
        return False
    content_range = answer.headers.get("Content-Range", "")
    if content_range.startswith("bytes ") and not content_range.startswith(f"bytes {have}-"):
        raise _PassingError(f"sent another range ({content_range[:60]!r})")
    return True


def _refuse_page(answer: Any, url: str) -> None:
    if answer.headers.get_content_type() == "text/html" and not url.endswith((".html", ".htm")):
        raise UserError(
            f"{url} answered with a web page, not with a file",
            expected="the file itself: the page may be a login, a proxy or a consent form",
            fix="open it in a browser, then: cmbench assets add NAME FILE",
        )


def _refused(
    error: urllib.error.HTTPError, url: str, part: Path, have: int, other_place: str
) -> None:
    """Raises the error of an HTTP status; returns if the complete file is already here."""
    if error.code == 416 and have:
        length = whole_number(error.headers.get("Content-Range", "").rpartition("/")[2])
        if length is None or length == have:
            return
        forget(part)
        raise _PassingError("the partial file here belongs to another file")
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
        fix="run the same command again to resume, or use --mirror URL",
    ) from None


def forget(part: Path) -> None:
    """Removes a partial download and its origin file."""
    for file in (part, origin_file(part)):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def _given_up(url: str, part: Path, faults: Counter[str], seconds: float) -> UserError:
    tried = ", ".join(f"{what} ({n} times)" if n > 1 else what for what, n in faults.items())
    return UserError(
        f"{url} could not be downloaded in {sum(faults.values())} attempts over {seconds:.0f} s: "
        f"{tried}; {_length(part):,} bytes are kept",
        fix="run the same command again to resume, or use --mirror URL",
    )


def _write_error(error: OSError, part: Path) -> UserError:
    kept = f"; {_length(part):,} bytes are kept, run the same command again to resume"
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
    # Weak tags don't guarantee equal bytes, so they must not be used in If-Range.
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    origin_file(part).write_text(json.dumps({"url": url, "version": version}), "utf-8")


def _version(part: Path, url: str) -> str:
    """Returns the version (ETag or date) of the partial file, if it comes from the same URL."""
    try:
        origin = json.loads(origin_file(part).read_text("utf-8"))
        return str(origin["version"]) if origin["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
