"""One results folder, several hands: other suites of its name, other versions, runs at once."""

import json
import multiprocessing
from pathlib import Path

from forked import Forks, fresh

from cmbench.record.folder import read_speeds
from cmbench.record.schema import Speed
from cmbench.run.results import speeds_locked

SMALL = """\
suite: tiny
dataset: digits
images: {count: 20, shard: 20}
features: digits_classifier
metrics: [frechet_distance]
runs: [{model: oracle/consistency, label: oracle, sampler: multistep, nfe: [1, 2]}]
"""


def _cells(folder: Path) -> dict[str, bytes]:
    root = folder / "results" / "tiny"
    return {f.name: f.read_bytes() for f in (root / "records").glob("*.json")}


def test_another_suite_of_the_same_name_loses_nothing(forks: Forks, tmp_path: Path) -> None:
    folder = fresh(tmp_path / "a", SMALL)
    assert forks.run(folder).code == 0
    first = _cells(folder)
    speeds = (folder / "results/tiny/speed.json").read_bytes()
    (folder / "other.yaml").write_text(SMALL.replace("[1, 2]", "[3]"))
    for command in (("check",), ("plan",), ("run", "--no-report", "-q")):
        said = forks.start(folder, command[0], "other.yaml", *command[1:])
        assert said.wait() == 0, said.told
        assert "holds 2 finished cells" in said.told
        assert "run tiny.yaml" in said.told
        assert "other.yaml" in said.told
    assert len(_cells(folder)) == 1
    aside = folder / "results/tiny/set_aside/records"
    assert {f.name: f.read_bytes() for f in aside.iterdir()} == first
    back = forks.run(folder, "--json")
    assert back.code == 0
    assert '"new": 0' in back.told
    assert _cells(folder) == first
    assert (folder / "results/tiny/speed.json").read_bytes() == speeds


def test_records_of_a_newer_version_are_not_overwritten(forks: Forks, tmp_path: Path) -> None:
    folder = fresh(tmp_path / "a", SMALL)
    assert forks.run(folder).code == 0
    file = sorted((folder / "results/tiny/records").iterdir())[0]
    record = json.loads(file.read_text()) | {"schema_version": 2}
    file.write_text(json.dumps(record))
    run = forks.run(folder)
    assert run.code == 2
    assert str(file.relative_to(folder)) in run.told
    assert "newer cmbench" in run.told
    assert json.loads(file.read_text()) == record
    file.write_text(json.dumps(record | {"schema_version": 0}))
    run = forks.run(folder)
    assert run.code == 0
    assert "1 of the records" in run.told
    assert "older cmbench" in run.told


def _add(folder: Path, name: str, count: int) -> None:
    for number in range(count):
        with speeds_locked(folder) as speeds:
            speeds[f"{name}{number}"] = Speed(seconds_per_image=1.0, batch=1, device="cpu")


def test_speeds_of_runs_at_once_are_all_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_add, args=(tmp_path, name, 10)) for name in "abc"]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(read_speeds(tmp_path)) == 30
    assert [f.name for f in tmp_path.iterdir()] == ["speed.json"]
