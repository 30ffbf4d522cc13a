"""Shared beginnings of samplings: the bytes of separate runs, and how many evaluations it takes."""

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cmbench.core.loader import available, create
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.engine.context import JobContext
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import PlainProgress
from cmbench.engine.replay import (
    NotKeptError,
    OtherCallError,
    Recorder,
    read_calls,
    replaying,
)
from cmbench.run.estimate import estimate_plan
from cmbench.run.plan_table import plan_as_json, print_plan
from cmbench.store.store import Store
from cmbench.suite.planner import Plan, make_plan
from cmbench.suite.spec import read_suite

MODEL = '''\
"""Counting: a small network that writes down the rows of each of its calls."""
import os
import time
import torch
from torch import nn
from cmbench.api import Denoiser, Model

__all__ = ["Counting"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x, sigma):
        with open("calls.txt", "a") as file:
            file.write(f"{len(x)}\\n")
        time.sleep(float(os.environ.get("SLOW", "0")))
        out = self.b(torch.tanh(self.a(x) + sigma[:, None, None, None].log()))
        return {PLAIN}


class D(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = Net()

    def forward(self, x, sigma, labels=None):
        scale = (sigma**2 + 0.25).rsqrt()[:, None, None, None]
        raw = self.net((scale * x).float(), sigma.float())
        raw = raw[0] if isinstance(raw, tuple) else raw
        raw += 1e-3  # in place: what is kept for others must not change by it
        return (0.25 * scale**2) * x + raw.double().tanh() * 0.9


class Counting(Model):
    sampler = {"name": "multistep"}

    def build(self):
        return D()
'''
HEAD = """\
suite: shared
dataset: digits
images: {{count: 24, shard: 16}}
features: pixels
batch: 5
metrics: [frechet_distance]
runs:
{runs}
"""
RUNS = [
    "  - {model: counting, label: a, sampler: multistep_nested, nfe: [1, 2, 3, 4, 5]}",
    "  - {model: counting, label: b, sampler: heun, nfe: [1, 3, 7]}",
    "  - {model: counting, label: c, sampler: [{name: dpmpp_2m, steps: 4}, {name: euler, steps: 6}]}",
]  # fmt: skip


def place(folder: Path, runs: list[str], plain: str = "out") -> Path:
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "counting.py").write_text(MODEL.replace("{PLAIN}", plain))
    return written(folder, runs)


def written(folder: Path, runs: list[str]) -> Path:
    (folder / "shared.yaml").write_text(HEAD.format(runs="\n".join(runs)))
    return folder


def made(folder: Path) -> dict[str, bytes]:
    """Pixels and facts by key; scores by key."""
    kept = {}
    for name in ("pixels.npy", "facts.json", "scores.json"):
        for file in (folder / "cache" / "objects").rglob(name):
            kept[f"{file.parent.name}/{name}"] = file.read_bytes()
    return kept


def counted(folder: Path) -> int:
    """Rows that passed through the network; the counter of FLOPs adds one a shard and cell."""
    path = folder / "calls.txt"
    rows = [int(line) for line in path.read_text().split()] if path.is_file() else []
    path.unlink(missing_ok=True)
    return sum(rows)


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """No power is lost here, and a kill loses nothing that was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def planned(folder: Path) -> Plan:
    return make_plan(*read_suite(str(folder / "shared.yaml")))


def run(folder: Path) -> Plan:
    """All that the suite's records are made of."""
    plan = planned(folder)
    engine = LocalEngine(context(folder), PlainProgress(Console(quiet=True), 0))
    for cell in plan.cells:
        for wanted in (*(s.job for s in cell.scores), *cell.shards):
            engine.make(plan, wanted)
    return plan


def context(folder: Path) -> JobContext:
    return JobContext(Store(folder / "cache"), torch.device("cpu"))


