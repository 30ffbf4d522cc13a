"""Writes a results folder: records, samples, speeds and provenance of a run."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cmbench import __version__
from cmbench.core.digests import digest, pixels_digest, text_sha256
from cmbench.core.environment import device_name, git_state, package_versions
from cmbench.core.errors import Pending
from cmbench.core.files import atomic_file, sweep, write_json, write_text
from cmbench.core.images import image_grid
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.local_engine import LocalEngine
from cmbench.record.schema import (
    PendingScore,
    Provenance,
    PublishedScore,
    Record,
    ScoreRecord,
    Speed,
    Training,
    TrainingLog,
)
from cmbench.store.store import Address
from cmbench.suite.planner import Cell, Plan, PlannedScore

__all__ = ["ResultsWriter"]

_SHOWN = 64


_TITLES = {"inception_score": "Inception Score", "kid": "KID", "sfid": "sFID"}


class ResultsWriter:
    """Writes the records of a plan's cells, and what stands beside them, into one folder."""

    def __init__(self, plan: Plan, engine: LocalEngine, folder: Path) -> None:
        self.plan, self.engine, self.folder = plan, engine, folder
        self.context: JobContext = engine.context
        self.speeds: dict[str, dict[str, object]] = {}

    def open(self) -> None:
        """Makes the folder; drops records of cells that the suite lost, and half-written files."""
        for sub in ("", "records", "samples", "training"):
            sweep(self.folder / sub)
        (self.folder / "records").mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "suite.yaml", self.plan.source.text)
        self.speeds = _read_speeds(self.folder / "speed.json")
        wanted = {cell.id for cell in self.plan.cells} | self.plan.left_out
        for sub, suffix in (("records", ".json"), ("samples", ".png")):
            for file in (self.folder / sub).glob(f"*{suffix}"):
                if file.stem not in wanted:
                    file.unlink()
        self.speeds = {k: v for k, v in self.speeds.items() if k in wanted}

    def settle(self, cell: Cell) -> str:
        """Brings one cell to its record; returns done, cached, failed or pending."""
        if cell.pending is not None:
            self._write(self._waiting(cell, cell.pending))
            return "pending"
        if self._is_done(cell):
            return "cached"
        try:
            record = self._done(cell)
        except JobFailedError as error:
            self.engine.progress.say(f"FAILED {cell.label}: {error}")
            self._write(self._record(cell, status="failed", reason=str(error)))
            return "failed"
        write_json(self.folder / "speed.json", self.speeds)
        self._write(record)
        return "done"

    def close(self, started: str) -> None:
        """Writes what the run leaves beside the records: speeds, provenance."""
        if not (self.folder / "records").is_dir():
            return
        commit, dirty = git_state(Path(__file__).parent)
        provenance = Provenance(
            cmbench=__version__,
            command=" ".join(["cmbench", *sys.argv[1:]]),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            git_commit=commit,
            git_dirty=dirty,
            python=sys.version.split()[0],
            platform=sys.platform,
            device=device_name(self.context.device),
            threads=torch.get_num_threads(),
            packages=package_versions(),
            data=self.plan.fingerprints,
            suite_digest=text_sha256(self.plan.source.text),
        )
        write_json(self.folder / "provenance.json", provenance.model_dump(mode="json"))

    def _is_done(self, cell: Cell) -> bool:
        try:
            text = (self.folder / "records" / f"{cell.id}.json").read_text("utf-8")
            record = Record.model_validate_json(text)
        except (OSError, ValueError):
            # Not UTF-8, or not a record: pydantic's fault is a ValueError too.
            return False
        wanted = {s.job.key for s in cell.scores if s.job is not None}
        waiting = {n for s in cell.scores if s.job is None for n in s.metric.outputs}
        return (
            record.status == "done"
            and record.label == cell.label
            and record.suite_version == self.plan.suite.version
            and wanted == {s.key for s in record.scores}
            and waiting == {s.name for s in record.pending_scores}
            and (self.folder / "samples" / f"{cell.id}.png").is_file()
            and cell.id in self.speeds
        )

    def _done(self, cell: Cell) -> Record:
        for score in cell.scores:
            if score.job is not None:
                self.engine.make(self.plan, score.job)
        for shard in cell.shards:
            self.engine.make(self.plan, shard)
        if cell.network and cell.network.jobs:
            self.engine.make(self.plan, cell.network.jobs[-1].address)
        self._write_samples(cell)
        self._write_log(cell)
        self.speeds[cell.id] = self._speed(cell.shards)
        scores = [row for s in cell.scores if s.job is not None for row in self._scores(s)]
        facts = self._facts(cell.shards)
        flops = facts["flops_per_evaluation"]
        record = self._record(cell, status="done")
        return record.model_copy(
            update={
                "nfe": facts["nfe"],
                "parameters": facts["parameters"],
                "flops_per_image": flops * facts["nfe"] if flops is not None else None,
                "shape": tuple(facts["shape"]),
                "shards": [self._digest(shard) for shard in cell.shards],
                "scores": scores,
                "pending_scores": _waiting_scores(cell.scores),
            }
        )

    def _record(
        self,
        cell: Cell,
        *,
        status: Literal["done", "failed", "pending"],
        reason: str = "",
        command: str = "",
    ) -> Record:
        published = [PublishedScore(**p.model_dump()) for p in cell.card.card.published]
        return Record(
            suite=self.plan.suite.suite,
            suite_version=self.plan.suite.version,
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

    def _waiting(self, cell: Cell, pending: Pending) -> Record:
        return self._record(cell, status="pending", reason=pending.reason, command=pending.command)

    def _scores(self, planned: PlannedScore) -> list[ScoreRecord]:
        assert planned.job is not None
        path = self.context.store.folder(planned.job) / "scores.json"
        rows = json.loads(path.read_text("utf-8"))
        return [
            ScoreRecord(
                name=name,
                title=_title(name, planned),
                higher_is_better=planned.metric.higher_is_better,
                fingerprint=digest(planned.protocol),
                protocol=planned.protocol,
                key=planned.job.key,
                **row,
            )
            for name, row in rows.items()
        ]

    def _digest(self, shard: Address) -> str:
        source = self.context.store.folder(shard) / "pixels.npy"
        return pixels_digest(np.load(source, mmap_mode="r", allow_pickle=False))

    def _facts(self, shards: Sequence[Address]) -> dict[str, Any]:
        """Facts of the shards: equal, but for the evaluations of adaptive samplers (averaged)."""
        read = [
            json.loads((self.context.store.folder(s) / "facts.json").read_text("utf-8"))
            for s in shards
        ]
        sizes = [self.plan.jobs[s].spec["count"] for s in shards]
        spent = sum(f["nfe"] * n for f, n in zip(read, sizes, strict=True)) / sum(sizes)
        return {**read[0], "nfe": round(spent, 6)}

    def _speed(self, shards: Sequence[Address]) -> dict[str, object]:
        read = [
            json.loads((self.context.store.folder(s) / "speed.json").read_text("utf-8"))
            for s in shards
        ]
        median = float(np.median([r["seconds_per_image"] for r in read]))
        return Speed(**{**read[0], "seconds_per_image": median}).model_dump(mode="json")

    def _write_samples(self, cell: Cell) -> None:
        pixels: list[NDArray[np.uint8]] = []
        for shard in cell.shards:
            source = self.context.store.folder(shard) / "pixels.npy"
            pixels.append(np.load(source, mmap_mode="r", allow_pickle=False)[:_SHOWN])
            if sum(map(len, pixels)) >= _SHOWN:
                break
        first = torch.from_numpy(np.concatenate(pixels)[:_SHOWN])
        with atomic_file(self.folder / "samples" / f"{cell.id}.png") as file:
            Image.fromarray(image_grid(first, 8, gap=0).numpy()).save(file, format="PNG")

    def _write_log(self, cell: Cell) -> None:
        for job in cell.network.jobs if cell.network else ():
            source = self.context.store.folder(job.address) / "log.json"
            target = self.folder / "training" / f"{job.address.key[:16]}.json"
            if source.is_file() and not target.is_file():
                log = TrainingLog.model_validate_json(source.read_text("utf-8"))
                shown = log.model_copy(update={"label": job.title.removeprefix("train ")})
                write_json(target, shown.model_dump(mode="json"))

    def _write(self, record: Record) -> None:
        path = self.folder / "records" / f"{record.cell}.json"
        write_json(path, record.model_dump(mode="json"))


def _title(name: str, planned: PlannedScore) -> str:
    space = planned.extractor.distance_name
    if name == "frechet_distance":
        return space
    plain = _TITLES.get(name, name.replace("_", " "))
    # Other spaces than these are named beside the score, so that columns tell themselves apart.
    return plain if space in ("FID", "FD-EffNet", "FD-digits") else f"{plain} ({space})"


def _waiting_scores(scores: Sequence[PlannedScore]) -> list[PendingScore]:
    return [
        PendingScore(
            name=name,
            title=_title(name, score),
            reason=score.pending.reason,
            command=score.pending.command,
        )
        for score in scores
        if score.pending is not None
        for name in score.metric.outputs
    ]


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


def _read_speeds(path: Path) -> dict[str, dict[str, object]]:
    try:
        read = json.loads(path.read_text("utf-8"))
        return {k: Speed(**v).model_dump(mode="json") for k, v in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
