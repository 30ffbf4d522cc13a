"""Scores images from other programs: one pass through each extractor, in batches.

The protocol of each number is that of a suite, except that its quantisation is "as given": the
rule that rounded the images to bytes is unknown.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.digests import digest
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.yaml_source import parse_value
from cmbench.engine.context import JobContext, Tick
from cmbench.external.by_class import Classes, Scorer, matched_classes, scores_by_class
from cmbench.external.containers import BadImage, ImageStream
from cmbench.external.references import features_of, find_target
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Metric, Reference
from cmbench.record.schema import ScoreRecord
from cmbench.suite.score_jobs import protocol

__all__ = ["ImageScores", "metric_specs", "metrics_for", "score_images"]

Spec = str | dict[str, Any]
_NAMED = 10


@dataclass(frozen=True)
class ImageScores:
    """Scores of a set of images, and where they come from.

    Args:
        images: Number of images scored.
        shape: Shape of an image, (C, H, W).
        digest: SHA-256 of the pixels in order.
        duplicates: Number of exact duplicates of an earlier image.
        ignored: Number of files that are not images.
        bad: Images omitted on request.
        reference: Description of the reference.
        scores: The scores, each with its protocol and fingerprint.
        skipped: Default metrics that were not computed, and why.
        classes: Scores per class, on request.
        class_names: Name of each of these classes, or its number if it has none.
    """

    images: int
    shape: tuple[int, int, int]
    digest: str
    duplicates: int
    ignored: int
    bad: list[BadImage]
    reference: str
    scores: list[ScoreRecord]
    skipped: list[str] = field(default_factory=list)
    classes: dict[int, list[ScoreRecord]] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns the scores as a dictionary for JSON."""
        scores = [score.model_dump(mode="json") for score in self.scores]
        classes = {k: [s.model_dump(mode="json") for s in v] for k, v in self.classes.items()}
        return {**asdict(self), "shape": list(self.shape), "scores": scores, "classes": classes}


def metric_specs(given: Sequence[str]) -> list[tuple[Spec, str | None]]:
    """Parses metrics: `kid`, `kid:subsets=100,subset_size=1000`, `frechet_distance@inception`.

    Raises:
        UserError: For a text of another form.
    """
    specs: list[tuple[Spec, str | None]] = []
    for text in given:
        read = re.fullmatch(r"(\w+)(?:@([\w./-]+))?(?::([^@]*))?(?:@([\w./-]+))?", text)
        name, before, parameters, after = read.groups() if read else ("", None, "", None)
        extractor = before or after
        pairs = [p.split("=", 1) for p in (parameters or "").split(",") if p]
        if not name or any(len(pair) != 2 for pair in pairs):
            raise UserError(
                f"--metrics {text} does not read as a metric",
                expected="NAME, NAME@EXTRACTOR or NAME:key=value,key=value@EXTRACTOR",
            )
        values = {key: parse_value(value, f"--metrics {text}") for key, value in pairs}
        specs.append(({"name": name, **values}, extractor))
    return specs


def score_images(
    images: Path,
    reference: str | Path,
    context: JobContext,
    *,
    features: Sequence[Spec] = ("efficientnet_lite0",),
    metrics: Sequence[tuple[Spec, str | None]] = (),
    size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    per_class: bool = False,
    data: Path | None = None,
    batch: int = 64,
    tick: Tick | None = None,
) -> ImageScores:
    """Scores the images of a folder, .zip, .npz, .npy or .parquet.

    Args:
        images: The container.
        reference: A data set's name (`digits`, `cifar10:split=test`) or a file of statistics.
        context: The device, and the store, which caches references of data sets.
        features: Extractors; each image passes once through each.
        metrics: Metrics and the extractor of each, or None for every one that has its layers;
            by default those that the reference allows.
        size: Expected (height, width); that of the reference's images by default.
        skip_bad: Omit images that are broken or of another size or mode, instead of refusing.
        per_class: Also score each class (`cmbench.external.by_class`).
        data: Path of the reference's data set.
        batch: Images per batch; it does not change the scores.
        tick: Progress callback.

    Raises:
        UserError: For bad images (named and counted), unless `skip_bad`; for an unknown name; for
            a reference of other features.
        Pending: If data or weights are not on this machine.
    """
    extractors: list[FeatureExtractor] = [create("features", spec) for spec in features]
    pairs = metrics_for(metrics, extractors)
    target = find_target(reference, data)
    own = target.shape
    stream = ImageStream(images, size or (own[1:] if own else None), own[0] if own else None)
    built = {e.name: context.extractor(e.spec()) for e in extractors}
    parts = features_of(stream, built, context, batch, skip_bad, tick)
    if stream.bad and not skip_bad:
        raise _refusal(stream, own)
    if not parts:
        raise UserError(f"{images}: not one of {stream.total} images can be scored",
                        fix=_first(stream.bad))  # fmt: skip
    labels = matched_classes(stream, target, data) if per_class else None
    scores, skipped, classes = [], _without_images(labels), dict[int, list[ScoreRecord]]()
    for extractor in extractors:
        generated = Features({k: np.concatenate(v) for k, v in parts[extractor.name].items()})
        mine = [m for m, name in pairs if name == extractor.name]
        needed = any(metric.needs_reference for metric in mine)
        other = target.reference(extractor, context, batch) if needed else None
        for metric in mine:
            lacks = other is not None and other[0].features is None and metric.needs_rows
            if lacks and not metrics:
                skipped.append(f"{metric.name}: the reference holds moments only")
                continue
            scores += _score(metric, extractor, generated, other)
        if labels is not None and other is not None:
            scorer = _scorer(extractor, other[1])
            by_class = scores_by_class(mine, generated, other[0], labels, scorer)
            skipped += [text for text in by_class.skipped if text not in skipped]
            for label, records in by_class.records.items():
                classes.setdefault(label, []).extend(records)
    count = stream.total - len(stream.bad)
    assert stream.size is not None
    assert stream.channels is not None
    return ImageScores(
        count, (stream.channels, *stream.size), stream.digest, stream.duplicates,
        stream.ignored, list(stream.bad), target.words, scores, skipped, classes,
        {} if labels is None else {label: labels.name(label) for label in classes},
    )  # fmt: skip


