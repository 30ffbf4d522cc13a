"""The order of a plan's jobs: which are ready, and which depend on a finished or failed one."""

from collections import deque
from collections.abc import Iterable, Mapping

from cmbench.store.jobs import Job
from cmbench.store.store import Address, Store
from cmbench.suite.planner import Plan

__all__ = ["Schedule", "needed_jobs"]


class Schedule:
    """Unfinished jobs in the plan's order; the cost is linear in jobs and dependencies.

    Args:
        jobs: All jobs of the plan.
        missing: Jobs without an output in the store.
    """

    def __init__(self, jobs: Mapping[Address, Job], missing: Iterable[Address]) -> None:
        wanted = set(missing)
        self._jobs = jobs
        self._lacks: dict[Address, int] = {}
        self._dependents: dict[Address, list[Address]] = {}
        self._ready: deque[Address] = deque()
        self._open: set[Address] = set()
        for address in (a for a in jobs if a in wanted):
            self._add(address, wanted)

    def __len__(self) -> int:
        """Counts the jobs that are neither done nor failed."""
        return len(self._open)

    def __contains__(self, address: Address) -> bool:
        return address in self._open

    def take(self) -> Job | None:
        """Takes the next job whose inputs are all available; None if there is none."""
        return self._jobs[self._ready.popleft()] if self._ready else None

    def done(self, address: Address) -> None:
        """Marks a job as done, so that jobs that depend on it may become ready."""
        self._open.discard(address)
        for dependent in self._dependents.pop(address, ()):
            if dependent in self._lacks:
                self._lacks[dependent] -= 1
                if self._lacks[dependent] == 0:
                    del self._lacks[dependent]
                    self._ready.append(dependent)

    def failed(self, address: Address) -> list[Address]:
        """Removes a failed job and all jobs that depend on it; returns the latter."""
        self._open.discard(address)
        lost, stack = [], list(self._dependents.pop(address, ()))
        while stack:
            dependent = stack.pop()
            if self._lacks.pop(dependent, None) is not None:
                self._open.discard(dependent)
                lost.append(dependent)
                stack += self._dependents.pop(dependent, ())
        return lost

    def again(self, address: Address) -> None:
        """Puts a job back for a retry, before all others."""
        self._open.add(address)
        self._ready.appendleft(address)

    def _add(self, address: Address, wanted: set[Address]) -> None:
        self._open.add(address)
        needs = {need for need in self._jobs[address].needs if need in wanted}
        for need in needs:
            self._dependents.setdefault(need, []).append(address)
        if needs:
            self._lacks[address] = len(needs)
        else:
            self._ready.append(address)


def needed_jobs(plan: Plan, store: Store) -> dict[Address, bool]:
    """Lists every job that the scores need, and whether its output is in the store.

    The inputs of a stored output are not needed and not listed.
    """
    present: dict[Address, bool] = {}
    survey = store.survey()

    def visit(address: Address) -> None:
        if address in present:
            return
        present[address] = survey(address)
        if not present[address]:
            for need in plan.jobs[address].needs:
                visit(need)

    for cell in plan.cells:
        for wanted in (*(s.job for s in cell.scores if s.job), *cell.shards):
            visit(wanted)
    return present
