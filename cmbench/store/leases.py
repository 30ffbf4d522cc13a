"""Leases on work in progress: files in one folder, kept alive by heartbeats."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

__all__ = ["FileLeases", "Leases", "Watch", "beating", "me", "wait_for"]

_STALE_SECONDS = 60.0
"""Seconds without a heartbeat after which an owner on another machine counts as dead."""
_HEARTBEAT_SECONDS = 5.0


class Leases(Protocol):
    """Exclusive rights to compute outputs, each held by at most one process."""

    def claim(self, key: str) -> bool:
        """Takes a lease that is free, or whose owner is dead; False while another holds it."""
        ...

    def held(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Keeps a lease that was claimed alive, and gives it up at the end."""
        ...

    def owner(self, key: str) -> dict[str, Any]:
        """Returns the owner (`pid`, `host`, `born`); empty if there is none."""
        ...


def wait_for(leases: Leases, key: str, waiting: Callable[[str], None] | None) -> None:
    """Claims a lease; while a live process holds it, calls `waiting` once with it and waits."""
    pause = 0.2
    while not leases.claim(key):
        if waiting:
            owner = leases.owner(key)
            waiting(f"process {owner.get('pid', '?')} on {owner.get('host', '?')}")
            waiting = None
        time.sleep(pause)


class FileLeases:
    """Leases as files that are created exclusively; heartbeats touch them.

    Args:
        folder: The folder of the lease files.
        doomed: A folder on the same file system for leases that are being removed.
    """

    def __init__(self, folder: Path, doomed: Path) -> None:
        self.folder, self.doomed = folder, doomed
        self._watches: dict[str, Watch] = {}

    def claim(self, key: str) -> bool:
        """Takes a lease that is free, or whose owner is dead; False while another holds it."""
        path = self.folder / key
        watch = self._watches.setdefault(key, Watch())
        while not _take(path):
            owner = self.owner(key)
            if not watch.is_stale(_touched(path), owner):
                return False
            self.take_away(key, owner)
        self._watches.pop(key, None)
        return True

    @contextlib.contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Keeps a lease that was claimed alive, and gives it up at the end."""
        path = self.folder / key
        try:
            with beating(lambda: os.utime(path), _HEARTBEAT_SECONDS):
                yield
        finally:
            path.unlink(missing_ok=True)

    def owner(self, key: str) -> dict[str, Any]:
        """Returns the owner; empty if there is none, or the file is unreadable."""
        return _read_owner(self.folder / key)

    def take_away(self, key: str, owner: dict[str, Any]) -> None:
        """Removes a dead owner's lease, unless another process has claimed it in the meantime."""
        path = self.folder / key
        doomed = self.doomed / f"lease-{key}-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, doomed)
            if _read_owner(doomed) != owner:
                with contextlib.suppress(FileExistsError):
                    os.link(doomed, path)
            doomed.unlink()


class Watch:
    """Judges a lease by this process's monotonic clock, which wall-clock jumps do not affect."""

    def __init__(self) -> None:
        self.stamp: float | None = None
        self.since = time.monotonic()

    def is_stale(self, stamp: float | None, owner: dict[str, Any]) -> bool:
        """Tests whether the owner is dead, as far as this machine can know.

        Args:
            stamp: A value that changes with each heartbeat; None if the lease is gone.
            owner: The contents of the lease.
        """
        if stamp is None:
            return False
        if owner.get("host") == socket.gethostname():
            pid = int(owner.get("pid", 0))
            if pid != os.getpid() and _born(pid) != owner.get("born"):
                return True
        if stamp != self.stamp:
            self.stamp, self.since = stamp, time.monotonic()
        return time.monotonic() - self.since > _STALE_SECONDS


@contextlib.contextmanager
def beating(beat: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls `beat` every `seconds` seconds while the block runs; ignores its errors."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            with contextlib.suppress(Exception):
                beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def me() -> dict[str, Any]:
    """Returns the contents of this process's leases."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "born": _born()}


def _take(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump(me(), file)
    return True


def _touched(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _born(pid: int | None = None) -> str | None:
    """Returns a process's start time, to distinguish the owner from a reused process number."""
    number = os.getpid() if pid is None else pid
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _alive_elsewhere(number)
    return stat.rpartition(")")[2].split()[19]


def _alive_elsewhere(pid: int) -> str | None:
    """Treats any live process as the owner, on systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
