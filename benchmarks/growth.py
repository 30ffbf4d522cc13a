"""Growth of planning time, network evaluations and memory, measured in one process.

    python benchmarks/growth.py [--cells 1000,3000,10000] [--images 4000,8000,16000] [--plot STEM]

Cells: seconds of CPU to read, plan, estimate and lay out a suite of fake models under 20 samplers
each, and to report as many records (three scores, samples, 20 cells per label). NFE: evaluations
per image of a sweep 1..K, shared and apart, as the planner counts them. Images: the peak of memory
above the start while a cell of that many is sampled in shards of 250 and its features taken
(sampled every 5 ms), and while it is scored, for which the features of both sides are held:
4 bytes * width * (generated + reference). Writes STEM.png and STEM.svg.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from cmbench.core.digests import digest
from cmbench.core.files import write_json
from cmbench.engine.context import JobContext
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import PlainProgress
from cmbench.record.schema import Record, ScoreRecord
from cmbench.report.write import write_report
from cmbench.run.estimate import estimate_plan
from cmbench.run.plan_table import plan_as_json
from cmbench.store.store import Store
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

MODEL = '''\
"""Fake: as many models as cards, without weights."""
import torch
from cmbench.api import Denoiser, Model

__all__ = ["Fake"]


class D(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = torch.nn.Identity()

    def forward(self, x, sigma, labels=None):
        return self.net(x).clamp(-1, 1)


class Fake(Model):
    sampler = {"name": "multistep"}
    number: int = 0

    def build(self):
        return D()
'''
HEAD = """\
suite: growth
dataset: digits
images: {{count: {images}, shard: 250}}
features: pixels
reference: {{count: 100}}
metrics: [frechet_distance, {{name: precision_recall, k: 3}}]
runs:
"""


def planned(folder: Path, runs: str, images: int = 250):
    """The plan of a suite with these runs."""
    (folder / "growth.yaml").write_text(HEAD.format(images=images) + runs)
    return make_plan(*read_suite(str(folder / "growth.yaml")))


def cells(folder: Path, count: int) -> dict[str, float]:
    """Seconds of CPU of each part of `cmbench plan`, for so many cells."""
    models = count // 20
    cards = "".join(f"c{i}:\n  config: {{number: {i}}}\n" for i in range(models))
    (folder / "models" / "fake" / "cards.yaml").write_text(cards)
    every = ", ".join(map(str, range(1, 11)))
    runs = "".join(
        f"  - {{model: fake/c{i}, label: {s} {i}, sampler: {s}, nfe: [{every}]}}\n"
        for i in range(models)
        for s in ("multistep_nested", "euler")
    )
    begun = time.process_time()
    plan = planned(folder, runs)
    made = time.process_time()
    store = Store(folder / f"cache{count}")
    told = estimate_plan(plan, store, torch.device("cpu"))
    estimated = time.process_time()
    plan_as_json(plan, store, told)
    return {
        "plan": made - begun,
        "estimate": estimated - made,
        "table": time.process_time() - estimated,
    }


def report(folder: Path, count: int) -> float:
    """Seconds of CPU to write the report of so many cells."""
    root = folder / f"results{count}"
    for name in ("records", "samples"):
        (root / name).mkdir(parents=True)
    chance = np.random.default_rng(0)
    Image.fromarray(chance.integers(0, 256, (256, 256), np.uint8)).save(root / "sheet.png")
    speeds = {}
    for i in range(count):
        record = made_up(i, chance)
        (root / "records" / f"{record.cell}.json").write_text(record.model_dump_json())
        os.link(root / "sheet.png", root / "samples" / f"{record.cell}.png")
        speeds[record.cell] = {"seconds_per_image": 0.01 * (1 + i % 20), "batch": 1, "device": ""}
    write_json(root / "speed.json", speeds)
    begun = time.process_time()
    write_report(root)
    return time.process_time() - begun


def made_up(i: int, chance: np.random.Generator) -> Record:
    """A record of three scores at NFE 1 to 20, 2% off a smooth curve."""
    nfe, curve = 1 + i % 20, i // 20 / 50 + 20 / (1 + i % 20)
    values = {"frechet_distance": 10 + curve, "precision": 1 / curve, "recall": 1 / (1 + curve)}
    scores = []
    for name, smooth in values.items():
        value = smooth * (1 + 0.02 * chance.standard_normal())
        scores.append(
            ScoreRecord(
                name=name, title=name, value=value, error=0.02 * value,
                interval=(0.96 * value, 1.04 * value), count=1000,
                higher_is_better=name != "frechet_distance", fingerprint=digest(name),
                protocol={"images": 1000}, key=digest(i),
            )
        )  # fmt: skip
    return Record(
        suite="growth", suite_version=1, cell=digest(i)[:16], status="done",
        label=f"model {i // 20}", model=f"fake/c{i // 20}", family="fake", nfe=nfe, seed=0,
        sampler={"name": "euler"}, images=1000, shape=(1, 32, 32), scores=scores,
    )  # fmt: skip


def sweep(folder: Path, longest: int) -> tuple[float, float]:
    """Evaluations per image of nested chains of 1..longest, shared and apart."""
    (folder / "models" / "fake" / "cards.yaml").write_text("c0:\n  config: {}\n")
    every = ", ".join(map(str, range(1, longest + 1)))
    plan = planned(folder, f"  - {{model: fake/c0, sampler: multistep_nested, nfe: [{every}]}}\n")
    told = estimate_plan(plan, Store(folder / f"nfe{longest}"), torch.device("cpu"))
    return told.evaluations / 250, (told.evaluations + told.saved) / 250


class Peak:
    """The highest resident memory above that at the start, in MiB."""

    def __enter__(self) -> "Peak":
        self.start, self.most, self.stop = _resident(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stop.wait(0.005):
            self.most = max(self.most, _resident() - self.start)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def images(folder: Path, count: int) -> tuple[float, float]:
    """MiB at the peak of sampling with features, and of scoring."""
    (folder / "models" / "fake" / "cards.yaml").write_text("c0:\n  config: {}\n")
    plan = planned(folder, "  - {model: fake/c0, sampler: onestep}\n", count)
    context = JobContext(Store(folder / f"run{count}"), torch.device("cpu"))
    engine = LocalEngine(context, PlainProgress(Console(quiet=True), 0))
    with Peak() as making:
        for address in plan.jobs:
            if address.kind in ("sample", "features"):
                engine.make(plan, address)
    with Peak() as scoring:
        for address in plan.jobs:
            engine.make(plan, address)
    return making.most, scoring.most


def draw(stem: str, found: dict[str, dict[int, list[float]]]) -> None:
    """One panel each, under the names of what was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        name, unit, lines = title.split("|")
        for i, label in enumerate(lines.split(",")):
            axes.plot(list(rows), [row[i] for row in rows.values()], marker="o", label=label)
        axes.set(xlabel=name, ylabel=unit, ylim=(0, None))
        axes.legend(frameon=False)
    figure.savefig(f"{stem}.png", dpi=120)
    figure.savefig(f"{stem}.svg")


