"""Metrics from given features against five peers on the same features, in one process.

    python benchmarks/metrics.py [IMAGES] [WIDTH] [--rounds 3]

Frechet distance, KID, precision and recall, density and coverage, Inception score. Ours with its
interval (peers give none for the distance, precision and recall) and, for the distance, without.
Prints the median of interleaved rounds in seconds of one core's work (so that other work on the
machine counts for less), as ratios to ours, the value, and the peak of memory above the start of a
call (sampled). Set OMP_NUM_THREADS=1, or spinning threads are what is timed.
"""

import argparse
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cmbench.core.loader import create
from cmbench.metrics._base import Features, Reference
from cmbench.metrics._frechet import moment_distance
from cmbench.metrics._moments import moments_of_rows


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


def runs(x: np.ndarray, y: np.ndarray, logits: np.ndarray) -> dict[str, dict[str, Callable]]:
    """By metric: each implementation, as a function that gives its value."""
    from cleanfid.fid import frechet_distance as clean_distance
    from cleanfid.fid import kernel_distance
    from prdc import compute_prdc
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torchmetrics.image.fid import _compute_fid

    a, b, c = (torch.from_numpy(rows) for rows in (x, y, logits))

    def ours(name: str, score: str, **fields: object) -> Callable[[], float]:
        metric = create("metric", {"name": name, **fields})

        def run() -> float:
            # New objects: nothing is kept from an earlier round, the reference's part included.
            held = Features({"pool": x, "logits": logits})
            return metric.scores(held, Reference("y", Features({"pool": y})))[score].value

        return run

    def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows.mean(0), np.cov(rows, rowvar=False)

    def fidelity() -> float:
        one, two = fid_features_to_statistics(a), fid_features_to_statistics(b)
        return fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]

    def torchmetrics_distance() -> float:
        (m, s), (n, t) = ((torch.from_numpy(v) for v in moments(r)) for r in (x, y))
        return float(_compute_fid(m.double(), s, n.double(), t))

    size = min(1000, len(x))
    return {
        "Frechet distance": {
            "cmbench, interval": ours("frechet_distance", "frechet_distance"),
            "cmbench, value": lambda: moment_distance(moments_of_rows(x), moments_of_rows(y)),
            "torch-fidelity": fidelity,
            "torchmetrics": torchmetrics_distance,
            "pytorch-fid": lambda: float(calculate_frechet_distance(*moments(x), *moments(y))),
            "clean-fid": lambda: float(clean_distance(*moments(x), *moments(y))),
        },
        "KID": {
            "cmbench, all pairs": ours("kid", "kid"),
            "cmbench, 20 subsets too": ours("kid", "kid", subsets=20, subset_size=size),
            "torch-fidelity, 20 subsets": lambda: kid_features_to_metric(
                a, b, kid_subsets=20, kid_subset_size=size, verbose=False
            )["kernel_inception_distance_mean"],
            "torch-fidelity, 100 subsets (its default)": lambda: kid_features_to_metric(
                a, b, kid_subsets=100, kid_subset_size=size, verbose=False
            )["kernel_inception_distance_mean"],
            "clean-fid, 20 subsets": lambda: float(
                kernel_distance(x, y, num_subsets=20, max_subset_size=size)
            ),
        },
        "precision, recall": {
            "cmbench": ours("precision_recall", "recall"),
            "torch-fidelity": lambda: prc_features_to_metric(a, b, verbose=False)["recall"],
        },
        "density, coverage": {
            "cmbench": ours("density_coverage", "coverage"),
            "prdc (and recall)": lambda: float(compute_prdc(y, x, nearest_k=5)["coverage"]),
        },
        "Inception score": {
            "cmbench": ours("inception_score", "inception_score"),
            "torch-fidelity": lambda: isc_features_to_metric(c)["inception_score_mean"],
        },
    }


def inception(images: int) -> dict[str, Callable[[], float]]:
    """The extractor against torch-fidelity's module, at random calibrated weights, 32 pixels."""
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
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    net.train()(pixels[:8])
    torch.save(net.eval().state_dict(), path)
    ours = create("features", {"name": "inception", "weights": str(path)}).build(
        torch.device("cpu")
    )

    def run(module: Callable) -> Callable[[], float]:
        def spend() -> float:
            with torch.inference_mode():
                found = [module(part) for part in pixels.split(32)]
            pool = [f["pool"] if isinstance(f, dict) else f[0] for f in found]
            return float(torch.cat(pool).double().mean())

        return spend

    return {"cmbench, with logits and spatial": run(ours), "torch-fidelity, pool": run(net)}


def main() -> None:
    """Times everything and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=int, nargs="?", default=2000)
    parser.add_argument("width", type=int, nargs="?", default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="metric, by its first letters; Inception,")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chance = np.random.default_rng(0)
    mix = chance.standard_normal((given.width, given.width)) * np.linspace(1, 0.05, given.width)
    mix /= given.width**0.5
    x, y = (
        (chance.standard_normal((given.images, given.width)) @ mix + 0.5 + 0.02 * i).astype("f4")
        for i in (0, 1)
    )
    logits = (chance.standard_normal((given.images, 1008)) * 2).astype(np.float32)
    print(f"{given.images} images, {given.width} wide, one thread, {torch.__version__}\n")
    print(
        "| metric | implementation | seconds | ratio | peak MiB | value |\n"
        + "|---|---|"
        + "---:|" * 4
    )
    every = {"Inception, 64 images": inception(64)} if given.only == "Inception," else {}
    for metric, ways in (every or runs(x, y, logits)).items():
        if given.only and not metric.startswith(given.only):
            continue
        spent: dict[str, list[float]] = {name: [] for name in ways}
        peaks, values = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
        for _ in range(given.rounds):
            for name, run in ways.items():
                with Peak() as peak:
                    start = time.process_time()
                    values[name] = run()
                    spent[name].append(time.process_time() - start)
                peaks[name] = max(peaks[name], peak.most)
        base = statistics.median(next(iter(spent.values())))
        for name, seconds in spent.items():
            median = statistics.median(seconds)
            print(
                f"| {metric} | {name} | {median:.3f} | {median / base:.2f} | {peaks[name]:.0f} "
                f"| {values[name]:.9g} |",
                flush=True,
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
