"""Finds and removes useless files in the folder of assets."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmbench.assets.catalogue import catalogue
from cmbench.core.paths import cache_folder

__all__ = ["DeadFile", "find_dead", "remove_dead"]

_BEATS = 60.0
"""Seconds without renewal after which the owner of a lease counts as dead."""


@dataclass(frozen=True)
class DeadFile:
    """A useless file.

    Args:
        path: Its path.
        bytes: Its size.
        why: The reason why it is useless.
    """

    path: Path
    bytes: int
    why: str


def find_dead(*, partial: bool = False) -> list[DeadFile]:
    """Lists files of unknown assets and leftovers of downloads and killed processes, by path.

    Interrupted downloads can be resumed, so they are listed only if `partial`; a file that a live
    process is downloading is never listed. Folders are ignored.
    """
    folder = cache_folder() / "assets"
    if not folder.is_dir():
        return []
    known = {asset.file: name for name, asset in catalogue().items()}
    here = {f.name: f for f in sorted(folder.iterdir()) if f.is_symlink() or f.is_file()}
    return list(_judged(here, known, partial))


def remove_dead(dead: list[DeadFile]) -> int:
    """Removes the files; returns the bytes freed. Files that are already gone are ignored."""
    freed = 0
    for file in dead:
        try:
            file.path.unlink()
        except FileNotFoundError:
            continue
        freed += file.bytes
    return freed


def _judged(here: dict[str, Path], known: dict[str, str], partial: bool) -> Iterator[DeadFile]:
    for name, path in here.items():
        asset_file, kind = _belongs(name)
        if _is_being_downloaded(asset_file):
            continue
        why = ""
        if kind == "tmp":
            why = "left by a killed process"
        elif asset_file not in known:
            why = "of no asset in the catalogue"
        elif kind == "part" and asset_file in here:
            why = f"a partial download; {known[asset_file]} is complete"
        elif kind == "part" and partial:
            why = f"an interrupted download of {known[asset_file]}"
        elif kind == "sha256" and asset_file not in here:
            why = f"a checksum without its file; {known[asset_file]} is not here"
        if why:
            yield DeadFile(path, path.lstat().st_size, why)


def _belongs(name: str) -> tuple[str, str]:
    """Returns the asset file that a file belongs to, and its role: whole, part, sha256 or tmp."""
    if name.startswith(".") and name.endswith(".tmp"):
        return name[1:].rsplit(".", 2)[0].removesuffix(".sha256"), "tmp"
    for ending, kind in ((".part.json", "part"), (".part", "part"), (".sha256", "sha256")):
        if name.endswith(ending):
            return name.removesuffix(ending), kind
    return name, "whole"


def _is_being_downloaded(file: str) -> bool:
    lease = cache_folder() / "leases" / f"asset-{file}"
    try:
        return time.time() - lease.stat().st_mtime < _BEATS
    except FileNotFoundError:
        return False
