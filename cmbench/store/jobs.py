"""Jobs: content-addressed units of work, each a pure function of its specification.

A job's key is the SHA-256 of its specification, in which its inputs stand by their keys. So the
key of a score is known before anything has run, and equal work has one key in all suites.
What doesn't change the bytes (paths, batch sizes, labels) is in `transport`, outside the key.
"""

from dataclasses import dataclass, field
from typing import Any

from cmbench.core.digests import digest
from cmbench.store.store import Address

__all__ = ["Cost", "Job", "make_job"]

VERSIONS = {"train": 1, "prefix": 1, "sample": 1, "features": 1, "reference": 1, "score": 3}
"""Raised when the code of a kind of job changes what it makes: old outputs are then not used."""


@dataclass(frozen=True)
class Cost:
    """What a job is expected to spend.

    Args:
        evaluations: Forward passes of the sampled network, over all images.
        extractions: Images through an extractor.
        training: Forward-equivalents of training (a backward counts two).
        bytes: Size of the output.
        network: Which network the evaluations are of: key of the speed measured.
        spared: Evaluations that it takes over from others.
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
        spec: What the key is the hash of.
        needs: Outputs it reads.
        title: How progress shows it.
        transport: What it also needs, but what leaves its bytes as they are.
        cost: What it is expected to spend.
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
    """A job with its key computed from kind, version of the kind's code, and specification."""
    full = {"kind": kind, "version": VERSIONS[kind], **spec}
    address = Address(kind, digest(full))
    return Job(address, full, needs, title, transport or {}, cost or Cost())
