"""Whole runs on machines that share nothing but S3 storage: the local engine's bytes, once made."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import cmbench, command, environment, fresh, outputs

pytest.importorskip("moto", reason="the extra 'test' is not installed")
pytest.importorskip("s3fs", reason="the extra 'cloud' is not installed")
from s3_server import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as told:
        yield told


@pytest.fixture
def shared(server: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables of every machine of one test."""
    return {**server, "CMBENCH_STORE": f"s3://shared/{tmp_path.name}"}


def _start(folder: Path, shared: dict[str, str], *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command("run", "tiny.yaml", "--no-report", *more), cwd=folder,
                            env=environment(folder, **shared), stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


def _made(told: str) -> list[str]:
    """Titles of the jobs that a run did itself; beginnings are dropped and may be made again."""
    titles = re.findall(r"^\[\d+/\d+\] (.*) \(", told, re.MULTILINE)
    return [title for title in titles if not title.startswith("begin ")]


def _results(folder: Path) -> dict[str, bytes]:
    kept = ("records", "samples", "training")
    return {name: data for name, data in outputs(folder).items() if name.startswith(kept)}


def test_two_machines_share_the_work_and_a_third_finds_it_done(undisturbed, tmp_path, shared):
    folders = [fresh(tmp_path / name) for name in ("one", "two", "three")]
    runs = [_start(folder, shared) for folder in folders[:2]]
    told = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    every = list((undisturbed / "cache" / "objects").glob("*/*/*"))
    assert sum(len(_made(text)) for text in told) == len(every)
    assert all(_made(text) for text in told), "one did nothing"
    third = _start(folders[2], shared)
    told_third = third.communicate()[1]
    assert third.returncode == 0, told_third
    assert _made(told_third) == []
    for folder in folders:
        assert _results(folder) == _results(undisturbed)


def test_what_a_killed_machine_had_made_and_begun_is_taken_over(undisturbed, tmp_path, shared):
    """Its disk is lost too: outputs and checkpoints come from the storage."""
    one, two = fresh(tmp_path / "one"), fresh(tmp_path / "two")
    first = _start(one, shared)
    _wait_for(lambda: list((one / "cache" / "objects" / "sample").rglob("pixels.npy")))
    first.send_signal(signal.SIGKILL)
    told = first.communicate()[1]
    shutil.rmtree(one / "cache")
    done = cmbench(two, "run", "tiny.yaml", "--no-report", **shared)
    assert done.returncode == 0, done.stderr
    assert _results(two) == _results(undisturbed)
    every = list((undisturbed / "cache" / "objects").glob("*/*/*"))
    made = len(_made(told)) + len(_made(done.stderr))
    assert abs(made - len(every)) <= 1, "more than the job that it was at"


def test_storage_that_does_not_answer_is_told(tmp_path, shared):
    folder = fresh(tmp_path / "one")
    away = {**shared, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = cmbench(folder, "run", "tiny.yaml", "--no-report", **away)
    assert done.returncode == 2
    assert "s3://shared/" in done.stderr
    assert "Traceback" not in done.stderr


def _wait_for(there: Any) -> None:
    until = time.monotonic() + 600
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)
