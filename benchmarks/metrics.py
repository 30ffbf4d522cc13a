"""Metrics from given features against five peers on the same features, in one process.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [--images 10000] [--width 2048] [--rounds 3]
        [--only moments] [--threads 1]

Groups: `distance` (two means and covariances), `few` (1,000 images, fewer than the width),
`moments` and `inception_score` (50,000 rows), `frechet` (from features), `kid`, `precision`,
`density`, `inception` (the extractor), `pass` (all metrics of one pass over the extractor's own
time). Ours with its interval, which no peer gives for the distance, precision and recall, and
without ("value"). Prints the median of interleaved rounds in seconds of CPU (so that other work on
the machine counts for less; with `--threads` above 1 wall-clock seconds), as ratios to the first
row, the value, and the peak of memory above the start of a call (sampled). Set OMP_NUM_THREADS to
the threads, or spinning threads are what is timed. "plain" is the short fast loop of
`benchmarks/plain.py`, without checks or intervals.
"""

import argparse
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plain
import torch
from torch import nn

from cmbench.core.loader import create
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.frechet.distance import frechet_value, moment_distance
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.frechet.reference import target_of_moments
from cmbench.metrics.statistics.file import reference_from_features


class Peak:
    """The highest resident memory above that at the start, in MiB, sampled every 5 ms."""

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
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


Ways = dict[str, Callable[[], float]]


def rows(chance: np.random.Generator, count: int, width: int, shift: float) -> np.ndarray:
    """Features (count, width) whose spectrum falls, at 0.5 plus a shift; one mixing for all.

    The others don't explain a fifth of each feature's variance (EfficientNet's: a tenth or more).
    """
    mix = np.random.default_rng(1).standard_normal((width, width), np.float32)
    mix *= np.linspace(1, 0.05, width, dtype=np.float32) / width**0.5
    found = chance.standard_normal((count, width), np.float32) @ mix
    own = np.float32((0.05 * width) ** 0.5) * mix.std(axis=0)
    found += chance.standard_normal((count, width), np.float32) * own
    found += np.float32(0.5 + shift)
    return found


def ours(name: str, score: str, own: dict, other: dict, kept: bool = False, **fields) -> Callable:
    """A metric with its interval; nothing is kept from an earlier call, unless `kept`."""
    metric = create("metric", {"name": name, **fields})
    reference = Reference("y", Features(other))

    def run() -> float:
        target = reference if kept else Reference("y", Features(other))
        return metric.scores(Features(own), target)[score].value

    if kept:
        run()
    return run


