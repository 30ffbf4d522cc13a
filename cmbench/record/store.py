"""The content store: outputs of jobs by key, whole or absent, and leases on work in progress.

    <cache>/objects/<kind>/<key[:2]>/<key>/   files of one output and manifest.json with checksums
    <cache>/leases/<key>                      who works on it now
    <cache>/work/<key>/                       where a long job keeps its checkpoints
    <cache>/tmp/                              outputs being written

An output is written under tmp/, fsynced, and renamed into place: kill -9 at any moment leaves
either the whole output or none. Everything here can be made again and deleted at any time.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.core.files import fsync_folder, write_json

__all__ = ["Address", "Store"]

_HEARTBEAT_SECONDS = 5.0
_STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Address:
    """Where an output lies: the kind of job that makes it, and its key."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key[:12]}"


class Store:
    """The content store under one folder, shared by any number of processes.

    Raises:
        UserError: If the folder can't be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._whole: set[Address] = set()
        self._watches: dict[str, _Watch] = {}
        try:
            for name in ("objects", "leases", "work", "tmp"):
                (root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "tmp"):
                pass
        except OSError as error:
            raise UserError(
                f"the cache {root} can't be written: {error.strerror or error}",
                fix="set CMBENCH_CACHE to a folder with space that you may write",
            ) from None

    def folder(self, address: Address) -> Path:
        """The folder of an output, there or not."""
        return self.root / "objects" / address.kind / address.key[:2] / address.key

    def work_folder(self, address: Address) -> Path:
        """A folder that outlives a killed process, for the checkpoints of a long job."""
        folder = self.root / "work" / address.key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has(self, address: Address) -> bool:
        """Whether the whole output is there, every file checked against its SHA-256.

        A corrupt or truncated output is removed, so that it is made again.
        """
        if address in self._whole:
            return True
        folder = self.folder(address)
        if not folder.is_dir():
            return False
        if _intact(folder):
            self._whole.add(address)
            return True
        self.discard(address)
        return False

    def present(self, address: Address) -> bool:
        """Whether the output seems to be there; nothing is read or checked."""
        # A plan of 10,000 cells asks 100,000 times: joined as text, which is many times as fast.
        place = f"{self.root}/objects/{address.kind}/{address.key[:2]}/{address.key}"
        return os.path.isfile(f"{place}/manifest.json")

    def discard(self, address: Address) -> None:
        """Removes an output, if it is there."""
        self._whole.discard(address)
        folder = self.folder(address)
        if folder.exists():
            doomed = (
                self.root / "tmp" / f"discard-{address.key}-{os.getpid()}-{time.monotonic_ns()}"
            )
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self, address: Address, spec: dict[str, Any]) -> Iterator[Path]:
        """A folder to write an output into; it appears in the store when the block ends well.

        Raises:
            OSError: As the file system says; nothing is left in the store.
        """
        folder = Path(tempfile.mkdtemp(dir=self.root / "tmp", prefix=f"{address.key[:12]}-"))
        try:
            yield folder
            self._publish(folder, address, spec)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def finish_work(self, address: Address) -> None:
        """Removes the work folder of a job that is done."""
        shutil.rmtree(self.root / "work" / address.key, ignore_errors=True)

    @contextlib.contextmanager
    def lease(
        self, address: Address, waiting: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Holds the right to make an output; waits while another living process holds it.

        Args:
            address: The output.
            waiting: Called once with who holds the lease, before waiting.
        """
        path = self._lease_file(address)
        told = False
        while not self._claimed(path):
            owner = _read_owner(path)
            if waiting and not told:
                waiting(f"process {owner.get('pid', '?')} on {owner.get('host', '?')}")
                told = True
            time.sleep(0.2)
        with _held(path):
            yield

    @contextlib.contextmanager
    def lease_if_free(self, address: Address) -> Iterator[bool]:
        """Holds the right to make an output; yields False at once while another holds it.

        A dead owner on another machine is known as such by who asks again and again for a minute.
        """
        path = self._lease_file(address)
        if not self._claimed(path):
            yield False
            return
        with _held(path):
            yield True

    def _lease_file(self, address: Address) -> Path:
        return self.root / "leases" / address.key

    def _claimed(self, path: Path) -> bool:
        """Takes a lease that is free, or whose owner is dead."""
        watch = self._watches.setdefault(path.name, _Watch())
        while not _take(path):
            owner = _read_owner(path)
            if not watch.is_stale(path, owner):
                return False
            self._take_away(path, owner)
        self._watches.pop(path.name, None)
        return True

    def _take_away(self, path: Path, owner: dict[str, Any]) -> None:
        """Removes a dead owner's lease; one that another has just taken anew is put back."""
        doomed = self.root / "tmp" / f"lease-{path.name}-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, doomed)
            if _read_owner(doomed) != owner:
                with contextlib.suppress(FileExistsError):
                    os.link(doomed, path)
            doomed.unlink()

    def size(self, address: Address) -> int:
        """Bytes of an output's files."""
        return sum(f.stat().st_size for f in self.folder(address).iterdir() if f.is_file())

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
        final = self.folder(address)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not self.has(address):
            self.discard(address)
        if not final.exists():
            # Another process may have published the same bytes in between: then ours are dropped.
            with contextlib.suppress(OSError):
                os.replace(folder, final)
            fsync_folder(final.parent)
        if not self.has(address):
            raise OSError(f"{final} could not be put in place")


def _intact(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and file_sha256(folder / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keeps a lease that was taken alive, and gives it up at the end."""
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _take(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "born": _born()}, file)
    return True


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _heartbeat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)


class _Watch:
    """Judges a lease by our own monotonic clock, so that a jump of the wall clock harms nobody."""

    def __init__(self) -> None:
        self.stamp: float | None = None
        self.since = time.monotonic()

    def is_stale(self, path: Path, owner: dict[str, Any]) -> bool:
        if owner.get("host") == socket.gethostname():
            pid = int(owner.get("pid", 0))
            alive = pid == os.getpid() or _born(pid) == owner.get("born")
            if not alive:
                return True
        try:
            stamp = path.stat().st_mtime
        except FileNotFoundError:
            return False
        if stamp != self.stamp:
            self.stamp, self.since = stamp, time.monotonic()
        return time.monotonic() - self.since > _STALE_SECONDS


def _born(pid: int | None = None) -> str | None:
    """When a process was born, so that a reused process number is not taken for the owner."""
    number = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _alive_elsewhere(number)
    return stat.rpartition(")")[2].split()[19]


def _alive_elsewhere(pid: int) -> str | None:
    """On systems without /proc: a living process counts as the owner."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
