"""A results folder with strays: each is skipped and named, the rest is read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.record.folder import (
    read_provenance,
    read_records,
    read_speeds,
    read_training_logs,
    schema_of,
)
from cmbench.record.schema import SCHEMA, Record, ScoreRecord


def _record(cell: str = "c1") -> Record:
    score = ScoreRecord(
        name="fd", title="FD", value=2.0, error=0.1, interval=(1.8, 2.2), count=10,
        higher_is_better=False, fingerprint="a" * 64, protocol={"images": 10},
    )  # fmt: skip
    return Record(
        suite="s", suite_version=1, cell=cell, status="done", label="l", model="m/c", family="m",
        nfe=1.0, seed=0, images=10, scores=[score],
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "c1.json").write_text(_record().model_dump_json())
    return tmp_path


def _changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    held = json.loads(_record("c2").model_dump_json())
    change(held)
    return json.dumps(held).encode()


STRAYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "no JSON": (b"\x00\x05\x16\x07 Mac OS X", "Invalid JSON"),
    "merge conflict": (b"{\n<<<<<<< ours\n1\n", "merge conflict"),
    "a list": (b"[]", "object"),
    "newer": (_changed(lambda r: r.update(schema_version=SCHEMA + 1, x=1)), "newer cmbench"),
    "newer, alike": (_changed(lambda r: r.update(schema_version=999)), "upgrade cmbench"),
    "older": (_changed(lambda r: r.update(schema_version=0)), "older cmbench"),
    "a field missing": (_changed(lambda r: r.pop("seed")), "seed: Field required"),
    "a field too many": (_changed(lambda r: r.update(more=1)), "more: Extra"),
    "NaN": (_changed(lambda r: r["scores"][0].update(value=float("nan"))), "scores.0.value"),
    "infinite error": (_changed(lambda r: r["scores"][0].update(error=float("inf"))), "error"),
    "error of 1e300": (_changed(lambda r: r["scores"][0].update(error=1e300)), "scores.0.error"),
    "negative error": (_changed(lambda r: r["scores"][0].update(error=-1)), "scores.0.error"),
    "reversed": (_changed(lambda r: r["scores"][0].update(interval=[3, 1])), "reversed"),
    "NaN in a protocol": (
        _changed(lambda r: r["scores"][0]["protocol"].update(x=float("nan"))), "NaN"
    ),
    "1e999 in a protocol": (
        _changed(lambda r: r["scores"][0]["protocol"].update(x=7.5)).replace(b"7.5", b"1e999"),
        "1e999",
    ),
    "a path as cell": (_changed(lambda r: r.update(cell="../../x")), "cell"),
    "a path as key": (_changed(lambda r: r["scores"][0].update(key="/tmp/x")), "scores.0.key"),
    "NUL in a title": (_changed(lambda r: r["scores"][0].update(title="a\x00b")), "title"),
    "another's cell": (_changed(lambda r: r.update(cell="c3")), "c3"),
    "nested": (b'{"suite": ' + b"[" * 5000 + b"]" * 5000 + b"}", "recursion"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_record_is_skipped_and_named_with_its_field(name: str, folder: Path) -> None:
    data, said = STRAYS[name]
    (folder / "records" / "c2.json").write_bytes(data)
    told: list[str] = []
    assert [r.cell for r in read_records(folder, tell=told.append)] == ["c1"]
    (line,) = told
    assert str(folder / "records" / "c2.json") in line
    assert said in line


def test_what_is_no_file_is_skipped_at_once(folder: Path) -> None:
    place = folder / "records"
    os.mkfifo(place / "pipe.json")
    (place / "folder.json").mkdir()
    (place / "loop.json").symlink_to("loop.json")
    (place / "dangling.json").symlink_to("nowhere")
    (place / "endless.json").symlink_to("/dev/zero")
    told: list[str] = []
    assert len(read_records(folder, tell=told.append)) == 1
    assert len(told) == 5


def test_told_lines_go_to_stderr_without_control_characters(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "records" / "\x1b[31mx.json").write_text("")
    read_records(folder)
    line = capsys.readouterr().err
    assert "\x1b" not in line
    assert line.startswith("skipped ")
    assert line.count("\n") == 1


def test_speeds_training_and_provenance_are_read_alike(folder: Path) -> None:
    good = {"seconds_per_image": 0.1, "batch": 1, "device": "cpu"}
    bad = good | {"seconds_per_image": float("nan")}
    (folder / "speed.json").write_text(json.dumps({"c1": good, "c2": bad, "c3": []}))
    (folder / "training").mkdir()
    (folder / "training" / "x.json").write_text('{"label": "x", "points": [{}]}')
    (folder / "provenance.json").write_text('{"cmbench": "0.1.0"')
    told: list[str] = []
    assert list(read_speeds(folder, tell=told.append)) == ["c1"]
    assert read_training_logs(folder, tell=told.append) == {}
    assert read_provenance(folder, tell=told.append) is None
    assert len(told) == 4
    assert "c2.seconds_per_image" in told[0]
    assert "training/x.json" in told[2]
    (folder / "speed.json").write_text("[]")
    assert read_speeds(folder, tell=told.append) == {}
    assert "not a mapping" in told[-1]


def test_a_schema_version_is_read_of_records_that_do_not_read(folder: Path) -> None:
    path = folder / "records" / "c2.json"
    path.write_text('{"schema_version": 7}')
    assert schema_of(path) == 7
    path.write_text("[]")
    assert schema_of(path) is None


def test_a_folder_without_a_record_that_reads_does_not_stop_the_others(folder: Path) -> None:
    """A score's interval need not hold its value, nor have a width, to be drawn."""
    odd = json.loads(_record("c2").model_dump_json()) | {"label": "odd", "nfe": 2.0}
    odd["scores"][0].update(value=5.0, interval=[2.0, 2.0])
    (folder / "records" / "c2.json").write_text(json.dumps(odd))
    (folder / "bad" / "records").mkdir(parents=True)
    (folder / "bad" / "records" / "c1.json").write_text("")
    done = CliRunner().invoke(app, ["report", str(folder / "bad"), str(folder)])
    assert done.exit_code == 2
    assert "holds no results" in done.stderr
    assert (folder / "report.html").is_file()
