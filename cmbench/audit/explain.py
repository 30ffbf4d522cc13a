"""Why two numbers differ: the fields in which they do, and the shift that each of them makes.

Each field that belongs to the protocol is changed alone, on the samples of the first cell as the
cache has them; what is left of the difference is the samples' own (model, weights, sampler, seed)
and the interplay of fields.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.audit.cached import CachedSamples, cached_samples, differing_fields, manifest_spec
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.loader import create
from cmbench.engine.context import JobContext
from cmbench.metrics.base import Features, Metric, Reference, Score
from cmbench.record.folder import read_results
from cmbench.record.schema import Record, ScoreRecord
from cmbench.store.jobs import make_job
from cmbench.store.store import Address

__all__ = ["Explanation", "Shift", "explain", "find_cell", "folder_of"]


@dataclass(frozen=True)
class Shift:
    """What one group of fields does to the first number when the second's value is put in.

    Args:
        group: images, quantisation, extractor, reference, or metric.
        fields: The fields in it, with both values.
        shift: Change of the value; None where it can't be measured.
        interval: 95% interval of the change.
        note: How it was measured, or why it was not.
    """

    group: str
    fields: dict[str, tuple[Any, Any]]
    shift: float | None
    interval: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class Explanation:
    """Two numbers, what differs, and what each difference makes."""

    score: str
    a: float
    b: float
    shifts: list[Shift]
    samples: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    rest: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_cell(text: str) -> Record:
    """A cell as typed: `results/x:CELL` (its first digits do) or a record's file.

    Raises:
        UserError: If there is no such cell, or several.
    """
    folder, cell = _place_of(text)
    every = read_results(folder)
    records = [r for r in every if r.status == "done" and r.cell.startswith(cell)]
    if len(records) != 1:
        known = ", ".join(f"{r.cell} ({r.label}, {r.nfe:g} NFE)" for r in every[:8] if r.nfe)
        raise UserError(
            f"{text} names {len(records)} cells", expected=f"FOLDER:CELL; there are: {known}"
        )
    return records[0]


def folder_of(text: str) -> Path:
    """The results folder of a cell as typed."""
    return _place_of(text)[0]


def _place_of(text: str) -> tuple[Path, str]:
    path = Path(text)
    if path.suffix == ".json":
        return path.parent.parent, path.stem
    place, _, cell = text.rpartition(":")
    return Path(place or text), cell if place else ""


def explain(a: Record, b: Record, name: str, context: JobContext) -> Explanation:
    """Explains the difference of a score in two cells.

    Args:
        a: The first cell; shifts are measured on its samples.
        b: The second.
        name: Name of the score, `frechet_distance`, or its title.
        context: Store with the cached samples, and a device.

    Raises:
        UserError: If a cell lacks the score.
    """
    one, two = _score(a, name), _score(b, name)
    fields = differing_fields(one.protocol, two.protocol)
    own = differing_fields(_own(a), _own(b))
    measure = _Measure(one, two, context)
    shifts = [
        measure.shift(group, {k: v for k, v in fields.items() if _group(k) == group})
        for group in dict.fromkeys(map(_group, fields))
    ]
    known = [s.shift for s in shifts]
    total = None if None in known else float(sum(s for s in known if s is not None))
    rest = None if total is None else two.value - one.value - total
    return Explanation(one.title, one.value, two.value, shifts, own, rest)


def _score(record: Record, name: str) -> ScoreRecord:
    found = [s for s in record.scores if name in (s.name, s.title)]
    if not found:
        raise UserError(
            f"cell {record.cell} has no score '{name}'",
            expected=", ".join(s.title for s in record.scores),
        )
    return found[0]


def _own(record: Record) -> dict[str, Any]:
    identity = record.identity
    return {key: identity.get(key) for key in ("model", "weights", "sampler", "seed")}


def _group(place: str) -> str:
    head = place.partition(".")[0]
    # The reference was made by the extractor: its fields change with it.
    return "extractor" if head in ("weights", "extractor") else head


class _Measure:
    def __init__(self, one: ScoreRecord, two: ScoreRecord, context: JobContext) -> None:
        self.one, self.two, self.context = one, two, context
        self.held, self.other = cached_samples(one, context), cached_samples(two, context)

    def shift(self, group: str, fields: dict[str, tuple[Any, Any]]) -> Shift:
        """One group's shift, measured if it can be."""
        if self.held is None:
            return Shift(group, fields, None, None, "the cache no longer has the first's features")
        if group == "reference" and self._same_space() is False:
            return Shift(group, fields, 0.0, (0.0, 0.0), "goes with the extractor")
        ways = {"images": self._images, "quantisation": self._quantisation,
                "extractor": self._extractor, "reference": self._reference,
                "metric": self._metric}  # fmt: skip
        if group not in ways:
            return Shift(group, fields, None, None, "no way to measure it")
        try:
            value, interval, note = ways[group](self.held)
        except CmbenchError as error:
            return Shift(group, fields, None, None, str(error).splitlines()[0])
        return Shift(group, fields, value, interval, note)

    def _same_space(self) -> bool:
        pair = (self.one.protocol, self.two.protocol)
        return bool(pair[0]["extractor"] == pair[1]["extractor"])

    def _images(self, held: CachedSamples) -> tuple[float, tuple[float, float] | None, str]:
        fewer = min(self.one.count, self.two.count)
        grows = self.two.count > self.one.count
        source = self.other if grows else held
        if source is None:
            raise CmbenchError("the cache no longer has the second's features")
        part = Features({k: v[:fewer] for k, v in source.features.layers.items()})
        whole = self._terms(source.metric, source.features, source.reference)
        some = self._terms(source.metric, part, source.reference)
        sign = 1 if grows else -1
        change = sign * (whole[0] - some[0])
        interval = None
        if whole[1] is not None and some[1] is not None:
            weights = whole[1] / len(whole[1])
            weights[:fewer] -= some[1] / fewer
            interval = _around(change, float(np.sqrt((weights**2).sum())))
        return change, interval, f"the first {fewer} of {max(self.one.count, self.two.count)}"

    def _metric(self, held: CachedSamples) -> tuple[float, tuple[float, float] | None, str]:
        metric: Metric = create("metric", self.two.protocol["metric"])
        return self._against(held, metric, held.features, held.reference, "same features")

    def _reference(self, held: CachedSamples) -> tuple[float, tuple[float, float] | None, str]:
        if self.other is None:
            raise CmbenchError("the cache no longer has the second's reference")
        return self._against(
            held, held.metric, held.features, self.other.reference, "same features"
        )

    def _extractor(self, held: CachedSamples) -> tuple[float, tuple[float, float] | None, str]:
        if self.other is None:
            raise CmbenchError("the cache no longer has the second's reference")
        features = self._again(self._pixels(held), self.two.protocol["extractor"])
        return self._against(
            held, held.metric, features, self.other.reference,
            "same pixels, and the second's reference in its features",
        )  # fmt: skip

    def _quantisation(self, held: CachedSamples) -> tuple[float, tuple[float, float] | None, str]:
        rule = self.two.protocol["quantisation"]
        pixels, note = self._requantised(held, rule)
        features = self._again(pixels, self.one.protocol["extractor"])
        return self._against(held, held.metric, features, held.reference, note)

    def _against(
        self,
        held: CachedSamples,
        metric: Metric,
        features: Features,
        reference: Reference | None,
        note: str,
    ) -> tuple[float, tuple[float, float] | None, str]:
        before = self._terms(held.metric, held.features, held.reference)
        after = self._terms(metric, features, reference)
        change = after[0] - before[0]
        interval = None
        if before[1] is not None and after[1] is not None:
            spread = float(np.std(after[1] - before[1], ddof=1) / np.sqrt(len(after[1])))
            interval = _around(change, spread)
        return change, interval, note

    def _terms(
        self, metric: Metric, features: Features, reference: Reference | None
    ) -> tuple[float, NDArray[np.float64] | None]:
        score: Score = metric.scores(features, reference)[self.one.name]
        return score.value, metric.terms(features, reference, self.one.name)

    def _shards(self, held: CachedSamples) -> list[dict[str, Any]]:
        """Specifications of the sampling jobs behind the first's features."""
        found = []
        for key in held.feature_keys:
            spec = manifest_spec(self.context, Address("features", key))
            pixels = spec and manifest_spec(self.context, Address("sample", spec["pixels"]))
            if not spec or not pixels:
                raise CmbenchError("the cache no longer has the first's pixels")
            found.append({"key": spec["pixels"], "spec": pixels})
        return found

    def _pixels(self, held: CachedSamples) -> NDArray[np.uint8]:
        return self._load([shard["key"] for shard in self._shards(held)])

    def _load(self, keys: list[str]) -> NDArray[np.uint8]:
        parts = []
        for key in keys:
            address = Address("sample", key)
            if not self.context.store.has(address):
                raise CmbenchError("the cache no longer has the pixels")
            path = self.context.store.folder(address) / "pixels.npy"
            parts.append(np.load(path, allow_pickle=False))
        return np.concatenate(parts)

    def _requantised(self, held: CachedSamples, rule: str) -> tuple[NDArray[np.uint8], str]:
        shards = self._shards(held)
        keys = []
        for shard in shards:
            spec = {k: v for k, v in shard["spec"].items() if k not in ("kind", "version")}
            keys.append(make_job("sample", {**spec, "quantisation": rule}).address.key)
        if all(self.context.store.has(Address("sample", key)) for key in keys):
            return self._load(keys), f"the same samples, sampled with '{rule}'"
        # Rounding gives the level above truncation's for half of all values between two levels.
        pixels = self._load([shard["key"] for shard in shards])
        half = np.random.default_rng(0).random(pixels.shape) < 0.5
        inner = (pixels > 0) & (pixels < 255) & half
        step = -1 if rule == "truncate" else 1
        moved = (pixels.astype(np.int16) + step * inner).astype(np.uint8)
        return moved, "emulated: half of the inner pixels moved by one level"

    def _again(self, pixels: NDArray[np.uint8], spec: dict[str, Any]) -> Features:
        batches = (pixels[first : first + 64] for first in range(0, len(pixels), 64))
        return Features(self.context.extractor(spec).rows(batches, self.context.device))


def _around(value: float, error: float) -> tuple[float, float]:
    return value - 1.96 * error, value + 1.96 * error
