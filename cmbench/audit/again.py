"""Recomputes a random part of a results folder: shards, their scores, and their cost."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cmbench.audit.claims import Check, Options, compared, field_checks
from cmbench.core.digests import pixels_digest
from cmbench.core.errors import CmbenchError, Pending
from cmbench.engine.cell_results import finished_record, sample_grid, score_records
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import Progress
from cmbench.record.schema import Record, ScoreRecord
from cmbench.store.store import Address, Store
from cmbench.suite.planner import Cell, Plan

__all__ = ["Again", "Verdict"]


@dataclass
class Verdict:
    """Outcome of a verification.

    Args:
        findings: All checks.
        shards: Number of shards recomputed.
        claimed: Number of shards in the folder.
        cells: Ids of the cells that the recomputed shards belong to.
    """

    findings: list[Check] = field(default_factory=list)
    shards: int = 0
    claimed: int = 0
    cells: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> bool:
        """True if shards were recomputed, and nothing differs or is unchecked."""
        kinds = {f.verdict for f in self.findings}
        return self.shards > 0 and kinds <= {"confirmed", "on trust"}

    @property
    def exit_code(self) -> int:
        """Returns 0 if confirmed, 1 if something differs, 3 if something could not be checked."""
        if any(f.verdict == "differs" for f in self.findings):
            return 1
        return 0 if self.confirmed else 3

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict as JSON-compatible values."""
        return {"confirmed": self.confirmed, **asdict(self)}


class _DamagedError(CmbenchError):
    """Raised for an output in the cache that was altered."""


