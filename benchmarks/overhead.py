"""Cost of a suite beyond the forward passes of its network and its extractor, in one process.

    python benchmarks/overhead.py [--images 96] [--rounds 3] [--threads 1] [--channels 96,192,256]

A round runs a suite (plan, samples of several NFE, features, scores, records; then its report) in
a new cache, and beside it the bare forward passes: the same network at the same batches as often
as the suite calls it, the same extractor on as many images. Rounds are interleaved; the table
shows the medians, in seconds of this process's CPU and of the clock, and their ratio. On a machine
that does other work the clock says little, and seconds of CPU depend on who shares the caches: the
ratio to the forward passes inside the same run, timed where they happen, is the one to read. The
parts show where the rest goes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import nn

SUITE = """\
suite: overhead
dataset: digits
images: {{count: {images}, shard: {images}}}
features: efficientnet_lite0
reference: {{count: 64}}
metrics: [frechet_distance, kid]
runs:
  - {{model: measured, sampler: {{name: {sampler}}}, nfe: [1, 2, 4]}}
"""
MODEL = '''\
"""A network of random weights under EDM's preconditioning."""
import torch
from cmbench.api import EDMDenoiser, Model, create

__all__ = ["Measured"]


class Measured(Model):
    sampler = {{"name": "multistep"}}

    def build(self):
        torch.manual_seed(0)
        network = create("network", {{"name": "compact_unet", "channels": {channels}}})
        return EDMDenoiser(network.build((3, 32, 32), 0), (3, 32, 32))
