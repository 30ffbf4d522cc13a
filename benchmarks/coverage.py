"""Coverage of each metric's 95% interval: how often it holds the value that it estimates.

    python benchmarks/coverage.py [--trials 400] [--count 300] [--cifar10 ZIP] [--only kid]
    python benchmarks/coverage.py --tails 16 [--only frechet_distance]

A fixed reference; generated sets of `count` rows are drawn again and again from one population.
The interval is that of the score's expectation at this count (`fd_infinity`: of the distance of
the population itself). Populations: Gaussian features, noisy digits in the digits classifier's
features, and CIFAR-10's test images in EfficientNet-Lite0's (`--features` keeps them for another
run). With `--tails WIDTH`: Gaussian rows of which one in a hundred is ten times as wide, and rows
of a multivariate t with 5 and 3 degrees of freedom. Prints a Markdown table; a share of 400 trials
has itself a standard error of 1.1 points at 95%.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cmbench.core.loader import create
from cmbench.datasets._pictures import read_pictures
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.statistics.file import reference_from_features

Draw = Callable[[np.random.Generator, int], Features]
METRICS = {
    "frechet_distance": {}, "fd_infinity": {}, "kid": {}, "cmmd": {},
    "inception_score": {"splits": 5}, "precision_recall": {}, "density_coverage": {},
    "vendi": {}, "auth_pct": {},
}  # fmt: skip
"""sFID is the Frechet distance's code on another layer."""


@dataclass
class Population:
    """A source of samples, its reference, and its own moments (for the limit of the distance)."""

    name: str
    draw: Draw
    reference: Reference
    moments: Moments


def gaussian(width: int, shift: float, spread: float) -> Population:
    """Rows with a decaying spectrum; the generated ones shifted and of another spread."""
    chance = np.random.default_rng(1)
    turn = np.linalg.qr(chance.normal(size=(width, width)))[0] * np.linspace(1, 0.2, width)
    head = chance.normal(size=(width, 10)) * 1.5 / width**0.5

    def draw(
        rng: np.random.Generator, n: int, far: float = shift, wide: float = spread
    ) -> Features:
        rows = (rng.normal(size=(n, width)) * wide @ turn.T + far).astype(np.float32)
        return Features({"pool": rows, "logits": (rows @ head).astype(np.float32)})

    reference = reference_from_features(draw(np.random.default_rng(2), 2000, 0.0, 1.0), "g")
    moments = Moments(np.full(width, shift), spread**2 * turn @ turn.T, 0)
    return Population(f"Gaussian, d = {width}", draw, reference, moments)


def outliers(width: int) -> Population:
    """Gaussian rows; of the generated ones each is ten times as wide with a chance of 1%."""

    def draw(rng: np.random.Generator, n: int, share: float = 0.01) -> Features:
        rows = rng.normal(size=(n, width))
        rows[rng.random(n) < share] *= 10
        return Features({"pool": rows.astype(np.float32)})

    reference = reference_from_features(draw(np.random.default_rng(2), 2000, 0.0), "o")
    moments = Moments(np.zeros(width), np.eye(width) * (0.99 + 0.01 * 100), 0)
    return Population(f"1% outliers, d = {width}", draw, reference, moments)


def student(width: int, freedom: int) -> Population:
    """Rows of a multivariate t, generated and reference."""

    def draw(rng: np.random.Generator, n: int) -> Features:
        rows = rng.normal(size=(n, width))
        rows /= np.sqrt(rng.chisquare(freedom, size=(n, 1)) / freedom)
        return Features({"pool": rows.astype(np.float32)})

    reference = reference_from_features(draw(np.random.default_rng(2), 2000), "t")
    moments = Moments(np.zeros(width), np.eye(width) * freedom / (freedom - 2), 0)
    return Population(f"t({freedom}), d = {width}", draw, reference, moments)


def digits() -> Population:
    """Digits with pixel noise, as a generator that is nearly good."""
    extractor = create("features", "digits_classifier").build(torch.device("cpu"))
    train, test = (
        (s := create("dataset", {"name": "digits", "split": name}).open()).pixels(range(len(s)))
        for name in ("train", "test")
    )

    def features(pixels: np.ndarray) -> Features:
        with torch.inference_mode():
            return Features({k: v.numpy() for k, v in extractor(torch.from_numpy(pixels)).items()})

    def draw(rng: np.random.Generator, n: int) -> Features:
        pixels = test[rng.integers(len(test), size=n)].astype(np.float32)
        noise = rng.normal(size=pixels.shape) * 20
        return features((pixels + noise).round().clip(0, 255).astype(np.uint8))

    everything = draw(np.random.default_rng(5), 200_000)
    reference = reference_from_features(features(train), "d")
    return Population("noisy digits, d = 64", draw, reference,
                      moments_of_rows(everything.layers["pool"]))  # fmt: skip


