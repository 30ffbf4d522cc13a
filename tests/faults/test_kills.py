"""kill -9 at random moments: the run that is started again ends with the undisturbed bytes."""

import random
import time

import pytest
from forked import fresh, outputs, same


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost_or_wrong(forks, whole, tmp_path, kills):
    """Each kill comes at a moment of what is still to do; a run that ended first starts afresh."""
    chance = random.Random(kills)
    length = float((whole / "seconds").read_text())
    folder, wanted, hit, series = fresh(tmp_path / "0"), outputs(whole), 0, 0
    while hit < kills:
        run = forks.start(folder, "run", "tiny.yaml", "--no-report")
        time.sleep(chance.uniform(0, length / 3))
        if run.kill():
            hit += 1
            # A file that was being written lies under another name until the next run.
            found = {n: b for n, b in outputs(folder).items() if not n.endswith(".tmp")}
            assert [n for n, b in found.items() if wanted.get(n) != b] == []
        else:
            assert run.code == 0, run.told
            same(outputs(folder), wanted)
            series += 1
            folder = fresh(tmp_path / str(series))
    run = forks.run(folder)
    assert run.code == 0, run.told
    same(outputs(folder), wanted)
    assert "Traceback" not in run.told
