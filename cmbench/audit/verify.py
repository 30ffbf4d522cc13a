"""Is what a results folder claims what its recorded seeds give? A random part is made again.

First every record is held against itself (identity, fingerprints, counts, tables) and against the
suite's plan (models, weights, seeds, metrics). Then a random fraction of the claimed shards is
sampled anew, in a store of its own, and compared with the digests and pictures that were recorded;
the cells they belong to are scored anew and each number is compared. Nothing in the cache is taken
on trust but trained weights, whose effect the comparison shows.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cmbench.audit.cached import differing_fields
from cmbench.audit.claims import Finding, Options, compared, contradictions, table_faults
from cmbench.core.digests import digest, pixels_digest, text_sha256
from cmbench.core.errors import CmbenchError, Pending, UserError
from cmbench.core.images import image_grid
from cmbench.core.yaml_source import Source, read_yaml, validate
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import Progress
from cmbench.record.folder import read_results
from cmbench.record.schema import Record
from cmbench.store.store import Address, Store
from cmbench.suite.networks import DataLookup
from cmbench.suite.planner import Cell, Plan, make_plan
from cmbench.suite.spec import Suite, find_suite

__all__ = ["Verdict", "verify_results"]

_SHOWN = 64


@dataclass
class Verdict:
    """All findings, and what was made again."""

    findings: list[Finding] = field(default_factory=list)
    shards: int = 0
    claimed: int = 0
    cells: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> bool:
        """Whether something was made again and nothing differs or had to be left unchecked."""
        kinds = {f.verdict for f in self.findings}
        return "confirmed" in kinds and kinds <= {"confirmed"}

    @property
    def exit_code(self) -> int:
        """0 confirmed, 1 something differs, 3 something could not be checked."""
        if any(f.verdict == "differs" for f in self.findings):
            return 1
        return 0 if self.confirmed else 3

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"confirmed": self.confirmed, **asdict(self)}


def verify_results(
    folder: Path,
    store: Store,
    device: torch.device,
    progress: Progress,
    *,
    options: Options | None = None,
    suite: Path | None = None,
    data: DataLookup | None = None,
) -> Verdict:
    """Verifies a results folder.

    Args:
        folder: What `cmbench run` wrote.
        store: The cache, for trained weights.
        device: Where the samples are made again.
        progress: Progress.
        options: What is checked and how strictly.
        suite: The suite's file, where it names files beside it; found by name otherwise.
        data: Paths of data sets.

    Raises:
        UserError: If the folder holds no results, or its suite does not read.
    """
    chosen, verdict = options or Options(), Verdict()
    records = read_results(folder)
    done = [r for r in records if r.status == "done"]
    for record in done:
        verdict.findings += contradictions(record)
    verdict.findings += table_faults(folder, done)
    try:
        plan = _plan(folder, records, suite, data)
    except UserError as error:
        verdict.findings.append(Finding("differs", "", "the suite's plan", str(error)))
        return verdict
    cells = {cell.id: cell for cell in plan.cells}
    known = []
    for record in done:
        cell = cells.get(record.cell)
        finding = _planned(record, cell)
        verdict.findings += [finding] if finding else []
        if cell is not None and cell.pending is None and finding is None:
            known.append((record, cell))
    with tempfile.TemporaryDirectory(prefix="cmbench-verify-") as scratch:
        again = _Again(plan, store, Store(Path(scratch)), device, progress, chosen, folder)
        again.check(known, verdict)
    return verdict


def _plan(
    folder: Path, records: Sequence[Record], suite: Path | None, data: DataLookup | None
) -> Plan:
    kept = folder / "suite.yaml"
    if not kept.is_file():
        raise UserError(f"{kept} is missing, so nothing can be made again")
    source = read_yaml(kept)
    origin = suite or _origin(records[0].suite, source.text)
    # The text is the one that was run; its place is where the files that it names lie.
    placed = Source(origin or kept, source.text, source.data, source.lines)
    return make_plan(validate(placed, Suite), placed, data=data)


def _origin(name: str, text: str) -> Path | None:
    try:
        found = find_suite(name)
    except UserError:
        return None
    return found if text_sha256(found.read_text("utf-8")) == text_sha256(text) else None


def _planned(record: Record, cell: Cell | None) -> Finding | None:
    """Whether the suite, with the weights and data at hand, plans this very cell."""
    if cell is None:
        return Finding(
            "differs", record.cell, f"{record.label}",
            "the suite plans no such cell: another model, weights file, sampler, seed or count",
        )  # fmt: skip
    if cell.pending is not None:
        return Finding("unchecked", record.cell, record.label, str(cell.pending.reason))
    planned = {digest(s.protocol) for s in cell.scores}
    for score in record.scores:
        if score.fingerprint not in planned:
            near = [s.protocol for s in cell.scores if s.metric.spec() == score.protocol["metric"]]
            fields = list(differing_fields(score.protocol, near[0])) if near else ["metric"]
            return Finding("differs", record.cell, score.title,
                           f"another protocol than the suite's: {', '.join(fields)}")  # fmt: skip
    return None


class _DamagedError(CmbenchError):
    """Something in the cache is not what was put there."""


class _Again:
    """Makes shards and scores again in a store of their own."""

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
        """Chooses shards, makes them again, and compares."""
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

    def _cell(self, record: Record, cell: Cell, shards: list[int]) -> Iterator[Finding]:
        try:
            self._bring_weights(cell)
            for index, shard in enumerate(cell.shards):
                if index in shards or not self._borrow(record, index, shard):
                    self.engine.make(self.plan, shard)
            yield from self._samples(record, cell, shards)
            yield from self._facts(record, cell)
            yield from self._scores(record, cell)
        except _DamagedError as error:
            yield Finding("differs", record.cell, record.label, str(error))
        except Pending as reason:
            yield Finding("unchecked", record.cell, record.label, str(reason))
        except JobFailedError as error:
            yield Finding("unchecked", record.cell, record.label, f"it can't be made: {error}")

    def _bring_weights(self, cell: Cell) -> None:
        """Trained weights from the cache, whole by their checksums; or trained again."""
        for job in cell.network.jobs if cell.network else ():
            if self.fresh.has(job.address):
                continue
            there = self.kept.present(job.address)
            if self.kept.has(job.address):
                self._copy(job.address)
            elif there:
                raise _DamagedError(f"the trained weights in the cache were altered ({job.title})")
            elif not self.options.retrain:
                raise Pending(
                    f"its trained weights are not in the cache ({job.title})",
                    command="cmbench verify --retrain, which trains them again",
                )

    def _borrow(self, record: Record, index: int, shard: Address) -> bool:
        """Takes a shard that was not chosen from the cache, if it is what the record claims."""
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

    def _facts(self, record: Record, cell: Cell) -> Iterator[Finding]:
        """Evaluations and parameters, counted again."""
        read = [
            json.loads((self.fresh.folder(s) / "facts.json").read_text("utf-8"))
            for s in cell.shards
        ]
        sizes = [self.plan.jobs[s].spec["count"] for s in cell.shards]
        spent = sum(f["nfe"] * n for f, n in zip(read, sizes, strict=True)) / sum(sizes)
        for name, claimed, ours in (
            ("NFE", record.nfe, round(spent, 6)),
            ("parameters", record.parameters, read[0]["parameters"]),
        ):
            if claimed != ours:
                yield Finding("differs", record.cell, name, f"{claimed} claimed, {ours} counted")

    def _samples(self, record: Record, cell: Cell, shards: list[int]) -> Iterator[Finding]:
        for index in shards:
            pixels = self._pixels(cell, index)
            place = self.plan.jobs[cell.shards[index]].spec["first"]
            what = f"images {place} to {place + len(pixels) - 1}"
            claimed = record.shards[index] if index < len(record.shards) else None
            if claimed == pixels_digest(pixels):
                yield Finding("confirmed", record.cell, what, "to the bit")
            elif claimed is not None and self.options.levels == 0:
                yield Finding("differs", record.cell, what, "other pixels than were claimed")
            elif index > 0:
                yield Finding("unchecked", record.cell, what,
                              "only the first images of a cell are kept to be compared by levels"
                              if claimed else "the record claims no digests")  # fmt: skip
            if index == 0:
                same = claimed == pixels_digest(pixels)
                yield self._picture(record, self._first(cell), within=not same)

    def _first(self, cell: Cell) -> NDArray[np.uint8]:
        """The images of the sheet: all shards are there, made again or found to be as claimed."""
        parts: list[NDArray[np.uint8]] = []
        for index in range(len(cell.shards)):
            parts.append(self._pixels(cell, index))
            if sum(map(len, parts)) >= _SHOWN:
                break
        return np.concatenate(parts)[:_SHOWN]

    def _picture(self, record: Record, pixels: NDArray[np.uint8], *, within: bool) -> Finding:
        """The first images against the sheet in the results folder, which loses nothing."""
        path = self.folder / "samples" / f"{record.cell}.png"
        what = f"samples/{path.name}"
        try:
            with Image.open(path) as image:
                claimed = np.asarray(image.convert("RGB")).astype(np.int16)
        except OSError as error:
            return Finding("differs", record.cell, what, f"it does not read: {error}")
        ours = image_grid(torch.from_numpy(pixels), 8, gap=0).numpy().astype(np.int16)
        if claimed.shape != ours.shape:
            return Finding("differs", record.cell, what, f"{claimed.shape}, not {ours.shape}")
        gap = np.abs(claimed - ours)
        allowed = self.options.levels if within else 0
        if int(gap.max()) <= allowed:
            exact = "to the bit" if not gap.any() else f"within {int(gap.max())} levels"
            return Finding("confirmed", record.cell, what, exact)
        share = float((gap > allowed).mean())
        told = f"{100 * share:.3g}% of its values are off, by up to {gap.max()}"
        return Finding("differs", record.cell, what, told)

    def _scores(self, record: Record, cell: Cell) -> Iterator[Finding]:
        for claimed in record.scores:
            planned = next(s for s in cell.scores if digest(s.protocol) == claimed.fingerprint)
            if planned.job is None:
                yield Finding("unchecked", record.cell, claimed.title, "its extractor is not here")
                continue
            self.engine.make(self.plan, planned.job)
            ours = self._score(planned.job, claimed.name)
            yield compared(record, claimed, ours, self.options, planned.job.key)

    def _score(self, address: Address, name: str) -> dict[str, Any]:
        path = self.fresh.folder(address) / "scores.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))[name]
        return found

    def _pixels(self, cell: Cell, index: int) -> NDArray[np.uint8]:
        path = self.fresh.folder(cell.shards[index]) / "pixels.npy"
        found: NDArray[np.uint8] = np.load(path, allow_pickle=False)
        return found
