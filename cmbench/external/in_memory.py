"""Scores images in memory, with the checks of `cmbench score`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.engine.context import JobContext
from cmbench.external.references import FileTarget, dataset_of, is_statistics
from cmbench.external.score import metrics_for
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.statistics.file import reference_from_features
from cmbench.metrics.statistics.formats import open_statistics

__all__ = ["score_pixels"]

Shape = tuple[int, int, int]
Extract = Callable[[NDArray[np.uint8]], Features]


def score_pixels(
    images: Any,
    reference: str | Path | dict[str, Any],
    context: JobContext,
    *,
    features: str | dict[str, Any],
    metrics: Sequence[str | dict[str, Any]],
    data: Path | None = None,
    size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """Returns one row per score: metric, value, error, low, high, images.

    Args:
        images: uint8 (N, C, H, W).
        reference: A data set as text or as a mapping, a path of images, or a statistics file.
        context: Device and caches.
        features: The feature extractor.
        metrics: Metrics with their parameters.
        data: Path of the data set.
        size: Expected (height, width); that of the reference's images by default.

    Raises:
        UserError: For images of another type or shape, or a reference that does not match.
        Pending: If data or weights are not on this machine.
    """
    pixels = _checked(images)
    extractor: FeatureExtractor = create("features", features)
    pairs = metrics_for([(spec, None) for spec in metrics], [extractor])
    built = context.extractor(extractor.spec())

    def extract(block: NDArray[np.uint8]) -> Features:
        return Features(built.rows(np.array_split(block, -(-len(block) // 64)), context.device))

    shape, make = _target(reference, extractor, context, data)
    _require_shape(pixels, shape, size)
    generated, target = extract(pixels), make(extract)
    rows = []
    for metric, _ in pairs:
        for name, score in metric.scores(generated, target).items():
            low, high = score.interval or (None, None)
            rows.append({"metric": metric.title_of(name, extractor), "value": score.value,
                         "error": score.error, "low": low, "high": high,
                         "images": score.count})  # fmt: skip
    return rows


def _checked(pixels: Any) -> NDArray[np.uint8]:
    """Returns the pixels, (N, C, H, W).

    Raises:
        UserError: For another type, number of axes or channels, or no images.
    """
    if not isinstance(pixels, np.ndarray):
        raise UserError(
            f"images are a {type(pixels).__name__}",
            expected="Samples, or a NumPy array, uint8 of shape (N, C, H, W)",
        )
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[1] not in (1, 3):
        last = pixels.ndim == 4 and pixels.shape[3] in (1, 3)
        raise UserError(
            f"images of shape {pixels.shape} and type {pixels.dtype}",
            expected="uint8 of shape (N, C, H, W) with 1 or 3 channels",
            fix="images.transpose(0, 3, 1, 2)" if last else "",
        )
    if 0 in pixels.shape:
        raise UserError(f"no images: shape {pixels.shape}")
    return np.ascontiguousarray(pixels)


def _require_shape(
    pixels: NDArray[np.uint8],
    shape: Shape | None,
    size: tuple[int, int] | None,
) -> None:
    channels, *own = pixels.shape[1:]
    if shape is not None and channels != shape[0]:
        raise UserError(
            f"images of {channels} channels, a reference of {shape[0]}",
            fix="name a reference of the same kind of images",
        )
    wanted = tuple(size) if size is not None else shape[1:] if shape is not None else None
    if wanted is not None and tuple(own) != wanted:
        raise UserError(
            f"images of {own[0]}x{own[1]}",
            expected=f"{wanted[0]}x{wanted[1]}",
            fix="" if size else f"size=({own[0]}, {own[1]}) to compare them all the same",
        )


def _target(
    given: str | Path | dict[str, Any],
    extractor: FeatureExtractor,
    context: JobContext,
    data: Path | None,
) -> tuple[Shape | None, Callable[[Extract], Reference]]:
    """Returns the shape of the reference's images, if known, and a function that builds it."""
    if not isinstance(given, dict) and is_statistics(given):
        file = FileTarget(Path(given), open_statistics(Path(given)))
        return file.shape, lambda _: file.reference(extractor, context, 64)[0]
    dataset = create("dataset", given) if isinstance(given, dict) else dataset_of(str(given))
    images = dataset.open(data)
    return images.shape, lambda extract: reference_from_features(
        extract(images.pixels(range(len(images)))), ""
    )
