"""Frechet distance from given features, against peers on the same features, in one process.

    python benchmarks/frechet.py [IMAGES] [WIDTH]

Prints medians of interleaved rounds as ratios to cmbench; nothing is asserted.
"""

import statistics
import sys
import time
import warnings

import numpy as np
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import from_numpy
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from cmbench.core.loader import create
from cmbench.metrics._base import Features
from cmbench.metrics._reference import reference_from_features


def main(images: int, width: int, rounds: int = 3) -> None:
    """Times all three on features with a decaying spectrum."""
    chance = np.random.default_rng(0)
    mix = chance.standard_normal((width, width)) * np.linspace(1, 0.05, width)
    rows = [(chance.standard_normal((images, width)) @ mix).astype(np.float32) for _ in range(2)]
    reference = reference_from_features(Features({"pool": rows[1]}), "real")
    metric = create("metric", "frechet_distance")

    def ours() -> float:
        return metric.scores(Features({"pool": rows[0]}), reference)["frechet_distance"].value

    def fidelity() -> float:
        one, two = (fid_features_to_statistics(from_numpy(r)) for r in rows)
        return fid_statistics_to_metric(one, two, verbose=False)["frechet_inception_distance"]

    def pytorch_fid() -> float:
        (a, b), (c, d) = ((r.mean(0), np.cov(r, rowvar=False)) for r in rows)
        return float(calculate_frechet_distance(a, b, c, d))

    runs = {
        "cmbench (with its interval)": ours,
        "torch-fidelity": fidelity,
        "pytorch-fid": pytorch_fid,
    }
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            value = run()
            spent[name].append(time.perf_counter() - start)
            sys.stderr.write(f"{name}: {value:.6f}\n")
    base = statistics.median(spent["cmbench (with its interval)"])
    for name, seconds in spent.items():
        median = statistics.median(seconds)
        sys.stdout.write(f"{name:28} {median:8.3f} s  {median / base:6.2f}x\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    main(*(int(a) for a in sys.argv[1:3] or ("2000", "512")))
