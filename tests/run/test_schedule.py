"""The schedule: needs first, failures take their dependents along, retries come first."""

import random

from cmbench.engine.schedule import Schedule
from cmbench.store.jobs import Job, make_job


def _chain() -> list[Job]:
    first = make_job("train", {"n": 1})
    second = make_job("sample", {"n": 2}, needs=(first.address,))
    third = make_job("features", {"n": 3}, needs=(second.address,))
    return [first, second, third]


def test_a_job_is_ready_when_its_needs_are_done() -> None:
    jobs = _chain()
    schedule = Schedule({j.address: j for j in jobs}, [j.address for j in jobs])
    for job in jobs:
        assert schedule.take() is job
        assert schedule.take() is None
        schedule.done(job.address)
    assert len(schedule) == 0


def test_what_is_there_already_is_not_scheduled() -> None:
    jobs = _chain()
    schedule = Schedule({j.address: j for j in jobs}, [jobs[2].address])
    assert schedule.take() is jobs[2]


def test_a_failure_takes_all_dependents_along_and_no_others() -> None:
    jobs = _chain()
    other = make_job("train", {"n": 9})
    schedule = Schedule(
        {j.address: j for j in [*jobs, other]}, [j.address for j in [*jobs, other]]
    )
    assert schedule.take() is jobs[0]
    assert set(schedule.failed(jobs[0].address)) == {jobs[1].address, jobs[2].address}
    assert schedule.take() is other
    assert len(schedule) == 1


def test_a_job_to_be_tried_again_comes_first() -> None:
    jobs = [make_job("train", {"n": n}) for n in range(3)]
    schedule = Schedule({j.address: j for j in jobs}, [j.address for j in jobs])
    taken = schedule.take()
    assert taken is not None
    schedule.again(taken.address)
    assert schedule.take() is taken


def test_any_graph_is_done_in_an_order_that_respects_needs() -> None:
    chance = random.Random(0)
    jobs: list[Job] = []
    for n in range(300):
        needs = tuple(j.address for j in chance.sample(jobs, min(len(jobs), chance.randrange(4))))
        jobs.append(make_job("sample", {"n": n}, needs=needs))
    schedule = Schedule({j.address: j for j in jobs}, [j.address for j in jobs])
    running: list[Job] = []
    finished = set()
    while len(schedule):
        while (job := schedule.take()) is not None:
            assert set(job.needs) <= finished
            running.append(job)
        ended = running.pop(chance.randrange(len(running)))
        finished.add(ended.address)
        schedule.done(ended.address)
    assert len(finished) == 300
