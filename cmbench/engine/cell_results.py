"""The results of a cell, as a pure function of the plan and of the outputs in a store.

`cmbench run` writes them, and `cmbench verify` compares a results folder with them.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.core.digests import digest, pixels_digest
from cmbench.core.images import image_grid
from cmbench.record.schema import (
    PendingScore,
    PublishedScore,
    Record,
    ScoreRecord,
    Speed,
    Training,
    TrainingLog,
)
from cmbench.store.store import Address, Store
from cmbench.suite.planner import Cell, Plan, PlannedScore

__all__ = [
    "SHOWN",
    "cell_speed",
    "finished_record",
    "pending_scores",
    "planned_record",
    "sample_grid",
    "score_records",
    "training_logs",
]

SHOWN = 64
"""Number of images of a cell on its sample sheet."""


def planned_record(
    plan: Plan,
    cell: Cell,
    status: Literal["done", "failed", "pending"],
    *,
    reason: str = "",
    command: str = "",
) -> Record:
    """Returns the record of a cell with the fields that follow from the plan."""
    published = [PublishedScore(**p.model_dump()) for p in cell.card.card.published]
    return Record(
        suite=plan.suite.suite,
        suite_version=plan.suite.version,
        cell=cell.id,
        status=status,
        label=cell.label,
        model=cell.card.full_name,
        family=cell.card.family,
        axes=cell.axes,
        sampler=cell.sampler.spec() if cell.sampler else {},
        seed=cell.seed,
        images=cell.images,
        training=_training(cell),
        published=published,
        identity=cell.identity,
        reason=reason,
        command=command,
    )


def finished_record(plan: Plan, cell: Cell, store: Store) -> Record:
    """Returns the record of a cell whose shards and scores are all in the store."""
    scores = [row for s in cell.scores for row in score_records(s, store)]
    facts = _facts(plan, cell.shards, store)
    flops = facts["flops_per_evaluation"]
    return planned_record(plan, cell, "done").model_copy(
        update={
            "nfe": facts["nfe"],
            "parameters": facts["parameters"],
            "flops_per_image": flops * facts["nfe"] if flops is not None else None,
            "shape": tuple(facts["shape"]),
            "shards": [pixels_digest(_pixels(shard, store)) for shard in cell.shards],
            "scores": scores,
            "pending_scores": pending_scores(cell.scores),
        }
    )


def score_records(planned: PlannedScore, store: Store) -> list[ScoreRecord]:
    """Returns the scores of one metric; none if it is pending."""
    if planned.job is None:
        return []
    rows = json.loads((store.folder(planned.job) / "scores.json").read_text("utf-8"))
    return [
        ScoreRecord(
            name=name,
            title=planned.metric.title_of(name, planned.extractor),
            higher_is_better=planned.metric.higher_is_better,
            fingerprint=digest(planned.protocol),
            protocol=planned.protocol,
            key=planned.job.key,
            **row,
        )
        for name, row in rows.items()
    ]


def pending_scores(scores: Sequence[PlannedScore]) -> list[PendingScore]:
    """Returns the pending scores, each with its reason."""
    return [
        PendingScore(
            name=name,
            title=score.metric.title_of(name, score.extractor),
            reason=score.pending.reason,
            command=score.pending.command,
        )
        for score in scores
        if score.pending is not None
        for name in score.metric.outputs
    ]


def sample_grid(cell: Cell, store: Store) -> NDArray[np.uint8]:
    """Returns the first 64 images of a cell in rows of 8, without gaps: (H, W) or (H, W, 3)."""
    parts: list[NDArray[np.uint8]] = []
    for shard in cell.shards:
        parts.append(_pixels(shard, store)[:SHOWN])
        if sum(map(len, parts)) >= SHOWN:
            break
    first = torch.from_numpy(np.concatenate(parts)[:SHOWN])
    grid: NDArray[np.uint8] = image_grid(first, 8, gap=0).numpy()
    return grid


def cell_speed(cell: Cell, store: Store) -> Speed:
    """Returns the median of the seconds per image of a cell's shards."""
    speeds = [_json(shard, "speed.json", store) for shard in cell.shards]
    median = float(np.median([r["seconds_per_image"] for r in speeds]))
    return Speed(**{**speeds[0], "seconds_per_image": median})


def training_logs(cell: Cell, store: Store) -> dict[str, TrainingLog]:
    """Returns the logs of a cell's trainings that the store holds, by the name of their file."""
    logs = {}
    for job in cell.network.jobs if cell.network else ():
        source = store.folder(job.address) / "log.json"
        if source.is_file():
            log = TrainingLog.model_validate_json(source.read_text("utf-8"))
            label = job.title.removeprefix("train ")
            logs[job.address.key[:16]] = log.model_copy(update={"label": label})
    return logs


def _training(cell: Cell) -> Training | None:
    recipe = cell.network.recipe if cell.network else None
    if recipe is None:
        return None
    return Training(
        recipe=recipe.recipe,
        recipe_digest=digest(recipe.identity()),
        seed=recipe.seed,
        recipe_digest_without_seed=recipe.digest_without_seed(),
        images=recipe.images,
        steps=recipe.steps,
        evaluations_per_image=recipe.forward_equivalents() / recipe.images,
        teacher=recipe.teacher,
    )


def _facts(plan: Plan, shards: Sequence[Address], store: Store) -> dict[str, Any]:
    """Returns the facts of the shards; only the evaluations of adaptive samplers differ, and are
    averaged.
    """
    facts = [_json(shard, "facts.json", store) for shard in shards]
    sizes = [plan.jobs[s].spec["count"] for s in shards]
    evaluations = sum(f["nfe"] * n for f, n in zip(facts, sizes, strict=True)) / sum(sizes)
    return {**facts[0], "nfe": round(evaluations, 6)}


def _json(address: Address, name: str, store: Store) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store.folder(address) / name).read_text("utf-8"))
    return content


def _pixels(shard: Address, store: Store) -> NDArray[np.uint8]:
    path = store.folder(shard) / "pixels.npy"
    pixels: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return pixels
