"""Runs of the command line as processes of their own, forked from one that has imported torch.

A forked run starts in milliseconds and is killed, stopped and waited for like any other: hundreds
of faults can be tried in the time that a few interpreters need to import torch.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITE = """\
suite: tiny
dataset: digits
images: {count: 20, shard: 8}
features: digits_classifier
metrics: [frechet_distance, kid]
runs:
  - model: edm/digits
    label: EDM
    train: {images: 256, batch: 32, save_every_images: 64, log_every: 2}
    nfe: [1, 3]
  - model: oracle/consistency
    label: oracle
    sampler: multistep
    nfe: [1, 2]
"""

_SERVER = """\
import json, os, sys, traceback
import cmbench.cli.main, cmbench.engine.open, cmbench.run.suite, cmbench.suite.planner
import cmbench.suite.spec, cmbench.notebook, cmbench.report.write, cmbench.audit.compare
import scipy.linalg, scipy.stats, torchvision, sklearn.datasets, torch
torch.set_num_threads(1)

def run(order):
    os.setsid()
    out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(out, 1); os.dup2(out, 2); os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 70
    try:
        os.chdir(order["folder"])
        os.environ.update(order["environment"])
        sys.path.insert(0, order["folder"])
        exec(order["before"], {})
        sys.argv = ["cmbench", *order["arguments"]]
        cmbench.cli.main.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitpid(order["wait"], os.WNOHANG if order["poll"] else 0)
    else:
        child = os.fork()
        if child == 0:
            run(order)
        answer = [child, 0]
    print(json.dumps(answer), flush=True)
"""


@dataclass
class Run:
    """One run of the command line."""

    ask: Callable[[dict[str, Any]], list[int]]
    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._wait(poll=True)

    def wait(self) -> int:
        """Its exit code once it has ended."""
        code = self._wait(poll=False)
        assert code is not None
        return code

    def kill(self) -> bool:
        """Kills it with -9, its children too; whether it still ran."""
        running = self.poll() is None
        if running:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
        return running

    @property
    def told(self) -> str:
        """All that it printed."""
        return self.log.read_text()

    def _wait(self, *, poll: bool) -> int | None:
        if self.code is None:
            pid, status = self.ask({"wait": self.pid, "poll": poll})
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code


class Forks:
    """The process that the runs are forked from."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CMBENCH_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env=environment | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.logs = 0

    def start(
        self, folder: Path, *arguments: str, before: str = "", environment: dict[str, str] | None = None
    ) -> Run:  # fmt: skip
        """Starts `cmbench ARGUMENTS` in a folder, with its cache there.

        Args:
            before: Code that the process executes first.
        """
        self.logs += 1
        log = folder / f"log-{self.logs}.txt"
        given = {"CMBENCH_CACHE": str(folder / "cache"), **(environment or {})}
        pid, _ = self._ask(
            {"folder": str(folder), "arguments": arguments, "before": before,
             "environment": given, "log": str(log)}
        )  # fmt: skip
        return Run(self._ask, pid, log)

    def run(self, folder: Path, *arguments: str, **more: Any) -> Run:
        """Runs `cmbench run tiny.yaml ARGUMENTS` to its end, without a report."""
        run = self.start(folder, "run", "tiny.yaml", "--no-report", *arguments, **more)
        run.wait()
        return run

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> list[int]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: list[int] = json.loads(self.process.stdout.readline())
        return answer


def fresh(folder: Path, suite: str = SUITE) -> Path:
    """A folder with the suite's file."""
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(suite)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    """What two runs of the same work must have in common: every file but timings and times."""
    root = folder / "results" / "tiny"
    files = [f for sub in ("records", "samples", "training") for f in (root / sub).glob("*")]
    kept = {str(f.relative_to(root)): f.read_bytes() for f in files}
    objects = folder / "cache" / "objects"
    for kind, names in {
        "sample": ("pixels.npy", "facts.json"),
        "train": ("weights.safetensors", "log.json"),
        "features": ("pool.npy", "logits.npy"),
        "reference": ("reference.npz",),
        "score": ("scores.json",),
    }.items():
        for name in names:
            for f in (objects / kind).rglob(name):
                kept[f"{kind}/{f.parent.name}/{name}"] = f.read_bytes()
    return kept


def wait_for(there: Callable[[], object], seconds: float = 120) -> None:
    """Waits until something is true."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def same(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """Fails with the names of what differs, not with its bytes."""
    names: Sequence[str] = sorted(found.keys() | wanted.keys())
    assert [n for n in names if found.get(n) != wanted.get(n)] == []
    assert wanted