def split(runs: list[str]) -> list[str]:
    """Every cell of the suite as a run of its own."""
    heads = {"a": "multistep_nested", "b": "heun"}
    cells = [
        f"  - {{model: counting, label: {label}, sampler: {heads[label]}, nfe: [{nfe}]}}"
        for label, spent in (("a", (1, 2, 3, 4, 5)), ("b", (1, 3, 7)))
        for nfe in spent
    ]
    return [*cells, *(f"  - {{model: counting, label: c, sampler: {s}}}" for s in
                      ("{name: dpmpp_2m, steps: 4}", "{name: euler, steps: 6}"))]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return place(tmp_path, RUNS)


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> dict[str, bytes]:
    """Each cell in a suite and a cache of its own: nothing is shared."""
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        for number, line in enumerate(split(RUNS)):
            folder = place(tmp_path_factory.mktemp("apart") / str(number), [line])
            patch.chdir(folder)
            assert not [a for a in run(folder).jobs if a.kind == "prefix"]
            kept |= made(folder)
    return kept


def test_shared_samplings_are_the_separate_ones_to_the_byte(apart, folder):
    plan = planned(folder)
    told = estimate_plan(plan, context(folder).store, torch.device("cpu"))
    counted(folder)
    run(folder)
    assert made(folder) == apart
    # Nested steps 1..5: 5. One call begins Heun 1, 3, 7, DPM-Solver++ 4 and Euler 6: 1 + 2 + 6 + 3 + 5.
    assert told.evaluations == 24 * (5 + 17)
    assert told.saved == 24 * (15 + 11 + 10 - 22)
    assert counted(folder) == told.evaluations + FLOPS
    # What was kept for others is gone once they are there.
    assert not list((folder / "cache/objects/prefix").rglob("calls.safetensors"))


FLOPS = 1
"""The counter of FLOPs asks for one image a run: all calls here are of one form."""


def test_the_plan_says_what_is_saved(folder):
    plan, store = planned(folder), context(folder).store
    told = estimate_plan(plan, store, torch.device("cpu"))
    console = Console(record=True, width=200, file=io.StringIO())
    print_plan(plan, store, told, console)
    assert "336 of 864 saved" in console.export_text()
    assert plan_as_json(plan, store, told)["evaluations_saved"] == 336


def test_members_that_are_there_are_not_made_again(apart, folder):
    written(folder, ["  - {model: counting, label: a, sampler: multistep_nested, nfe: [1, 2]}"])
    run(folder)
    stamps = {f: f.stat().st_mtime_ns for f in (folder / "cache").rglob("pixels.npy")}
    counted(folder)
    written(folder, ["  - {model: counting, label: a, sampler: multistep_nested, nfe: [1, 2, 4]}"])
    run(folder)
    # Pixels don't bring back the state, so the missing member's four calls are made, no more.
    assert counted(folder) == 24 * 4 + FLOPS
    assert all(f.stat().st_mtime_ns == stamp for f, stamp in stamps.items())
    assert {k for k in made(folder) if "pixels" in k} <= set(apart)
    assert all(apart[k] == v for k, v in made(folder).items())


