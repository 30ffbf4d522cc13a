"""Two runs side by side: comparable or not, paired differences, and shifts by field."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cmbench.audit.cached import differing_fields
from cmbench.cli.main import app
from cmbench.core.loader import create
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import load_reference
from cmbench.record.folder import read_records

SUITE = """\
suite: {name}
dataset: digits
images: {{count: {count}, shard: 50}}
quantisation: {rule}
features: digits_classifier
metrics: [frechet_distance, kid, {{name: precision_recall, k: {k}}}]
reference: {{dataset: {{name: digits, split: {split}}}}}
runs:
  - {{model: oracle/{card}, label: model, sampler: {sampler}, nfe: [{nfe}]}}
"""


RUNS: dict[str, dict[str, object]] = {
    "a": {},
    "other": {"card": "gaussian", "sampler": "heun", "nfe": 17},
    "truncate": {"rule": "truncate"},
    "fewer": {"count": 80},
    "k4": {"k": 4},
    "test": {"split": "test"},
    "mixed": {"rule": "truncate", "count": 80, "split": "test"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all runs, and the cache they share."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMBENCH_CACHE", str(folder / "cache"))
        for name, changes in RUNS.items():
            values = {"count": 100, "rule": "round", "k": 3, "split": "train",
                      "card": "consistency", "sampler": "multistep", "nfe": 1}  # fmt: skip
            file = folder / f"{name}.yaml"
            file.write_text(SUITE.format(name=name, **(values | changes)))
            done = CliRunner().invoke(
                app, ["run", str(file), "--results", str(folder), "--no-report", "-q",
                      "--device", "cpu"],
            )  # fmt: skip
            assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def runs(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CMBENCH_CACHE", str(made / "cache"))
    return made


def _json(*arguments: object) -> tuple[int, dict]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.output)


def test_differing_fields_are_dotted_places():
    a = {"metric": {"name": "kid", "k": 3}, "images": 10}
    assert differing_fields(a, {"metric": {"name": "kid", "k": 5}, "images": 10}) == {
        "metric.k": (3, 5)
    }
    assert differing_fields(a, {"metric": None, "images": 10}) == {"metric": (a["metric"], None)}


def test_two_models_under_one_protocol_differ_by_a_paired_amount(runs):
    a, b = runs / "a", runs / "other"
    code, found = _json("compare", a, b)
    assert code == 0
    assert found["comparable"]
    rows = {row["score"]: row for row in found["rows"]}
    assert set(rows) == {"FD-digits", "KID", "precision", "recall"}
    assert rows["FD-digits"]["paired"]
    assert not rows["recall"]["paired"]
    one, two = (read_records(folder)[0].score("frechet_distance") for folder in (a, b))
    assert rows["FD-digits"]["difference"] == pytest.approx(one.value - two.value)
    assert rows["FD-digits"]["error"] < 0.3 * np.hypot(one.error, two.error)
    assert all(r["p_corrected"] >= r["p"] for r in found["rows"])
    table = CliRunner().invoke(app, ["compare", str(a), str(b)])
    assert "one protocol" in table.output


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("truncate", "quantisation"),
        ("fewer", "images"),
        ("k4", "metric.k"),
        ("test", "reference.data"),
    ],
)
def test_another_protocol_is_named_not_compared(runs, name, field):
    a, b = runs / "a", runs / name
    code, found = _json("compare", a, b)
    assert code == 1
    assert not found["comparable"]
    different = [row for row in found["rows"] if not row["comparable"]]
    assert different
    assert all(field in row["fields"] for row in different)
    assert all(row["difference"] is None for row in different)
    assert {r["score"] for r in different} >= ({"precision"} if field == "metric.k" else {"KID"})


def test_each_field_s_shift_is_what_changing_it_alone_does(runs):
    """Count, rounding rule and statistics together; each shift against the metric itself."""
    a, b = runs / "a", runs / "mixed"
    code, found = _json("explain", f"{a}:", f"{b}:", "--device", "cpu")
    assert code == 0
    shifts = {s["group"]: s for s in found["shifts"]}
    assert set(shifts) == {"images", "quantisation", "reference"}
    assert all(s["interval"][0] <= s["shift"] <= s["interval"][1] for s in shifts.values())

    cache = runs / "cache"
    rows = _features(cache, 100)
    references = {
        r.moments["pool"].count: r
        for r in map(load_reference, cache.rglob("reference.npz"))
    }  # fmt: skip
    metric = create("metric", "frechet_distance")

    def value(part: np.ndarray, reference: int) -> float:
        scores = metric.scores(Features({"pool": part}), references[reference])
        return scores["frechet_distance"].value

    base = value(rows, 1438)
    assert found["a"] == pytest.approx(base)
    assert shifts["images"]["shift"] == pytest.approx(value(rows[:80], 1438) - base)
    assert shifts["reference"]["shift"] == pytest.approx(value(rows, 359) - base)
    total = sum(s["shift"] for s in shifts.values())
    assert found["rest"] == pytest.approx(found["b"] - found["a"] - total)


def test_the_metric_s_own_parameter_is_measured_on_the_same_features(runs):
    _, found = _json("explain", f"{runs / 'a'}:", f"{runs / 'k4'}:", "--score", "precision")
    (shift,) = found["shifts"]
    assert shift["group"] == "metric"
    assert shift["fields"] == {"metric.k": [3, 4]}
    assert shift["shift"] == pytest.approx(found["b"] - found["a"], abs=1e-12)
    assert shift["interval"][0] <= shift["shift"] <= shift["interval"][1]
    assert found["rest"] == pytest.approx(0, abs=1e-12)


def test_the_resize_is_measured_through_the_extractor(runs):
    """Two input sizes of one extractor: the same pixels through the second's network."""
    text = SUITE.format(name="{size}", count=30, rule="round", k=3, split="test",
                        card="consistency", sampler="multistep", nfe=1)  # fmt: skip
    for size in (32, 40):
        net = f"features: {{name: efficientnet_lite0, size: {size}}}"
        file = runs / f"size{size}.yaml"
        file.write_text(
            text.replace("{size}", f"size{size}").replace("features: digits_classifier", net)
        )
        done = CliRunner().invoke(
            app, ["run", str(file), "--results", str(runs), "--no-report", "-q",
                  "--device", "cpu"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    a, b = runs / "size32", runs / "size40"
    assert _json("compare", a, b)[0] == 1
    _, found = _json("explain", f"{a}:", f"{b}:", "--device", "cpu")
    shifts = {s["group"]: s for s in found["shifts"]}
    assert "extractor.size" in shifts["extractor"]["fields"]
    assert shifts["extractor"]["shift"] == pytest.approx(found["b"] - found["a"], rel=1e-4)
    low, high = shifts["extractor"]["interval"]
    assert low < shifts["extractor"]["shift"] < high


def test_the_other_rule_is_measured_exactly_where_it_was_sampled(runs):
    a, b = runs / "a", runs / "truncate"
    _, found = _json("explain", f"{a}:", f"{b}:", "--device", "cpu")
    (shift,) = found["shifts"]
    assert shift["note"] == "the same samples, sampled with 'truncate'"
    assert shift["shift"] == pytest.approx(found["b"] - found["a"], rel=1e-6)
    assert found["rest"] == pytest.approx(0, abs=1e-6)
    for manifest in list((runs / "cache").glob("objects/sample/*/*/manifest.json")):
        if json.loads(manifest.read_text())["spec"]["quantisation"] == "truncate":
            shutil.rmtree(manifest.parent)
    _, emulated = _json("explain", f"{a}:", f"{b}:", "--device", "cpu")
    (guess,) = emulated["shifts"]
    assert guess["note"].startswith("emulated")
    reach = guess["interval"][1] - guess["shift"]
    assert abs(guess["shift"] - shift["shift"]) < 2 * reach
    assert reach < 0.1
    assert "no results" in _failure("explain", str(runs / "none"), f"{b}:")
    assert "has no score" in _failure("explain", f"{a}:", f"{b}:", "--score", "fid")


def _failure(*arguments: str) -> str:
    return str(CliRunner().invoke(app, list(arguments)).exception)


def _features(cache: Path, count: int) -> np.ndarray:
    """The pool features of the cell with `count` images, its shards in order."""
    record = read_records(cache.parent / "a")[0]
    score = next(cache.glob(f"objects/score/*/{record.scores[0].key}/manifest.json"))
    wanted = json.loads(score.read_text())["spec"]["features"]
    shards = {}
    for manifest in cache.glob("objects/features/*/*/manifest.json"):
        spec = json.loads(manifest.read_text())["spec"]
        sample = next(cache.glob(f"objects/sample/*/{spec['pixels']}/manifest.json"))
        told = json.loads(sample.read_text())["spec"]
        if manifest.parent.name in wanted:
            shards[told["first"]] = np.load(manifest.parent / "pool.npy")
    rows = np.concatenate([shards[first] for first in sorted(shards)])
    assert len(rows) == count
    return rows
