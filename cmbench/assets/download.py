"""Fetching assets: resumed where a download broke off, checked, and put in place whole.

<cache>/assets/<file>            the verified file
<cache>/assets/<file>.part       a download in progress
<cache>/assets/<file>.sha256     its checksum, published or recorded at the first fetch
"""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cmbench.assets.catalogue import Asset, find_asset
from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import write_text
from cmbench.core.paths import cache_folder

__all__ = ["asset_path", "fetch", "is_offline", "verify"]

Progress = Callable[[int, int | None], None]
_CHUNK = 1 << 20


def asset_path(name: str) -> Path:
    """The local file of an asset.

    Raises:
        Pending: If it has not been fetched, with the command that does.
        UserError: If no asset has that name.
    """
    path = _folder() / find_asset(name).file
    asset = find_asset(name)
    if not path.is_file() and asset.url is None:
        raise Pending(
            f"asset {name} is not here, and no program can fetch it: {asset.how}",
            command=f"cmbench assets add {name} FILE",
        )
    if not path.is_file():
        raise Pending(f"asset {name} is not here", command=f"cmbench assets fetch {name}")
    return path


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> Path:
    """Brings an asset, going on from where an earlier attempt broke off.

    Args:
        name: Name in the catalogue.
        mirror: Base URL (or folder) that serves files by their names; `CMBENCH_MIRROR` otherwise.
        progress: Called with bytes here and bytes in all (None if the server doesn't say).
        timeout: Seconds without data after which a server counts as silent.

    Raises:
        Pending: If `CMBENCH_OFFLINE` is set.
        UserError: If the server has no such file, breaks off, or the checksum is wrong.
    """
    asset = find_asset(name)
    path = _folder() / asset.file
    if path.is_file():
        verify(name)
        return path
    if is_offline():
        raise Pending(
            f"asset {name} is not here and CMBENCH_OFFLINE is set",
            command=f"CMBENCH_OFFLINE= cmbench assets fetch {name}",
        )
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    _download(_url(asset, mirror), part, progress, timeout, name)
    _check(asset, part, name)
    write_text(path.with_name(path.name + ".sha256"), file_sha256(part) + "\n")
    part.replace(path)
    return path


def verify(name: str) -> str:
    """Checks a fetched asset against its published or recorded checksum, which is returned.

    Raises:
        Pending: If it has not been fetched.
        UserError: If it is not the file that it was.
    """
    asset, path = find_asset(name), asset_path(name)
    _check(asset, path, name)
    found, recorded = file_sha256(path), path.with_name(path.name + ".sha256")
    if recorded.is_file() and recorded.read_text("utf-8").strip() != found:
        raise UserError(
            f"asset {name} ({path}) has changed since it was fetched",
            fix=f"delete it, then: cmbench assets fetch {name}",
        )
    return found


def is_offline() -> bool:
    """Whether `CMBENCH_OFFLINE` forbids downloads."""
    return os.environ.get("CMBENCH_OFFLINE", "") not in ("", "0")


def _folder() -> Path:
    return cache_folder() / "assets"


def _url(asset: Asset, mirror: str | None) -> str:
    base = mirror or os.environ.get("CMBENCH_MIRROR")
    if not base:
        return asset.url or ""
    if "://" not in base:
        base = Path(base).expanduser().resolve().as_uri()
    return f"{base.rstrip('/')}/{asset.file}"


def _download(url: str, part: Path, progress: Progress | None, timeout: float, name: str) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url)
    if have and not url.startswith("file:"):
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            resumed = getattr(answer, "status", None) == 206
            length = answer.headers.get("Content-Length")
            total = int(length) + (have if resumed else 0) if length else None
            _room_for(part, total, have)
            _receive(answer, part, have if resumed else 0, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return
        raise UserError(
            f"{url} answered {error.code} {error.reason}",
            fix=f"give another place: cmbench assets fetch {name} --mirror URL",
        ) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url} can't be reached: {reason}",
            fix="run the same command again to go on, or use --mirror URL",
        ) from None


def _receive(
    answer: object, part: Path, have: int, total: int | None, progress: Progress | None
) -> None:
    with part.open("ab" if have else "wb") as file:
        while block := answer.read(_CHUNK):  # type: ignore[attr-defined]
            file.write(block)
            have += len(block)
            if progress:
                progress(have, total)
    if total is not None and have < total:
        raise UserError(
            f"the download broke off after {have:,} of {total:,} bytes",
            fix="run the same command again to go on from there",
        )


def _room_for(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise UserError(
            f"{part.parent} has {free:,} bytes free, {total - have:,} are needed",
            fix="free some space, or set CMBENCH_CACHE",
        )


def _check(asset: Asset, path: Path, name: str) -> None:
    found = file_sha256(path)
    wrong = (asset.sha256 and found != asset.sha256) or (
        asset.sha256_prefix and not found.startswith(asset.sha256_prefix)
    )
    if wrong:
        stated = asset.sha256 or asset.sha256_prefix
        path.unlink()
        raise UserError(
            f"{path.name} has SHA-256 {found[:16]}, stated {str(stated)[:16]}; it was removed",
            fix=f"cmbench assets fetch {name}",
        )
