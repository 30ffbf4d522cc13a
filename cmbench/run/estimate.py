"""Estimates the cost of a plan: evaluations (exact), disk, and time, from a probe of each network
and extractor.
"""

import time
from dataclasses import dataclass
from typing import Any, cast

import torch

from cmbench.core.loader import create
from cmbench.engine.schedule import needed_jobs
from cmbench.run.probe import outline, probe_network
from cmbench.run.waiting import Waiting, estimate_waiting
from cmbench.store.jobs import Job
from cmbench.store.store import Store
from cmbench.suite.planner import Cell, Plan

__all__ = ["KindEstimate", "PlanCost", "estimate_plan"]

_EXTRACTED = 16


@dataclass(frozen=True)
class KindEstimate:
    """Cost of the jobs of one kind; `seconds` is None if nothing could be probed."""

    kind: str
    jobs: int
    cached: int
    evaluations: float
    seconds: float | None
    bytes: int


@dataclass(frozen=True)
class PlanCost:
    """Cost of a plan on this machine, by kind of job."""

    kinds: list[KindEstimate]
    unprobed: list[str]
    waiting: Waiting
    saved: float = 0.0
    """Evaluations saved by shared prefixes."""

    @property
    def seconds(self) -> float:
        """Total time of the jobs whose time is known."""
        return sum(k.seconds or 0.0 for k in self.kinds)

    @property
    def evaluations(self) -> float:
        """Forward passes of sampled networks in jobs that are not cached."""
        return sum(k.evaluations for k in self.kinds)

    @property
    def bytes(self) -> int:
        """Disk space of outputs that are not cached."""
        return sum(k.bytes for k in self.kinds)


def estimate_plan(plan: Plan, store: Store, device: torch.device) -> PlanCost:
    """Estimates a plan's cost: each network (random weights) and extractor runs short batches."""
    needed = needed_jobs(plan, store)
    missing = [plan.jobs[a] for a, cached in needed.items() if not cached]
    wanted = {job.cost.network for job in missing if job.cost.evaluations or job.cost.training}
    probes = _probe_networks(plan, wanted, device) | _probe_extractors(plan, missing, device)
    kinds = []
    for kind in ("train", "prefix", "sample", "reference", "features", "score"):
        mine = [job for job in missing if job.address.kind == kind]
        count = sum(1 for a in needed if a.kind == kind)
        if count:
            kinds.append(_kind(kind, count, mine, probes))
    unprobed = sorted(name for name in wanted if probes.get(name) is None)
    return PlanCost(kinds, unprobed, estimate_waiting(plan, device), _saved(missing))


def _saved(missing: list[Job]) -> float:
    prefixes = sum(j.cost.evaluations for j in missing if j.address.kind == "prefix")
    return sum(j.cost.spared for j in missing) - prefixes


def _kind(
    kind: str, count: int, missing: list[Job], probes: dict[str, float | None]
) -> KindEstimate:
    known = [s for s in (_seconds(job, probes) for job in missing) if s is not None]
    return KindEstimate(
        kind=kind,
        jobs=count,
        cached=count - len(missing),
        evaluations=sum(job.cost.evaluations for job in missing),
        seconds=sum(known) if known or not missing else None,
        bytes=sum(job.cost.bytes for job in missing),
    )


def _seconds(job: Job, probes: dict[str, float | None]) -> float | None:
    cost = job.cost
    if cost.extractions:
        each = probes.get(cost.network)
        return None if each is None else each * cost.extractions
    if cost.evaluations or cost.training:
        each = probes.get(cost.network)
        return None if each is None else each * (cost.evaluations + cost.training)
    return 0.0


def _probe_networks(plan: Plan, wanted: set[str], device: torch.device) -> dict[str, float | None]:
    shortest: dict[str, Cell] = {}
    for cell in plan.cells:
        if cell.network is None or cell.sampler is None:
            continue
        for name in {cell.card.full_name, *(j.cost.network for j in cell.network.jobs)} & wanted:
            best = shortest.get(name)
            if best is None or _length(cell) < _length(best):
                shortest[name] = cell
    return {
        name: probe_network(cell.network.model, cell.sampler, device)
        for name, cell in shortest.items()
        if cell.network is not None and cell.sampler is not None
    }


def _probe_extractors(
    plan: Plan, missing: list[Job], device: torch.device
) -> dict[str, float | None]:
    """Times every extractor with uncached jobs, in seconds per image of the suite's shape."""
    specs = {j.cost.network: j.spec["extractor"] for j in missing if j.cost.extractions}
    networks = [cell.network for cell in plan.cells if cell.network is not None]
    if not specs or not networks:
        return {}
    shape = cast(tuple[int, int, int], outline(networks[0].model).shape)
    return {name: _probe_extractor(spec, shape, device) for name, spec in specs.items()}


def _probe_extractor(
    spec: dict[str, Any], shape: tuple[int, int, int], device: torch.device
) -> float:
    extractor = create("features", spec).build(device)
    pixels = torch.zeros(_EXTRACTED, *shape, dtype=torch.uint8, device=device)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            extractor(pixels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
    return best / _EXTRACTED


def _length(cell: Cell) -> float:
    nfe = cell.sampler.nfe() if cell.sampler else None
    return float("inf") if nfe is None else float(nfe)
