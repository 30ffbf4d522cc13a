"""Searches the time points of multi-step consistency sampling.

Consistency Models (https://arxiv.org/abs/2303.01469), section 3: points are added one at a time,
each by a ternary search for the lowest distance, which is assumed to be unimodal; the last two to
four candidates are all scored. Every candidate shares the first evaluation, f(x, sigma_max), and
none is scored twice. The search must use seeds of its own: otherwise the reported number would be
the minimum of many noisy ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cmbench.audit.selection import keep_search
from cmbench.core.images import to_pixels
from cmbench.core.loader import create
from cmbench.core.paths import cache_folder
from cmbench.core.random import Noise
from cmbench.datasets.base import Dataset, ImageSet
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Metric
from cmbench.metrics.statistics.file import reference_from_features

__all__ = ["Search", "search_points", "search_steps"]


@dataclass
class Search:
    """The result of a search.

    Args:
        indices: Points of the grid, from 0 (sigma_max) to the grid's last (which ends the chain).
        value: Their distance.
        tried: Every index list that was scored, with its distance.
    """

    indices: tuple[int, ...]
    value: float
    tried: dict[tuple[int, ...], float] = field(default_factory=dict)


def search_points(score: Callable[[tuple[int, ...]], float], grid: int, nfe: int) -> Search:
    """Adds `nfe` - 1 points between 0 and grid - 1, greedily, each by a ternary search.

    Args:
        score: Distance of the samples of an index list; called once per list.
        grid: Number of points of the Karras grid.
        nfe: Evaluations per image; each new point has less noise than the one before.

    Raises:
        ValueError: If the grid has no room for so many points.
    """
    if nfe < 1 or nfe > grid - 1:
        raise ValueError(f"a grid of {grid} points has room for 1 to {grid - 1} evaluations")
    tried: dict[tuple[int, ...], float] = {}

    def scored(indices: tuple[int, ...]) -> float:
        if indices not in tried:
            tried[indices] = score(indices)
        return tried[indices]

    points: tuple[int, ...] = (0, grid - 1)
    best = scored(points)
    for added in range(1, nfe):
        first, last = points[-2] + 1, grid - 1 - (nfe - added)
        candidates = {p: (*points[:-1], p, points[-1]) for p in range(first, last + 1)}
        points = candidates[_valley(_along(scored, candidates), first, last)]
        best = scored(points)
    return Search(points, best, tried)


def _along(
    scored: Callable[[tuple[int, ...]], float], candidates: dict[int, tuple[int, ...]]
) -> Callable[[int], float]:
    return lambda point: scored(candidates[point])


def _valley(value: Callable[[int], float], left: int, right: int) -> int:
    while right - left >= 3:
        third = (right - left) // 3
        low, high = left + third, right - third
        if value(low) < value(high):
            right = high
        else:
            left = low
    return min(range(left, right + 1), key=value)


@torch.inference_mode()
def search_steps(
    denoiser: Denoiser,
    dataset: Dataset,
    images: ImageSet,
    features: str,
    *,
    nfe: int,
    grid: int,
    count: int,
    seed: int,
) -> Search:
    """Finds the time points of `nfe` evaluations with the lowest Frechet distance.

    All candidates use the same noise and share the first evaluation. The number of candidates is
    kept in the cache, for `cmbench disclose`.
    """
    extractor: FeatureExtractor = create("features", features)
    cpu = torch.device("cpu")
    module = extractor.build(cpu)
    metric: Metric = create("metric", "frechet_distance")

    def extracted(pixels: Tensor) -> Features:
        return Features(module.rows((block.numpy() for block in pixels.split(64)), cpu))

    known = min(len(images), 5000)
    reference = reference_from_features(
        extracted(torch.from_numpy(images.pixels(range(known)))), dataset.name
    )
    noise = Noise(seed, range(count), denoiser.shape, dtype=torch.float64)
    levels = karras_grid(grid, denoiser.sigma_min, denoiser.sigma_max).tolist()
    start = levels[0] * noise.normal(0)
    first = denoiser(start, torch.full((count,), levels[0], dtype=torch.float64)).clamp(-1, 1)

    def score(indices: tuple[int, ...]) -> float:
        clean = first
        for j, i in enumerate(indices[1:-1], start=1):
            # Algorithm 1: x + sqrt(sigma_i^2 - sigma_min^2) z, then f.
            again = (levels[i] ** 2 - denoiser.sigma_min**2) ** 0.5
            x = clean + again * noise.normal(j)
            clean = denoiser(x, torch.full((count,), levels[i]).double()).clamp(-1, 1)
        generated = extracted(to_pixels(clean, "round"))
        return metric.scores(generated, reference)["frechet_distance"].value

    search = search_points(score, grid, nfe)
    summary = {"indices": list(search.indices), "grid": grid, "tried": len(search.tried)}
    keep_search(cache_folder(), summary | {"seed": seed, "images": count, "value": search.value})
    return search
