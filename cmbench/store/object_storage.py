"""Object storage by URL (`s3://bucket/prefix`, `gs://`, `az://`, `file://`), through fsspec.

<url>/objects/<kind>/<key[:2]>/<key>.tar   an output with its manifest, one object each
<url>/leases/<key>                         the process that works on it
<url>/work/<key>.tar                       the checkpoints of a training in progress

All of it can be recomputed, so it may be deleted at any time.
"""

import contextlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from cmbench.core.errors import UserError
from cmbench.store.leases import Watch, beating, me

__all__ = ["ObjectLeases", "ObjectStorage", "pack", "unpack"]

_HEARTBEAT_SECONDS = 15.0
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Packages of the protocols that are not built into fsspec."""


class ObjectStorage:
    """Objects by name under one URL.

    Args:
        url: A URL that fsspec supports; its package for that protocol looks up credentials and
            endpoint (for S3: `AWS_*`, `~/.aws`).

    Raises:
        UserError: If the protocol is unknown or its package not installed. Each method: if the
            storage does not answer or refuses.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        protocol = url.partition("://")[0]
        package = _PACKAGES.get(protocol, "")
        try:
            # Objects written by other machines must be visible at once.
            self._fs, self._root = url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"CMBENCH_STORE={url}: {error}",
                expected="a URL such as s3://bucket/prefix",
                fix=f"pip install {package}" if package else "",
            ) from None
        self._is_local = protocol in ("file", "local")
        if self._is_local:
            self._fs.auto_mkdir = True

    def put(self, file: Path, name: str) -> None:
        """Uploads a file, replacing an object of that name."""
        with self._translated(f"writing {name}"):
            self._fs.put_file(str(file), self._path(name))

    def get(self, name: str, file: Path) -> bool:
        """Downloads an object into a file; returns False if there is none."""
        try:
            with self._translated(f"reading {name}", FileNotFoundError):
                self._fs.get_file(self._path(name), str(file))
        except FileNotFoundError:
            return False
        return True

    def has(self, name: str) -> bool:
        """Tests whether there is an object of that name."""
        with self._translated(f"looking for {name}"):
            return bool(self._fs.exists(self._path(name)))

    def names(self, folder: str) -> list[str]:
        """Lists the names of all objects under `folder/`, without that prefix."""
        place = self._path(folder)
        try:
            with self._translated(f"listing {folder}", FileNotFoundError):
                return [path[len(place) + 1 :] for path in self._fs.find(place)]
        except FileNotFoundError:
            return []

    def write(self, name: str, data: bytes) -> None:
        """Writes a small object, replacing one of that name."""
        with self._translated(f"writing {name}"):
            self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a small object unless one of that name exists; returns False in that case.

        If two processes create it at once, one gets False, if the storage has conditional writes.
        """
        path = self._path(name)
        try:
            with self._translated(f"writing {name}", FileExistsError):
                if self._is_local:
                    with self._fs.open(path, "xb") as file:
                        file.write(data)
                else:
                    self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """Reads a small object; None if there is none."""
        try:
            with self._translated(f"reading {name}", FileNotFoundError):
                return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Removes an object, if there is one."""
        missing = FileNotFoundError
        with contextlib.suppress(missing), self._translated(f"removing {name}", missing):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _translated(self, what: str, *asked: type[OSError]) -> Iterator[None]:
        """Turns every error into a UserError, except those in `asked`, which callers expect."""
        try:
            yield
        except asked:
            raise
        except Exception as error:
            # Each protocol's package raises its own exceptions.
            raise UserError(
                f"{self.url}: {what} failed: {error}",
                fix="check the address, the network and your credentials, then run again: "
                "finished work is reused",
            ) from error


class ObjectLeases:
    """Leases as objects that are created exclusively; heartbeats rewrite them.

    On storage without conditional writes two machines may get one lease at the same time: both
    compute the output, and their outputs are equal.

    Args:
        storage: The storage.
        meanwhile: Called with the key from time to time while a lease is held, and at its end.
    """

    def __init__(self, storage: ObjectStorage, meanwhile: Callable[[str], None]) -> None:
        self.storage, self.meanwhile = storage, meanwhile
        self._watches: dict[str, Watch] = {}
        self._mine: dict[str, dict[str, Any]] = {}

    def claim(self, key: str) -> bool:
        """Takes a lease that is free, or whose owner is dead; False while another holds it."""
        mine = {**me(), "token": uuid4().hex, "beat": 0}
        watch = self._watches.setdefault(key, Watch())
        while not self.storage.create(_name(key), json.dumps(mine).encode()):
            seen = self.storage.read(_name(key))
            if not watch.is_stale(None if seen is None else hash(seen), _owner(seen)):
                return False
            if self.storage.read(_name(key)) == seen:
                self.storage.remove(_name(key))
        self._watches.pop(key, None)
        self._mine[key] = mine
        return True

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Keeps a lease that was claimed alive, and gives it up at the end."""
        mine = self._mine.pop(key)
        try:
            with (
                beating(lambda: self._renew(key, mine), _HEARTBEAT_SECONDS),
                beating(lambda: self.meanwhile(key), 2 * _HEARTBEAT_SECONDS),
            ):
                yield
        finally:
            # If this fails (no network), others take the lease over after a minute.
            with contextlib.suppress(Exception):
                self.meanwhile(key)
            with contextlib.suppress(Exception):
                if self._is_still(key, mine):
                    self.storage.remove(_name(key))

    def owner(self, key: str) -> dict[str, Any]:
        """Returns the owner; empty if there is none, or the object is unreadable."""
        return _owner(self.storage.read(_name(key)))

    def _renew(self, key: str, mine: dict[str, Any]) -> None:
        if self._is_still(key, mine):
            mine["beat"] += 1
            self.storage.write(_name(key), json.dumps(mine).encode())

    def _is_still(self, key: str, mine: dict[str, Any]) -> bool:
        return self.owner(key).get("token") == mine["token"]


def pack(folder: Path, file: Path) -> None:
    """Packs a folder into a tar whose bytes depend only on the files' names and contents."""
    with tarfile.open(file, "w") as packed:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                entry = tarfile.TarInfo(str(path.relative_to(folder)))
                entry.size = path.stat().st_size
                with path.open("rb") as content:
                    packed.addfile(entry, content)


def unpack(file: Path, folder: Path) -> bool:
    """Unpacks a tar into a folder; returns False if it is damaged."""
    try:
        with tarfile.open(file) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError):
        return False
    return True


def _name(key: str) -> str:
    return f"leases/{key}"


def _owner(seen: bytes | None) -> dict[str, Any]:
    try:
        owner = json.loads(seen or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
