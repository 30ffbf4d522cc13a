"""The content store of machines that share object storage and no file system.

Each machine keeps a folder of its own, which jobs read and write as in a local run. New outputs
are uploaded to the storage, one object each; outputs that are missing here are downloaded.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cmbench.core.files import temporary_folder
from cmbench.core.paths import cache_folder
from cmbench.store.object_storage import ObjectLeases, ObjectStorage, pack, unpack
from cmbench.store.store import Address, Store, is_intact

__all__ = ["SharedStore", "open_store"]


def open_store(root: Path | None = None) -> Store:
    """Opens the store of this machine; with `CMBENCH_STORE=URL`, it shares that storage.

    Args:
        root: Its folder; None: `CMBENCH_CACHE`.

    Raises:
        UserError: If the folder can't be written, or the storage can't be used.
    """
    folder = cache_folder() if root is None else root
    url = os.environ.get("CMBENCH_STORE")
    return SharedStore(folder, ObjectStorage(url)) if url else Store(folder)


class SharedStore(Store):
    """A local folder backed by shared storage.

    Args:
        root: The folder.
        storage: The storage that all machines share.
    """

    def __init__(self, root: Path, storage: ObjectStorage) -> None:
        super().__init__(root)
        self.storage = storage
        self._both: set[Address] = set()
        self._sent: dict[str, Any] = {}
        self._leases.append(ObjectLeases(storage, self._send_work))

    def folder(self, address: Address) -> Path:
        """Returns the local folder of an output, downloaded from the storage if necessary."""
        place = self._place(address)
        if not place.is_dir():
            self._fetch(address)
        return place

    def has(self, address: Address) -> bool:
        """Tests whether the output is intact here or in the storage; copies it to the other."""
        if address in self._both:
            return True
        if super().has(address):
            if not self.storage.has(_name(address)):
                self._send(address)
        elif not self._fetch(address):
            return False
        self._both.add(address)
        return True

    def present(self, address: Address) -> bool:
        """Tests whether the output exists here or in the storage, without reading it."""
        return super().present(address) or self.storage.has(_name(address))

    def survey(self) -> Callable[[Address], bool]:
        """Returns a test of whether an output is in the storage, from one listing."""
        listed = set(self.storage.names("objects"))
        return lambda address: _tail(address) in listed

    def discard(self, address: Address) -> None:
        """Removes an output here and in the storage."""
        super().discard(address)
        self.storage.remove(_name(address))

    def work_folder(self, address: Address) -> Path:
        """Returns a folder for checkpoints; if it is empty, downloads those of another machine."""
        folder = super().work_folder(address)
        if not any(folder.iterdir()):
            with self._scratch() as scratch:
                packed = scratch / "work.tar"
                if self.storage.get(_work(address.key), packed):
                    unpack(packed, folder)
        return folder

    def finish_work(self, address: Address) -> None:
        """Removes the work folder of a finished job, here and in the storage."""
        super().finish_work(address)
        if self._sent.pop(address.key, None) or address.kind == "train":
            self.storage.remove(_work(address.key))

    def _remove(self, address: Address) -> None:
        self._both.discard(address)
        super()._remove(address)

    def _publish(self, folder: Path, address: Address, spec: dict[str, Any]) -> None:
        super()._publish(folder, address, spec)
        self._send(address)

    def _send(self, address: Address) -> None:
        with self._scratch() as scratch:
            packed = scratch / "output.tar"
            pack(self._place(address), packed)
            self.storage.put(packed, _name(address))
        self._both.add(address)

    def _fetch(self, address: Address) -> bool:
        """Downloads an output; returns False if there is none, or it is damaged."""
        with self._scratch() as scratch:
            packed, folder = scratch / "output.tar", scratch / "output"
            if not self.storage.get(_name(address), packed):
                return False
            if not (unpack(packed, folder) and is_intact(folder) and _is_of(folder, address)):
                return False
            self._put_in_place(folder, address)
        return True

    def _send_work(self, key: str) -> None:
        """Uploads the checkpoints if they changed since the last upload."""
        folder = self.root / "work" / key
        try:
            stamps = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
            if not stamps or stamps == self._sent.get(key):
                return
            with self._scratch() as scratch:
                pack(folder, scratch / "work.tar")
                self.storage.put(scratch / "work.tar", _work(key))
        except OSError:
            return  # no folder, or a checkpoint was just replaced: uploaded next time
        self._sent[key] = stamps

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = temporary_folder(self.root / "tmp", "transfer")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _is_of(folder: Path, address: Address) -> bool:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return bool(manifest.get("kind") == address.kind and manifest.get("key") == address.key)


def _tail(address: Address) -> str:
    return f"{address.kind}/{address.key[:2]}/{address.key}.tar"


def _name(address: Address) -> str:
    return f"objects/{_tail(address)}"


def _work(key: str) -> str:
    return f"work/{key}.tar"
