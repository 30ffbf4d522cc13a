"""Downloads assets: one process at a time, with resume and retries, verified, moved atomically.

<cache>/assets/<file>              the verified file
<cache>/assets/<file>.part         a download in progress; `.part.json` states its origin
<cache>/assets/<file>.sha256       its checksum, published or recorded at the first download
<cache>/leases/asset-<file>        the process that downloads it now
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cmbench.assets.catalogue import Asset, find_asset
from cmbench.assets.http_rules import checked_url
from cmbench.assets.patience import Patience
from cmbench.assets.transfer import Progress, copy_file, download, forget, leave_room
from cmbench.core.digests import file_sha256, text_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import fsync_folder, write_text
from cmbench.core.paths import cache_folder, user_path
from cmbench.store.store import Address, Store

__all__ = ["Patience", "add", "asset_path", "fetch", "is_offline", "lease_of", "verify"]


def asset_path(name: str) -> Path:
    """Returns the path of an asset in the cache.

    Raises:
        Pending: If it is not here, with the command that downloads it.
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
    """Downloads an asset, resuming an interrupted download.

    If another process downloads the same asset, it waits for that process, or takes over if the
    process died.

    Args:
        name: Name in the catalogue.
        mirror: Base URL (or folder) that serves files by their names; default: `CMBENCH_MIRROR`.
        progress: Called with the bytes here and the total (None if the server doesn't state it).
        patience: Numbers of retries and timeouts.
        waiting: Called with the owner of the lease, if another process holds it.

    Raises:
        Pending: If `CMBENCH_OFFLINE` is set and the file is on a server, or if it must be
            downloaded by hand.
        UserError: If the download fails (with the attempts), or the file fails verification.
    """
    asset = find_asset(name)
    path = _folder() / asset.file
    if path.is_file():
        verify(name)
        return path
    url = _url(name, asset, mirror)
    with lease_of(asset, waiting):
        # Another process may have downloaded it in the meantime.
        if not path.is_file():
            _download(name, asset, url, path, progress, patience or Patience())
    return path


def add(name: str, source: Path, *, progress: Progress | None = None) -> Path:
    """Copies a file that was downloaded by hand into the place of an asset.

    Raises:
        UserError: If it is not the file of the catalogue, or the asset already exists.
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
        _settle(name, asset, part, path, fix=f"download the file that {name} names")
    return path


def verify(name: str) -> str:
    """Verifies an asset against its published or recorded checksum; returns the checksum.

    Raises:
        Pending: If it is not here.
        UserError: If the file has changed.
    """
    asset, path = find_asset(name), asset_path(name)
    digest, recorded = file_sha256(path), path.with_name(path.name + ".sha256")
    _refuse_other(asset, path, digest, fix=f"cmbench assets fetch {name}")
    if recorded.is_file() and recorded.read_text("utf-8").strip() != digest:
        raise UserError(
            f"asset {name} ({path}) has changed since it was fetched",
            fix=f"delete it, then: cmbench assets fetch {name}",
        )
    return digest


def is_offline() -> bool:
    """Tests whether `CMBENCH_OFFLINE` forbids network access."""
    return os.environ.get("CMBENCH_OFFLINE", "") not in ("", "0")


def lease_of(
    asset: Asset, waiting: Callable[[str], None] | None = None
) -> AbstractContextManager[None]:
    """Holds the lease of an asset's files, as a context; waits for a live owner.

    Raises:
        UserError: If the cache can't be written.
    """
    return Store(cache_folder()).lease(Address("asset", text_sha256(asset.file)), waiting)


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
        folder = user_path(base).resolve()
        if not folder.is_dir():
            raise UserError(f"the mirror {folder} is no folder", expected="a folder, or a URL")
        base = folder.as_uri()
    return checked_url(base).rstrip("/")


def _by_hand(name: str, asset: Asset) -> Pending:
    return Pending(
        f"asset {name} is not here and must be downloaded by hand: {asset.how}",
        command=f"cmbench assets add {name} FILE",
    )


def _download(
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
    """Verifies a complete download, records its checksum and moves it into place."""
    digest, size = file_sha256(part), part.stat().st_size
    _refuse_other(asset, part, digest, fix=fix)
    if asset.bytes is not None and size != asset.bytes:
        forget(part)
        raise UserError(
            f"{path.name} has {size:,} bytes, {asset.bytes:,} are stated; it was removed", fix=fix
        )
    write_text(path.with_name(path.name + ".sha256"), digest + "\n")
    part.replace(path)
    forget(part)
    fsync_folder(path.parent)


def _refuse_other(asset: Asset, path: Path, digest: str, *, fix: str) -> None:
    """Removes a file whose checksum is not the published one."""
    stated = asset.sha256 or asset.sha256_prefix or ""
    if digest.startswith(stated):
        return
    forget(path) if path.suffix == ".part" else path.unlink()
    raise UserError(
        f"{path.name} has SHA-256 {digest[:16]}, stated {stated[:16]}; it was removed", fix=fix
    )
