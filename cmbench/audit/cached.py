"""Cached features behind a score, and differences between protocols."""

import json
from dataclasses import dataclass
from typing import Any

from cmbench.core.loader import create
from cmbench.engine.context import JobContext
from cmbench.metrics.base import Features, Metric, Reference
from cmbench.record.schema import ScoreRecord
from cmbench.store.store import Address

__all__ = ["CachedSamples", "cached_samples", "differing_fields", "manifest_spec"]


@dataclass(frozen=True)
class CachedSamples:
    """Cached inputs of a score: its metric, features and reference."""

    metric: Metric
    features: Features
    reference: Reference | None
    feature_keys: list[str]


def differing_fields(a: Any, b: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted paths at which two JSON values differ, with the value on each side."""
    if isinstance(a, dict) and isinstance(b, dict):
        differences: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*a, *b}):
            inner = f"{place}.{key}" if place else str(key)
            differences |= differing_fields(a.get(key), b.get(key), inner)
        return differences
    return {} if a == b else {place: (a, b)}


def cached_samples(score: ScoreRecord, context: JobContext) -> CachedSamples | None:
    """Loads the inputs of a score; None unless all are in the cache and intact."""
    store = context.store
    spec = manifest_spec(context, Address("score", score.key)) if score.key else None
    if spec is None:
        return None
    needs = [Address("features", key) for key in spec["features"]]
    needs += [Address("reference", spec["reference"])] if spec["reference"] else []
    if not all(store.has(need) for need in needs):
        return None
    metric: Metric = create("metric", spec["metric"])
    reference = context.reference(spec["reference"]) if spec["reference"] else None
    features = context.features(spec["features"])
    return CachedSamples(metric, features, reference, spec["features"])


def manifest_spec(context: JobContext, address: Address) -> dict[str, Any] | None:
    """Reads the specification of an output in the cache; None if it is not there."""
    path = context.store.folder(address) / "manifest.json"
    try:
        spec: dict[str, Any] = json.loads(path.read_text("utf-8"))["spec"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return spec
