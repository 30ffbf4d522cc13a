"""The Ray engine on a real cluster of two nodes: the local engine's bytes, whatever dies."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import SUITE, cmbench, command, environment, fresh, outputs

pytest.importorskip("ray", reason="the extra 'ray' is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SICK = '''\
"""Sick: sleeps or fails, as a file beside it says."""
import time
from pathlib import Path
import torch
from cmbench.api import Denoiser, Model
__all__ = ["Sick"]
class _D(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = torch.nn.Identity()
    def forward(self, x, sigma, labels=None):
        if Path("{folder}/hang").exists():
            time.sleep(600)
        raise KeyError("a fault of the plugin")
class Sick(Model):
    sampler = {{"name": "euler"}}
    def build(self):
        return _D()
'''


_PATIENT = {
    # On a busy machine a raylet may be silent for minutes: it is then slow, not dead.
    "health_check_initial_delay_ms": 60_000,
    "health_check_period_ms": 10_000,
    "health_check_timeout_ms": 120_000,
    "health_check_failure_threshold": 10,
    "gcs_rpc_server_reconnect_timeout_s": 300,
    "gcs_server_request_timeout_seconds": 300,
    "worker_register_timeout_seconds": 300,
    "raylet_death_check_interval_milliseconds": 10_000,
    "timeout_ms_task_wait_for_death_info": 60_000,
    "enable_worker_prestart": False,
    "prestart_worker_first_driver": False,
    "metrics_report_interval_ms": 60_000,
}


@contextmanager
def _nodes(variables: Sequence[dict[str, str]]) -> Iterator[Any]:
    """A cluster of nodes of one CPU, each with these variables; no dashboard, little memory."""
    from ray.cluster_utils import Cluster

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    head = {**small, "_system_config": _PATIENT, "env_vars": variables[0]}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for told in variables[1:]:
            made.add_node(wait=True, env_vars=told, **small)
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def cluster() -> Iterator[Any]:
    with _nodes([{}, {}]) as made:
        yield made


def _ray(folder: Path, cluster: Any, *more: str) -> subprocess.CompletedProcess[str]:
    return cmbench(
        folder, "run", "tiny.yaml", "--engine", "ray", "--address", cluster.address, *more
    )


def test_two_nodes_give_the_local_engine_s_bytes(undisturbed, tmp_path, cluster):
    folder = fresh(tmp_path / "a")
    done = _ray(folder, cluster)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == outputs(undisturbed)


@pytest.mark.parametrize("workers", [1, 7])
def test_other_counts_of_workers_give_the_same_bytes(undisturbed, tmp_path, workers):
    """One node that offers so many CPUs: as many jobs at once, whatever the cores."""
    folder = fresh(tmp_path / "e")
    done = cmbench(folder, "run", "tiny.yaml", "--engine", "ray", "--cpus", f"{1 / workers:.3f}")
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == outputs(undisturbed)


def test_killed_workers_a_dead_node_and_a_killed_driver_change_nothing(
    undisturbed, tmp_path, cluster
):
    folder = fresh(tmp_path / "b")
    arguments = ("run", "tiny.yaml", "--engine", "ray", "--address", cluster.address)
    driver = subprocess.Popen(command(*arguments), cwd=folder, env=environment(folder),
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    _wait_for(lambda: list((folder / "cache").rglob("checkpoint-*.pt")))
    assert _kill_workers() >= 1
    _wait_for(lambda: list((folder / "cache" / "objects" / "sample").rglob("pixels.npy")))
    cluster.remove_node(next(iter(cluster.worker_nodes)))
    time.sleep(1)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=300)
    done = _ray(folder, cluster)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == outputs(undisturbed)


def test_nodes_with_disks_of_their_own_share_object_storage(undisturbed, tmp_path):
    pytest.importorskip("moto", reason="the extra 'test' is not installed")
    pytest.importorskip("s3fs", reason="the extra 'cloud' is not installed")
    from s3_server import s3_server

    disks = [tmp_path / "disk0", tmp_path / "disk1"]
    folder = fresh(tmp_path / "f")
    with s3_server() as told:
        shared = {**told, "CMBENCH_STORE": "s3://shared/ray"}
        with _nodes([{**told, "CMBENCH_CACHE": str(disk)} for disk in disks]) as cluster:
            done = cmbench(folder, "run", "tiny.yaml", "--engine", "ray",
                           "--address", cluster.address, **shared)  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = ("records", "samples", "training")
    expected = {n: d for n, d in outputs(undisturbed).items() if n.startswith(kept)}
    assert {n: d for n, d in outputs(folder).items() if n.startswith(kept)} == expected
    for disk in disks:
        assert list((disk / "objects").glob("*/*/*/manifest.json")), f"{disk} did nothing"


def test_a_plugin_s_fault_and_a_hung_job_fail_alone(tmp_path, cluster):
    folder = fresh(tmp_path / "c")
    (folder / "models").mkdir()
    (folder / "models" / "sick.py").write_text(SICK.format(folder=folder))
    head, runs = SUITE.split("runs:\n")
    oracle = runs[runs.index("  - model: oracle") :]
    sick = "  - model: sick\n    label: sick\n    nfe: [1]\n"
    (folder / "tiny.yaml").write_text(f"{head}runs:\n{sick}{oracle}")
    for hung in (False, True):
        if hung:
            (folder / "hang").touch()
        done = _ray(folder, cluster, "--timeout", "30", "--json")
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        table = (folder / "results" / "tiny" / "leaderboard.md").read_text()
        assert ("no sign of life for 30 s, 3 times" if hung else "a fault of the plugin") in table
        assert "| oracle | 2 |" in table


def test_a_cluster_that_does_not_answer_is_told(tmp_path):
    folder = fresh(tmp_path / "d")
    done = cmbench(folder, "run", "tiny.yaml", "--engine", "ray", "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def _wait_for(there: Any) -> None:
    deadline = time.monotonic() + 600
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _kill_workers() -> int:
    """Kills every process that is at a task of ours; Ray's own agents bear such names too, and a
    node does not outlive them.
    """
    killed = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if re.match(rb"ray::(reference|train|begin|sample|features|score) ", line):
            os.kill(int(folder.name), signal.SIGKILL)
            killed += 1
    return killed
