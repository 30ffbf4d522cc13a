"""Checked feature rows: present, enough of them, finite, and of the reference's width."""

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics.base import Features, MetricError, Reference

__all__ = ["feature_rows", "reference_features", "reference_rows"]


def feature_rows(
    features: Features, layer: str, *, least: int, owner: str = "generated"
) -> NDArray[np.float32]:
    """Returns the layer's features (N, d) of `owner`, checked.

    Raises:
        MetricError: If the layer is absent, has fewer than `least` rows, or a row is not finite.
    """
    rows = features.layers.get(layer)
    if rows is None:
        have = ", ".join(sorted(features.layers)) or "(none)"
        raise MetricError(f"{owner} features have no layer '{layer}'; they have: {have}")
    if rows.ndim != 2:
        raise MetricError(
            f"{owner} features of '{layer}' have shape {rows.shape}, expected (N, d)"
        )
    if len(rows) < least:
        raise MetricError(f"{len(rows)} {owner} samples are too few: at least {least} are needed")
    key = f"finite/{layer}/{id(rows)}"
    if key not in features.cache:
        _require_finite(rows, layer, owner)
        features.cache[key] = True
    return rows


def reference_features(reference: Reference | None) -> Features:
    """Returns the features stored with the reference.

    Raises:
        MetricError: If there is no reference, or it holds moments only.
    """
    if reference is None:
        raise MetricError("this metric needs a reference")
    if reference.features is None:
        raise MetricError("this metric needs the reference's features; it holds moments only")
    return reference.features


def reference_rows(
    reference: Reference | None, layer: str, *, least: int, width: int
) -> NDArray[np.float32]:
    """Returns the layer's features (M, width) of the reference, checked.

    Raises:
        MetricError: For the same reasons as `feature_rows`, or for another width.
    """
    rows = feature_rows(reference_features(reference), layer, least=least, owner="reference")
    if rows.shape[1] != width:
        raise MetricError(
            f"'{layer}' is {width} wide in the generated features and {rows.shape[1]} wide "
            "in the reference: another extractor made it"
        )
    return rows


def _require_finite(rows: NDArray[np.float32], layer: str, owner: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise MetricError(
            f"{owner} sample {bad[0]} has a feature in '{layer}' that is not finite "
            f"({len(bad)} of {len(rows)} samples do)"
        )
