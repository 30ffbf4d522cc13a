"""Fetching assets: one process at a time, resumed, tried again, checked, put in place whole.

<cache>/assets/<file>              the verified file
<cache>/assets/<file>.part         a download in progress, with `.part.json`, where it comes from
<cache>/assets/<file>.sha256       its checksum, published or recorded when it came
<cache>/leases/asset-<file>        which process is bringing it now
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cmbench.assets.catalogue import Asset, find_asset
from cmbench.assets.http_rules import checked_url
from cmbench.assets.patience import Patience
from cmbench.assets.transfer import Progress, copy_file, download, forget, leave_room
from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import fsync_folder, write_text
from cmbench.core.paths import cache_folder
from cmbench.store.store import Address, Store

__all__ = ["Patience", "add", "asset_path", "fetch", "is_offline", "lease_of", "verify"]


def asset_path(name: str) -> Path:
    """The local file of an asset.

    Raises:
        Pending: If it is not here, with the command that brings it.
        UserError: If no asset has that name.
    """
    asset = find_asset(name)
    path = _folder() / asset.file
    if path.is_file():
        return path
    if asset.url is None and not os.environ.get("CMBENCH_MIRROR"):
        raise _by_hand(name, asset)
    raise Pending(f"asset {name} is not here", command=f"cmbench assets fetch {name}")


def fetch(
    name: str,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
    waiting: Callable[[str], None] | None = None,
) -> Path:
    """Brings an asset, going on from where an earlier attempt broke off.

    Where another process brings the same asset, it is waited for; one that died is succeeded.

    Args:
        name: Name in the catalogue.
        mirror: Base URL (or folder) that serves files by their names; `CMBENCH_MIRROR` otherwise.
        progress: Called with bytes here and bytes in all (None if the server doesn't say).
        patience: How long a server is waited for.
        waiting: Called with the process that is waited for, if there is one.

    Raises:
        Pending: If `CMBENCH_OFFLINE` is set and a server would have to be asked, or if no
            program can fetch the file.
        UserError: If it can't be had (with what was tried), or is not the file that it should be.
    """
    asset = find_asset(name)
    path = _folder() / asset.file
    if path.is_file():
        verify(name)
        return path
    url = _url(name, asset, mirror)
    with lease_of(asset, waiting):
        # Another process may have brought it meanwhile.
        if not path.is_file():
            _bring(name, asset, url, path, progress, patience or Patience())
    return path


def add(name: str, source: Path, *, progress: Progress | None = None) -> Path:
    """Puts a file that a person brought in the place of an asset; the file itself stays.

    Raises:
        UserError: If it is not the file that the catalogue states, or another one is there.
    """
    asset = find_asset(name)
    path = _folder() / asset.file
    with lease_of(asset):
        if path.is_file():
            if source.is_file() and file_sha256(source) == file_sha256(path):
                return path
            raise UserError(f"asset {name} is there already: {path}", fix="remove that file first")
        part = path.with_name(path.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        forget(part)
        copy_file(source, part, progress, size=asset.bytes)
        _settle(name, asset, part, path, fix=f"bring the file that {name} stands for")
    return path


def verify(name: str) -> str:
    """Checks an asset against its published or recorded checksum, which is returned.

    Raises:
        Pending: If it is not here.
        UserError: If it is not the file that it was.
    """
    asset, path = find_asset(name), asset_path(name)
    found, recorded = file_sha256(path), path.with_name(path.name + ".sha256")
    _refuse_other(asset, path, found, fix=f"cmbench assets fetch {name}")
    if recorded.is_file() and recorded.read_text("utf-8").strip() != found:
        raise UserError(
            f"asset {name} ({path}) has changed since it was fetched",
            fix=f"delete it, then: cmbench assets fetch {name}",
        )
    return found


def is_offline() -> bool:
    """Whether `CMBENCH_OFFLINE` forbids to ask servers."""
    return os.environ.get("CMBENCH_OFFLINE", "") not in ("", "0")


def lease_of(
    asset: Asset, waiting: Callable[[str], None] | None = None
) -> AbstractContextManager[None]:
    """The right to write an asset's files, as a context; waits for a living owner.

    Raises:
        UserError: If the cache can't be written.
    """
    return Store(cache_folder()).lease(Address("asset", f"asset-{asset.file}"), waiting)


def _folder() -> Path:
    return cache_folder() / "assets"


def _url(name: str, asset: Asset, mirror: str | None) -> str:
    base = mirror or os.environ.get("CMBENCH_MIRROR")
    if not base and asset.url is None:
        raise _by_hand(name, asset)
    url = f"{_as_url(base)}/{asset.file}" if base else str(asset.url)
    if is_offline() and not url.startswith("file:"):
        raise Pending(
            f"asset {name} is not here and CMBENCH_OFFLINE is set",
            command=f"CMBENCH_OFFLINE= cmbench assets fetch {name}",
        )
    return url


def _as_url(base: str) -> str:
    if "://" not in base:
        folder = Path(base).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"the mirror {folder} is no folder", expected="a folder, or a URL")
        base = folder.as_uri()
    return checked_url(base).rstrip("/")


def _by_hand(name: str, asset: Asset) -> Pending:
    return Pending(
        f"asset {name} is not here, and no program can fetch it: {asset.how}",
        command=f"cmbench assets add {name} FILE",
    )


def _bring(
    name: str, asset: Asset, url: str, path: Path, progress: Progress | None, patience: Patience
) -> None:
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    if asset.bytes is not None:
        here = part.stat().st_size if part.is_file() else 0
        leave_room(part, max(0, asset.bytes - here))
    download(
        url,
        part,
        patience=patience,
        progress=progress,
        size=asset.bytes,
        other_place=f"give another place: cmbench assets fetch {name} --mirror URL",
    )
    _settle(name, asset, part, path, fix=f"cmbench assets fetch {name}")


def _settle(name: str, asset: Asset, part: Path, path: Path, *, fix: str) -> None:
    """Checks a whole download, records its checksum and puts it in place."""
    found, size = file_sha256(part), part.stat().st_size
    _refuse_other(asset, part, found, fix=fix)
    if asset.bytes is not None and size != asset.bytes:
        forget(part)
        raise UserError(
            f"{path.name} has {size:,} bytes, {asset.bytes:,} are stated; it was removed", fix=fix
        )
    write_text(path.with_name(path.name + ".sha256"), found + "\n")
    part.replace(path)
    forget(part)
    fsync_folder(path.parent)


def _refuse_other(asset: Asset, path: Path, found: str, *, fix: str) -> None:
    """Removes a file that has another checksum than is published."""
    stated = asset.sha256 or asset.sha256_prefix or ""
    if found.startswith(stated):
        return
    forget(path) if path.suffix == ".part" else path.unlink()
    raise UserError(
        f"{path.name} has SHA-256 {found[:16]}, stated {stated[:16]}; it was removed", fix=fix
    )