def _without_images(classes: Classes | None) -> list[str]:
    missing = classes.missing if classes else []
    shown = ", ".join(classes.name(label) for label in missing[:_NAMED]) if classes else ""
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return [f"no images of class {shown}{more}"] if missing else []


def metrics_for(
    metrics: Sequence[tuple[Spec, str | None]], extractors: list[FeatureExtractor]
) -> list[tuple[Metric, str]]:
    """Returns each metric with the name of every extractor that has its layers.

    Args:
        metrics: Metrics and the extractor of each, or None for all that have its layers; by
            default the Frechet distance, KID, precision and recall.
        extractors: The extractors.

    Raises:
        UserError: For an unknown metric, or one whose layers no extractor has.
    """
    given = metrics or [(n, None) for n in ("frechet_distance", "kid", "precision_recall")]
    pairs: list[tuple[Metric, str]] = []
    for spec, wanted in given:
        metric: Metric = create("metric", spec)
        names = [
            e.name
            for e in extractors
            if wanted in (None, e.name) and set(metric.layers) <= set(e.layers)
        ]
        if not names:
            raise UserError(
                f"metric '{metric.name}' reads layer '{', '.join(metric.layers)}', which "
                f"{wanted or ' and '.join(e.name for e in extractors)} does not have",
                fix="--features with an extractor that has it",
            )
        pairs += [(metric, name) for name in names]
    return pairs


def _refusal(stream: ImageStream, own: tuple[int, int, int] | None) -> UserError:
    kinds = [b.fault for b in stream.bad]
    counts = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
    shown = "\n".join(f"    {b.name}: {b.fault}: {b.detail}" for b in stream.bad[:_NAMED])
    more = f"\n    and {len(stream.bad) - _NAMED} more" if len(stream.bad) > _NAMED else ""
    fix = "--skip-bad scores the others and lists these"
    if len(stream.bad) == stream.total and own is not None:
        fix = (
            "--size HEIGHTxWIDTH to compare them all the same"
            if kinds[0] == "size"
            else ("name a reference of the same kind of images")
        )
    return UserError(
        f"{len(stream.bad)} of {stream.total} images of {stream.path} can't be scored "
        f"({counts}):\n{shown}{more}",
        expected=f"intact images of {stream.size[0]}x{stream.size[1]}" if stream.size else "",
        fix=fix,
    )


def _first(bad: list[BadImage]) -> str:
    return f"look at {bad[0].name}: {bad[0].detail}" if bad else ""


def _scorer(extractor: FeatureExtractor, specification: dict[str, Any]) -> Scorer:
    """Returns a function that scores one class, whose label becomes part of the protocol."""

    def score(metric: Metric, own: Features, against: Reference, label: int) -> list[ScoreRecord]:
        return _score(metric, extractor, own, (against, {**specification, "class": label}))

    return score


def _score(
    metric: Metric,
    extractor: FeatureExtractor,
    generated: Features,
    other: tuple[Reference, dict[str, Any]] | None,
) -> list[ScoreRecord]:
    reference, specification = (
        other if other is not None and metric.needs_reference else (None, None)
    )
    weights = extractor.weights_digest()
    hashed = protocol(
        metric, extractor, weights, specification, images=len(generated), quantisation="as given"
    )
    return [
        ScoreRecord(
            name=name,
            title=metric.title_of(name, extractor),
            value=score.value,
            error=score.error,
            interval=score.interval,
            count=score.count,
            higher_is_better=metric.higher_is_better,
            fingerprint=digest(hashed),
            protocol=hashed,
            details=score.details,
        )
        for name, score in metric.scores(generated, reference).items()
    ]
