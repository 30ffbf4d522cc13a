"""Runs a suite as a race: cells are sampled in rounds, and stop once their rank is settled.

Rounds are 1, 2, 4, ... shards per cell. After each, the first score with terms per image is
computed over the images so far, and `cmbench.stats.race` judges the paired differences of all
cells of one seed. A stopped cell has no score: its record is pending and states its rank. The
others continue to the full count. A score of n images has a bias of order 1/n, which cancels
between cells whose features have a similar spread; do not race a suite where they differ.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cmbench.core.errors import Pending, UserError
from cmbench.core.files import write_json
from cmbench.engine.base import Engine
from cmbench.engine.job import JobFailedError
from cmbench.metrics.base import MetricError
from cmbench.stats.race import Race, Settled
from cmbench.store.store import Address
from cmbench.suite.planner import Cell, Plan, PlannedScore

__all__ = ["race_suite"]


def race_suite(plan: Plan, engine: Engine, folder: Path) -> Plan:
    """Races the cells; returns the plan with settled cells marked pending. Writes race.json.

    Finished cells, decoys, and cells that fail do not take part.

    Args:
        plan: The full plan.
        engine: Computes the shards and their features.
        folder: The suite's results folder.

    Raises:
        UserError: If no score of the suite has terms per image.
        OSError: If the disk is full or can't be written.
    """
    place, name = _raced_score(plan)
    settled: dict[str, tuple[Settled, int]] = {}
    for seed in plan.suite.images.seeds:
        cells = [c for c in plan.cells if c.seed == seed and _may_race(c, place, folder)]
        for result in _Runner(plan, engine, place, name).run(cells):
            settled[result.entry] = (result, len(cells))
    _write(plan, folder, name, settled)
    cells = [_stopped(plan, c, name, *settled[c.id]) if c.id in settled else c for c in plan.cells]
    spent, total = _evaluations(plan, settled)
    engine.progress.say(
        f"race by {name}: {len(settled)} of {len(plan.cells)} cells settled early, "
        f"{total - spent:,} of {total:,} evaluations saved"
    )
    return replace(plan, cells=cells)


def _raced_score(plan: Plan) -> tuple[int, str]:
    """Returns index and name of the first of a cell's scores that has terms per image."""
    cell = next((c for c in plan.cells if c.scores), None)
    for place, score in enumerate(cell.scores if cell else ()):
        if score.job is not None and score.metric.has_terms(score.metric.outputs[0]):
            return place, score.metric.outputs[0]
    raise UserError(
        f"suite {plan.suite.suite} has no score that a race can use",
        where=str(plan.source.path),
        expected="a metric with terms per image, such as frechet_distance",
    )


def _may_race(cell: Cell, place: int, folder: Path) -> bool:
    if cell.pending is not None or cell.card.family == "decoy" or not cell.shards:
        return False
    if cell.scores[place].job is None:
        return False
    try:
        text = (folder / "records" / f"{cell.id}.json").read_text("utf-8")
        return bool(json.loads(text).get("status") != "done")
    except (OSError, ValueError, AttributeError):
        return True


@dataclass
class _Runner:
    plan: Plan
    engine: Engine
    place: int
    name: str

    def run(self, cells: Sequence[Cell]) -> list[Settled]:
        """Races the cells of one seed; returns those settled before the full count."""
        if len(cells) < 2:
            return []
        score = cells[0].scores[self.place]
        full, by_id = cells[0].images, {cell.id: cell for cell in cells}
        race = Race(list(by_id), full, higher_is_better=score.metric.higher_is_better)
        shards = 1
        while shards < len(cells[0].shards) and race.open:
            images = shards * self.plan.suite.images.shard
            if images >= score.metric.fewest():
                self._round(race, by_id, shards)
                self.engine.progress.say(
                    f"round of {images:,} images: {len(race.settled)} of {len(cells)} settled"
                )
            shards *= 2
        return race.settled

    def _round(self, race: Race, by_id: dict[str, Cell], shards: int) -> None:
        values: dict[str, float] = {}
        terms: dict[str, NDArray[Any]] = {}
        for entry in list(race.open):
            try:
                values[entry], terms[entry] = self._scored(by_id[entry].scores[self.place], shards)
            except (JobFailedError, MetricError):
                # The run itself will meet the fault again and report it.
                race.leave(entry)
        race.judge(values, terms)

    def _scored(self, score: PlannedScore, shards: int) -> tuple[float, NDArray[Any]]:
        """Returns value and terms over a cell's first shards."""
        assert score.job is not None
        spec = self.plan.jobs[score.job].spec
        keys = spec["features"][:shards]
        for key in keys:
            self.engine.make(self.plan, Address("features", key))
        reference = None
        if spec["reference"]:
            self.engine.make(self.plan, Address("reference", spec["reference"]))
            reference = self.engine.context.reference(spec["reference"])
        features = self.engine.context.features(keys)
        value = score.metric.scores(features, reference)[self.name].value
        return value, score.metric.terms(features, reference, self.name)


def _stopped(plan: Plan, cell: Cell, name: str, settled: Settled, entries: int) -> Cell:
    path = plan.source.path
    reason = Pending(
        f"its rank by {name} is settled, {settled.rank} of {entries}, after "
        f"{settled.samples:,} of {cell.images:,} images",
        command=f"cmbench run {path.stem if path.is_absolute() else path}",
    )
    return replace(cell, pending=reason)


def _evaluations(plan: Plan, settled: dict[str, tuple[Settled, int]]) -> tuple[int, int]:
    """Counts network evaluations of all cells with and without the race, if known beforehand."""
    spent = total = 0
    for cell in plan.cells:
        each = (cell.sampler.nfe() if cell.sampler else None) or 0
        total += each * cell.images
        spent += each * (settled[cell.id][0].samples if cell.id in settled else cell.images)
    return spent, total


def _write(plan: Plan, folder: Path, name: str, settled: dict[str, tuple[Settled, int]]) -> None:
    spent, total = _evaluations(plan, settled)
    summary = {
        "score": name,
        "level": 0.05,
        "images": plan.suite.images.count,
        "evaluations": {"race": spent, "every cell in full": total},
        "settled": [{**asdict(s), "of": entries} for s, entries in settled.values()],
    }
    write_json(folder / "race.json", summary)