def main() -> None:
    """Prints the rows, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", default="1000,3000,10000")
    parser.add_argument("--images", default="4000,8000,16000")
    parser.add_argument("--plot", default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    stem = Path(given.plot).resolve() if given.plot else None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "models" / "fake").mkdir(parents=True)
        (folder / "models" / "fake" / "adapter.py").write_text(MODEL)
        os.chdir(folder)
        cells(folder, 20)  # What is imported once belongs to no row.
        spent = {
            n: [*cells(folder, n).values(), report(folder, n)]
            for n in map(int, given.cells.split(","))
        }
        runs = {k: list(sweep(folder, k)) for k in (1, 2, 4, 6)}
        held = {n: list(images(folder, n)) for n in map(int, given.images.split(","))}
        os.chdir("/")
    found = {
        "cells|seconds of CPU|plan,estimate,table,report": spent,
        "longest chain of the sweep|evaluations an image|shared,apart": runs,
        "images|MiB above the start|samples and features,scores": held,
    }
    for title, rows in found.items():
        sys.stdout.write(title.replace("|", ": ", 1).replace("|", ": ") + "\n")
        for n, row in rows.items():
            sys.stdout.write(f"  {n}: " + ", ".join(f"{v:.2f}" for v in row) + "\n")
    if stem is not None:
        draw(str(stem), found)


if __name__ == "__main__":
    main()