class Again:
    """Recomputes shards and scores in a separate store.

    Args:
        plan: The plan of the folder's suite.
        kept: The cache, for trained weights and for shards that are not recomputed.
        fresh: The separate store.
        device: Where samples are recomputed.
        progress: Progress display.
        options: What is checked and how strictly.
        folder: The results folder.
    """

    def __init__(
        self,
        plan: Plan,
        kept: Store,
        fresh: Store,
        device: torch.device,
        progress: Progress,
        options: Options,
        folder: Path,
    ) -> None:
        self.plan, self.kept, self.fresh, self.folder = plan, kept, fresh, folder
        self.options = options
        self.engine = LocalEngine(JobContext(fresh, device), progress)

    def check(self, cells: Sequence[tuple[Record, Cell]], verdict: Verdict) -> None:
        """Chooses shards at random, recomputes them and compares."""
        claimed = [(r, c, i) for r, c in cells for i in range(len(c.shards))]
        verdict.claimed = len(claimed)
        if not claimed:
            return
        count = min(len(claimed), max(1, round(self.options.fraction * len(claimed))))
        order = np.random.default_rng(self.options.seed).permutation(len(claimed))[:count]
        chosen: dict[str, list[int]] = {}
        for index in sorted(order):
            chosen.setdefault(claimed[index][0].cell, []).append(claimed[index][2])
        verdict.shards = count
        for record, cell in cells:
            if record.cell in chosen:
                verdict.cells.append(record.cell)
                verdict.findings += self._cell(record, cell, chosen[record.cell])
            else:
                verdict.findings += self._cached(record, cell)

    def _cell(self, record: Record, cell: Cell, shards: list[int]) -> Iterator[Check]:
        try:
            self._require_weights(cell)
            for index, shard in enumerate(cell.shards):
                if index in shards or not self._borrow(record, index, shard):
                    self.engine.make(self.plan, shard)
            yield from self._samples(record, cell, shards)
            yield from self._scores(record, cell)
            yield from self._facts(record, finished_record(self.plan, cell, self.fresh))
        except _DamagedError as error:
            yield Check("differs", record.cell, record.label, str(error))
        except Pending as reason:
            yield Check("unchecked", record.cell, record.label, str(reason))
        except JobFailedError as error:
            yield Check("unchecked", record.cell, record.label, f"it can't be recomputed: {error}")

    def _require_weights(self, cell: Cell) -> None:
        """Copies trained weights from the cache if they are intact; otherwise allows retraining.

        Raises:
            _DamagedError: If the cached weights were altered.
            Pending: If they are not in the cache, without `retrain`.
        """
        for job in cell.network.jobs if cell.network else ():
            if self.fresh.has(job.address):
                continue
            present = self.kept.present(job.address)
            if self.kept.has(job.address):
                self._copy(job.address)
            elif present:
                raise _DamagedError(f"the trained weights in the cache were altered ({job.title})")
            elif not self.options.retrain:
                raise Pending(
                    f"its trained weights are not in the cache ({job.title})",
                    command="cmbench verify --retrain, which trains them again",
                )

    def _borrow(self, record: Record, index: int, shard: Address) -> bool:
        """Copies an unchosen shard from the cache, if the record claims the same pixels."""
        if index >= len(record.shards) or not self.kept.has(shard):
            return False
        pixels = np.load(self.kept.folder(shard) / "pixels.npy", allow_pickle=False)
        if pixels_digest(pixels) != record.shards[index]:
            return False
        self._copy(shard)
        return True

    def _copy(self, address: Address) -> None:
        target = self.fresh.folder(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.kept.folder(address), target, dirs_exist_ok=True)

    def _facts(self, record: Record, ours: Record) -> Iterator[Check]:
        """Compares evaluations, parameters, operations and shape with those counted here."""
        names = {"nfe", "parameters", "flops_per_image", "shape"}
        claimed, counted = (r.model_dump(mode="json", include=names) for r in (record, ours))
        yield from field_checks(record.cell, "", claimed, counted)

    def _samples(self, record: Record, cell: Cell, shards: list[int]) -> Iterator[Check]:
        if len(record.shards) > len(cell.shards):
            yield Check(
                "differs",
                record.cell,
                "shards",
                f"{len(record.shards)} digests claimed, the cell has {len(cell.shards)}",
            )
        for index in shards:
            pixels = self._pixels(cell, index)
            place = self.plan.jobs[cell.shards[index]].spec["first"]
            what = f"images {place} to {place + len(pixels) - 1}"
            claimed = record.shards[index] if index < len(record.shards) else None
            if claimed == pixels_digest(pixels):
                yield Check("confirmed", record.cell, what, "to the bit")
            elif claimed is not None and self.options.levels == 0:
                yield Check("differs", record.cell, what, "other pixels than were claimed")
            elif index > 0:
                yield Check("unchecked", record.cell, what,
                              "only the first images of a cell are kept to be compared by levels"
                              if claimed else "the record claims no digests")  # fmt: skip
            if index == 0:
                same = claimed == pixels_digest(pixels)
                yield self._picture(record, sample_grid(cell, self.fresh), within=not same)

    def _picture(self, record: Record, grid: NDArray[np.uint8], *, within: bool) -> Check:
        """Compares the first images with the lossless sample sheet in the results folder."""
        path = self.folder / "samples" / f"{record.cell}.png"
        what = f"samples/{path.name}"
        try:
            with Image.open(path) as image:
                claimed = np.asarray(image.convert("RGB")).astype(np.int16)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            return Check("differs", record.cell, what, f"it does not read: {error}")
        ours = np.asarray(Image.fromarray(grid).convert("RGB")).astype(np.int16)
        if claimed.shape != ours.shape:
            return Check("differs", record.cell, what, f"{claimed.shape}, not {ours.shape}")
        gap = np.abs(claimed - ours)
        allowed = self.options.levels if within else 0
        if int(gap.max()) <= allowed:
            exact = "to the bit" if not gap.any() else f"within {int(gap.max())} levels"
            return Check("confirmed", record.cell, what, exact)
        share = float((gap > allowed).mean())
        message = f"{100 * share:.3g}% of its values are off, by up to {gap.max()}"
        return Check("differs", record.cell, what, message)

    def _scores(self, record: Record, cell: Cell) -> Iterator[Check]:
        for planned in cell.scores:
            if planned.job is not None:
                self.engine.make(self.plan, planned.job)
                yield from self._compared(record, score_records(planned, self.fresh))

    def _compared(self, record: Record, ours: Sequence[ScoreRecord]) -> Iterator[Check]:
        claimed = {(s.name, s.fingerprint): s for s in record.scores}
        for score in ours:
            # A score missing from the record is reported by the check against the plan.
            if (score.name, score.fingerprint) in claimed:
                claim = claimed[score.name, score.fingerprint]
                yield compared(record, claim, score, self.options)

    def _cached(self, record: Record, cell: Cell) -> Iterator[Check]:
        """Compares the cached scores of an unchosen cell; yields faults only."""
        if not (self.folder / "samples" / f"{record.cell}.png").is_file():
            yield Check("differs", record.cell, f"samples/{record.cell}.png", "it is missing")
        for planned in cell.scores:
            if planned.job is not None and self.kept.has(planned.job):
                checks = self._compared(record, score_records(planned, self.kept))
                yield from (check for check in checks if check.verdict != "confirmed")

    def _pixels(self, cell: Cell, index: int) -> NDArray[np.uint8]:
        path = self.fresh.folder(cell.shards[index]) / "pixels.npy"
        pixels: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return pixels