def test_killed_between_members_only_the_one_in_progress_is_lost(apart, folder):
    written(folder, RUNS[:1])
    objects = folder / "cache" / "objects"
    child = os.fork()
    if child == 0:
        os.environ["SLOW"] = "0.02"
        run(folder)
        os._exit(0)
    deadline = time.monotonic() + 60
    while len(list(objects.rglob("pixels.npy"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    there = len(list(objects.rglob("pixels.npy")))
    assert 5 <= there < 10
    sizes = [json.loads((f.parent / "manifest.json").read_text())["spec"]["count"]
             for f in objects.rglob("calls.safetensors")]  # fmt: skip
    counted(folder)
    run(folder)
    # No call that was kept is made again.
    assert len(sizes) >= 2
    assert counted(folder) <= 24 * 5 + FLOPS - sum(sizes)
    assert all(apart[k] == v for k, v in made(folder).items())
    assert len([k for k in made(folder) if "pixels" in k]) == 10


@pytest.mark.parametrize("plain", ["(out, sigma)", "torch.cat([out, out])"])
def test_what_can_not_be_kept_is_made_by_each(apart, plain, tmp_path, monkeypatch):
    folder = place(tmp_path, RUNS[1:2], plain)
    path = folder / "models" / "counting.py"
    path.write_text(path.read_text().replace("raw += 1e-3", "raw = raw[: len(x)] + 1e-3"))
    monkeypatch.chdir(folder)
    run(folder)
    assert sum("pixels" in k for k in made(folder)) == 6
    assert all(apart[k] == v for k, v in made(folder).items() if "pixels" in k)
    assert counted(folder) >= 24 * 11


class _Mixed(Denoiser):
    """Has levels of its own, so that rounding counts, and calls that tell all their inputs."""

    def __init__(self) -> None:
        super().__init__((1, 4, 4), sigma_min=0.01, sigma_max=50.0)
        self.net, self.asked = torch.nn.Identity(), []

    def forward(self, x, sigma, labels=None):
        self.asked.append((x.clone(), sigma.clone()))
        return torch.tanh(self.net(x) / (1 + sigma[:, None, None, None]))

    def round_sigma(self, sigma):
        return (sigma * 1e5).round() / 1e5 + 1e-6


SAMPLERS = [s.name for s in available("sampler") if create("sampler", s.name).prefixes()]


def _calls(sampler) -> list[tuple[torch.Tensor, torch.Tensor]]:
    denoiser = _Mixed()
    with torch.inference_mode():
        sampler.sample(denoiser, Noise(0, range(3), (1, 4, 4)))
    return denoiser.asked


@pytest.mark.parametrize("name", [n for n in SAMPLERS if not n.startswith("flow")])
def test_the_calls_of_a_prefix_are_the_first_of_the_sampler(name):
    kinds = [create("sampler", name)]
    if "steps" in type(kinds[0]).model_fields:
        kinds += [create("sampler", {"name": name, "steps": n}) for n in (1, 2, 3, 4, 6)]
    if name == "multistep":
        kinds += [create("sampler", {"name": name, "indices": (0, 11, 22, 39)}),
                  create("sampler", {"name": name, "sigmas": (3.0, 1.0, 0.2)})]  # fmt: skip
    for sampler in kinds:
        whole = _calls(sampler)
        for prefix in sampler.prefixes():
            first = _calls(prefix)
            assert len(first) == prefix.nfe()
            for (x, s), (y, t) in zip(first, whole[: len(first)], strict=True):
                assert torch.equal(x, y)
                assert torch.equal(s, t)


def test_lengths_of_multistep_that_nest():
    """Which of the default points begin alike, told by their prefixes."""

    def spared(*steps: int) -> int:
        chains = [[str(p.spec()) for p in create("sampler", {"name": "multistep", "steps": n}).prefixes()]
                  for n in steps]  # fmt: skip
        return len({tuple(c[: i + 1]) for c in chains for i in range(len(c))})

    assert spared(1, 2) == 2
    assert spared(1, 2, 4) == 1 + 1 + 3
    assert spared(3, 4) == 5


def test_a_model_of_several_networks_is_not_replayed():
    nets = [torch.nn.Identity(), torch.nn.Identity()]
    with pytest.raises(NotKeptError), replaying(nets, read_calls([]), 0, 1, []):
        pass


def test_a_call_with_another_input_is_not_answered(tmp_path):
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    x = torch.randn(4, 1, 8, 8)
    recorder, kept = Recorder(), []
    with replaying([net], read_calls([]), 0, 4, kept):
        out = net(x)
    recorder.add(kept)
    recorder.save(tmp_path)
    calls = read_calls([tmp_path])
    with replaying([net], calls, 1, 2, None):
        assert torch.equal(net(x[1:3].clone()), out[1:3])
    for other in (x[:2], x[1:3] + 1e-6):
        with (
            replaying([net], calls, 1, 2, None),
            pytest.raises(OtherCallError, match="remove `prefixes`"),
        ):
            net(other)
