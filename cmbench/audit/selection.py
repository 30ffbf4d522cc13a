"""Counts the configurations that were scored before the one that a board shows.

The store knows: every score it holds names its features, those their samples, and those the
weights, sampler and seed. Scores of one method in one metric, extractor and number of evaluations
are counted by weights (checkpoints, EMA rates, training lengths), by the sampler's parameters
(time points, guidance, stochasticity) and by seed. A method is a network with the objective and
distance that trained it, under a sampler of one name; weights of which neither the store nor a
card says how they were trained are a method of their own. What stands on the board itself, under
another label or as another training of the same row, was shown and not left out: it is no try. A
choice that was made on other seeds than the reported one's leaves the reported number unbiased.
Searches of time points leave a file in `<cache>/searches`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cmbench.audit.cached import manifest_spec
from cmbench.cards.cards import list_cards
from cmbench.core.digests import canonical, digest
from cmbench.core.files import write_json
from cmbench.engine.context import JobContext
from cmbench.record.schema import Record
from cmbench.stats.selection import expected_gain
from cmbench.store.store import Address
from cmbench.train.recipe import read_recipe

__all__ = ["Selection", "keep_search", "selections"]


@dataclass(frozen=True)
class Selection:
    """Counts of what was scored beside a cell, for one score.

    Args:
        cell: The cell's id.
        label: Its label.
        nfe: Evaluations an image.
        score: Title of the score.
        tried: Configurations of this model scored at this NFE, this one included: "best of k".
        weights: Different weights among them.
        samplers: Different samplers, with their parameters, among them.
        same_seeds: Configurations scored on the reported seed itself.
        other_seeds: Seeds that only others, or other scores of this one, were made on.
        searched: Time points tried by a search that ended at this cell's.
        held_out: Whether no other configuration was scored on the reported seed.
        gain: Standard errors by which the best of those on the reported seed looks better, if
            they were all equally good.
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
        """Returns the counts as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Scored:
    """One score in the store."""

    line: str
    protocol: str
    weights: str
    sampler: str
    nfe: float
    seed: int


@dataclass
class _Kept:
    """All scores in the store, and the searches beside it."""

    scored: list[_Scored] = field(default_factory=list)
    searches: list[dict[str, Any]] = field(default_factory=list)


def selections(records: Sequence[Record], context: JobContext) -> list[Selection]:
    """Counts for the first score of each finished cell that was chosen from a store like this one.

    Cells whose score the store no longer has are left out: nothing is known of them.
    """
    by_card = _objectives_of_cards()
    kept = _Kept(list(_all_scored(context, by_card)), list(_searches(context.store.root)))
    shown = {_configuration(record) for record in records if record.status == "done"}
    found = []
    for record in records:
        if record.status != "done" or not record.scores or record.nfe is None:
            continue
        own = _scored(context, record.scores[0].key, by_card)
        if own is not None:
            found.append(_selection(record, own, kept, shown - {(own.weights, own.sampler)}))
    return found


def keep_search(root: Path, told: dict[str, Any]) -> Path:
    """Keeps what a search of time points tried: `indices`, `grid`, `tried`, `seed` and others."""
    path = root / "searches" / f"{digest(told)[:16]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, told)
    return path


def _configuration(record: Record) -> tuple[str, str]:
    """Weights and sampler of a record's cell, as `_Scored` holds them."""
    identity = record.identity
    return canonical(identity.get("weights") or {}), canonical(identity.get("sampler"))


def _selection(
    record: Record, own: _Scored, kept: _Kept, shown: set[tuple[str, str]]
) -> Selection:
    score = record.scores[0]
    alike = [
        s
        for s in kept.scored
        if (s.line, s.protocol, s.nfe) == (own.line, own.protocol, own.nfe)
        and (s.weights, s.sampler) not in shown
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


def _all_scored(context: JobContext, by_card: dict[str, list[Any]]) -> Iterator[_Scored]:
    for path in sorted((context.store.root / "objects" / "score").glob("*/*/manifest.json")):
        found = _scored(context, path.parent.name, by_card)
        if found is not None:
            yield found


def _scored(context: JobContext, key: str, by_card: dict[str, list[Any]]) -> _Scored | None:
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
        line=canonical(
            [sample["model"], _trained_by(context, weights, by_card), (sampler or {}).get("name")]
        ),
        protocol=canonical(protocol),
        weights=canonical(weights),
        sampler=canonical(sampler),
        nfe=nfe,
        seed=int(sample.get("seed", 0)),
    )


def _trained_by(
    context: JobContext, weights: dict[str, Any], by_card: dict[str, list[Any]]
) -> list[Any]:
    """Objective and distance that trained the weights; where none is known, the weights."""
    if "train" in weights:
        spec = manifest_spec(context, Address("train", weights["train"])) or {}
        recipe = spec.get("recipe", {})
        return [(recipe.get("objective") or {}).get("name"), recipe.get("distance")]
    return by_card.get(str(weights.get("sha256")), [canonical(weights)])


def _objectives_of_cards() -> dict[str, list[Any]]:
    """Objective and distance by the SHA-256 of the weights that cards ship with a recipe."""
    found: dict[str, list[Any]] = {}
    for placed in list_cards():
        weights = placed.card.weights
        if weights is not None and weights.sha256 and placed.recipe_file is not None:
            identity = read_recipe(placed.recipe_file).identity()
            name = (identity.get("objective") or {}).get("name")
            found[weights.sha256] = [name, identity.get("distance")]
    return found
