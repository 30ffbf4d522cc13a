"""Network calls that several samplings begin with, computed once.

A sampler names those beginnings (`Sampler.prefixes`) as samplers of their own. Where two cells of
one network and seed begin alike, a job of kind `prefix` keeps the network's outputs of each shard,
and the samplings replay them before they go on. Found from specifications alone: what a sampling
makes, and so its key, is the same with and without.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cmbench.core.digests import canonical
from cmbench.samplers.base import Sampler
from cmbench.store.jobs import Cost, Job, make_job
from cmbench.store.store import Address

if TYPE_CHECKING:
    from cmbench.suite.plan import Cell

__all__ = ["share_trajectories"]


@dataclass
class _Beginning:
    """One beginning, and the ways on from it.

    Args:
        sampler: The sampler that makes its calls.
        longer: Beginnings that go on from it, by the text of their sampler.
        members: Cells that have no longer beginning.
    """

    sampler: Sampler | None
    longer: dict[str, "_Beginning"] = field(default_factory=dict)
    members: list["Cell"] = field(default_factory=list)

    @property
    def branches(self) -> bool:
        """True if the calls kept here serve more than one continuation."""
        return self.sampler is not None and len(self.longer) + len(self.members) > 1


def share_trajectories(jobs: dict[Address, Job], cells: Iterable["Cell"]) -> dict[Address, Job]:
    """The jobs with those that keep shared beginnings, each before the first that needs it.

    Args:
        jobs: The plan's jobs; none is changed.
        cells: Its cells; those that wait are passed over.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.shards and cell.sampler is not None:
            told = {k: v for k, v in cell.identity.items() if k not in ("sampler", "quantisation")}
            groups.setdefault(canonical(told), []).append(cell)
    sharing = _Sharing(jobs)
    for members in groups.values():
        if len(members) > 1:
            sharing.visit(_tree(members), ())
    return sharing.inserted()


def _tree(cells: Sequence["Cell"]) -> _Beginning:
    root = _Beginning(None)
    for cell in cells:
        place = root
        for sampler in cell.sampler.prefixes() if cell.sampler else ():
            text = canonical(sampler.spec())
            place = place.longer.setdefault(text, _Beginning(sampler))
        place.members.append(cell)
    return root


class _Sharing:
    """Makes the jobs of beginnings and hangs the samplings on them."""

    def __init__(self, jobs: dict[Address, Job]) -> None:
        self.jobs = jobs
        self.changed: dict[Address, Job] = {}
        self.before: dict[Address, tuple[Job, ...]] = {}

    def visit(self, place: _Beginning, chains: tuple[tuple[Job, ...], ...]) -> None:
        """Walks the tree; `chains` holds, by shard, the beginnings kept so far."""
        if place.branches and place.sampler is not None:
            chains = self._kept(place, chains)
        for cell in place.members:
            for shard, chain in zip(cell.shards, chains, strict=bool(chains)):
                self._hang(shard, chain)
        for longer in place.longer.values():
            self.visit(longer, chains)

    def inserted(self) -> dict[Address, Job]:
        """All jobs in their order."""
        if not self.changed:
            return self.jobs
        found: dict[Address, Job] = {}
        for address, job in self.jobs.items():
            for earlier in self.before.get(address, ()):
                found.setdefault(earlier.address, earlier)
            found[address] = self.changed.get(address, job)
        return found

    def _kept(
        self, place: _Beginning, chains: tuple[tuple[Job, ...], ...]
    ) -> tuple[tuple[Job, ...], ...]:
        cell = next(_members(place))
        chains = chains or ((),) * len(cell.shards)
        return tuple(
            (*chain, _job(self.jobs[shard], place.sampler, chain))
            for shard, chain in zip(cell.shards, chains, strict=True)
        )

    def _hang(self, shard: Address, chain: tuple[Job, ...]) -> None:
        job = self.jobs[shard]
        if not chain or shard in self.changed:
            return
        spared = min(job.cost.evaluations, _length(chain) * job.spec["count"])
        self.before[shard] = chain
        for kept in chain:
            kept.transport["serves"].append(shard)
        self.changed[shard] = replace(
            job,
            needs=(*job.needs, *(kept.address for kept in chain)),
            transport={**job.transport, "chain": [kept.address.key for kept in chain]},
            cost=replace(job.cost, evaluations=job.cost.evaluations - spared, spared=spared),
        )


def _members(place: _Beginning) -> Iterator["Cell"]:
    yield from place.members
    for longer in place.longer.values():
        yield from _members(longer)


def _length(chain: Sequence[Job]) -> int:
    """Evaluations per image up to the end of a chain."""
    return sum(round(kept.cost.evaluations) // int(kept.spec["count"]) for kept in chain)


def _job(shard: Job, sampler: Sampler | None, chain: tuple[Job, ...]) -> Job:
    """The job that keeps the calls of a beginning for the images of a shard."""
    assert sampler is not None
    size, before = int(shard.spec["count"]), _length(chain)
    calls = (sampler.nfe() or 0) - before
    told = ("model", "weights", "seed", "first", "count")
    spec: dict[str, Any] = {k: shard.spec[k] for k in told}
    # Filled as samplings are hung on it: once they are all there, it may go.
    serves: list[Address] = []
    return make_job(
        "prefix",
        {**spec, "sampler": sampler.spec()},
        needs=(*shard.needs, *(kept.address for kept in chain)),
        title=f"begin {shard.cost.network} {sampler.name} "
        f"[{spec['first']}:{spec['first'] + size}]",
        transport={
            **shard.transport,
            "chain": [kept.address.key for kept in chain],
            "serves": serves,
        },
        cost=Cost(
            evaluations=calls * size,
            network=shard.cost.network,
            bytes=calls * 4 * shard.cost.bytes,
        ),
    )
