"""Reads a suite's results folder; every file is validated once, here.

An unreadable file (empty, with a merge conflict, from a newer cmbench, a link, a pipe) is skipped,
and a line on standard error names the file, the field and what is wrong with it: one stray file
never stops a report.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from cmbench.core.errors import UserError
from cmbench.core.files import read_regular
from cmbench.record.schema import SCHEMA, Provenance, Record, Speed, TrainingLog

__all__ = [
    "Tell",
    "fault_of",
    "on_stderr",
    "read_provenance",
    "read_record",
    "read_records",
    "read_results",
    "read_speeds",
    "read_training_logs",
    "schema_of",
]

Tell = Callable[[str], None]
"""Takes one message about one skipped file."""

_ODD_NUMBER = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}")

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def on_stderr(line: str) -> None:
    """Writes a line to standard error, control characters and lone surrogates escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    sys.stderr.write(f"{shown}\n")


def read_records(folder: Path, tell: Tell = on_stderr) -> list[Record]:
    """Reads the records of a suite's results folder, ordered by cell id.

    Args:
        folder: The folder; a missing folder has no records.
        tell: Called with a message for each skipped file.
    """
    records = []
    for path, record in _each(folder / "records", Record, tell):
        if path.endswith(f"/{record.cell}.json"):
            records.append(record)
        else:
            tell(f"skipped {path}: cell: it is of cell {record.cell}, unlike its file's name")
    return records


def read_record(path: Path, tell: Tell = on_stderr) -> Record | None:
    """Reads one record; None if it is unreadable."""
    return _read(str(path), Record, tell)


def read_results(folder: Path, tell: Tell = on_stderr) -> list[Record]:
    """Reads the records of a results folder, of which there must be at least one.

    Raises:
        UserError: If there are none.
    """
    records = read_records(folder, tell)
    if not records:
        raise UserError(f"{folder} holds no results", expected="a folder that `cmbench run` wrote")
    return records


def read_training_logs(folder: Path, tell: Tell = on_stderr) -> dict[str, TrainingLog]:
    """Reads the training logs of a results folder, by file name without its suffix."""
    return {Path(path).stem: log for path, log in _each(folder / "training", TrainingLog, tell)}


def read_provenance(folder: Path, tell: Tell = on_stderr) -> Provenance | None:
    """Reads the provenance of a results folder; None if it is missing or unreadable."""
    path = str(folder / "provenance.json")
    return _read(path, Provenance, tell) if os.path.lexists(path) else None


def read_speeds(folder: Path, tell: Tell = on_stderr) -> dict[str, Speed]:
    """Reads the speeds of a results folder by cell id; an unreadable entry is skipped."""
    path = str(folder / "speed.json")
    if not os.path.lexists(path):
        return {}
    try:
        entries = json.loads(read_regular(Path(path)))
        if not isinstance(entries, dict):
            raise ValueError("it is not a mapping of cells to speeds")
    except (UserError, ValueError, RecursionError) as error:
        tell(f"skipped {path}: {_reason(path, error)}")
        return {}
    speeds = {}
    for cell, entry in entries.items():
        try:
            speeds[cell] = Speed.model_validate(entry)
        except ValidationError as error:
            tell(f"skipped an entry of {path}: {cell}.{fault_of(error)}")
    return speeds


def schema_of(path: Path) -> int | None:
    """Returns the schema version stated in a record's file, even if the record is unreadable."""
    try:
        stated = json.loads(read_regular(path)).get("schema_version")
    except (UserError, ValueError, AttributeError, RecursionError):
        return None
    return stated if isinstance(stated, int) else None


def fault_of(error: ValidationError) -> str:
    """Returns the first fault, field first: `scores.0.value: Input should be a finite number`."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _each(place: Path, kind: type[AnyModel], tell: Tell) -> list[tuple[str, AnyModel]]:
    # Joined as text and read as bytes: 10,000 records take a third of the time.
    names = os.listdir(place) if place.is_dir() else []
    paths = [f"{place}/{name}" for name in sorted(names) if name.endswith(".json")]
    models = ((path, _read(path, kind, tell)) for path in paths)
    return [(path, model) for path, model in models if model is not None]


def _read(path: str, kind: type[AnyModel], tell: Tell) -> AnyModel | None:
    data: bytes | None = None
    try:
        data = read_regular(Path(path))
        model = kind.model_validate_json(data)
        if _ODD_NUMBER.search(data):
            _refuse_odd_numbers(data)
    except (UserError, ValueError, RecursionError) as error:
        tell(f"skipped {path}: {_content_fault(data, kind) or _reason(path, error)}")
        return None
    version = _version_fault(getattr(model, "schema_version", SCHEMA))
    if version:
        tell(f"skipped {path}: {version}")
        return None
    return model


def _reason(path: str, error: Exception) -> str:
    if isinstance(error, ValidationError):
        return fault_of(error)
    if isinstance(error, UserError):
        return error.what.removeprefix("file ").removeprefix(f"{path} ")
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _content_fault(data: bytes | None, kind: type[BaseModel]) -> str:
    """Describes the file itself where that says more than its first bad field; else empty."""
    if data is None:
        return ""
    if not data.strip():
        return "it is empty"
    if re.search(rb"^<<<<<<< ", data, re.M):
        return "it holds a merge conflict (<<<<<<<)"
    if kind is not Record:
        return ""
    try:
        return _version_fault(json.loads(data).get("schema_version", SCHEMA))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _version_fault(version: Any) -> str:
    if not isinstance(version, int) or version == SCHEMA:
        return ""
    age: Literal["a newer", "an older"] = "a newer" if version > SCHEMA else "an older"
    fix = "upgrade cmbench" if version > SCHEMA else "run the suite again"
    return (
        f"schema_version: it was written by {age} cmbench ({version}; this one reads {SCHEMA}): "
        f"{fix}"
    )


def _refuse_odd_numbers(data: bytes) -> None:
    """Refuses NaN and infinities in parts without a schema, such as a protocol."""

    def refuse(text: str) -> None:
        raise ValueError(f"it holds {text}, which is no finite number")

    def finite(text: str) -> float:
        if abs(float(text)) == float("inf"):
            refuse(text)
        return float(text)

    json.loads(data, parse_constant=refuse, parse_float=finite)
