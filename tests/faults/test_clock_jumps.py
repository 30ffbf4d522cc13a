"""Clocks that jump, of this machine or of another that shares the store: leases hold, bytes agree."""

import re

from forked import fresh, outputs, same

JUMPS = """
import itertools, os, socket, time
import cmbench.store.leases as leases
leases._HEARTBEAT_SECONDS, leases._STALE_SECONDS = 0.2, 20.0
jumps = itertools.cycle([0, 4e8, -4e8, 86400, -3600])
now, touch = time.time, os.utime
time.time = lambda: now() + next(jumps)
def jumping(path, *more, **named):
    moment = time.time()
    touch(path, (moment, moment))
os.utime = jumping
socket.gethostname = lambda: {host!r}
"""


def test_a_run_whose_clock_jumps_ends_with_the_same_bytes(forks, whole, tmp_path):
    folder = fresh(tmp_path / "a")
    run = forks.run(folder, before=JUMPS.format(host="here"))
    assert run.code == 0, run.told
    same(outputs(folder), outputs(whole))


def test_two_machines_with_jumping_clocks_take_no_lease_from_each_other(forks, whole, tmp_path):
    """Neither knows the other's processes: each judges the other by its heartbeats alone."""
    folder = fresh(tmp_path / "a")
    runs = [
        forks.start(folder, "run", "tiny.yaml", "--no-report", before=JUMPS.format(host=host))
        for host in ("one", "two")
    ]
    assert [run.wait() for run in runs] == [0, 0], [run.told for run in runs]
    same(outputs(folder), outputs(whole))
    made = [t for run in runs for t in re.findall(r"^\[\d+/\d+\] (.*) \(", run.told, re.M)]
    lasting = [title for title in made if not title.startswith("begin ")]
    kept = (folder / "cache" / "objects").glob("*/*/*")
    assert len(lasting) == len([place for place in kept if place.parts[-3] != "prefix"])
