"""Lists the members of a folder or zip of images by one rule, in one order.

Members are sorted by their path components, so that a folder and a zip of it have one order.
Hidden files and system files are counted as ignored. Links are followed. Entries that can't be
reached (dead links, loops, unreadable folders, pipes) are listed as faults.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._decode import CORRUPT, MAX_BYTES, SUFFIXES, BadImage

__all__ = ["Listing", "Member", "list_folder", "list_zip", "open_member", "read_member",
           "unreadable"]  # fmt: skip

LABELS = "dataset.json"
_SYSTEM = frozenset({"__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN",
                     "System Volume Information", "lost+found"})  # fmt: skip
_METHODS = {9: "deflate64", 93: "Zstandard", 95: "xz", 97: "WavPack", 98: "PPMd", 99: "AES"}
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Member(NamedTuple):
    """A file below the container's root: the parts of its path, where it is, and its fault."""

    parts: tuple[str, ...]
    source: Path | zipfile.ZipInfo
    fault: str = ""

    @property
    def name(self) -> str:
        """The path below the root, safe to print."""
        return printable("/".join(self.parts))


@dataclass
class Listing:
    """Contents of a folder or zip: images, parquet, label files, containers, ignored files."""

    images: list[Member] = field(default_factory=list)
    parquet: list[Member] = field(default_factory=list)
    labels: list[Member] = field(default_factory=list)
    containers: list[Member] = field(default_factory=list)
    ignored: int = 0

    def add(self, member: Member) -> None:
        """Adds a member to the list of its type; one with a fault counts as a bad image."""
        name = member.parts[-1].lower()
        if member.fault or name.endswith(SUFFIXES):
            self.images.append(member)
        elif name.endswith(".parquet"):
            self.parquet.append(member)
        elif member.parts[-1] == LABELS:
            self.labels.append(member)
        else:
            self.ignored += 1
            if name.endswith((".npz", ".npy", ".zip")):
                self.containers.append(member)

    def sort(self) -> None:
        """Sorts every list by path components."""
        for members in (self.images, self.parquet, self.labels, self.containers):
            members.sort(key=lambda member: member.parts)


def list_folder(root: Path) -> Listing:
    """Walks a folder, through links, each real folder at most once.

    Raises:
        UserError: If the folder itself can't be listed.
    """
    listing = Listing()
    reached: dict[tuple[int, int], str] = {}
    waiting: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while waiting:
        folder, parts = waiting.pop()
        try:
            mark = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda e: e.name, reverse=True)
        except OSError as error:
            if not parts:
                raise UserError(f"{root} can't be listed: {error.strerror}") from None
            listing.add(Member(parts, folder, f"can't be listed: {error.strerror}"))
            continue
        if mark in reached:
            where = reached[mark] or "the folder itself"
            listing.add(Member(parts, folder, f"leads to {where} again: images would count twice"))
            continue
        reached[mark] = printable("/".join(parts))
        waiting += _sorted_out(entries, parts, listing)
    listing.sort()
    return listing


def _sorted_out(
    entries: list[os.DirEntry[str]], parts: tuple[str, ...], listing: Listing
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Adds the files to the listing and yields the folders below."""
    for entry in entries:
        own = (*parts, entry.name)
        if _hidden(entry.name):
            listing.ignored += _count(entry)
            continue
        kind, fault = _kind(entry)
        if kind == "folder":
            yield Path(entry.path), own
        elif kind == "file" or fault:
            listing.add(Member(own, Path(entry.path), fault))
        else:
            listing.ignored += 1


def _kind(entry: os.DirEntry[str]) -> tuple[str, str]:
    """Returns folder, file or other, and the fault of an image that is not a file."""
    image = entry.name.lower().endswith((*SUFFIXES, ".parquet"))
    try:
        if entry.is_file():
            return "file", ""
        if entry.is_dir():
            return ("other", "a folder, not an image") if image else ("folder", "")
        mode = entry.stat().st_mode
    except OSError as error:
        reason = "a dead link" if isinstance(error, FileNotFoundError) else error.strerror
        return "other", f"{reason} to {printable(_target(entry))}"
    names = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return "other", f"{names.get(stat.S_IFMT(mode), 'a device')}, not an image" if image else ""


def _target(entry: os.DirEntry[str]) -> str:
    try:
        return os.readlink(entry.path)
    except OSError:
        return entry.name


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _hidden(name: str) -> bool:
    return (name.startswith(".") and name != "..") or name in _SYSTEM


def _count(entry: os.DirEntry[str]) -> int:
    """Counts the files of a hidden entry, itself included; links are not followed."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(files) for _, _, files in os.walk(entry.path))


def list_zip(archive: zipfile.ZipFile) -> Listing:
    """Lists a zip's members by the rule for folders."""
    listing, seen = Listing(), set[tuple[str, ...]]()
    for info in archive.infolist():
        parts = tuple(p for p in info.filename.replace("\\", "/").split("/") if p not in ("", "."))
        if info.is_dir() or not parts:
            continue
        if any(_hidden(part) for part in parts):
            listing.ignored += 1
            continue
        fault = _zip_fault(info)
        if parts in seen:
            fault = "two members have this name"
        seen.add(parts)
        listing.add(Member(parts, info, fault))
    listing.sort()
    return listing


def _zip_fault(info: zipfile.ZipInfo) -> str:
    link = stat.S_ISLNK(info.external_attr >> 16)
    return "a link, whose target is outside of the zip" if link else ""


def read_member(member: Member, archive: zipfile.ZipFile | None = None) -> bytes | BadImage:
    """Reads a member of at most MAX_BYTES, or returns why it can't be read."""
    if member.fault:
        return BadImage(member.name, "file", member.fault)
    try:
        unfit = unreadable(member)
        if unfit:
            return BadImage(member.name, "file", unfit)
        with open_member(member, archive) as file:
            return file.read(MAX_BYTES)
    except (*CORRUPT, RuntimeError, NotImplementedError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return BadImage(member.name, "corrupt", printable(str(detail or type(error).__name__)))


def open_member(member: Member, archive: zipfile.ZipFile | None) -> IO[bytes]:
    """Opens a member of a folder or of the open zip."""
    if isinstance(member.source, Path):
        return member.source.open("rb")
    assert archive is not None
    return archive.open(member.source)


def unreadable(member: Member) -> str:
    """Returns why a member can't be unpacked (encrypted, too large, method); "" if it can."""
    source = member.source
    if isinstance(source, Path):
        size = source.stat().st_size
    else:
        size = source.file_size
        if source.flag_bits & 1:
            return "encrypted"
        if source.compress_type not in _READABLE:
            method = _METHODS.get(source.compress_type, f"method {source.compress_type}")
            return f"compressed by {method}, which is not supported: pack the zip by plain deflate"
    return f"{size:,} bytes, more than an image of {MAX_BYTES:,}" if size > MAX_BYTES else ""
