"""What lies in the folder of assets and serves nothing: found, and removed when asked."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmbench.assets.catalogue import catalogue
from cmbench.core.paths import cache_folder

__all__ = ["DeadFile", "find_dead", "remove_dead"]

_BEATS = 60.0
"""Seconds after which a lease that is not renewed has no living owner."""


@dataclass(frozen=True)
class DeadFile:
    """A file that may go.

    Args:
        path: Where it lies.
        bytes: Its size.
        why: What makes it useless.
    """

    path: Path
    bytes: int
    why: str


def find_dead(*, partial: bool = False) -> list[DeadFile]:
    """Files of unknown assets, leftovers of downloads and of killed writers, by path.

    Downloads that broke off can be gone on with, so they stay unless `partial`; what a living
    process is bringing stays always. Folders are left alone.
    """
    folder = cache_folder() / "assets"
    if not folder.is_dir():
        return []
    known = {asset.file: name for name, asset in catalogue().items()}
    here = {f.name: f for f in sorted(folder.iterdir()) if f.is_symlink() or f.is_file()}
    return list(_judged(here, known, partial))


def remove_dead(dead: list[DeadFile]) -> int:
    """Removes them; returns the bytes that became free. What is gone meanwhile is no fault."""
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
        whole, kind = _belongs(name)
        if _is_being_brought(whole):
            continue
        why = ""
        if kind == "tmp":
            why = "left by a writer that was killed"
        elif whole not in known:
            why = "of no asset in the catalogue"
        elif kind == "part" and whole in here:
            why = f"the rest of a download; {known[whole]} is whole"
        elif kind == "part" and partial:
            why = f"a download of {known[whole]} that broke off"
        elif kind == "sha256" and whole not in here:
            why = f"a checksum without its file; {known[whole]} is not here"
        if why:
            yield DeadFile(path, path.lstat().st_size, why)


def _belongs(name: str) -> tuple[str, str]:
    """The asset's file that a file belongs to, and as what."""
    if name.startswith(".") and name.endswith(".tmp"):
        return name[1:].rsplit(".", 2)[0].removesuffix(".sha256"), "tmp"
    for ending, kind in ((".part.json", "part"), (".part", "part"), (".sha256", "sha256")):
        if name.endswith(ending):
            return name.removesuffix(ending), kind
    return name, "whole"


def _is_being_brought(file: str) -> bool:
    lease = cache_folder() / "leases" / f"asset-{file}"
    try:
        return time.time() - lease.stat().st_mtime < _BEATS
    except FileNotFoundError:
        return False
