"""Several runs of one suite at once, on one store and one results folder."""

import re

import pytest
from forked import fresh, outputs, same, wait_for


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_runs_at_once_share_the_work_and_agree(forks, whole, tmp_path, processes):
    folder = fresh(tmp_path / "a")
    runs = [forks.start(folder, "run", "tiny.yaml", "--no-report") for _ in range(processes)]
    assert [run.wait() for run in runs] == [0] * processes, [run.told for run in runs]
    same(outputs(folder), outputs(whole))
    made = [t for run in runs for t in re.findall(r"^\[\d+/\d+\] (.*) \(", run.told, re.M)]
    # What samplings begin with is dropped when all that they serve is there; a run that comes late
    # may make it once more.
    lasting = [title for title in made if not title.startswith("begin ")]
    kept = (folder / "cache" / "objects").glob("*/*/*")
    assert len(lasting) == len([place for place in kept if place.parts[-3] != "prefix"])
    assert not list((folder / "cache" / "leases").iterdir())
    assert not list((folder / "cache" / "tmp").iterdir())


def test_one_of_two_is_killed(forks, whole, tmp_path):
    folder = fresh(tmp_path / "a")
    first, second = (forks.start(folder, "run", "tiny.yaml", "--no-report") for _ in range(2))
    wait_for(lambda: list((folder / "cache" / "objects" / "sample").glob("*/*")))
    first.kill()
    assert second.wait() == 0, second.told
    same(outputs(folder), outputs(whole))