def cifar10_features(path: str, images: int) -> dict[str, np.ndarray]:
    """EfficientNet-Lite0's features of the first images, at an input of 64 pixels."""
    pixels = read_pictures(Path(path)).pixels[:images]
    net = create("features", {"name": "efficientnet_lite0", "size": 64}).build(torch.device("cpu"))
    with torch.inference_mode():
        parts = [net(torch.from_numpy(pixels[i : i + 50])) for i in range(0, len(pixels), 50)]
    return {k: torch.cat([p[k] for p in parts]).numpy() for k in ("pool", "logits")}


def cifar10(layers: dict[str, np.ndarray]) -> Population:
    """CIFAR-10 in EfficientNet-Lite0's features: a quarter as reference, the rest to draw from.

    Draws are with replacement, so that the rest is the entire population.
    """
    images = len(layers["pool"])
    held = images // 4
    rest = {k: v[held:] for k, v in layers.items()}

    def draw(rng: np.random.Generator, n: int) -> Features:
        chosen = rng.integers(images - held, size=n)
        return Features({k: v[chosen] for k, v in rest.items()})

    reference = reference_from_features(Features({k: v[:held] for k, v in layers.items()}), "c")
    moments = moments_of_rows(rest["pool"])
    return Population(f"CIFAR-10, d = {rest['pool'].shape[1]}", draw, reference, moments)


def measure(
    population: Population, count: int, trials: int, only: str | None
) -> dict[str, dict[str, float]]:
    """Returns for each score the share of intervals that hold the truth, its errors and bias."""
    found: dict[str, list[tuple[float, float, float, float, float]]] = {}
    width = population.reference.features.layers["pool"].shape[1]
    # Below the width the bias is no multiple of 1 / n: `fd_infinity` is refused there.
    names = [n for n in METRICS if only in (None, n) and (n != "fd_infinity" or count > width)]
    if "logits" not in population.reference.features.layers:
        names = [n for n in names if n != "inception_score"]
    for trial in range(trials):
        features = population.draw(np.random.default_rng((7, trial)), count)
        for name in names:
            metric = create("metric", {"name": name, **METRICS[name]})
            for score, s in metric.scores(features, population.reference).items():
                low, high = s.interval
                found.setdefault(score, []).append(
                    (s.value, low, high, s.error, s.details.get("bias", np.nan))
                )
        if trial % 20 == 19:
            sys.stderr.write(f"{population.name}: {trial + 1} of {trials}\n")
    limit = moment_distance(population.moments, population.reference.moments["pool"])
    rows = {}
    for score, values in found.items():
        value, low, high, error, bias = np.array(values).T
        truth = limit if score == "fd_infinity" else value.mean()
        rows[score] = {
            "coverage": float(((low <= truth) & (truth <= high)).mean()),
            "stated": float(np.sqrt((error**2).mean())),
            "true": float(value.std(ddof=1)),
            "value": float(value.mean()),
            "limit": limit,
            "bias": float(bias.mean()),
        }
    return rows


def _features(given: argparse.Namespace) -> dict[str, np.ndarray]:
    kept = Path(given.features) if given.features else None
    if kept is not None and kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            return {k: file[k] for k in ("pool", "logits")}
    layers = cifar10_features(given.cifar10, given.images)
    if kept is not None:
        np.savez(kept, **layers)
    return layers


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--cifar10", help="zip of CIFAR-10's test images")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", help="npz of CIFAR-10's features, to read or to write")
    parser.add_argument("--only", help="one metric")
    parser.add_argument("--skip-gaussian", action="store_true")
    parser.add_argument("--tails", type=int, help="width of rows with heavy tails, and those only")
    parser.add_argument("--subsets", type=int, default=0, help="of KID; 0: all pairs")
    parser.add_argument("--subset-size", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    METRICS["kid"] = {"subsets": given.subsets, "subset_size": given.subset_size}
    populations = _populations(given)
    head = ("features", "n", "score", "mean", "true sd", "stated / true", "coverage",
            "bias stated", "bias measured")  # fmt: skip
    print("| " + " | ".join(head) + " |\n|---|---|---|" + "---:|" * 6)
    for make in populations:
        population = make()
        for score, r in measure(population, given.count, given.trials, given.only).items():
            biased = score in ("frechet_distance", "sfid")
            cells = [population.name, str(given.count), score, f"{r['value']:.4g}",
                     f"{r['true']:.2g}", f"{r['stated'] / max(r['true'], 1e-300):.2f}",
                     f"{100 * r['coverage']:.1f}%", f"{r['bias']:.3g}" if biased else "",
                     f"{r['value'] - r['limit']:.3g}" if biased else ""]  # fmt: skip
            print("| " + " | ".join(cells) + " |", flush=True)


def _populations(given: argparse.Namespace) -> list[Callable[[], Population]]:
    if given.tails:
        width = given.tails
        return [lambda: outliers(width), lambda: student(width, 5), lambda: student(width, 3)]
    populations = [] if given.skip_gaussian else [
        lambda: gaussian(16, 0.05, 1.1), lambda: gaussian(64, 0.0, 1.0), digits
    ]  # fmt: skip
    if given.cifar10 or given.features:
        populations.append(lambda: cifar10(_features(given)))
    return populations


if __name__ == "__main__":
    main()
