"""Features of a cell's samples that are still in the cache, and how protocols differ."""

import json
from dataclasses import dataclass
from typing import Any

from cmbench.core.loader import create
from cmbench.engine.context import Workbench
from cmbench.metrics.base import Features, Metric, Reference
from cmbench.record.schema import ScoreRecord
from cmbench.store.store import Address

__all__ = ["Samples", "cached_samples", "differing_fields", "manifest_spec"]


@dataclass(frozen=True)
class Samples:
    """What the cache still has of a score: how it was specified, its features and reference."""

    metric: Metric
    features: Features
    reference: Reference | None
    feature_keys: list[str]
    reference_key: str | None


def differing_fields(a: Any, b: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Places (dotted) at which two JSON values differ, with what stands there on each side."""
    if isinstance(a, dict) and isinstance(b, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*a, *b}):
            inner = f"{place}.{key}" if place else str(key)
            found |= differing_fields(a.get(key), b.get(key), inner)
        return found
    return {} if a == b else {place: (a, b)}


def cached_samples(score: ScoreRecord, bench: Workbench) -> Samples | None:
    """Features and reference behind a score, if the cache still has all of them, whole."""
    store = bench.store
    spec = manifest_spec(bench, Address("score", score.key)) if score.key else None
    if spec is None:
        return None
    needs = [Address("features", key) for key in spec["features"]]
    needs += [Address("reference", spec["reference"])] if spec["reference"] else []
    if not all(store.has(need) for need in needs):
        return None
    metric: Metric = create("metric", spec["metric"])
    reference = bench.reference(spec["reference"]) if spec["reference"] else None
    features = bench.features(spec["features"])
    return Samples(metric, features, reference, spec["features"], spec["reference"])


def manifest_spec(bench: Workbench, address: Address) -> dict[str, Any] | None:
    """The specification of an output in the cache, or None if it is not there."""
    path = bench.store.folder(address) / "manifest.json"
    try:
        spec: dict[str, Any] = json.loads(path.read_text("utf-8"))["spec"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return spec
