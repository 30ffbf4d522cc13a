"""Writes a results folder: records, samples, speeds and provenance of a run."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from cmbench import __version__
from cmbench.core.digests import text_sha256
from cmbench.core.environment import device_name, git_state, package_versions
from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, sweep, write_json, write_text
from cmbench.engine.base import Engine
from cmbench.engine.cell_results import (
    cell_speed,
    finished_record,
    planned_record,
    sample_grid,
    training_logs,
)
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.record.folder import on_stderr, read_provenance, read_record, read_speeds, schema_of
from cmbench.record.schema import SCHEMA, Provenance, Record, Speed
from cmbench.store.leases import FileLeases, wait_for
from cmbench.suite.planner import Cell, Plan

__all__ = ["ResultsWriter", "foreign_cells", "foreign_line", "speeds_locked"]

_SET_ASIDE = "set_aside"
"""Folder of the finished cells that the suite no longer plans."""
_LOCK = ".speed.lock"


class ResultsWriter:
    """Writes the records of a plan's cells, and what stands beside them, into one folder."""

    def __init__(self, plan: Plan, engine: Engine, folder: Path) -> None:
        self.plan, self.engine, self.folder = plan, engine, folder
        self.context: JobContext = engine.context
        self.speeds: dict[str, Speed] = {}

    def open(self) -> None:
        """Creates the folder, sets aside cells that the suite dropped and restores returned ones.

        Raises:
            UserError: If a newer cmbench wrote a record that this run would overwrite.
        """
        for cell in self.plan.cells:
            planned_record(self.plan, cell, "pending")  # what can't be written is refused now
        for sub in ("", "records", "samples", "training"):
            sweep(self.folder / sub)
        (self.folder / "records").mkdir(parents=True, exist_ok=True)
        self._look_at_versions()
        foreign = foreign_cells(self.plan, self.folder)
        write_text(self.folder / "suite.yaml", self.plan.source.text)
        with speeds_locked(self.folder) as speeds:
            self._bring_back(speeds)
            self._set_aside(foreign, speeds)
            self.speeds = dict(speeds)

    def settle(self, cell: Cell) -> str:
        """Computes one cell and writes its record; returns done, cached, failed or pending."""
        if cell.pending is not None:
            reason, command = cell.pending.reason, cell.pending.command
            self._write(planned_record(self.plan, cell, "pending", reason=reason, command=command))
            return "pending"
        if self._is_done(cell):
            return "cached"
        try:
            self._make(cell)
        except JobFailedError as error:
            self.engine.progress.say(f"FAILED {cell.label}: {error}")
            self._write(planned_record(self.plan, cell, "failed", reason=str(error)))
            return "failed"
        self._write_samples(cell)
        self._write_logs(cell)
        with speeds_locked(self.folder) as speeds:
            speeds[cell.id] = cell_speed(cell, self.context.store)
        self.speeds = dict(speeds)
        self._write(finished_record(self.plan, cell, self.context.store))
        return "done"

    def close(self, started: str) -> None:
        """Writes the run's provenance beside the records."""
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

    def _look_at_versions(self) -> None:
        """Refuses to overwrite records of a newer cmbench; says so where those are older."""
        older = 0
        for cell in self.plan.cells:
            path = self._record_path(cell.id)
            version = schema_of(path) if path.is_file() else None
            if version is not None and version > SCHEMA:
                raise UserError(
                    f"{path} was written by a newer cmbench (schema_version {version}; "
                    f"this one writes {SCHEMA}) and is not overwritten",
                    fix="upgrade cmbench, or give another folder with --results",
                )
            older += version is not None and version < SCHEMA
        if older:
            on_stderr(
                f"{older} of the records in {self.folder} are of an older cmbench: written again"
            )

    def _bring_back(self, speeds: dict[str, Speed]) -> None:
        """Puts cells back into the folder that were set aside and are planned again."""
        aside = self.folder / _SET_ASIDE
        if not aside.is_dir():
            return
        kept = read_speeds(aside)
        for cell in self.plan.cells:
            if not self._record_path(cell.id).exists():
                _move(aside, self.folder, cell.id)
                if cell.id in kept:
                    speeds.setdefault(cell.id, kept[cell.id])

    def _set_aside(self, foreign: list[Record], speeds: dict[str, Speed]) -> None:
        """Takes cells out of the folder that are not planned; finished ones are kept."""
        done = [record for record in foreign if record.status == "done"]
        if done:
            on_stderr(foreign_line(self.plan, self.folder, len(done), "they are moved"))
            aside = self.folder / _SET_ASIDE
            moved = read_speeds(aside)
            for record in done:
                _move(self.folder, aside, record.cell)
                if record.cell in speeds:
                    moved[record.cell] = speeds.pop(record.cell)
            _write_speeds(aside, moved)
        for record in foreign:
            self._record_path(record.cell).unlink(missing_ok=True)
            speeds.pop(record.cell, None)

    def _is_done(self, cell: Cell) -> bool:
        record = read_record(self._record_path(cell.id), tell=lambda line: None)
        wanted = {s.job.key for s in cell.scores if s.job is not None}
        waiting = {n for s in cell.scores if s.job is None for n in s.metric.outputs}
        return (
            record is not None
            and record.status == "done"
            and record.label == cell.label
            and record.suite_version == self.plan.suite.version
            and wanted == {s.key for s in record.scores}
            and waiting == {s.name for s in record.pending_scores}
            and (self.folder / "samples" / f"{cell.id}.png").is_file()
            and cell.id in self.speeds
        )

    def _make(self, cell: Cell) -> None:
        for score in cell.scores:
            if score.job is not None:
                self.engine.make(self.plan, score.job)
        for shard in cell.shards:
            self.engine.make(self.plan, shard)
        if cell.network and cell.network.jobs:
            self.engine.make(self.plan, cell.network.jobs[-1].address)

    def _write_samples(self, cell: Cell) -> None:
        with atomic_file(self.folder / "samples" / f"{cell.id}.png") as file:
            Image.fromarray(sample_grid(cell, self.context.store)).save(file, format="PNG")

    def _write_logs(self, cell: Cell) -> None:
        for name, log in training_logs(cell, self.context.store).items():
            target = self.folder / "training" / f"{name}.json"
            if not target.is_file():
                write_json(target, log.model_dump(mode="json"))

    def _record_path(self, cell: str) -> Path:
        return self.folder / "records" / f"{cell}.json"

    def _write(self, record: Record) -> None:
        write_json(self._record_path(record.cell), record.model_dump(mode="json"))


