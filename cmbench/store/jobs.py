"""Jobs: content-addressed units of work, each a pure function of its specification.

A job's key is a hash of its specification and of its inputs' keys. So the key of a score is known
before anything has run, and equal work has one key in all suites. Settings that don't change the
bytes (paths, batch sizes, labels) are in `transport`, outside the key.
"""

from dataclasses import dataclass, field
from typing import Any

from cmbench.core.digests import digest
from cmbench.store.store import Address

__all__ = ["Cost", "Job", "make_job"]

VERSIONS = {"train": 1, "prefix": 1, "sample": 1, "features": 1, "reference": 1, "score": 3}
"""Version of each kind's code; raising it makes old outputs unused."""


@dataclass(frozen=True)
class Cost:
    """Expected cost of a job.

    Args:
        evaluations: Forward passes of the sampled network, over all images.
        extractions: Images through an extractor.
        training: Forward-equivalents of training (a backward counts two).
        bytes: Size of the output.
        network: Name of the evaluated network, under which its speed is measured.
        spared: Evaluations that it replays from other jobs.
    """

    evaluations: float = 0.0
    extractions: int = 0
    training: float = 0.0
    bytes: int = 0
    network: str = ""
    spared: float = 0.0


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Args:
        address: Kind and key.
        spec: The specification that the key hashes.
        needs: Addresses of its inputs.
        title: Title in progress output.
        transport: Further settings that do not change the output's bytes.
        cost: Expected cost.
    """

    address: Address
    spec: dict[str, Any]
    needs: tuple[Address, ...] = ()
    title: str = ""
    transport: dict[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()


def make_job(
    kind: str,
    spec: dict[str, Any],
    *,
    needs: tuple[Address, ...] = (),
    title: str = "",
    transport: dict[str, Any] | None = None,
    cost: Cost | None = None,
) -> Job:
    """Makes a job; its key hashes its kind, the version of that code, and its specification."""
    full = {"kind": kind, "version": VERSIONS[kind], **spec}
    address = Address(kind, digest(full))
    return Job(address, full, needs, title, transport or {}, cost or Cost())
