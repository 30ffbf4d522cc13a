"""Checks the report in a results folder against the report that its records give.

A report is a pure function of the records and the files beside them, to the byte: it is rendered
again elsewhere and compared file by file.
"""

import contextlib
import csv
import io
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from cmbench import __version__
from cmbench.audit.claims import Check
from cmbench.core.environment import package_versions
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.files import read_regular
from cmbench.record.folder import read_provenance
from cmbench.report.write import write_report

__all__ = ["rendered_checks"]

_SOURCES = ("records", "samples", "training")
_BESIDE = ("speed.json", "provenance.json", "suite.yaml", "selection.json")
_RENDERED = ("leaderboard.*", "field.*", "report.html", "samples.png", "plots/*")
_DRAWN = ("matplotlib", "pillow")
_FIX = "`cmbench report` writes it anew"


def rendered_checks(folder: Path, scratch: Path) -> Iterator[Check]:
    """Yields a check for each file of the report in `folder`.

    Args:
        folder: The results folder; without a report there is nothing to check.
        scratch: An empty folder, where the report is rendered again.
    """
    present = {p.relative_to(folder) for pattern in _RENDERED for p in folder.glob(pattern)}
    present = {name for name in present if not name.name.startswith(".")}
    if not present:
        return
    try:
        _copy_sources(folder, scratch)
        with contextlib.redirect_stderr(io.StringIO()):  # skipped files were named before
            write_report(scratch, plots=any(name.parent.name == "plots" for name in present))
    except (CmbenchError, OSError, ValueError, Image.DecompressionBombError) as error:
        yield Check("differs", "", "the report", f"these records can't be rendered: {error}")
        return
    expected = {p.relative_to(scratch) for pattern in _RENDERED for p in scratch.glob(pattern)}
    verdict = _Strictness(folder)
    for name in sorted(present & expected):
        fault = _fault(folder / name, scratch / name)
        if fault is None:
            yield Check("confirmed", "", str(name), "as the records give it")
        else:
            yield Check(verdict.of(name), "", str(name), f"{fault}; {_FIX}")
    for name in sorted(present - expected):
        yield Check("unchecked", "", str(name), "no report of these records has this file")


def _copy_sources(folder: Path, scratch: Path) -> None:
    """Copies regular files only: a link or a pipe in a foreign folder leads elsewhere."""
    for sub in _SOURCES:
        (scratch / sub).mkdir()
        for file in sorted((folder / sub).glob("*")):
            _copy(file, scratch / sub / file.name)
    for name in _BESIDE:
        _copy(folder / name, scratch / name)


def _copy(source: Path, target: Path) -> None:
    try:
        regular = stat.S_ISREG(source.lstat().st_mode)
    except OSError:
        return
    if regular:
        shutil.copyfile(source, target)


class _Strictness:
    """Strictness of comparison: other versions of cmbench or drawing libraries may differ."""

    def __init__(self, folder: Path) -> None:
        provenance = read_provenance(folder, tell=lambda line: None)
        ours = package_versions()
        self.ours = provenance is not None and provenance.cmbench == __version__
        self.drawn_alike = (
            self.ours
            and provenance is not None
            and all(provenance.packages.get(name) == ours.get(name) for name in _DRAWN)
        )

    def of(self, name: Path) -> Literal["differs", "unchecked"]:
        drawn = name.suffix in (".png", ".svg")
        return "differs" if (self.drawn_alike if drawn else self.ours) else "unchecked"


def _fault(claimed: Path, expected: Path) -> str | None:
    """Describes the difference between two files of a report; None if there is none."""
    try:
        one, two = read_regular(claimed), expected.read_bytes()
    except UserError as error:
        return f"it does not read: {error}"
    if one == two:
        return None
    if expected.suffix == ".png":
        return _picture_fault(claimed, expected)
    text, ours = one.decode("utf-8", "replace"), two.decode("utf-8")
    return _csv_fault(text, ours) if expected.suffix == ".csv" else _line_fault(text, ours)


def _picture_fault(claimed: Path, expected: Path) -> str | None:
    try:
        with Image.open(claimed) as one, Image.open(expected) as two:
            if one.size != two.size:
                return f"{one.size[0]}x{one.size[1]} pixels, not {two.size[0]}x{two.size[1]}"
            pixels = [np.asarray(image.convert("RGB")) for image in (one, two)]
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"it does not read: {error}"
    share = float((pixels[0] != pixels[1]).mean())
    return f"{100 * share:.3g}% of its values differ" if share else None


def _csv_fault(claimed: str, expected: str) -> str:
    ours = list(csv.reader(io.StringIO(expected)))
    try:
        rows = list(csv.reader(io.StringIO(claimed)))
    except csv.Error as error:
        return f"it does not read: {error}"
    if len(rows) != len(ours):
        return f"{len(rows)} rows, not {len(ours)}"
    for number, (row, our) in enumerate(zip(rows, ours, strict=True), 1):
        for column, one, two in zip(ours[0], row, our, strict=False):
            if one != two:
                return f"row {number}, {column}: {one[:60]!r}, the records give {two[:60]!r}"
    return _line_fault(claimed, expected)


def _line_fault(claimed: str, expected: str) -> str:
    one, two = claimed.splitlines(), expected.splitlines()
    for number, (a, b) in enumerate(zip(one, two, strict=False), 1):
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            start = max(0, at - 20)
            return (
                f"line {number}: {a[start : at + 40]!r}, the records give {b[start : at + 40]!r}"
            )
    return f"{len(one)} lines, not {len(two)}" if len(one) != len(two) else "other line endings"
