"""The Slurm engine on a fake Slurm: the local engine's bytes, whatever is preempted or killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_suite import SUITE, cmbench, command, environment, fresh, outputs

from cmbench.engine.slurm_worker import Notes
from cmbench.store.jobs import make_job
from cmbench.store.store import Store

pytest.importorskip("submitit", reason="the extra 'slurm' is not installed")


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment with sbatch, srun, scontrol, scancel and sacct of our own."""
    place, commands = tmp_path / "slurm", tmp_path / "bin"
    place.mkdir()
    commands.mkdir()
    text = (Path(__file__).parent / "fake_slurm.py").read_text()
    for name in ("sbatch", "srun", "scontrol", "scancel", "sacct"):
        (commands / name).write_text(f"#!{sys.executable}\n{text}")
        (commands / name).chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(place)}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_any_number_of_workers_gives_the_local_engine_s_bytes(
    undisturbed, tmp_path, slurm, workers
):
    folder = fresh(tmp_path / "a")
    done = cmbench(folder, "run", "tiny.yaml", "--engine", "slurm", "--workers", str(workers), **slurm)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(Path(slurm["FAKE_SLURM"]).glob("*/starts"))) == workers
    assert outputs(folder) == outputs(undisturbed)
    assert not list((folder / "cache" / "leases").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_preempted_stopped_and_killed_workers_change_nothing(undisturbed, tmp_path, slurm):
    folder, place = fresh(tmp_path / "a"), Path(slurm["FAKE_SLURM"])
    arguments = ("run", "tiny.yaml", "--engine", "slurm", "--workers", "3", "--slurm", "time=120")
    driver = subprocess.Popen(command(*arguments), cwd=folder, env=environment(folder, **slurm),
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    _wait_for(lambda: list((folder / "cache").rglob("checkpoint-*.pt")))
    steps = [place / f"1000_{i}" / "step" for i in range(3)]
    _wait_for(lambda: all(step.exists() for step in steps))
    pids = [int(step.read_text()) for step in steps]
    time.sleep(1)
    for pid, number in zip(pids, (signal.SIGUSR2, signal.SIGUSR2, signal.SIGKILL), strict=True):
        os.kill(pid, number)
    # Both that were told in time had themselves requeued; whoever trained left a checkpoint.
    starts = [place / f"1000_{i}" / "starts" for i in range(3)]
    _wait_for(lambda: [len(s.read_text()) for s in starts[:2]] == [2, 2])
    _, told = driver.communicate(timeout=900)
    assert driver.returncode == 0, told
    assert len(starts[2].read_text()) == 1
    assert outputs(folder) == outputs(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_driver_leaves_its_array_at_work_and_the_next_one_shares(
    undisturbed, tmp_path, slurm
):
    folder = fresh(tmp_path / "a")
    arguments = ("run", "tiny.yaml", "--engine", "slurm", "--workers", "2")
    driver = subprocess.Popen(command(*arguments), cwd=folder, env=environment(folder, **slurm),
                              stderr=subprocess.DEVNULL)  # fmt: skip
    _wait_for(lambda: list((folder / "cache").rglob("checkpoint-*.pt")))
    driver.kill()
    driver.wait()
    done = cmbench(folder, *arguments, **slurm)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == outputs(undisturbed)
    first = sorted(Path(slurm["FAKE_SLURM"]).glob("1000_*/state"))
    _wait_for(lambda: [state.read_text() for state in first] == ["COMPLETED"] * 2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_fault_of_a_plugin_is_told_and_the_others_go_on(tmp_path, slurm):
    folder = fresh(tmp_path / "a")
    (folder / "models").mkdir()
    (folder / "models" / "sick.py").write_text(
        '"""Sick."""\nfrom cmbench.api import Model\n__all__ = ["Sick"]\n'
        'class Sick(Model):\n    sampler = {"name": "euler"}\n'
        '    def build(self):\n        raise KeyError("a fault of the plugin")\n'
    )
    head, runs = SUITE.split("runs:\n")
    oracle = runs[runs.index("  - model: oracle") :]
    sick = "  - model: sick\n    label: sick\n    nfe: [1]\n"
    (folder / "tiny.yaml").write_text(f"{head}runs:\n{sick}{oracle}")
    done = cmbench(folder, "run", "tiny.yaml", "--engine", "slurm", "--workers", "2", **slurm)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    table = (folder / "results" / "tiny" / "leaderboard.md").read_text()
    assert "a fault of the plugin" in table
    assert "| oracle | 2 |" in table


def test_a_machine_without_slurm_is_told(tmp_path):
    folder = fresh(tmp_path / "a")
    done = cmbench(folder, "run", "tiny.yaml", "--engine", "slurm")
    assert done.returncode == 2
    assert "srun is not on PATH" in done.stderr
    assert "Traceback" not in done.stderr


def test_journals_are_read_line_by_line_once(tmp_path):
    notes, read = Notes(tmp_path), {}
    notes.add_entry("0-1", "aa", 1.5)
    with (tmp_path / "journal" / "0-1").open("a") as file:
        file.write("bb 2")
    assert notes.new_entries(read) == [("aa", 1.5)]
    with (tmp_path / "journal" / "0-1").open("a") as file:
        file.write(".25\n")
    notes.add_entry("1-1", "cc", 3)
    assert notes.new_entries(read) == [("bb", 2.25), ("cc", 3.0)]
    assert notes.new_entries(read) == []


def test_a_job_begun_and_never_ended_is_counted(tmp_path):
    notes = Notes(tmp_path)
    assert [notes.begin("k"), notes.begin("k")] == [0, 1]
    notes.end("k")
    assert notes.begin("k") == 0


def test_a_lease_that_another_holds_is_passed_over(tmp_path):
    address = make_job("train", {"n": 1}).address
    first, second = Store(tmp_path), Store(tmp_path)
    with first.lease_if_free(address) as mine:
        assert mine
        with second.lease_if_free(address) as theirs:
            assert not theirs
    with second.lease_if_free(address) as theirs:
        assert theirs


def _wait_for(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 600
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)