def distance(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Frechet distance of two means and covariances."""
    from cleanfid.fid import frechet_distance as clean
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    one, two = (moments_of_rows(rows(chance, given.images, given.width, s)) for s in (0.0, 0.02))
    four = (one.mean, one.covariance, two.mean, two.covariance)
    stated = [{"mu": m, "sigma": c} for m, c in (four[:2], four[2:])]
    tensors, target = [torch.from_numpy(a) for a in four], target_of_moments(two)
    return {
        "cmbench, value": lambda: moment_distance(one, two),
        "cmbench, value, the reference's factor kept": lambda: moment_distance(one, two, target),
        "plain": lambda: plain.distance(*four),
        "torch-fidelity": lambda: fid_statistics_to_metric(*stated, False)[
            "frechet_inception_distance"
        ],
        "torchmetrics": lambda: float(_compute_fid(*tensors)),
        "pytorch-fid": lambda: float(calculate_frechet_distance(*four)),
        "clean-fid": lambda: float(clean(*four)),
    }


def frechet(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Frechet distance from features."""
    return _from_features(given.images, given.width, chance)


def few(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Frechet distance from features of fewer images than dimensions."""
    return _from_features(1000, given.width, chance)


def _from_features(images: int, width: int, chance: np.random.Generator) -> Ways:
    from cleanfid.fid import frechet_distance as clean
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    x, y = (rows(chance, images, width, s) for s in (0.0, 0.02))

    def moments(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return some.mean(0), np.cov(some, rowvar=False)

    def fidelity() -> float:
        one, two = (fid_features_to_statistics(torch.from_numpy(r)) for r in (x, y))
        return fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]

    def torchmetrics_distance() -> float:
        (m, s), (n, t) = ((torch.from_numpy(v) for v in moments(r)) for r in (x, y))
        return float(_compute_fid(m.double(), s, n.double(), t))

    def exact() -> float:
        a, b = (r.astype(np.float64) for r in (x, y))
        gap, scale = a.mean(0) - b.mean(0), images - 1
        a, b = a - a.mean(0), b - b.mean(0)
        nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum() / scale
        return float(gap @ gap + ((a**2).sum() + (b**2).sum()) / scale - 2 * nuclear)

    ways = {
        "cmbench, value": lambda: frechet_value(
            Features({"pool": x}), Reference("y", Features({"pool": y})), "pool"
        ),
        "cmbench, interval": ours(
            "frechet_distance", "frechet_distance", {"pool": x}, {"pool": y}
        ),
        "torch-fidelity": fidelity,
        "torchmetrics": torchmetrics_distance,
        "pytorch-fid": lambda: float(calculate_frechet_distance(*moments(x), *moments(y))),
        "clean-fid": lambda: float(clean(*moments(x), *moments(y))),
    }
    if images >= width:
        return ways
    return ways | {"plain": lambda: plain.few_distance(x, y), "by singular values": exact}


def moments(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Mean and covariance of 50,000 rows."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    x = rows(chance, 50_000, given.width, 0.0)
    return {
        "cmbench": lambda: float(np.trace(moments_of_rows(x).covariance)),
        "plain": lambda: float(np.trace(plain.moments(x)[1])),
        "torch-fidelity": lambda: float(
            np.trace(fid_features_to_statistics(torch.from_numpy(x))["sigma"])
        ),
    }


def kid(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """KID over all pairs, and over the peers' subsets."""
    from cleanfid.fid import kernel_distance
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (rows(chance, given.images, given.width, s) for s in (0.0, 0.02))
    pools, size = ({"pool": x}, {"pool": y}), min(1000, given.images)

    def fidelity(subsets: int) -> float:
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        found = kid_features_to_metric(
            a, b, kid_subsets=subsets, kid_subset_size=size, verbose=False
        )
        return found["kernel_inception_distance_mean"]

    return {
        "cmbench, all pairs": ours("kid", "kid", *pools),
        "torch-fidelity, 100 subsets (its default)": lambda: fidelity(100),
        "clean-fid, 100 subsets": lambda: float(
            kernel_distance(x, y, num_subsets=100, max_subset_size=size)
        ),
    }


def precision(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Precision and recall; the value is recall."""
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = (rows(chance, given.images, given.width, s) for s in (0.0, 0.02))
    spec = ("precision_recall", "recall", {"pool": x}, {"pool": y})
    return {
        "cmbench": ours(*spec),
        "cmbench, the reference's radii kept": ours(*spec, kept=True),
        "plain": lambda: plain.precision_recall(x, y)[1],
        "torch-fidelity": lambda: prc_features_to_metric(
            torch.from_numpy(x), torch.from_numpy(y), verbose=False
        )["recall"],
        "prdc (density, coverage too)": lambda: float(compute_prdc(y, x, nearest_k=3)["recall"]),
    }


def density(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Density and coverage; the value is coverage."""
    from prdc import compute_prdc

    x, y = (rows(chance, given.images, given.width, s) for s in (0.0, 0.02))
    return {
        "cmbench": ours("density_coverage", "coverage", {"pool": x}, {"pool": y}),
        "prdc (precision, recall too)": lambda: float(compute_prdc(y, x, nearest_k=5)["coverage"]),
    }


def inception_score(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """Inception Score of 50,000 rows of 1,008 logits, in torch-fidelity's permutation."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = chance.standard_normal((50_000, 1008), np.float32) * 2
    metric = create("metric", "inception_score")
    return {
        "cmbench, value": lambda: metric.value(Features({"logits": logits})),
        "cmbench, interval": ours("inception_score", "inception_score", {"logits": logits}, {}),
        "plain": lambda: plain.inception_score(logits),
        "torch-fidelity": lambda: isc_features_to_metric(torch.from_numpy(logits))[
            "inception_score_mean"
        ],
    }


def _inception() -> tuple[nn.Module, nn.Module]:
    """Our extractor and torch-fidelity's module, at random calibrated weights."""
    import tempfile

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Peer

    path, load = Path(tempfile.mkdtemp()) / "w.pth", Peer.load_state_dict
    torch.save({}, path)
    Peer.load_state_dict = lambda self, state: None
    net = Peer("x", ["2048"], feature_extractor_weights_path=str(path))
    Peer.load_state_dict = load
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    net.train()(pixels)
    torch.save(net.eval().state_dict(), path)
    spec = {"name": "inception", "weights": str(path)}
    return create("features", spec).build(torch.device("cpu")), net


def inception(given: argparse.Namespace, chance: np.random.Generator) -> Ways:
    """64 images of 32 pixels, batches of 32; the value is the distance of halves of them."""
    own, peer = _inception()
    pixels = torch.from_numpy(chance.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8))

    def run(module: Callable) -> Callable[[], float]:
        def spend() -> float:
            with torch.inference_mode():
                found = [module(part) for part in pixels.split(32)]
            one, two = ((f["pool"] if isinstance(f, dict) else f[0]).numpy() for f in found)
            return frechet_value(
                Features({"pool": one}), Reference("y", Features({"pool": two})), "pool"
            )

        return spend

    return {"cmbench, with logits and spatial": run(own), "torch-fidelity, pool": run(peer)}


ALL = {
    "efficientnet_lite0": ["frechet_distance", "kid", "precision_recall", "density_coverage"],
    "inception": ["frechet_distance", "sfid", "inception_score", "kid", "precision_recall",
                  "density_coverage"],
}  # fmt: skip


def one_pass(given: argparse.Namespace, chance: np.random.Generator) -> None:
    """All metrics of one pass, over the extractor's time at its rate on 96 images of 32 pixels."""
    clock = _clock(given.threads)
    pixels = torch.from_numpy(chance.integers(0, 256, (96, 3, 32, 32), dtype=np.uint8))
    print("| extractor | images | its seconds | all metrics | share |\n|---|---:|---:|---:|---:|")
    for name, metrics in ALL.items():
        net = _inception()[0] if name == "inception" else create("features", name).build(
            torch.device("cpu"))  # fmt: skip
        with torch.inference_mode():
            found = net(pixels[:32])
            start = clock()
            for part in pixels.split(32):
                net(part)
        each = (clock() - start) / len(pixels)
        widths = {layer: v.shape[1] for layer, v in found.items()}
        own, other = (
            {k: rows(chance, given.images, w, s) * (8 if k == "logits" else 1)
             for k, w in widths.items()} for s in (0.0, 0.02)
        )  # fmt: skip
        reference = reference_from_features(Features(other), "y")
        # What is the reference's own is made once a board: by the first of its cells.
        for metric in metrics:
            create("metric", metric).scores(Features(own), reference)
        held, start = Features(own), clock()
        for metric in metrics:
            create("metric", metric).scores(held, reference)
        spent, whole = clock() - start, each * given.images
        print(f"| {name} | {given.images} | {whole:.1f} | {spent:.2f} | {spent / whole:.1%} |",
              flush=True)  # fmt: skip


GROUPS = {
    f.__name__: f
    for f in (distance, few, moments, frechet, kid, precision, density, inception_score, inception)
}


def main() -> None:
    """Times what is asked for and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=[*GROUPS, "pass"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    chance = np.random.default_rng(0)
    if given.only == "pass":
        one_pass(given, chance)
        return
    print(
        "| group | implementation | seconds | ratio | peak MiB | value |\n|---|---|" + "---:|" * 4
    )
    for group in [given.only] if given.only else GROUPS:
        ways = GROUPS[group](given, chance)
        spent, peaks, values = timed(ways, given.rounds, given.threads)
        base = statistics.median(next(iter(spent.values())))
        for name, seconds in spent.items():
            median = statistics.median(seconds)
            print(
                f"| {group} | {name} | {median:.3f} | {median / base:.2f} | {peaks[name]:.0f} "
                f"| {values[name]:.9g} |",
                flush=True,
            )


def _clock(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def timed(
    ways: Ways, rounds: int, threads: int
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, float]]:
    """Seconds of each round, peak of memory and value, by implementation; rounds interleaved."""
    clock = _clock(threads)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    peaks, values = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, run in ways.items():
            # Threads that still spin after a call would take the next one's cores.
            time.sleep(0.5 if threads > 1 else 0)
            with Peak() as peak:
                start = clock()
                values[name] = run()
                spent[name].append(clock() - start)
            peaks[name] = max(peaks[name], peak.most)
    return spent, peaks, values


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