'''


class Spent(NamedTuple):
    """Seconds by the clock and of this process's CPU."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Spent:
    """Measures the seconds that a piece of work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


class Forwards:
    """Counts the calls of a network and of an extractor by the size of their batches."""

    def __init__(self) -> None:
        self.inside = Spent(0.0, 0.0)
        self.network: dict[int, int] = defaultdict(int)
        self.extractor: dict[tuple[int, ...], int] = defaultdict(int)

    def note(self, work: Callable[[], object]) -> object:
        """Does a forward pass and adds its seconds."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        self.inside = Spent(
            self.inside.wall + time.perf_counter() - wall,
            self.inside.cpu + time.process_time() - cpu,
        )
        return found


def suite(folder: Path, parts: dict[str, list[float]], seen: Forwards) -> None:
    """One run of the suite in a new cache, and its report; `seen` notes its forward passes."""
    from cmbench.engine import work
    from cmbench.engine.context import JobContext
    from cmbench.engine.local_engine import LocalEngine
    from cmbench.engine.progress import PlainProgress
    from cmbench.report.write import write_report
    from cmbench.run.suite import run_suite
    from cmbench.store.store import Store
    from cmbench.suite.planner import make_plan
    from cmbench.suite.spec import read_suite

    with tempfile.TemporaryDirectory() as place:
        context = JobContext(Store(Path(place) / "cache"), torch.device("cpu"))
        watch(context, seen)
        own = dict(work.WORK)
        for kind, does in own.items():
            work.WORK[kind] = apart(kind, does, parts)
        begun = time.process_time()
        plan = make_plan(*read_suite(str(folder / "overhead.yaml")))
        parts["plan"].append(time.process_time() - begun)
        engine = LocalEngine(context, PlainProgress(Console(quiet=True), 0))
        begun = time.process_time()
        outcome = run_suite(plan, engine, Path(place) / "results")
        parts["run"].append(time.process_time() - begun)
        assert outcome.done == 3, outcome
        work.WORK.update(own)
        begun = time.process_time()
        write_report(outcome.folder)
        parts["report"].append(time.process_time() - begun)


def apart(kind: str, does: Callable, parts: dict[str, list[float]]) -> Callable:
    """A kind of work that notes its seconds of CPU."""

    def work(*args: object) -> None:
        begun = time.process_time()
        does(*args)
        parts[kind].append(time.process_time() - begun)

    return work


def watch(context, seen: Forwards) -> None:
    """Counts calls through hooks, as they come."""
    module, extractor = context.module, context.extractor
    hooked: set[int] = set()

    def counted(*args: object) -> nn.Module:
        found = module(*args)
        if id(found) not in hooked:
            hooked.add(id(found))
            own = found.net.forward

            def forward(*inputs: object) -> object:
                seen.network[len(inputs[0])] += 1
                return seen.note(lambda: own(*inputs))

            found.net.forward = forward
        return found

    def extracted(spec: dict) -> Callable:
        found = extractor(spec)

        def extract(pixels: torch.Tensor) -> dict:
            seen.extractor[tuple(pixels.shape)] += 1
            return seen.note(lambda: found(pixels))

        return extract

    context.module, context.extractor = counted, extracted


def bare(seen: Forwards, net: nn.Module, extractor: Callable) -> None:
    """The forward passes alone."""
    with torch.inference_mode():
        for size, times in seen.network.items():
            x = torch.randn(size, 3, 32, 32)
            level = torch.zeros(size)
            for _ in range(times):
                net(x, level, None)
        for shape, times in seen.extractor.items():
            pixels = torch.zeros(shape, dtype=torch.uint8)
            for _ in range(times):
                extractor(pixels)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", default="96,192,256")
    parser.add_argument("--sampler", default="multistep_nested")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from cmbench.core.loader import create

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "models").mkdir()
        channels = tuple(int(c) for c in given.channels.split(","))
        (folder / "models" / "measured.py").write_text(MODEL.format(channels=channels))
        (folder / "overhead.yaml").write_text(SUITE.format(images=64, sampler=given.sampler))
        os.chdir(folder)
        net = create("model", "measured").build().eval().net
        net = net.to(memory_format=torch.channels_last)
        extractor = create("features", "efficientnet_lite0").build(torch.device("cpu"))
        # What is imported and made once belongs to no round.
        suite(folder, defaultdict(list), Forwards())
        text = SUITE.format(images=given.images, sampler=given.sampler)
        (folder / "overhead.yaml").write_text(text)
        parts: dict[str, list[float]] = defaultdict(list)
        whole, inside, passes, per_round = [], [], [], []
        for _ in range(given.rounds):
            noted = Forwards()
            whole.append(timed(lambda noted=noted: suite(folder, parts, noted)))
            inside.append(noted.inside)
            passes.append(timed(lambda noted=noted: bare(noted, net, extractor)))
            per_round.append({kind: sum(v) for kind, v in parts.items()})
            parts.clear()
        tell(given, net, whole, {"inside": inside, "alone": passes}, per_round, noted)
        os.chdir("/")


def tell(given, net, whole, forwards, per_round, seen) -> None:
    """Prints the medians."""
    out = sys.stdout.write
    size = sum(p.numel() for p in net.parameters())
    rows = sum(n * times for n, times in seen.network.items())
    out(f"network of {size / 1e6:.1f} M parameters, 32x32, {given.threads} thread(s), ")
    out(f"{given.images} images a cell, 3 cells, {rows} evaluations, ")
    out(f"{sum(s[0] * n for s, n in seen.extractor.items())} extractions\n")
    middle = {kind: statistics.median(r[kind] for r in per_round) for kind in per_round[0]}
    for kind, passes in forwards.items():
        for name in ("cpu", "wall"):
            pairs = [
                (getattr(s, name), getattr(t, name)) for s, t in zip(whole, passes, strict=True)
            ]
            ratios = [a / b for a, b in pairs]
            spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
            a, b = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            out(f"forward passes {kind}, {name}: suite {a:.2f} s, they {b:.2f} s, ")
            out(f"ratio {statistics.median(ratios):.3f} {spread}\n")
        grows = [
            (s.cpu - r["plan"] - r["report"]) / p.cpu
            for s, p, r in zip(whole, passes, per_round, strict=True)
        ]
        out("  without plan and report, which the images don't lengthen, cpu: ")
        out(f"{statistics.median(grows):.3f} ({min(grows):.3f} to {max(grows):.3f})\n")
    out("parts, s of CPU: " + ", ".join(f"{k} {v:.2f}" for k, v in middle.items()) + "\n")


if __name__ == "__main__":
    main()
