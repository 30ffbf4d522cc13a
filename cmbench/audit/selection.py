"""Counts the configurations that were scored before the one on a leaderboard.

The store knows them: each of its scores names its features, these name their samples, and those
name weights, sampler and seed. Scores of one model (its network and objective) with one metric,
extractor and number of evaluations are counted by weights (checkpoints, EMA rates, training
lengths), by sampler (time points, guidance, stochasticity) and by seed. A choice made on other
seeds than the reported one leaves the reported number unbiased. Each search of time points is
recorded in a file in `<cache>/searches`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmbench.audit.cached import manifest_spec
from cmbench.core.digests import canonical, digest
from cmbench.core.files import write_json
from cmbench.engine.context import JobContext
from cmbench.record.schema import Record, ScoreRecord
from cmbench.stats.selection import expected_gain
from cmbench.store.store import Address

__all__ = ["Selection", "keep_search", "selections"]


@dataclass(frozen=True)
class Selection:
    """Configurations that were scored besides a cell's own, for one score.

    Args:
        cell: The cell's id.
        label: The cell's label.
        nfe: Network evaluations per image.
        score: Title of the score.
        tried: Number of this model's configurations scored at this NFE, with this one: "best of
            k".
        weights: Number of different weights among them.
        samplers: Number of different samplers, with their parameters, among them.
        same_seeds: Number of configurations scored on the reported seed itself.
        other_seeds: Seeds other than the reported one on which scores were made.
        searched: Number of time points tried by the search that chose this cell's.
        held_out: Whether no other configuration was scored on the reported seed.
        gain: Standard errors by which the best of those on the reported seed would look better if
            all were equally good.
    """

    cell: str
    label: str
    nfe: float
    score: str
    tried: int
    weights: int
    samplers: int
    same_seeds: int
    other_seeds: list[int]
    searched: int
    held_out: bool
    gain: float

    def as_dict(self) -> dict[str, Any]:
        """Returns the selection as JSON-compatible values."""
        return asdict(self)


@dataclass(frozen=True)
class _Scored:
    """A score in the store."""

    line: str
    protocol: str
    weights: str
    sampler: str
    nfe: float
    seed: int


@dataclass
class _Kept:
    """All scores in the store, and the searches of time points."""

    scored: list[_Scored] = field(default_factory=list)
    searches: list[dict[str, Any]] = field(default_factory=list)


def selections(records: Sequence[Record], context: JobContext) -> list[Selection]:
    """Counts the alternatives to each finished cell, by its first score.

    Cells whose score is no longer in the store are omitted: nothing is known about them.
    """
    kept = _Kept(list(_all_scored(context)), list(_searches(context.store.root)))
    rows = []
    for record in records:
        if record.status != "done" or not record.scores or record.nfe is None:
            continue
        own = _scored(context, record.scores[0].key)
        if own is not None:
            rows.append(_selection(record, record.scores[0], own, kept))
    return rows


def keep_search(root: Path, search: dict[str, Any]) -> Path:
    """Records a search of time points: `indices`, `grid`, `tried`, `seed` and others."""
    path = root / "searches" / f"{digest(search)[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, search)
    return path


def _selection(record: Record, score: ScoreRecord, own: _Scored, kept: _Kept) -> Selection:
    alike = [
        s for s in kept.scored if (s.line, s.protocol, s.nfe) == (own.line, own.protocol, own.nfe)
    ]
    mine = (own.weights, own.sampler)
    configurations = {(s.weights, s.sampler) for s in alike}
    same = {(s.weights, s.sampler) for s in alike if s.seed == own.seed}
    points = (record.sampler.get("indices"), record.sampler.get("grid"))
    searched = [s for s in kept.searches if points[0] and (s["indices"], s["grid"]) == points]
    own_search = any(s["seed"] == own.seed for s in searched)
    return Selection(
        cell=record.cell,
        label=record.label,
        nfe=own.nfe,
        score=score.title,
        tried=len(configurations),
        weights=len({s.weights for s in alike}),
        samplers=len({s.sampler for s in alike}),
        same_seeds=len(same),
        other_seeds=sorted({s.seed for s in alike} - {own.seed}),
        searched=max((int(s["tried"]) for s in searched), default=0),
        held_out=same == {mine} and not own_search,
        gain=expected_gain(len(same)),
    )


def _searches(root: Path) -> Iterator[dict[str, Any]]:
    for path in sorted((root / "searches").glob("*.json")):
        yield json.loads(path.read_text("utf-8"))


def _all_scored(context: JobContext) -> Iterator[_Scored]:
    for path in sorted((context.store.root / "objects" / "score").glob("*/*/manifest.json")):
        scored = _scored(context, path.parent.name)
        if scored is not None:
            yield scored


def _scored(context: JobContext, key: str) -> _Scored | None:
    spec = manifest_spec(context, Address("score", key)) if key else None
    if spec is None or not spec.get("features"):
        return None
    features = manifest_spec(context, Address("features", spec["features"][0]))
    sample = features and manifest_spec(context, Address("sample", features["pixels"]))
    if not features or not sample or "model" not in sample:
        return None
    folder = context.store.folder(Address("sample", features["pixels"]))
    try:
        nfe = float(json.loads((folder / "facts.json").read_text("utf-8"))["nfe"])
    except (OSError, ValueError, KeyError):
        return None
    weights, sampler = sample.get("weights") or {}, sample.get("sampler")
    protocol = [spec["metric"], features["extractor"], spec.get("reference")]
    return _Scored(
        line=canonical([sample["model"], _objective(context, weights)]),
        protocol=canonical(protocol),
        weights=canonical(weights),
        sampler=canonical(sampler),
        nfe=nfe,
        seed=int(sample.get("seed", 0)),
    )


def _objective(context: JobContext, weights: dict[str, Any]) -> Any:
    """Objective and distance that the weights were trained with; None for other weights."""
    spec = (
        manifest_spec(context, Address("train", weights["train"])) if "train" in weights else None
    )
    recipe = (spec or {}).get("recipe", {})
    return [(recipe.get("objective") or {}).get("name"), recipe.get("distance")]