@contextlib.contextmanager
def speeds_locked(folder: Path) -> Iterator[dict[str, Speed]]:
    """Yields the speeds of a folder as they are now, and writes them back at the end.

    Meanwhile no other run changes them, so that runs at once keep each other's.
    """
    leases = FileLeases(folder, folder)
    wait_for(leases, _LOCK, None)
    with leases.held(_LOCK):
        before = read_speeds(folder)
        speeds = dict(before)
        yield speeds
        if speeds != before:
            _write_speeds(folder, speeds)


def foreign_cells(plan: Plan, folder: Path) -> list[Record]:
    """Records in a results folder that a plan has no cell for; strays that don't read stay."""
    wanted = {cell.id for cell in plan.cells} | plan.left_out
    strays = sorted(f for f in (folder / "records").glob("*.json") if f.stem not in wanted)
    found = [(file, read_record(file)) for file in strays]
    return [record for file, record in found if record and record.cell == file.stem]


def foreign_line(plan: Plan, folder: Path, count: int, verb: str) -> str:
    """Message on finished cells of another suite, or of another version of this one."""
    last = read_provenance(folder, tell=lambda line: None)
    written = f" (last written by `{last.command}`)" if last else ""
    return (
        f"{folder} holds {count} finished cells{written} that suite {plan.suite.suite} of "
        f"{plan.source.path} does not plan; {verb} to {folder / _SET_ASIDE}. Two suites of one "
        "name share one folder: rename one to keep both boards"
    )


def _move(source: Path, target: Path, cell: str) -> None:
    for name in (f"samples/{cell}.png", f"records/{cell}.json"):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / name, target / name)


def _write_speeds(folder: Path, speeds: dict[str, Speed]) -> None:
    told = {cell: speed.model_dump(mode="json") for cell, speed in speeds.items()}
    write_json(folder / "speed.json", told)
