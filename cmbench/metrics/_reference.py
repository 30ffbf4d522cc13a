"""References made from features, and kept in one npz file: moments, and features in float16."""

import zipfile
from pathlib import Path

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file
from cmbench.metrics._base import Features, Moments, Reference
from cmbench.metrics._moments import moments_of

__all__ = ["load_reference", "reference_from_features", "save_reference"]


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


def load_reference(path: Path) -> Reference:
    """Reads what `save_reference` wrote.

    Raises:
        UserError: If the file is missing, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"can't read the reference {path}: {error}") from None
    if "digest" not in arrays:
        raise UserError(f"{path} is not a cmbench reference", expected="an array named 'digest'")
    return Reference(str(arrays["digest"]), _features(arrays), _moments(arrays))


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
            arrays[f"mu/{layer}"], arrays[f"sigma/{layer}"], int(arrays[f"count/{layer}"])
        )
        for layer in layers
    }
