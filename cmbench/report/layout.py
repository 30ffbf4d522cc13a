"""The suite's own order of lines, and their groups, from the suite as it was run."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cmbench.core.errors import UserError
from cmbench.core.yaml_source import parse_yaml
from cmbench.record.folder import Tell, on_stderr
from cmbench.report.escape import printable
from cmbench.report.output import read_own
from cmbench.stats.findings import Finding
from cmbench.stats.rows import Row

__all__ = ["Layout", "read_layout"]

Place = tuple[int, ...]
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class _Run:
    """What of a run tells which rows are its own.

    Args:
        parts: What stands in its labels between the placeholders; empty for any label.
        axes: The values of its training axes, in their order.
    """

    model: str
    parts: list[str]
    samplers: frozenset[str]
    axes: dict[str, list[str]]
    group: str


@dataclass(frozen=True)
class Layout:
    """Title, findings and order of a suite; empty for a board that has none of its own."""

    title: str = ""
    findings: tuple[Finding, ...] = ()
    runs: tuple[_Run, ...] = ()

    def place(self, row: Row) -> Place:
        """Where the row's line stands: the run's place, and those of its values on the axes."""
        found = self._run_of(row)
        if found is None:
            return (len(self.runs),)
        index, run = found
        return index, *(_index(values, row.axes.get(key)) for key, values in run.axes.items())

    def group(self, row: Row) -> str:
        """The group that the suite puts the row into; empty where it gives none."""
        found = self._run_of(row)
        return found[1].group if found else ""

    def _run_of(self, row: Row) -> tuple[int, _Run] | None:
        known = self._by_model.get(row.model, []) + self._by_model.get(row.family, [])
        return next(((i, run) for i, run in known if _fits(run, row)), None)

    @cached_property
    def _by_model(self) -> dict[str, list[tuple[int, _Run]]]:
        found: dict[str, list[tuple[int, _Run]]] = {}
        for index, run in enumerate(self.runs):
            found.setdefault(run.model, []).append((index, run))
        return found


def read_layout(folder: Path, tell: Tell = on_stderr) -> Layout:
    """Reads what reports need of a results folder's suite.yaml; a link to one is not followed.

    A file that does not read is told and skipped: the numbers don't depend on it.
    """
    try:
        path = folder / "suite.yaml"
        given = parse_yaml(read_own(path), path).data or {}
        findings = tuple(Finding.model_validate(f) for f in given.get("findings") or ())
        runs = tuple(_run(run) for run in given.get("runs") or () if isinstance(run, dict))
        return Layout(str(given.get("title") or ""), findings, runs)
    except (UserError, ValidationError, ValueError, TypeError, AttributeError) as error:
        tell(f"skipped {folder / 'suite.yaml'}: {printable(str(error))[:200]}")
        return Layout()


def _run(given: dict[str, Any]) -> _Run:
    label = given.get("label")
    samplers = given.get("sampler") or []
    listed = samplers if isinstance(samplers, list) else [samplers]
    train = given.get("train") or {}
    return _Run(
        model=str(given.get("model", "")),
        parts=_PLACEHOLDER.split(str(label)) if label else [],
        samplers=frozenset(_named(sampler) for sampler in listed),
        axes={k: [_named(v) for v in vs] for k, vs in train.items() if isinstance(vs, list)},
        group=str(given.get("group") or ""),
    )


def _named(value: Any) -> str:
    return str(value.get("name", "")) if isinstance(value, dict) else str(value)


def _fits(run: _Run, row: Row) -> bool:
    sampler = str(row.sampler.get("name", ""))
    return _is_label(row.label, run.parts) and (
        not run.samplers or not sampler or sampler in run.samplers
    )


def _is_label(text: str, parts: list[str]) -> bool:
    """Whether the text holds the parts in their order, from its beginning to its end."""
    if len(parts) < 2:
        return not parts or text == parts[0]
    if not text.startswith(parts[0]):
        return False
    at = len(parts[0])
    for part in parts[1:-1]:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - len(parts[-1]) >= at and text.endswith(parts[-1])


def _index(values: list[str], value: Any) -> int:
    return values.index(str(value)) if str(value) in values else len(values)
