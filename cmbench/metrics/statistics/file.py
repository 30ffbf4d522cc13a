"""References made from features, and kept in one npz file: moments, and features in float16.

A compact file, to be shipped, holds each covariance's upper triangle in float32 and the features
of a part of the images; a string `made_of` says of what data and extractor, and how many images.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.metrics.frechet.moments import moments_of

__all__ = [
    "load_reference",
    "read_made_of",
    "reference_from_features",
    "save_compact_reference",
    "save_reference",
]


def reference_from_features(
    features: Features, digest: str, *, moment_layers: tuple[str, ...] = ("pool", "spatial")
) -> Reference:
    """A reference with all features and the moments of those `moment_layers` that there are.

    Raises:
        MetricError: If features are not finite, or there are fewer than 2 rows.
    """
    chosen = [layer for layer in moment_layers if layer in features.layers]
    moments = {layer: moments_of(features, layer, owner="reference") for layer in chosen}
    return Reference(digest, features, moments)


def save_reference(reference: Reference, path: Path, *, features: bool = True) -> None:
    """Writes moments (float64) and, if asked, features as float16, which moves FID by 5e-7.

    Raises:
        OSError: As the file system says; nothing is left behind.
    """
    arrays: dict[str, np.ndarray] = {"digest": np.array(reference.digest)}
    for layer, found in reference.moments.items():
        arrays[f"mu/{layer}"], arrays[f"sigma/{layer}"] = found.mean, found.covariance
        arrays[f"count/{layer}"] = np.array(found.count)
    if features and reference.features is not None:
        for layer, rows in reference.features.layers.items():
            narrow = np.abs(rows).max(initial=0.0) < 65504
            arrays[f"features/{layer}"] = rows.astype(np.float16 if narrow else np.float32)
        if reference.features.labels is not None:
            arrays["labels"] = reference.features.labels
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def save_compact_reference(
    reference: Reference, path: Path, *, made_of: dict[str, Any], keep: int
) -> None:
    """Writes moments, with covariances as float32 triangles, and `keep` evenly spaced features.

    Args:
        reference: Moments and features of a whole data set.
        path: The npz file.
        made_of: Data set, its fingerprint, extractor and weights: what a suite compares.
        keep: Images whose features are kept, for the metrics that need neighbours.

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
    for layer, found in reference.moments.items():
        upper = np.triu_indices(len(found.mean))
        arrays[f"mu/{layer}"] = found.mean
        arrays[f"triangle/{layer}"] = found.covariance[upper].astype(np.float32)
        arrays[f"count/{layer}"] = np.array(found.count)
        arrays[f"features/{layer}"] = reference.features.layers[layer][rows].astype(np.float16)
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_made_of(path: Path) -> dict[str, Any]:
    """What a compact reference was made of.

    Raises:
        UserError: If the file is not one.
    """
    arrays = _arrays(path, ("made_of",))
    if "made_of" not in arrays:
        raise UserError(
            f"{path} does not say what it was made of", expected="a file of `cmbench stats build`"
        )
    read: dict[str, Any] = json.loads(str(arrays["made_of"]))
    return read


def load_reference(path: Path) -> Reference:
    """Reads what `save_reference` or `save_compact_reference` wrote.

    Raises:
        UserError: If the file is missing, or not such a file.
    """
    arrays = _arrays(path)
    if "digest" not in arrays and "made_of" not in arrays:
        raise UserError(f"{path} is not a cmbench reference", expected="an array named 'digest'")
    stated = arrays.get("digest", np.array(""))
    return Reference(str(stated), _features(arrays), _moments(arrays))


def _arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in (names or file.files) if key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"can't read the reference {path}: {error}") from None


def _features(arrays: dict[str, np.ndarray]) -> Features | None:
    layers = {
        key.removeprefix("features/"): value.astype(np.float32)
        for key, value in arrays.items()
        if key.startswith("features/")
    }
    return Features(layers, arrays.get("labels")) if layers else None


def _moments(arrays: dict[str, np.ndarray]) -> dict[str, Moments]:
    layers = [key.removeprefix("mu/") for key in arrays if key.startswith("mu/")]
    return {
        layer: Moments(
            arrays[f"mu/{layer}"], _covariance(arrays, layer), int(arrays[f"count/{layer}"])
        )
        for layer in layers
    }


def _covariance(arrays: dict[str, np.ndarray], layer: str) -> np.ndarray:
    if f"sigma/{layer}" in arrays:
        return arrays[f"sigma/{layer}"]
    width = len(arrays[f"mu/{layer}"])
    full = np.zeros((width, width))
    full[np.triu_indices(width)] = arrays[f"triangle/{layer}"]
    return full + np.triu(full, 1).T
