"""Checks of this machine: device, caches, data, weights, packages, network, suites."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from uuid import uuid4

import torch

from cmbench import __version__
from cmbench.core.environment import device_name, pick_device
from cmbench.core.errors import CmbenchError, Pending
from cmbench.core.loader import available, create, roots
from cmbench.core.paths import cache_folder
from cmbench.store.object_storage import ObjectStorage
from cmbench.store.store import Store
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

__all__ = ["Check", "examine"]

_EXTRAS = {
    "tensorflow": "tensorflow",
    "ray": "ray",
    "diffusers": "hub",
    "pyarrow": "parquet",
    "s3fs": "cloud",
    "submitit": "slurm",
}
_HOSTS = ("huggingface.co", "openaipublic.blob.core.windows.net", "nvlabs-fi-cdn.nvidia.com")
_ROOM = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One check: `ok`, `missing` (some features don't work until `fix` is run) or `wrong`."""

    subject: str
    state: Literal["ok", "missing", "wrong"]
    detail: str
    fix: str = ""


def examine(*, network: bool = True) -> Iterator[Check]:
    """Runs the checks one by one; nothing is downloaded, and no files are left.

    Args:
        network: Whether to contact the hosts of official weights (at most 3 s each).
    """
    yield Check("cmbench", "ok", f"{__version__}, torch {torch.__version__}")
    device = pick_device("auto")
    yield Check("device", "ok", f"{device_name(device)}, {torch.get_num_threads()} threads")
    yield _cache()
    if os.environ.get("CMBENCH_STORE"):
        yield _storage()
    searched = ", ".join(str(root) for root in roots())
    families = len(available("model"))
    yield Check("plugins", "ok", f"{families} model families under {searched}")
    for name in ("digits", "cifar10", "fashion_mnist"):
        yield _tried(f"data set {name}", lambda name=name: _data(name))  # type: ignore[misc]
    for listing in available("features"):
        yield _tried(f"extractor {listing.name}", lambda n=listing.name: _weights(n))  # type: ignore[misc]
    for package, extra in _EXTRAS.items():
        yield _package(package, extra)
    if network:
        yield from map(_host, _HOSTS)
    for suite in _suites():
        yield _tried(f"suite {suite}", lambda suite=suite: _suite(suite))  # type: ignore[misc]


def _cache() -> Check:
    root = cache_folder()
    try:
        Store(root)
    except CmbenchError as error:
        return Check("cache", "wrong", str(error).splitlines()[0], "set CMBENCH_CACHE")
    free = shutil.disk_usage(root).free
    detail = f"{root}, {free / 2**30:.1f} GiB free"
    if free < _ROOM:
        return Check("cache", "wrong", detail, "free some space, or set CMBENCH_CACHE")
    return Check("cache", "ok", detail)


def _storage() -> Check:
    """Checks the shared storage: writes and reads a probe, and tests exclusive creation."""
    try:
        storage = ObjectStorage(os.environ["CMBENCH_STORE"])
        name = f"probe/{uuid4().hex}"
        is_new, is_again = storage.create(name, b"probe"), storage.create(name, b"again")
        is_read = storage.read(name) == b"probe"
        storage.remove(name)
    except CmbenchError as error:
        return Check("shared store", "wrong", str(error).splitlines()[0], "set CMBENCH_STORE")
    if is_new and is_read and not is_again:
        return Check("shared store", "ok", f"{storage.url}, with exclusive writes")
    detail = f"{storage.url} has no exclusive writes: two machines may run one job at once"
    return Check("shared store", "ok", detail)


def _tried(subject: str, look: Callable[[], str]) -> Check:
    try:
        return Check(subject, "ok", look())
    except Pending as reason:
        return Check(subject, "missing", reason.reason, reason.command)
    except CmbenchError as error:
        return Check(subject, "wrong", str(error).splitlines()[0])


def _data(name: str) -> str:
    images = create("dataset", name).open()
    return f"{len(images):,} images of {'x'.join(map(str, images.shape))}"


def _weights(name: str) -> str:
    return f"weights {create('features', name).weights_digest()[:12]}"


def _package(package: str, extra: str) -> Check:
    try:
        return Check(f"package {package}", "ok", version(package))
    except PackageNotFoundError:
        return Check(
            f"package {package}", "missing", "not installed", f"pip install 'cmbench[{extra}]'"
        )


def _host(name: str) -> Check:
    try:
        socket.create_connection((name, 443), timeout=3).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Check(
            f"host {name}",
            "missing",
            f"not reached: {why}",
            "use --mirror URL, or download files by hand",
        )
    return Check(f"host {name}", "ok", "reached")


def _suites() -> list[str]:
    return sorted({f.stem for root in roots() for f in (root / "suites").glob("*.yaml")})


def _suite(name: str) -> str:
    suite, source = read_suite(name)
    plan = make_plan(suite, source)
    pending = [cell.pending for cell in plan.cells if cell.pending is not None]
    if pending:
        raise Pending(
            f"{len(pending)} of {len(plan.cells)} cells are pending: {pending[0].reason}",
            command=pending[0].command,
        )
    return f"all {len(plan.cells)} cells can run"
