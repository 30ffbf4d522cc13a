"""The content store: outputs of jobs by key, complete or absent, and leases on work in progress.

    <cache>/objects/<kind>/<key[:2]>/<key>/   files of one output and manifest.json with checksums
    <cache>/leases/<key>                      the process that works on it
    <cache>/work/<key>/                       checkpoints of a long job
    <cache>/tmp/                              outputs being written

An output is written under tmp/, fsynced, and renamed into place: kill -9 at any moment leaves
either the complete output or none. Everything can be recomputed, so it may be deleted at any time.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError, brief
from cmbench.core.files import fsync_folder, sweep, temporary_folder, write_json
from cmbench.core.names import is_key
from cmbench.store.leases import FileLeases, Leases, wait_for

__all__ = ["Address", "Store", "is_intact"]


@dataclass(frozen=True)
class Address:
    """The address of an output: the kind of job that computes it, and its key.

    Raises:
        UserError: If the key is not 64 hexadecimal digits. Keys are read from files and become
            paths, so a key must not lead out of the store.
    """

    kind: str
    key: str

    def __post_init__(self) -> None:
        if not is_key(self.key):
            raise UserError(
                f"{brief(self.key)} is no key of a {self.kind}", expected="64 hexadecimal digits"
            )

    def __str__(self) -> str:
        return f"{self.kind}/{self.key[:12]}"


class Store:
    """The content store under one folder, shared by any number of processes.

    Raises:
        UserError: If the folder can't be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._intact: set[Address] = set()
        self._leases: list[Leases] = [FileLeases(root / "leases", root / "tmp")]
        try:
            for name in ("objects", "leases", "work", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "tmp"):
                pass
            sweep(root / "tmp")
        except OSError as error:
            raise UserError(
                f"the cache {root} can't be written: {error.strerror or error}",
                fix="set CMBENCH_CACHE to a folder with space that you may write",
            ) from None

    def folder(self, address: Address) -> Path:
        """Returns the folder of an output, whether it exists or not."""
        return self._place(address)

    def work_folder(self, address: Address) -> Path:
        """Returns a persistent folder for the checkpoints of a long job."""
        folder = self.root / "work" / address.key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, address: Address) -> bool:
        """Tests whether the output exists and every file matches its SHA-256.

        A corrupt or truncated output is removed, so that it is recomputed.
        """
        if address in self._intact:
            return True
        folder = self._place(address)
        if not folder.is_dir():
            return False
        if is_intact(folder):
            self._intact.add(address)
            return True
        self._remove(address)
        return False

    def present(self, address: Address) -> bool:
        """Tests whether the output exists, without reading or verifying it."""
        # A plan of 10,000 cells asks 100,000 times; joining text is much faster than Path.
        place = f"{self.root}/objects/{address.kind}/{address.key[:2]}/{address.key}"
        return os.path.isfile(f"{place}/manifest.json")

    def survey(self) -> Callable[[Address], bool]:
        """Returns a `present` for many addresses, from one listing where that is faster."""
        return self.present

    def discard(self, address: Address) -> None:
        """Removes an output, if it exists."""
        self._remove(address)

    def _remove(self, address: Address) -> None:
        self._intact.discard(address)
        folder = self._place(address)
        if folder.exists():
            doomed = temporary_folder(self.root / "tmp", f"discard-{address.key[:12]}")
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self, address: Address, spec: dict[str, Any]) -> Iterator[Path]:
        """Yields a folder to write an output to; it enters the store if the block succeeds.

        Raises:
            OSError: If the file system fails; nothing is left in the store.
        """
        folder = temporary_folder(self.root / "tmp", address.key[:12])
        try:
            yield folder
            self._publish(folder, address, spec)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish_work(self, address: Address) -> None:
        """Removes the work folder of a finished job."""
        shutil.rmtree(self.root / "work" / address.key, ignore_errors=True)

    @contextlib.contextmanager
    def lease(
        self, address: Address, waiting: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Holds the lease of an output; waits while another live process holds it.

        Args:
            address: The output.
            waiting: Called once with the lease's owner, before waiting.
        """
        with contextlib.ExitStack() as held:
            for leases in self._leases:
                wait_for(leases, address.key, waiting)
                held.enter_context(leases.held(address.key))
            yield

    @contextlib.contextmanager
    def lease_if_free(self, address: Address) -> Iterator[bool]:
        """Holds the lease of an output; yields False at once if another process holds it.

        A dead owner on another machine is detected by calling it repeatedly for a minute.
        """
        with contextlib.ExitStack() as held:
            for leases in self._leases:
                if not leases.claim(address.key):
                    yield False
                    return
                held.enter_context(leases.held(address.key))
            yield True

    def _publish(self, folder: Path, address: Address, spec: dict[str, Any]) -> None:
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        entries = {
            str(f.relative_to(folder)): {"sha256": file_sha256(f), "bytes": f.stat().st_size}
            for f in files
        }
        for file in files:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        manifest = {"kind": address.kind, "key": address.key, "spec": spec, "files": entries}
        write_json(folder / "manifest.json", manifest)
        self._put_in_place(folder, address)

    def _place(self, address: Address) -> Path:
        return self.root / "objects" / address.kind / address.key[:2] / address.key

    def _put_in_place(self, folder: Path, address: Address) -> None:
        final = self._place(address)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not Store.has(self, address):
            self._remove(address)
        if not final.exists():
            # Another process may have published the same bytes in the meantime: drop ours.
            with contextlib.suppress(OSError):
                os.replace(folder, final)
            fsync_folder(final.parent)
        if not Store.has(self, address):
            raise OSError(f"{final} could not be put in place")


def is_intact(folder: Path) -> bool:
    """Tests whether a folder holds all files of its manifest, with those checksums."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and file_sha256(folder / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
