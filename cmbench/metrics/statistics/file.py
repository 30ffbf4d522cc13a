"""Reference statistics in one npz file: moments, and features in float16.

A compact file, meant for distribution, holds each covariance's upper triangle in float32 and the
features of some of the images; its string `made_of` names the data, the extractor and the number
of images that it was made from.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.array_files import read_npz
from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, parsing
from cmbench.metrics._range import largest
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.metrics.frechet.moments import moments_of

__all__ = [
    "check_moments",
    "checked_count",
    "load_reference",
    "read_made_of",
    "reference_from_features",
    "save_compact_reference",
    "save_reference",
]

_LARGEST = 1e150


def reference_from_features(
    features: Features, digest: str, *, moment_layers: tuple[str, ...] = ("pool", "spatial")
) -> Reference:
    """Builds a reference with all features, and moments of those `moment_layers` that exist.

    Raises:
        MetricError: If features are not finite, or there are fewer than 2 rows.
    """
    layers = [layer for layer in moment_layers if layer in features.layers]
    moments = {layer: moments_of(features, layer, owner="reference") for layer in layers}
    return Reference(digest, features, moments)


def save_reference(reference: Reference, path: Path, *, features: bool = True) -> None:
    """Writes moments in float64 and, if asked, features in float16, which changes FID by 5e-7.

    Raises:
        OSError: If the file can't be written; no partial file remains.
    """
    arrays: dict[str, np.ndarray] = {"digest": np.array(reference.digest)}
    for layer, moments in reference.moments.items():
        arrays[f"mu/{layer}"], arrays[f"sigma/{layer}"] = moments.mean, moments.covariance
        arrays[f"count/{layer}"] = np.array(moments.count)
    if features and reference.features is not None:
        for layer, rows in reference.features.layers.items():
            arrays[f"features/{layer}"] = _narrowed(rows)
        if reference.features.labels is not None:
            arrays["labels"] = reference.features.labels
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def save_compact_reference(
    reference: Reference, path: Path, *, made_of: dict[str, Any], keep: int
) -> None:
    """Writes moments, covariances as float32 triangles, and `keep` evenly spaced feature rows.

    Args:
        reference: Moments and features of the full data set.
        path: The npz file.
        made_of: Data set, its fingerprint, extractor and weights, which a suite compares.
        keep: Number of images whose features are kept, for metrics that need neighbours.

    Raises:
        UserError: If the reference has no features.
    """
    if reference.features is None:
        raise UserError("the reference has no features to keep a part of")
    total = len(reference.features)
    rows = np.unique(np.linspace(0, total - 1, min(keep, total)).round().astype(np.int64))
    arrays: dict[str, np.ndarray] = {
        "made_of": np.array(json.dumps({**made_of, "kept": len(rows)}, sort_keys=True))
    }
    for layer, moments in reference.moments.items():
        upper = np.triu_indices(len(moments.mean))
        arrays[f"mu/{layer}"] = moments.mean
        arrays[f"triangle/{layer}"] = moments.covariance[upper].astype(np.float32)
        arrays[f"count/{layer}"] = np.array(moments.count)
        arrays[f"features/{layer}"] = _narrowed(reference.features.layers[layer][rows])
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _narrowed(rows: np.ndarray) -> np.ndarray:
    """Converts to float16 if that holds the largest feature to eleven bits, else to float32."""
    size = largest(rows)
    narrow = size == 0 or 2.0**-4 <= size < 65504
    return rows.astype(np.float16 if narrow else np.float32)


def read_made_of(path: Path) -> dict[str, Any]:
    """Reads what a compact reference was made from.

    Raises:
        UserError: If the file is not a compact reference.
    """
    arrays = _arrays(path, ("made_of",))
    if "made_of" not in arrays:
        raise UserError(
            f"{path} does not say what it was made of", expected="a file of `cmbench stats build`"
        )
    with parsing(path, "a file of `cmbench stats build`"):
        read = json.loads(str(arrays["made_of"]))
        if not isinstance(read, dict):
            raise UserError(f"'made_of' holds a {type(read).__name__}", expected="a mapping")
        return read


def load_reference(path: Path) -> Reference:
    """Reads a file written by `save_reference` or `save_compact_reference`.

    Raises:
        UserError: If the file is missing or of another format, or if its arrays are not moments
            and features (shapes, types, finiteness).
    """
    arrays = _arrays(path)
    if "digest" not in arrays and "made_of" not in arrays:
        raise UserError(f"{path} is not a cmbench reference", expected="an array named 'digest'")
    stated = arrays.get("digest", np.array(""))
    with parsing(path, "a cmbench reference"):
        return Reference(str(stated), _features(arrays, path), _moments(arrays, path))


def check_moments(mean: np.ndarray, covariance: np.ndarray, path: Path) -> None:
    """Refuses arrays that are not a mean and a covariance.

    Raises:
        UserError: If they are not floats, their shapes don't match, or they are not finite.
    """
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise UserError(f"{path}: mu and sigma are not floating-point arrays")
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise UserError(f"{path}: mu {mean.shape} and sigma {covariance.shape} don't fit")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: statistics that are not finite")
    if max(float(np.abs(mean).max()), float(np.abs(covariance).max())) > _LARGEST:
        raise UserError(f"{path}: statistics above {_LARGEST:g}, whose squares overflow")


def checked_count(value: Any, path: Path) -> int:
    """Returns the number of images that a file states.

    Raises:
        UserError: If it is not one integer, 0 (unknown) or more.
    """
    stated = np.asarray(value)
    scalar = stated.size == 1 and stated.dtype.kind in "iuf" and np.isfinite(stated).all()
    number = stated.reshape(-1)[0] if scalar else -1
    if number < 0 or number >= 1 << 62 or int(number) != number:
        raise UserError(
            f"{path}: the count of images is {str(stated)[:40]}", expected="one whole number"
        )
    return int(number)


def _arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    return read_npz(path, names, kind="reference")


def _features(arrays: dict[str, np.ndarray], path: Path) -> Features | None:
    layers = {
        k.removeprefix("features/"): v for k, v in arrays.items() if k.startswith("features/")
    }
    labels = arrays.get("labels")
    counts = {len(rows) if rows.ndim == 2 else -1 for rows in layers.values()}
    if labels is not None:
        counts.add(len(labels) if labels.ndim == 1 and labels.dtype.kind in "iu" else -1)
    if layers and (len(counts) > 1 or -1 in counts):
        raise UserError(f"{path}: features and labels are not one row per image")
    for name, rows in layers.items():
        if rows.dtype.kind != "f" or not np.isfinite(rows).all():
            raise UserError(f"{path}: features of layer '{name}' are not finite numbers")
    rows32 = {name: rows.astype(np.float32) for name, rows in layers.items()}
    return Features(rows32, labels) if layers else None


def _moments(arrays: dict[str, np.ndarray], path: Path) -> dict[str, Moments]:
    moments = {}
    for layer in [key.removeprefix("mu/") for key in arrays if key.startswith("mu/")]:
        mean, covariance = arrays[f"mu/{layer}"], _covariance(arrays, layer, path)
        check_moments(mean, covariance, path)
        count = checked_count(arrays.get(f"count/{layer}", -1), path)
        moments[layer] = Moments(mean, covariance, count)
    return moments


def _covariance(arrays: dict[str, np.ndarray], layer: str, path: Path) -> np.ndarray:
    if f"sigma/{layer}" in arrays:
        return arrays[f"sigma/{layer}"]
    width = arrays[f"mu/{layer}"].size
    triangle = arrays.get(f"triangle/{layer}", np.empty(0))
    if triangle.shape != (width * (width + 1) // 2,):
        raise UserError(f"{path}: layer '{layer}' has no covariance of width {width}")
    full = np.zeros((width, width))
    full[np.triu_indices(width)] = triangle
    return full + np.triu(full, 1).T
