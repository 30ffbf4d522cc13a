"""The scheduler at 1,000 devices and 100,000 cells, simulated with fake jobs of measured lengths.

    python benchmarks/scheduler.py [--cells 100000] [--devices 1000] [--dispatch 0.001]

A cell is a chain of three jobs: a shard of samples, its features, a score. Lengths of samplings
are those of a results folder (`speed.json`, seconds per image times 500), drawn at random;
features and scores take `--features` and `--score` seconds. The schedule is the engines' own; the
clock is simulated. One driver hands jobs out one by one and spends `--dispatch` seconds on each
(what Ray takes for a submission and its result), so that a large cluster may wait for it.

Printed: CPU of the schedule itself per job, memory that jobs and schedule hold, the time that the
cells take, the part of it in which devices work, and the longest wait of a free device.
"""

import argparse
import heapq
import json
import random
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from cmbench.engine.schedule import Schedule
from cmbench.store.jobs import Job, make_job

SHARD = 500


@dataclass(frozen=True)
class Outcome:
    """Result of a simulated run.

    Args:
        took: Seconds on the simulated clock.
        busy: Share of the devices' time in which they work.
        longest_wait: Seconds on the simulated clock that a free device waited at most.
        cpu: Seconds of real CPU that the schedule took.
    """

    took: float
    busy: float
    longest_wait: float
    cpu: float


def chains(cells: int) -> list[Job]:
    """Three jobs per cell, with keys, needs and titles as a plan has them."""
    jobs = []
    for i in range(cells):
        sample = make_job("sample", {"cell": i}, title=f"sample model {i} [0:{SHARD}]")
        features = make_job("features", {"cell": i}, needs=(sample.address,), title=f"of {i}")
        score = make_job("score", {"cell": i}, needs=(features.address,), title=f"score {i}")
        jobs += [sample, features, score]
    return jobs


def simulate(
    jobs: list[Job], lengths: dict[str, list[float]], devices: int, dispatch: float
) -> Outcome:
    """Runs the schedule on a simulated clock.

    Args:
        jobs: In the plan's order.
        lengths: Seconds by kind of job, of which one is drawn for each.
        devices: How many work at once.
        dispatch: Seconds of the driver for each job.
    """
    chance = random.Random(0)
    by_address = {job.address: job for job in jobs}
    begun = time.process_time()
    schedule = Schedule(by_address, by_address)
    cpu = time.process_time() - begun
    free = deque([0.0] * devices)
    running: list[tuple[float, int, Job]] = []
    now = driver = busy = longest = 0.0
    count = 0
    while len(schedule):
        while free:
            begun = time.process_time()
            job = schedule.take()
            cpu += time.process_time() - begun
            if job is None:
                break
            driver = max(driver, now) + dispatch
            longest = max(longest, driver - max(free.popleft(), 0.0))
            length = chance.choice(lengths[job.address.kind])
            busy += length
            count += 1
            heapq.heappush(running, (driver + length, count, job))
        now, _, ended = heapq.heappop(running)
        free.append(now)
        begun = time.process_time()
        schedule.done(ended.address)
        cpu += time.process_time() - begun
    return Outcome(now, busy / (now * devices), longest, cpu)


def measured(folder: Path) -> list[float]:
    """Seconds of a shard of each cell of a results folder."""
    told = json.loads((folder / "speed.json").read_text("utf-8"))
    return [SHARD * speed["seconds_per_image"] for speed in told.values()]


def main() -> None:
    """Prints one line per number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--devices", default="10,100,1000")
    parser.add_argument("--dispatch", type=float, default=0.001)
    parser.add_argument("--features", type=float, default=2.0)
    parser.add_argument("--score", type=float, default=1.0)
    parser.add_argument("--results", type=Path, default=Path("results/cifar10_nfe"))
    given = parser.parse_args()
    samples = measured(given.results)
    lengths = {"sample": samples, "features": [given.features], "score": [given.score]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jobs = chains(given.cells)
    sys.stdout.write(
        f"{given.cells:,} cells, {len(jobs):,} jobs; a shard of samples {min(samples):.1f} to "
        f"{max(samples):.1f} s\n"
    )
    for devices in map(int, given.devices.split(",")):
        found = simulate(jobs, lengths, devices, given.dispatch)
        held = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        sys.stdout.write(
            f"{devices:,} devices: {found.took / 3600:.2f} h, {found.busy:.1%} of them at work, "
            f"schedule {found.cpu / len(jobs) * 1e6:.1f} us of CPU a job, {held:.0f} MiB held, "
            f"longest wait of a device {found.longest_wait:.1f} s\n"
        )


if __name__ == "__main__":
    main()
