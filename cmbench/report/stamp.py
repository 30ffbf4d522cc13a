"""The stamp of a report, by which one that still matches its folder is not rewritten."""

import hashlib
import re
from importlib.resources import files
from pathlib import Path

from cmbench.report.output import is_own

__all__ = ["is_current", "stamp_of"]

_READ = ("records/*.json", "samples/*.png", "training/*.json", "speed.json", "selection.json",
         "suite.yaml", "provenance.json")  # fmt: skip
_WRITTEN = ("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "field.csv", "field.tex")
_STAMP = re.compile(rb'<meta name="cmbench-stamp" content="([0-9a-f]{64})">')
_HEAD = 2000


def stamp_of(folder: Path, tables: dict[str, str]) -> str:
    """SHA-256 of all that a report depends on: the folder's files, this code, its tables."""
    return _stamp(folder, {name: text.encode() for name, text in tables.items()})


def is_current(folder: Path) -> bool:
    """Returns whether the report is complete and was built from these files by this code."""
    page = folder / "report.html"
    if not is_own(page):
        return False
    with page.open("rb") as file:
        found = _STAMP.search(file.read(_HEAD))
    if not _whole(folder):
        return False
    tables = {n: (folder / n).read_bytes() for n in _WRITTEN if is_own(folder / n)}
    return found is not None and found[1].decode() == _stamp(folder, tables)


def _whole(folder: Path) -> bool:
    """Returns whether the pictures exist: plots, and the sheet where there are samples."""
    sheet = is_own(folder / "samples.png") or not any(folder.glob("samples/*.png"))
    return sheet and any(folder.glob("plots/*.png"))


def _stamp(folder: Path, tables: dict[str, bytes]) -> str:
    whole = hashlib.sha256(_code())
    own = [path for pattern in _READ for path in folder.glob(pattern) if is_own(path)]
    for path in sorted(own):
        name = path.relative_to(folder).as_posix()
        whole.update(f"{name}\0{_digest(path.read_bytes())}\n".encode())
    for name in _WRITTEN:
        whole.update(f"{name}\0{_digest(tables[name]) if name in tables else ''}\n".encode())
    return whole.hexdigest()


def _code() -> bytes:
    """SHA-256 of the code and templates that a report depends on."""
    whole = hashlib.sha256()
    for package in ("cmbench.report", "cmbench.stats", "cmbench.record"):
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".js", ".css", ".html"):
                whole.update(path.read_bytes())
    return whole.digest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
